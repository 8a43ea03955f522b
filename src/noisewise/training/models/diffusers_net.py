"""A net of diffusers as a denoiser, from its own configuration and that of its scheduler.

diffusers is an extra: it is imported when such a net is built, and never before.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from noisewise.diffusion import from_diffusers, from_edm_scheduler, from_flow_matching
from noisewise.training.out_of_memory import is_out_of_memory

NAME = "diffusers"  # of the net, in a model's config.json
NETS = ("UNet2DModel", "DiTTransformer2DModel")
_TABLE = (  # schedulers of time steps, with a table alphas_cumprod
    *("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    *("LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "DDPMParallelScheduler"),
    "DDIMParallelScheduler",
)
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_FLOW_RANGE = (0.002, 80.0)  # s from 0.002 to 0.988
_MOST_STEPS = 100_000  # of a table
_LARGEST = 2**16  # of any number of a configuration
_MOST_CLASSES = 1_000_000
_LEAST_SIGNAL = 2e-5  # alpha^2 of the last step that is used: sigma up to 224


def is_of_diffusers(net: Mapping[str, Any]) -> bool:
    """Whether the configuration of a net says that it is one of diffusers."""
    return net.get("name") == NAME


def diffusers_denoiser(net: Mapping[str, Any]) -> nn.Module:
    """Build a denoiser with fresh weights: a net of diffusers, and how its scheduler calls it.

    Args:
        net: {"name": "diffusers", "class": one of `NETS`, "config": its arguments, "scheduler":
            {"class": a scheduler of diffusers, "config": its arguments}}.

    Raises:
        ValueError: if diffusers is missing, or the net or scheduler is one that is not known.
    """
    check_description(net)
    name, config = net["scheduler"]["class"], net["scheduler"]["config"]
    inner = _built(net["class"], net["config"])
    if name in _FLOW:
        return from_flow_matching(inner, float(config.get("num_train_timesteps", 1000)))
    with torch.device("cpu"):  # its table, also where the net is built without memory
        scheduler = _built(name, config)
    if name in _EDM:
        values = scheduler.config
        return from_edm_scheduler(inner, values.sigma_data, values.prediction_type)
    clip = scheduler.config.clip_sample_range if scheduler.config.get("clip_sample") else None
    table = scheduler.alphas_cumprod.double()
    kept = table[table > _LEAST_SIGNAL]  # with zero terminal SNR the last steps have no picture
    return from_diffusers(inner, kept, scheduler.config.prediction_type, clip)


def sigma_range(denoiser: nn.Module, scheduler: Mapping[str, Any]) -> tuple[float, float]:
    """Lowest and highest noise level that a net of diffusers was trained on, by its scheduler."""
    name, config = scheduler["class"], scheduler["config"]
    if name in _EDM:
        return float(config.get("sigma_min", 0.002)), float(config.get("sigma_max", 80.0))
    if name in _FLOW:
        return _FLOW_RANGE
    return float(denoiser.sigma_min), float(denoiser.sigma_max)  # type: ignore[arg-type]


def check_description(net: Mapping[str, Any]) -> None:
    """Refuse the configuration of a net that cannot be a teacher, before anything is built.

    Raises:
        ValueError: with the reason.

    Example:
        >>> check_description({"class": "UNet2DConditionModel", "config": {}, "scheduler": {}})
        Traceback (most recent call last):
        ...
        ValueError: UNet2DConditionModel is conditioned on text or other pictures; a teacher is ...
    """
    kind, config, scheduler = (net.get(name) for name in ("class", "config", "scheduler"))
    _check_kind(kind)
    if not isinstance(config, Mapping) or not isinstance(scheduler, Mapping):
        raise ValueError("the net of diffusers has no configuration, or no scheduler")
    _check_numbers("the net's", config)
    channels, out = config.get("in_channels", 3), config.get("out_channels")
    if out is not None and out == 2 * channels:
        raise ValueError(
            f"this {kind} predicts a variance too ({channels} channels in, {out} out); a teacher "
            "predicts the picture alone"
        )
    if out is not None and out != channels:
        raise ValueError(
            f"this {kind} has {channels} channels in and {out} out; a teacher has as many of both"
        )
    if config.get("class_embed_type") is not None:
        raise ValueError(
            f"class_embed_type {config['class_embed_type']!r} is not known; a teacher has classes "
            "by number (num_class_embeds) or none"
        )
    if config.get("time_embedding_type") == "learned":
        raise ValueError(
            "time_embedding_type 'learned' knows whole time steps only, and a teacher needs all "
            "noise levels; use a net with 'positional' or 'fourier'"
        )
    _check_scheduler(scheduler)


def _check_kind(kind: object) -> None:
    if kind in NETS:
        return
    wanted = f"a teacher is a {' or '.join(NETS)} in pixels"
    if isinstance(kind, str) and ("Condition" in kind or "Transformer" in kind):
        raise ValueError(f"{kind} is conditioned on text or other pictures; {wanted}")
    raise ValueError(f"the net {str(kind)[:60]} is not known; {wanted}")


def _check_scheduler(scheduler: Mapping[str, Any]) -> None:
    name, config = scheduler.get("class"), scheduler.get("config")
    known = (*_TABLE, *_EDM, *_FLOW)
    if name not in known:
        raise ValueError(
            f"the scheduler {str(name)[:60]} is not known; use one of {', '.join(known)}"
        )
    if not isinstance(config, Mapping):
        raise ValueError(f"{name} has no configuration")
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or not 2 <= steps <= _MOST_STEPS:
        raise ValueError(
            f"{name} has num_train_timesteps {str(steps)[:30]}; use 2 to {_MOST_STEPS:,}"
        )
    if str(config.get("variance_type", "")).startswith("learned"):
        raise ValueError(f"{name} has a learned variance; a teacher predicts the picture alone")
    if config.get("thresholding"):
        raise ValueError(f"{name} has dynamic thresholding, which is not known; switch it off")


def _check_numbers(whose: str, config: Mapping[str, Any]) -> None:
    """Refuse numbers that take all memory, before a net is built."""
    for name, value in config.items():
        most = _MOST_CLASSES if name in ("num_class_embeds", "num_embeds_ada_norm") else _LARGEST
        items = value if isinstance(value, list | tuple) else [value]
        if len(items) > 64 or not all(_is_small(one, most) for one in items):
            raise ValueError(f"{whose} {name} is {ascii(value)[:60]}; numbers go up to {most:,}")


def _is_small(value: object, most: int) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 64 and all(_is_small(one, most) for one in value)
    if isinstance(value, int | float):
        return abs(value) <= most
    return value is None or isinstance(value, str)


def _built(name: str, config: Mapping[str, Any]) -> Any:  # noqa: ANN401 (classes of an extra)
    """An object of diffusers from its configuration."""
    diffusers = _diffusers()
    try:
        return getattr(diffusers, name).from_config(dict(config))
    except Exception as error:  # a wrong configuration fails in many ways
        if is_out_of_memory(error):
            raise
        first = str(error).strip().partition("\n")[0][:200]
        raise ValueError(f"diffusers cannot build its {name}: {first}") from error


def _diffusers() -> ModuleType:
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(
            "this model is a net of diffusers, which is not installed; install it by: "
            'pip install "noisewise[diffusers]"'
        ) from error
    return diffusers
