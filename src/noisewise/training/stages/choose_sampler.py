"""Which sampler a teacher has, where it stops, its calls, its guidance: measured for each net.

Papers: Karras et al. 2022 (EDM) for the levels and Heun's step. EDM stops at sigma = 0.002. A net
that trained for minutes draws better pictures if the sampler stops earlier and denoises once there.
The best level differs from net to net and from set to set, so it is measured against real pictures.
`sampler_search` tries the samplers; here their numbers become a choice and its reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from noisewise.diffusion import DPMPP_2M, HEUN, Denoiser
from noisewise.nets.bands import overall
from noisewise.training.models.model_config import SamplerSettings
from noisewise.training.models.palette import NO_PALETTE, Palette
from noisewise.training.stages.sampler_search import (
    FINE_ENDS,
    LONG,
    STEPS,
    Inputs,
    Judging,
    SamplerSearch,
    Suffers,
)

_SMOOTH = 0.1  # where a sampler of large pictures stops at the latest


@dataclass(frozen=True)
class SamplerChoice:
    """The chosen sampler and the measurements behind the choice; floors are at 500 pictures.

    Attributes:
        settings: the sampler, with its reason.
        by_stop: (sigma_min, floors) of each stop of the long walk; empty if time was short.
        few: (num_steps, sigma_min, floors) of each Heun sampler with few calls, as they were tried.
        others: (name, num_steps, sigma_min, floors) of each other sampler that was tried.
        by_spread: (rho, floors) of the chosen one of these, for each spacing of its levels.
        by_guidance: (guidance, floors) of the chosen one; only that without if none was tried.
        num_images: pictures behind each number.
        seconds: duration of the measurement.
    """

    settings: SamplerSettings
    by_stop: tuple[tuple[float, float], ...] = ()
    few: tuple[tuple[int, float, float], ...] = ()
    others: tuple[tuple[str, int, float, float], ...] = ()
    by_spread: tuple[tuple[float, float], ...] = ()
    by_guidance: tuple[tuple[float, float], ...] = ()
    num_images: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "settings"}
        return {
            name: [list(row) for row in value] if isinstance(value, tuple) else value
            for name, value in values.items()
        }


def choose_sampler(
    denoiser: Denoiser,
    judge: Judging,
    inputs: Inputs,
    settings: SamplerSettings,
    num_images: int = 256,
    seconds: float | None = None,
    calls: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    weak: Denoiser | None = None,
    suffers: Suffers | None = None,
    as_shown: Callable[[Tensor], Tensor] = lambda images: images,
    palette: Palette = NO_PALETTE,
    sigma_data: float = 0.5,
) -> SamplerChoice:
    """Choose a sampler, its settings and its guidance by what the judge says of its pictures.

    The usual sampler is tried, then others of its name, then the neighbours of the best one, until
    none of them is better. Where that is Heun's, DPM-Solver++(2M) follows, in as many calls and
    fewer; for large pictures it is the usual one. Of those within a tenth of
    the best, the one with the fewest calls is chosen (no interval makes this tenth wider). Its
    levels are then spaced in two other ways, which are taken only if surely better. Guidance is
    taken only if surely better, and by more than that tenth. If there is time left, one long walk
    shows what each stop would give if calls cost nothing.

    Args:
        denoiser: trained.
        judge: real pictures.
        inputs: ``inputs(start, count)`` gives standard normal noise [count, c, h, w], and labels or
            None.
        settings: sigma_max, the usual rho, and the interval of guidance; returned with the chosen
            values and the reason.
        num_images: pictures behind each number.
        seconds: about how long the choice may take; it then tries fewer samplers.
        calls: network calls a picture that the choice may take, all together; None: no limit.
        clock: seconds that never go back; with several processes, the same on all.
        weak: the denoiser to guide away from; None: guidance is not tried.
        suffers: ``suffers(guided, plain)``: whether guided pictures lose a class that plain ones
            have; None: not asked.
        as_shown: makes what the denoiser draws into pictures as the judge takes them.
        palette: that the pictures of every sampler are brought onto before the judge sees them.
        sigma_data: standard deviation of the pictures, for the palette's way.

    Source: our own measurements; we know no paper that measures it for each net.
    """
    usual = replace(usual_of(settings), guidance=1.0, reason="")
    search = SamplerSearch(
        *(denoiser, judge, inputs, usual, num_images, seconds, calls, clock, weak, as_shown),
        *(palette, sigma_data),
    )
    search.climb()
    if not search.found:
        reason = "the usual one: the budget is too short to measure others"
        kept = replace(settings, reason=reason)
        return SamplerChoice(kept, num_images=num_images, seconds=clock() - search.start)
    search.try_others(search.cheapest_as_good())
    plain = search.spread(search.cheapest_as_good())
    chosen = search.guide(plain, suffers)
    by_stop = search.long_walk()
    choice = replace(
        _tables(search, plain),
        settings=chosen,
        by_stop=tuple(by_stop.items()),
        num_images=num_images,
        seconds=clock() - search.start,
    )
    floors = search.found[chosen].at_standard
    return replace(choice, settings=replace(chosen, reason=_reason(choice, floors)))


def usual_of(settings: SamplerSettings) -> SamplerSettings:
    """The sampler that the search starts from: the given one if the search knows it, or Heun's."""
    if settings.name in STEPS and settings.num_steps in STEPS[settings.name]:
        return settings
    return replace(settings, name=HEUN.name, num_steps=5, sigma_min=0.3)


