"""The report as one HTML page: facts in, a string out.

The page needs no other file and no network: pictures are data addresses, curves are inline SVG.
It can be written at every stage of a run, and says what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from noisewise.app.html_text import escape
from noisewise.app.numbers import floors_text, in_milliseconds, percent
from noisewise.app.plots import svg
from noisewise.app.report import charts
from noisewise.app.report.by_class import class_section
from noisewise.app.report.copying import copy_section
from noisewise.app.report.differing import differences, word
from noisewise.app.report.facts import Event, Facts, Frame, Way
from noisewise.app.report.pieces import (
    code_block,
    contents_list,
    how_many,
    image,
    missing,
    section,
    table,
    upper,
)
from noisewise.app.terminal.duration import duration
from noisewise.pictures.alpha import colours
from noisewise.quality.verdict import MEANINGS
from noisewise.sizes import sides
from noisewise.training.files.sample_sheet import open_sheet

_MAX_BYTES = 2_000_000
_FILM_BYTES = 700_000  # of all sheets drawn during training


def render(facts: Facts) -> str:
    """Write the whole page; it shows fewer pictures if it would be larger than two megabytes.

    Args:
        facts: what the page shows.

    Returns:
        A complete HTML document.
    """
    page = ""
    for share in (1.0, 0.5, 0.25, 0.1):
        page = _document(facts, share)
        if len(page.encode()) < _MAX_BYTES:
            break
    return page


def _document(facts: Facts, share: float) -> str:
    assets = files("noisewise.app.report")
    style = assets.joinpath("report.css").read_text(encoding="utf-8")
    script = assets.joinpath("report.js").read_text(encoding="utf-8")
    sections = [
        part
        for part in (
            _pictures(facts, share),
            _same_noise(facts, share),
            class_section(facts, share),
            differences(facts, share),
            _film(facts.frames, sides(facts.size), share),
            copy_section(facts, share),
            _learning(facts),
            _data(facts),
            _decisions(facts),
            _machine(facts),
            _commands(facts),
        )
        if part
    ]
    first = [_failures(facts), _headline(facts), _tiles(facts), contents_list(sections)]
    body = "\n".join(part for part in (*first, *sections) if part)
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>noisewise: {escape(facts.name)}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>{style}</style></head><body>\n<main>\n{body}\n</main>\n"
        f"<footer class='soft small'>Written {escape(facts.written)}.</footer>\n"
        f"<script>{script}</script></body></html>\n"
    )


def _failures(facts: Facts) -> str:
    bad = [event for event in facts.events if event.bad]
    if not bad:
        return ""
    title = "Look at this first"  # no heading: the first one of a page is its name
    return f'<div class="events" role="note" aria-label="{title}"><p>{title}</p>{_list(bad)}</div>'


def _list(events: Sequence[Event], style: str = "") -> str:
    items = "".join(
        f"<li><b>{escape(upper(e.about))}</b>{_after(e)}: {escape(e.text)}</li>" for e in events
    )
    return f'<ul class="{style}">{items}</ul>'


def _after(event: Event) -> str:
    return "" if event.seconds is None else f", after {duration(event.seconds)}"


def _headline(facts: Facts) -> str:
    colour = colours(facts.channels)
    what = "A run without a finished model yet, for"
    if facts.has_teacher:
        what = "A diffusion model of"
    if facts.has_generator:
        calls = max((w.network_calls for w in facts.ways if w.kind == "few_calls"), default=0)
        what = f"A {calls}-call generator of" if calls else "A one-call generator of"
    height, width = sides(facts.size)
    text = (
        f"{what} {width}&#215;{height} {colour} pictures, trained on "
        f"{facts.num_pictures:,} of them ({escape(facts.source)})"
    )
    total = sum(facts.stage_seconds.values())
    stages = ", ".join(f"{name} {duration(s)}" for name, s in facts.stage_seconds.items())
    text += f" in {duration(total)} ({escape(stages)})." if total > 0 else "."
    if facts.license:
        text += f" Licence: {escape(facts.license)}."
    told = f"<p>{escape(facts.note)}</p>" if facts.note else ""
    return f"<h1>{escape(facts.name)}</h1><p>{text}</p>{told}"


def _tiles(facts: Facts) -> str:
    """The verdict of each way in one large word, and the copies."""
    tiles = [_way_tile(way) for way in facts.ways]
    tested = [way for way in facts.ways if way.copies is not None]
    if tested and tested[0].copies is not None:
        lines = [f"of the pictures ({tested[0].name}) are training pictures drawn again"]
        near = ((tested[0].found or {}).get("copies") or {}).get("near")
        if near is not None:
            lines.append(
                f"{percent(near['fraction'])} are near copies"
                if near["can_tell"]
                else "near copies: this test cannot tell here"
            )
        lines.append("a low share is no praise: noise has none")
        tiles.append(_tile("Copies", escape(percent(tested[0].copies.fraction)), lines))
    if not tiles:
        return ""
    return f'<div class="tiles">{"".join(tiles)}</div>{_about_floors(facts)}'


def _tile(name: str, value: str, lines: Sequence[str]) -> str:
    """A tile; `value` is HTML."""
    below = "".join(f"<span>{escape(line)}</span>" for line in lines)
    return f'<div class="tile"><p class="name">{escape(name)}</p><b>{value}</b>{below}</div>'


def _about_floors(facts: Facts) -> str:
    """What the large words mean; nothing where nothing was measured."""
    if facts.floor is None:
        return ""
    return (
        '<p class="soft small">Floors say how far generated pictures are from real ones, here from '
        f"{escape(facts.against)}: 1 is as far as real pictures are from each other, and lower is "
        "better. Told apart says how often a classifier finds out which pictures are generated; "
        f"50% is a guess. The verdicts: {escape(_verdicts())}.</p>"
    )


def _verdicts() -> str:
    """The words with their meanings."""
    return ", ".join(f"{name} ({meaning})" for name, meaning in MEANINGS.items())


def _way_tile(way: Way) -> str:
    name = upper(way.name)
    if way.found is None:
        return _tile(name, _ms(way), ("per picture", "not measured against real pictures"))
    lines = [f"{floors_text(way.found['floors'])} floors"]
    if way.found["told_apart"] is not None:
        lines.append(f"told apart in {percent(way.found['told_apart']['share'])}")
    if way.verdict == "cannot tell":
        lines = [way.found["verdict_reason"]]
    return _tile(name, word(way.verdict), (*lines, f"{_ms(way)} per picture"))


def _calls(way: Way) -> str:
    return "1 network call" if way.network_calls == 1 else f"{way.network_calls} network calls"


def _ms(way: Way) -> str:
    if way.seconds_per_image is None:
        return "not timed"
    return in_milliseconds(way.seconds_per_image)


def _pictures(facts: Facts, share: float) -> str:
    figures = []
    if facts.real is not None:
        text = "Held-out pictures: no model was trained on them."
        if facts.against:
            text += f" The numbers are against {facts.against}."
        figures.append(_sheet(facts.real, "Real", "real held-out pictures", text, share))
    for way in facts.ways:
        about = f"generated pictures, {way.name}"
        if way.verdict:
            about += f"; compared with real ones: {way.verdict}"
        figures.append(_sheet(way.pictures, upper(way.name), about, _caption(way), share))
    lost = "" if facts.ways else missing("No model has been saved yet.")
    if facts.missing:
        lost += missing(f"Real pictures cannot be shown: {facts.missing}.")
    if not figures:
        return section("Pictures", "", lost)
    return section(
        "Pictures",
        "Real pictures and generated ones. The generated ones are the first of their seed; they "
        "were not selected.",
        lost + f'<div class="sheets">{"".join(figures)}</div>',
    )


def _caption(way: Way) -> str:
    parts = [_calls(way)]
    if way.seconds_per_image is not None:
        parts.append(f"{_ms(way)} per picture")
    if way.found is not None:
        parts.append(f"{floors_text(way.found['floors'])} floors: {way.verdict}")
    return upper(", ".join(parts)) + "."


def _sheet(pictures: np.ndarray, title: str, about: str, caption: str, share: float) -> str:
    """A sheet with its caption; `about` is for those who do not see it."""
    columns = max(1, int(how_many(pictures, 64, share) ** 0.5))
    shown = pictures[: columns * columns]
    drawn = image(shown, min(columns, len(shown)), f"{len(shown)} {about}")
    return (
        f"<figure><h3>{escape(title)}</h3>{drawn}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _same_noise(facts: Facts, share: float) -> str:
    if len(facts.ways) < 2:
        return ""
    rows = []
    slowest = max((w.seconds_per_image or 0.0 for w in facts.ways), default=0.0)
    for way in facts.ways:
        shown = way.pictures[: max(4, int(8 * share))]
        speed = ""
        if way.seconds_per_image and slowest / way.seconds_per_image > 1.05:
            times = f"{slowest / way.seconds_per_image:.2g} times as fast"
            speed = f"<br><span class='soft'>{times}</span>"
        alt = (
            f"{len(shown)} generated pictures from the same noise as in the other rows: {way.name}"
        )
        rows.append(
            f'<div class="row"><div class="small"><b>{escape(upper(way.name))}</b><br>'
            f"{_ms(way)} per picture{speed}</div>{image(shown, len(shown), alt)}</div>"
        )
    return section(
        "The same noise in few calls and in many",
        "The pictures of one column start from the same noise. Times are per picture, drawn in "
        "batches of 16, on the machine that wrote this page; the ways took turns, so that all had "
        "the same load.",
        f'<div class="rows">{"".join(rows)}</div>',
    )


def _film(frames: Sequence[Frame], shape: tuple[int, int], share: float) -> str:
    if not frames:
        return ""
    shown = _thin(frames, share)
    columns, rows = shown[-1][0].columns, shown[-1][0].rows
    images = "".join(_still(frame, uri) for frame, uri in shown)
    last = len(shown) - 1
    return section(
        "The same noise during training",
        "The model drew these pictures from the same noise again and again while it trained. Exact "
        "grounds are set at the end, so here they may be grey. Move the slider to see the "
        "progress; click a picture to enlarge it.",
        f'<div class="film" data-columns="{columns}" data-rows="{rows}">'
        f'<div><div class="frame">{images}</div>'
        f'<label class="slide">Time: <output></output>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="time"></label></div>'
        f'<div><div class="zoom" style="aspect-ratio: {shape[1]} / {shape[0]}" role="img" '
        f'aria-label="one picture, enlarged"></div>'
        f'<label class="slide">Enlarged: <output></output>'
        f'<input type="range" min="0" max="{columns * rows - 1}" value="0" aria-label="picture">'
        f"</label></div></div>",
    )


def _still(frame: Frame, uri: str) -> str:
    """One sheet with its time; without a script all of them are shown."""
    when = escape(_when(frame))
    alt = f"{frame.columns * frame.rows} pictures that the model drew from fixed noise: {when}"
    return (
        f'<figure><img class="pixels" alt="{alt}" data-when="{when}" src="{uri}">'
        f"<figcaption>{when}</figcaption></figure>"
    )


def _when(frame: Frame) -> str:
    text = f"{frame.stage}, step {frame.step:,}"
    return text if frame.seconds is None else f"{text}, after {duration(frame.seconds)}"


def _thin(frames: Sequence[Frame], share: float) -> list[tuple[Frame, str]]:
    """At most 24 frames of one layout, evenly spread, small enough for the page."""
    same = [f for f in frames if (f.columns, f.rows) == (frames[-1].columns, frames[-1].rows)]
    count = min(len(same), 24)
    uris: dict[Path, str] = {}
    while True:
        picked = [same[round(i)] for i in np.linspace(0, len(same) - 1, count)]
        picked = picked if count > 1 else [same[-1]]
        for frame in picked:
            if frame.path not in uris:
                sheet = open_sheet(frame.path)
                uris[frame.path] = "" if sheet is None else svg.data_uri(sheet)
        size = sum(len(uris[frame.path]) for frame in picked)
        if size < _FILM_BYTES * share or count == 1:
            return [(frame, uris[frame.path]) for frame in picked]
        count //= 2


def _learning(facts: Facts) -> str:
    body = charts.learning_curves(facts)
    return section("How training went", "", body) if body else ""


def _data(facts: Facts) -> str:
    skipped = '<p class="soft">No file was skipped.</p>'
    if facts.skipped:
        rows = [(reason, f"{count:,}", names) for reason, count, names in facts.skipped]
        skipped = table(rows, ("reason to skip a file", "files", "first names"), stacked=True)
    return section("The data", "", table(facts.data_card) + skipped)


def _decisions(facts: Facts) -> str:
    if not facts.decisions:
        return ""
    rows = [(d.name, d.value, d.reason) for d in facts.decisions]
    return section(
        "Settings, and why",
        "noisewise chose these values, except where the reason says that they were set by hand.",
        table(rows, ("setting", "value", "reason"), stacked=True),
    )


def _machine(facts: Facts) -> str:
    notes = [e for e in facts.events if not e.bad]
    times = [(f"time, {name}", duration(s)) for name, s in facts.stage_seconds.items()]
    body = (
        f'<div class="two"><div><h3>Training</h3>{table([*times, *facts.training])}</div>'
        "<div><h3>Writing this page, and the times per picture</h3>"
        f"{table(facts.machine)}</div></div>"
    )
    if notes:
        body += f"<h3>Log of the run</h3>{_list(notes, 'small soft')}"
    return section("Time, machine and versions", "", body)


def _commands(facts: Facts) -> str:
    body = "".join(
        f"<h3>{escape(what)}</h3>{code_block(command)}" for what, command in facts.commands
    )
    text = f"In a shell, from the folder that holds the run ({escape(facts.path)})."
    return section("What to do next", text, body) if body else ""
