"""The two recipes: every constant of training and distilling in one place.

Where the constants come from: single prototype runs on two CPU cores, on Fashion-MNIST and on small
colour sets, unless a paper is named. What a program has measured since is in docs/results.md. What
is derived from pictures and machine is in `plan`. This file imports nothing heavy: the command line
reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Optimizer = Literal["muon", "adamw"]
LossWeight = Literal["l1", "sigma", "none"]
GradThrough = Literal["both", "none"]
PaletteWay = Literal["end", "again", "inside"]
GeneratorStart = Literal["teacher", "fresh"]
MOST_FAKE_STEPS = 20  # for each step of the generator
_MOST_LAM = 1.5


@dataclass(frozen=True)
class TeacherRecipe:
    """Constants of teacher training."""

    optimizer: Optimizer = "muon"
    """muon: Muon for hidden matrices and convolutions, Adam for the rest. adamw: AdamW for all."""
    lr: float = 0.015
    """Learning rate of Muon."""
    adam_lr: float = 0.015
    """Learning rate of Adam beside Muon."""
    adamw_lr: float = 0.003
    """Learning rate of AdamW."""
    momentum: float = 0.95
    """Momentum of Muon."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Betas of Adam and AdamW."""
    weight_decay: float = 0.0
    """Weight decay of the matrices."""
    batch: int = 64
    """Images in each step."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    warmup: float = 0.02
    """Share of the budget over which the learning rate rises."""
    decay_from: float = 0.5
    """Share of the budget after which the learning rate falls to 0."""
    ema_shares: tuple[float, ...] = (0.05, 0.2)
    """Lengths of the weight averages, as shares of the images seen. The best average is kept."""
    noise_mean: float = -0.4
    """Mean of ln(sigma / sigma_data) in training."""
    noise_std: float = 1.4
    """Standard deviation of ln sigma in training."""
    high_noise: float = 0.1
    """Share of the log-normal draws that is spread up to the sampler's first level, where overall
    colour is decided; for nets with bands, whose draw also has to reach the finest details. 0: only
    the little that is needed to know that level at all."""
    coarse_share: float = 0.3
    """Share of the budget in which pictures above 32 pixels are trained at coarse scales only."""
    interpolated: tuple[int, int] = (32, 256)
    """Sides in pixels for which the two ends of --schedule interpolated are right without a shift:
    the noisy end, then the clean end."""
    dropout: float = 0.0
    """Dropout at the lowest resolution of the net."""
    few_looks: float = 50.0
    """If each picture is seen so often, `augment` auto changes pictures and uses dropout.
    Provisional: benchmarks/pictures/few_pictures.py decides."""
    few_dropout: float = 0.1
    """Dropout in that case, if it is more than `dropout`. Provisional too."""
    changed_share: float = 0.15
    """Share of the pictures that get each change of `augment`."""
    shift_reach: float = 0.125
    """Farthest shift of `augment`, in sides of the picture."""
    heldout_every: float = 0.05
    """Share of the budget between held-out losses."""
    distance_every: float = 0.2
    """Share of the budget between distances and sample sheets."""
    heldout_images: int = 256
    """Largest number of held-out pictures for a held-out loss."""
    distance_images: int = 256
    """Largest number of generated pictures for a distance. 0: no distances."""
    sampler_images: int = 256
    """Generated pictures for each distance when the sampler is chosen. 0: no choice is made, the
    values of sigma_min, sigma_max and num_steps below are used."""
    snap_flats: bool = True
    """Give drawn pictures the exact values that fill areas of the real ones, such as a black
    ground, if the judge does not call them worse."""
    palette_way: PaletteWay = "end"
    """How drawn pictures get the colours of a palette. end: the nearest ones, at the end. again:
    then a little noise, two calls, and the nearest ones again. inside: each call leans towards the
    palette."""
    reference_images: int = 2000
    """Largest number of real pictures that the judge reads; of large pictures it reads fewer."""
    evaluation_share: float = 0.04
    """Largest share of a time budget for evaluations."""
    noise_every: int = 50
    """Steps between measurements of the gradient's noise. 0: no measurements."""
    tries: int = 3
    """How often training goes back to its last good state before it gives up. Only restarts with
    less than a tenth of the budget between them count."""
    sigma_min: float = 0.3
    """Noise level where the sampler stops and denoises once."""
    sigma_max: float = 40.0
    """Noise level where the sampler starts. Pictures above 32 pixels get a higher one if their mean
    colours need it."""
    num_steps: int = 5
    """Heun steps of the sampler: 2 num_steps - 1 network calls."""

    def __post_init__(self) -> None:
        """Refuse constants that cannot train anything."""
        _choice(self, "optimizer", get_args(Optimizer))
        _choice(self, "palette_way", get_args(PaletteWay))
        _positive(self, "lr", "adam_lr", "adamw_lr", "batch", "clip", "noise_std", "sigma_min")
        _positive(self, "heldout_every", "distance_every", "heldout_images", "reference_images")
        _positive(self, "num_steps")
        _shares(self, "warmup", "decay_from", "dropout", "evaluation_share", "momentum")
        _shares(self, "few_dropout", "changed_share", "shift_reach")
        _positive(self, "few_looks")
        _within("coarse_share", self.coarse_share, 0.0, 1.0)
        if not 0 <= self.high_noise < 1:
            raise ValueError(
                f"recipe: high_noise is {self.high_noise:g}; it is a share, from 0 to below 1"
            )
        _averages(self.ema_shares)
        _within("sigma_min", self.sigma_min, 0.0, self.sigma_max)
        if not 0 < self.interpolated[0] <= self.interpolated[1]:
            raise ValueError(
                f"recipe: the ends of the interpolated schedule cross ({self.interpolated[0]} and "
                f"{self.interpolated[1]} pixels); write the smaller side first"
            )
        if self.noise_every < 0:
            raise ValueError(
                f"recipe: noise_every is {self.noise_every}; use 0 to measure no noise"
            )


