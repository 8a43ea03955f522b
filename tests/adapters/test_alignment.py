"""Alignment: measured steps, on data that made no start, against the bound that none can pass."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn

from adapter_cases import CASES, SPECTRA, Adapted, linear_case, mean_loss, spectrum

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
# PEFT 0.21 asks transformers 5 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

from noisewise.adapters import alignment, gradients, lora_ga  # noqa: E402


def test_it_is_what_a_step_of_sgd_and_of_adam_does() -> None:
    """The formulas against PEFT's layers and torch's optimisers, over all layers."""
    model, batches, loss, names, _ = vars(CASES["mixed"]()).values()
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=names)
    grads = gradients(model, config, batches[:2], loss)
    adapted = lora_ga(model, config, grads, mutate_base=True).eval()
    found = alignment(None, adapted, batches[2:], loss)
    full = gradients(CASES["mixed"]().model, config, batches[2:], loss)
    for kind in ("sgd", "adam"):
        moved = copy.deepcopy(adapted)
        free = [p for p in moved.parameters() if p.requires_grad]
        optimizer = (
            torch.optim.SGD(free, lr=1e-5)
            if kind == "sgd"
            else torch.optim.Adam(free, lr=1e-7, eps=1e-30)
        )
        mean_loss(moved, batches[2:], loss).backward()
        before = {k: v.get_delta_weight("default").double().clone() for k, v in layers(moved)}
        optimizer.step()
        inner = norms = goals = 0.0
        for key, layer in layers(moved):
            from noisewise.adapters.layers import as_matrix, base_of

            change = before[key] - layer.get_delta_weight("default").double()
            step = as_matrix(base_of(layer), change.detach())
            goal = full[key].double() if kind == "sgd" else full[key].double().sign()
            inner += float((step * goal).sum())
            norms += float(step.square().sum())
            goals += float(goal.square().sum())
        measured = inner / (norms * goals) ** 0.5
        assert getattr(found.total, kind).cosine == pytest.approx(measured, abs=0.01), kind


def layers(adapted: Adapted) -> list[tuple[str, Any]]:
    from noisewise.adapters.layers import lora_layers

    return list(lora_layers(adapted).items())


@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
def test_no_residual_passes_its_bound(values: list[float]) -> None:
    g = spectrum(24, 32, values)
    for mutate in (False, True):
        for answer in ("gradient", "sign", "solve"):
            net, batches, loss = linear_case(g)
            config = peft.LoraConfig(r=4, target_modules=["0"])
            grads = gradients(net, config, batches, loss)
            adapted = lora_ga(net, config, grads, mutate_base=mutate, answer=answer)
            found = alignment(None, adapted, batches, loss).layers["0"]
            assert found.sgd.residual >= found.sgd.bound - 1e-4
            assert found.adam.residual >= found.adam.bound - 1e-6
            assert found.step_rank == (8 if mutate else 4)


def test_a_start_from_few_samples_is_judged_on_others() -> None:
    model, batches, loss, names, _ = vars(CASES["own"]()).values()
    config = peft.LoraConfig(r=3, target_modules=names)
    clean = copy.deepcopy(model)
    grads = gradients(model, config, batches[:1], loss)
    ours = lora_ga(copy.deepcopy(model), config, grads)
    plain = peft.get_peft_model(copy.deepcopy(model), copy.deepcopy(config))
    near, far = (alignment(clean, m, batches[1:], loss).total for m in (ours, plain))
    assert near.sgd.cosine > far.sgd.cosine + 0.2
    assert near.signal is None  # one batch shows no noise
    assert alignment(clean, ours, batches, loss).total.signal is not None


def test_the_report_is_read_by_people_and_programs() -> None:
    g = spectrum(24, 32, SPECTRA["falling"])
    net, batches, loss = linear_case(g)
    config = peft.LoraConfig(r=4, target_modules=["0"])
    adapted = lora_ga(net, config, gradients(net, config, batches, loss))
    found = alignment(None, adapted, batches, loss)
    assert json.loads(json.dumps(found.to_dict()))["total"]["step_rank"] == 4
    assert "all layers" in str(found)
    assert len(str(found).splitlines()) == 3


def test_with_dropout_it_is_the_mean_step() -> None:
    """The mean over masks of the step of SGD, against the formula."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 10, bias=False))
    x, target = torch.randn(64, 12), torch.randn(64, 10)
    config = peft.LoraConfig(r=3, lora_dropout=0.05, target_modules=["0"])

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return (model(batch) - target).square().mean()

    adapted = lora_ga(net, config, gradients(net, config, [x], loss)).train()
    found = alignment(None, adapted, [x], loss).total.sgd
    ((_, layer),) = layers(adapted)
    b = layer.lora_B["default"].weight
    for _ in range(400):
        loss(adapted, x).backward()
    mean = layer.scaling["default"] * b.grad / 400 @ layer.lora_A["default"].weight.detach()
    exact = adapted.eval()
    exact.zero_grad()
    loss(exact, x).backward()
    step = layer.scaling["default"] * b.grad @ layer.lora_A["default"].weight.detach()
    assert float((mean - step).norm() / step.norm()) < 0.05
    assert found.cosine > 0.5


def test_steps_that_are_not_loras_are_refused() -> None:
    def adapted(config: object) -> Adapted:
        return peft.get_peft_model(nn.Sequential(nn.Linear(8, 6)), config)

    x = [torch.randn(4, 8)]

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).square().mean()

    with pytest.raises(ValueError, match="this adapter is dora"):
        alignment(None, adapted(peft.LoraConfig(use_dora=True, target_modules=["0"])), x, loss)
    net = adapted(peft.LoraConfig(target_modules=["0"]))
    with pytest.raises(ValueError, match="PEFT changes models in place"):
        alignment(net.base_model.model, net, x, loss)
