"""Starts on real models: the function is kept, and the first step is the best of its rank."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from adapter_cases import (
    CASES,
    SPECTRA,
    Adapted,
    EightBit,
    Loss,
    linear_case,
    mean_loss,
    spectrum,
)

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
# PEFT 0.21 asks transformers 5 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

from noisewise.adapters import (  # noqa: E402
    alignment,
    bound,
    certificates,
    gradients,
    lora_ga,
    lora_one,
    pissa,
    sgd_step,
)
from noisewise.adapters.layers import (  # noqa: E402
    as_matrix,
    base_of,
    factor_parameters,
    factors,
    is_quantised,
    lora_layers,
)

R, ALPHA = 4, 8


def config_for(names: list[str], **more: object) -> Adapted:
    return peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=names, **more)


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def first_step(adapted: Adapted, batches: list, loss: Loss) -> dict[str, torch.Tensor]:
    """What an infinitesimal SGD step does to each weight, over lr, by autograd in PEFT's layers."""
    adapted.eval()
    adapted.zero_grad()
    mean_loss(adapted, batches, loss).backward()
    found = {}
    for name, layer in lora_layers(adapted, "default").items():  # pyrefly: ignore
        a, b = (p.detach().flatten(1).double() for p in factor_parameters(layer, "default"))
        g_a, g_b = (gradient(p).flatten(1).double() for p in factor_parameters(layer, "default"))
        found[name] = layer.scaling["default"] * (g_b @ a + b @ g_a)
    return found


# Relative to the output: float32 rounds a deep U-Net's own output as much.
KEPT = {"diffusers": 2e-6}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mutate", [False, True])
@pytest.mark.parametrize("scale", ["gd", "stable"])
def test_the_function_is_kept_and_the_first_step_is_the_formulas(
    name: str, mutate: bool, scale: str
) -> None:
    model, batches, loss, names, output = vars(CASES[name]()).values()
    model.eval()
    original = {n: v.clone() for n, v in model.state_dict().items()}
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=names)
    grads = gradients(model, config, batches, loss)
    with torch.no_grad():
        before = output(model)
    config.exclude_modules = [key for key, g in grads.items() if mutate and min(g.shape) < 4]
    adapted = lora_ga(model, config, grads, mutate_base=mutate, scale=scale)  # pyrefly: ignore
    adapted.eval()
    with torch.no_grad():
        error = float((output(adapted) - before).norm() / before.norm())
    # Where B = 0 the base is untouched; its output is equal but for the blocks that a matrix
    # product is done in, which on some processors depend on where a tensor lies in memory.
    assert error < KEPT.get(name, 1e-6)
    if not mutate:
        base = adapted.base_model.model.state_dict()
        kept = {n.replace(".base_layer", ""): v for n, v in base.items() if "lora_" not in n}
        assert kept.keys() == original.keys()
        assert all(torch.equal(kept[n], original[n]) for n in original)
        layers = lora_layers(adapted, "default").values()  # pyrefly: ignore
        assert all(not factor_parameters(x, "default")[1].any() for x in layers)
    steps = first_step(adapted, batches, loss)
    for key, layer in lora_layers(adapted, "default").items():
        u, s, vh = torch.linalg.svd(grads[key].double(), full_matrices=False)
        k = 4 if mutate else 2
        best = u[:, :k] * s[:k] @ vh[:k]
        length = float((best * steps[key]).sum() / steps[key].square().sum())
        if scale == "gd":  # a step of SGD is as long as full fine-tuning's
            assert length == pytest.approx(1, rel=1e-3), key
        assert float((length * steps[key] - best).norm()) < 1e-3 * float(best.norm()), key
        assert layer.scaling["default"] == 2.0


@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("loss_scale", [1.0, 100.0])
def test_through_peft_the_bound_is_reached(values: list[float], loss_scale: float) -> None:
    g = spectrum(24, 32, values)
    net, batches, loss = linear_case(g, loss_scale)
    config = config_for(["0"])
    grads = gradients(net, config, batches, loss)
    adapted = lora_ga(net, config, grads, mutate_base=True)
    found = alignment(None, adapted, batches, loss).layers["0"]
    assert found.step_rank == 2 * R
    assert found.sgd.bound == pytest.approx(bound(g, 2 * R), abs=1e-5)
    assert certificates(adapted)["0"] >= bound(g, 2 * R) - 1e-6
    assert certificates(adapted)["0"] == pytest.approx(bound(g, 2 * R), abs=0.01)
    assert found.sgd.residual == pytest.approx(found.sgd.bound, abs=1e-3)
    (step,) = first_step(adapted, batches, loss).values()
    best = (step * g).sum() / step.square().sum()
    residual = float((g - best * step).norm() / g.norm())
    assert residual == pytest.approx(bound(g, 2 * R), abs=1e-4)


