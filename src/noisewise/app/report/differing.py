"""The section "How they differ": every number of every way, detail, classes, the worst pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noisewise.app.html_text import escape
from noisewise.app.numbers import Number, numbers, percent
from noisewise.app.report import charts
from noisewise.app.report.facts import Facts, Way, Worst
from noisewise.app.report.pieces import (
    block_columns,
    how_many,
    pairs,
    section,
    sideways,
    upper,
)

_MOST = 12  # pictures that look least real, and classes
_CLEAR = 1.0  # log odds from which a place is marked
_EVERYWHERE = 0.7  # of all places
_RED = np.array([225.0, 40.0, 30.0])
_LEAST_SIDE = 84  # pixels of a picture with marks


def differences(facts: Facts, share: float) -> str:
    """All numbers side by side, each with what it sees; "" if nothing was measured.

    Args:
        facts: of a run.
        share: of the pictures that fit a page.
    """
    ways = [way for way in facts.ways if way.found is not None]
    if not ways:
        return ""
    text = (
        "No number sees everything: each line says what it sees and what it does not. The verdict "
        "is the worst of floors, told apart and even areas. Measured on "
        f"{ways[0].num_images or 0:,} pictures of each way against {escape(facts.against)}."
    )
    body = _side_by_side(ways) + _classes(ways) + _worst(ways, share) + charts.spectrum_plot(ways)
    return section("How they differ", text, body)


def _side_by_side(ways: Sequence[Way]) -> str:
    """One row a number, one column a way."""
    columns = [(way, _by_name(way.found or {})) for way in ways]
    head = "".join(f'<th scope="col">{escape(upper(way.name))}</th>' for way in ways)
    verdicts = "".join(f"<td class=value><b>{word(way.verdict)}</b></td>" for way in ways)
    rows = [f"<tr><td><b>verdict</b></td>{verdicts}</tr>"]
    for name, first in columns[0][1].items():
        notes = {found[name].note for _, found in columns if name in found}
        shared = notes.pop() if len(notes) == 1 else ""
        cells = "".join(_value(found.get(name), not shared) for _, found in columns)
        said = f'<span class="soft small">{escape(f"{first.sees} {shared}".strip())}</span>'
        rows.append(f"<tr><td><b>{escape(name)}</b><br>{said}</td>{cells}</tr>")
    top = f"<tr><td></td>{head}</tr>"
    width = f'style="--ways: {len(ways)}"'
    return sideways(f'<table class="numbers" {width}>{top}{"".join(rows)}</table>')


def _value(number: Number | None, noted: bool) -> str:
    """A cell with a value and, if `noted`, the sentence about it."""
    if number is None:
        return "<td class=value>-</td>"
    note = (
        f'<br><span class="soft small">{escape(number.note)}</span>'
        if noted and number.note
        else ""
    )
    return f"<td class=value>{escape(number.value)}{note}</td>"


def word(verdict: str) -> str:
    """A verdict in its colour."""
    return f'<span class="v-{verdict.replace(" ", "-")}">{escape(verdict)}</span>'


def _by_name(found: Mapping[str, Any]) -> dict[str, Number]:
    """The numbers by name; classes have their own table."""
    return {number.name: number for number in numbers(found) if number.name != "class shares"}


def _classes(ways: Sequence[Way]) -> str:
    """The classes that some way draws too rarely or too often, with bars."""
    shares = [(way, (way.found or {})["class_shares"]) for way in ways]
    shares = [(way, found) for way, found in shares if found]
    if not shares:
        return ""
    head = "<h3>How often each class is drawn</h3>"
    first = shares[0][1]
    odd = [
        i for i in range(len(first)) if any(found[i]["verdict"] != "as real" for _, found in shares)
    ]
    if not odd:
        return f"{head}<p>All {len(first)} as often as in the data, within chance.</p>"
    odd.sort(key=lambda i: -max(abs(f[i]["share"] - f[i]["real"]) for _, f in shares))
    shown, largest = (
        odd[:_MOST],
        max(max(f[i]["share"], f[i]["real"]) for _, f in shares for i in odd),
    )
    names = "".join(f'<th scope="col">{escape(upper(way.name))}</th>' for way, _ in shares)
    rows = []
    for i in shown:
        cells = "".join(_bar(f[i]["share"], largest, f[i]["verdict"]) for _, f in shares)
        real = _bar(first[i]["real"], largest, "as real")
        rows.append(f"<tr><td>{escape(first[i]['name'])}</td>{real}{cells}</tr>")
    rest = len(first) - len(shown)
    more = f" {len(odd) - len(shown)} more differ." if len(odd) > len(shown) else ""
    note = f"The other {rest} are as in the data, within chance." if not more else more
    missing = [
        f"{f[i]['name']} ({way.name})" for way, f in shares for i in odd
        if f[i]["verdict"] == "missing"
    ]  # fmt: skip
    lost = f"<p><b>Missing: {escape(', '.join(missing[:_MOST]))}.</b></p>" if missing else ""
    top = f'<tr><td></td><th scope="col">Real</th>{names}</tr>'
    shown_table = f"<table>{top}{''.join(rows)}</table>"
    return (
        f"{head}{lost}{sideways(shown_table)}"
        f'<p class="soft small">{note if rest else ""} A classifier '
        "names each picture; its known errors are corrected. It errs more on poor pictures.</p>"
    )


def _bar(share: float, largest: float, verdict: str) -> str:
    """A cell with a bar, the share and, if it is not as real, the word."""
    width = 100 * share / max(largest, 1e-9)
    said = "" if verdict == "as real" else f' <span class="v-poor">{escape(verdict)}</span>'
    return (
        f'<td><span class="bar"><i style="width:{width:.0f}%"></i></span>'
        f'<span class="small">{percent(share)}{said}</span></td>'
    )


def _worst(ways: Sequence[Way], share: float) -> str:
    """The pictures of the first way that look least real, with the places that give them away."""
    way, worst = ways[0], ways[0].worst
    if worst is None:
        return ""
    count = max(4, how_many(worst.pictures, _MOST, share))
    made = worst.pictures[:count]
    marked, places = marks(Worst(made, None if worst.evidence is None else worst.evidence[:count]))
    told = (way.found or {})["told_apart"]
    text = (
        "The classifier that tells generated pictures from real ones finds these the least real. "
        "Below, the places that it points at are red, the stronger the surer: there, the odds are "
        "more than 2.7 to 1 that the place is generated."
    )
    if worst.evidence is None:
        text = "The classifier that tells generated pictures from real ones finds these the least "
        text += "real. They are too small to say where."
    elif not places:
        text += " It points at no place in these."
    elif places > _EVERYWHERE * worst.evidence[:count].size:
        text += " It points nearly everywhere: what gives them away is all over the picture."
    if told is not None and told["low"] <= 0.5:
        text += " It does not tell them better than by guessing, so these may be as good as others."
    alt = "above: the pictures that look least real; below: the places that look generated"
    captions = ["Above: generated. Below: with the places that look generated."] * len(
        range(0, len(made), block_columns(len(made)))
    )
    return (
        f"<h3>The pictures that look least real ({escape(way.name)})</h3>"
        f'<p class="soft">{escape(text)}</p>{pairs(*marked, alt, captions)}'
    )


def marks(worst: Worst) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """The pictures in colour, the same with marked places, and the number of these.

    Only places with log odds above 1 are marked: below that, evidence is noise.

    Args:
        worst: the pictures and the evidence.
    """
    made = worst.pictures
    scale = max(1, _LEAST_SIDE // made.shape[1])
    made = made.repeat(scale, 1).repeat(scale, 2)
    if made.shape[3] == 1:
        made = made.repeat(3, 3)
    if worst.evidence is None:
        return (made, made), 0
    height, width = made.shape[1:3]
    rows, columns = (np.arange(side) * worst.evidence.shape[1] // side for side in (height, width))
    evidence = worst.evidence[:, rows][:, :, columns]
    most = max(float(evidence.max()), _CLEAR + 1)
    strength = 0.15 + 0.5 * (evidence - _CLEAR) / (most - _CLEAR)
    strength = np.where(evidence > _CLEAR, strength, 0)[..., None]
    shown = made.astype(np.float64)
    shown[..., :3] = (1 - strength) * shown[..., :3] + strength * _RED
    if shown.shape[3] == 4:  # a mark shows on what is transparent too
        shown[..., 3:] = np.maximum(shown[..., 3:], 255 * strength)
    return (made, shown.round().astype(np.uint8)), int((worst.evidence > _CLEAR).sum())
