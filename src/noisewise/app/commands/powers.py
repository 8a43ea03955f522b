"""`noisewise powers`: prints which of two powers is larger, or several in order; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from noisewise.app.command import Command
from noisewise.app.options import JsonOption
from noisewise.app.terminal.answer import show
from noisewise.training.settings.shown import Shown

if TYPE_CHECKING:
    from fractions import Fraction

    from noisewise.powers import Comparison, Explanation

_MAX_FILE_BYTES = 20_000_000


@dataclass(frozen=True, kw_only=True)
class PowersOptions(JsonOption):
    """Compare powers exactly, however large: which is larger, or several in order."""

    expressions: Annotated[tuple[str, ...], Shown("POWER", positional=True)]
    """Two or more, like "10^11", "1.5^(2/3)", "2^10 * 3^5", "10^10^100", "70!". @FILE reads one."""
    explain: bool = False
    """Compute it, see the pattern, prove it. For two powers."""

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        if len(self.expressions) < 2:
            raise ValueError('there is nothing to compare; give two powers, like "10^11" "11^10"')
        if self.explain and len(self.expressions) > 2:
            raise ValueError("--explain is for two powers; leave it out, or give two")


def _powers(options: PowersOptions, _: Sequence[str]) -> int:
    """Compare, explain or sort, and print the result.

    The exit code is 0 also where two towers stay undecided: that is an answer.
    """
    from noisewise.powers import compare, explain, order

    texts = [_text(word.strip()) for word in options.expressions]
    if len(texts) > 2:
        chain = order(texts)
        steps = [_values(step) for step in chain.steps]
        values: dict[str, Any] = {"order": [e.text for e in chain.expressions], "steps": steps}
        show(values, options.json, str(chain).split("\n"))
    elif options.explain:
        found = explain(texts[0], texts[1])
        values = {**_values(found.comparison), **_steps(found)}
        show(values, options.json, str(found).split("\n"))
    else:
        comparison = compare(texts[0], texts[1])
        show(_values(comparison), options.json, str(comparison).split("\n"))
    return 0


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


COMMAND = Command(
    name="powers",
    usage="POWER POWER",
    summary='which is larger, exactly: "10^11" "11^10"',
    options=PowersOptions,
    action=_powers,
    examples=(
        'noisewise powers "10^11" "11^10" --explain',
        'noisewise powers "70!" "10^100" "2^333"',
    ),
)