def backward(net: nn.Module, batch: torch.Tensor, loss: Loss) -> None:
    """What PEFT calls a training step."""
    loss(net, batch).backward()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # PEFT's way to count
def test_pefts_own_start_misses_the_bound() -> None:
    """PEFT 0.21 puts the singular values into B alone, so that its size follows the loss."""
    loraga = pytest.importorskip("peft.tuners.lora.loraga")
    g = spectrum(24, 32, SPECTRA["rank 2r"])
    residuals, sizes = [], []
    for loss_scale in (1.0, 100.0):
        net, batches, loss = linear_case(g, loss_scale)
        config = config_for(["0"], init_lora_weights="lora_ga", lora_ga_config=peft.LoraGAConfig())
        step = partial(backward, net, batches[0], loss)
        loraga.preprocess_loraga(net, config, step)
        theirs = peft.get_peft_model(net, config)
        (layer,) = lora_layers(theirs, "default").values()
        a, b = factors(layer, "default")
        residuals.append(alignment(None, theirs, batches, loss).layers["0"].sgd.residual)
        sizes.append(float(b.norm() / a.norm()))
    assert bound(g, 2 * R) < 1e-3
    assert min(residuals) > 0.1
    assert sizes[1] / sizes[0] == pytest.approx(100, rel=0.2)


def test_rslora_and_patterns_are_heard() -> None:
    net = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))
    batches = [torch.randn(8, 16) for _ in range(2)]
    config = config_for(["0", "2"], use_rslora=True, rank_pattern={"2": 3}, alpha_pattern={"^0": 5})
    grads = gradients(net, config, batches, lambda m, b: m(b).square().mean())
    adapted = lora_ga(net, config, grads, scale="gd")
    layers = lora_layers(adapted, "default")
    assert [layer.r["default"] for layer in layers.values()] == [4, 3]
    assert layers["0"].scaling["default"] == pytest.approx(5 / 2)
    for name, layer in layers.items():
        a, b = factors(layer, "default")
        step = sgd_step(grads[name], a, b, layer.scaling["default"])
        u, s, vh = torch.linalg.svd(grads[name])
        k = layer.r["default"]
        torch.testing.assert_close(step, u[:, :k] * s[:k] @ vh[:k], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("rslora", [False, True])
def test_a_rank_that_is_too_large_is_lowered_where_it_must_be(rslora: bool) -> None:
    """At the same scaling, with a pattern to copy, and the start is still the best of its rank."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 5), nn.Linear(5, 1))
    x = torch.randn(2, 8, 16)
    more = {"use_rslora": rslora, "rank_pattern": {"0": 3}, "alpha_pattern": {"2": 9}}
    config = config_for(["0", "2", "3"], **more)
    config.r = 8
    grads = gradients(net, config, x, lambda m, b: m(b).square().mean())
    clean, before = copy.deepcopy(net), net(x[0]).detach()
    for mutate, ranks in ((False, [3, 5, 1]), (True, [3, 2, 1])):
        with pytest.warns(UserWarning, match=r"2 layers have a lower rank.*rank_pattern=\{'\^2'"):
            adapted = lora_ga(copy.deepcopy(clean), config, grads, mutate_base=mutate)
        torch.testing.assert_close(adapted(x[0]), before, atol=1e-6, rtol=1e-5)
        layers = lora_layers(adapted)
        assert [len(factors(layer, "default")[0]) for layer in layers.values()] == ranks
        roots = [3**0.5, 8**0.5, 8**0.5] if rslora else [3, 8, 8]
        wanted = [alpha / root for alpha, root in zip([8, 9, 8], roots, strict=True)]
        assert [layer.scaling["default"] for layer in layers.values()] == pytest.approx(wanted)
        found = alignment(None, adapted, [x[0]], lambda m, b: m(b).square().mean())
        assert found.layers["0"].step_rank == (6 if mutate else 3)
    with pytest.warns(UserWarning, match="lower rank"):
        assert len(factors(lora_layers(pissa(net, config))["2"], "default")[0]) == 5


def test_a_second_adapter_on_the_same_model() -> None:
    """Started from the gradient without the first; each is right alone."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8))
    clean, x = copy.deepcopy(net), torch.randn(2, 8, 16)
    config = config_for(["0", "2"])

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).square().mean()

    grads = gradients(net, config, x, loss)
    first = lora_ga(net, config, grads, mutate_base=True)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * parameter.requires_grad)
    wanted = first(x[0]).detach()
    again = gradients(first, config, x, loss)
    for name in grads:
        torch.testing.assert_close(again[name], grads[name], atol=1e-6, rtol=1e-5)
    assert torch.equal(first(x[0]), wanted)
    second = lora_ga(first, config, again, adapter="b")
    assert second is first
    assert second.active_adapter == "b"
    torch.testing.assert_close(second(x[0]), clean(x[0]))
    assert certificates(second, "default").keys() == certificates(second, "b").keys()
    second.set_adapter("default")
    assert torch.equal(second(x[0]), wanted)
    with pytest.raises(ValueError, match="has an adapter 'b'"):
        pissa(second, config, adapter="b")


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_factors_that_peft_shares_start_from_both_gradients() -> None:
    """ensure_weight_tying: one pair of factors for the embedding and the head of a GPT-2."""
    model, batches, loss, _, output = vars(CASES["gpt2"]()).values()
    config = config_for(["wte", "lm_head"], ensure_weight_tying=True)
    grads = gradients(model, config, batches, loss)
    before = output(model.eval()).detach()
    with pytest.raises(ValueError, match="shares its factors"):
        lora_ga(copy.deepcopy(model), config, grads, mutate_base=True)
    adapted = lora_ga(model, config, grads, scale="unit").eval()
    torch.testing.assert_close(output(adapted), before)
    layers = lora_layers(adapted)
    a, b = factors(layers["transformer.wte"], "default")
    a_head, b_head = factors(layers["lm_head"], "default")
    assert torch.equal(a_head, b.mT)
    assert torch.equal(b_head, a.mT)
    total = grads["transformer.wte"] + grads["lm_head"].mT
    u, s, vh = torch.linalg.svd(total, full_matrices=False)
    step = sgd_step(total, a, b, 1.0)
    torch.testing.assert_close(step, u[:, :R] * s[:R] @ vh[:R], atol=1e-6, rtol=1e-3)


