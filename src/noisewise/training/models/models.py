"""Trained models: a Teacher that draws in several calls, a Generator that draws in one.

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
        drawn = palette.after(sample(states).clamp(-1, 1), denoiser, spread, normal, condition)
        return self.config.finished(drawn)


class Generator(Model):
    """Pictures in one network call: ``G(z) = D_theta(sigma_init z, sigma_init)``.

    A second call may follow: add noise of level two_call_sigma, denoise once with the teacher.

    Args:
        denoiser: the distilled denoiser.
        config: with sigma_init.
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
        self._find_teacher = teacher
        self._found: list[Teacher] = []  # in a list: not a part of this module's weights

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """One network call.

        Args:
            z: standard normal noise, float [n, c, h, w].
            label: int64 [n], or None without classes.

        Returns:
            Pictures, float [n, c, h, w] in [-1, 1]; RGBA is premultiplied, and `sample` makes it
            straight.

        Raises:
            ValueError: if labels are missing, or z has another shape.
        """
        height, width = sides(self.size)
        if z.shape[1:] != (self.channels, height, width):
            raise ValueError(
                f"z is {tuple(z.shape)}; this generator takes "
                f"[n, {self.channels}, {height}, {width}]"
            )
        if self.classes and label is None:
            raise ValueError("this generator needs a label for each picture")
        return one_call(self.denoiser, z, self.sigma_init, label).clamp(-1, 1)

    def __repr__(self) -> str:
        """One line; `print(model.denoiser)` shows the layers."""
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
        if guidance is not None:
            raise ValueError(
                "a generator draws in one call and cannot be guided; use the teacher: "
                '--teacher, or load(run, "teacher")'
            )
        if sampler is not None:
            raise ValueError(
                "a generator draws in one call and has no sampler; use the teacher: "
                '--teacher, or load(run, "teacher")'
            )
        if calls not in (None, 1, 2):
            raise ValueError(
                f"a generator takes 1 or 2 network calls, not {calls}; the teacher can take more"
            )
        if calls == 2:
            self._check_second_call()
        return calls or 1

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
            calls: 1 (or None), or 2: noise is added and the teacher denoises once.
            sampler: None; only a teacher has a sampler.
            guidance: None; only a teacher can be guided.
            on_drawn: called with the number of pictures drawn so far.
            larger: None; only a teacher draws larger pictures.

        Raises:
            ValueError: if a value cannot be used; the message has values that can.
        """
        if larger is not None:
            raise ValueError(
                "a generator draws in one call, in which windows cannot agree on a larger picture; "
                'use the teacher: --teacher, or load(run, "teacher")'
            )
        num_images = how_many(num_images, label)
        calls = self.network_calls(calls, sampler, guidance)
        two = self._second_call() if calls == 2 else None
        parts = []
        for start, count in self._chunks(num_images, seed, on_drawn):
            labels = self.labels(seed, start, count, label)
            pictures = self(self.noise(seed, start, count), labels)
            if two is not None:
                noise = self.noise(seed, start, count, SECOND_CALL)
                pictures = second_call(two[0].denoiser, pictures, two[1], noise, labels)
            parts.append(self.config.finished(pictures))
        return torch.cat(parts)

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
