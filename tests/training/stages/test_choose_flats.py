"""Flats: exact values are found, taken where the judge allows it, and left where it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from noisewise.quality import Judge, exact_flat_share
from noisewise.quality.flats import FlatValue
from noisewise.training.models.model_config import Flats, ModelConfig
from noisewise.training.stages.choose_flats import choose_level


def shapes(num_images: int, seed: int, ground: float = -1.0) -> Tensor:
    """Soft blobs on an exact ground."""
    g = torch.Generator().manual_seed(seed)
    t = torch.linspace(-1, 1, 24)
    x, y = torch.rand(2, num_images, 1, 1, generator=g) - 0.5
    size = 0.2 + 0.4 * torch.rand(num_images, 1, 1, generator=g)
    r = ((t[None, :, None] - y) ** 2 + (t[None, None] - x) ** 2).sqrt()
    inside = 0.7 * (1 - r / size).clamp_min(0) + 0.2 * (r < size)
    return torch.where(r < size, inside, torch.full_like(r, ground))[:, None].clamp(-1, 1)


BLACK = (FlatValue((0,), 0.0, 0.0),)


def test_a_grey_ground_becomes_exactly_black_where_real_ones_are() -> None:
    real, more = shapes(150, 0), shapes(150, 1)
    share = exact_flat_share(real, list(BLACK))
    faint = more + 0.03 * torch.rand(more.shape, generator=torch.Generator().manual_seed(2))
    assert exact_flat_share(faint, list(BLACK)) < 0.1 * share
    chosen = choose_level(faint, Flats(((0,),), share), Judge(real))
    assert chosen.level in (4.0, 6.0, 8.0)
    assert exact_flat_share(chosen.applied(faint), list(BLACK)) == pytest.approx(share, rel=0.1)
    assert "#000000 filled" in chosen.reason


def test_a_level_that_the_judge_calls_worse_is_not_taken() -> None:
    real = shapes(150, 0, ground=-0.9)
    more = shapes(150, 1, ground=-0.9)
    # the folder is said to be black where it is dark grey: taking it would be seen
    chosen = choose_level(more, Flats(((0,),), 0.8), Judge(real))
    assert chosen.level == 0
    assert torch.equal(chosen.applied(more), more)
    assert "not better" in chosen.reason


def test_pictures_with_exact_flats_already_are_left_alone() -> None:
    real, more = shapes(100, 0), shapes(100, 1)
    share = exact_flat_share(real, list(BLACK))
    assert choose_level(more, Flats(((0,),), share), Judge(real)).level == 0
    assert choose_level(more, Flats(), Judge(real)) == Flats()


def test_flats_survive_the_model_file_and_bad_ones_are_refused() -> None:
    config = ModelConfig("teacher", {}, 0.5, 8, 1, {}, flats=Flats(((0,), (255,)), 0.5, 6.0, "why"))
    assert ModelConfig.from_dict(config.to_dict()) == config
    old = {k: v for k, v in config.to_dict().items() if k != "flats"}
    assert ModelConfig.from_dict(old).flats == Flats()
    for bad in (
        {"values": [[300]]},
        {"values": [["a"]]},
        {"level": -1},
        {"share": 2},
        {"values": 5},
        [],
        {"values": [[0]] * 99},
        {"level": float("nan")},
    ):
        with pytest.raises(ValueError, match="does not describe a model"):
            ModelConfig.from_dict(config.to_dict() | {"flats": bad})


def test_numpy_pictures_are_measured_as_files_hold_them() -> None:
    from noisewise.quality import flat_values

    pixels = np.zeros((3, 16, 16, 1), np.uint8)
    pixels[:, 4:8, 4:8, 0] = np.arange(16, dtype=np.uint8).reshape(4, 4)
    (found,) = flat_values(torch.from_numpy(pixels))
    assert found.value == (0,)
