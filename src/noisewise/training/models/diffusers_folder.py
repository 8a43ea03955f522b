"""A teacher from a folder of diffusers: a pipeline with model_index.json, or its net's folder.

The weights are read from safetensors only, and checked against the net's shapes before memory is
taken, as those of noisewise's own models are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.sizes import as_size
from noisewise.training.files.atomic import load_tensors, read_json
from noisewise.training.files.tensor_header import tensor_shapes
from noisewise.training.models.any_teacher import as_teacher
from noisewise.training.models.diffusers_net import (
    NAME,
    NETS,
    check_description,
    diffusers_denoiser,
    sigma_range,
)
from noisewise.training.models.limits import check_finite, check_size
from noisewise.training.models.models import Teacher

_INDEX = "model_index.json"
_LATENT = ("vae", "vqvae", "vqgan", "movq", "autoencoder")
_TEXT = ("text_encoder", "tokenizer", "prior", "image_encoder", "conditioning_encoder")
_WEIGHTS = "diffusion_pytorch_model"
_MOST_SHARDS = 1000


def is_diffusers_folder(folder: Path) -> bool:
    """Whether a folder is a pipeline of diffusers, or one of its parts."""
    if (folder / _INDEX).is_file():
        return True
    config = folder / "config.json"
    if not config.is_file():
        return False
    values = _json(config)
    return isinstance(values.get("_class_name"), str)


def read_diffusers(folder: Path) -> Teacher:
    """Load a teacher from a folder of diffusers, on the CPU, in eval mode.

    Range of noise levels: that of the scheduler. sigma_data is measured on pictures that the
    teacher draws itself.

    Args:
        folder: a pipeline's folder, with model_index.json; or the folder of its net, beside that of
            its scheduler.

    Raises:
        ValueError: if the model cannot be a teacher, with the reason; or its files are damaged.
        OSError: if a file cannot be read now.
    """
    try:
        place, index = _net_of(folder)
        net = _described(place)
        check_description(net)
        size = as_size(net["config"].get("sample_size"))
        check_size(size)
        shapes, files = _shapes(place)
        with torch.device("meta"):
            made = _inner(diffusers_denoiser(net)).state_dict()
        if shapes != {name: tuple(value.shape) for name, value in made.items()}:
            raise ValueError("its weights do not fit its config.json; download both again")
        denoiser = diffusers_denoiser(net)
    except ValueError as error:
        raise ValueError(f"{folder} cannot be a teacher: {error}") from error
    weights = _weights(files)
    check_finite(weights, files[0])
    _inner(denoiser).load_state_dict(weights)
    low, high = sigma_range(denoiser, net["scheduler"])
    return as_teacher(
        denoiser.eval().requires_grad_(False),
        size=size,
        channels=int(net["config"].get("in_channels", 3)),
        sigma_range=(low, high),
        classes=_classes(net, index),
        net=net,
    )


def _net_of(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the net, and what model_index.json says."""
    if not (folder / _INDEX).is_file():
        return folder, {}
    index = _json(folder / _INDEX)
    parts = {
        name: str(value[1])
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[1] is not None
    }
    for name in parts:
        if name.startswith(_LATENT):
            raise ValueError(f"it draws in the latent space of its {name}, and not in pixels")
        if name.startswith(_TEXT):
            raise ValueError(f"it is conditioned by its {name}; a teacher has classes or nothing")
    for name, kind in parts.items():
        if kind in NETS:
            return folder / name, index
    nets = [kind for name, kind in parts.items() if name in ("unet", "transformer")]
    shown = ", ".join(nets or parts.values()) or "nothing"
    raise ValueError(f"it has {shown[:100]}; a teacher needs a {' or '.join(NETS)}")


def _described(place: Path) -> dict[str, Any]:
    """The configuration of a net and of its scheduler, as config.json of a model will say it."""
    config = _json(place / "config.json")
    scheduler = place.parent / "scheduler" / "scheduler_config.json"
    if not scheduler.is_file():
        raise ValueError(
            "its scheduler is not known, so what the net predicts is not either; give the folder "
            f"of the whole pipeline, with {_INDEX} and scheduler/"
        )
    steps = _json(scheduler)
    if config.get("sample_size") is None:
        raise ValueError(f"{place}/config.json has no sample_size; write the side of the pictures")
    return {
        "name": NAME,
        "class": config.get("_class_name"),
        "config": _plain(config),
        "scheduler": {"class": steps.get("_class_name"), "config": _plain(steps)},
    }


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what diffusers notes about files and versions."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _json(path: Path) -> dict[str, Any]:
    values = read_json(path.resolve())  # a hub's cache has links
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no description of a model")
    return values


def _shapes(place: Path) -> tuple[dict[str, tuple[int, ...]], list[Path]]:
    """Shapes of all tensors, and the files that hold them."""
    files = _files(place)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        shapes |= tensor_shapes(path)
    return shapes, files


def _files(place: Path) -> list[Path]:
    """The files with the weights of a net: one, or the parts that an index names."""
    for middle in ("", ".fp16", ".bf16", ".non_ema"):
        path = place / f"{_WEIGHTS}{middle}.safetensors"
        if path.is_file():
            return [path.resolve()]
        index = place / f"{_WEIGHTS}.safetensors.index{middle}.json"
        if index.is_file():
            return _parts(place, index)
    if any(place.glob("*.bin")) or any(place.glob("*.pt*")):
        raise ValueError(
            "its weights are a pickle, which can run any program when it is opened; save them "
            "again where you trust them: pipeline.save_pretrained(FOLDER, safe_serialization=True)"
        )
    raise ValueError(f"{place / _WEIGHTS}.safetensors is missing")


def _parts(place: Path, index: Path) -> list[Path]:
    named = _json(index).get("weight_map")
    names = sorted(set(named.values())) if isinstance(named, dict) else []
    if not names or len(names) > _MOST_SHARDS:
        raise ValueError(f"{index} names no parts")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index} names a part outside its folder")
    return [(place / name).resolve() for name in names]


def _weights(files: list[Path]) -> dict[str, Tensor]:
    """All tensors; those of 16 bits as float32."""
    weights: dict[str, Tensor] = {}
    for path in files:
        weights |= load_tensors(path)[0]
    return {
        n: value.float() if value.is_floating_point() else value for n, value in weights.items()
    }


def _inner(denoiser: nn.Module) -> nn.Module:
    """The net of diffusers in its wrapper."""
    (inner,) = denoiser.children()
    return inner


def _classes(net: Mapping[str, Any], index: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes: the pipeline's own (id2label), or their numbers."""
    name = "num_class_embeds" if net["class"] == NETS[0] else "num_embeds_ada_norm"
    default = None if net["class"] == NETS[0] else 1000
    count = net["config"].get(name, default) or 0
    names = index.get("id2label")
    named = names if isinstance(names, dict) else {}
    found = tuple(str(named.get(str(number), number)) for number in range(count))
    return found if len(set(found)) == count else tuple(map(str, range(count)))
