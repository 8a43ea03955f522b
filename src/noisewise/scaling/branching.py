"""The critical batch of a training, by trying: short branches from a checkpoint.

Paper: Merrill et al. 2025, "Critical batch size revisited" (arXiv 2505.23971). From one checkpoint
the training goes on several times, each time over the same number of examples, with other batches
and rates. The critical batch is the largest that loses nothing that matters. The paper allows a
loss of so much (`tolerance`); without it, a larger batch may waste a share of the examples: with
all of them it must get as far as the old batch with `share` of them.

The noise scale is the cheap proxy. To the same loss, batch B needs (B + B_noise) / (B_0 + B_noise)
times the examples of B_0 (McCandlish et al. 2018), so it predicts B_0 / share + B_noise (1 / share
- 1). The paper found it too low on language models, so `Branching` says whether the two agree.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from noisewise.scaling.advice import short
from noisewise.scaling.intervals import Estimate
from noisewise.whole_files import write_text

__all__ = ["Branching", "TrainBranch", "Trial", "branch"]

TrainBranch = Callable[[int, float, int], float]
"""(batch, learning rate, examples) -> held-out loss, from the same checkpoint each time."""

_AGREE = 2.0  # two noisy numbers agree if their intervals meet within this factor
_VERSION = 1
_MOST_BYTES = 2**24  # of a file of branches


@dataclass(frozen=True)
class Trial:
    """One branch: batch, learning rate, examples, its held-out loss (inf: diverged), seconds."""

    batch: int
    lr: float
    examples: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Branching:
    """What the branches from one checkpoint found.

    Attributes:
        batch0: the batch of the training, in examples.
        lr0: its learning rate.
        examples: of each branch.
        seen: examples of the training before the checkpoint; nan if not known.
        share: of the examples with which the old batch sets the target; nan with a tolerance.
        target: loss that a batch must reach to count as not too large.
        trials: every branch, in the order in which they ran.
        critical: the critical batch; `low` is the largest that was good, `high` the smallest that
            was not (inf: none). nan if the branches cannot tell.
        noise_scale: measured beside it, in examples.
        warnings: sentences for people.
    """

    batch0: int
    lr0: float
    examples: int
    seen: float
    share: float
    target: float
    trials: tuple[Trial, ...]
    critical: Estimate
    noise_scale: Estimate = field(default_factory=Estimate.unknown)
    warnings: tuple[str, ...] = ()

    def best(self, batch: int) -> Trial | None:
        """Return the branch of this batch with the lowest loss; None if none ran."""
        return _best(self.trials, batch, self.examples)

    @property
    def power(self) -> float:
        """Power of the batch by which the best rate grows; nan if no larger batch was good."""
        found = [
            math.log(trial.lr / self.lr0) / math.log(trial.batch / self.batch0)
            for batch in self._batches()
            if batch != self.batch0
            and (trial := self.best(batch)) is not None
            and trial.loss <= self.target
        ]
        return found[-1] if found else math.nan

    @property
    def predicted(self) -> Estimate:
        """The critical batch that the noise scale predicts; unknown with a tolerance."""
        if math.isnan(self.share) or not self.noise_scale.known:
            return Estimate.unknown()
        more = 1 / self.share
        value, low, high = (
            self.batch0 * more + max(0.0, end) * (more - 1)
            for end in (self.noise_scale.value, self.noise_scale.low, self.noise_scale.high)
        )
        return Estimate(value, low, high)

    @property
    def agrees(self) -> bool | None:
        """Whether branches and noise scale agree within a factor of two; None: not known."""
        found, said = self.critical, self.predicted
        if not (found.known and said.known):
            return None
        return found.low <= _AGREE * said.high and said.low <= _AGREE * found.high

    def text(self) -> str:
        """Return the critical batch, one sentence, what the noise scale says, and each branch."""
        return "\n".join(self._lines())

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; numbers that are not finite become None or are spelled."""
        values = asdict(self) | {
            "critical": self.critical.to_dict(),
            "noise_scale": self.noise_scale.to_dict(),
            "predicted": self.predicted.to_dict(),
            "power": self.power,
            "agrees": self.agrees,
            "version": _VERSION,
        }
        values["trials"] = [asdict(t) | {"loss": _finite(t.loss)} for t in self.trials]
        return {n: _finite(v) if isinstance(v, float) else v for n, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Branching:
        """Return what `to_dict` described.

        Raises:
            ValueError: for other values.
        """
        try:
            trials = [
                Trial(**(t | {"loss": math.inf if t["loss"] is None else t["loss"]}))
                for t in values["trials"]
            ]
            numbers = {
                name: math.nan if values[name] is None else float(values[name])
                for name in ("lr0", "seen", "share", "target")
            }
            return cls(
                batch0=int(values["batch0"]),
                examples=int(values["examples"]),
                trials=tuple(trials),
                critical=Estimate.from_dict(values["critical"]),
                noise_scale=Estimate.from_dict(values["noise_scale"]),
                warnings=tuple(values["warnings"]),
                **numbers,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("it is not what branches found") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; an existing file stays whole until the new one is complete."""
        write_text(Path(path), json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Branching:
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is missing or is something else.
        """
        try:
            file = Path(path)
            if not file.exists():
                raise ValueError("it does not exist")
            if not (file.is_file() and file.stat().st_size <= _MOST_BYTES):  # a pipe never ends
                raise ValueError(f"it is not a file of at most {_MOST_BYTES:,} bytes")
            stored = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(stored, dict):
                raise ValueError("it is not what branches found")
            return cls.from_dict(stored)
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(
                f"{path} cannot be read: {reason}; write it with noisewise lr branch --out"
            ) from error

    def _batches(self) -> list[int]:
        return sorted({t.batch for t in self.trials if t.examples == self.examples})

    def _lines(self) -> Iterator[str]:
        found = self.critical
        when = "" if math.isnan(self.seen) else f", after {self.seen:,.0f} examples"
        if not found.known:
            yield f"critical batch  not known{when}"
        elif math.isinf(found.high):
            yield f"critical batch  {found.low:g} or more{when}"
        else:
            between = f"(between {found.low:g} and {found.high:g})"
            yield f"critical batch  about {found.value:.3g} {between}{when}"
        if math.isnan(self.share):
            yield f"It is the largest batch that reaches a loss of {self.target:.5g}."
        else:
            yield (
                f"It is the largest batch that gets as far with {self.examples:,} examples as "
                f"batch {self.batch0} with {100 * self.share:.0f} % of them."
            )
        if self.agrees is not None:
            word = "the two agree" if self.agrees else "the two do not agree; trust the branches"
            yield (
                f"noise scale     {self.noise_scale} examples, which predicts {self.predicted}: "
                f"{word}"
            )
        yield from (f"warning         {sentence}" for sentence in self.warnings)
        for trial in self.trials:
            loss = f"{trial.loss:.5g}" if math.isfinite(trial.loss) else "diverged"
            yield (
                f"branch          batch {trial.batch}, rate {trial.lr:.4g}, {trial.examples:,} "
                f"examples: loss {loss} ({trial.seconds:.3g} s)"
            )


def branch(
    train: TrainBranch,
    *,
    batch: int,
    lr: float,
    examples: int,
    batches: Sequence[int] = (),
    powers: Sequence[float] = (0.5, 0.0, 1.0),
    share: float = 0.8,
    tolerance: float | None = None,
    seconds: float | None = None,
    seen: float = math.nan,
    noise_scale: Estimate | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Branching:
    """Train branches from a checkpoint and return the critical batch there.

    Args:
        train: `train(batch, lr, examples)` goes on from the same checkpoint over so many examples
            and returns the held-out loss. Let the rate fall to 0 within the branch, so that the
            noise of its last steps does not decide.
        batch: the batch of the training, in examples.
        lr: its learning rate, tuned.
        examples: of each branch; a tenth of the training or more.
        batches: larger batches to try; empty: 2, 4 and 8 times the old one.
        powers: rates to try at batch B: lr (B / batch)^power. The first is tried first.
        share: of the examples; see the module. Not used with a tolerance.
        tolerance: loss that a larger batch may lose against the old one, as in the paper.
        seconds: no branch begins that would end later than this; None: no limit. The old batch and
            one larger one always run.
        seen: examples of the training before the checkpoint.
        noise_scale: from `watch` or `calibrate`, in examples, to be compared.
        clock: seconds now.

    Raises:
        ValueError: for numbers that cannot be used, or if the old batch itself diverges.

    Source: Merrill et al. 2025, arXiv 2505.23971; McCandlish et al. 2018 for the prediction.

    Example:
        >>> def train(batch, lr, examples):  # a noise scale of 100: what it needs for a loss of 1
        ...     return 1000 * (batch + 100) / examples / 150
        >>> found = branch(train, batch=50, lr=0.1, examples=1000, batches=(75, 100, 200),
        ...                noise_scale=Estimate(100.0, 90.0, 110.0))
        >>> round(found.critical.value), found.critical.low, found.critical.high
        (87, 75, 100)
        >>> round(found.predicted.value, 1), found.agrees
        (87.5, True)
    """
    tried = _checked(batch, lr, examples, batches, powers, share, tolerance, seconds)
    begun, trials = clock(), []

    def run(size: int, rate: float, count: int) -> Trial:
        start = clock()
        loss = float(train(size, rate, count))
        loss = loss if math.isfinite(loss) else math.inf
        trials.append(Trial(size, rate, count, loss, clock() - start))
        return trials[-1]

    base = run(batch, lr, examples)
    if not math.isfinite(base.loss):
        raise ValueError(
            f"The branch at the batch {batch} and the rate {lr:g} of the training itself diverges: "
            "give the rate that it is tuned to."
        )
    target = base.loss + (tolerance or 0.0)
    if tolerance is None:
        target = run(batch, lr, max(batch, round(share * examples))).loss
    wanted = [(size, lr * (size / batch) ** power) for power in powers for size in tried]
    left_out = 0
    for i, (size, rate) in enumerate(wanted):
        longest = max(t.seconds for t in trials)
        if i and seconds is not None and clock() - begun + longest > seconds:
            left_out = len(wanted) - i
            break
        run(size, rate, examples)
    warnings: list[str] = []
    critical = _critical(trials, batch, examples, target, warnings)
    warnings.extend(_doubts(trials, batch, lr, examples, target, critical))
    if left_out:
        warnings.append(
            f"{left_out} of {len(trials) + left_out} branches did not fit into {seconds:g} seconds."
        )
    return Branching(
        batch0=batch,
        lr0=lr,
        examples=examples,
        seen=seen,
        share=share if tolerance is None else math.nan,
        target=target,
        trials=tuple(trials),
        critical=critical,
        noise_scale=noise_scale or Estimate.unknown(),
        warnings=tuple(warnings),
    )


def _checked(
    batch: int,
    lr: float,
    examples: int,
    batches: Sequence[int],
    powers: Sequence[float],
    share: float,
    tolerance: float | None,
    seconds: float | None,
) -> list[int]:
    """The larger batches, in order."""
    if batch < 1:
        raise ValueError(f"batch is {batch}: give the examples of a step, 1 or more.")
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"lr is {lr}: give the learning rate of the training, above 0.")
    tried = sorted(set(batches)) if batches else [2 * batch, 4 * batch, 8 * batch]
    if tried[0] <= batch:
        raise ValueError(f"batches has {tried[0]}, but the training's is {batch}: try larger ones.")
    if examples < 4 * tried[-1]:
        raise ValueError(
            f"{examples} examples are only {examples / tried[-1]:.2g} steps of batch {tried[-1]}: "
            f"give {4 * tried[-1]} or more, or smaller batches."
        )
    if not powers or not all(math.isfinite(power) for power in powers):
        raise ValueError("powers is empty or not finite: give for example (0.5, 1.0).")
    if not 0 < share < 1:
        raise ValueError(f"share is {share}: give a share of the examples, such as 0.8.")
    if tolerance is not None and not (tolerance >= 0 and math.isfinite(tolerance)):
        raise ValueError(f"tolerance is {tolerance}: give a loss of 0 or above, such as 0.01.")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds is {seconds}: give a time above 0, or leave it out.")
    return tried


def _best(trials: Sequence[Trial], batch: int, examples: int) -> Trial | None:
    found = [t for t in trials if t.batch == batch and t.examples == examples]
    return min(found, key=lambda t: t.loss, default=None)


def _critical(
    trials: Sequence[Trial], batch0: int, examples: int, target: float, warnings: list[str]
) -> Estimate:
    """Between the largest batch that reaches the target and the next, by their losses."""
    sizes = sorted({t.batch for t in trials if t.examples == examples})
    best = [found for size in sizes if (found := _best(trials, size, examples)) is not None]
    if not best[0].loss <= target:
        warnings.append(
            f"The loss of batch {batch0} did not fall at the end of the branch, so nothing can be "
            "compared with it: give more examples or a lower rate."
        )
        return Estimate.unknown()
    good = best[0]
    for trial in best[1:]:
        if trial.loss > target:
            return Estimate(_between(good, trial, target), good.batch, trial.batch)
        good = trial
    return Estimate(good.batch, good.batch, math.inf)


def _between(good: Trial, bad: Trial, target: float) -> float:
    """Where the loss reaches the target, on a line over the logarithm of the batch."""
    along = 0.5 if math.isinf(bad.loss) else (target - good.loss) / (bad.loss - good.loss)
    return good.batch * (bad.batch / good.batch) ** along


def _doubts(
    trials: Sequence[Trial], batch0: int, lr0: float, examples: int, target: float,
    critical: Estimate,
) -> Iterator[str]:  # fmt: skip
    """What makes the answer less certain."""
    base = _best(trials, batch0, examples)
    assert base is not None
    for size in sorted({t.batch for t in trials} - {batch0}):
        best = _best(trials, size, examples)
        assert best is not None
        if critical.known and best.loss < base.loss - abs(target - base.loss):
            yield (
                f"Batch {size} gets a clearly lower loss than batch {batch0}: the rate {lr0:g} is "
                "not tuned, so the critical batch is too high; give a better one."
            )
            break
    if not math.isinf(critical.high) and critical.known:
        rates = [t.lr for t in trials if t.batch == critical.high]
        best = _best(trials, int(critical.high), examples)
        assert best is not None
        if len(rates) > 1 and best.lr == max(rates):
            yield (
                f"At batch {critical.high:g} the highest rate tried was the best: a higher one may "
                f"do better; the critical batch may be too low (try powers up to "
                f"{short(1.5 * _power(best, batch0, lr0))})."
            )


def _power(trial: Trial, batch0: int, lr0: float) -> float:
    return math.log(trial.lr / lr0) / math.log(trial.batch / batch0)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
