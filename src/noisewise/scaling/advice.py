"""The answer as a value: what to set, the band, the rule, the reasons, and lines for a picture."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from noisewise.scaling.figure import Curve, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Advice", "Curve", "Hold"]

Hold = Literal["examples", "steps", "trajectory"]


@dataclass(frozen=True)
class Advice:
    """What to set for the new batch, why, and how sure.

    Attributes:
        batch: the new batch.
        batch0: the batch that lr0 was tuned at.
        hold: what is held fixed.
        lr0: the user's learning rate at batch0.
        lr: advised learning rate, in the optimiser's own units.
        low: lower end of the band: the 95 % interval of what was measured, and further where the
            rule itself is in doubt (`choice`); lr itself where a rule is asked for by name
            ("trajectory").
        high: upper end; inf where the data set none.
        rule: name of the law that decided.
        reason: why it did.
        others: each other law's factor and why it did not decide.
        beta1: momentum, unchanged.
        beta2: decay of the second moment for the new batch; 0 where there is none.
        epsilon: of the optimiser for the new batch.
        lr_one_step: best for one single step at the new batch; inf where not measured. Over many
            steps a third to nine times of it was best: an order of magnitude, no target.
        steps: how many times the steps to the same loss, by the frontier; nan if not known.
        examples: how many times the examples to the same loss; nan if not known.
        warnings: sentences.
        curves: the advice at every batch, every law, the direct measurement and the bound, for a
            picture.
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
    beta1: float
    beta2: float
    epsilon: float
    lr_one_step: float
    steps: float
    examples: float
    warnings: tuple[str, ...]
    curves: tuple[Curve, ...] = field(repr=False)

    @property
    def ratio(self) -> float:
        """Lr / lr0."""
        return self.lr / self.lr0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; what is not finite becomes None."""
        return _jsonable({**asdict(self), "ratio": self.ratio})

    def figure(self) -> Figure:
        """Return a picture: every law, the direct measurement, the user's point and the advice.

        Needs matplotlib, which is imported here and nowhere before.

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

    def text(self) -> str:
        """Return the advice as lines for people."""
        high = f"{self.high:.3g}" if math.isfinite(self.high) else "no upper bound"
        band = f" (band {self.low:.3g} to {high})" if self.low < self.high else ""
        lines = [
            f"learning rate  {self.lr:.4g}{band} at batch {self.batch:g}",
            f"that is        {self.ratio:.3g} times {self.lr0:.4g} at batch {self.batch0:g}, "
            f"holding {self.hold} fixed",
            f"rule           {self.rule}: {self.reason}",
        ]
        if self.beta2 > 0:
            lines.append(f"beta2          {self.beta2:.6g}")
            lines.append(f"epsilon        {self.epsilon:.3g}")
        lines.append(f"momentum       {self.beta1:g}, unchanged")
        if math.isfinite(self.lr_one_step):
            lines.append(
                f"one step       {self.lr_one_step:.4g} is best for one single step; over many "
                "steps up to nine times as much was best early in training, a third to once late"
            )
        if not math.isnan(self.steps):
            lines.append(
                f"price          {self.steps:.3g} times the steps, {self.examples:.3g} times the "
                "examples to the same loss"
            )
        lines += [f"not {name}: {why}" for name, why in self.others.items()]
        lines += [f"warning: {sentence}" for sentence in self.warnings]
        return "\n".join(lines)


def _jsonable(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
