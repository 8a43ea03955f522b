"""Drawn sprites are sprites, what is measured of them is true, and lists are read strictly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.pictures.sprite_measures import blind_sheet, on_white, sprite_like
from benchmarks.pictures.sprite_sets import SETS, load
from benchmarks.pictures.sprites import PEER, REAL, checked, options, table
from benchmarks.shared import harness, ours
from benchmarks.shared.sprite_drawings import palette, sprites
from noisewise.pictures.pictures import load_pictures


def test_drawn_sprites_are_all_different_and_on_one_palette() -> None:
    drawn, again = sprites(80), sprites(40)
    assert np.array_equal(drawn[:40], again), "a seed draws the same ones"
    assert len({one.tobytes() for one in drawn}) == 80
    assert not np.array_equal(drawn[:8], sprites(8, seed=1))
    opacity = drawn[..., 3]
    assert set(np.unique(opacity)) == {0, 255}
    assert not drawn[opacity == 0].any()
    known = {tuple(colour) for colour in palette().tolist()}
    assert {tuple(c) for c in drawn[opacity > 0][:, :3].tolist()} <= known
    assert 0.1 < (opacity > 0).mean() < 0.7
    solid = np.pad(opacity > 0, ((0, 0), (1, 1), (1, 1)))
    inside = solid[:, :-2, 1:-1] & solid[:, 2:, 1:-1] & solid[:, 1:-1, :-2] & solid[:, 1:-1, 2:]
    edge = (opacity > 0) & ~inside
    edge[:, [0, -1]] = edge[:, :, [0, -1]] = False
    assert (drawn[edge][:, :3] == palette()[0]).all(), "each has an outline"


def test_noisewise_finds_hard_alpha_and_the_palette_in_them(tmp_path: Path) -> None:
    subject = load("drawn", None, None, tmp_path, most=64)
    found = load_pictures(subject.path)
    assert (found.channels, found.alpha) == (4, "binary")
    assert {tuple(c) for c in subject.palette.tolist()} <= {tuple(c) for c in palette().tolist()}
    real = sprite_like(subject.real, subject.palette)
    assert (real["on_palette"], real["hard_alpha"]) == (1.0, 1.0)
    assert len(subject.training) + len(subject.held_out) == len(subject.real)
    with np.load(subject.peer_path) as stored:
        assert len(stored["images"]) == len(subject.training)
    kept = subject.path.stat().st_mtime_ns
    load("drawn", None, None, tmp_path, most=64)
    assert subject.path.stat().st_mtime_ns == kept


def test_measures_count_what_they_say() -> None:
    pixels = np.zeros((2, 2, 2, 4), np.uint8)
    pixels[0] = [[[255, 0, 0, 255], [254, 0, 0, 255]], [[9, 9, 9, 0], [255, 0, 0, 128]]]
    found = sprite_like(ours.to_images(pixels), torch.tensor([[255, 0, 0]], dtype=torch.uint8))
    assert found["on_palette"] == 7 / 8  # what is transparent is on it
    assert found["hard_alpha"] == 7 / 8
    assert found["clear"] == 5 / 8
    assert found["colours"] == 1.0  # 2 and 0
    white = on_white(ours.to_images(pixels))
    assert white[1].min() == 1
    assert float(white[0, 1, 1, 1]) == pytest.approx(1 - 2 * 128 / 255, abs=1e-5)


def test_a_blind_sheet_tells_only_in_its_second_file(tmp_path: Path) -> None:
    real = ours.to_images(sprites(20))
    blind_sheet(tmp_path, "x", torch.full((12, 4, 32, 32), 1.0), real)
    told = json.loads((tmp_path / "x.json").read_text())
    made = next(iter(told.values()))
    assert len(made) == 12
    sheet = np.asarray(Image.open(tmp_path / "x.png"))
    row, column = made[0]
    piece = sheet[(row - 1) * 99 : (row - 1) * 99 + 96, (column - 1) * 99 : (column - 1) * 99 + 96]
    assert (piece == 255).all(), "the white ones are those that the file names"


def test_the_table_has_real_pictures_first_and_the_peer_last(tmp_path: Path) -> None:
    results = harness.Results(tmp_path / "r.json", harness.environment(1))
    results.add({"set": "drawn", "stage": REAL}, {"on_palette": 1.0}, 0.0)
    for who, start in ((PEER.name, "nothing"), ("one call", "base"), ("teacher", "nothing")):
        setting: dict[str, object] = {
            "set": "drawn", "minutes": 5.0, "start": start, "seed": 0, "stage": who,
            "num_images": 9,
        }  # fmt: skip
        results.add(setting, {"floors": 2.0, "on_palette": 0.5}, 0.0)
    rows = table(results, "drawn", 9).splitlines()[2:]
    drawn_by = [row.split("|")[3].strip() for row in rows]
    assert drawn_by == [REAL, "teacher", "one call", PEER.name]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sets", "drawn,,tiles"], "has an empty place: use tiles"),
        (["--sets", "cats"], "Unknown set cats"),
        (["--starts", "base,"], "has an empty place"),
        (["--who", "theirs"], "Unknown project theirs: use ours, peer"),
        (["--share", "1"], "between 0 and 1"),
    ],
)
def test_what_the_program_cannot_do_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(harness.UsageError, match=says):
        checked(options().parse_args(words))


def test_numbers_with_an_empty_place_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options().parse_args(["--minutes", "5,,30"])
    assert ended.value.code == 2
    assert "invalid list of numbers value: '5,,30'" in capsys.readouterr().err


def test_the_rgba_emoji_need_their_folder(tmp_path: Path) -> None:
    with pytest.raises(harness.UsageError, match="needs --rgba FOLDER"):
        load("fluent", None, None, tmp_path)
    assert set(SETS) == {"tiles", "people", "monsters", "fluent", "drawn"}
