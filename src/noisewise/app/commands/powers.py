"""`noisewise powers`: prints which of two powers is larger, or several in order; needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from noisewise.app.command import Command
from noisewise.app.options import File, JsonOption
from noisewise.app.terminal.answer import show
from noisewise.training.settings.shown import Shown

if TYPE_CHECKING:
    from fractions import Fraction

    from noisewise.powers import ChainExplanation, Comparison, Explanation, Expression
    from noisewise.powers.explanation import Level

_MAX_FILE_BYTES = 20_000_000


@dataclass(frozen=True, kw_only=True)
class PowersOptions(JsonOption):
    """Compare powers exactly, however large: which is larger, or several in order."""

    expressions: Annotated[tuple[str, ...], Shown("POWER", positional=True)]
    """Two or more, like "10^11", "1.5^(2/3)", "e^pi", "√2 + √3", "70!", "9^^4". @FILE reads one."""
    explain: bool = False
    """Compute it, see the pattern, prove it. For several powers: prove each step of the order."""
    level: Annotated[Literal["all", "primary", "middle", "high"], Shown("LEVEL")] = "all"
    """primary: compute it. middle: see the pattern. high: prove it. Also turns on --explain."""
    plot: File = None
    """Draw a figure to this file, .svg or .png."""

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        if len(self.expressions) < 2:
            raise ValueError('there is nothing to compare; give two powers, like "10^11" "11^10"')
        if self.plot is not None and not self.plot.endswith((".svg", ".png")):
            raise ValueError(f"--plot {self.plot}: name a file that ends in .svg or .png")


_LEVELS: dict[str, tuple[Level, ...]] = {
    "primary": ("compute",),
    "middle": ("pattern",),
    "high": ("proof",),
}


def _powers(options: PowersOptions, _: Sequence[str]) -> int:
    """Compare, explain or sort, print the result, and draw it if asked.

    The exit code is 0 also where two towers stay undecided: that is an answer.
    """
    texts = [_text(word.strip()) for word in options.expressions]
    explained = options.explain or options.level != "all"
    if len(texts) > 2:
        values, shown, expressions = _ordered(texts, options, explained)
    else:
        values, shown, expressions = _compared(texts, options, explained)
    if options.plot:
        try:
            _draw(options.plot, expressions, options.level)
        except OSError as error:
            raise ValueError(f"{options.plot} cannot be written: {error.strerror}") from error
    show(values, options.json, shown.split("\n"))
    return 0


Answer = tuple[dict[str, Any], str, Sequence["Expression"]]


def _ordered(texts: Sequence[str], options: PowersOptions, explained: bool) -> Answer:
    """Three or more in order, with a proof of each step if asked."""
    from noisewise.powers import explain_order, order

    if not explained:
        chain, more, shown = order(texts), {}, ""
    else:
        found = explain_order(texts, _LEVELS.get(options.level, ("proof",)))
        chain, more, shown = found.chain, _explanations(found), str(found)
    steps = [_values(step) for step in chain.steps]
    values = {"order": [e.text for e in chain.expressions], "steps": steps, **more}
    return values, shown or str(chain), chain.expressions


def _compared(texts: Sequence[str], options: PowersOptions, explained: bool) -> Answer:
    """Two compared, with an explanation if asked."""
    from noisewise.powers import compare, explain, parse
    from noisewise.powers.explanation import LEVELS

    sides = [parse(text) for text in texts]
    if not explained:
        comparison = compare(sides[0], sides[1])
        return _values(comparison), str(comparison), _sorted(sides, comparison)
    found = explain(sides[0], sides[1], levels=_LEVELS.get(options.level, LEVELS))
    values = {**_values(found.comparison), **_steps(found)}
    return values, _without_pattern(found, options), _sorted(sides, found.comparison)


def _without_pattern(found: Explanation, options: PowersOptions) -> str:
    """The explanation as text; a sentence if there is nothing to see at the level asked for."""
    if found.steps or options.level != "middle":
        return str(found)
    return f"{found}\n\nThere is no table for this question; use --level primary or high."


def _sorted(sides: list[Expression], found: Comparison) -> list[Expression]:
    """The smaller side first, for the figure."""
    return sides[::-1] if found.sign == 1 else sides


def _draw(path: str, expressions: Sequence[Expression], level: str) -> None:
    """The figure of n^(n+m) against (n+m)^n for this level; of other powers, a bar each."""
    from noisewise.app.plots import powers as plots
    from noisewise.powers import crossing
    from noisewise.powers.bounds import tens
    from noisewise.powers.patterns import swapped

    family = swapped(*expressions) if len(expressions) == 2 else None
    if family and family.m.p <= plots.MAX_STEP * family.m.q:
        step = family.m.p / family.m.q
        near = family.n.p <= 1000 * family.n.q
        asked = family.n.p / family.n.q if near else math.inf
        if step == round(step, 4) >= 0.001:
            equal = float(crossing(12, str(round(step, 4))))
            levels = plots.PANELS if level == "all" else (level,)
            plots.draw_family(path, step, asked, equal, levels)
            return
    if any(e.value.sign <= 0 for e in expressions):
        raise ValueError("--plot draws numbers above 0 only; leave out --plot or the others")
    bars = [plots.Bar(e.text, *tens(e.value)) for e in expressions]
    plots.draw_bars(path, bars, in_digits=level == "primary")


def _text(word: str) -> str:
    """The expression itself, or what stands in the file that it names."""
    if not word.startswith("@"):
        return word
    path = Path(word[1:])
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(
                f"{path} is longer than {_MAX_FILE_BYTES} bytes; write the number as powers"
            )
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text: {error}") from error


def _values(found: Comparison) -> dict[str, Any]:
    return {
        "left": found.left,
        "right": found.right,
        "sign": found.sign,
        "relation": found.symbol,
        "reason": found.reason,
        "method": found.method,
        "bits": found.bits,
        "times": found.times,
        "ln_ratio": None if found.ln_ratio is None else [_float(end) for end in found.ln_ratio],
    }


def _float(x: Fraction) -> float | None:
    """The nearest float; null where it is out of a float's range."""
    try:
        return float(x)
    except OverflowError:
        return None


def _steps(found: Explanation) -> dict[str, Any]:
    steps = [{"level": s.level, "title": s.title, "lines": list(s.lines)} for s in found.steps]
    return {"explanation": steps}


def _explanations(found: ChainExplanation) -> dict[str, Any]:
    return {"explanations": [_steps(e)["explanation"] for e in found.explanations]}


COMMAND = Command(
    name="powers",
    usage="POWER POWER",
    summary='which is larger, exactly: "10^11" "11^10"',
    options=PowersOptions,
    action=_powers,
    examples=(
        'noisewise powers "10^11" "11^10" --explain',
        'noisewise powers "70!" "10^100" "2^333"',
        'noisewise powers "10^11" "11^10" --level middle --plot powers.png',
    ),
)
