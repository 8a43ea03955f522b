"""Models from somebody else: a wrong or huge config.json is one sentence, and takes no memory."""

from __future__ import annotations

import json
import math
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from noisewise.diffusion import Preconditioned
from noisewise.nets.derive import build, derive
from noisewise.training.files.atomic import load_tensors, read_json, save_tensors
from noisewise.training.files.tensor_header import tensor_shapes
from noisewise.training.load import load
from noisewise.training.models.model_folder import load_model, save_model
from noisewise.training.models.models import Teacher
from tiny import UNET as NET
from tiny import UNET_CONFIG as CONFIG

MORE = 300 * 2**20  # bytes of memory that a refusal may take, at most


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", Preconditioned(NET, 0.5), CONFIG)
    return tmp_path / "model"


def change(folder: Path, values: dict[str, Any], net: dict[str, Any] | None = None) -> None:
    """Change config.json as somebody may: without its seal it is believed."""
    described = read_json(folder / "config.json")
    described.pop("seal", None)
    described["net"] |= net or {}
    (folder / "config.json").write_text(json.dumps({**described, **values}))


def peak() -> int:
    """Most memory that this process has had so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("values", "net"),
    [
        ({}, {"widths": [8000, 16000]}),
        ({}, {"widths": [10**9, 10**9]}),
        ({}, {"widths": [-8, 8]}),
        ({}, {"widths": "wide"}),
        ({}, {"widths": [8.5, 8]}),
        ({}, {"widths": [[8], 8]}),
        ({}, {"widths": [8] * 10_000, "blocks": [1] * 10_000}),
        ({}, {"blocks": [10**7, 1]}),
        ({}, {"blocks": [200, 200]}),
        ({}, {"blocks": None}),
        ({}, {"patch": 0}),
        ({}, {"patch": -2}),
        ({}, {"patch": "2"}),
        ({}, {"channels": 10**6}),
        ({}, {"size": "abc"}),
        ({}, {"size": 20_000}),
        ({}, {"size": 16}),
        ({}, {"dropout": math.nan}),
        ({}, {"attention": "yes"}),
        ({}, {"num_classes": 10**12}),
        ({}, {"num_classes": True}),
        ({}, {"name": "vit", "depth": 10**9}),
        ({}, {"name": None}),
        ({}, {"name": ["unet"]}),
        ({}, {"name": "pyramid", "detail_sd": [[math.nan]], "coarse_sd": [1], "power": [[1]]}),
        ({"size": "abc"}, {}),
        ({"size": 20_000}, {"size": 20_000}),
        ({"size": 2048}, {"size": 2048}),
        ({"size": 0}, {"size": 0}),
        ({"size": -8}, {}),
        ({"size": None}, {}),
        ({"channels": 3}, {}),
        ({"channels": "1"}, {}),
        ({"sigma_data": None}, {}),
        ({"sigma_data": math.nan}, {}),
        ({"sigma_data": math.inf}, {}),
        ({"sigma_data": -1}, {}),
        ({"sigma_data": "0.5"}, {}),
        ({"sigma_data": [0.5]}, {}),
        ({"sigma_data": 10**400}, {}),
        ({"kind": "artist"}, {}),
        ({"kind": "generator"}, {}),
        ({"kind": "generator", "sigma_init": "2"}, {}),
        ({"kind": ["teacher"]}, {}),
        ({"prediction": {}}, {}),
        ({"net": []}, {}),
        ({"net": {}}, {}),
        ({"net": None}, {}),
        ({"sampler": []}, {}),
        ({"sampler": {"num_steps": 10**9}}, {}),
        ({"sampler": {"num_steps": True}}, {}),
        ({"sampler": {"sigma_max": "40"}}, {}),
        ({"sampler": {"sigma_min": None}}, {}),
        ({"sampler": {"guidance_interval": 3}}, {}),
        ({"sampler": {"name": []}}, {}),
        ({"flats": {"values": [["a"]]}}, {}),
        ({"flats": 3}, {}),
        ({"classes": "abc"}, {}),
        ({"classes": [1, 2]}, {}),
        ({"classes": ["a", "b"], "label_histogram": [1]}, {"num_classes": 2}),
        ({"classes": ["a"], "label_histogram": [0]}, {"num_classes": 1}),
        ({"classes": ["a"], "label_histogram": [math.nan]}, {"num_classes": 1}),
        ({"classes": ["a"], "label_histogram": [4]}, {}),
        ({"noise_scale": "1"}, {}),
        ({"noise_scale": None}, {}),
        ({"multiscale": 3}, {}),
        ({"loss": []}, {}),
        ({"sigma_range": 3}, {}),
        ({"sigma_range": ["a", "b"]}, {}),
        ({"stats": 3}, {}),
        ({"format": []}, {}),
        ({"weights": 3}, {}),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_wrong_config_is_one_sentence(
    folder: Path, values: dict[str, Any], net: dict[str, Any]
) -> None:
    change(folder, values, net)
    before = peak()
    with pytest.raises(ValueError, match=r"config|model") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert peak() - before < MORE


def test_brackets_inside_brackets(folder: Path) -> None:
    for text in ("[" * 200_000, '{"net":' * 100_000):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match="cannot be read"):
            load(folder)


@pytest.mark.parametrize("architecture", ["unet", "pyramid", "uvit", "vit"])
def test_every_net_of_ours_is_loaded_as_before(tmp_path: Path, architecture: Any) -> None:  # noqa: ANN401
    """The shapes of each net are known without memory, and are those of its file."""
    size = 64 if architecture == "pyramid" else 16
    derived = derive(size, 1, architecture=architecture, num_classes=2)
    net = build(derived.net)
    config = replace(
        CONFIG,
        net=net.config,  # pyrefly: ignore[bad-argument-type]
        size=size,
        prediction=derived.prediction,
        classes=("a", "b"),
        label_histogram=(1, 3),
    )
    save_model(tmp_path / "model", Preconditioned(net, 0.5, derived.prediction), config)
    shapes = tensor_shapes(tmp_path / "model" / "model.safetensors")
    assert shapes == {name: tuple(value.shape) for name, value in net.state_dict().items()}
    model = load_model(tmp_path / "model")
    for name, value in model.denoiser.state_dict().items():
        torch.testing.assert_close(value, net.state_dict()[name.removeprefix("net.")])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    path = folder / "model.safetensors"
    weights, _ = load_tensors(path)
    weights["head.bias"][-1] = value
    change(folder, {"weights": save_tensors(path, weights)})
    with pytest.raises(ValueError, match="the weights hold values that are not finite"):
        load(folder)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"1234")


def _sparse(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(2**36)


def _huge_header(path: Path) -> None:
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")


def _deep_header(path: Path) -> None:
    text = b"[" * 100_000
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def _strange_header(path: Path) -> None:
    text = json.dumps({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, "y"]}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _zeros(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize(
    "damage",
    [
        *(_cut, _longer, _sparse, _huge_header, _deep_header, _strange_header),
        *(_folder, _pipe, _zeros, _itself),
    ],
)
def test_a_file_that_is_none_is_one_sentence(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder / name)
    before = peak()
    with pytest.raises(ValueError, match="model") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert peak() - before < MORE


def test_a_model_of_a_hub_is_links_to_files(folder: Path, tmp_path: Path) -> None:
    """Alone, a model folder may consist of links to files, as caches of model hubs do."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(folder / name)
    model = load(snapshot)
    assert isinstance(model, Teacher)
    assert model.config == CONFIG
