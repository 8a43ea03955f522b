"""The section about copies: exact ones, and training pictures with small changes."""

from __future__ import annotations

from collections.abc import Sequence

from noisewise.app.html_text import escape
from noisewise.app.numbers import percent
from noisewise.app.report import charts
from noisewise.app.report.facts import Copies, Facts, NearCopies, Way
from noisewise.app.report.pieces import (
    block_columns,
    how_many,
    missing,
    pairs,
    section,
    table,
    upper,
)

_MOST = 12  # pairs


def copy_section(facts: Facts, share: float) -> str:
    """Both copy tests in numbers, the closest pairs, and what the tests cannot tell.

    Args:
        facts: the numbers of all ways; the pairs of the first one.
        share: of the pictures that fit a page.
    """
    title = "Does it copy training pictures?"
    tested = [(way, way.copies) for way in facts.ways if way.copies is not None]
    if not tested:
        if not (facts.ways and facts.missing):
            return ""
        return section(title, "", missing(f"Copies cannot be looked for: {facts.missing}."))
    way, copies = tested[0]
    text = (
        "A picture is a copy if a training picture was drawn again, and a near copy if it was "
        "changed a little. Few copies are no praise: noise has none."
    )
    body = _shares(tested)
    if way.near_copies is not None:
        body += _near(way.name, way.near_copies, share)
    body += (
        f"<h3>Nearest to exact copies ({escape(way.name)})</h3>"
        '<p class="soft">A picture counts as a copy if its distance to the nearest training '
        f"picture is below {copies.threshold:.2g} times its distance to the second nearest.</p>"
        f"{_exact_pairs(copies, share)}{charts.nearest_plot(way.name, copies)}"
    )
    return section(title, text, body)


def _shares(tested: Sequence[tuple[Way, Copies]]) -> str:
    """One row for each way, and one for held-out pictures."""
    rows = []
    for way, copies in tested:
        near = _near_of(way)
        rows.append(
            (
                upper(way.name),
                f"{percent(copies.fraction)} ({_range(copies.low, copies.high)})",
                "not tested"
                if near is None
                else f"{percent(near['fraction'])} ({_range(near['low'], near['high'])})",
                "" if near is None else percent(near["power"]),
                f"{copies.num_images:,}",
            )
        )
    way, copies = tested[0]
    if copies.held_out_fraction is not None:
        near = _near_of(way)
        rows.append(
            (
                "Real pictures, by chance",
                percent(copies.held_out_fraction),
                "" if near is None else percent(near["allowed"]),
                "",
                f"{len(copies.held_out_distances):,}",
            )
        )
    head = ("", "copies (95%)", "near copies (95%)", "planted ones found", "pictures")
    return table(rows, head)


def _near_of(way: Way) -> dict[str, float] | None:
    copies = None if way.found is None else way.found["copies"]
    return None if copies is None else copies.get("near")


def _range(low: float, high: float) -> str:
    return f"{percent(low)} to {percent(high)}"


def _near(name: str, near: NearCopies, share: float) -> str:
    """What the test for near copies says, and the pairs that are most alike."""
    count = max(4, how_many(near.pictures, _MOST, share))
    above, below, copied = near.pictures[:count], near.matched[:count], near.copied[:count]
    columns = block_columns(len(above))
    captions = []
    for start in range(0, len(above), columns):
        part = copied[start : start + columns]
        marked = [str(i + 1) for i, one in enumerate(part) if one]
        counted = f"Counted as near copies: {', '.join(marked)}." if marked else "None is counted."
        if len(marked) == len(part):
            counted = "All are counted as near copies."
        captions.append(f"Above: generated. Below: the training picture it is like. {counted}")
    alt = "above: generated pictures; below: the training picture that each is matched with"
    mark = "soft" if near.can_tell else "missing"
    return (
        f'<h3>Most like near copies ({escape(name)})</h3><p class="{mark}">{escape(near.says)} To '
        "measure this, training pictures were changed a little and the test had to find them."
        f"</p>{pairs(above, below, alt, captions)}"
    )


def _exact_pairs(copies: Copies, share: float) -> str:
    count = max(4, how_many(copies.pictures, _MOST, share))
    above, below = copies.pictures[:count], copies.nearest[:count]
    columns = block_columns(len(above))
    captions = []
    for start in range(0, len(above), columns):
        figures = ", ".join(f"{d:.3f}" for d in copies.shown_distances[start : start + columns])
        captions.append(
            f"Above: generated. Below: the nearest training picture. Distances: {figures}."
        )
    alt = "above: generated pictures; below: the nearest training picture of each"
    return pairs(above, below, alt, captions)
