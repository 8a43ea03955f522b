"""Near copies: training pictures with small changes, found by a rule that real pictures set.

Papers: Yoon et al. 2023 (the nearest training picture against the second nearest); Vovk, Gammerman
and Shafer 2005, "Algorithmic learning in a random world" (a threshold that a new real picture
passes with a known probability); Wilson 1927 (the interval of a share).

Measured on emoji, tiles and garments of 28 and 32 px: nearest over second nearest finds more
planted copies than nearest over fourth nearest, over the distances around the matched picture, or
the nearest distance alone. Medians over places find fewer than means, and the worst place finds
others: real pictures that resemble each other differ in few places. Features of a teacher find
fewer than pixels. A fitted combination of all finds no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from noisewise.quality.features import check_images
from noisewise.quality.place_features import PlaceFeatures
from noisewise.quality.planted_copies import planted_copies
from noisewise.quality.prepared_pictures import SAME, Compared, PreparedPictures
from noisewise.quality.wilson import wilson

_FALSE_ALARMS = 0.01
_FEWEST = 20  # different training pictures; with fewer no rule is set
_ENOUGH = 500  # held-out pictures that are enough to set the rule
_MOST = 1000  # real pictures of each kind that are compared
_PLANTED = 64  # training pictures that are planted, with every kind of change
_CHANGED = 1 / 255  # half a grey level: a planted copy that changed less is left out
_GOOD_POWER = 0.5


@dataclass(frozen=True)
class NearCopyTest:
    """How many pictures are near copies of training pictures, and how well that can be told.

    Attributes:
        fraction: share of generated pictures that are near copies; exact copies are among them.
        low: lower end of its 95 % interval (Wilson).
        high: upper end of it.
        allowed: share of new real pictures that the rule calls near copies by design, and of
            training pictures that are the same as another one.
        held_out_fraction: share of the held-out pictures that it calls so; None without them.
        power: share of planted near copies that it finds.
        power_by_change: the same for each kind of change.
        num_real: real pictures that set the rule.
        num_different: training pictures that are not the same as an earlier one.
        compared: what is compared: "pixels", "features" or "pixels and features", whichever finds
            most planted copies.
        copied: which generated pictures are near copies, bool [n].
        exact: which of them are the same picture (within two grey levels), bool [n].
        index: the training picture each is matched with, int64 [n].
        score: share of real pictures that are as much like a copy, about, float32 [n]: 0 for an
            exact copy; the rule is an upper limit to it.
    """

    fraction: float
    low: float
    high: float
    allowed: float
    held_out_fraction: float | None
    power: float
    power_by_change: dict[str, float]
    num_real: int
    num_different: int
    compared: str
    copied: Tensor
    exact: Tensor
    index: Tensor
    score: Tensor = field(repr=False)

    def closest(self, num_images: int = 16) -> Tensor:
        """Return the generated pictures that are most like copies, the most alike first.

        Args:
            num_images: how many at most.

        Returns:
            Indices of generated pictures, int64; `index` at these gives the training pictures.
        """
        return self.score.argsort(stable=True)[:num_images]

    @property
    def can_tell(self) -> bool:
        """Whether the rule finds at least half of the planted near copies."""
        return self.power >= _GOOD_POWER

    @property
    def verdict(self) -> str:
        """What the test says and what it cannot tell, in words."""
        if not self.num_real:
            return (
                f"Only {self.num_different} training pictures differ from each other: near copies "
                f"cannot be told from real pictures, and only exact copies are counted "
                f"({self.fraction:.1%})."
            )
        found = (
            f"{self.fraction:.1%} of the pictures are near copies of training pictures "
            f"(95 % interval {self.low:.1%} to {self.high:.1%})"
        )
        real = f"the same rule calls {self.allowed:.1%} of real unseen pictures near copies"
        if self.low > self.allowed:
            says = f"{found}; {real}."
        else:
            says = f"{found}, no more than real pictures show: {real}."
        if self.can_tell:
            return f"{says} It finds {self.power:.0%} of planted near copies."
        return (
            f"{says} It finds only {self.power:.0%} of planted near copies, since the real "
            "pictures resemble each other: a low share does not show that there are none."
        )


@dataclass(frozen=True)
class _Rule:
    """The statistics that are used, and how like copies real pictures are in them.

    Attributes:
        columns: the statistics that are used.
        real: their values for real pictures, in ascending order, float32 [r, s].
        limit: a picture is a near copy if its score is below this.
        allowed: share of new real pictures below it.
    """

    columns: list[int]
    real: Tensor
    limit: float
    allowed: float

    @classmethod
    def set_by(cls, real: Tensor, columns: list[int], false_alarms: float) -> _Rule:
        ordered = real[:, columns].sort(0).values
        rule = cls(columns, ordered, 0.0, 0.0)
        rank = max(1, int(false_alarms * (len(real) + 1)))
        limit = float(rule.scores(real).min(1).values.sort().values[rank - 1])
        return cls(columns, ordered, limit, rank / (len(real) + 1))

    def scores(self, ratio: Tensor) -> Tensor:
        """Share of real pictures below each value, interpolated, float32 [n, columns used]."""
        return torch.stack(
            [
                _ranked(ratio[:, column].contiguous(), self.real[:, i].contiguous())
                for i, column in enumerate(self.columns)
            ],
            1,
        )


class NearCopyReference:
    """Training pictures, prepared once: the rule is set and its power is measured.

    Two pictures are compared place by place after small moves, without their mean colours, and
    also in `features`. The statistic is ``d_1 / d_2``, nearest training picture over second
    nearest. Pictures are near copies if theirs is below what all but about `false_alarms` of real
    unseen pictures show: held-out ones if there are 500, else training pictures against all the
    others. With fewer than 100 real pictures the share is larger, and stated. Pictures within two
    grey levels of a training picture are always copies. A near copy of one of two training
    pictures that resemble each other, but not so closely, can be missed.

    Args:
        training: float [m, c, h, w] in [-1, 1], c 1, 3 or 4 for planted changes to make sense.
        held_out: real pictures that were not trained on, float [k, c, h, w], or None.
        features: of places, such as `DenoiserPlaces` of the finished teacher; None: only pixels.
            They are used where they find more planted copies than pixels alone.
        flips: a mirrored picture counts as a copy too.
        generator: chooses the planted pictures and their changes; None: a fixed seed.
        false_alarms: the share of real pictures that may be called near copies, between 0 and 1.

    Raises:
        ValueError: if there are fewer than two training pictures, or shapes differ.

    Source: Yoon et al. 2023, section 3 (the ratio); Vovk et al. 2005, section 2.2 (the rule).

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> reference = NearCopyReference(torch.rand(40, 1, 16, 16, generator=g) * 2 - 1)
        >>> reference.test(torch.rand(10, 1, 16, 16, generator=g) * 2 - 1).fraction
        0.0
    """

    def __init__(
        self,
        training: Tensor,
        held_out: Tensor | None = None,
        features: PlaceFeatures | None = None,
        flips: bool = False,
        generator: torch.Generator | None = None,
        false_alarms: float = _FALSE_ALARMS,
    ) -> None:
        """Prepare the pictures, set the rule and measure its power."""
        check_images(training, "training")
        if len(training) < 2:
            raise ValueError("There is one training picture: give at least two.")
        if not 0 < false_alarms < 1:
            raise ValueError(
                f"false_alarms is {false_alarms}: give a share between 0 and 1, such as 0.01."
            )
        g = generator or torch.Generator().manual_seed(0)
        self._shape = training.shape[1:]
        self._prepared = PreparedPictures(training, features, flips)
        self._unseen = None
        if held_out is not None and len(held_out):
            self._unseen = self._compared(held_out[:_MOST])
        self._rule: _Rule | None = None
        self._power: dict[str, float] = {}
        self._all_power, self._name = 0.0, "pixels"
        if len(self._prepared) >= _FEWEST:
            self._set_rule(training, flips, g, false_alarms)

    def test(self, generated: Tensor) -> NearCopyTest:
        """Count the near copies among generated pictures.

        Args:
            generated: float [n, c, h, w] in [-1, 1], n >= 1.

        Raises:
            ValueError: if the shape is not that of the training pictures.
        """
        found = self._compared(generated)
        score, index = self._scored(found)
        exact = found.gap < SAME
        copied = score < (self._rule.limit if self._rule else 0.0)
        copied |= exact
        low, high = wilson(int(copied.sum()), len(copied))
        return NearCopyTest(
            fraction=float(copied.double().mean()),
            low=low,
            high=high,
            allowed=min(1.0, (self._rule.allowed if self._rule else 0.0) + self._prepared.repeated),
            held_out_fraction=None if self._unseen is None else self._share(self._unseen),
            power=self._all_power,
            power_by_change=dict(self._power),
            num_real=len(self._rule.real) if self._rule else 0,
            num_different=len(self._prepared),
            compared=self._name,
            copied=copied,
            exact=exact,
            index=self._prepared.kept[index],
            score=score,
        )

    def _compared(self, images: Tensor) -> Compared:
        check_images(images, "images")
        if images.shape[1:] != self._shape:
            raise ValueError(
                f"Pictures have shape {list(images.shape[1:])}, training pictures "
                f"{list(self._shape)}: give both the same size and number of channels."
            )
        return self._prepared.compare(self._prepared.views(images))

    def _set_rule(
        self, training: Tensor, flips: bool, g: torch.Generator, false_alarms: float
    ) -> None:
        """Set a rule for each choice of statistics; keep the one that finds most planted copies."""
        order = torch.randperm(len(self._prepared), generator=g)
        if self._unseen is not None and len(self._unseen.ratio) >= _ENOUGH:
            real = self._unseen.ratio
        else:
            real = self._prepared.leave_one_out(order[:_MOST]).ratio
        sources = training[self._prepared.kept[order[:_PLANTED]].to(training.device)]
        planted = {}
        for change, copies in planted_copies(sources, flips, g).items():
            away = (copies - sources.detach().float().cpu()).square().flatten(1).mean(1).sqrt()
            if (away > _CHANGED).any():
                planted[change] = self._compared(copies[away > _CHANGED])
        choices = {"pixels": [0, 1]}
        if real.shape[1] == 4:
            choices |= {"features": [2, 3], "pixels and features": [0, 1, 2, 3]}
        for name, columns in choices.items():
            rule = _Rule.set_by(real, columns, false_alarms)
            found = {change: _found(rule, here) for change, here in planted.items()}
            power = sum(found.values()) / max(1, len(found))
            if self._rule is None or power > self._all_power:
                self._rule, self._name = rule, name
                self._power, self._all_power = found, power

    def _scored(self, found: Compared) -> tuple[Tensor, Tensor]:
        """Score [n] and matched picture [n], a position in `kept`."""
        if self._rule is None:
            score, index = found.ratio[:, 0], found.index[:, 0]
        else:
            score, which = self._rule.scores(found.ratio).min(1)
            columns = torch.tensor(self._rule.columns)[which]
            index = found.index.gather(1, columns[:, None])[:, 0]
        exact = found.gap < SAME
        return score.masked_fill(exact, 0.0), torch.where(exact, found.same, index)

    def _share(self, found: Compared) -> float:
        if self._rule is None:
            return float((found.gap < SAME).double().mean())
        return _found(self._rule, found)


def _found(rule: _Rule, found: Compared) -> float:
    """Share of pictures that a rule calls near copies."""
    score = rule.scores(found.ratio).min(1).values
    return float(((score < rule.limit) | (found.gap < SAME)).double().mean())


def _ranked(values: Tensor, real: Tensor) -> Tensor:
    """Share of real values below each value: 0 at 0, and in line between the real values."""
    n = len(real)
    marks = torch.cat([torch.zeros(1), real])
    right = torch.searchsorted(real, values).clamp_max(n - 1)
    start, end = marks[right], marks[right + 1]
    part = ((values - start) / (end - start).clamp_min(1e-12)).clamp(0, 1)
    return (right + part) / (n + 1)
