"""Trained models: a Teacher that draws in several calls, a Generator that draws in one, or in few.

Picture i of a seed depends on the seed and on i alone: not on the number of pictures drawn at once,
and not on the device.

Papers: Karras et al. 2022 (EDM), the teacher's sampler; Zhou et al. 2024 (SiD), the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count as counting

import torch
from torch import Tensor, nn

from noisewise.diffusion import (
    Denoiser,
    Sampler,
    check_larger,
    guided,
    in_calls,
    sample,
    takes_shares,
    windowed,
    with_shares,
)
from noisewise.sizes import sides
from noisewise.training.files.sample_sheet import png
from noisewise.training.in_html import page
from noisewise.training.models.model import Labels, Model, OnDrawn, how_many
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.seeded_noise import SECOND_CALL, START, WALK, WINDOWS, generator_of
from noisewise.training.settings.larger import check_pixels

_SHOWN = 16  # pictures that a notebook draws to show a generator


class Teacher(Model):
    """A trained denoiser with the sampler that suits it; it is a denoiser too."""

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise x [n, c, h, w] at sigma [n]."""
        return self.denoiser(x, sigma, condition)

    @property
    def sampler(self) -> SamplerSettings:
        """How it draws when no other sampler is asked for."""
        return self.config.sampler

    def __repr__(self) -> str:
        """One line; `print(model.denoiser)` shows the layers."""
        return self._in_one_line(f"{self.sampler.calls} calls by {self.sampler.name}")

    def network_calls(
        self,
        calls: int | None = None,
        sampler: str | Sampler | None = None,
        guidance: float | None = None,
    ) -> int:
        """Network calls a picture that `sample` makes when it is given the same three arguments.

        Raises:
            ValueError: as `sample` does.
        """
        self.guided(guidance)  # refuses what cannot be guided
        steps, more = self.sampler.steps_for(calls, sampler), self.config.palette.more_calls
        return self.sampler.calls_for(steps, sampler, guidance) + more

    def guided(self, guidance: float | None = None) -> Denoiser:
        """Return the denoiser with guidance; None: as strong as the teacher's own.

        Raises:
            ValueError: if guidance is below 1, or the net knows no classes or takes no shares of
                them.
        """
        settings = self.sampler
        weight = settings.guidance if guidance is None else guidance
        if weight == 1:
            return self.denoiser
        if not self.classes:
            raise ValueError(
                "this model was trained without classes, and guidance needs them; leave it out"
            )
        weak = self.of_all_classes()
        if weak is None:
            raise ValueError(
                "the net of this model takes one class a picture and no shares of all classes, "
                "which guidance needs; leave it out"
            )
        return guided(self.denoiser, weak, weight, settings.guidance_interval)

    def of_all_classes(self) -> Denoiser | None:
        """The denoiser for all classes at once, in the shares of the training pictures.

        None without classes, and for a net that takes only one class a picture.
        """
        if not (self.classes and takes_shares(self.denoiser)):
            return None
        histogram = torch.tensor(self.config.label_histogram, dtype=torch.float32)
        return with_shares(self.denoiser, histogram / histogram.sum())

    @torch.no_grad()
    def sample(
        self,
        num_images: int | None = None,
        seed: int = 0,
        label: Labels | None = None,
        calls: int | None = None,
        sampler: str | Sampler | None = None,
        guidance: float | None = None,
        on_drawn: OnDrawn | None = None,
        larger: tuple[int, int] | None = None,
    ) -> Tensor:
        """Draw pictures, float [num_images, c, h, w] in [-1, 1]; RGBA is straight, as in a PNG.

        Args:
            num_images: number of pictures; None: one for each label of a list, else one.
            seed: picture i depends on the seed and on i alone, with every sampler.
            label: class by name or number, or a list with one for each picture, which starts
                again at its end; None: as often as in the training data.
            calls: network calls a picture before guidance adds its own; None: as many as the
                teacher's own sampler takes, or the nearest smaller number that another can take.
            sampler: a name in `noisewise.diffusion.SAMPLERS`, or a Sampler, which has the teacher's
                own range and spacing of noise levels; None: the teacher's own.
            guidance: how far each picture is moved on towards its class; 1: not at all; None: as
                far as the teacher's own settings say.
            on_drawn: called with the number of pictures drawn so far.
            larger: height and width in pixels of pictures that are larger than those of the
                training, from overlapping windows (`noisewise.diffusion.windowed`): for textures
                and other pictures without one centre. Each window takes all the calls.

        Raises:
            ValueError: if a value cannot be used; the message has values that can.
        """
        num_images = how_many(num_images, label)
        if larger is not None:
            check_larger(larger, sides(self.size))
            check_pixels(larger, num_images)
        return torch.cat(
            [
                self.draw(seed, start, count, label, calls, sampler, guidance, larger)
                for start, count in self._chunks(num_images, seed, on_drawn, larger)
            ]
        )

    @torch.no_grad()
    def draw(
        self,
        seed: int,
        start: int,
        count: int,
        label: Labels | None = None,
        calls: int | None = None,
        sampler: str | Sampler | None = None,
        guidance: float | None = None,
        larger: tuple[int, int] | None = None,
    ) -> Tensor:
        """Draw pictures start to start + count of a seed in one batch; see `sample`."""
        settings, palette, spread = self.sampler, self.config.palette, self.config.sigma_data
        sigmas = settings.levels(settings.steps_for(calls, sampler))
        streams = counting(WALK)

        def noise_of(stream: int) -> Tensor:
            return self.noise(seed, start, count, stream, larger)

        def normal() -> Tensor:
            return noise_of(next(streams))

        noise, condition = noise_of(START), self.labels(seed, start, count, label)
        denoiser = self.guided(guidance)
        if larger is not None:
            window = sides(self.size)
            grid = generator_of(seed, 0, WINDOWS)  # the same for all pictures of a seed
            denoiser = windowed(denoiser, window, grid, self._at_once(math.prod(window)))
        leaning = palette.during(denoiser, spread, self.channels)
        states = settings.chosen(sampler).states(leaning, noise, sigmas, condition, normal)
        pictures, shown = sample(states).clamp(-1, 1), self.config.as_shown
        drawn = palette.after(pictures, denoiser, spread, normal, condition, shown)
        return self.config.finished(drawn)


