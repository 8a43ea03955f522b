"""The update of a user's own optimiser: asked for, never taken; refused where unknown."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling import calibrate
from noisewise.scaling.flat import Flat
from noisewise.scaling.updates import Updater

P = 12
START = torch.full((P,), 0.05, dtype=torch.float64)
GRADIENT = torch.linspace(0.3, 0.6, P, dtype=torch.float64)


class Bowl(nn.Module):
    """L = |w - x|^2 / 2, averaged over x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(START.clone())

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (self.w - x).square().sum(1).mean()


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def micro_batches(n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(n, 8, P, generator=generator, dtype=torch.float64))


OPTIMIZERS = [
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, {}),
    (torch.optim.AdamW, {"amsgrad": True}),
    (torch.optim.RMSprop, {"momentum": 0.5}),
    (torch.optim.NAdam, {}),
    (torch.optim.Adagrad, {}),
    (torch.optim.Adadelta, {}),
]


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS, ids=lambda x: getattr(x, "__name__", ""))
def test_any_optimiser_has_an_update_and_keeps_its_state(kind: type, settings: dict) -> None:
    model = Bowl()
    optimizer = kind(model.parameters(), lr=0.01, weight_decay=0.1, **settings)
    for _ in range(300):
        model.w.grad = GRADIENT.clone()
        optimizer.step()
    before = model.w.detach().clone()
    state = {k: v.clone() for k, v in optimizer.state[model.w].items() if isinstance(v, Tensor)}
    updater = Updater(optimizer, Flat(model))
    first, second = updater.update(GRADIENT), updater.update(GRADIENT)
    assert torch.equal(first, second)
    assert float(first @ GRADIENT) > 0
    assert torch.equal(model.w.detach(), before)
    for name, value in state.items():
        assert torch.equal(optimizer.state[model.w][name], value), name
    if kind in (torch.optim.Adam, torch.optim.AdamW):
        v = updater.second_moment()
        assert v is not None
        expected = GRADIENT / (v.sqrt() + 1e-8)  # v hardly moves in one more step
        torch.testing.assert_close(first, expected, rtol=0.2, atol=0)
        quarter = updater.update(GRADIENT, v / 4)
        torch.testing.assert_close(quarter, 2 * expected, rtol=0.2, atol=0)


STATELESS = ["Adadelta", "Adafactor", "Adagrad", "Adam", "RMSprop", "Adamax"]


@pytest.mark.parametrize("name", STATELESS)
def test_an_optimiser_that_has_seen_nothing_is_refused(name: str) -> None:
    model = Bowl()
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01)
    with pytest.raises(ValueError, match=f"{name} has no state yet"):
        calibrate(model, loss, micro_batches(16), optimizer, probes=1)
    assert not any(float(s.get("step", 0)) for s in optimizer.state.values())
    assert torch.equal(model.w.detach(), START)
    for _ in range(5):
        model.w.grad = GRADIENT.clone()
        optimizer.step()
    Updater(optimizer, Flat(model))


class Sign(torch.optim.Optimizer):
    """Keeps no state, now or later."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: None = None) -> None:  # pyrefly: ignore[bad-override]
        del closure
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(p.grad.sign(), alpha=-group["lr"])


def test_one_that_never_keeps_a_state_is_measured() -> None:
    model = Bowl()
    updater = Updater(Sign(model.parameters(), 0.01), Flat(model))
    assert updater.update(-GRADIENT).tolist() == pytest.approx([-1.0] * P)


class Signed(torch.optim.Optimizer):
    """As lion-pytorch: what a step needs is an attribute of the object, and a function."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.99), "weight_decay": 0.0})
        self.decoupled_wd = True
        self.update_fn = torch.sign
        self.own = self.plain  # bound to this object: in a copy it must be bound to the copy

    def plain(self, p: Tensor) -> None:
        assert self.decoupled_wd
        assert p.grad is not None
        p.data.add_(self.update_fn(p.grad), alpha=-self.param_groups[0]["lr"])

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.own(p)


def test_attributes_that_a_deep_copy_drops_are_kept() -> None:
    model = nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    signed = Signed(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(signed, 5)  # hides `step` of the object
    updater = Updater(signed, Flat(model))
    assert updater.update(torch.tensor([3.0, -2.0])).tolist() == pytest.approx([1.0, -1.0])
    assert torch.equal(model.weight, before)


def test_lion_pytorch() -> None:
    lion_pytorch = pytest.importorskip("lion_pytorch")
    model = nn.Linear(2, 1, bias=False)
    lion = lion_pytorch.Lion(model.parameters(), lr=0.1, decoupled_weight_decay=True)
    model(torch.ones(1, 2)).sum().backward()
    lion.step()
    before = model.weight.detach().clone()
    found = Updater(lion, Flat(model)).update(torch.tensor([3.0, -2.0]))
    assert found.abs().tolist() == pytest.approx([1.0, 1.0])
    assert torch.equal(model.weight, before)


def test_an_optimiser_that_cannot_be_copied_is_refused_in_a_sentence() -> None:
    model = nn.Linear(2, 1, bias=False)
    held = Signed(model.parameters(), lr=0.1)
    held.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="Signed cannot be copied"):
        Updater(held, Flat(model))
    broken = Signed(model.parameters(), lr=0.1)
    broken.decoupled_wd = False
    with pytest.raises(ValueError, match="cannot take a step"):
        Updater(broken, Flat(model)).update(torch.tensor([3.0, -2.0]))
