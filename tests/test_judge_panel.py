"""The judge's panel: pictures are divided, remembered and named as its numbers say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.pictures import (
    damages,
    eye_sheets,
    panel_measures,
    panel_page,
    panel_runs,
    panel_sets,
    panel_tables,
    panel_targets,
    told_by_net,
)
from benchmarks.pictures.panel_readings import Readings
from benchmarks.pictures.panel_sets import Spoilt
from benchmarks.shared import harness
from noisewise.quality import NativeFeatures


def numbered(n: int = 300) -> panel_sets.Pictures:
    """Pictures whose value is their number."""
    images = torch.arange(float(n)).view(n, 1, 1, 1).expand(n, 1, 8, 8) / n
    return panel_sets.Pictures(images, torch.arange(n) % 10)


def test_reference_and_judged_pictures_never_overlap_and_differ_from_draw_to_draw() -> None:
    pictures = numbered()
    first, second = (panel_sets.divide(pictures, 100, seed, 150) for seed in (0, 1))
    for found in (first, second):
        used = torch.cat([found.reference, found.others])[:, 0, 0, 0]
        assert len(found.reference) == 150
        assert len(used.unique()) == len(used)
    assert not torch.equal(first.reference, second.reference)
    assert len(panel_sets.divide(numbered(), 100, 0, 2000).reference) == 200


def test_pictures_cut_out_of_a_white_ground_look_the_same_on_white() -> None:
    axis = torch.linspace(-1, 1, 32)
    radius = (axis[:, None].square() + axis.square()).sqrt()
    cover = ((0.7 - radius) * 8).clamp(0, 1)  # a disc with soft edges of one pixel
    colour = torch.tensor([0.8, -0.4, -0.9]).view(1, 3, 1, 1)
    images = damages.eight_bits(colour * cover + (1 - cover)).clone()
    images[:, :, 15:18, 15:18] = 1.0  # white inside the thing is not the ground
    found = panel_sets.with_opacity(images)
    opacity = (found[:, 3:] + 1) / 2
    on_white = ((found[:, :3] + 1) / 2 * opacity + 1 - opacity) * 2 - 1
    assert float((on_white - images).abs().max()) <= 2.5 / 127.5
    assert float(opacity[0, 0, 0, 0]) == 0
    assert float(opacity[0, 0, 16, 16]) == 1
    assert ((opacity > 0) & (opacity < 1)).any()


def test_the_part_that_is_set_aside_shares_only_what_it_is_compared_with() -> None:
    usual = {o.name for o in panel_runs.outputs(set_aside=False)}
    aside = {o.name for o in panel_runs.outputs(set_aside=True)}
    assert not {name for name in usual if name.startswith(("emoji", "fluent_early"))}
    assert aside & usual == {"fluent_own", "fluent_h35", "fluent_one", "fluent_two"}
    for which in panel_sets.SETS.values():
        open_, hidden = (set(panel_sets.families(which, 3, flag)) for flag in (False, True))
        assert which.opacity or {"blocks", "colour stains"} <= hidden
        assert which.set_aside or not open_ & hidden
        assert which.set_aside or not {"blocks", "colour stains"} & open_


def test_remembered_features_are_those_of_the_extractor() -> None:
    calls: list[int] = []

    def features(images: Tensor) -> Tensor:
        calls.append(len(images))
        return NativeFeatures()(images)

    known = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    remembered = panel_measures.Remembered(features, known)
    mixed = torch.cat([known[3:5], known[:1] / 2])
    assert torch.allclose(remembered(mixed), NativeFeatures()(mixed), atol=1e-6)
    assert calls == [6, 1]


def test_a_net_tells_apart_what_is_too_faint_to_see_and_not_what_is_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(400, 1, 16, 16, generator=generator) * 2 - 1
    images[..., :6] = -1.0  # a black ground, as garments have
    images = damages.eight_bits(images)
    noisy = damages.noise(images[:200], 0.01, generator)
    assert told_by_net.accuracy(noisy, images[200:]) > 0.9
    assert 0.35 < told_by_net.accuracy(images[:200], images[200:], epochs=4) < 0.65


def test_commands_of_a_run_with_the_teacher_of_another(tmp_path: Path) -> None:
    found = panel_runs.commands("garments_short", tmp_path, None)
    assert list(found) == ["generator"]
    assert found["generator"][-2:] == ["--teacher", str(tmp_path / "garments")]


def test_pictures_drawn_by_another_model_are_not_used(tmp_path: Path) -> None:
    output = panel_runs.OUTPUTS[0]
    path = tmp_path / "drawn" / output.set / f"{output.name}.pt"
    path.parent.mkdir(parents=True)
    pixels = torch.full((5, 1, 28, 28), 255, dtype=torch.uint8)
    torch.save({"pixels": pixels, "model": "abc"}, path)
    found = panel_runs.drawn(output, tmp_path / "runs", tmp_path / "drawn", 5)
    assert found is not None
    assert (found.model, float(found.images.min())) == ("abc", 1.0)
    assert panel_runs.drawn(panel_runs.OUTPUTS[1], tmp_path / "runs", tmp_path / "drawn", 5) is None


# ------------------------------------------------------------------------------------------- sheets


def sets_of_three() -> dict[str, Tensor]:
    return {name: torch.full((9, 1, 8, 8), level) for name, level in
            (("dark", -1.0), ("middle", 0.0), ("bright", 1.0))}  # fmt: skip


def test_a_rank_sheet_tells_nothing_and_its_answer_is_stored_with_the_key(tmp_path: Path) -> None:
    eye_sheets.write_rank(tmp_path, "garments_rank_0", sets_of_three(), seed=5, count=4)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["garments_rank_0.png"]
    rows = json.loads((tmp_path / "keys" / "garments_rank_0.json").read_text())["rows"]
    sheet = np.asarray(Image.open(tmp_path / "garments_rank_0.png"))
    height = sheet.shape[0] // 3
    levels = {"dark": 0, "middle": 128, "bright": 255}
    for place, name in enumerate(rows.values()):  # the key says what the row shows
        assert sheet[place * height + height // 2, 60].tolist() == [levels[name]] * 3
    letter = {name: letter for letter, name in rows.items()}
    answers = tmp_path / "answers.json"
    for order in (("bright", "middle", "dark"), ("bright", "dark", "middle")):
        answer = "".join(letter[name] for name in order)
        eye_sheets.add_answer(tmp_path, "garments_rank_0", answer, answers)
    assert eye_sheets.eye("garments", answers) == {"bright": 0.0, "middle": 0.75, "dark": 0.75}
    assert len(json.loads(answers.read_text())["sheets"]) == 1
    assert eye_sheets.eye("tiles", answers) == {}
    with pytest.raises(harness.UsageError, match="each of the letters"):
        eye_sheets.add_answer(tmp_path, "garments_rank_0", "AAB", answers)


def test_a_mix_sheet_counts_right_calls(tmp_path: Path) -> None:
    made, real = torch.full((20, 1, 8, 8), -1.0), torch.full((20, 1, 8, 8), 1.0)
    eye_sheets.write_mix(tmp_path, "garments_mix_x", made, real, 1, "h9_0.3", count=16)
    key = json.loads((tmp_path / "keys" / "garments_mix_x.json").read_text())
    assert len(key["made"]) == 8
    answers = tmp_path / "answers.json"
    eye_sheets.add_answer(
        tmp_path, "garments_mix_x", ",".join(map(str, key["made"])), answers
    )  # fmt: skip
    share = eye_sheets.mixes(answers)["garments_mix_x", "h9_0.3"]
    assert share.value == 1.0
    assert 0.7 < share.low < 0.9
    eye_sheets.add_answer(tmp_path, "garments_mix_x", "", answers)  # none taken for made
    assert eye_sheets.mixes(answers)["garments_mix_x", "h9_0.3"].value == 0.75


# ------------------------------------------------------------------------------------------- tables


def readings_of(tmp_path: Path, judged: list[float]) -> Readings:
    results = harness.Results(tmp_path / "results.json", harness.environment(threads=1))
    names = list(panel_runs.SAMPLERS)
    for k, (name, value) in enumerate(zip(names, judged, strict=False)):
        own = {"part": "output", "set": "garments", "output": name, "draw": 0, "num_images": 500}
        judged_by = {"judged_by": "garments", "measure": "judge"}
        results.add({**own, **judged_by}, {"judge": value, "stamp": "x"}, 1.0)
        trained = {"judged_by": None, "measure": "trained judges"}
        results.add({**own, **trained}, {"severe": float(k), "plain": 1.0 * k}, 1.0)
    for strength, value in ((0.01, 0.2), (0.1, 16.0)):
        for seed in (0, 1, 2):
            own = {"part": "damage", "set": "garments", "damage": "noise", "measure": "judge"}
            setting = {**own, "strength": strength, "seed": seed, "num_images": 500}
            results.add(setting, {"judge": value + seed - 1}, 1.0)
    own = {"part": "damage", "set": "garments", "damage": "undamaged", "measure": "judge"}
    results.add({**own, "strength": 0.0, "seed": 0, "num_images": 500}, {"judge": 0.1}, 1.0)
    results.add(
        {"part": "splits", "set": "garments", "block": 0, "size": 10, "num_images": 500},
        {"judge": [0.5] * 19 + [1.5]}, 1.0,
    )  # fmt: skip
    for subset, value in enumerate((1.0, 3.0)):
        setting = {"part": "choice", "set": "garments", "count": 256, "subset": subset}
        values = {"h9_0.3": value, "h7_0.5": 2.0, "h15_0.3": 0.95, "h35_0.002": 0.1}
        results.add(setting, {"judge": values}, 1.0)
    return Readings(results, [panel_sets.SETS["garments"]], {"garments": 500}, {})


def test_correlations_and_targets_say_what_the_cells_say(tmp_path: Path) -> None:
    found = readings_of(tmp_path, [float(k) for k in range(9)])
    value, low, high, count = found.correlation("judge", "severe") or (0, 0, 0, 0)
    assert (round(value, 6), count) == (1.0, 9)
    assert low <= high
    assert found.correlation("judge", "eye") is None
    text = panel_targets.table(found, set_aside=False)
    held = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in text.splitlines()}
    assert held["garments: rank correlation with the severe judge"] == "yes"
    assert held["garments: noise 0.1, floors"] == "yes"
    assert held["garments: noise 0.01, floors away from undamaged"] == "yes"
    assert held["garments: real, of 100 splits at most 1 floor"] == "yes"
    assert held["of 16 draws of 256 pictures, h9_0.3 before h7_0.5"] == "NO"  # 8 of 16
    assert held["garments: stains 0.4, floors"] == "-"
    wrong = readings_of(tmp_path / "wrong", [9.0 - k for k in range(9)])
    assert "NO" in panel_targets.table(wrong, set_aside=False).splitlines()[2]


def test_the_chosen_sampler_has_at_most_15_calls(tmp_path: Path) -> None:
    found = readings_of(tmp_path, [1.0])
    assert found.chosen("judge", 256) == ["h15_0.3", "h15_0.3"]
    assert found.chosen("judge", 256, near=0.1) == ["h9_0.3", "h15_0.3"]
    assert found.preferred("judge", 256, "h9_0.3", "h7_0.5") == (1, 2)


def test_undamaged_pictures_stand_first_and_strengths_rise(tmp_path: Path) -> None:
    found = readings_of(tmp_path, [1.0])
    lines = panel_tables.damage_table(found, panel_sets.SETS["garments"]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "undamaged", "noise 0.01", "noise 0.1"
    ]  # fmt: skip
    assert found.damages("garments") == [Spoilt("noise", 0.01), Spoilt("noise", 0.1)]
    assert "yes" in panel_tables.orders(found)


def test_the_page_gets_its_tables_and_keeps_its_words() -> None:
    page = "Before.\n\n<!-- panel: splits -->\nold\n<!-- end -->\n\nAfter.\n"
    filled = panel_page.fill(page, {"splits": "| new |"})
    assert filled == "Before.\n\n<!-- panel: splits -->\n\n| new |\n\n<!-- end -->\n\nAfter.\n"
    assert panel_page.fill(filled, {"splits": "| new |"}) == filled
    with pytest.raises(ValueError, match="asks for the table splits"):
        panel_page.fill(page, {})
