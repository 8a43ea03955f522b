"""The judge tells wrong opacity from right, and does not see colours that nobody can see."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.copies import nearest
from noisewise.quality.judge import Judge
from noisewise.quality.premultiplied import premultiplied
from noisewise.quality.told_apart import told_apart
from noisewise.quality.variety import variety
from noisewise.quality.wasserstein import sliced_wasserstein

SIDE = 16


def drawn(count: int, seed: int, soft: bool = False) -> Tensor:
    """Blobs of one colour with a darker half, straight RGBA; hidden colours are black."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 5, 5, generator=g)
    shape = F.interpolate(coarse, size=SIDE, mode="bicubic", align_corners=False)
    row = torch.linspace(-1, 1, SIDE)
    shape = shape - 0.6 * (row[:, None] ** 2 + row**2)
    opacity = ((shape - 0.1) * 6 + 0.5).clamp(0, 1) if soft else (shape > 0.1).float()
    colour = torch.rand(count, 3, 1, 1, generator=g).expand(-1, -1, SIDE, SIDE).clone()
    colour[:, :, SIDE // 2 :] *= 0.6
    return torch.cat([colour * (opacity > 0), opacity], 1) * 2 - 1


def shuffled(images: Tensor) -> Tensor:
    """The colours of each picture with the opacity of another, shown wherever it is."""
    colour = images[:, :3].amax((2, 3), keepdim=True).expand_as(images[:, :3])
    return torch.cat([colour, images[:, 3:].roll(1, 0).flip(2)], 1)


def flat(images: Tensor) -> Tensor:
    """Opacity that is the same everywhere: what lies behind is lost."""
    return torch.cat([images[:, :3], torch.ones_like(images[:, 3:])], 1)


def half(images: Tensor) -> Tensor:
    """Everything half transparent."""
    return torch.cat([images[:, :3], images[:, 3:].clamp_max(0)], 1)


def fringed(images: Tensor) -> Tensor:
    """A bright, half transparent rim, as laying pictures on white and cutting them out leaves."""
    around = F.max_pool2d(images[:, 3:], 3, 1, 1) * (images[:, 3:] < 0)
    rim = (around > 0).float()
    colour = images[:, :3] * (1 - rim) + rim
    return torch.cat([colour, images[:, 3:] * (1 - rim) + 0.0 * rim], 1)


def holes(images: Tensor) -> Tensor:
    """Opacity with speckle."""
    g = torch.Generator().manual_seed(3)
    here = torch.rand(images[:, 3:].shape, generator=g) < 0.05
    return torch.cat([images[:, :3], torch.where(here, -images[:, 3:], images[:, 3:])], 1)


@pytest.mark.parametrize("soft", [False, True])
def test_wrong_opacity_is_far_and_other_pictures_of_the_same_kind_are_near(soft: bool) -> None:
    judge = Judge(drawn(200, 0, soft))
    other = drawn(200, 1, soft)
    near = judge.measure(other)
    assert near.value < 4
    for spoil in (shuffled, flat, half, fringed, holes):
        found = judge.measure(spoil(other))
        assert found.minus(near).surely_more, spoil.__name__
        assert found.value > 5 * max(near.value, 1), (spoil.__name__, found.value, near.value)


def test_a_classifier_tells_them_apart_too() -> None:
    real, other = drawn(100, 0), drawn(100, 1)
    assert told_apart(other, real).low < 0.55
    for spoil in (shuffled, flat, half, fringed, holes):
        assert told_apart(spoil(other), real).accuracy > 0.8, spoil.__name__


def test_hidden_colours_change_no_number() -> None:
    """Colours under opacity 0 are nobody's business: random ones, and black."""
    real, other = drawn(60, 0), drawn(60, 1)
    g = torch.Generator().manual_seed(5)
    hidden = torch.rand(other[:, :3].shape, generator=g) * 2 - 1
    changed = torch.cat([torch.where(other[:, 3:] > -1, other[:, :3], hidden), other[:, 3:]], 1)
    assert not torch.equal(changed, other)
    judge = Judge(real)
    assert judge.measure(changed).value == judge.measure(other).value
    assert told_apart(changed, real).accuracy == told_apart(other, real).accuracy
    assert variety(changed, real).value == variety(other, real).value
    for ours in (nearest(other, real), nearest(changed, real)):
        torch.testing.assert_close(ours.distance, nearest(other, real).distance)
    first, second = (sliced_wasserstein(x, real, num_projections=32) for x in (other, changed))
    assert first == second
    assert torch.equal(premultiplied(changed), premultiplied(other))
