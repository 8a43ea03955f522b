"""Each odd file is decoded to what it shows, or refused with its reason; exact pixels are known."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageCms

from noisewise.pictures import bit_depth, decode, framing, sources
from noisewise.pictures.bit_depth import Ranges
from noisewise.pictures.decode import UnusableError
from noisewise.pictures.framing import Frame, Framed
from noisewise.pictures.headers import quiet_pillow
from picture_files import colour


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode in memory."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(
    data: bytes, size: int = 32, name: str = "x.png", ranges: Ranges | None = None
) -> Framed:
    """Decode from memory."""
    return decode.decode(io.BytesIO(data), name, Frame(size), ranges)


def refusal(data: bytes, name: str = "x.png") -> str:
    """Return the code with which a file is refused."""
    with quiet_pillow(), pytest.raises(UnusableError) as caught:
        decode.decode(io.BytesIO(data), name, Frame(32))
    return caught.value.code


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Build a PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_plain_picture_of_the_size_is_untouched() -> None:
    image = colour(0)
    picture = decoded(encoded(image, "PNG"))
    np.testing.assert_array_equal(picture.pixels, np.asarray(image))
    assert picture.done == frozenset()
    assert not picture.grey


def test_16_bit_grey_keeps_its_mean_where_pillow_clips_to_white() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    data = encoded(Image.fromarray(ramp), "PNG")
    picture = decoded(data)
    assert picture.grey
    assert abs(picture.pixels.mean() - 127.5) < 0.5
    with Image.open(io.BytesIO(data)) as image:
        naive = np.asarray(image.convert("RGB"))
    assert naive.mean() > 250, "Pillow no longer clips: the special case may go"


def test_12_bit_pictures_use_their_own_range() -> None:
    ramp = np.linspace(0, 4095, 32 * 32).reshape(32, 32).astype(np.uint16)
    data = encoded(Image.fromarray(ramp), "TIFF")
    ranges = bit_depth.ranges([decode.extent(io.BytesIO(data), "x.tif")])
    assert ranges.of("I;16").high == 4095
    assert abs(decoded(data, ranges=ranges).pixels.mean() - 127.5) < 0.5


def test_float_tiff() -> None:
    ramp = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    data = encoded(Image.fromarray(ramp), "TIFF")
    assert abs(decoded(data).pixels.mean() - 127.5) < 0.5
    for bad in (np.nan, np.inf):
        ramp[0, 0] = bad
        assert refusal(encoded(Image.fromarray(ramp), "TIFF")) == sources.NOT_FINITE


def test_hidden_colours_under_transparency_become_white() -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:16, :, 3] = 255
    picture = decoded(encoded(Image.fromarray(pixels), "PNG"))
    assert (picture.pixels[:16] == [200, 0, 0]).all()
    assert (picture.pixels[16:] == 255).all()
    assert framing.ALPHA in picture.done


def test_half_transparent_grey_stays_grey() -> None:
    pixels = np.zeros((32, 32, 2), np.uint8)
    pixels[..., 1] = 128
    picture = decoded(encoded(Image.fromarray(pixels, "LA"), "PNG"))
    assert picture.grey
    assert abs(int(picture.pixels[0, 0, 0]) - 127) <= 1


def test_palette_with_transparency_does_not_turn_black() -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 16, 32))
    picture = decoded(encoded(image, "PNG", transparency=0))
    assert (picture.pixels[:, :16] == 255).all()
    assert (picture.pixels[:, 16:] == [0, 0, 255]).all()


def test_exif_rotation() -> None:
    image = Image.new("RGB", (64, 32), "black")
    image.paste("white", (0, 0, 16, 32))  # white at the left ...
    exif = Image.Exif()
    exif[0x0112] = 6  # ... which stands for the top
    picture = decoded(encoded(image, "JPEG", exif=exif, quality=95), name="x.jpg")
    assert framing.ROTATED in picture.done
    # 32 x 64 upright: the middle square is all black, as rows 16 to 48 are
    assert picture.pixels.max() < 30
    exif[0x0112] = 1
    plain = decoded(encoded(image, "JPEG", exif=exif), name="x.jpg")
    assert framing.ROTATED not in plain.done


def test_exif_rotation_is_a_quarter_clockwise() -> None:
    image = Image.new("RGB", (32, 32), "black")
    image.paste("white", (0, 0, 16, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = decoded(encoded(image, "PNG", exif=exif)).pixels
    assert (pixels[:16] == 255).all()
    assert (pixels[16:] == 0).all()


def test_cmyk_jpeg() -> None:
    image = Image.new("RGB", (64, 64), (200, 30, 30)).convert("CMYK")
    pixels = decoded(encoded(image, "JPEG", quality=95), name="x.jpg").pixels
    assert np.abs(pixels.astype(int) - [200, 30, 30]).max() <= 6


def test_profiles_are_converted_and_broken_ones_ignored() -> None:
    image = Image.new("RGB", (32, 32), (90, 120, 200))
    broken = decoded(encoded(image, "PNG", icc_profile=b"nonsense"))
    assert (broken.pixels == [90, 120, 200]).all()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = decoded(encoded(image, "PNG", icc_profile=srgb))
    assert (same.pixels == [90, 120, 200]).all()
    assert framing.PROFILE not in same.done


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_truncated_jpeg_is_named_though_verify_passes_it(keep: float) -> None:
    data = encoded(colour(1, 200, 200), "JPEG")
    cut = data[: int(len(data) * keep)]
    with Image.open(io.BytesIO(cut)) as image:
        image.verify()
    assert refusal(cut, "x.jpg") == sources.TRUNCATED


def test_truncated_png() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "PNG")
    assert refusal(data[: len(data) // 2]) == sources.TRUNCATED


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x.jpg", sources.NOT_PICTURE),
        ("x.txt", sources.OTHER_FILE),
        ("x", sources.OTHER_FILE),
        ("x.svg", sources.UNSUPPORTED),
        ("x.pdf", sources.UNSUPPORTED),
    ],
)
def test_what_is_no_image(name: str, reason: str) -> None:
    assert refusal(b"<svg>no picture at all</svg>" * 20, name) == reason


def test_postscript_is_never_run() -> None:
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n"
    assert refusal(header + b"showpage\n%%EOF\n", "x.eps") == sources.UNSUPPORTED


def test_lying_extension_is_read_by_content() -> None:
    image = colour(3)
    picture = decoded(encoded(image, "PNG"), name="x.jpg")
    np.testing.assert_array_equal(picture.pixels, np.asarray(image))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_animations(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), c) for c in ("red", "blue", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    picture = decoded(data, name=f"x.{kind.lower()}")
    assert framing.ANIMATED in picture.done
    assert (picture.pixels == [255, 0, 0]).all()


def test_one_pixel_and_thin_lines_are_too_small() -> None:
    assert refusal(encoded(Image.new("RGB", (1, 1)), "PNG")) == sources.TOO_SMALL
    assert refusal(encoded(Image.new("RGB", (5000, 2)), "PNG")) == sources.TOO_SMALL


def test_huge_aspect_keeps_the_middle() -> None:
    image = Image.new("RGB", (4000, 40), "black")
    image.paste("white", (1960, 0, 2040, 40))
    picture = decoded(encoded(image, "PNG"))
    assert framing.CROPPED in picture.done
    assert (picture.pixels == 255).all()


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_bombs_are_refused_by_their_header(side: int) -> None:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    assert refusal(data) == sources.TOO_LARGE


def test_resizing_is_antialiased() -> None:
    # White noise 512 -> 32: an ideal box leaves 1/16 of the deviation; a point sample all of it.
    noise = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    spread = decoded(encoded(Image.fromarray(noise), "PNG")).pixels.std()
    assert spread < 1.5 * noise.std() / 16
    assert noise[::16, ::16].std() > 10 * noise.std() / 16


def test_large_jpeg_drafts_stay_true() -> None:
    image = colour(5, 1600, 1200)
    data = encoded(image, "JPEG", quality=95)
    exact = image.crop((200, 0, 1400, 1200)).resize((32, 32), Image.Resampling.LANCZOS)
    difference = decoded(data, name="x.jpg").pixels.astype(int) - np.asarray(exact)
    assert np.abs(difference).mean() < 1.0


@pytest.mark.parametrize(("stored", "size"), [(64, 16), (64, 32), (48, 16), (16, 32)])
def test_pixel_art_is_resized_exactly(stored: int, size: int) -> None:
    art = np.random.default_rng(1).choice([0, 90, 255], (16, 16, 3)).astype(np.uint8)
    factor = stored // 16
    image = Image.fromarray(np.kron(art, np.ones((factor, factor, 1), np.uint8)))
    picture = decoded(encoded(image, "PNG"), size)
    repeat = size // 16
    np.testing.assert_array_equal(
        picture.pixels, np.kron(art, np.ones((repeat, repeat, 1), np.uint8))
    )
    smooth = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    if stored != size and repeat == 1:
        assert len(np.unique(smooth)) > len(np.unique(art)), "smoothing would invent colours"


def test_line_art_is_not_taken_for_pixel_art() -> None:
    image = Image.new("1", (301, 301), 1)
    image.paste(0, (100, 0, 103, 301))
    picture = decoded(encoded(image, "PNG"))
    assert picture.grey
    assert len(np.unique(picture.pixels)) > 2, "a thin line has to become grey, not vanish"


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_never_raises_anything_else(seed: int) -> None:
    generator = np.random.default_rng(seed)
    kinds = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "JPEG2000")
    with quiet_pillow():
        for kind in kinds:
            good = encoded(colour(seed, 48, 48), kind)
            for _ in range(15):
                data = bytearray(good)
                for place in generator.integers(0, len(data), 8):
                    data[place] = generator.integers(0, 256)
                with suppress(UnusableError):
                    picture = decoded(bytes(data), name=f"x.{kind.lower()}")
                    assert picture.pixels.shape[:2] == (32, 32)
