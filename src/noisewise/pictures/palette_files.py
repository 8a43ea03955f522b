"""Palettes in files: .gpl (GIMP), .pal (JASC, and RIFF of Windows), .hex and .png.

A palette has 2 to 256 colours. A text such as "#000000 #ffffff" is one too: settings hold it in
this form, so that a run needs no second file and tells no path. A transparent entry belongs to
pictures and to no palette: it is left out when a file is read, and written where it is asked for.

Sources: GIMP's devel-docs/gpl.txt; the JASC-PAL files of Paint Shop Pro; Microsoft's Multimedia
Programming Interface 1.0 for RIFF; Lospec's .hex.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from noisewise.plain_text import printable
from noisewise.whole_files import write_bytes

Colour = tuple[int, int, int]
Colours = tuple[Colour, ...]

MOST = 256
ENDINGS = (".gpl", ".pal", ".hex", ".png")
_LARGEST = 2**22  # bytes of a palette file
_MOST_PIXELS = 2**22  # of a PNG whose colours are a palette
_KNOWN = f"a palette is a file that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
_HEX = re.compile(r"#?([0-9a-fA-F]{6})([0-9a-fA-F]{2})?")
_INK = "#"  # colours that are written out begin with it


def palette_of(given: str) -> Colours:
    """Read a palette as people give it: the name of a file, or colours such as "#000000 #ffffff".

    What begins with # is colours; a file of such a name is given as ./#name.gpl.

    Raises:
        ValueError: if there is no such file, it is no palette, or it has fewer than 2 colours or
            more than 256.

    Example:
        >>> palette_of("#000000 #ff8000")
        ((0, 0, 0), (255, 128, 0))
    """
    if given.lstrip().startswith(_INK):
        if not all(part.strip() for part in given.split(",")):
            raise ValueError(
                f"the palette {printable(given)!r} has an empty place; write colours such as "
                "'#000000, #ffffff'"
            )
        return _checked(_of_hex(given.replace(",", " ").split(), "the palette"), "the palette")
    return read_palette(Path(given).expanduser())


def written_out(colours: Iterable[Colour]) -> str:
    """Write colours as `palette_of` reads them.

    Example:
        >>> written_out([(0, 0, 0), (255, 128, 0)])
        '#000000 #ff8000'
    """
    return " ".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours)


def read_palette(path: Path) -> Colours:
    """Read the colours of a palette file, each once, in their order.

    Raises:
        ValueError: if it is missing, broken, of another kind, or has fewer than 2 colours or more
            than 256; one sentence with the way out.
    """
    named = f"the palette {printable(str(path))}"
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{named} cannot be read: {_KNOWN}, or colours such as '#000000 #ffffff'")
    if not _is_file(path):
        raise ValueError(f"{named} is not a file; check its name")
    if path.stat().st_size > _LARGEST:
        raise ValueError(
            f"{named} is too large for a palette; give a file with 2 to {MOST} colours"
        )
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{named} is empty; give a file with 2 to {MOST} colours")
    return _checked(read(data, named), named)


def write_palette(path: Path, colours: Iterable[Colour], transparent: bool = False) -> None:
    """Write a palette in the form that the ending of the name says, whole or not at all.

    Args:
        path: ends in .gpl, .pal (JASC), .hex or .png (one row of pixels, indexed).
        colours: 1 to 256 of them.
        transparent: the pictures are transparent in places: a .png gets a transparent entry first,
            if there is room for it, a .gpl a remark; the other forms know no transparency.

    Raises:
        ValueError: if the ending is unknown.
        OSError: if it cannot be written.
    """
    known, kind = tuple(colours), path.suffix.lower()
    check_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".png":
        write_bytes(path, _as_png(known, transparent))
        return
    if kind == ".gpl":
        note = "# transparent pixels have no colour here\n" if transparent else ""
        rows = [f"{r:3d} {g:3d} {b:3d}\t{r:02x}{g:02x}{b:02x}\n" for r, g, b in known]
        columns = min(16, len(known))
        text = f"GIMP Palette\nName: {path.stem}\nColumns: {columns}\n#\n{note}{''.join(rows)}"
    elif kind == ".pal":
        rows = [f"{r} {g} {b}\r\n" for r, g, b in known]
        text = f"JASC-PAL\r\n0100\r\n{len(known)}\r\n{''.join(rows)}"
    else:
        text = "".join(f"{r:02x}{g:02x}{b:02x}\n" for r, g, b in known)
    write_bytes(path, text.encode("utf-8", "replace"))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no system takes
        return False


def check_ending(path: Path) -> None:
    """Refuse a name that says no kind of palette.

    Raises:
        ValueError: with the kinds that there are.

    Example:
        >>> check_ending(Path("mine.txt"))
        Traceback (most recent call last):
        ...
        ValueError: mine.txt: a palette is a file that ends in .gpl, .pal, .hex or .png
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{printable(str(path))}: {_KNOWN}")


def check_channels(colours: Colours, channels: int) -> None:
    """Refuse a palette with colours for grey pictures.

    Raises:
        ValueError: with the way out.

    Example:
        >>> check_channels(((0, 0, 0), (255, 0, 0)), 1)
        Traceback (most recent call last):
        ...
        ValueError: the pictures are grey and the palette has colours; give greys, or --palette none
    """
    if channels == 1 and any(len(set(colour)) > 1 for colour in colours):
        raise ValueError(
            "the pictures are grey and the palette has colours; give greys, or --palette none"
        )


