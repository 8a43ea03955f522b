"""Which members of a zip are read: what zipfile itself would take without a limit is left out."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LOCAL_HEADER = 30  # bytes before the content of a member, without its name


def has_known_method(member: zipfile.ZipInfo) -> bool:
    """Whether a member is stored or deflated.

    zipfile expands others (bzip2, LZMA) without a limit: some kilobytes become gigabytes at once.

    Example:
        >>> member = zipfile.ZipInfo("a.png")
        >>> member.compress_type = zipfile.ZIP_BZIP2
        >>> has_known_method(zipfile.ZipInfo("a.png")), has_known_method(member)
        (True, False)
    """
    return member.compress_type in _METHODS


def check_method(member: zipfile.ZipInfo) -> None:
    """Refuse a member that is neither stored nor deflated.

    Raises:
        ValueError: with the name of the member.
    """
    if not has_known_method(member):
        raise ValueError(f"the member {member.filename!r} is neither stored nor deflated")


def overlapping(members: Iterable[zipfile.ZipInfo]) -> frozenset[int]:
    """Places (`header_offset`) of the members whose bytes also belong to another member.

    A few bytes can be listed as thousands of pictures. No honest zip does that.

    Example:
        >>> one, other = zipfile.ZipInfo("a.png"), zipfile.ZipInfo("b.png")
        >>> one.header_offset = other.header_offset = 7
        >>> overlapping([one, other])
        frozenset({7})
    """
    ordered = sorted(members, key=lambda member: member.header_offset)
    found: set[int] = set()
    reached, last = -1, -1
    for member in ordered:
        start = member.header_offset
        if start < reached:
            found |= {start, last}
        end = start + _LOCAL_HEADER + member.compress_size
        if end > reached:
            reached, last = end, start
    return frozenset(found)
