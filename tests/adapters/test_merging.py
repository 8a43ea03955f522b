"""Merging: the sum in float32, rounded once; what cannot hold it is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from adapter_cases import EightBit, disturbed

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
# PEFT 0.21 asks transformers 5 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

from noisewise.adapters import merge  # noqa: E402


def test_merging_in_bfloat16_rounds_once() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64, bias=False)).to(torch.bfloat16)
    weight = net.state_dict()["0.weight"].float()
    adapted = disturbed(peft.get_peft_model(net, peft.LoraConfig(r=4, target_modules=["0"])), 0.02)
    layer = adapted.base_model.model[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    exact = weight + layer.scaling["default"] * (b.float() @ a.float())
    merged: Any = merge(adapted)
    assert torch.equal(merged[0].weight, exact.to(torch.bfloat16))


def test_quantised_layers_are_refused_and_left_as_they_were() -> None:
    torch.manual_seed(0)
    floats, x = nn.Linear(16, 16, bias=False), torch.randn(3, 16)
    net = nn.Sequential(nn.Linear(16, 16), EightBit(floats))
    adapted = disturbed(peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["0", "1"])))
    before, state = adapted(x).detach(), copy.deepcopy(adapted.state_dict())
    with pytest.raises(ValueError, match="1 is quantised and has too few bits for the sum"):
        merge(adapted)
    assert torch.equal(adapted(x), before)
    assert all(torch.equal(value, state[key]) for key, value in adapted.state_dict().items())


def test_tied_weights_are_refused() -> None:
    net: Any = nn.ModuleDict({"words": nn.Embedding(8, 8), "head": nn.Linear(8, 8, bias=False)})
    net["head"].weight = net["words"].weight
    config = peft.LoraConfig(r=2, target_modules=["head"])
    with pytest.raises(ValueError, match=r"head shares its weight with words\.weight"):
        merge(disturbed(peft.get_peft_model(net, config)))


def test_rows_of_a_tied_embedding_are_not_merged_into_an_untrained_head() -> None:
    """PEFT trains the head's rows too where the configuration says tied; here nothing says so."""
    net: Any = nn.ModuleDict(
        {"words": nn.Embedding(8, 8), "mix": nn.Linear(8, 8), "head": nn.Linear(8, 8, bias=False)}
    )
    net["head"].weight = net["words"].weight
    config = peft.LoraConfig(r=2, target_modules=["mix"], trainable_token_indices={"words": [1, 2]})
    with pytest.raises(ValueError, match=r"words shares its weight with head\.weight"):
        merge(disturbed(peft.get_peft_model(net, config)))