def sampler_of_bands(settings: SamplerSettings, net: Mapping[str, Any]) -> SamplerSettings:
    """The sampler of large pictures where a budget has no time to choose one.

    It stops at a third of the finest details: what is below, one call smooths away. Floors of
    DPM-Solver++(2M), 96 pictures of teachers after half an hour, in levels to a stop: photographed
    textures (finest details 0.029), 15 to 0.1, 12.4; to 0.03, 8.4; 23 to 0.02, 6.7; to 0.01, 4.4;
    emoji of 128 pixels (0.093), 15 to 0.1, 22; 19 to 0.05, 23; 23 to 0.03, 24. Heun's method was
    worse: after ten minutes of emoji, 132 in 5 levels to 0.3, where 15 to 0.1 gave 56.

    Args:
        settings: sigma_max and the interval of guidance.
        net: configuration of a net of bands.

    Example:
        >>> net = {"detail_sd": [[0.03, 0.03, 0.03], [0.1, 0.1, 0.1]]}
        >>> found = sampler_of_bands(SamplerSettings(), net)
        >>> found.name, found.num_steps, found.sigma_min
        ('dpmpp_2m', 23, 0.01)
    """
    finest = min((overall(row) for row in net["detail_sd"]), default=_SMOOTH)
    stop = min((_SMOOTH, *FINE_ENDS), key=lambda end: abs(math.log(3 * end / finest)))
    reason = (
        f"default of large pictures: it stops where noise is as strong as details, {finest:.2g}"
    )
    steps = 15 if stop == _SMOOTH else 23
    name = DPMPP_2M.name
    return replace(settings, name=name, num_steps=steps, sigma_min=stop, reason=reason)


def _tables(search: SamplerSearch, plain: SamplerSettings) -> SamplerChoice:
    """All that was tried; `plain` is the chosen sampler without guidance."""
    found = [(key, floors.at_standard) for key, floors in search.found.items()]
    tried = [(key, floors) for key, floors in found if search.is_usual(key)]
    spreads = {key.rho: floors for key, floors in found if replace(plain, rho=key.rho) == key}
    guided = [(k.guidance, x) for k, x in found if replace(plain, guidance=k.guidance) == k]
    few = [(k.num_steps, k.sigma_min, x) for k, x in tried if k.name == HEUN.name]
    others = [(k.name, k.num_steps, k.sigma_min, x) for k, x in tried if k.name != HEUN.name]
    return SamplerChoice(
        plain,
        few=tuple(few),
        others=tuple(others),
        by_spread=tuple(spreads.items()),
        by_guidance=tuple(guided),
    )


def _reason(choice: SamplerChoice, floors: float) -> str:
    """The choice in words, for people."""
    settings = choice.settings
    tried = [row[-1] for row in (*choice.few, *choice.others)]
    text = (
        f"measured on {choice.num_images} pictures: {floors:.2g} floors in {settings.calls} calls "
        f"of {settings.name}, stopped at sigma {settings.sigma_min:g} (best of {len(tried)}: "
        f"{min(tried):.2g})"
    )
    spreads = [f"{x:.2g} with {rho:g}" for rho, x in choice.by_spread if rho != settings.rho]
    if spreads:
        text += f", spread with rho {settings.rho:g} ({', '.join(spreads)})"
    weights = [f"{x:.2g} with {w:g}" for w, x in choice.by_guidance if w != settings.guidance]
    if weights:
        text += f", guidance {settings.guidance:g} ({', '.join(weights)})"
    if choice.by_stop:
        stop, ideal = min(choice.by_stop, key=lambda pair: pair[1])
        text += f"; up to {LONG} calls reach {ideal:.2g} at {stop:g}"
    return text
