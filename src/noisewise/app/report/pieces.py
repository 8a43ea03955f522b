"""Pieces of HTML that several sections of the page are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noisewise.app.html_text import escape
from noisewise.app.plots import svg

_SHEET_PIXELS = 110_000  # about as many in one sheet: the page stays small


def section(title: str, text: str, body: str) -> str:
    """A section; `text` below its title is HTML, the title is not."""
    note = f'<p class="soft">{text}</p>' if text else ""
    return f"<section><h2>{escape(title)}</h2>{note}{body}</section>"


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


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table of texts; it can be moved sideways where the screen is narrow."""
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
