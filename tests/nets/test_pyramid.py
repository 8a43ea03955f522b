"""The pyramid of bands: its start, what it reaches, and that small pictures fit it."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from torch import nn

from noisewise.diffusion import Preconditioned, Prediction
from noisewise.nets import build, derive
from noisewise.nets.bands import measured_bands
from noisewise.nets.costs import costs_of
from noisewise.nets.haar import haar, low_pass
from noisewise.nets.pyramid import Pyramid
from noisewise.quality.wiener_filter import WienerFilter, cosines
from noisewise.training.settings.config import TrainConfig

SIZES = (64, 96, 128, 192, 256, 512, 1024)


def awake(net: nn.Module) -> nn.Module:
    """A net whose zeroed layers hold something, so that every path is seen."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


COLOURS = ((0.6, 0.8, 0.0), (0.8, -0.6, 0.0), (0.0, 0.0, 1.0))


def small(**changes: object) -> Pyramid:
    settings = {
        "channels": 3, "size": 64, "detail_sd": ((0.1, 0.05, 0.02), (0.3, 0.1, 0.1)),
        "coarse_sd": (2.0, 1.0, 0.5), "power": ((1.0,) * 32, (0.1,) * 32, (0.5,) * 32),
        "colours": COLOURS, "mean": (0.2, 0.0, -0.1), "widths": (12, 16, 16, 24),
    }  # fmt: skip
    return Pyramid(**(settings | changes))  # pyrefly: ignore[bad-argument-type]


def noised(n: int = 2, rows: int = 64, columns: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, rows, columns, generator=generator), torch.linspace(-2, 2, n)


def test_at_the_start_it_is_a_linear_filter_of_each_colour() -> None:
    """White power S: details are S / (S + sigma^2) x; the coarsest band has its own deviation."""
    net = small()
    x, level = noised()
    square = level.exp().square().view(-1, 1, 1, 1)
    mean = torch.tensor([0.2, 0.0, -0.1]).view(1, 3, 1, 1)
    axes = torch.tensor(COLOURS)

    def turned(images: torch.Tensor) -> torch.Tensor:
        return torch.einsum("dc,nchw->ndhw", axes, images - mean)

    low, fine = haar(turned(x))
    coarse, middle = haar(low)
    low, found_fine = haar(turned(net(x, level)))
    found_coarse, found_middle = haar(low)
    power = torch.tensor([1.0, 0.1, 0.5]).view(1, 3, 1, 1)
    kept = power / (power + square)
    for band, found in ((fine, found_fine), (middle, found_middle)):
        wanted = kept.repeat(1, 3, 1, 1) * band
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    sd = torch.tensor([2.0, 1.0, 0.5]).square().view(1, 3, 1, 1)
    torch.testing.assert_close(found_coarse, coarse * sd / (sd + square), rtol=1e-3, atol=1e-4)


def gaussian(count: int, seed: int) -> torch.Tensor:
    """Pictures whose power falls as 1 / (1 + (u^2 + v^2) / 4): the same in every direction."""
    u = torch.arange(32.0)
    sd = (1 + (u.square() + u.square()[:, None]) / 4).rsqrt()
    generator = torch.Generator().manual_seed(seed)
    spectrum = 4 * sd * torch.randn(count, 1, 32, 32, generator=generator)
    return cosines(32).mT @ spectrum @ cosines(32)


def test_details_of_gaussian_pictures_are_filtered_as_well_as_possible() -> None:
    """At the start details err as a fitted Wiener filter does; one filter for all errs more."""
    bands = measured_bands(gaussian(2000, 0), 1)
    sd = gaussian(2000, 0).std().item()
    net = Pyramid(1, 32, bands.detail_sd, bands.coarse_sd, bands.power, widths=(4, 8))
    best = WienerFilter(gaussian(2000, 1))
    x0 = gaussian(400, 2)
    for level in (0.1, 0.3, 1.0):
        sigma = torch.full((400,), level)
        x = x0 + level * torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
        plain = x * sd**2 / (sd**2 + level**2)
        errors = [
            (haar(d - x0)[1]).square().mean().item()
            for d in (net(x, sigma.log()), best(x, sigma), plain)
        ]
        assert errors[0] < 1.03 * errors[1]
        assert errors[2] > 1.05 * errors[1]
        expected = net.filter.error(0, sigma[:1].view(-1, 1, 1, 1)).square().item()
        assert errors[0] == pytest.approx(expected, rel=0.06)