@dataclass(frozen=True)
class StudentRecipe:
    """Constants of distillation by score identities (Zhou et al. 2024, SiD)."""

    lam: float = 1.2
    """lambda of the loss L2 - lambda L1."""
    weight: LossWeight = "sigma"
    """Weight of an image in the generator's loss."""
    grad_through: GradThrough = "both"
    """both: gradients flow through teacher and fake score. none: through neither, as in DMD."""
    lr: float = 3e-4
    """Learning rate of the generator."""
    fake_lr: float = 3e-4
    """Learning rate of the fake score."""
    betas: tuple[float, float] = (0.0, 0.999)
    """Betas of Adam, for both."""
    batch: int = 64
    """Images in each step."""
    clip: float = 1.0
    """Largest norm of each gradient."""
    warmup: float = 0.1
    """Share of the budget over which the learning rate rises."""
    decay_from: float = 0.5
    """Share of the budget after which the learning rate falls to 0."""
    fake_noise_shift: float = 0.8
    """Added to ln sigma of the teacher's draw for the fake score: only high noise shows whether the
    whole is right (how bright, how many of each kind), and the fake score must keep up there."""
    fake_steps: int = 1
    """Steps of the fake score for each step of the generator."""
    fake_warmup_steps: int = 0
    """First steps, in which only the fake score learns."""
    sigma_init_scale: float = 5.0
    """Noise level of the generator's input, in units of sigma_data; above 32 pixels times the
    teacher's noise_scale."""
    last_call_scale: float = 0.4
    """Noise level before the last of several calls, in units of sigma_data; above 32 pixels times
    the teacher's noise_scale."""
    fake_told: bool = True
    """Of a generator of several calls: the fake score is told which call a picture comes from. In
    the papers it is not."""
    generator_start: GeneratorStart = "teacher"
    """teacher: the generator starts with the teacher's weights. fresh: from nothing."""
    generator_widths: tuple[int, ...] = ()
    """Channels at each resolution of the generator's net. Empty: as the teacher's. Of another net,
    only the weights that fit are carried over."""
    balanced: bool = False
    """Every batch has the classes in the teacher's shares, as nearly as can be; else each picture's
    class is drawn."""
    adapter_lr_scale: float = 10.0
    """Learning rates of adapters, over those of all weights."""
    data_target: float = 0.68
    """With real pictures: what the fake score learns to say of them, as a share of each picture."""
    adversarial_scale: float = 1e-4
    """With real pictures as in SiDA: factor on the adversarial loss of the generator, beside a loss
    that is a mean over pixels. In the paper 0.01 beside 100, of sums."""
    adversarial_from: float = 0.1
    """Share of the budget from which the generator follows it; the fake score learns it before."""
    label_drop: float = 0.1
    """With guidance: share of the fake score's pictures whose class it is not told."""
    sigma_min: float = 0.002
    """Lowest noise level of the generator's loss."""
    sigma_max: float = 80.0
    """Noise level at t = 1 of the generator's loss; above 32 pixels times the teacher's
    noise_scale."""
    t_min: float = 0.3
    """Lowest t of the generator's loss at the start, in Karras' variable from the low-noise end."""
    t_falls: tuple[float, float] = (0.4, 0.8)
    """Shares of the budget between which the lowest t falls to 0: first shapes, then detail."""
    t_max: float = 0.7
    """Highest t of the generator's loss."""
    ema_shares: tuple[float, ...] = (0.05, 0.2, 0.5)
    """Lengths of the weight averages, as shares of the images seen. The best average is kept."""
    distance_every: float = 0.2
    """Share of the budget between distances to the teacher's pictures."""
    distance_images: int = 1000
    """Largest number of pictures of teacher and generator for a distance."""
    evaluation_share: float = 0.06
    """Largest share of a time budget for evaluations."""
    two_call_sigmas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.45, 0.7)
    """Noise levels to try for the second call. The level whose pictures are nearest to the
    teacher's is kept."""
    tries: int = 3
    """How often training goes back to its last good state before it gives up. Only restarts with
    less than a tenth of the budget between them count."""
    safe_lam: float = 0.5
    """lambda after training went back."""
    max_pixel: float = 5.0
    """Guard: largest |pixel| of a generated picture."""
    spread: tuple[float, float] = (0.3, 3.0)
    """Guard: range of the generated pictures' standard deviation, in units of sigma_data."""
    fisher_jump: float = 10.0
    """Guard: largest ratio of |teacher - fake|^2 to its running mean."""
    distance_jump: float = 2.0
    """Guard: largest ratio of the distance to the best distance."""
    variety_fall: float = 0.5
    """Guard: lowest ratio of the pictures' variety to its highest value; below it, the generator
    draws the same few pictures for every noise. 0: not watched."""

    def __post_init__(self) -> None:
        """Refuse constants that cannot distil anything."""
        check_lam(self.lam)
        check_lam(self.safe_lam)
        _choice(self, "weight", get_args(LossWeight))
        _choice(self, "grad_through", get_args(GradThrough))
        _choice(self, "generator_start", get_args(GeneratorStart))
        _positive(self, "lr", "fake_lr", "batch", "clip", "fake_steps", "sigma_init_scale")
        _positive(self, "sigma_min", "distance_every", "distance_images")
        _positive(self, "last_call_scale", "adapter_lr_scale", "adversarial_scale")
        _shares(self, "warmup", "decay_from", "t_min", "t_max", "evaluation_share")
        _shares(self, "variety_fall", "data_target", "label_drop", "adversarial_from")
        _averages(self.ema_shares)
        _within("sigma_min", self.sigma_min, 0.0, self.sigma_max)
        _within("t_min", self.t_min, 0.0, self.t_max)
        if not self.two_call_sigmas or min(self.two_call_sigmas) <= 0:
            raise ValueError(
                "recipe: two_call_sigmas needs one noise level or more, all of them above 0"
            )


