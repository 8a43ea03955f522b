"""What a notebook shows of a run, a model or a measurement: a line, a table, a picture.

Plain HTML without scripts and styles of its own, so that it looks as the notebook does, dark or
light. All texts are escaped: names of classes and paths come from files.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from noisewise.plain_text import printable
from noisewise.training.files.sample_sheet import png

if TYPE_CHECKING:
    from PIL import Image


def page(
    title: str,
    picture: Image.Image | None = None,
    rows: Sequence[tuple[str, ...]] = (),
    described: str = "",
) -> str:
    """One line, a table below it, and a picture.

    Args:
        title: the line.
        picture: shown at its own size, without smoothing; None: no picture.
        rows: of the table; the first cell of each names it.
        described: what the picture shows, for people who cannot see it; "" takes the title.

    Example:
        >>> page("Run('a<b')")
        '<div><p>Run(&#x27;a&lt;b&#x27;)</p></div>'
    """
    parts = [f"<p>{_text(title)}</p>"]
    if rows:
        parts.append(table(rows))
    if picture is not None:
        parts.append(_image(picture, described or title))
    return f"<div>{''.join(parts)}</div>"


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """A table; the first cell of each row is its heading.

    Example:
        >>> table([("floors", "3.1")])
        '<table><tr><th scope="row" style="text-align:left">floors</th><td>3.1</td></tr></table>'
    """
    lines = []
    for name, *cells in rows:
        heading = f'<th scope="row" style="text-align:left">{_text(name)}</th>'
        values = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        lines.append(f"<tr>{heading}{values}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _image(picture: Image.Image, described: str) -> str:
    data = base64.b64encode(png(picture)).decode("ascii")
    return (
        f'<img alt="{_text(described)}" width="{picture.width}" height="{picture.height}" '
        f'style="image-rendering:pixelated;max-width:100%;height:auto" '
        f'src="data:image/png;base64,{data}">'
    )


def _text(text: str) -> str:
    return escape(printable(text))
