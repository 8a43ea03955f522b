"""A walk of several calls, call by call; and the fake score that is told the call."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from noisewise.diffusion import OfCall, Told, held, in_calls, inputs_of_calls, which_call

SIGMAS = (2.5, 1.0, 0.4)
SHAPE = (6, 1, 2, 2)


def curved(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    moved = 0.0 if label is None else label[:, None, None, None].to(x.dtype)
    return torch.tanh(x / (1 + sigma[:, None, None, None])) + moved


def noises(count: int = 3) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=source) for _ in range(count)]


def test_each_call_denoises_the_picture_before_it_with_new_noise() -> None:
    z, second, third = noises()
    level = torch.ones(6)
    one = curved(z * 2.5, 2.5 * level)
    two = curved(one + second, level)
    three = curved(two + 0.4 * third, 0.4 * level)
    assert torch.equal(in_calls(curved, z, SIGMAS[:1]), one)
    assert torch.equal(in_calls(curved, z, SIGMAS[:2], [second]), two)
    torch.testing.assert_close(in_calls(curved, z, SIGMAS, [second, third]), three)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_noise_has_to_fit_the_calls(count: int) -> None:
    with pytest.raises(ValueError, match="3 calls need 2 noises"):
        in_calls(curved, noises(1)[0], SIGMAS, noises(count))


def test_what_training_gives_to_a_call_is_what_drawing_gives_to_it() -> None:
    """Pictures stop at different calls of one batch; each is as if it had been alone."""
    z, *later = noises()
    which, label = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([0, 1, 0, 1, 0, 1])
    x, sigma = inputs_of_calls(curved, z.requires_grad_(), SIGMAS, later, which, label)
    assert not x.requires_grad
    assert sigma.tolist() == pytest.approx([SIGMAS[k] for k in which])
    stopped = curved(x, sigma, label)
    for i, k in enumerate(which.tolist()):
        row = slice(i, i + 1)
        alone = in_calls(
            curved, z[row], SIGMAS[: k + 1], [one[row] for one in later[:k]], label[row]
        )
        torch.testing.assert_close(stopped[row], alone, rtol=0, atol=1e-6)


def test_every_call_is_as_likely_for_every_picture_and_as_frequent_in_a_batch() -> None:
    source, seen = torch.Generator().manual_seed(0), torch.zeros(4, 5)
    for _ in range(400):
        drawn = which_call(5, 4, source, "cpu")
        assert drawn.bincount(minlength=4).max() <= 2
        seen[drawn, torch.arange(5)] += 1
    assert (seen / 400 - 0.25).abs().max() < 0.1


class Smooth(nn.Module):
    """The denoiser of N(0, width^2)."""

    def __init__(self) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        v = self.width**2
        return v * x / (v + sigma.square()[:, None, None, None])


def test_a_denoiser_that_is_told_starts_as_it_was_and_can_tell_calls_apart() -> None:
    x, sigma, which = noises(1)[0], torch.full((6,), 0.7), torch.tensor([0, 1, 0, 1, 0, 1])
    told = Told(Smooth(), 2, SHAPE[1:], 0.5)
    assert torch.equal(OfCall(told, which)(x, sigma), Smooth()(x, sigma))
    told(x, sigma, None, which).square().mean().backward()
    with torch.no_grad():
        told.marks[1].add_(0.1)
    found, before = OfCall(told, which)(x, sigma), Smooth()(x, sigma)
    assert torch.equal(found[::2], before[::2])


def test_a_mark_is_taken_off_again_where_the_noise_hides_nothing() -> None:
    told = Told(nn.Identity(), 1, SHAPE[1:], 0.5)
    told.denoiser.forward = lambda x, sigma, condition: x  # what any denoiser does without noise
    with torch.no_grad():
        told.marks.add_(0.1)
    x, which = noises(1)[0], torch.zeros(6, dtype=torch.int64)
    found = told(x, torch.full((6,), 1e-3), None, which)
    torch.testing.assert_close(found, x, atol=1e-4, rtol=0)


def test_a_told_denoiser_can_be_held() -> None:
    told = Told(Smooth(), 2, SHAPE[1:], 0.5)
    x, which = noises(1)[0].requires_grad_(), torch.zeros(6, dtype=torch.int64)
    fake = OfCall(told, which)
    with held(fake):
        found = fake(x, torch.ones(6))
    found.sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in told.parameters())
