from __future__ import annotations

import pytest
import torch
from torch import nn

from noisewise.training.stages.weight_averages import EMA, decay
from tiny import TinyNet


def followed(values: list[float], shares: tuple[float, ...], batch: int = 8) -> EMA:
    """Averages of a single weight that takes these values, one a step."""
    net = nn.Linear(1, 1, bias=False).double()
    ema = EMA(net, shares)
    for step, value in enumerate(values, start=1):
        nn.init.constant_(net.weight, value)
        ema.update(batch, images=step * batch)
    return ema


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_it_is_the_power_function_average_in_closed_form(share: float) -> None:
    # The decays telescope: step i of n weighs (i/n)^(1/share) - ((i-1)/n)^(1/share).
    values = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    edges = (torch.arange(41, dtype=torch.float64) / 40) ** (1 / share)
    expected = (edges.diff() * values).sum()
    average = followed(values.tolist(), (share,)).averages[0][0]
    torch.testing.assert_close(average.squeeze(), expected)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_look_back_is_a_share_of_the_images_however_long_the_run(share: float) -> None:
    # Weights that count the steps: the average lags by share / (1 + share) of all steps.
    for steps in (500, 2000):
        lag = 1 - followed(list(range(1, steps + 1)), (share,)).averages[0][0].item() / steps
        assert lag == pytest.approx(share / (1 + share), abs=3 / steps)


def test_an_ordinary_average_would_not_keep_its_share() -> None:
    lags = []
    for steps in (500, 2000):
        average = 0.0
        for i in range(1, steps + 1):
            average += (i - average) * 0.01
        lags.append(1 - average / steps)
    assert lags[0] > 3 * lags[1]


def test_constant_weights_stay_exactly() -> None:
    assert followed([3.0] * 50, (0.2,)).averages[0][0].item() == 3.0


def test_decay_does_not_depend_on_how_images_are_batched_much() -> None:
    assert decay(0.2, 64, 6400) == pytest.approx(decay(0.2, 32, 6368) * decay(0.2, 32, 6400))


def test_state_goes_round_and_keeps_the_memory_layout() -> None:
    net = TinyNet().to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    ema, other = EMA(net, (0.05, 0.2)), EMA(net, (0.05, 0.2))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    ema.update(4, 8)
    state = {"averages": [[t.contiguous() for t in a] for a in ema.averages]}
    other.load_state_dict(state)
    for mine, theirs in zip(ema.averages, other.averages, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert torch.equal(a, b)
            assert a.stride() == b.stride()
    target = TinyNet()
    ema.copy_to(target, 1)
    assert torch.equal(
        target.mid.weight,
        ema.averages[1][[n for n, _ in net.named_parameters()].index("mid.weight")],
    )


@pytest.mark.parametrize("shares", [(), (0.0,), (1.0,), (0.1, 2.0)])
def test_shares_out_of_range_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        EMA(nn.Linear(1, 1), shares)