def check_lam(lam: float) -> None:
    """Refuse a lambda with which distillation diverges.

    From 1.5 on it diverges in fact; the papers use 0.5 (Huang et al. 2024), 1 and 1.2 (Zhou et al.
    2024).

    Raises:
        ValueError: if it is not from 0 to 1.5.
    """
    if not 0 <= lam <= _MOST_LAM:
        raise ValueError(f"lambda {lam:g} diverges; use 0 to {_MOST_LAM:g}, best 0.5 to 1.2")


def _choice(recipe: TeacherRecipe | StudentRecipe, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(recipe, name)
    if value not in choices:
        raise ValueError(f"recipe: {name} {value!r} is unknown; use one of {', '.join(choices)}")


def _positive(recipe: TeacherRecipe | StudentRecipe, *names: str) -> None:
    for name in names:
        value = getattr(recipe, name)
        if not 0 < value < math.inf:
            raise ValueError(f"recipe: {name} is {value:g}; it must be above 0")


def _shares(recipe: TeacherRecipe | StudentRecipe, *names: str) -> None:
    for name in names:
        value = getattr(recipe, name)
        if not 0 <= value <= 1:
            raise ValueError(f"recipe: {name} is {value:g}; it is a share, from 0 to 1")


def _averages(shares: tuple[float, ...]) -> None:
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"recipe: ema_shares is {list(shares)}; it needs shares above 0, below 1")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value < high:
        raise ValueError(f"recipe: {name} is {value:g}; it must be below {high:g}")


def lr_factor(progress: float, warmup: float, decay_from: float, begins: float = 0.0) -> float:
    """Factor on the learning rate: rises over `warmup`, is 1, falls to 0 from `decay_from` to 1.

    Args:
        progress: share of the budget used, from 0.
        warmup: share of the budget at which the factor reaches 1.
        decay_from: share of the budget at which it begins to fall.
        begins: share of the budget that was used before the first step; the rate rises from there.

    Example:
        >>> [round(lr_factor(p, 0.02, 0.5), 2) for p in (0.01, 0.3, 0.75, 1.0, 1.1)]
        [0.5, 1.0, 0.5, 0.0, 0.0]
    """
    rising = (progress - begins) / warmup if warmup > 0 else 1.0
    falling = (1 - progress) / (1 - decay_from) if decay_from < 1 else 1.0
    # A first step with a rate of exactly 0 would change nothing.
    return max(0.0, min(1.0, max(rising, 1e-3), falling))
