"""A length of time in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A length of time as people say it.

    Example:
        >>> duration(7.25), duration(90), duration(5400)
        ('7.2s', '1m30s', '1h30m')
    """
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s" if rest else f"{minutes}m"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours}h{minutes:02d}m" if minutes else f"{hours}h"
