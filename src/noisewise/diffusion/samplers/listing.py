"""The samplers that can be chosen by name."""

from __future__ import annotations

from noisewise.diffusion.samplers.ddim import DDIM
from noisewise.diffusion.samplers.ddpm import DDPM
from noisewise.diffusion.samplers.dpmpp import DPMPP_2M, DPMPP_2M_SDE
from noisewise.diffusion.samplers.heun import HEUN
from noisewise.diffusion.samplers.sampler import Sampler

SAMPLERS: tuple[Sampler, ...] = (
    HEUN,
    DDIM,
    DDPM,
    DPMPP_2M,
    DPMPP_2M_SDE,
)


def sampler_named(name: str | Sampler) -> Sampler:
    """Return the sampler of this name; a Sampler is returned as it is.

    Raises:
        ValueError: if no sampler has this name.

    Example:
        >>> sampler_named("ddim").num_calls(8)
        8
    """
    if isinstance(name, Sampler):
        return name
    for known in SAMPLERS:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in SAMPLERS)
    raise ValueError(f"unknown sampler {name!r}; use one of {names}")
