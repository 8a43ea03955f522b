"""The numbers of generated pictures as people read them, each with what it sees and what not.

`noisewise evaluate` and the report show the same numbers in the same words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MOST = 3  # classes that are named with one verdict
_NEARLY = 1.05


@dataclass(frozen=True)
class Number:
    """One number.

    Attributes:
        name: of one or two words.
        value: with interval or the value of real pictures.
        sees: one or two short sentences: what it sees, and what it does not.
        note: a sentence about this value; "" for none.
    """

    name: str
    value: str
    sees: str
    note: str = ""


def numbers(found: Mapping[str, Any]) -> tuple[Number, ...]:
    """The numbers that were measured, the deciding one first.

    Args:
        found: of `Evaluation.to_dict`; or of `Look.to_dict`, with "copies" if they were tested.
    """
    return (*_looks(found), *_copying(found.get("copies")), *_papers(found))


def percent(share: float) -> str:
    """A share from 0 to 1; small ones with a decimal.

    Example:
        >>> percent(0.762), percent(0.004), percent(0.0)
        ('76%', '0.4%', '0.0%')
    """
    return f"{100 * share:.1f}%" if share < 0.095 else f"{100 * share:.0f}%"


def floors_text(floors: Mapping[str, Any]) -> str:
    """The floors for 500 pictures on each side, which the verdict reads, with their interval.

    Example:
        >>> floors_text({"value": 3.14, "low": 2.8, "high": 3.52})
        '3.1 (2.8 to 3.5)'
    """
    low, high = (figure(floors[end]) for end in ("low", "high"))
    return f"{figure(floors['value'])} ({low} to {high})"


def figure(value: float) -> str:
    """Two digits, or whole numbers above 100; never below 0.

    Example:
        >>> figure(3.14), figure(0.04), figure(-0.2), figure(12.3), figure(1417.0)
        ('3.1', '0.0', '0.0', '12', '1,417')
    """
    value = max(value, 0.0)
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def milliseconds(seconds: float) -> str:
    """A short time: in seconds from one second on.

    Example:
        >>> milliseconds(0.0123), milliseconds(1.118), milliseconds(75.0)
        ('12.3 ms', '1.12 s', '75 s')
    """
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def in_milliseconds(seconds: float) -> str:
    """The same in milliseconds, however long: times beside each other have one unit.

    Example:
        >>> in_milliseconds(0.0123), in_milliseconds(1.118)
        ('12.3 ms', '1,118 ms')
    """
    value = 1000 * seconds
    return f"{value:,.0f} ms" if value >= 999.5 else f"{value:.3g} ms"


def share_verdicts(shares: Sequence[Mapping[str, Any]]) -> str:
    """The classes that are not drawn as often as in the data, in words.

    Example:
        >>> one = {"name": "coat", "share": 0.01, "real": 0.1, "verdict": "missing"}
        >>> share_verdicts([one])
        'missing: coat 1.0% (real 10%)'
        >>> share_verdicts([{**one, "verdict": "as real"}])
        'as in the data'
    """
    parts = []
    for verdict in ("missing", "too rare", "too frequent"):
        here = [one for one in shares if one["verdict"] == verdict]
        here.sort(key=lambda one: -abs(one["share"] - one["real"]))
        if here:
            named = [
                f"{one['name']} {percent(one['share'])} (real {percent(one['real'])})"
                for one in here[:_MOST]
            ]
            more = f" and {len(here) - _MOST} more" if len(here) > _MOST else ""
            parts.append(f"{verdict}: {', '.join(named)}{more}")
    return "; ".join(parts) or "as in the data"


def _looks(found: Mapping[str, Any]) -> Iterator[Number]:
    """What was measured against real pictures."""
    floors, told = found["floors"], found["told_apart"]
    yield Number(
        "floors",
        floors_text(floors),
        "How far from real pictures; 500 real ones are 1 from 500 others. Training decides by this "
        "number. It does not see copies.",
        _about_standard(floors),
    )
    if told is not None:
        yield Number(
            "told apart",
            f"{percent(told['share'])} ({percent(told['low'])} to {percent(told['high'])})",
            "A classifier looks for any difference; 50% is a guess. It does not see grain fainter "
            "than the little noise that both sets get.",
        )
    if found["precision"] is not None:
        yield Number(
            "precision",
            percent(found["precision"]),
            "Generated pictures as near to some real one as real ones are to each other. It does "
            "not see noise or wrong shapes: a high value alone is no praise.",
            _about_overlap(found),
        )
        yield Number(
            "recall",
            percent(found["recall"]),
            "Real pictures that lie among generated ones: is everything drawn? Torn or stained "
            "pictures raise it.",
            _about_overlap(found),
        )
    if found["spectrum_db"] is not None:
        yield Number(
            "spectrum",
            f"{found['spectrum_db']:.1f} dB off",
            "How much coarse and fine detail there is: sees blur and noise, but no shapes.",
        )
    if found["flat_area"] is not None:
        flat = found["flat_area"]
        yield Number(
            "flat area",
            f"{percent(flat['generated'])} (real {percent(flat['real'])})",
            "Pixels in areas of one exact value. It does not see what is drawn on them.",
        )
    if found.get("even_area") is not None:
        even = found["even_area"]
        yield Number(
            "even area",
            f"{percent(even['generated'])} (real {percent(even['real'])})",
            "Pixels in areas that look even: sees faint speckle and stains on a ground, which the "
            "other numbers hardly do.",
        )
    if found["class_shares"] is not None:
        yield Number(
            "class shares",
            share_verdicts(found["class_shares"]),
            "How often each class is drawn, whether well or badly. Classes are guessed from the "
            "picture.",
            _about_shares(found),
        )


def _about_overlap(found: Mapping[str, Any]) -> str:
    """That precision and recall mean little beside a large distance; confetti has reached 98%."""
    if found.get("verdict") not in ("poor", "visibly different"):
        return ""
    return f"It means little here: the pictures are {found['verdict']} all the same."


def _about_shares(found: Mapping[str, Any]) -> str:
    """That a class can hardly be guessed where nothing can be named."""
    if found.get("verdict") != "poor":
        return ""
    return "In poor pictures that is a rough guess."


def _about_standard(floors: Mapping[str, Any]) -> str:
    """What chance alone may reach, if there are fewer pictures than the verdict reads."""
    chance = floors.get("chance", 1.0)
    if chance < _NEARLY:
        return ""
    return f"With so few pictures here, real ones alone may reach {figure(chance)}."


def _copying(copies: Mapping[str, Any] | None) -> Iterator[Number]:
    """Both copy tests."""
    if copies is None:
        yield Number("copies", "not tested", "The training pictures are missing.")
        return
    yield Number(
        "copies",
        f"{percent(copies['fraction'])} ({percent(copies['low'])} to {percent(copies['high'])})",
        "Training pictures drawn again. A low share is no praise: noise has none.",
    )
    if (near := copies.get("near")) is not None:
        value = f"{percent(near['fraction'])} ({percent(near['low'])} to {percent(near['high'])})"
        yield Number("near copies", value if near["power"] else "cannot tell", about_near(near))


def about_near(near: Mapping[str, Any]) -> str:
    """What the test for near copies can tell."""
    if not near["power"]:
        return "Training pictures with small changes: here only exact copies can be told."
    text = (
        "Training pictures with small changes; "
        f"{percent(near['allowed'])} of new real pictures look so too."
    )
    if near["can_tell"]:
        return f"{text} It finds {percent(near['power'])} of planted ones."
    return (
        f"{text} It finds only {percent(near['power'])} of planted ones: a low number does not "
        "show that there are none."
    )


def _papers(found: Mapping[str, Any]) -> Iterator[Number]:
    """FID and KID, if their weights were given."""
    if found.get("fid") is not None:
        yield Number(
            "FID",
            f"{found['fid']:.2f}",
            "For comparing with papers. It depends on the number of pictures, and was made for "
            "photographs.",
        )
        yield Number("KID", f"{1000 * found['kid']:.2f} / 1000", "For comparing with papers.")
