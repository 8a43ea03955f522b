"""The values of a chart as a table, for those who have no pointer, or do not see the chart."""

from __future__ import annotations

import html
import json
import re

from noisewise.app.html_text import escape

_ROWS = 8  # of a line


def value_table(drawing: str, label: str) -> str:
    """Some values of each line of a drawing, folded away; "" if it holds none.

    Args:
        drawing: SVG with hover points, of `noisewise.app.plots.svg`.
        label: what the table is about.
    """
    found = re.search(r"data-hover='([^']*)'", drawing)
    lines = json.loads(html.unescape(found[1])) if found else []
    tables = "".join(_table(line["name"], line["points"]) for line in lines if line["points"])
    if not tables:
        return ""
    return (
        f'<details><summary>Values<span class="unseen"> of {escape(label)}</span></summary>'
        f'<div class="values">{tables}</div></details>'
    )


def _table(name: str, points: list[list[float]]) -> str:
    last = len(points) - 1
    count = min(_ROWS, len(points))
    chosen = sorted({round(i * last / max(count - 1, 1)) for i in range(count)})
    rows = "".join(f"<tr><td>{points[i][2]:g}</td><td>{points[i][3]:g}</td></tr>" for i in chosen)
    return (
        f"<table><caption>{escape(name)}</caption>"
        f'<tr><th scope="col">at</th><th scope="col">value</th></tr>{rows}</table>'
    )
