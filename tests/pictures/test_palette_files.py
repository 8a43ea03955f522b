"""Palette files: what is written is read back, other programs' forms are read, bad ones refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from PIL import Image

from noisewise.pictures.palette_files import (
    ENDINGS,
    Colours,
    check_ending,
    palette_of,
    read_palette,
    write_palette,
    written_out,
)

FEW: Colours = ((0, 0, 0), (255, 0, 77), (29, 43, 83), (255, 241, 232))
FULL: Colours = tuple((i, 255 - i, i * 7 % 256) for i in range(256))

RIFF = b"data" + struct.pack("<IHH", 12, 0x300, 2) + bytes([0, 0, 0, 0, 255, 0, 77, 0])


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("colours", [FEW, FULL, FEW[:2]], ids=["few", "full", "two"])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_written_palette_is_read_back(
    tmp_path: Path, ending: str, colours: Colours, transparent: bool
) -> None:
    path = tmp_path / f"mine{ending}"
    write_palette(path, colours, transparent)
    assert read_palette(path) == colours


def test_colours_written_out_are_read_back() -> None:
    assert palette_of(written_out(FULL)) == FULL
    assert palette_of("#000000, #FFFFFF #000000") == ((0, 0, 0), (255, 255, 255))


def test_the_png_has_a_transparent_entry_where_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    write_palette(path, FEW, transparent=True)
    with Image.open(path) as image:
        assert image.mode == "P"
        rgba = image.convert("RGBA")
        row = [rgba.getpixel((x, 0)) for x in range(rgba.width)]
    assert row == [(0, 0, 0, 0), *((*colour, 255) for colour in FEW)]


def test_pillow_reads_a_gimp_palette_as_we_do(tmp_path: Path) -> None:
    from PIL.GimpPaletteFile import GimpPaletteFile

    path = tmp_path / "mine.gpl"
    write_palette(path, FEW)
    with path.open("rb") as file:
        flat, mode = GimpPaletteFile(file).getpalette()
    assert mode == "RGB"
    assert [tuple(flat[i : i + 3]) for i in range(0, 12, 3)] == list(FEW)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (
            "gimp.gpl",
            b"GIMP Palette\r\nName: x\r\nColumns: 2\r\n# by me\r\n  0   0   0 Black\r\n"
            b"255\t0 77\tred  one\r\n",
        ),
        ("no_head.gpl", b"GIMP Palette\n0 0 0\n255 0 77"),
        ("jasc.pal", b"JASC-PAL\n0100\n2\n0 0 0\n255 0 77\n"),
        ("with_alpha.pal", b"JASC-PAL\r\n0100\r\n2\r\n0 0 0 255\r\n255 0 77 255\r\n"),
        ("lospec.hex", b"000000\nff004d\n"),
        ("marks.hex", b"\xef\xbb\xbf#000000\r\n#FF004D\r\n"),
        ("opacity.hex", b"00000000 000000ff ff004dff"),
        ("riff.pal", b"RIFF\x18\0\0\0PAL " + RIFF),
        ("chunks.pal", b"RIFF\x22\0\0\0PAL offl\1\0\0\0\0\0" + RIFF),
    ],
)
def test_other_programs_files_are_read(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert read_palette(path) == ((0, 0, 0), (255, 0, 77))


def test_the_colours_of_a_png_are_a_palette(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    image.putpixel((0, 0), (255, 0, 77, 255))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.save(tmp_path / "rgba.png")
    assert read_palette(tmp_path / "rgba.png") == ((0, 0, 0), (255, 0, 77))
    grey = Image.new("L", (2, 1), 7)
    grey.putpixel((0, 0), 200)
    grey.save(tmp_path / "grey.png")
    assert read_palette(tmp_path / "grey.png") == ((7, 7, 7), (200, 200, 200))


BROKEN = {
    "one.hex": (b"ff0000\nff0000\n", "has one colour"),
    "empty.gpl": (b"", "is empty"),
    "blank.hex": (b" \n\n", "is empty"),
    "no_colours.gpl": (b"GIMP Palette\n#\n", "has no colour"),
    "not_gimp.gpl": (b"hello\n1 2 3\n", "begins with the line GIMP Palette"),
    "word.gpl": (b"GIMP Palette\n1 2 x\n", "'1 2 x' is no colour"),
    "large.gpl": (b"GIMP Palette\n1 2 256\n", "is no colour"),
    "short.pal": (b"JASC-PAL\n0100\n3\n1 2 3\n", "tells of 3 colours and has 1"),
    "head.pal": (b"PAL\n0100\n1\n1 2 3\n", "begins with JASC-PAL"),
    "cut.pal": (b"RIFF\0\0\0\0PAL data\x0c\0\0\0\0\3\2\0\0", "no whole list"),
    "tiny.pal": (b"RIFF", "no whole list"),
    "endless.pal": (b"RIFF\0\0\0\0PAL data\0\0\0\0", "no whole list"),
    "word.hex": (b"black\n", "'black' is no colour"),
    "escape.hex": (b"\x1b[31m\n", "is no colour"),
    "broken.png": (b"\x89PNG\r\n\x1a\nnothing", "is no PNG that can be read"),
    "many.hex": ("".join(f"{i:06x}\n" for i in range(257)).encode(), "has 257 colours"),
    "kind.txt": (b"000000\nffffff\n", "ends in .gpl, .pal, .hex or .png"),
    "kind.ase": (b"ASEF", "ends in .gpl, .pal, .hex or .png"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_palette_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    data, says = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match="palette") as refused:
        palette_of(str(tmp_path / name))
    told = str(refused.value)
    assert says in told
    assert told.isprintable()
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    "given",
    [
        "missing.gpl",
        ".",
        "#12",
        "#gggggg #000000",
        "#000000",
        "a\0b.gpl",
        "x" * 5000 + ".gpl",
        "#000000,,#ffffff",
        "#000000,#ffffff,",
    ],
)
def test_what_is_no_palette_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="palette"):
        palette_of(given)


def test_a_pipe_or_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "folder.gpl").mkdir()
    with pytest.raises(ValueError, match="is not a file"):
        read_palette(tmp_path / "folder.gpl")


def test_an_unknown_ending_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.gpl, \.pal, \.hex or \.png"):
        check_ending(tmp_path / "mine.act")
    with pytest.raises(ValueError, match=r"ends in"):
        write_palette(tmp_path / "sub" / "mine", FEW)
    assert not (tmp_path / "sub").exists()