def test_bfloat16_weights_are_left_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64)).to(torch.bfloat16)
    x = torch.randn(2, 16, 64).to(torch.bfloat16)
    config = config_for(["0"])
    grads = gradients(net, config, x, lambda m, b: m(b).float().square().mean())
    before = net(x[0])
    clean = copy.deepcopy(net)
    kept = lora_ga(copy.deepcopy(net), config, grads)
    assert torch.equal(kept(x[0]), before)
    frozen: Any = base_of(lora_layers(kept)["0"])
    assert torch.equal(frozen.weight, clean.state_dict()["0.weight"])
    held = lora_ga(net, config, grads, mutate_base=True)
    torch.testing.assert_close(held(x[0]).float(), before.float(), atol=1e-3, rtol=2**-8)
    still: Any = base_of(lora_layers(held)["0"])
    assert torch.equal(still.weight, clean.state_dict()["0.weight"])


def test_dora_starts_at_the_function_too() -> None:
    net = nn.Sequential(nn.Linear(16, 12))
    x = torch.randn(2, 8, 16)
    config = config_for(["0"], use_dora=True)
    grads = gradients(net, config, x, lambda m, b: m(b).square().mean())
    before = net(x[0]).detach()
    adapted = lora_ga(net, config, grads)
    torch.testing.assert_close(adapted(x[0]), before, atol=1e-5, rtol=1e-5)


def test_pissa_keeps_the_function_for_every_kind_of_layer() -> None:
    model, _, _, names, output = vars(CASES["mixed"]()).values()
    before = output(model).detach()
    weights = {
        n: as_matrix(m, m.weight).detach().clone() for n, m in model.named_modules() if n in names
    }
    adapted = pissa(model, config_for(names))
    torch.testing.assert_close(output(adapted), before, atol=2e-5, rtol=1e-4)
    for name, layer in lora_layers(adapted, "default").items():
        a, b = factors(layer, "default")
        left = float((weights[name] - 2.0 * b @ a).norm() / weights[name].norm())
        assert left == pytest.approx(bound(weights[name], R), abs=1e-4), name


def test_lora_one_lowers_the_loss_before_any_step() -> None:
    model, batches, loss, names, _ = vars(CASES["mixed"]()).values()
    config = config_for(names)
    grads = gradients(model, config, batches, loss)
    before = mean_loss(model, batches, loss).item()
    adapted = lora_one(model, config, grads)
    assert mean_loss(adapted, batches, loss).item() < before


