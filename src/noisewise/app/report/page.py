"""The report as one HTML page: facts in, a string out.

The page needs nothing else: pictures are data addresses, curves are inline SVG, the script is
its own. It says what is missing instead of leaving a hole, so that it can be written at every
stage of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np
from PIL import Image

from noisewise.app.plots import svg
from noisewise.app.report import charts
from noisewise.app.report.facts import Copies, Facts, Frame, Way
from noisewise.app.terminal.progress import duration
from noisewise.app.terminal.stderr import readable

_MAX_BYTES = 2_000_000


def render(facts: Facts) -> str:
    """Write the whole page, with fewer pictures on it when it would pass two megabytes.

    Args:
        facts: what the run holds.

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
            _derived(facts),
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
    items = "".join(
        f"<li><b>{escape(e.stage)}</b>, after {duration(e.seconds)}: {escape(e.text)}</li>"
        for e in bad
    )
    return f'<div class="events"><h2>Look at this first</h2><ul>{items}</ul></div>'


def _headline(facts: Facts) -> str:
    colour = {1: "grey", 3: "colour", 4: "colour (with transparency)"}[facts.channels]
    kind = (
        "A one-call generator"
        if facts.has_generator
        else "A diffusion model"
        if facts.has_teacher
        else "A run without a finished model yet, to become a diffusion model"
    )
    total = sum(facts.stage_seconds.values())
    stages = ", ".join(f"{name} {duration(s)}" for name, s in facts.stage_seconds.items())
    text = (
        f"{kind} of {facts.size}&#215;{facts.size} {colour} pictures, trained on "
        f"{facts.num_pictures:,} of them ({escape(facts.source)})"
    )
    text += f" in {duration(total)} ({escape(stages)})." if total > 0 else "."
    return f"<h1>{escape(facts.name)}</h1><p>{text}</p>" + _tiles(facts)


