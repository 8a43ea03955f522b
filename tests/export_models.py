"""Small models of ours with random weights, to export them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from noisewise.diffusion import Preconditioned
from noisewise.nets.derive import build
from noisewise.sizes import as_size
from noisewise.training.models.model_config import Flats, ModelConfig, SamplerSettings
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.models.palette import Palette

UNET = {"name": "unet", "channels": 1, "size": 8, "widths": [8, 8], "blocks": [1, 1]}
PYRAMID = {
    "name": "pyramid",
    "channels": 3,
    "size": "16x8",
    "detail_sd": [[0.1] * 3],
    "coarse_sd": [0.9] * 3,
    "power": [[1.0] * 32] * 3,
    "widths": [8, 16, 16],
}
FLATS = Flats(((0,),), 0.5, 6.0, "black ground")
PALETTE = Palette(((0, 0, 0), (90, 20, 30), (200, 120, 60), (20, 90, 160), (250, 240, 230)))
CLASSES = ("left", "right", "up")
INFO: dict[str, Any] = {
    "data": {"num_pictures": 1200, "fingerprint": "0123456789abcdef0123", "source": "/home/me"},
    "stages": {"teacher": {"images": 64000, "seconds": 300.4}},
}


def stirred(net: dict[str, Any], prediction: str, seed: int = 0) -> Preconditioned:
    """A denoiser with random weights everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Preconditioned(build(dict(net)), 0.5, prediction)  # pyrefly: ignore
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval().requires_grad_(False)


def described(net: dict[str, Any], prediction: str = "edm", **more: Any) -> ModelConfig:  # noqa: ANN401
    """The description of a teacher with this net."""
    classes = CLASSES if net.get("num_classes") else ()
    plain = ModelConfig(
        kind="teacher",
        net=build(dict(net)).config,  # pyrefly: ignore
        sigma_data=0.5,
        size=as_size(net["size"]),
        channels=net["channels"],
        noise={"name": "LogNormal", "mean": -0.4, "std": 1.4},
        prediction=prediction,  # pyrefly: ignore
        classes=classes,
        label_histogram=(5, 3, 2) if classes else (),
        sampler=SamplerSettings(num_steps=3),
    )
    return replace(plain, **more)


def models(
    net: dict[str, Any],
    prediction: str = "edm",
    **more: Any,  # noqa: ANN401
) -> tuple[Teacher, Generator]:
    """A teacher, and a generator with other weights."""
    config = described(net, prediction, **more)
    teacher = Teacher(stirred(net, prediction), config).eval()
    of_one_call = replace(config, kind="generator", sigma_init=2.5)
    return teacher, Generator(stirred(net, prediction, 1), of_one_call).eval()
