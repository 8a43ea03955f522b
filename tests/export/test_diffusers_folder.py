"""The pipeline folder: diffusers loads it in a process of its own and draws our pictures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export_models import CLASSES, FLATS, PALETTE, PYRAMID, UNET, models
from noisewise.diffusion import SAMPLERS, karras_sigmas
from noisewise.diffusion.samplers.sampler import normal_from
from noisewise.export import write
from noisewise.quality.snap_colours import colours_a_picture, on_palette
from noisewise.training.models.model_config import SamplerSettings

pytest.importorskip("diffusers", reason="diffusers is not installed (extra: diffusers)")

ALONE = """
import sys, torch, numpy
from {module} import {name}
{before}
pipe = {name}.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
drawn = pipe(4, {labels}generator=torch.Generator().manual_seed(3), {steps}output_type="np").images
numpy.save(sys.argv[2], drawn)
print(type(pipe).__name__)
"""


def drawn_alone(
    folder: Path, place: Path, name: str, labels: str = "", steps: str = ""
) -> tuple[np.ndarray, str]:
    """What a fresh process draws, and the class of its pipeline."""
    ours = name == "NoisewisePipeline"
    code = ALONE.format(
        module="noisewise.export" if ours else "diffusers",
        name=name,
        before="" if ours else "import noisewise.export.pipeline",
        labels=labels,
        steps=steps,
    )
    words = [sys.executable, "-c", code, str(folder), str(place)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return np.load(place), done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("name", ["NoisewisePipeline", "DiffusionPipeline"])
def test_a_fresh_process_draws_the_same_pictures(name: str, tmp_path: Path) -> None:
    """By our pipeline, and by a class of diffusers itself: no code is trusted."""
    generator = models({**UNET, "num_classes": 3})[1]
    done = write(generator, "diffusers", tmp_path / "mine")
    assert done.difference is not None
    assert done.difference < 1e-6
    assert not list((tmp_path / "mine").rglob("*.py"))
    labels = "class_labels=[0, 2, 1, 0], "
    got, of_class = drawn_alone(tmp_path / "mine", tmp_path / "got.npy", name, labels)
    shared = name == "DiffusionPipeline"
    assert of_class == ("ConsistencyModelPipeline" if shared else "NoisewisePipeline")
    z = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    expected = generator(z, torch.tensor([0, 2, 1, 0])).permute(0, 2, 3, 1) / 2 + 0.5
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-6)


def test_pictures_that_are_not_square(tmp_path: Path) -> None:
    generator = models(PYRAMID, "bands", flats=replace(FLATS, values=((0, 0, 0),)))[1]
    write(generator, "diffusers", tmp_path / "wide")
    got, of_class = drawn_alone(tmp_path / "wide", tmp_path / "got.npy", "NoisewisePipeline")
    assert of_class == "NoisewisePipeline"
    z = torch.randn(4, 3, 8, 16, generator=torch.Generator().manual_seed(3))
    expected = generator.config.flats.applied(generator(z)).permute(0, 2, 3, 1) / 2 + 0.5
    assert np.mean(np.abs(got - expected.numpy()) < 1e-5) > 0.999  # flats: rounding at a border


def test_pictures_with_a_palette(tmp_path: Path) -> None:
    from noisewise.export import NoisewisePipeline

    few = replace(PALETTE, most=2, tolerance=0.05, way="again")
    for model in models({**PYRAMID, "size": 16}, "bands", palette=few):
        place = tmp_path / model.config.kind
        write(model, "diffusers", place)
        pipe = NoisewisePipeline.from_pretrained(place)
        pipe.set_progress_bar_config(disable=True)
        got = pipe(latents=model.noise(0, 0, 3), output_type="pt").images * 2 - 1
        assert on_palette(got, few.tensor) == 1.0
        assert colours_a_picture(got).max() <= 2


@pytest.mark.parametrize("sampler", ["heun", "ddim", "dpmpp_2m"])
def test_a_teacher_draws_its_own_pictures(sampler: str, tmp_path: Path) -> None:
    from noisewise.export import NoisewisePipeline

    settings = SamplerSettings(sampler, num_steps=4, guidance=1.5, guidance_interval=(0.2, 8.0))
    teacher = models({**UNET, "num_classes": 3}, sampler=settings)[0]
    done = write(teacher, "diffusers", tmp_path / "teacher")
    assert done.difference is not None
    assert done.difference < 1e-6
    pipe = NoisewisePipeline.from_pretrained(tmp_path / "teacher")
    pipe.set_progress_bar_config(disable=True)
    noise, labels = teacher.noise(1, 0, 5), teacher.labels(1, 0, 5)
    assert labels is not None
    got = pipe(latents=noise, class_labels=labels, output_type="pt").images * 2 - 1
    torch.testing.assert_close(got, teacher.sample(5, seed=1), atol=1e-6, rtol=0)
    names = [CLASSES[label] for label in labels]
    again = pipe(latents=noise, class_labels=names, output_type="pt").images * 2 - 1
    assert torch.equal(got, again)
    more = pipe(latents=noise, class_labels=labels, num_inference_steps=6, output_type="pt")
    calls = settings.sampler.num_calls(6)
    expected = teacher.sample(5, seed=1, calls=calls)
    torch.testing.assert_close(more.images * 2 - 1, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_the_scheduler_walks_as_the_sampler_does(sampler: object, num_steps: int) -> None:
    """Bit for bit, on a denoiser that is no straight line."""
    from noisewise.diffusion import Sampler
    from noisewise.export.scheduler import NoisewiseScheduler

    assert isinstance(sampler, Sampler)

    def denoiser(x: torch.Tensor, sigma: torch.Tensor, _: object = None) -> torch.Tensor:
        return torch.tanh(x / (1 + sigma[:, None, None, None]))

    noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    levels = karras_sigmas(num_steps, 0.3, 40.0)
    source = torch.Generator().manual_seed(1)
    *_, last = sampler.states(denoiser, noise, levels, None, normal_from(noise, source))
    scheduler = NoisewiseScheduler(sampler.name)
    for _ in range(2):  # the second walk knows nothing of the first
        scheduler.set_timesteps(num_steps)
        assert len(scheduler.timesteps) == sampler.num_calls(num_steps)
        x, source = noise * scheduler.init_noise_sigma, torch.Generator().manual_seed(1)
        for t in scheduler.timesteps:
            x0 = denoiser(x, t.expand(2))
            x = scheduler.step(x0, t, x, generator=source, return_dict=False)[0]
        assert torch.equal(x, last.x0.clamp(-1, 1))
    with pytest.raises(ValueError, match="this walk has ended"):
        scheduler.step(x, 0.3, x)


def test_labels_and_noise_are_drawn_by_the_generator_of_the_caller(tmp_path: Path) -> None:
    from noisewise.export import NoisewisePipeline

    write(models({**UNET, "num_classes": 3})[1], "diffusers", tmp_path / "mine")
    pipe = NoisewisePipeline.from_pretrained(tmp_path / "mine")
    pipe.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    first, again, other = (pipe(6, generator=seed, output_type="np").images for seed in seeds)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    (image,) = pipe(class_labels="up").images
    assert image.size == (8, 8)
    for asked, message in (
        ({"class_labels": "down"}, "unknown class 'down'"),
        ({"output_type": "latent"}, "use pil, np or pt"),
        ({"latents": torch.zeros(1, 3, 8, 8)}, r"give \(1, 1, 8, 8\)"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe(**asked)


def test_the_card_has_code_that_runs(tmp_path: Path) -> None:
    generator = models({**UNET, "num_classes": 3})[1]
    write(generator, "diffusers", tmp_path / "mine", license="mit", note="For arrows only.")
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "\nlibrary_name: diffusers\nlicense: mit\n" in card
    assert "For arrows only." in card
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "picture.png").exists()
    index = json.loads((tmp_path / "mine" / "model_index.json").read_text())
    assert index["unet"] == ["noisewise.export.pipeline", "NoisewiseModel"]
