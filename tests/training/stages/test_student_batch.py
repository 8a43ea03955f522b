"""How many pictures a step of distillation has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from noisewise.nets.costs import costs_of
from noisewise.nets.derive import derive
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.settings.config import DistillConfig
from noisewise.training.stages.student_batch import student_batch

GIB = 2**30


def teacher_of(size: int) -> ModelConfig:
    return ModelConfig(
        kind="teacher",
        net=derive(size, 3).net,
        sigma_data=0.5,
        size=size,
        channels=3,
        noise={"name": "LogNormal", "mean": -0.4, "std": 1.4},
    )


@pytest.mark.parametrize(("size", "batch"), [(16, 64), (64, 64), (96, 32), (128, 32), (256, 16)])
def test_large_pictures_have_smaller_batches(size: int, batch: int) -> None:
    found, why = student_batch(DistillConfig(), teacher_of(size))
    assert found == batch
    assert why


def test_a_batch_that_was_set_is_kept() -> None:
    assert student_batch(DistillConfig(batch=5), teacher_of(256)) == (5, "set by hand")


def test_three_nets_must_fit_into_the_memory() -> None:
    teacher = teacher_of(256)
    costs = costs_of(teacher.net)
    one = 3 * (costs.fixed_bytes + costs.picture_bytes)
    enough = int((one + 3 * 5 * costs.picture_bytes) / 0.7) + 1
    assert student_batch(DistillConfig(), teacher, enough)[0] == 4  # 16 halved until 6 hold it
    assert student_batch(DistillConfig(), teacher, 1000 * GIB)[0] == 16
    with pytest.raises(ValueError, match="use --batch 6"):
        student_batch(DistillConfig(batch=8), teacher, enough)
    with pytest.raises(ValueError, match="free memory, or train a teacher of smaller"):
        student_batch(DistillConfig(), teacher, int(one / 0.7) - 4096)


def test_nets_of_unknown_costs_are_not_refused() -> None:
    foreign = replace(teacher_of(128), net={"name": "somebody's"})
    assert student_batch(DistillConfig(), foreign, 1)[0] == 32