def test_without_noise_a_picture_stays_as_it_is() -> None:
    net = awake(small())
    x, _ = noised()
    torch.testing.assert_close(net(x, torch.full((2,), -12.0)), x, rtol=0, atol=1e-4)


def test_gains_clear_flat_places_and_keep_edges() -> None:
    """With a = -1 small details go; with b = 1 all stays that the filter took; 0 does nothing."""
    net = small(gains=True)
    x, level = noised()
    fine, found = haar(torch.einsum("dc,nchw->ndhw", torch.tensor(COLOURS), x))[1], {}
    for a, b in ((0.0, 0.0), (-1.0, 0.0), (0.0, 1.0)):
        bias = net.gain[0].bias
        assert isinstance(bias, nn.Parameter)
        bias.data = torch.tensor([a] * 9 + [b] * 9)
        drawn = torch.einsum("dc,nchw->ndhw", torch.tensor(COLOURS), net(x, level))
        found[a, b] = haar(drawn)[1]
    torch.testing.assert_close(found[0.0, 0.0], _finest(small(), x, level))
    usual, cleared, kept = found.values()
    at = level > 0  # details of white pictures: errors of the filter are as large as they are
    assert cleared[at].square().mean() < 0.1 * usual[at].square().mean()
    assert (kept - fine).square().mean() < 0.1 * (usual - fine).square().mean()


