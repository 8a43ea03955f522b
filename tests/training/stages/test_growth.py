"""Coarse scales are trained first: where in the budget, with which noise, and only once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from noisewise.diffusion import LogNormal
from noisewise.nets import build
from noisewise.pictures.pictures import load_pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_folder import build_denoiser
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.growth import scale_at, scales
from noisewise.training.stages.plan import TeacherPlan, plan_teacher
from noisewise.training.stages.teacher import TeacherStage

NET = {"name": "pyramid", "size": 256, "detail_sd": [[0.1], [0.2], [0.4]], "coarse_sd": [3.0]}
RELATIVE = LogNormal(-0.4, 1.4)


def test_the_budget_is_divided_from_coarse_to_fine() -> None:
    found = scales(NET, 0.9, RELATIVE)
    assert [(s.side, s.levels) for s in found] == [(32, 3), (64, 2), (128, 1)]
    assert [s.until for s in found] == pytest.approx([0.6, 0.8, 0.9])
    assert scales(NET, 0.0, RELATIVE) == scales({"name": "unet"}, 0.5, RELATIVE) == ()


def test_scales_of_other_shapes_keep_the_shape() -> None:
    lying = scales({**NET, "size": "256x128"}, 0.9, RELATIVE)
    assert [s.side for s in lying] == ["32x16", "64x32", "128x64"]
    x = torch.zeros(1, 3, 128, 256)
    assert [tuple(s.reduced(x).shape[2:]) for s in lying] == [(16, 32), (32, 64), (64, 128)]


def test_each_band_has_its_own_spread_and_noise() -> None:
    """A rotation keeps squares: sd_k^2 = (3 detail_k^2 + sd_(k+1)^2) / 4."""
    coarse, middle, fine = scales(NET, 0.5, RELATIVE)
    assert coarse.sd == 3.0
    assert middle.sd == pytest.approx(math.sqrt((3 * 0.4**2 + 9) / 4))
    assert fine.sd == pytest.approx(math.sqrt((3 * 0.2**2 + middle.sd**2) / 4))
    for scale in (coarse, middle, fine):
        assert scale.noise.mean == pytest.approx(math.log(scale.sd) - 0.4)
        assert scale.weight(torch.tensor([scale.sd])).item() == pytest.approx(2 / scale.sd**2)


def test_it_does_not_go_back_to_coarser_scales() -> None:
    found = scales(NET, 0.9, RELATIVE)
    sides = [scale_at(found, p, 3) for p in (0.0, 0.59, 0.61, 0.85, 0.95, 1.0)]
    assert [s and s.side for s in sides] == [32, 32, 64, 128, None, None]
    longer = [scale_at(found, 0.1, coarsest) for coarsest in (3, 2, 1, 0)]  # a longer budget
    assert [s and s.side for s in longer] == [32, 64, 128, None]


def large_pictures(path: Path, count: int = 24) -> Path:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    large = small.repeat(12, 1).repeat(12, 2)
    np.savez(path / "set.npz", images=large + rng.integers(0, 20, large.shape).astype(np.uint8))
    return path / "set.npz"


def stage(path: Path, share: float = 0.6) -> tuple[TeacherStage, TeacherPlan]:
    pictures = load_pictures(path, 96)
    recipe = TeacherRecipe(coarse_share=share, distance_images=0, batch=4, noise_every=0)
    config = TrainConfig(budget="400images", size=96, kinds=0, recipe=recipe, widths=(12, 12, 16))
    engine = Engine.choose("cpu", threads=1)
    plan = plan_teacher(config, pictures, engine)
    with engine.seeded(0):
        denoiser = build_denoiser(plan.net, plan.sigma_data, plan.prediction)
    return TeacherStage(pictures, denoiser, plan, config, engine), plan


def test_coarse_steps_leave_fine_levels_alone(tmp_path: Path) -> None:
    trained, plan = stage(large_pictures(tmp_path))
    assert plan.prediction == "bands"
    assert [s.side for s in plan.scales] == [24, 48]
    before = {k: v.clone() for k, v in trained.denoiser.state_dict().items()}

    def changed() -> set[str]:
        after = trained.denoiser.state_dict()
        return {k for k in before if not torch.equal(before[k], after[k])}

    for step in range(3):
        trained.step(step, 4 * step, 1.0, progress=0.1)
    assert "net.head.2.weight" in changed()
    assert not changed() & {"net.head.0.weight", "net.head.1.weight", "net.detail_head.1.weight"}
    trained.step(3, 12, 1.0, progress=0.5)
    assert {"net.head.1.weight", "net.detail_head.1.weight"} <= changed()
    assert "net.head.0.weight" not in changed()
    trained.step(4, 16, 1.0, progress=0.7)
    assert "net.head.0.weight" in changed()
    trained.step(5, 20, 1.0, progress=0.1)  # does not go back
    assert trained.rest()["coarsest"] == 0


def test_the_weight_average_counts_work_and_not_pictures(tmp_path: Path) -> None:
    """Ten thousand small pictures must not make the look-back longer than the fine training."""
    trained, _ = stage(large_pictures(tmp_path))
    trained.step(0, 0, 1.0, progress=0.1)
    assert trained.rest()["work"] == pytest.approx(4 / 16)
    trained.step(1, 4, 1.0, progress=0.9)
    assert trained.rest()["work"] == pytest.approx(4 / 16 + 4)
    assert trained.rest()["seen"] == 8


def test_it_resumes_where_it_was(tmp_path: Path) -> None:
    path = large_pictures(tmp_path)
    one, _ = stage(path)
    for step, progress in enumerate((0.1, 0.5, 0.9)):
        one.step(step, 4 * step, 1.0, progress)
    two, _ = stage(path)
    two.load_learned(one.learned())
    two.load_rest(one.rest())
    for trained in (one, two):
        trained.step(3, 12, 1.0, progress=0.2)
    for name, value in one.denoiser.state_dict().items():
        assert torch.equal(value, two.denoiser.state_dict()[name]), name
    assert two.rest()["coarsest"] == 0


def test_a_state_of_an_older_version_trains_whole_pictures(tmp_path: Path) -> None:
    path = large_pictures(tmp_path)
    old = stage(path)[0].rest()
    for name in ("work", "coarsest"):
        old.pop(name)
    trained, _ = stage(path)
    trained.load_rest(old)
    trained.step(0, 0, 1.0, progress=0.1)
    assert trained.rest()["coarsest"] == 0
    assert isinstance(build(trained.plan.net), torch.nn.Module)