def _checked(colours: list[Colour], named: str) -> Colours:
    """Each colour once; not too few, not too many."""
    known = tuple(dict.fromkeys(colours))
    if len(known) < 2:
        count = "one colour" if known else "no colour"
        raise ValueError(f"{named} has {count}, which draws nothing; give 2 to {MOST} colours")
    if len(known) > MOST:
        raise ValueError(
            f"{named} has {len(known):,} colours; give 2 to {MOST} (image editors reduce them, and "
            "`noisewise inspect FOLDER --palette-out FILE` finds the best ones of a folder)"
        )
    return known


# ---------------------------------------------------------------------- reading
def _of_gpl(data: bytes, named: str) -> list[Colour]:
    lines = _lines(data)
    if not lines or not lines[0].startswith("GIMP Palette"):
        raise ValueError(f"{named} is broken: a .gpl begins with the line GIMP Palette")
    found = []
    for line in lines[1:]:
        if not line or line.startswith(("#", "Name:", "Columns:", "Channels:")):
            continue
        found.append(_three(line.split(), named, line))
    return found


def _of_pal(data: bytes, named: str) -> list[Colour]:
    if data.startswith(b"RIFF"):
        return _of_riff(data, named)
    lines = [line for line in _lines(data) if line]
    if len(lines) < 3 or lines[0] != "JASC-PAL" or not lines[2].isdecimal():
        raise ValueError(
            f"{named} is broken: a .pal begins with JASC-PAL, 0100 and the number of colours, or "
            "with RIFF"
        )
    rows, number = lines[3:], int(lines[2])
    if len(rows) != number:
        raise ValueError(f"{named} is broken: it tells of {number} colours and has {len(rows)}")
    return [_three(row.split(), named, row) for row in rows]


def _of_riff(data: bytes, named: str) -> list[Colour]:
    """Windows' form: RIFF, length, "PAL ", then chunks; "data" has a version and the entries."""
    at = 12
    while data[8:12] == b"PAL " and at + 8 <= len(data):
        name, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if name == b"data" and length >= 4 and at + 12 <= len(data):
            number = struct.unpack_from("<H", data, at + 10)[0]
            entries = data[at + 12 : at + 12 + 4 * number]
            if len(entries) == 4 * number:
                return [tuple(entries[i : i + 3]) for i in range(0, 4 * number, 4)]  # pyrefly: ignore
        at += 8 + length + length % 2
    raise ValueError(f"{named} is broken: its RIFF form has no whole list of colours")


def _of_hex_file(data: bytes, named: str) -> list[Colour]:
    return _of_hex([word for line in _lines(data) for word in line.split()], named)


def _of_hex(words: list[str], named: str) -> list[Colour]:
    found: list[Colour] = []
    for word in words:
        match = _HEX.fullmatch(word)
        if match is None:
            told = printable(word if len(word) <= 20 else f"{word[:17]}...")
            raise ValueError(f"{named} is broken: {told!r} is no colour such as ff8000")
        if match[2] != "00":  # the last two are opacity
            red, green, blue = bytes.fromhex(match[1])
            found.append((red, green, blue))
    return found


def _of_png(data: bytes, named: str) -> list[Colour]:
    """The list of colours (PLTE) of an indexed PNG, else the colours of its pixels."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=["PNG"])
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{named} is too large; give a PNG of at most 2048 x 2048 pixels")
            image.load()
    except ValueError:
        raise
    except Exception as error:  # Pillow raises many types when a file is damaged
        raise ValueError(f"{named} is broken: it is no PNG that can be read") from error
    if image.mode == "P":
        flat = image.getpalette("RGB") or []
        hidden = _transparent(image.info.get("transparency"))
        rows = [tuple(flat[i : i + 3]) for i in range(0, len(flat) // 3 * 3, 3)]
        return [row for at, row in enumerate(rows) if at not in hidden]  # pyrefly: ignore
    pixels = image.convert("RGBA")
    counted = pixels.getcolors(pixels.width * pixels.height) or []
    found = {ink[:3] for _, ink in counted if ink[3]}  # pyrefly: ignore
    return sorted(found)  # pyrefly: ignore


def _transparent(info: object) -> set[int]:
    """The entries of an indexed PNG that are wholly transparent."""
    if isinstance(info, bytes):
        return {at for at, alpha in enumerate(info) if alpha == 0}
    return {info} if isinstance(info, int) else set()


def _lines(data: bytes) -> list[str]:
    return [line.strip() for line in data.decode("utf-8-sig", "replace").splitlines()]


def _three(words: list[str], named: str, line: str) -> Colour:
    """The first three words as levels."""
    numbers = [int(word) if word.isdecimal() and len(word) <= 3 else -1 for word in words[:3]]
    if len(numbers) < 3 or not all(0 <= number <= 255 for number in numbers):
        told = printable(line if len(line) <= 40 else f"{line[:37]}...")
        raise ValueError(f"{named} is broken: {told!r} is no colour such as 255 128 0")
    return numbers[0], numbers[1], numbers[2]


def _as_png(colours: Colours, transparent: bool) -> bytes:
    """One row of pixels, one for each entry."""
    from PIL import Image

    transparent = transparent and len(colours) < MOST
    entries = [(0, 0, 0), *colours] if transparent else list(colours)
    image = Image.new("P", (len(entries), 1))
    image.putpalette([level for entry in entries for level in entry])
    image.putdata(list(range(len(entries))))
    file = io.BytesIO()
    more = {"transparency": 0} if transparent else {}
    image.save(file, "PNG", optimize=False, **more)  # pyrefly: ignore
    return file.getvalue()


_READERS: dict[str, Callable[[bytes, str], list[Colour]]] = {
    ".gpl": _of_gpl,
    ".pal": _of_pal,
    ".hex": _of_hex_file,
    ".png": _of_png,
}
