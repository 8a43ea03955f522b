"""An adapter out of two checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adapter_cases import CASES, Adapted

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
# PEFT 0.21 asks transformers 5 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

from noisewise.adapters import bound, extract, load, save  # noqa: E402
from noisewise.adapters.layers import as_matrix, lora_layers  # noqa: E402


def tuned(model: nn.Module, names: list[str], size: float = 0.2) -> Adapted:
    """Every weight of the layers named, changed by a matrix of full rank."""
    torch.manual_seed(7)
    other: Any = copy.deepcopy(model)
    for name, module in other.named_modules():
        if name in names:
            with torch.no_grad():
                module.weight.add_(size * torch.randn_like(module.weight))
    return other


def test_each_layer_keeps_what_eckart_and_young_say(tmp_path: object) -> None:
    model, _, _, names, output = vars(CASES["mixed"]()).values()
    other = tuned(model, names)
    found = extract(model, other, rank=3)
    modules: dict[str, Any] = dict(model.named_modules())
    others: dict[str, Any] = dict(other.named_modules())
    for name in names:
        old, new = (as_matrix(m[name], m[name].weight).detach() for m in (modules, others))
        assert found.layers[name].residual == pytest.approx(bound(new - old, 3), abs=1e-3), name
        layer = found.peft_model.base_model.model.get_submodule(name)
        got = as_matrix(modules[name], layer.get_delta_weight("default").detach())
        left = float((new - old - got).norm() / (new - old).norm())
        assert left == pytest.approx(bound(new - old, 3), abs=1e-3), name
    assert not torch.allclose(output(found.peft_model), output(model))
    save(found.peft_model, tmp_path)  # pyrefly: ignore
    back = load(copy.deepcopy(model), tmp_path)  # pyrefly: ignore
    torch.testing.assert_close(output(back), output(found.peft_model), atol=1e-5, rtol=1e-4)


def test_full_rank_gives_the_second_model() -> None:
    model, _, _, names, output = vars(CASES["mixed"]()).values()
    other = tuned(model, names)
    found = extract(model, other, rank=64)
    torch.testing.assert_close(output(found.peft_model), output(other), atol=1e-4, rtol=1e-4)
    assert found.energy == pytest.approx(1.0)


@pytest.mark.parametrize("rank", [64, 2])
def test_tied_layers_get_the_same_factors(rank: int) -> None:
    """GPT-2's embedding and head are one matrix; an adapter acts in its own layer alone."""
    model, _, _, _, output = vars(CASES["gpt2"]()).values()
    model.eval()
    other = tuned(model, ["transformer.wte", "transformer.h.0.attn.c_attn"])
    assert other.lm_head.weight is other.transformer.wte.weight
    found = extract(model, other, rank=rank)
    names = ["lm_head", "transformer.h.0.attn.c_attn", "transformer.wte"]
    assert sorted(found.layers) == names
    layers = lora_layers(found.peft_model)
    changes = [layers[name].get_delta_weight("default") for name in (names[0], names[2])]
    assert torch.equal(changes[0], changes[1])
    assert found.left_out == {}
    if rank == 64:  # of full rank, the second model itself
        torch.testing.assert_close(output(found.peft_model), output(other), atol=1e-4, rtol=1e-4)
        assert found.energy == pytest.approx(1.0)
    else:  # each matrix counts once
        change = (other.lm_head.weight - model.lm_head.weight).detach()  # pyrefly: ignore
        mixed = (other.transformer.h[0].attn.c_attn.weight).detach()
        mixed = mixed - model.transformer.h[0].attn.c_attn.weight.detach()  # pyrefly: ignore
        values = [torch.linalg.svdvals(m).square() for m in (change, mixed)]
        kept = sum(float(v[:rank].sum()) for v in values) / sum(float(v.sum()) for v in values)
        assert found.energy == pytest.approx(kept, rel=1e-3)


def test_a_tied_layer_left_alone_is_said() -> None:
    model = CASES["gpt2"]().model.eval()
    other = tuned(model, ["transformer.wte"])
    with pytest.raises(ValueError, match=r"transformer\.wte\.weight is tied to lm_head.*name both"):
        extract(model, other, rank=2, target_modules=["lm_head"])
    found = extract(model, other, rank=2, target_modules=["lm_head"], ignore=True)
    assert found.left_out == {"transformer.wte.weight": pytest.approx(0.5)}  # one use of two
    assert found.energy == pytest.approx(found.layers["lm_head"].energy / 2)