class Generator(Model):
    """Pictures in one network call: ``G(z) = D_theta(sigma_init z, sigma_init)``.

    A second call may follow: add noise of level two_call_sigma, denoise once with the teacher. Or
    the generator was trained for several calls of its own, see `noisewise.diffusion.in_calls`; then
    it draws in all of them if nobody asks for fewer.

    Args:
        denoiser: the distilled denoiser.
        config: with sigma_init, and later_sigmas if it takes several calls.
        teacher: returns the teacher when a second call is asked for; None: no teacher.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        config: ModelConfig,
        teacher: Callable[[], Teacher] | None = None,
    ) -> None:
        """Wrap a distilled denoiser; see the class."""
        super().__init__(denoiser, config)
        if config.sigma_init is None:
            raise ValueError("a generator's config needs sigma_init")
        self.sigma_init = config.sigma_init
        self.sigmas = config.call_sigmas
        self._find_teacher = teacher
        self._found: list[Teacher] = []  # in a list: not a part of this module's weights

    def forward(
        self, z: Tensor, label: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """One network call, or several.

        Args:
            z: standard normal noise, float [n, c, h, w].
            label: int64 [n], or None without classes.
            noise: standard normal noise of each later call, float [n, calls - 1, c, h, w]; None
                for a generator of one call.

        Returns:
            Pictures, float [n, c, h, w] in [-1, 1]; RGBA is premultiplied, and `sample` makes it
            straight.

        Raises:
            ValueError: if labels or noise are missing, or z or noise have another shape.
        """
        height, width = sides(self.size)
        if z.shape[1:] != (self.channels, height, width):
            raise ValueError(
                f"z is {tuple(z.shape)}; this generator takes "
                f"[n, {self.channels}, {height}, {width}]"
            )
        if self.classes and label is None:
            raise ValueError("this generator needs a label for each picture")
        if noise is None and len(self.sigmas) == 1:
            return one_call(self.denoiser, z, self.sigma_init, label).clamp(-1, 1)
        later = self._later(z, noise)
        sigmas = self.sigmas[: 1 + len(later)]
        return in_calls(self.denoiser, z, sigmas, later, label).clamp(-1, 1)

    def _later(self, z: Tensor, noise: Tensor | None) -> tuple[Tensor, ...]:
        """The noise of each later call."""
        most, (count, *picture) = len(self.sigmas) - 1, z.shape
        fits = noise is not None and noise.ndim == z.ndim + 1 and noise.shape[1] <= most
        if noise is None or not fits or (noise.shape[0], *noise.shape[2:]) != (count, *picture):
            given = "missing" if noise is None else tuple(noise.shape)
            raise ValueError(
                f"the noise of the later calls is {given}; this generator takes "
                f"{(count, most, *picture)}"
            )
        return noise.unbind(1)

    def __repr__(self) -> str:
        """One line; `print(model.denoiser)` shows the layers."""
        if len(self.sigmas) > 1:
            return self._in_one_line(f"{len(self.sigmas)} calls")
        return self._in_one_line("1 call" if self.config.two_call_sigma is None else "1 or 2 calls")

    def _repr_html_(self) -> str:
        """What a notebook shows: one line, and 16 pictures that it draws."""
        return page(repr(self), self.grid(_SHOWN), described=f"{_SHOWN} pictures of seed 0")

    def _repr_png_(self) -> bytes:
        """Draw 16 pictures, for what shows pictures only."""
        return png(self.grid(_SHOWN))

    def network_calls(
        self,
        calls: int | None = None,
        sampler: str | Sampler | None = None,
        guidance: float | None = None,
    ) -> int:
        """Network calls a picture that `sample` makes when it is given the same three arguments.

        Raises:
            ValueError: as `sample` does.
        """
        drawn = self._drawn_in
        if guidance is not None:
            raise ValueError(
                f"a generator draws in {drawn} and cannot be guided; use the teacher: "
                '--teacher, or load(run, "teacher")'
            )
        if sampler is not None:
            raise ValueError(
                f"a generator draws in {drawn} and has no sampler; use the teacher: "
                '--teacher, or load(run, "teacher")'
            )
        if len(self.sigmas) > 1:
            return self._own_calls(calls)
        if calls not in (None, 1, 2):
            raise ValueError(
                f"a generator takes 1 or 2 network calls, not {calls}; the teacher can take more"
            )
        if calls == 2:
            self._check_second_call()
        return calls or 1

    @property
    def _drawn_in(self) -> str:
        return "one call" if len(self.sigmas) == 1 else f"{len(self.sigmas)} calls"

    def _own_calls(self, calls: int | None) -> int:
        """Calls of a generator that was trained for several: all of them, or the first ones."""
        most = len(self.sigmas)
        if calls is not None and not 1 <= calls <= most:
            raise ValueError(
                f"this generator was trained for {most} network calls and takes 1 to {most}, not "
                f"{calls}; the teacher can take more"
            )
        return most if calls is None else calls

    @torch.no_grad()
    def sample(
        self,
        num_images: int | None = None,
        seed: int = 0,
        label: Labels | None = None,
        calls: int | None = None,
        sampler: str | Sampler | None = None,
        guidance: float | None = None,
        on_drawn: OnDrawn | None = None,
        larger: tuple[int, int] | None = None,
    ) -> Tensor:
        """Draw pictures, float [num_images, c, h, w] in [-1, 1]; RGBA is straight, as in a PNG.

        Args:
            num_images: number of pictures; None: one for each label of a list, else one.
            seed: picture i depends on the seed and on i alone.
            label: class by name or number, or a list with one for each picture, which starts
                again at its end; None: as often as in the training data.
            calls: 1, or 2: noise is added and the teacher denoises once. Of a generator that was
                trained for several calls, so many of them. None: as it was trained.
            sampler: None; only a teacher has a sampler.
            guidance: None; only a teacher can be guided.
            on_drawn: called with the number of pictures drawn so far.
            larger: None; only a teacher draws larger pictures.

        Raises:
            ValueError: if a value cannot be used; the message has values that can.
        """
        if larger is not None:
            raise ValueError(
                f"a generator draws in {self._drawn_in}, in which windows cannot agree on a larger "
                'picture; use the teacher: --teacher, or load(run, "teacher")'
            )
        num_images = how_many(num_images, label)
        calls = self.network_calls(calls, sampler, guidance)
        few = len(self.sigmas) > 1
        two = self._second_call() if calls == 2 and not few else None
        parts = []
        for start, count in self._chunks(num_images, seed, on_drawn):
            labels = self.labels(seed, start, count, label)
            later = self.later_noise(seed, start, count, calls) if few else None
            pictures = self(self.noise(seed, start, count), labels, later)
            if two is not None:
                noise = self.noise(seed, start, count, SECOND_CALL)
                pictures = second_call(two[0].denoiser, pictures, two[1], noise, labels)
            parts.append(self.config.finished(pictures))
        return torch.cat(parts)

    def later_noise(self, seed: int, start: int, count: int, calls: int | None = None) -> Tensor:
        """Noise of the calls after the first, of pictures start, start + 1, ... of a seed.

        Args:
            seed: picture i depends on the seed and on i alone.
            start: number of the first picture.
            count: number of pictures.
            calls: how many calls; None: all of them.

        Returns:
            Standard normal, float [count, calls - 1, c, h, w].
        """
        more = (len(self.sigmas) if calls is None else calls) - 1
        if not more:
            return self.noise(seed, start, count)[:, None][:, :0]
        drawn = [self.noise(seed, start, count, WALK + i) for i in range(more)]
        return torch.stack(drawn, 1)

    def second_teacher(self) -> Teacher | None:
        """The teacher that a second call needs; None if none is offered, or it is not there."""
        if self.config.two_call_sigma is None or self._find_teacher is None:
            return None
        return self._second_call()[0]

    def _check_second_call(self) -> None:
        """Refuse a second call that is not offered, or not possible."""
        if self.config.two_call_sigma is None:
            raise ValueError(
                "two calls are not offered: measured after distillation, a second one did not "
                "surely make these pictures better; use 1 call"
            )
        if self._find_teacher is None:
            raise ValueError(
                "two calls need the teacher, and it is not beside the generator; use 1 call"
            )

    def _second_call(self) -> tuple[Teacher, float]:
        self._check_second_call()
        assert self._find_teacher is not None
        assert self.config.two_call_sigma is not None
        if not self._found:
            self._found.append(self._find_teacher())
        return self._found[0].to(self.device), self.config.two_call_sigma


def one_call(
    denoiser: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    z: Tensor,
    sigma_init: float,
    label: Tensor | None = None,
) -> Tensor:
    """Return ``D(sigma_init z, sigma_init)``, unclamped: what distillation trains.

    Example:
        >>> one_call(lambda x, sigma, c: x / sigma[0], torch.ones(1, 1), 2.5)
        tensor([[1.]])
    """
    return denoiser(z * sigma_init, z.new_full(z.shape[:1], sigma_init), label)


def second_call(
    teacher: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    pictures: Tensor,
    sigma: float,
    noise: Tensor,
    label: Tensor | None = None,
) -> Tensor:
    """Add noise of level sigma to the pictures, denoise once with the teacher; in [-1, 1].

    Example:
        >>> second_call(lambda x, sigma, c: x / 2, torch.ones(1, 1), 0.5, torch.ones(1, 1))
        tensor([[0.7500]])
    """
    level = pictures.new_full(pictures.shape[:1], sigma)
    return teacher(pictures.add(noise, alpha=sigma), level, label).clamp(-1, 1)