def _finest(net: Pyramid, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    return haar(torch.einsum("dc,nchw->ndhw", torch.tensor(COLOURS), net(x, level)))[1]


def test_gains_learn_what_a_filter_cannot() -> None:
    """Flat places beside noise of variance 1: one filter errs in both, one for each place does not.

    The best filter for all has the error S s / (S + s) with S = 1/2; for each place it is 1/4 at
    s = 1, that is 3/4 of the former. A few steps must come below the filter.
    """
    generator = torch.Generator().manual_seed(0)

    def pictures(count: int) -> torch.Tensor:
        found = torch.randn(count, 1, 32, 32, generator=generator)
        found[:, :, :, 16:] = 1.0
        return found

    bands = measured_bands(pictures(500), 1)
    errors = {}
    for gains in (False, True):
        torch.manual_seed(0)
        net = Pyramid(
            1, 32, bands.detail_sd, bands.coarse_sd, bands.power, widths=(0, 8, 8), gains=gains
        )
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(40):
            x0 = pictures(16)
            x, level = x0 + torch.randn(x0.shape, generator=generator), torch.zeros(16)
            loss = haar(net(x, level) - x0)[1].square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors[gains] = loss.item()
    filtered = net.filter.error(0, torch.ones(1, 1, 1, 1)).square().item()
    assert errors[True] < 0.9 * filtered
    assert errors[True] < errors[False]


@pytest.mark.parametrize("shape", [(32, 96), (96, 32)])
def test_sides_that_differ_keep_its_laws(shape: tuple[int, int]) -> None:
    """Without noise nothing changes; a small picture is the coarse part; turned, all is turned."""
    net = awake(small(size=shape, gains=True))
    x, level = noised(2, *shape)
    torch.testing.assert_close(net(x, torch.full((2,), -12.0)), x, rtol=0, atol=1e-4)
    for levels in (1, 2):
        band = low_pass(x, levels)
        assert net(band, level).shape == band.shape
    fresh, turned = small(size=shape), small(size=shape[::-1])
    torch.testing.assert_close(turned(x.mT, level), fresh(x, level).mT, rtol=1e-3, atol=1e-4)
    rows, columns = shape
    said = f"of {columns}x{rows}, {columns // 2}x{rows // 2}, .* pixels, and not 64"
    with pytest.raises(ValueError, match=said):
        net(torch.zeros(1, 3, 64, 64), torch.zeros(1))
    with pytest.raises(ValueError, match=f"and not {rows}x{columns}"):
        net(x.mT, level)


@pytest.mark.parametrize("finest", [0, 12])
def test_a_small_picture_is_the_coarse_part(finest: int) -> None:
    """Its result does not depend on anything that belongs to finer levels."""
    net = awake(small(widths=(finest, 16, 16, 24), gains=True))
    x, level = noised()
    for levels in (1, 2):
        out = net(low_pass(x, levels), level)
        other = small(widths=(finest, 16, 16, 24), gains=True)
        other.load_state_dict(net.state_dict())
        for name, parameter in other.named_parameters():
            place = int(name.split(".")[1]) if name.split(".")[1].isdigit() else 99
            fine = name.startswith(("detail", "gain"))
            offset = 1 if not finest and not fine else 0
            if not name.startswith(("middle", "attend", "embedding")) and place + offset < levels:
                parameter.data.zero_()
        torch.testing.assert_close(other(low_pass(x, levels), level), out)


def test_what_joins_later_does_not_disturb_what_is_trained() -> None:
    """A fresh fine level adds nothing to the coarse bands of a net that has learnt."""
    net = small(gains=True)
    generator = torch.Generator().manual_seed(0)
    later = ("stem.0", "stem.1", "norm.0", "norm.1", "head.0", "head.1", "down.0", "down.1")
    later += ("up.0", "up.1", "shrink.0", "shrink.1", "grow.0", "grow.1")
    for name, parameter in net.named_parameters():
        if not name.startswith((*later, "detail", "gain")):
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    x, level = noised()
    whole = low_pass(net(x, level), 2)
    torch.testing.assert_close(whole, net(low_pass(x, 2), level), rtol=1e-4, atol=1e-4)


def test_every_parameter_and_every_pixel_matters() -> None:
    net = awake(small(depth=1, widths=(12, 16, 16, 32), gains=True)).train()
    x, level = noised()
    x.requires_grad_()
    net(x, level).square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_it_rebuilds_from_its_configuration_and_keeps_pictures_apart() -> None:
    net = awake(small(depth=1, widths=(12, 16, 16, 32), gains=True))
    twin = build(dict(net.config))  # pyrefly: ignore[bad-argument-type, no-matching-overload]
    twin.load_state_dict(net.state_dict())
    x, level = noised()
    torch.testing.assert_close(twin.eval()(x, level), net(x, level), rtol=0, atol=0)
    alone = torch.cat([net(x[i : i + 1], level[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(net(x, level), alone, rtol=1e-4, atol=1e-5)


def test_the_denoiser_in_bfloat16_keeps_the_picture_in_float32() -> None:
    """At low noise the skip alone must be exact, whatever the layers compute in."""
    net = awake(small()).bfloat16()
    x, _ = noised()
    out = Preconditioned(net, 0.5, "bands")(x, torch.full((2,), 1e-4))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x, rtol=0, atol=2e-2)


# --------------------------------------------------------------------------- reach of derived nets


def reached_directions(net: nn.Module, channels: int, size: int, side: int) -> float:
    """Smallest over largest singular value of what a net draws in places of `side` pixels.

    With its last layers awake and at high noise, what it draws must vary in every direction.
    """
    net = awake(net)
    generator = torch.Generator().manual_seed(2)
    places = []
    count = max(2, 4 * channels * side**2 // (size // side) ** 2 + 1)
    with torch.no_grad():
        for _ in range(count):
            x = 40 * torch.randn(1, channels, size, size, generator=generator)
            out = Preconditioned(net, 0.5, _prediction(net))(x, torch.full((1,), 40.0))
            blocks = nn.functional.unfold(out, side, stride=side)[0].T
            places.append(blocks)
    found = torch.cat(places).double()
    values = torch.linalg.svdvals(found - found.mean(0))
    return (values[-1] / values[0]).item()


def _prediction(net: nn.Module) -> Prediction:
    return "bands" if isinstance(net, Pyramid) else "x0"


@pytest.mark.parametrize("size", [64, 96, 128, 256])
def test_every_default_net_reaches_every_pixel(size: int) -> None:
    net = build(derive(size, 3).net)
    assert reached_directions(net, 3, size, 16) > 1e-5


@pytest.mark.parametrize(("size", "patch"), [(128, 8), (256, 16)])
def test_a_linear_head_that_is_too_narrow_is_seen(size: int, patch: int) -> None:
    """The nets that were the default above 64 pixels: 32 channels for 8 x 8 x 3 values."""
    old = {"name": "uvit", "channels": 3, "size": size, "widths": [32], "width": 64, "depth": 1}
    assert reached_directions(build({**old, "patch": patch}), 3, size, 16) < 1e-6


@pytest.mark.parametrize(
    ("size", "name"), list(itertools.product(SIZES, ("auto", "unet", "pyramid", "uvit", "vit")))
)
def test_a_derived_net_has_enough_channels_or_is_refused(size: int, name: str) -> None:
    """By count: the last layer of each resolution has at least as many inputs as outputs."""
    net, refused = None, ""
    try:
        net = build(derive(size, 3, architecture=name).net)  # pyrefly: ignore[bad-argument-type]
    except ValueError as error:
        refused = str(error)
    if net is None:
        assert re.search(r"use --net pyramid or widths of at least \d+", refused)
        assert name in ("unet", "uvit", "vit")
        return
    if isinstance(net, Pyramid):
        for head in (*net.detail_head, *net.head):
            assert isinstance(head, nn.Conv2d)
            assert head.in_channels >= head.out_channels
        return
    outputs, inputs = net.head.weight.shape[:2]  # pyrefly: ignore[missing-attribute]
    assert inputs >= outputs


def test_no_net_for_a_size_that_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="set size to 88 or 92"):
        derive(90, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (12, 16)}, "more widths than the 2 levels"),
        ({"widths": (12, 0, 16)}, "only the first may be 0"),
        ({"coarse_sd": (2.0, 0.0, 1.0)}, "standard deviation 0"),
        ({"coarse_sd": (2.0,)}, "a power, a mean and an axis of colour for each"),
        ({"mean": (0.1,)}, "a power, a mean and an axis of colour for each"),
        ({"colours": ((1.0, 0.0, 0.0),) * 3}, "no rotation"),
        ({"size": 66}, "set size to 64 or 68"),
        ({"size": "66x64"}, "cannot use 66x64 pixels: set size to 64 or 68x64"),
        ({"size": (4, 64)}, "set size to 64x8"),
        ({"blocks": (1, 1)}, "give at least 1 for each of the widths"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)
    with pytest.raises(ValueError, match="takes pictures of 64, 32, 16 pixels, and not 48"):
        small()(torch.zeros(1, 3, 48, 48), torch.zeros(1))


def test_the_depth_of_the_trunk_can_be_set_where_there_is_one() -> None:
    for name in ("pyramid", "uvit", "vit"):
        assert derive(64, 3, architecture=name, depth=2).net["depth"] == 2
    flat, deep = derive(128, 3), derive(128, 3, depth=2)
    assert (flat.net["depth"], deep.net["depth"]) == (0, 2)
    assert costs_of(deep.net).parameters > costs_of(flat.net).parameters
    with pytest.raises(ValueError, match="--net pyramid"):
        derive(32, 3, depth=2)
    for wrong in (-1, 65):
        with pytest.raises(ValueError, match="0 to 64"):
            TrainConfig(depth=wrong)
