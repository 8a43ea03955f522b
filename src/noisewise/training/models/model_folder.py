"""Model folders: config.json describes the model, model.safetensors holds the net's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from noisewise.diffusion import Preconditioned, Prediction
from noisewise.plain_files import NotPlainError
from noisewise.sizes import as_size
from noisewise.training.devices.engine import channels_last
from noisewise.training.devices.sharding import gather
from noisewise.training.files.atomic import (
    digest_of,
    load_tensors,
    read_sealed,
    save_tensors,
    write_sealed,
)
from noisewise.training.files.run_parts import is_in_run
from noisewise.training.models.diffusers_net import diffusers_denoiser, is_of_diffusers
from noisewise.training.models.limits import check_finite, check_net, check_weights
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.models.networks import network
from noisewise.training.out_of_memory import is_out_of_memory
from noisewise.whole_files import sync_folder

Build = Callable[[dict[str, Any]], nn.Module]
_NOT_OURS = (
    "the net of this model is not part of noisewise; load it in Python with build=, a function "
    "that makes the module from its configuration"
)


def save_model(folder: Path, denoiser: nn.Module, config: ModelConfig, writes: bool = True) -> None:
    """Write a model folder; the weights first, so that config.json never exists without them.

    Args:
        folder: the folder.
        denoiser: its net is written; if it is sharded, all processes must call this.
        config: description of the model.
        writes: whether this process writes.
    """
    tensors = gather(network(denoiser).state_dict())
    if not writes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    weights = save_tensors(folder / "model.safetensors", tensors)
    write_sealed(folder / "config.json", {**config.to_dict(), "weights": weights})
    sync_folder(folder.parent)


def load_model(folder: Path, build: Build | None = None) -> Teacher | Generator:
    """Load a model folder on the CPU, in eval mode.

    Args:
        folder: folder with config.json and model.safetensors.
        build: makes the net from its configuration; None: `noisewise.nets.derive.build`, or
            diffusers for a net of diffusers.

    Raises:
        ValueError: if a file is missing or damaged, the two do not fit together, or the weights
            are not finite.
        OSError, MemoryError: if a file cannot be read now.
    """
    config, digest = read_config(folder)
    if config.prediction == "denoiser" and build is None and not is_of_diffusers(config.net):
        raise ValueError(f"{folder}: {_NOT_OURS}")
    if build is None:
        _check_fits(folder, config)
    weights = _read_weights(folder, digest)
    check_finite(weights, folder / "model.safetensors")
    try:
        denoiser = build_denoiser(config.net, config.sigma_data, config.prediction, build)
        network(denoiser).load_state_dict(weights)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(f"{folder / 'model.safetensors'} does not fit its config.json") from error
    denoiser = channels_last(denoiser).requires_grad_(False)
    if config.kind == "teacher":
        return Teacher(denoiser, config).eval()
    return Generator(denoiser, config, _teacher_beside(folder, build)).eval()


def _check_fits(folder: Path, config: ModelConfig) -> None:
    """Check a net of noisewise and its weights by their shapes, before memory is allocated."""
    try:
        net, classes = config.net, len(config.classes)
        if is_of_diffusers(net):
            check_weights(lambda: _net_of(config), _weights_of(folder))
            return
        check_net(net)
        if as_size(net["size"]) != config.size or net.get("channels") != config.channels:
            raise ValueError("its net is for pictures of another size or number of channels")
        if classes and net.get("num_classes", 0) != classes:
            raise ValueError(f"its net has {net.get('num_classes', 0)} classes, and not {classes}")
        check_weights(lambda: _net_of(config), _weights_of(folder))
    except (RuntimeError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{folder / 'config.json'} does not describe a net") from error
    except NotPlainError:
        raise
    except ValueError as error:
        raise ValueError(f"{folder} cannot be loaded: {error}") from error


def _net_of(config: ModelConfig) -> nn.Module:
    return network(build_denoiser(config.net, config.sigma_data, config.prediction))


def _weights_of(folder: Path) -> Path:
    return _real(folder, "model.safetensors")


def _real(folder: Path, name: str) -> Path:
    """A file of a model; alone, not in a run, it may be a link to a file (as hubs store them)."""
    path = folder / name
    return path.resolve() if path.is_file() and not is_in_run(folder) else path


def is_intact(folder: Path) -> bool:
    """Whether a model folder exists and its files are undamaged.

    Raises:
        ValueError: if something else is in the place of a file.
        OSError, MemoryError: if a file cannot be read now.
    """
    try:
        _read_weights(folder, read_config(folder)[1])
    except NotPlainError:
        raise
    except ValueError:
        return False
    return True


def _read_weights(folder: Path, expected: str | None) -> dict[str, Tensor]:
    """Read the weights, and check that they belong to their config.json, which has their digest."""
    weights, _ = load_tensors(_weights_of(folder))
    if expected is not None and expected != digest_of(weights):
        raise ValueError(
            f"{folder / 'model.safetensors'} is damaged, or does not belong to its config.json; "
            "run the command that trained it again, or restore both files from a copy"
        )
    return weights


def read_config(folder: Path) -> tuple[ModelConfig, str | None]:
    """Read a model's description, and the digest of its weights (None from older versions).

    Raises:
        ValueError: if config.json is missing, damaged or from another version.
    """
    path = _real(folder, "config.json")
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
        prediction: what the net predicts; "denoiser": it is itself a denoiser.
        build: makes the net from its configuration; None: `noisewise.nets.derive.build`.

    Raises:
        ValueError: if the net is neither of noisewise nor of diffusers, and `build` is missing.
    """
    if prediction == "denoiser":
        if build is None and is_of_diffusers(net):
            return diffusers_denoiser(net)
        if build is None:
            raise ValueError(_NOT_OURS)
        return build(net)
    if build is None:
        from noisewise.nets.derive import build as build_net

        check_net(net)
        build = build_net
    return Preconditioned(build(net), sigma_data, prediction)


@dataclass(frozen=True)
class TeacherFolder:
    """Loads a generator's teacher when it is called; a value, so that a generator can be pickled.

    Attributes:
        folder: of the teacher.
        build: makes its net from its configuration; None: `noisewise.nets.derive.build`.
    """

    folder: Path
    build: Build | None = None

    def __call__(self) -> Teacher:
        """Load it.

        Raises:
            ValueError: if there is no teacher in the folder, or its files are damaged.
        """
        found = load_model(self.folder, self.build)
        if not isinstance(found, Teacher):
            raise ValueError(f"{self.folder} does not contain a teacher")
        return found


def _teacher_beside(folder: Path, build: Build | None) -> TeacherFolder | None:
    """Find the teacher of a generator: in the generator's folder, or in the same run."""
    for place in (folder / "teacher", folder.parent / "teacher"):
        if (place / "config.json").exists():
            return TeacherFolder(place, build)
    return None
