"""Our samplers as a scheduler of diffusers: set_timesteps, then one `step` for each network call.

A scheduler of diffusers is asked after each call of the model; our samplers call the model
themselves (`noisewise.diffusion.SAMPLERS`). The arithmetic is the same, to the last bit; a test
holds both side by side. Time steps are noise levels: ``x = x0 + sigma * noise``; the model gives
x0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from noisewise.diffusion import karras_sigmas, sampler_named
from noisewise.diffusion.samplers.ddpm import ancestral_step
from noisewise.diffusion.samplers.dpmpp import ahead_of
from noisewise.pictures.alpha import Alpha
from noisewise.training.models.model_config import Flats, finished
from noisewise.training.models.palette import Palette


@dataclass
class StepOutput(BaseOutput):
    """What `NoisewiseScheduler.step` returns.

    Attributes:
        prev_sample: x at the next noise level; after the last call the picture, in [-1, 1]; RGBA is
            then straight.
        pred_original_sample: x0, as the model gave it.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


class NoisewiseScheduler(SchedulerMixin, ConfigMixin):
    """Walks down Karras' noise levels with one of our samplers; a generator has its own levels.

    Args:
        sampler: "heun", "ddim", "ddpm", "dpmpp_2m" or "dpmpp_2m_sde".
        sigma_max: first noise level; of a generator sigma_init.
        sigma_min: last noise level.
        num_steps: number of noise levels that were measured as best.
        rho: spacing of the levels.
        flats: exact values that fill areas of pictures, see `Flats`; None: none.
        alpha: "soft" or "binary": the model draws premultiplied RGBA, which the last step makes
            straight; "none": it draws something else.
        palette: the colours of pictures, see `Palette`; None: none.
        calls: noise level of each call of a generator of several calls, before which noise is added
            anew; None: the levels of the sampler.

    Raises:
        ValueError: if the sampler is unknown.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        sampler: str = "heun",
        sigma_max: float = 40.0,
        sigma_min: float = 0.3,
        num_steps: int = 5,
        rho: float = 7.0,
        flats: dict[str, Any] | None = None,
        alpha: Alpha = "none",
        palette: dict[str, Any] | None = None,
        calls: list[float] | None = None,
    ) -> None:
        """Set the levels of `num_steps`."""
        sampler_named(sampler)
        self._sampler, self._sigma_max, self._sigma_min = sampler, sigma_max, sigma_min
        self._rho, self._num_steps = rho, num_steps
        self._flats, self._alpha = Flats.from_dict(flats or {}), alpha
        self._palette = Palette.from_dict(palette or {})
        self._calls = list(calls or ())
        self.set_timesteps(num_steps)

    @property
    def init_noise_sigma(self) -> float:
        """Factor on standard normal noise to begin with."""
        return self._levels[0]

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Choose the number of noise levels, and begin a new walk.

        Args:
            num_inference_steps: number of noise levels; None: as many as were measured as best.
                With Heun's method a level takes two calls of the model, the last one takes one.
            device: of `timesteps`.

        Raises:
            ValueError: if a generator was not trained for so many calls.
        """
        count = num_inference_steps or len(self._calls) or self._num_steps
        self._levels = self._levels_of(count)
        called = self._levels
        if self._sampler == "heun" and not self._calls:
            called = [self._levels[0], *(level for level in self._levels[1:] for _ in range(2))]
        self.timesteps = torch.tensor(called, device=device)
        self.num_inference_steps = count
        self._call = 0
        self._before: tuple[Tensor, float] | None = None
        self._corrected: tuple[Tensor, Tensor] | None = None

    def _levels_of(self, count: int) -> list[float]:
        if not self._calls:
            return karras_sigmas(count, self._sigma_min, self._sigma_max, self._rho).tolist()
        if count > len(self._calls):
            raise ValueError(
                f"this generator was trained for {len(self._calls)} calls, not {count}; use "
                f"num_inference_steps={len(self._calls)} or fewer"
            )
        return self._calls[:count]

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """Return the sample: our models scale it themselves."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> StepOutput | tuple[Tensor, Tensor]:
        """Go on after one call of the model.

        Args:
            model_output: x0 at `sample`.
            timestep: the noise level of the call; the calls must follow `timesteps`.
            sample: x, what the model was given.
            generator: source of the noise that "ddpm", "dpmpp_2m_sde", or a generator of several
                calls, adds.
            return_dict: False gives a tuple.

        Raises:
            ValueError: if all calls have been made; `set_timesteps` begins a new walk.
        """
        if self._call >= len(self.timesteps):
            raise ValueError("this walk has ended; call set_timesteps before the next one")
        self._call += 1
        if self._call == len(self.timesteps):
            drawn = model_output.clamp(-1, 1)
            found = finished(drawn, self._flats, self._alpha, self._palette)
        elif self._calls:
            found = self._noised_anew(model_output, generator)
        else:
            found = getattr(self, f"_{self._sampler}")(model_output, sample, generator)
        return StepOutput(found, model_output) if return_dict else (found, model_output)

    def __len__(self) -> int:
        return self._num_steps

    def _noised_anew(self, x0: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = randn_tensor(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        return x0.add(noise, alpha=self._levels[self._call])

    def _pair(self, step: int) -> tuple[float, float]:
        """The noise levels of a step and of the next one."""
        return self._levels[step], self._levels[step + 1]

    def _ddim(self, x0: Tensor, x: Tensor, _: torch.Generator | None) -> Tensor:
        sigma, lower = self._pair(self._call - 1)
        return torch.lerp(x0, x, lower / sigma)

    def _ddpm(self, x0: Tensor, x: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return ancestral_step(x0, x, *self._pair(self._call - 1), noise)

    def _dpmpp_2m(self, x0: Tensor, x: Tensor, _: torch.Generator | None) -> Tensor:
        sigma, lower = self._pair(self._call - 1)
        return torch.lerp(self._ahead(x0), x, lower / sigma)

    def _dpmpp_2m_sde(self, x0: Tensor, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return self._ddpm(self._ahead(x0), x, generator)

    def _ahead(self, x0: Tensor) -> Tensor:
        sigma, lower = self._pair(self._call - 1)
        step = math.log(sigma / lower)
        found = ahead_of(x0, step, self._before)
        self._before = x0, step
        return found

    def _heun(self, x0: Tensor, x: Tensor, _: torch.Generator | None) -> Tensor:
        """Odd calls are at a level and give Euler's point; even ones correct it."""
        sigma, lower = self._pair((self._call - 1) // 2)
        if self._call % 2:
            slope = (x - x0) / sigma
            self._corrected = x, slope
            return x.add(slope, alpha=lower - sigma)
        assert self._corrected is not None
        start, slope = self._corrected
        return start.add(slope + (x - x0) / lower, alpha=(lower - sigma) / 2)
