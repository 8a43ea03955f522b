"""Model folders: config.json says what it is, model.safetensors holds the net's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from noisewise.diffusion import Preconditioned, Prediction
from noisewise.training.devices.engine import channels_last
from noisewise.training.devices.sharding import whole
from noisewise.training.files.atomic import (
    digest_of,
    load_tensors,
    read_sealed,
    save_tensors,
    sync_folder,
    write_sealed,
)
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.models.networks import network

Build = Callable[[dict[str, Any]], nn.Module]
_FOREIGN = (
    "the net of this model is not one of noisewise's; load it from Python with build=, a function "
    "that makes the module from its configuration"
)


def save_model(folder: Path, denoiser: nn.Module, config: ModelConfig, writes: bool = True) -> None:
    """Write a model folder; the weights first, so that a config never stands without weights.

    Args:
        folder: the folder.
        denoiser: its network is written; if it is split over processes, all call this.
        config: what it is.
        writes: whether this process is the one that writes.
    """
    tensors = whole(network(denoiser).state_dict())
    if not writes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    weights = save_tensors(folder / "model.safetensors", tensors)
    write_sealed(folder / "config.json", {**config.to_dict(), "weights": weights})
    sync_folder(folder.parent)


def load_model(folder: Path, build: Build | None = None) -> Teacher | Generator:
    """Load a model folder on the CPU, in eval mode.

    Args:
        folder: holds config.json and model.safetensors.
        build: makes the net from its configuration; None: `noisewise.nets.derive.build`.

    Raises:
        ValueError: if a file is missing or damaged, or the two do not belong together.
        OSError, MemoryError: if one cannot be read now.
    """
    config, weights = _read(folder)
    if config.prediction == "denoiser" and build is None:
        raise ValueError(f"{folder}: {_FOREIGN}")
    try:
        denoiser = build_denoiser(config.net, config.sigma_data, config.prediction, build)
        network(denoiser).load_state_dict(weights)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'model.safetensors'} does not fit its config.json") from error
    denoiser = channels_last(denoiser).requires_grad_(False)
    if config.kind == "teacher":
        return Teacher(denoiser, config).eval()
    return Generator(denoiser, config, _teacher_beside(folder, build)).eval()


def is_whole(folder: Path) -> bool:
    """Whether a model folder is there and holds what was written.

    Raises:
        OSError, MemoryError: if it cannot be read now.
    """
    try:
        _read(folder)
    except ValueError:
        return False
    return True


def _read(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Description and weights, which belong together."""
    config, expected = read_config(folder)
    weights, _ = load_tensors(folder / "model.safetensors")
    if expected is not None and expected != digest_of(weights):
        raise ValueError(
            f"{folder / 'model.safetensors'} is damaged, or does not belong to its config.json: "
            "give the command that trained it again, or restore both from a copy"
        )
    return config, weights


def read_config(folder: Path) -> tuple[ModelConfig, str | None]:
    """Read a model's description, and the digest of the weights that belong to it if it says.

    Raises:
        ValueError: if it is missing, damaged or of another version.
    """
    path = folder / "config.json"
    values = read_sealed(path, {"format", "weights", *(f.name for f in fields(ModelConfig))})
    return ModelConfig.from_dict(values, path), values.get("weights")


def build_denoiser(
    net: dict[str, Any],
    sigma_data: float,
    prediction: Prediction | Literal["denoiser"] = "edm",
    build: Build | None = None,
) -> nn.Module:
    """Make a denoiser with fresh weights.

    Args:
        net: configuration of the net.
        sigma_data: standard deviation of the pictures.
        prediction: what the net predicts; "denoiser": it is a denoiser already.
        build: makes the net from its configuration; None: `noisewise.nets.derive.build`.

    Raises:
        ValueError: if the net is not one of noisewise's and `build` is missing.
    """
    if prediction == "denoiser":
        if build is None:
            raise ValueError(_FOREIGN)
        return build(net)
    if build is None:
        from noisewise.nets.derive import build as build_net

        build = build_net
    return Preconditioned(build(net), sigma_data, prediction)


def _teacher_beside(folder: Path, build: Build | None) -> Callable[[], Teacher] | None:
    """Look for the teacher of a generator: inside its folder, or beside it in the run."""
    for place in (folder / "teacher", folder.parent / "teacher"):
        if (place / "config.json").exists():

            def find(place: Path = place) -> Teacher:
                found = load_model(place, build)
                if not isinstance(found, Teacher):
                    raise ValueError(f"{place} holds no teacher")
                return found

            return find
    return None