def _tiles(facts: Facts) -> str:
    tiles = [_way_tile(way) for way in facts.ways]
    if facts.floor is not None:
        against = f"; measured against {facts.against}" if facts.against else ""
        text = f"95 of 100 sets of real pictures are nearer{against}"
        tiles.append(("Floor", f"{facts.floor:.2g}", text))
    if facts.copies is not None:
        tiles.append(
            (
                "Copies",
                f"{100 * facts.copies.fraction:.1f}%",
                "of the generated pictures lie suspiciously near a training picture",
            )
        )
    cells = "".join(
        f'<div class="tile"><h3>{escape(name)}</h3><b>{escape(value)}</b>'
        f"<span>{escape(text)}</span></div>"
        for name, value, text in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _way_tile(way: Way) -> tuple[str, str, str]:
    calls = "1 network call" if way.network_calls == 1 else f"{way.network_calls} network calls"
    speed = f"{_ms(way)} a picture, {calls}"
    if way.distance is None:
        return _upper(way.name), _ms(way), f"a picture, {calls}; no distance measured"
    interval = ""
    if way.distance_low is not None and way.distance_high is not None:
        interval = f" (95%: {way.distance_low:.3g} to {way.distance_high:.3g})"
    return _upper(way.name), f"{way.distance:.3g}", f"distance to real pictures{interval}; {speed}"


def _ms(way: Way) -> str:
    if way.seconds_per_image is None:
        return "not timed"
    return f"{1000 * way.seconds_per_image:.3g} ms"


def _pictures(facts: Facts, share: float) -> str:
    figures = []
    if facts.real is not None:
        figures.append(
            _sheet(facts.real, "Real", "Held-out pictures, which no model was trained on.", share)
        )
    for way in facts.ways:
        figures.append(_sheet(way.pictures, _upper(way.name), _caption(way), share))
    missing = "" if facts.ways else _missing("No model has been saved yet.")
    if facts.real is None and facts.real_missing:
        missing += _missing(facts.real_missing)
    if not figures:
        return _section("Pictures", "", missing)
    return _section(
        "Pictures",
        "Real ones beside generated ones. The generated ones are the first of their seed, none was "
        "picked by hand.",
        missing + f'<div class="sheets">{"".join(figures)}</div>',
    )


def _caption(way: Way) -> str:
    calls = "one network call" if way.network_calls == 1 else f"{way.network_calls} network calls"
    parts = [calls]
    if way.seconds_per_image is not None:
        parts.append(f"{_ms(way)} a picture")
    if way.distance is not None and way.num_images is not None:
        parts.append(f"distance {way.distance:.3g} over {way.num_images:,} pictures")
    return _upper(", ".join(parts)) + "."


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sheet(pictures: np.ndarray, title: str, caption: str, share: float) -> str:
    columns = max(1, int(_how_many(pictures, 64, share) ** 0.5))
    shown = pictures[: columns * columns]
    columns = min(columns, len(shown))
    return (
        f"<figure><h3>{escape(title)}</h3>{_image(shown, columns, title)}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _how_many(pictures: np.ndarray, most: int, share: float) -> int:
    """As many pictures as keep a sheet near 110,000 pixels: a page is no album."""
    _, height, width, _ = pictures.shape
    return max(1, min(most, int(share * max(4, 110_000 // (height * width)))))


def _image(pictures: np.ndarray, columns: int, alt: str) -> str:
    # Small pictures are enlarged by whole pixels, so that a saved one can be looked at.
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
    base = max((w.seconds_per_image or 0.0 for w in facts.ways), default=0.0)
    for way in facts.ways:
        shown = way.pictures[: max(4, int(8 * share))]
        speed = ""
        if way.seconds_per_image and base / way.seconds_per_image > 1.05:
            speed = (
                f"<br><span class='soft'>{base / way.seconds_per_image:.2g} times as fast</span>"
            )
        rows.append(
            f'<div class="row"><div class="small"><b>{escape(_upper(way.name))}</b><br>'
            f"{_ms(way)} a picture{speed}</div>{_image(shown, len(shown), way.name)}</div>"
        )
    return _section(
        "The same noise, few calls and many",
        "Each column starts from the same noise. Times are for a picture, in batches, on this "
        "machine.",
        f'<div class="rows">{"".join(rows)}</div>',
    )


def _film(frames: Sequence[Frame], share: float) -> str:
    if not frames:
        return ""
    shown = _thin(frames, share)
    images = "".join(
        f'<img class="pixels" alt="{escape(f.when)}" data-when="{escape(f.when, quote=True)}" '
        f'src="{uri}">'
        for f, uri in shown
    )
    columns, rows = shown[-1][0].columns, shown[-1][0].rows
    last = len(shown) - 1
    return _section(
        "Fixed seeds while training",
        "The same noise, drawn again as the model learned. Move the slider, or touch a picture.",
        f'<div class="film" data-columns="{columns}" data-rows="{rows}">'
        f'<div><div class="frame">{images}</div>'
        f'<label class="slide">Time: <output></output>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="time"></label></div>'
        f'<div><div class="zoom" role="img" aria-label="one picture, enlarged"></div>'
        f'<label class="slide">Seed: <output></output>'
        f'<input type="range" min="0" max="{columns * rows - 1}" value="0" aria-label="seed">'
        f"</label></div></div>",
    )


def _thin(frames: Sequence[Frame], share: float) -> list[tuple[Frame, str]]:
    """At most two dozen frames of one layout, evenly spread, within 700 kB in all."""
    same = [f for f in frames if (f.columns, f.rows) == (frames[-1].columns, frames[-1].rows)]
    count = min(len(same), 24)
    uris: list[tuple[Frame, str]] = []
    while count >= 1:
        picked = [same[round(i)] for i in np.linspace(0, len(same) - 1, count)]
        if count == 1:
            picked = [same[-1]]
        uris = []
        for frame in picked:
            with Image.open(frame.path) as image:
                uris.append((frame, svg.data_uri(image)))
        if sum(len(uri) for _, uri in uris) < 700_000 * share:
            break
        count //= 2
    return uris


def _copy_test(facts: Facts, share: float) -> str:
    title = "Is it copying?"
    if facts.copies is None:
        return _section(title, "", _missing(facts.copies_missing)) if facts.copies_missing else ""
    copies = facts.copies
    text = (
        f"For each of {copies.num_images:,} pictures ({escape(copies.way)}) the two nearest "
        f"training pictures were found. If the first lies at less than {copies.threshold:.2g} of "
        f"the distance of the second, it counts as a copy: {100 * copies.fraction:.1f}% do "
        f"(95%: {100 * copies.low:.1f} to {100 * copies.high:.1f}%)"
    )
    if copies.held_out_fraction is not None:
        text += f"; of real held-out pictures, {100 * copies.held_out_fraction:.1f}%"
    text += ". The most suspicious ones are shown first."
    return _section(title, text, _pairs(copies, share) + charts.nearest_plot(copies))


def _pairs(copies: Copies, share: float) -> str:
    count = max(4, _how_many(copies.pictures, 12, share))
    made, near = copies.pictures[:count], copies.nearest[:count]
    count = len(made)
    columns = 6 if count > 6 else count
    blocks = []
    for start in range(0, count, columns):
        part = np.concatenate([made[start : start + columns], near[start : start + columns]])
        figures = ", ".join(f"{d:.3f}" for d in copies.shown_distances[start : start + columns])
        columns_here = len(part) // 2
        blocks.append(
            f"<figure>{_image(part, columns_here, 'generated above, nearest training below')}"
            f"<figcaption>Generated above, nearest training picture below; distances {figures}."
            "</figcaption></figure>"
        )
    return f'<div class="sheets">{"".join(blocks)}</div>'


def _learning(facts: Facts) -> str:
    body = charts.learning_curves(facts)
    return _section("How it learned", "", body) if body else ""


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
    skipped = (
        _table([(r, f"{n:,}", names) for r, n, names in facts.skipped], ("skipped", "", "first"))
        if facts.skipped
        else '<p class="soft">No file was skipped.</p>'
    )
    return _section(
        "The data", "", f'<div class="two"><div>{_table(facts.data_card)}</div>{skipped}</div>'
    )


def _derived(facts: Facts) -> str:
    if not facts.derived:
        return ""
    rows = [(d.name, d.value, d.reason) for d in facts.derived]
    return _section(
        "What was decided, and why",
        "Each of these can be set by hand.",
        _table(rows, ("what", "value", "reason")),
    )


def _machine(facts: Facts) -> str:
    notes = [e for e in facts.events if not e.bad]
    times = [(f"time, {name}", duration(s)) for name, s in facts.stage_seconds.items()]
    body = _table([*times, *facts.machine])
    if notes:
        items = "".join(
            f"<li>{escape(e.stage)}, after {duration(e.seconds)}: {escape(e.text)}</li>"
            for e in notes
        )
        body += f'<h3>Notes of the run</h3><ul class="small soft">{items}</ul>'
    return _section("Time, machine and versions", "", body)


def _commands(facts: Facts) -> str:
    body = "".join(
        f"<h3>{escape(what)}</h3><pre>{escape(command)}</pre>" for what, command in facts.commands
    )
    return _section("To go on", "", body) if body else ""
