from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisewise.diffusion import heun, karras_sigmas, sample
from noisewise.training.files.atomic import read_json, write_json
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.model_folder import load_model, save_model
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.models.seeded_noise import picture_labels, picture_noise
from tiny import TWO_CLASSES, TinyNet, build, tiny_denoiser

STUDENT = replace(TWO_CLASSES, kind="generator", sigma_init=2.5, two_call_sigma=0.3)


def trained(num_classes: int = 2) -> torch.nn.Module:
    """Tiny denoiser whose last layer is not zero."""
    denoiser = tiny_denoiser(num_classes=num_classes)
    net = denoiser.net
    assert isinstance(net, TinyNet)
    with torch.no_grad():
        net.out.weight.copy_(
            torch.randn(net.out.weight.shape, generator=torch.Generator().manual_seed(1)) * 0.1
        )
    return denoiser.eval()


def test_picture_i_depends_on_the_seed_and_i_alone() -> None:
    for model in (Teacher(trained(), TWO_CLASSES), Generator(trained(), STUDENT)):
        five, two = model.sample(5, seed=3), model.sample(2, seed=3)
        torch.testing.assert_close(five[:2], two)
        assert not torch.allclose(five, model.sample(5, seed=4))
        assert five.shape == (5, 1, 8, 8)
        assert five.abs().max() <= 1


def test_pictures_do_not_depend_on_how_they_are_batched() -> None:
    model = Generator(trained(), STUDENT)
    many = model.sample(300, seed=0)  # two batches
    z, label = model.noise(0, 250, 50), model.labels(0, 250, 50, None)
    torch.testing.assert_close(many[250:], model(z, label))


def test_noise_is_standard_normal_and_its_streams_are_independent() -> None:
    a, b = (picture_noise(0, 0, 256, (1, 8, 8), stream) for stream in (0, 1))
    assert a.mean().abs() < 0.03
    assert abs(a.std() - 1) < 0.02
    assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 0.03
    assert torch.corrcoef(a.flatten(1)[:32]).fill_diagonal_(0).abs().max() < 0.6


def test_labels_are_drawn_as_often_as_in_the_data() -> None:
    labels = picture_labels(0, 0, 2000, (30, 0, 10))
    counts = torch.bincount(labels, minlength=3) / 2000
    torch.testing.assert_close(counts, torch.tensor([0.75, 0.0, 0.25]), atol=0.04, rtol=0)


def test_a_teacher_samples_as_its_settings_say() -> None:
    denoiser = trained()
    teacher = Teacher(denoiser, TWO_CLASSES)
    noise = picture_noise(7, 0, 4, (1, 8, 8))
    label = picture_labels(7, 0, 4, (30, 10))
    for calls, steps in ((None, 3), (9, 5), (1, 1)):
        sigmas = karras_sigmas(steps, 0.3, 40.0, 7.0)
        expected = sample(heun(denoiser, noise, sigmas, label)).clamp(-1, 1)
        torch.testing.assert_close(teacher.sample(4, seed=7, calls=calls), expected)


def test_a_generator_is_one_call_at_sigma_init() -> None:
    denoiser = trained()
    z, label = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 1, 0])
    expected = denoiser(2.5 * z, torch.full((4,), 2.5), label).clamp(-1, 1)
    torch.testing.assert_close(Generator(denoiser, STUDENT)(z, label), expected)


def test_a_second_call_adds_noise_and_denoises_with_the_teacher() -> None:
    student, teacher = trained(), Teacher(trained(), TWO_CLASSES)
    model = Generator(student, STUDENT, lambda: teacher)
    one, label = model.sample(4), model.labels(0, 0, 4, None)
    noised = one + 0.3 * model.noise(0, 0, 4, stream=1)
    with torch.no_grad():
        expected = teacher(noised, torch.full((4,), 0.3), label).clamp(-1, 1)
    torch.testing.assert_close(model.sample(4, calls=2), expected)
    assert len(list(model.parameters())) == len(list(student.parameters()))


def test_classes_are_asked_for_by_name_or_number() -> None:
    model = Generator(trained(), STUDENT)
    torch.testing.assert_close(model.sample(2, label="right"), model.sample(2, label=1))
    torch.testing.assert_close(model.sample(2, label="1"), model.sample(2, label=1))
    assert not torch.allclose(model.sample(2, label=0), model.sample(2, label=1))


def test_what_cannot_be_drawn_is_refused_with_advice() -> None:
    teacher, student = Teacher(trained(), TWO_CLASSES), Generator(trained(), STUDENT)
    for asked, message in (
        (lambda: teacher.sample(1, calls=8), "use 7 or 9"),
        (lambda: teacher.sample(1, calls=0), "use 1 or more"),
        (lambda: teacher.sample(0), "at least 1"),
        (lambda: teacher.sample(1, seed=-1), "use 0 or more"),
        (lambda: teacher.sample(1, label="up"), "unknown class 'up'; there are 2: left, right"),
        (lambda: teacher.sample(1, label=2), "unknown class 2"),
        (lambda: student.sample(1, calls=3), "1 or 2"),
        (lambda: student.sample(1, calls=2), "use 1 call"),
        (lambda: student(torch.zeros(1, 1, 4, 4)), r"takes \[n, 1, 8, 8\]"),
        (lambda: student(torch.zeros(1, 1, 8, 8)), "needs a label"),
        (lambda: Generator(trained(), TWO_CLASSES), "sigma_init"),
    ):
        with pytest.raises(ValueError, match=message):
            asked()
    plain = Generator(trained(0), replace(STUDENT, classes=(), label_histogram=()))
    with pytest.raises(ValueError, match="without classes"):
        plain.sample(1, label=0)


