"""Of which pictures a model was made that another one began with, and under which licences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noisewise.plain_text import printable

_MOST = 32
_FIELDS = ("name", "license", "url", "credit")
_LONGEST = 300  # letters of a field of somebody else


def checked_sources(given: Any) -> list[dict[str, str]]:  # noqa: ANN401 (any JSON value)
    """Sources from a file, which may come from somebody else: short texts, and not too many.

    Example:
        >>> checked_sources([{"name": "Noto emoji", "license": "Apache-2.0", "x": 1}, 7])
        [{'name': 'Noto emoji', 'license': 'Apache-2.0'}]
    """
    found = []
    for item in given[:_MOST] if isinstance(given, list | tuple) else []:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            continue
        texts = {key: item[key] for key in _FIELDS if isinstance(item.get(key), str)}
        found.append({key: printable(text[:_LONGEST]) for key, text in texts.items()})
    return found


def start_in_words(run: Mapping[str, Any], stats: Mapping[str, Any]) -> str:
    r"""What a card says of the base that a model began with: its name, share, sources and licences.

    Args:
        run: content of run.json; it may have no entry "start".
        stats: of the model's config.json, for a model without a run.

    Returns:
        One line; "" if the model began with nothing.

    Example:
        >>> source = {"name": "Noto emoji", "license": "Apache-2.0", "credit": "Google"}
        >>> began = {"from": "emoji", "share": 0.98, "sources": [source]}
        >>> words = start_in_words({"start": began}, {})
        >>> print(words.replace("; ", "\n"))
        98 % of the weights were those of emoji at first
        its pictures: Noto emoji (Apache-2.0, Google)
        >>> start_in_words({}, {})
        ''
    """
    noted = run.get("start") or stats.get("start")
    if not isinstance(noted, Mapping) or not isinstance(noted.get("from"), str):
        return ""
    if not noted["from"]:
        return ""
    share, name = noted.get("share"), printable(noted["from"][:_LONGEST])
    part = f"{share:.0%}".replace("%", " %") if isinstance(share, int | float) else "part"
    listed = [_in_words(source) for source in checked_sources(noted.get("sources"))]
    pictures = f"; its pictures: {'; '.join(listed)}" if listed else ""
    return f"{part} of the weights were those of {name} at first{pictures}"


def _in_words(source: Mapping[str, str]) -> str:
    known = {key: source[key] for key in ("license", "credit", "url") if source.get(key)}
    if known.get("license") == "unknown":
        known["license"] = "licence unknown"
    more = ", ".join(known.values())
    return f"{source['name']} ({more})" if more else source["name"]
