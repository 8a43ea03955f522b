"""Trained models: a Teacher that draws in several calls, a Generator that draws in one.

Picture i of a seed depends on the seed and on i alone: not on the number of pictures drawn at once,
and not on the device.

Papers: Karras et al. 2022 (EDM), the teacher's sampler; Zhou et al. 2024 (SiD), the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count as counting

import numpy as np
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
from noisewise.sizes import Size, sides, spelled
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.settings.larger import check_pixels

OnDrawn = Callable[[int], None]

# Streams of random numbers that a picture of a seed has; see `picture_noise`.
_START = 0  # the noise that a picture starts from
_SECOND_CALL = 1
_LABEL = 2
_WINDOWS = 2**31  # where the windows of a larger picture lie
_WALK = 3  # and above: the noise that a stochastic sampler adds, a stream for each time


class Model(nn.Module):
    """What Teacher and Generator share: a denoiser, its description, labels and noise.

    Attributes:
        denoiser: ``D(x, sigma, condition) -> x0``.
        config: what the model folder says.
    """

    def __init__(self, denoiser: nn.Module, config: ModelConfig) -> None:
        """Wrap a trained denoiser."""
        super().__init__()
        self.denoiser = denoiser
        self.config = config

    @property
    def size(self) -> Size:
        """Side of the pictures in pixels, or (height, width)."""
        return self.config.size

    @property
    def channels(self) -> int:
        """Channels of the pictures."""
        return self.config.channels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty if the model has none."""
        return self.config.classes

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    def _in_one_line(self, calls: str) -> str:
        count = sum(p.numel() for p in self.denoiser.parameters())
        colour = {1: "grey", 3: "colour"}.get(self.channels, f"{self.channels} channels")
        named = f"{len(self.classes)} classes, " if self.classes else ""
        return (
            f"{type(self).__name__}({spelled(self.size)}, {colour}, {named}{calls}, "
            f"{count:,} parameters on {self.device})"
        )

    def noise(
        self,
        seed: int,
        start: int,
        count: int,
        stream: int = _START,
        larger: tuple[int, int] | None = None,
    ) -> Tensor:
        """Standard normal noise of pictures start, start + 1, ... of a seed, [count, c, h, w]."""
        shape = (self.channels, *(larger or sides(self.size)))
        return picture_noise(seed, start, count, shape, stream).to(self.device)

    def labels(self, seed: int, start: int, count: int, label: int | str | None) -> Tensor | None:
        """Labels int64 [count]: all `label`, or drawn as in the data; None without classes.

        Raises:
            ValueError: if the label is unknown, or the model has no classes.
        """
        if not self.classes:
            if label is not None:
                raise ValueError("this model was trained without classes; leave the label out")
            return None
        if label is not None:
            return torch.full((count,), self._label(label), device=self.device)
        drawn = picture_labels(seed, start, count, self.config.label_histogram)
        return drawn.to(self.device)

    def _label(self, label: int | str) -> int:
        if isinstance(label, str) and label in self.classes:
            return self.classes.index(label)
        number = int(label) if str(label).isdecimal() else -1
        if not 0 <= number < len(self.classes):
            some = ", ".join(self.classes[:10])
            some += f'; by its name: label="{label}"' if str(label) in self.classes else ""
            raise ValueError(f"unknown class {label!r}; there are {len(self.classes)}: {some}")
        return number

    def _at_once(self, pixels: int) -> int:
        """How many pictures of so many pixels are denoised in one batch."""
        return max(1, min(250, 2**18 // pixels))

    def _chunks(
        self,
        num_images: int,
        seed: int,
        on_drawn: OnDrawn | None = None,
        larger: tuple[int, int] | None = None,
    ) -> Iterator[tuple[int, int]]:
        if num_images < 1:
            raise ValueError(f"{num_images} pictures: ask for at least 1")
        if seed < 0:
            raise ValueError(f"seed {seed} is negative; use 0 or more")
        chunk = self._at_once(math.prod(larger or sides(self.size)))
        for start in range(0, num_images, chunk):
            count = min(chunk, num_images - start)
            yield start, count
            if on_drawn is not None:
                on_drawn(start + count)


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
        return self.sampler.calls_for(self.sampler.steps_for(calls, sampler), sampler, guidance)

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
        num_images: int,
        seed: int = 0,
        label: int | str | None = None,
        calls: int | None = None,
        sampler: str | Sampler | None = None,
        guidance: float | None = None,
        on_drawn: OnDrawn | None = None,
        larger: tuple[int, int] | None = None,
    ) -> Tensor:
        """Draw pictures, float [num_images, c, h, w] in [-1, 1].

        Args:
            num_images: number of pictures.
            seed: picture i depends on the seed and on i alone, with every sampler.
            label: class by name or number; None: as often as in the training data.
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
        label: int | str | None = None,
        calls: int | None = None,
        sampler: str | Sampler | None = None,
        guidance: float | None = None,
        larger: tuple[int, int] | None = None,
    ) -> Tensor:
        """Draw pictures start to start + count of a seed in one batch; see `sample`."""
        settings = self.sampler
        sigmas = settings.levels(settings.steps_for(calls, sampler))
        streams = counting(_WALK)

        def noise_of(stream: int) -> Tensor:
            return self.noise(seed, start, count, stream, larger)

        def normal() -> Tensor:
            return noise_of(next(streams))

        noise, condition = noise_of(_START), self.labels(seed, start, count, label)
        denoiser = self.guided(guidance)
        if larger is not None:
            window = sides(self.size)
            grid = _generator(seed, 0, _WINDOWS)  # the same for all pictures of a seed
            denoiser = windowed(denoiser, window, grid, self._at_once(math.prod(window)))
        states = settings.chosen(sampler).states(denoiser, noise, sigmas, condition, normal)
        return self.config.flats.applied(sample(states).clamp(-1, 1))


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
            Pictures, float [n, c, h, w] in [-1, 1].

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
        num_images: int,
        seed: int = 0,
        label: int | str | None = None,
        calls: int | None = None,
        sampler: str | Sampler | None = None,
        guidance: float | None = None,
        on_drawn: OnDrawn | None = None,
        larger: tuple[int, int] | None = None,
    ) -> Tensor:
        """Draw pictures, float [num_images, c, h, w] in [-1, 1].

        Args:
            num_images: number of pictures.
            seed: picture i depends on the seed and on i alone.
            label: class by name or number; None: as often as in the training data.
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
        calls = self.network_calls(calls, sampler, guidance)
        two = self._second_call() if calls == 2 else None
        parts = []
        for start, count in self._chunks(num_images, seed, on_drawn):
            labels = self.labels(seed, start, count, label)
            pictures = self(self.noise(seed, start, count), labels)
            if two is not None:
                noise = self.noise(seed, start, count, _SECOND_CALL)
                pictures = second_call(two[0].denoiser, pictures, two[1], noise, labels)
            parts.append(self.config.flats.applied(pictures))
        return torch.cat(parts)

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
    return denoiser(z * sigma_init, z.new_full((len(z),), sigma_init), label)


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
    level = pictures.new_full((len(pictures),), sigma)
    return teacher(pictures.add(noise, alpha=sigma), level, label).clamp(-1, 1)


def picture_noise(
    seed: int, start: int, count: int, shape: tuple[int, ...], stream: int = _START
) -> Tensor:
    """Standard normal noise for pictures start, start + 1, ..., [count, *shape].

    The noise of a picture depends on (seed, its number, stream) alone; streams are independent.

    Example:
        >>> a, b = picture_noise(0, 0, 4, (1, 8, 8)), picture_noise(0, 2, 1, (1, 8, 8))
        >>> torch.equal(a[2:3], b)
        True
    """
    out = torch.empty(count, *shape)
    for i in range(count):
        torch.randn(shape, generator=_generator(seed, start + i, stream), out=out[i])
    return out


def _generator(seed: int, number: int, stream: int) -> torch.Generator:
    """The random numbers of a stream of a picture."""
    words = np.random.SeedSequence((seed, number, stream)).generate_state(1)
    return torch.Generator().manual_seed(int(words[0]))


def picture_labels(seed: int, start: int, count: int, histogram: tuple[int, ...]) -> Tensor:
    """Labels for pictures start, start + 1, ..., drawn as often as the histogram says, int64.

    Example:
        >>> picture_labels(0, 0, 4, (0, 5, 0))
        tensor([1, 1, 1, 1])
    """
    edges = np.cumsum(histogram) / sum(histogram)
    words = [
        np.random.SeedSequence((seed, start + i, _LABEL)).generate_state(1)[0] for i in range(count)
    ]
    drawn = np.searchsorted(edges, np.array(words) / 2**32, side="right")
    return torch.from_numpy(drawn.astype(np.int64))