def test_a_model_folder_goes_round(tmp_path: Path) -> None:
    denoiser = trained()
    save_model(tmp_path / "teacher", denoiser, TWO_CLASSES)  # pyrefly: ignore[bad-argument-type]
    save_model(tmp_path / "generator", denoiser, STUDENT)  # pyrefly: ignore[bad-argument-type]
    teacher = load_model(tmp_path / "teacher", build)
    student = load_model(tmp_path / "generator", build)
    assert isinstance(teacher, Teacher)
    assert isinstance(student, Generator)
    assert teacher.config == TWO_CLASSES
    assert student.config == STUDENT
    torch.testing.assert_close(teacher.sample(3), Teacher(denoiser, TWO_CLASSES).sample(3))
    assert student.sample(3, calls=2).shape == (3, 1, 8, 8)  # the teacher beside it is found
    assert not student.training
    assert not any(p.requires_grad for p in student.parameters())


def test_a_model_of_another_shape_goes_round_too(tmp_path: Path) -> None:
    config = replace(TWO_CLASSES, size=(8, 12))
    save_model(tmp_path / "teacher", trained(), config)
    assert read_json(tmp_path / "teacher" / "config.json")["size"] == "12x8"
    again = load_model(tmp_path / "teacher", build)
    assert again.config == config
    assert again.size == (8, 12)
    assert again.sample(2).shape == (2, 1, 8, 12)
    assert "Teacher(12 x 8, grey" in repr(again)
    for wrong in ("12x", [8], None, 0.5):
        values = {**config.to_dict(), "size": wrong}
        with pytest.raises(ValueError, match="does not describe a model: size takes"):
            ModelConfig.from_dict(values)
    assert ModelConfig.from_dict({**config.to_dict(), "size": [8, 12]}) == config


def test_damaged_model_folders_are_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    save_model(folder, trained(), TWO_CLASSES)  # pyrefly: ignore[bad-argument-type]
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, described = weights.read_bytes(), read_json(config)
    del described["seal"]  # as somebody may who changes it on purpose
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load_model(folder, build)
    weights.write_bytes(whole)
    for change, message in (
        ({"net": {**described["net"], "num_classes": 5}}, "does not fit its config"),
        ({"format": 99}, "not a model of this version"),
        ({"sampler": {"speed": 3}}, "does not describe a model"),
        ({"sampler": {"name": "dpm++"}}, r"config\.json .*'dpm\+\+'; use one of heun, ddim, ddpm"),
        ({"sampler": {"num_steps": "5"}}, r"config\.json .*num_steps is '5'"),
        ({"sampler": {"sigma_max": 10**400}}, r"config\.json .*sigma_max is a huge number"),
    ):
        write_json(config, {**described, **change})
        with pytest.raises(ValueError, match=message) as caught:
            load_model(folder, build)
        assert "\n" not in str(caught.value)
    config.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        load_model(folder, build)


def test_a_model_prints_as_one_readable_line() -> None:
    assert repr(Teacher(trained(), TWO_CLASSES)).startswith(
        "Teacher(8 x 8, grey, 2 classes, 5 calls by heun, "
    )
    shown = repr(Generator(trained(), STUDENT))
    assert shown.startswith("Generator(8 x 8, grey, 2 classes, 1 or 2 calls, ")
    assert shown.endswith(" parameters on cpu)")
    assert "\n" not in shown


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_each_picture_may_have_its_own_class(kind: Callable[[list[int]], Any]) -> None:
    for model in (Teacher(trained(), TWO_CLASSES), Generator(trained(), STUDENT)):
        drawn = model.sample(label=kind([1, 0, 1]))
        one, other = model.sample(3, label=1), model.sample(3, label=0)
        torch.testing.assert_close(drawn, torch.stack([one[0], other[1], one[2]]))
    named = model.sample(label=["right", "left", "1"])
    torch.testing.assert_close(named, drawn)


def test_a_list_of_classes_starts_again_also_in_the_next_batch() -> None:
    model = Generator(trained(), STUDENT)
    labels = model.labels(0, 248, 6, [0, 1, 1])
    assert labels is not None
    assert labels.tolist() == [1, 0, 1, 1, 0, 1]  # pictures 248 to 253
    many = model.sample(300, label=[0, 1, 1])
    torch.testing.assert_close(many[297], model.sample(298, label=0)[297])
    assert model.sample().shape == (1, 1, 8, 8)
    assert model.sample(label=torch.tensor(1)).shape == (1, 1, 8, 8)
    for wrong, message in (
        ([], "empty"),
        ([0, 5], "unknown class 5"),
        ([[0], [1]], "unknown class"),
        (np.zeros((2, 2), int), "in one row"),
    ):
        with pytest.raises(ValueError, match=message):
            model.sample(label=wrong)  # pyrefly: ignore[bad-argument-type]


def test_models_pickle_and_copy(tmp_path: Path) -> None:
    """Both in one's own process; a run's files are never pickles."""
    save_model(tmp_path / "teacher", trained(), TWO_CLASSES)  # pyrefly: ignore[bad-argument-type]
    save_model(tmp_path / "generator", trained(), STUDENT)  # pyrefly: ignore[bad-argument-type]
    for name in ("teacher", "generator"):
        model = load_model(tmp_path / name, build)
        for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert type(again) is type(model)
            assert again.config == model.config
            assert torch.equal(again.sample(3, label=1), model.sample(3, label=1))
            assert repr(again) == repr(model)
        if name == "generator":  # the second call finds its teacher again
            assert torch.equal(again.sample(2, calls=2), model.sample(2, calls=2))
