"""A start that subtracts itself: PEFT's other calls find a plain adapter on unmoved weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adapter_cases import CASES, Adapted, EightBit, disturbed

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
# PEFT 0.21 asks transformers 5 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

from noisewise.adapters import gradients, load, lora_ga, merge, pissa, save  # noqa: E402
from noisewise.adapters.layers import base_of, lora_layers  # noqa: E402

CONFIG = peft.LoraConfig(r=2, lora_alpha=4, lora_dropout=0.3, target_modules=["0", "2"])


def net_and_input() -> tuple[Any, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8)), torch.randn(5, 16)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["mixed", "gpt2", "own"])
def test_without_the_adapter_the_model_is_the_clean_one(name: str) -> None:
    """As a DPO loop asks for its reference, again and again: no weight moves, so nothing drifts."""
    model, batches, loss, names, output = vars(CASES[name]()).values()
    before = output(model.eval()).detach()
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=names)
    grads = gradients(model, config, batches, loss)
    config.exclude_modules = [key for key, g in grads.items() if min(g.shape) < 4]
    adapted = disturbed(lora_ga(model, config, grads, mutate_base=True))
    wanted, weights = output(adapted).detach(), copy.deepcopy(adapted.state_dict())
    with adapted.disable_adapter():
        close(output(adapted), before)
    assert torch.equal(output(adapted), wanted)
    other = copy.deepcopy(adapted)
    assert torch.equal(output(other), wanted)
    other.base_model.set_adapter([])
    for key, value in adapted.state_dict().items():
        assert torch.equal(value, weights[key]), key
    close(output(adapted.unload()), before)


def test_only_the_trained_half_learns() -> None:
    """No gradient, no moment and no decay for the half that subtracts the start."""
    model, batches, loss, names, _ = vars(CASES["mixed"]()).values()
    adapted = pissa(model, peft.LoraConfig(r=2, lora_alpha=6, target_modules=names))
    free = [p for p in adapted.parameters() if p.requires_grad]
    assert all(2 in p.shape[:2] for p in free)
    before = {k: v.clone() for k, v in adapted.state_dict().items()}
    optimizer = torch.optim.AdamW(free, lr=1e-2, weight_decay=0.5)
    loss(adapted, batches[0]).backward()
    optimizer.step()
    for key, value in adapted.state_dict().items():
        old = before[key]
        if "lora_" not in key:
            assert torch.equal(value, old), key
            continue
        dim = 0 if "_A" in key else 1
        (first, second), (one, two) = value.chunk(2, dim), old.chunk(2, dim)
        assert torch.equal(second, two), key
        assert not torch.equal(first, one), key


def test_each_of_pefts_ways_to_merge_is_right() -> None:
    net, x = net_and_input()
    before = net(x).detach()
    adapted = disturbed(pissa(net, CONFIG))
    wanted = adapted(x).detach()
    ways: dict[str, Callable[[Adapted], Adapted]] = {
        "merge": merge,
        "merge_and_unload": lambda model: model.merge_and_unload(),
        "safe": lambda model: model.merge_and_unload(safe_merge=True),
    }
    for way, call in ways.items():
        assert float((call(copy.deepcopy(adapted))(x) - wanted).abs().max()) < 5e-6, way
    model = copy.deepcopy(adapted)
    model.merge_adapter()
    close(model(x), wanted)
    with model.disable_adapter():
        close(model(x), before)
    close(model.unload()(x), before)


@pytest.mark.parametrize("kind", ["tied", "quantised", "dora", "bias", "bfloat16"])
def test_it_works_where_a_weight_cannot_be_moved(kind: str) -> None:
    torch.manual_seed(0)
    float_net = nn.Sequential(nn.Linear(16, 16, kind == "bias"), nn.Tanh(), nn.Linear(16, 16))
    net: Any = copy.deepcopy(float_net)
    x, more = torch.randn(2, 8, 16), {}
    if kind == "tied":
        net[2].weight = net[0].weight
    if kind == "quantised":
        net[0] = EightBit(float_net[0])
    if kind == "bfloat16":
        net, float_net, x = net.bfloat16(), float_net.bfloat16(), x.bfloat16()
    if kind in ("dora", "bias"):
        more = {"use_dora" if kind == "dora" else "lora_bias": True}
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["0"], **more)
    grads = gradients(float_net, config, x, lambda m, b: m(b).float().square().mean())
    before, weights = net(x[0]).detach(), copy.deepcopy(net.state_dict())
    adapted = lora_ga(net, config, grads, mutate_base=True)
    size = 2e-2 if kind == "bfloat16" else 1e-6  # bfloat16: the output itself is rounded
    assert float((adapted(x[0]) - before).detach().norm()) < size * float(before.norm())
    base: Any = base_of(lora_layers(adapted)["0"])
    assert torch.equal(base.weight, weights["0.weight"])


def test_a_second_adapter_is_right(tmp_path: Path) -> None:
    net, x = net_and_input()
    clean = copy.deepcopy(net)
    adapted = disturbed(pissa(net, CONFIG))
    wanted = adapted(x).detach()
    plain = peft.LoraConfig(r=3, target_modules=["0", "2"], init_lora_weights=False)
    adapted.add_adapter("b", plain)
    adapted.set_adapter("b")
    disturbed(adapted)
    save(adapted, tmp_path, adapter="b")
    close(load(copy.deepcopy(clean), tmp_path).eval()(x), adapted(x))
    adapted.add_weighted_adapter(["default", "b"], [1.0, 0.0], "sum", combination_type="cat")
    adapted.set_adapter("sum")
    close(adapted.eval()(x), wanted)
    adapted.delete_adapter("default")
    adapted.set_adapter("b")
    close(adapted(x), load(copy.deepcopy(clean), tmp_path).eval()(x))


@pytest.mark.parametrize("rslora", [False, True])
def test_scaled_to_nothing_it_is_the_base_model(rslora: bool) -> None:
    net, x = net_and_input()
    before = net(x).detach()
    config = peft.LoraConfig(
        r=2,
        lora_alpha=5,
        use_rslora=rslora,
        target_modules=["0", "2"],
        rank_pattern={"2": 3},
        alpha_pattern={"0": 7},
    )
    adapted = disturbed(pissa(net, config))
    for name, layer in lora_layers(adapted).items():
        alpha, rank = {"0": (7, 2), "2": (5, 3)}[name]
        assert layer.scaling["default"] == pytest.approx(alpha / rank ** (0.5 if rslora else 1))
        assert layer.r["default"] == 2 * rank
        layer.scale_layer(0.0)
    close(adapted(x), before)


def test_a_compiled_model_computes_the_same() -> None:
    net, x = net_and_input()
    adapted = disturbed(pissa(net, CONFIG))
    compiled: Any = torch.compile(adapted, backend="eager", fullgraph=True)
    compiled(x).sum().backward()
    close(compiled(x), adapted(x))
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)
