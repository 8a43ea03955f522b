"""Folders with transparency: it is kept where a folder has it, and sprites keep their pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.pictures.alpha import alpha_of, choose, num_clear, premultiplied, seen
from noisewise.pictures.checkerboard import DARK, LIGHT, on_checkerboard
from noisewise.pictures.flips import suggest_flip
from noisewise.pictures.near_duplicates import near_duplicates
from noisewise.pictures.noise_curve import noise_curve
from noisewise.pictures.pictures import Pictures, load_pictures

PALETTE = np.array([[220, 40, 40], [40, 200, 60], [60, 80, 220], [240, 220, 80]], np.uint8)


def sprite(seed: int, width: int = 16, height: int = 16) -> np.ndarray:
    """Pixel art: hard edges, a few colours, white under what is transparent."""
    g = np.random.default_rng(seed)
    pixels = np.full((height, width, 4), 255, np.uint8)
    pixels[..., 3] = 0
    body = g.random((height - 2, width - 2)) < 0.6
    inside = pixels[1:-1, 1:-1]
    inside[body, :3] = PALETTE[g.integers(0, 4, int(body.sum()))]
    inside[body, 3] = 255
    return pixels


def write(folder: Path, pictures: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"p{i:03}.png")
    return folder


def sprites(folder: Path, count: int = 20, scale: int = 1) -> Path:
    return write(folder, [sprite(i).repeat(scale, 0).repeat(scale, 1) for i in range(count)])


def soft(seed: int, side: int = 32) -> np.ndarray:
    """A disc with an antialiased edge."""
    row, column = np.mgrid[:side, :side] - (side - 1) / 2
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., :3] = PALETTE[seed % 4]
    edge = 6 + seed % 7 - np.hypot(row, column)
    pixels[..., 3] = (255 * np.clip(edge / 3 + 0.5, 0, 1)).astype(np.uint8)
    return pixels


def notes(pictures: Pictures, start: str) -> list[str]:
    return [note for note in pictures.notes if note.startswith(start)]


# ------------------------------------------------------------------ kept, or laid flat


def test_sprites_come_back_exactly_and_without_hidden_colours(tmp_path: Path) -> None:
    pictures = load_pictures(sprites(tmp_path / "x"))
    assert (pictures.channels, pictures.alpha) == (4, "binary")
    for i, image in enumerate(pictures.images):
        expected = sprite(i)
        assert np.array_equal(image, expected * (expected[..., 3:] > 0))
    assert len(notes(pictures, "transparency is kept (100% of the pictures have it)")) == 1


def test_a_background_still_lays_them_flat(tmp_path: Path) -> None:
    folder = sprites(tmp_path / "x")
    for background, level in (("white", 255), ("black", 0)):
        pictures = load_pictures(folder, background=background)
        assert (pictures.channels, pictures.alpha) == (3, "none")
        assert (pictures.images[:, 0, 0] == level).all()
    assert np.array_equal(
        load_pictures(folder, channels=3).images, load_pictures(folder, background="white").images
    )


@pytest.mark.parametrize(("count", "channels"), [(1, 3), (2, 4)])
def test_a_tenth_of_the_pictures_decides(tmp_path: Path, count: int, channels: int) -> None:
    opaque = [sprite(i) | np.array([0, 0, 0, 255], np.uint8) for i in range(20 - count)]
    pictures = load_pictures(write(tmp_path / "x", [*opaque, *map(sprite, range(90, 90 + count))]))
    assert pictures.channels == channels
    assert len(notes(pictures, "transparency is laid flat: only 1 of 20")) == (channels == 3)
    assert load_pictures(tmp_path / "x", channels=4).channels == 4


def test_nothing_is_said_of_opaque_pictures(tmp_path: Path) -> None:
    opaque = [sprite(i) | np.array([0, 0, 0, 255], np.uint8) for i in range(20)]
    assert not any("transparen" in n for n in load_pictures(write(tmp_path / "x", opaque)).notes)
    forced = load_pictures(tmp_path / "x", channels=4)
    assert (forced.channels, num_clear(forced.images)) == (4, 0)


def test_soft_edges_stay_soft_and_hard_ones_hard_when_they_are_reduced(tmp_path: Path) -> None:
    gentle = load_pictures(write(tmp_path / "soft", [soft(i) for i in range(20)]), size=16)
    assert gentle.alpha == "soft"
    big = [sprite(i, 32, 32) for i in range(20)]
    hard = load_pictures(write(tmp_path / "hard", big), size=16)
    assert hard.alpha == "binary"
    assert 0 < num_clear(hard.images) == 20


def test_reducing_mixes_no_hidden_colour_in(tmp_path: Path) -> None:
    """Red on hidden white: every visible pixel stays red."""
    folder = tmp_path / "x"
    pictures = []
    for i in range(20):
        pixels = soft(i)
        pixels[..., :3] = np.where(pixels[..., 3:] > 0, [200 - i, 0, 0], 255)
        pictures.append(pixels)
    images = load_pictures(write(folder, pictures), size=12).images
    shown = images[images[..., 3] > 24]
    assert shown[:, 1:3].max() <= 12  # of 255: rounding at low opacity
    assert shown[:, 0].min() >= 150


def test_all_kinds_of_files_with_transparency(tmp_path: Path) -> None:
    """Grey with alpha, palettes with a transparent colour, 16 bits: all become RGBA."""
    folder = tmp_path / "x"
    folder.mkdir()
    for i in range(24):
        image = Image.fromarray(sprite(i))
        if i % 4 == 1:
            image = image.convert("LA")
        if i % 4 == 2:
            data = io.BytesIO()
            image.convert("P", palette=Image.Palette.ADAPTIVE, colors=8).save(
                folder / f"p{i}.png", transparency=0
            )
            assert data.tell() == 0
            continue
        if i % 4 == 3:
            image = image.convert("RGB")
        image.save(folder / f"p{i}.png")
    pictures = load_pictures(folder)
    assert (pictures.channels, len(pictures)) == (4, 24)
    grey = pictures.images[[pictures.names.index(f"p{i}.png") for i in range(1, 24, 4)]]
    assert (grey[..., 0] == grey[..., 2]).all()


def test_crops_keep_transparency(tmp_path: Path) -> None:
    pictures = load_pictures(
        write(tmp_path / "x", [sprite(i, 64, 64) for i in range(16)]), 16, crops=4
    )
    assert (pictures.channels, pictures.alpha, len(pictures)) == (4, "binary", 64)


# ------------------------------------------------------------------ any shape


def test_sprites_of_several_sizes_get_a_border_and_keep_their_pixels(tmp_path: Path) -> None:
    shapes = [(12, 16), (24, 16), (20, 20)]  # width, height
    made = [sprite(i, *shapes[i % 3]) for i in range(21)]
    pictures = load_pictures(write(tmp_path / "x", made))
    assert pictures.images.shape == (21, 24, 24, 4)
    for image, own in zip(pictures.images, made, strict=True):
        height, width = own.shape[:2]
        top, left = (24 - height) // 2, (24 - width) // 2
        inner = image[top : top + height, left : left + width]
        assert np.array_equal(inner, own * (own[..., 3:] > 0))
        assert image[..., 3].sum() == own[..., 3].sum()
    assert notes(pictures, "sprites have 3 sizes: each keeps its own pixels")
    assert notes(pictures, "size 24: every picture fits into it")


def test_enlarged_sprites_of_several_sizes_are_reduced_first(tmp_path: Path) -> None:
    made = [sprite(i, *[(12, 16), (24, 16)][i % 2]) for i in range(20)]
    large = [own.repeat(3, 0).repeat(3, 1) for own in made]
    one = load_pictures(write(tmp_path / "x", made))
    three = load_pictures(write(tmp_path / "y", large))
    assert np.array_equal(one.images, three.images)


def test_a_wide_size_pads_sprites_too(tmp_path: Path) -> None:
    pictures = load_pictures(sprites(tmp_path / "x"), size=(16, 24))
    assert pictures.images.shape == (20, 16, 24, 4)
    assert (pictures.images[:, :, :4] == 0).all()
    assert np.array_equal(pictures.images[0, :, 4:20, 3], sprite(0)[..., 3])


def test_sprites_of_one_size_are_not_padded(tmp_path: Path) -> None:
    pictures = load_pictures(sprites(tmp_path / "x", scale=2))
    assert pictures.images.shape == (20, 16, 16, 4)
    assert not notes(pictures, "sprites have")


@pytest.mark.parametrize(("side", "size", "border"), [(18, None, 1), (24, 32, 4), (16, 32, 0)])
def test_pixels_are_repeated_or_get_a_border_but_are_never_mixed(
    tmp_path: Path, side: int, size: int | None, border: int
) -> None:
    made = [sprite(i, side, side) for i in range(20)]
    images = load_pictures(write(tmp_path / "x", made), size).images
    times = 1 if border else (size or side) // side
    inner = images[:, border : side * times + border, border : side * times + border]
    shown = np.stack(made).repeat(times, 1).repeat(times, 2)
    assert np.array_equal(inner, shown * (shown[..., 3:] > 0))
    assert images.shape[1] == side * times + 2 * border


def test_a_sprite_that_is_too_large_is_reduced_whole(tmp_path: Path) -> None:
    made = [sprite(i, *[(16, 16), (40, 20)][i % 2]) for i in range(20)]
    pictures = load_pictures(write(tmp_path / "x", made), size=32)
    assert (pictures.images.shape, pictures.alpha) == ((20, 32, 32, 4), "binary")


def test_centre_is_still_centre(tmp_path: Path) -> None:
    made = [sprite(i, *[(16, 16), (20, 16)][i % 2]) for i in range(20)]
    pictures = load_pictures(write(tmp_path / "x", made), size=16, crop="centre")
    assert np.array_equal(pictures.images[1, ..., 3], made[1][:, 2:18, 3])


# ------------------------------------------------------------------ arrays


def test_arrays_of_four_channels_and_arrays_with_alpha_are_the_same(tmp_path: Path) -> None:
    made = np.stack([sprite(i) for i in range(20)])
    np.savez(tmp_path / "four.npz", images=made)
    np.savez(tmp_path / "two.npz", images=made[..., :3], alpha=made[..., 3])
    np.savez(tmp_path / "mask.npz", images=made[..., :3], alpha=made[..., 3] > 0)
    np.savez(tmp_path / "share.npz", images=made[..., :3], alpha=made[..., 3] / 255.0)
    one = load_pictures(tmp_path / "four.npz")
    assert (one.channels, one.alpha) == (4, "binary")
    for name in ("two.npz", "mask.npz", "share.npz"):
        assert load_pictures(tmp_path / name).fingerprint == one.fingerprint, name
    assert load_pictures(tmp_path / "four.npz", background="white").channels == 3


def test_pixels_for_models_and_for_judges(tmp_path: Path) -> None:
    pictures = load_pictures(sprites(tmp_path / "x"))
    seen_by_model, shown = pictures.tensor([0, 1]), pictures.shown([0, 1])
    clear = shown[:, 3] < 0
    assert bool((seen_by_model[:, :3].amax(1)[clear] == -1).all())
    levels = np.rint((shown.permute(0, 2, 3, 1).numpy() + 1) * 127.5).astype(np.uint8)
    assert np.array_equal(levels * (levels[..., 3:] > 0), pictures.images[:2])
    spread = float(pictures.tensor(range(20)).std(correction=0))
    assert pictures.sigma_data() == pytest.approx(spread, abs=2e-3)


# ------------------------------------------------------------------ what is measured


def test_measurements_do_not_see_hidden_colours() -> None:
    g = np.random.default_rng(0)
    made = np.stack([sprite(i) for i in range(40)])
    other = np.where(made[..., 3:] > 0, made, g.integers(0, 256, made.shape, np.uint8))
    other[..., 3] = made[..., 3]
    assert np.array_equal(premultiplied(made), premultiplied(other))
    assert noise_curve(made) == noise_curve(other)
    assert suggest_flip(made) == suggest_flip(other)
    twins = np.concatenate([made, other[:3]])
    assert near_duplicates(twins) == near_duplicates(np.concatenate([made, made[:3]])) + [
        (i, 40 + i) for i in range(3)
    ]


def test_what_is_hard_and_what_is_soft() -> None:
    assert seen(Image.fromarray(sprite(0))).hard
    assert not seen(Image.fromarray(soft(0))).hard
    nearly = sprite(0)
    nearly[..., 3] = np.where(nearly[..., 3] > 0, 250, 4)  # as some programs save it
    assert seen(Image.fromarray(nearly)).hard
    ghost = sprite(0)
    ghost[..., 3] //= 2
    assert not seen(Image.fromarray(ghost)).hard
    large = soft(0).repeat(40, 0).repeat(40, 1)  # 1280 x 1280, still soft
    assert not seen(Image.fromarray(large)).hard
    assert alpha_of(soft(0)[None]) == "soft"


def test_nearly_hard_edges_become_hard(tmp_path: Path) -> None:
    made = [sprite(i) for i in range(20)]
    for pixels in made:
        pixels[..., 3] = np.where(pixels[..., 3] > 0, 250, 4)
    assert load_pictures(write(tmp_path / "x", made)).alpha == "binary"


def test_what_decides() -> None:
    hard, gentle = seen(Image.fromarray(sprite(0))), seen(Image.fromarray(soft(0)))
    opaque = seen(Image.new("RGB", (8, 8)))
    assert choose([hard] * 20, "auto", None).alpha == "binary"
    assert choose([hard] * 18 + [gentle] * 2, "auto", None).alpha == "soft"
    assert choose([opaque] * 20, "auto", None).alpha == "none"
    assert choose([opaque] * 20, "auto", 4).alpha == "binary"
    assert choose([gentle] * 20, "auto", 3).alpha == "none"
    assert choose([gentle] * 20, "#ff0000", None).alpha == "none"


def test_a_checkerboard_shows_black_and_white() -> None:
    images = np.zeros((2, 16, 16, 4), np.uint8)
    images[0, 2:5], images[1, 2:5] = (0, 0, 0, 255), 255
    laid = on_checkerboard(images)
    assert laid.shape == (2, 16, 16, 3)
    assert (laid[0, 2:5] == 0).all()
    assert (laid[1, 2:5] == 255).all()
    assert set(np.unique(laid[:, 5:])) == {LIGHT, DARK}
    grey = np.zeros((2, 8, 8, 1), np.uint8)
    assert on_checkerboard(grey) is grey


# ------------------------------------------------------------------ bad input


def test_pictures_without_anything_visible_are_left_out_or_refused(tmp_path: Path) -> None:
    invisible = [np.full((16, 16, 4), (i, 0, 0, 0), np.uint8) for i in range(4)]
    some = load_pictures(write(tmp_path / "x", [*map(sprite, range(20)), *invisible]))
    assert (len(some), len(some.skipped)) == (20, 4)
    assert some.skipped[0].reason == "invisible: alpha is 0 everywhere, or nearly"
    with pytest.raises(ValueError, match=r"no usable picture \(skipped: 20 invisible: alpha is 0"):
        load_pictures(write(tmp_path / "y", invisible * 5))
    np.save(tmp_path / "y.npy", np.stack(invisible * 5))
    with pytest.raises(ValueError, match="invisible: alpha is 0"):
        load_pictures(tmp_path / "y.npy")


@pytest.mark.parametrize("most", [0, 1])
def test_a_mask_of_0_and_1_is_no_opacity(tmp_path: Path, most: int) -> None:
    made = np.stack([sprite(i) for i in range(20)])
    mask = (made[..., 3] > 0).astype(np.uint8) * most
    np.savez(tmp_path / "x.npz", images=made[..., :3], alpha=mask)
    with pytest.raises(ValueError, match="from 0 to 255, or save a mask as bool"):
        load_pictures(tmp_path / "x.npz")


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    made = np.stack([sprite(i) for i in range(20)])
    for alpha in (made[:, :8, :8, 3], made[:19, ..., 3], made):
        np.savez(tmp_path / "x.npz", images=made[..., :3], alpha=alpha)
        with pytest.raises(ValueError, match=r"'alpha' has shape .* give one value a pixel"):
            load_pictures(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", images=made, alpha=made[..., 3])
    with pytest.raises(ValueError, match=r"or leave 'alpha' out"):
        load_pictures(tmp_path / "x.npz")


def test_channels_and_background_that_contradict_each_other(tmp_path: Path) -> None:
    folder = sprites(tmp_path / "x")
    with pytest.raises(ValueError, match=r"background white lays transparency flat, and 4"):
        load_pictures(folder, channels=4, background="white")
    with pytest.raises(ValueError, match=r"2 channels do not work; use 1 .* or 4"):
        load_pictures(folder, channels=2)
