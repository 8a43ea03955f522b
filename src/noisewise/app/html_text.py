"""Text inside HTML and SVG: escaped, and printable."""

from __future__ import annotations

import html

from noisewise.plain_text import printable


def escape(text: str, quote: bool = True) -> str:
    r"""Return a text for a page or an attribute; line breaks stay, since HTML reads over them.

    Example:
        >>> escape("<b>\x1b[31m & \u202e")
        '&lt;b&gt;\\x1b[31m &amp; \\u202e'
    """
    return html.escape("\n".join(map(printable, text.split("\n"))), quote)
