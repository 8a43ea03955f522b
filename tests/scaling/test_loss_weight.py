"""A loss that is not divided by the accumulation steps, or divided twice, is noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling import watch
from noisewise.scaling.loss_weight import cross_entropy_weight


class Returns(nn.Module):
    """Returns its loss, as transformers' models do, in one of their ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.way = nn.Linear(4, 3), way

    def forward(self, x: Tensor, labels: Tensor) -> object:
        logits = self.inner(x)
        loss = nn.functional.cross_entropy(logits, labels)
        return {"dict": {"loss": loss, "logits": logits}, "tuple": (loss, logits), "bare": loss}[
            self.way
        ]


def of(output: object) -> Tensor:
    found = output["loss"] if isinstance(output, dict) else output
    found = found[0] if isinstance(found, tuple) else found
    assert isinstance(found, Tensor)
    return found


class Logits(nn.Module):
    """Returns logits; the loop computes the loss."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.last = nn.Linear(4, 3), last

    def forward(self, x: Tensor) -> Tensor:
        scores = self.inner(x)  # [n, 5, classes]
        return scores if self.last else scores.transpose(1, 2)


def codes(model: nn.Module, part: Callable[[int], Tensor], divisor: float) -> set[str]:
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = watch(model, sgd, every=1, skip=0)
    for step in range(5):
        for i in range(4):
            (part(4 * step + i) / divisor).backward()
        sgd.step()
        sgd.zero_grad()
    assert monitor.stopped is None
    found = monitor.measurement().warning_codes
    return {code for code in found if code in ("not_divided", "divided_twice")}


CASES = [(4.0, set()), (1.0, {"not_divided"}), (16.0, {"divided_twice"}), (3.0, set())]


@pytest.mark.parametrize(("divisor", "want"), CASES)
def test_of_models_that_return_their_loss(divisor: float, want: set[str]) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 8, 4, generator=generator)
    y = torch.randint(3, (20, 8), generator=generator)
    for way in ("dict", "tuple", "bare"):
        model = Returns(way)
        assert codes(model, lambda i, m=model: of(m(x[i], labels=y[i])), divisor) == want


@pytest.mark.parametrize(("divisor", "want"), CASES)
def test_of_a_cross_entropy_in_the_loop(divisor: float, want: set[str]) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 8, 5, 4, generator=generator)
    y = torch.randint(3, (20, 8, 5), generator=generator)
    y[:, :, 3:] = -100  # no label
    for last in (True, False):
        model = Logits(last)

        def part(i: int, m: nn.Module = model, last: bool = last) -> Tensor:
            scores = m(x[i])
            scores = scores.flatten(0, 1) if last else scores
            return nn.functional.cross_entropy(scores, y[i].flatten() if last else y[i])

        assert codes(model, part, divisor) == want


def test_other_losses_are_not_mistaken_for_a_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(16, 5, generator=generator, requires_grad=True)
    target = torch.randn(16, 5, generator=generator)
    y = torch.randint(5, (16,), generator=generator)
    weight = torch.rand(5, generator=generator)
    losses = (
        nn.functional.mse_loss(z, target),
        nn.functional.cross_entropy(z, y, weight=weight),
        nn.functional.cross_entropy(z, y, label_smoothing=0.2),
        nn.functional.binary_cross_entropy_with_logits(z, target.sigmoid()),
        nn.functional.multi_margin_loss(z, y),
    )
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, z, retain_graph=True)
        assert cross_entropy_weight(z.detach(), gradient) is None