def test_energy_chooses_the_least_rank() -> None:
    torch.manual_seed(0)
    a = nn.Sequential(nn.Linear(40, 48, bias=False), nn.Linear(48, 40, bias=False))
    b: Any = copy.deepcopy(a)
    with torch.no_grad():
        for layer, values in ((b[0], [3.0, 2.0, 1.0]), (b[1], [4.0] * 8)):
            u, v = (torch.linalg.qr(torch.randn(n, len(values))).Q for n in layer.weight.shape)
            layer.weight.add_(u * torch.tensor(values) @ v.T)
    found = extract(a, b, energy=0.9, spectra=True)
    assert found.layers["0"].rank == 2  # (9 + 4) / 14
    assert found.layers["1"].rank == 8  # 7 / 8 is not enough
    assert found.layers["0"].ranks_for["0.99"] == 3
    assert all(layer.energy >= 0.9 for layer in found.layers.values())


def fine_tuned() -> tuple[nn.Module, nn.Module, Any]:
    """A GPT-2 in which all changed: matrices, biases, norms and embeddings."""
    model, _, _, _, output = vars(CASES["gpt2"]()).values()
    other: Any = copy.deepcopy(model.eval())
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, other, output


def test_a_whole_fine_tune_is_extracted_with_biases_and_norms(tmp_path: Path) -> None:
    model, other, output = fine_tuned()
    found = extract(model, other, rank=64)
    assert found.left_out == {}
    assert "transformer.h.0.ln_1.weight" in found.carried
    assert "transformer.h.1.mlp.c_fc.bias" in found.carried
    assert found.energy == pytest.approx(1.0)
    torch.testing.assert_close(output(found.peft_model), output(other), atol=1e-4, rtol=1e-4)
    save(found.peft_model, tmp_path / "ours")
    found.peft_model.save_pretrained(str(tmp_path / "peft"), save_embedding_layers=False)
    for way in ("ours", "peft"):
        back = load(copy.deepcopy(model), tmp_path / way).eval()
        torch.testing.assert_close(output(back), output(other), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_checkpoints_are_read_from_their_files(device: str, tmp_path: Path) -> None:
    """Both of them, in shards, with a tied head that the files leave out."""
    model, other, output = fine_tuned()
    wanted = extract(model, other, rank=3)
    model.save_pretrained(str(tmp_path / "a"), max_shard_size="5KB")  # pyrefly: ignore
    other.save_pretrained(str(tmp_path / "b"), max_shard_size="5KB")  # pyrefly: ignore
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 1
    base: Any = copy.deepcopy(model)
    if device == "meta":
        base = base.to("meta")
        base.tie_weights()
        with pytest.raises(ValueError, match="pass their files as weights_a"):
            extract(base, tmp_path / "b", rank=3)
    found = extract(base, tmp_path / "b", rank=3, weights_a=tmp_path / "a")
    assert found.energy == pytest.approx(wanted.energy)
    assert found.carried == wanted.carried
    save(found.peft_model, tmp_path / "adapter")
    back = load(copy.deepcopy(model), tmp_path / "adapter").eval()
    torch.testing.assert_close(output(back), output(wanted.peft_model), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"has no \.safetensors file"):
        extract(model, tmp_path, rank=3)


def test_what_no_adapter_holds_is_refused_or_counted() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.places = nn.Linear(6, 6), nn.Parameter(torch.zeros(4, 6))

    a = Positions()
    b = tuned(a, ["lin"])
    with torch.no_grad():
        b.places.add_(1)
    with pytest.raises(ValueError, match=r"changed tensors \(1\): places; pass ignore=True"):
        extract(a, b, rank=2)
    found = extract(a, b, rank=6, ignore=True)
    change = (b.lin.weight - a.lin.weight).detach().square().sum()
    assert found.left_out == pytest.approx({"places": float(24 / (24 + change))})
    assert found.energy == pytest.approx(float(change / (24 + change)), abs=1e-5)
    a = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6))
    with pytest.raises(ValueError, match="2 tensors are in only one"):
        extract(a, nn.Sequential(nn.Linear(6, 6), nn.Tanh()), rank=2)
    with pytest.raises(ValueError, match="differ in shape"):
        extract(a, nn.Sequential(nn.Linear(7, 6), nn.LayerNorm(6)), rank=2)
    with pytest.raises(ValueError, match="the models are equal"):
        extract(a, copy.deepcopy(a), rank=2)
    with pytest.raises(ValueError, match="exactly one of rank and energy"):
        extract(a, copy.deepcopy(a))
