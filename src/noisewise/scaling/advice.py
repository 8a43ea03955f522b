"""The advice as a value: what to set, the band, the rule, the reasons, and curves to draw."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from noisewise.scaling.figure import Curve, draw
from noisewise.scaling.warning_codes import WarningCode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Advice", "Curve", "Hold"]

Hold = Literal["examples", "steps", "trajectory"]
_HELD: dict[Hold, str] = {
    "examples": "the same number of examples",
    "steps": "the same number of steps",
    "trajectory": "the same path through the weights",
}
_AS_GOOD = 1.1  # a rule within this factor of the square root says nothing that it does not
_TERMS = (
    "terms          noise scale: the batch above which a larger batch hardly saves steps "
    "(B_simple: from the noise alone; B_noise: with the curvature); edge of stability: the "
    "largest stable learning rate"
)


@dataclass(frozen=True)
class Advice:
    """What to set for the new batch, why, and how certain it is.

    Attributes:
        batch: the new batch, in examples per step.
        batch0: the batch that lr0 was tuned at.
        hold: what stays the same: "examples", "steps" or "trajectory".
        lr0: the user's learning rate at batch0.
        lr: advised learning rate, in the optimiser's own units.
        low: lower end of the band: the 95 % interval of the measurement, and wider where the rule
            itself is uncertain (see `choice`); equal to lr for hold="trajectory", which names
            its rule.
        high: upper end of the band; inf if the data give no upper bound.
        rule: name of the law that was used.
        reason: why this law was used.
        others: for each other law, its factor and why it was not used.
        rates: the advised rate of each parameter group, if there are several.
        beta1: momentum for the new batch.
        beta2: decay of the second moment for the new batch; 0 if the optimiser has none.
        epsilon: the optimiser's epsilon for the new batch.
        weight_decay: for the new batch, 0 if there is none; nan if no rule is known.
        ema: decay of an average of the weights for the new batch; nan: not asked.
        changed: what to set besides the learning rate: name, value, old value.
        measured: when in the training it was measured, in words.
        counted: what the batch was counted from, in words; "" if it was given.
        lr_one_step: best rate for one single step at the new batch; inf if not measured. Over many
            steps a third to nine times of it was best, so it is an order of magnitude, no target.
        steps: steps to the same loss, relative to batch0 (`Frontier`); nan if not known.
        examples: examples to the same loss, relative to batch0; nan if not known.
        warnings: sentences for people.
        warning_codes: the code of each warning, in the same order, for programs.
        curves: for a figure: the advice at every batch, every law, the direct measurement and the
            absolute limits.
    """

    batch: float
    batch0: float
    hold: Hold
    lr0: float
    lr: float
    low: float
    high: float
    rule: str
    reason: str
    others: dict[str, str]
    rates: tuple[float, ...]
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    ema: float
    changed: tuple[tuple[str, float, float], ...]
    measured: str
    counted: str
    lr_one_step: float
    steps: float
    examples: float
    warnings: tuple[str, ...]
    warning_codes: tuple[WarningCode, ...]
    curves: tuple[Curve, ...] = field(repr=False)

    @property
    def ratio(self) -> float:
        """Lr / lr0."""
        return self.lr / self.lr0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; numbers that are not finite become None."""
        return _jsonable({**asdict(self), "ratio": self.ratio})

    def figure(self) -> Figure:
        """Return a figure with every law, the direct measurement, the user's rate and the advice.

        Needs matplotlib, which is imported only here.

        Example:
            >>> import noisewise.scaling as scaling
            >>> one = scaling.Estimate(256.0, 200.0, 320.0)
            >>> noise = scaling.Noise(scaling.Estimate(1.0, 0.9, 1.1), one, one, 6400)
            >>> from noisewise.scaling.updates import OptimizerFacts
            >>> facts = OptimizerFacts("SGD", "sgd", 0.1)
            >>> found = scaling.Measurement(noise, one, facts, 64.0, 8.0, 1000)
            >>> scaling.advise(found, batch=256).figure().axes[0].get_ylabel()
            'learning rate'
        """
        return draw(self)

    def text(self, verbose: bool = False) -> str:
        """Return the advice as lines for people: the rate, one sentence, warnings.

        Args:
            verbose: also the reason, settings that stay, and the rules that were not used.
        """
        lines = [*self._first(), *(f"warning        {sentence}" for sentence in self.warnings)]
        return "\n".join([*lines, *self._rest()] if verbose else lines)

    def _first(self) -> list[str]:
        """The rate and its band, one sentence, and what to set besides."""
        high = f"{self.high:.4g}" if math.isfinite(self.high) else "no upper bound"
        band = f" (band {self.low:.4g} to {high})" if self.low < self.high else ""
        lines = [f"learning rate  {self.lr:.4g} at batch {self.batch:g}{band}"]
        if len(set(self.rates)) > 1:
            each = ", ".join(f"{rate:.4g}" for rate in self.rates)
            lines.append(f"groups         {each}: the rate of each parameter group")
        by = "the square root of the batch" if self.rule == "square root" else self.rule
        lines.append(
            f"That is {short(self.ratio)} times the {self.lr0:.4g} of batch {self.batch0:g}, for "
            f"{_HELD[self.hold]}, by the rule: {by}{self._root()}."
        )
        for name, value, old in self.changed:
            lines.append(f"{name:<14} {value:.6g} (now {old:.6g})")
        return lines

    def _root(self) -> str:
        """Says plainly where the square root is as good."""
        root = math.sqrt(self.batch / self.batch0)
        same = self.ratio > 0 and abs(math.log(self.ratio / root)) < math.log(_AS_GOOD)
        if self.rule == "square root" or not same or self.batch == self.batch0:
            return ""
        return f"; the square root of the batch is as good here ({short(root)} times)"

    def _rest(self) -> list[str]:
        lines = [f"rule           {self.rule}: {self.reason}", f"measured       {self.measured}"]
        if self.counted:
            lines.append(f"batch          counted as {self.counted}")
        kept = {name for name, *_ in self.changed}
        if self.beta2 > 0 and "beta2" not in kept:
            lines.append(f"beta2          {self.beta2:.6g}, unchanged")
        if self.beta2 > 0 and "epsilon" not in kept:
            lines.append(f"epsilon        {self.epsilon:.3g}, unchanged")
        if "momentum" not in kept:
            lines.append(f"momentum       {self.beta1:g}, unchanged")
        if math.isfinite(self.lr_one_step):
            lines.append(
                f"one step       {self.lr_one_step:.4g} is best for one single step; in our tests "
                "over many steps, the best rate was up to 9 times this early in training, and 1/3 "
                "to 1 times this late in training"
            )
        if not math.isnan(self.steps):
            lines.append(
                f"cost           {short(self.steps)} times the steps and {short(self.examples)} "
                "times the examples to reach the same loss"
            )
        lines += [f"not used       {name}: {why}" for name, why in self.others.items()]
        lines.append(_TERMS)
        return lines


def short(number: float) -> str:
    """A number with three digits; whole numbers from 1,000 to a million in full."""
    return f"{number:,.0f}" if 1000 <= number < 1e6 else f"{number:.3g}"


def _jsonable(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
