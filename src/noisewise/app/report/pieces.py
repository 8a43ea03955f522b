"""Pieces of HTML that several sections of the page are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from noisewise.app.html_text import escape
from noisewise.app.plots import svg

_SHEET_PIXELS = 110_000  # about as many in one sheet: the page stays small


def section(title: str, text: str, body: str) -> str:
    """A section; `text` below its title is HTML, the title is not."""
    note = f'<p class="soft">{text}</p>' if text else ""
    return f'<section id="{_anchor(title)}"><h2>{escape(title)}</h2>{note}{body}</section>'


def contents_list(sections: Sequence[str]) -> str:
    """Links to the sections of a page, so that a part of it can be named to others.

    Example:
        >>> contents_list([section("The data", "", "")])
        '<nav aria-label="On this page"><a href="#the-data">The data</a></nav>'
    """
    found = (re.match(r'<section id="([^"]*)"><h2>(.*?)</h2>', text) for text in sections)
    links = "".join(f'<a href="#{one[1]}">{one[2]}</a>' for one in found if one)
    return f'<nav aria-label="On this page">{links}</nav>'


def _anchor(title: str) -> str:
    """A title as the end of an address.

    Example:
        >>> _anchor("Settings, and why")
        'settings-and-why'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def code_block(text: str) -> str:
    """Lines to copy; the keyboard reaches them, to move long ones sideways."""
    return f'<div class="code"><pre tabindex="0">{escape(text)}</pre></div>'


def sideways(inside: str) -> str:
    """A table (HTML) that can be moved sideways where the screen is narrow, by keyboard too."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="table">{inside}</div>'


def missing(text: str) -> str:
    """A line about what a run does not have."""
    return f'<p class="missing">{escape(text)}</p>'


def upper(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def how_many(pictures: np.ndarray, most: int, share: float) -> int:
    """How many pictures a sheet shows, for its number of pixels and the share of the page."""
    _, height, width, _ = pictures.shape
    return max(1, min(most, int(share * max(4, _SHEET_PIXELS // (height * width)))))


def image(pictures: np.ndarray, columns: int, alt: str) -> str:
    """Pictures uint8 [n, height, width, channels] as one sheet inside the page."""
    # Small pictures are enlarged by whole pixels: a saved sheet is then large enough to look at.
    scale = 2 if pictures.shape[2] * columns < 300 else 1
    sheet = svg.grid(pictures, columns, scale)
    clear = " clear" if pictures.shape[3] == 4 else ""  # the page shows a checkerboard below
    return (
        f'<img class="pixels{clear}" alt="{escape(alt, quote=True)}" width="{sheet.width}" '
        f'height="{sheet.height}" src="{svg.data_uri(sheet)}">'
    )


def pairs(above: np.ndarray, below: np.ndarray, alt: str, captions: Sequence[str]) -> str:
    """Two rows of pictures in blocks of at most six columns, each block with its caption.

    Args:
        above: uint8 [n, height, width, channels].
        below: the same shape.
        alt: for those who do not see them.
        captions: one a block.
    """
    count = len(above)
    columns = block_columns(count)
    blocks = []
    for start, caption in zip(range(0, count, columns), captions, strict=True):
        part = np.concatenate([above[start : start + columns], below[start : start + columns]])
        blocks.append(
            f"<figure>{image(part, len(part) // 2, alt)}"
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return f'<div class="sheets">{"".join(blocks)}</div>'


def block_columns(count: int) -> int:
    """Columns of each block of `pairs`."""
    return 6 if count > 6 else count


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = (), stacked: bool = False) -> str:
    """A table of texts.

    Args:
        rows: cells.
        head: names of the columns.
        stacked: on a narrow screen the cells of a row lie below each other; else it is moved
            sideways.
    """
    top = f"<tr>{''.join(map(_heading, head))}</tr>" if head else ""
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=value' if i == 1 else ''}>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    if stacked:
        return f'<table class="stacked">{top}{body}</table>'
    return sideways(f"<table>{top}{body}</table>")


def _heading(name: str) -> str:
    return f'<th scope="col">{escape(name)}</th>' if name else "<td></td>"
