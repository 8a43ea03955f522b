"""The report as one HTML page: facts in, a string out.

The page needs no other file and no network: pictures are data addresses, curves are inline SVG.
It can be written at every stage of a run, and says what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from noisewise.app.plots import svg
from noisewise.app.report import charts
from noisewise.app.report.facts import Copies, Event, Facts, Frame, Way
from noisewise.app.terminal.progress import duration
from noisewise.app.terminal.stderr import readable

_MAX_BYTES = 2_000_000
_SHEET_PIXELS = 110_000  # about as many in one sheet: the page stays small
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
        page = readable(_document(facts, share))
        if len(page.encode()) < _MAX_BYTES:
            break
    return page


def _document(facts: Facts, share: float) -> str:
    assets = files("noisewise.app.report")
    style = assets.joinpath("report.css").read_text(encoding="utf-8")
    script = assets.joinpath("report.js").read_text(encoding="utf-8")
    body = "\n".join(
        part
        for part in (
            _failures(facts),
            _headline(facts),
            _pictures(facts, share),
            _same_noise(facts, share),
            _film(facts.frames, share),
            _copy_test(facts, share),
            _learning(facts),
            _data(facts),
            _decisions(facts),
            _machine(facts),
            _commands(facts),
        )
        if part
    )
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>noisewise: {escape(facts.name)}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>{style}</style></head><body>\n{body}\n<script>{script}</script></body></html>\n"
    )


def _section(title: str, text: str, body: str) -> str:
    note = f'<p class="soft">{text}</p>' if text else ""
    return f"<section><h2>{escape(title)}</h2>{note}{body}</section>"


def _missing(text: str) -> str:
    return f'<p class="missing">{escape(text)}</p>'


def _failures(facts: Facts) -> str:
    bad = [event for event in facts.events if event.bad]
    if not bad:
        return ""
    return f'<div class="events"><h2>Look at this first</h2>{_list(bad)}</div>'


def _list(events: Sequence[Event], style: str = "") -> str:
    items = "".join(
        f"<li><b>{escape(_upper(e.about))}</b>, after {duration(e.seconds)}: {escape(e.text)}</li>"
        for e in events
    )
    return f'<ul class="{style}">{items}</ul>'


def _headline(facts: Facts) -> str:
    colour = {1: "grey", 3: "colour", 4: "colour (with transparency)"}[facts.channels]
    what = "A run without a finished model yet, for"
    if facts.has_teacher:
        what = "A diffusion model of"
    if facts.has_generator:
        what = "A one-call generator of"
    text = (
        f"{what} {facts.size}&#215;{facts.size} {colour} pictures, trained on "
        f"{facts.num_pictures:,} of them ({escape(facts.source)})"
    )
    total = sum(facts.stage_seconds.values())
    stages = ", ".join(f"{name} {duration(s)}" for name, s in facts.stage_seconds.items())
    text += f" in {duration(total)} ({escape(stages)})." if total > 0 else "."
    return f"<h1>{escape(facts.name)}</h1><p>{text}</p>{_tiles(facts)}"


def _tiles(facts: Facts) -> str:
    tiles = [_way_tile(way) for way in facts.ways]
    if facts.floor is not None:
        text = "real pictures stay below this distance from other real ones 95 times in 100"
        tiles.append(("Floor", f"{facts.floor:.3g}", (text,)))
    tested = [way for way in facts.ways if way.copies is not None]
    if tested and tested[0].copies is not None:
        text = f"of the generated pictures ({tested[0].name}) nearly equal a training picture"
        tiles.append(("Copies", _percent(tested[0].copies.fraction), (text,)))
    if not tiles:
        return ""
    cells = "".join(
        f'<div class="tile"><h3>{escape(name)}</h3><b>{escape(value)}</b>'
        f"{''.join(f'<span>{escape(line)}</span>' for line in lines)}</div>"
        for name, value, lines in tiles
    )
    return f'<div class="tiles">{cells}</div>{_about_distance(facts)}'


def _about_distance(facts: Facts) -> str:
    """What the large numbers mean; nothing where no distance was measured."""
    if facts.floor is None:
        return ""
    return (
        '<p class="soft small">The distance says how far generated pictures are from real ones, '
        f"here from {escape(facts.against)}. Lower is better; below the floor, the distance cannot "
        "tell them from real pictures. It is not FID.</p>"
    )


def _way_tile(way: Way) -> tuple[str, str, tuple[str, ...]]:
    """Name, large number, and lines below it."""
    name = _upper(way.name)
    if way.distance is None:
        return name, _ms(way), ("per picture", "distance not measured")
    lines = ["distance to real pictures"]
    if way.distance_low is not None and way.distance_high is not None:
        lines.append(f"95%: {way.distance_low:.3g} to {way.distance_high:.3g}")
    return name, f"{way.distance:.3g}", (*lines, f"{_ms(way)} per picture")


def _calls(way: Way) -> str:
    return "1 network call" if way.network_calls == 1 else f"{way.network_calls} network calls"


def _ms(way: Way) -> str:
    if way.seconds_per_image is None:
        return "not timed"
    return f"{1000 * way.seconds_per_image:.3g} ms"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _pictures(facts: Facts, share: float) -> str:
    figures = []
    if facts.real is not None:
        text = "Held-out pictures: no model was trained on them."
        figures.append(_sheet(facts.real, "Real", text, share))
    for way in facts.ways:
        figures.append(_sheet(way.pictures, _upper(way.name), _caption(way), share))
    missing = "" if facts.ways else _missing("No model has been saved yet.")
    if facts.missing:
        missing += _missing(f"Real pictures cannot be shown: {facts.missing}.")
    if not figures:
        return _section("Pictures", "", missing)
    return _section(
        "Pictures",
        "Real pictures and generated ones. The generated ones are the first of their seed; they "
        "were not selected.",
        missing + f'<div class="sheets">{"".join(figures)}</div>',
    )


def _caption(way: Way) -> str:
    parts = [_calls(way)]
    if way.seconds_per_image is not None:
        parts.append(f"{_ms(way)} per picture")
    if way.distance is not None and way.num_images is not None:
        parts.append(f"distance {way.distance:.3g} ({way.num_images:,} pictures)")
    return _upper(", ".join(parts)) + "."


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sheet(pictures: np.ndarray, title: str, caption: str, share: float) -> str:
    columns = max(1, int(_how_many(pictures, 64, share) ** 0.5))
    shown = pictures[: columns * columns]
    image = _image(shown, min(columns, len(shown)), f"{title}: {len(shown)} pictures")
    return (
        f"<figure><h3>{escape(title)}</h3>{image}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _how_many(pictures: np.ndarray, most: int, share: float) -> int:
    """How many pictures a sheet shows, for its number of pixels and the share of the page."""
    _, height, width, _ = pictures.shape
    return max(1, min(most, int(share * max(4, _SHEET_PIXELS // (height * width)))))


def _image(pictures: np.ndarray, columns: int, alt: str) -> str:
    # Small pictures are enlarged by whole pixels: a saved sheet is then large enough to look at.
    scale = 2 if pictures.shape[2] * columns < 300 else 1
    sheet = svg.grid(pictures, columns, scale)
    return (
        f'<img class="pixels" alt="{escape(alt, quote=True)}" width="{sheet.width}" '
        f'height="{sheet.height}" src="{svg.data_uri(sheet)}">'
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
        alt = f"{_upper(way.name)}: {len(shown)} pictures"
        rows.append(
            f'<div class="row"><div class="small"><b>{escape(_upper(way.name))}</b><br>'
            f"{_ms(way)} per picture{speed}</div>{_image(shown, len(shown), alt)}</div>"
        )
    return _section(
        "The same noise in few calls and in many",
        "The pictures of one column start from the same noise. Times are per picture, drawn in "
        "batches, on the machine that wrote this page.",
        f'<div class="rows">{"".join(rows)}</div>',
    )


def _film(frames: Sequence[Frame], share: float) -> str:
    if not frames:
        return ""
    shown = _thin(frames, share)
    images = "".join(
        f'<img class="pixels" alt="{escape(_when(f), quote=True)}" '
        f'data-when="{escape(_when(f), quote=True)}" src="{uri}">'
        for f, uri in shown
    )
    columns, rows = shown[-1][0].columns, shown[-1][0].rows
    last = len(shown) - 1
    return _section(
        "The same noise during training",
        "The model drew these pictures from the same noise again and again while it trained. Move "
        "the slider to see the progress; click a picture to enlarge it.",
        f'<div class="film" data-columns="{columns}" data-rows="{rows}">'
        f'<div><div class="frame">{images}</div>'
        f'<label class="slide">Time: <output></output>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="time"></label></div>'
        f'<div><div class="zoom" role="img" aria-label="one picture, enlarged"></div>'
        f'<label class="slide">Enlarged: <output></output>'
        f'<input type="range" min="0" max="{columns * rows - 1}" value="0" aria-label="picture">'
        f"</label></div></div>",
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
                with Image.open(frame.path) as image:
                    uris[frame.path] = svg.data_uri(image)
        size = sum(len(uris[frame.path]) for frame in picked)
        if size < _FILM_BYTES * share or count == 1:
            return [(frame, uris[frame.path]) for frame in picked]
        count //= 2


def _copy_test(facts: Facts, share: float) -> str:
    title = "Does it copy training pictures?"
    tested = [(way, way.copies) for way in facts.ways if way.copies is not None]
    if not tested:
        if not (facts.ways and facts.missing):
            return ""
        return _section(title, "", _missing(f"Copies cannot be looked for: {facts.missing}."))
    way, copies = tested[0]
    text = (
        "For each generated picture, the two nearest training pictures were found. It counts as a "
        f"copy if its distance to the nearest one is below {copies.threshold:.2g} times its "
        "distance to the second nearest."
    )
    near = (
        f"<h3>The pictures nearest to being copies ({escape(way.name)})</h3>{_pairs(copies, share)}"
        f"{charts.nearest_plot(way.name, copies)}"
    )
    return _section(title, text, _shares(tested) + near)


def _shares(tested: Sequence[tuple[Way, Copies]]) -> str:
    """One row for each way, and one for held-out pictures."""
    rows = [
        (
            _upper(way.name),
            _percent(copies.fraction),
            f"{_percent(copies.low)} to {_percent(copies.high)}",
            f"{copies.num_images:,}",
        )
        for way, copies in tested
    ]
    copies = tested[0][1]
    if copies.held_out_fraction is not None:
        number = f"{len(copies.held_out_distances):,}"
        rows.append(
            ("Real held-out pictures, by chance", _percent(copies.held_out_fraction), "", number)
        )
    return _table(rows, ("", "copies", "95% interval", "pictures tested"))


def _pairs(copies: Copies, share: float) -> str:
    count = max(4, _how_many(copies.pictures, 12, share))
    made, near = copies.pictures[:count], copies.nearest[:count]
    count = len(made)
    columns = 6 if count > 6 else count
    blocks = []
    for start in range(0, count, columns):
        part = np.concatenate([made[start : start + columns], near[start : start + columns]])
        figures = ", ".join(f"{d:.3f}" for d in copies.shown_distances[start : start + columns])
        alt = "above: generated pictures; below: the nearest training picture of each"
        blocks.append(
            f"<figure>{_image(part, len(part) // 2, alt)}"
            "<figcaption>Above: generated. Below: the nearest training picture. "
            f"Distances: {figures}.</figcaption></figure>"
        )
    return f'<div class="sheets">{"".join(blocks)}</div>'


def _learning(facts: Facts) -> str:
    body = charts.learning_curves(facts)
    return _section("How training went", "", body) if body else ""


def _table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    top = f"<tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr>" if head else ""
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=value' if i == 1 else ''}>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table>{top}{body}</table></div>'


def _data(facts: Facts) -> str:
    skipped = '<p class="soft">No file was skipped.</p>'
    if facts.skipped:
        rows = [(reason, f"{count:,}", names) for reason, count, names in facts.skipped]
        skipped = _table(rows, ("reason to skip a file", "files", "first names"))
    return _section(
        "The data", "", f'<div class="two"><div>{_table(facts.data_card)}</div>{skipped}</div>'
    )


def _decisions(facts: Facts) -> str:
    if not facts.decisions:
        return ""
    rows = [(d.name, d.value, d.reason) for d in facts.decisions]
    return _section(
        "Settings, and why",
        "noisewise chose these values, except where the reason says that they were set by hand.",
        _table(rows, ("setting", "value", "reason")),
    )


def _machine(facts: Facts) -> str:
    notes = [e for e in facts.events if not e.bad]
    times = [(f"time, {name}", duration(s)) for name, s in facts.stage_seconds.items()]
    body = (
        f'<div class="two"><div><h3>Training</h3>{_table([*times, *facts.training])}</div>'
        "<div><h3>Writing this page, and the times per picture</h3>"
        f"{_table(facts.machine)}</div></div>"
    )
    if notes:
        body += f"<h3>Log of the run</h3>{_list(notes, 'small soft')}"
    return _section("Time, machine and versions", "", body)


def _commands(facts: Facts) -> str:
    body = "".join(
        f"<h3>{escape(what)}</h3><pre>{escape(command)}</pre>" for what, command in facts.commands
    )
    return _section("What to do next", "", body) if body else ""
