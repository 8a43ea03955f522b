"""`noisewise powers`: prints which of two powers is larger, or several in order."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from noisewise.app.commands.powers_options import PowersOptions
from noisewise.powers import Comparison, Explanation, compare, explain, order

_MAX_FILE_BYTES = 20_000_000


def carry_out_powers(options: PowersOptions) -> int:
    """Compare, explain or sort, and print the result.

    Returns:
        The exit code: 0, also where two towers stay undecided, which is an answer.

    Raises:
        ValueError: one sentence about what the user can mend.
    """
    texts = [_text(word.strip()) for word in options.expressions]
    if len(texts) > 2:
        chain = order(texts)
        steps = [_values(step) for step in chain.steps]
        values: dict[str, Any] = {"order": [e.text for e in chain.expressions], "steps": steps}
        _show(values, str(chain), options.json)
    elif options.explain:
        found = explain(texts[0], texts[1])
        _show({**_values(found.comparison), **_steps(found)}, str(found), options.json)
    else:
        comparison = compare(texts[0], texts[1])
        _show(_values(comparison), str(comparison), options.json)
    return 0


def _text(word: str) -> str:
    """The expression itself, or what stands in the file that it names."""
    if not word.startswith("@"):
        return word
    path = Path(word[1:])
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"{path} is longer than {_MAX_FILE_BYTES} bytes; write it as powers")
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


def _show(values: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(values) if as_json else text)