def test_the_configuration_serves_again_and_any_peft_reads_it() -> None:
    net = nn.Sequential(nn.Linear(16, 16))
    x = torch.randn(2, 8, 16)
    config = config_for(["0"])
    grads = gradients(net, config, x, lambda m, b: m(b).square().mean())
    first = lora_ga(copy.deepcopy(net), config, grads)
    second = lora_ga(copy.deepcopy(net), config, grads)
    assert first.peft_config["default"] is not config
    assert first.peft_config["default"].init_lora_weights is True
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_refusals_leave_the_model_as_it_was() -> None:
    tied = nn.ModuleDict({"words": nn.Embedding(16, 16), "head": nn.Linear(16, 16, bias=False)})
    tied["head"].weight = tied["words"].weight
    grads = {"head": torch.randn(16, 16)}
    before, modules = copy.deepcopy(tied.state_dict()), list(tied.modules())
    free = [p.requires_grad for p in tied.parameters()]

    def refused(says: str, start: Callable[[], object]) -> None:
        with pytest.raises(ValueError, match=says):
            start()
        after = tied.state_dict()
        assert after.keys() == before.keys(), says
        assert all(torch.equal(after[name], before[name]) for name in before), says
        assert list(tied.modules()) == modules, says
        assert [p.requires_grad for p in tied.parameters()] == free, says

    head = config_for(["head"])
    refused("gradient is missing", lambda: lora_ga(tied, config_for(["head", "words"]), grads))
    theirs = config_for(["head"], init_lora_weights="pissa")
    refused("is a start of PEFT", lambda: lora_ga(tied, theirs, grads))
    ada = peft.AdaLoraConfig(target_modules=["head"], total_step=10)
    refused("get_peft_model for ADALORA", lambda: lora_ga(tied, ada, grads))
    refused("gradients on this model", lambda: lora_ga(tied, head, {"head": torch.randn(16, 12)}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of tied weights, which this start leaves alone
        adapted = lora_ga(tied, head, grads)
    with pytest.raises(ValueError, match="has an adapter 'default'"):
        lora_ga(adapted, head, grads)
    with pytest.raises(ValueError, match="already has adapters: pass the PeftModel"):
        lora_ga(adapted.base_model.model, head, grads)


class Packed(torch.Tensor):
    """Integers and a scale that call themselves float32, as torchao's weights do."""

    whole: torch.Tensor
    scale: torch.Tensor

    @staticmethod
    def __new__(cls: type[Packed], whole: torch.Tensor, scale: torch.Tensor) -> Packed:
        make = getattr(torch.Tensor, "_make_wrapper_subclass")  # noqa: B009 (torch hides it)
        return make(cls, whole.shape, dtype=torch.float32)

    def __init__(self, whole: torch.Tensor, scale: torch.Tensor) -> None:
        self.whole, self.scale = whole, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["whole", "scale"], None

    @classmethod
    def __torch_dispatch__(  # pyrefly: ignore
        cls, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        return args[0] if function is torch.ops.aten.detach.default else NotImplemented


def test_quantised_weights_are_seen_behind_a_float_dtype() -> None:
    layer = nn.Linear(4, 3, bias=False)
    assert not is_quantised(layer)
    packed = Packed(torch.ones(3, 4, dtype=torch.int8), torch.ones(()))
    layer.weight = nn.Parameter(packed, requires_grad=False)
    assert layer.weight.dtype == torch.float32
    assert is_quantised(layer)
    with pytest.raises(ValueError, match="0 is quantised"):
        pissa(nn.Sequential(layer), peft.LoraConfig(r=1, target_modules=["0"]))


def test_quantised_weights_take_the_start_that_leaves_them_alone() -> None:
    float_net = nn.Sequential(nn.Linear(16, 12, bias=False))
    x = torch.randn(2, 8, 16)
    config = config_for(["0"])
    grads = gradients(float_net, config, x, lambda m, b: m(b).square().mean())
    net = nn.Sequential(EightBit(float_net[0]))
    before = net(x[0])
    with pytest.raises(ValueError, match="0 is quantised, so it has no float weight"):
        pissa(net, config)
    adapted = lora_ga(net, config, grads)
    assert torch.equal(adapted(x[0]), before)
    assert base_of(lora_layers(adapted)["0"]).weight.dtype == torch.int8
