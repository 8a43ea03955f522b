"""A generator of several calls in every format: the pictures that it draws itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export_models import FLATS, UNET, models
from noisewise.export import write
from noisewise.training.models.model_folder import load_model
from noisewise.training.models.models import Generator

LATER = (1.0, 0.3)


def generator(flats: bool = False) -> Generator:
    made = models({**UNET, "num_classes": 3})[1]
    config = replace(made.config, later_sigmas=LATER)
    if flats:
        config = replace(config, flats=FLATS)
    return Generator(made.denoiser, config).eval()


def inputs(few: Generator, count: int) -> dict[str, torch.Tensor]:
    label = few.labels(5, 0, count)
    assert label is not None
    return {"z": few.noise(5, 0, count), "label": label, "noise": few.later_noise(5, 0, count)}


def test_onnx_has_one_more_input(tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra: export)")
    import onnxruntime

    few = generator()
    assert (write(few, "onnx", tmp_path / "few.onnx").difference or 0) < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "few.onnx")
    assert [one.name for one in session.get_inputs()] == ["z", "label", "noise"]
    about = json.loads(session.get_modelmeta().custom_metadata_map["noisewise"])
    assert about["calls"] == 3
    for count in (1, 4):
        given = {name: x.numpy() for name, x in inputs(few, count).items()}
        (got,) = session.run(["pictures"], given)
        expected = few.sample(count, seed=5)
        torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-5, rtol=0)


def test_pt2_has_it_too(tmp_path: Path) -> None:
    few = generator(flats=True)
    assert (write(few, "pt2", tmp_path / "few.pt2").difference or 0) < 1e-5
    program = torch.export.load(tmp_path / "few.pt2").module()
    got = program(**inputs(few, 4))
    assert ((got - few.sample(4, seed=5)).abs() < 1e-5).float().mean() > 0.999


def test_a_pipeline_adds_the_noise_anew(tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra: diffusers)")
    from noisewise.export import NoisewisePipeline

    few = generator()
    assert (write(few, "diffusers", tmp_path / "few").difference or 0) < 1e-6
    index = json.loads((tmp_path / "few" / "model_index.json").read_text())
    assert index["_class_name"] == "NoisewisePipeline"  # that of diffusers takes one step
    pipe = NoisewisePipeline.from_pretrained(tmp_path / "few")
    pipe.set_progress_bar_config(disable=True)
    z, labels = few.noise(5, 0, 4), few.labels(5, 0, 4)
    for calls in (None, 1, 2, 3):
        source, again = (torch.Generator().manual_seed(7) for _ in range(2))
        drawn = pipe(
            latents=z,
            class_labels=labels,
            generator=source,
            num_inference_steps=calls,
            output_type="pt",
        )
        later = torch.randn((calls or 3) - 1, *z.shape, generator=again).transpose(0, 1)
        expected = few(z, labels, later)
        torch.testing.assert_close(drawn.images * 2 - 1, expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="trained for 3 calls, not 5"):
        pipe(latents=z, class_labels=labels, num_inference_steps=5)


def test_the_hubs_folder_draws_the_same(tmp_path: Path) -> None:
    few = generator()
    done = write(few, "hub", tmp_path / "few", license="cc0-1.0")
    assert done.difference == 0
    again = load_model(tmp_path / "few")
    assert torch.equal(again.sample(3, seed=2), few.sample(3, seed=2))
    assert "in 3 network calls" in (tmp_path / "few" / "README.md").read_text()
    assert not (tmp_path / "few" / "teacher").exists()
