"""What `make torture` counts, and when it kills."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from torture import (
    A_RUN,
    HERE,
    PLACES,
    SUITE,
    added,
    code_digest,
    is_wanted,
    left,
    parts,
    shares,
    where,
)


def test_kills_fall_anywhere_and_a_fifth_of_them_into_the_last_tenth() -> None:
    runs = [shares(np.random.default_rng(number)) for number in range(200)]
    assert all(len(run) == A_RUN and any(share > 0.9 for share in run) for run in runs)
    found = np.concatenate(runs)
    assert found.min() < 0.01
    assert found.max() > 0.99
    assert np.histogram(found, 10, (0, 1))[0].min() > 50  # of 100 where they are even
    late = {run.index(max(run)) for run in runs}
    assert late == set(range(A_RUN)), "not always the last one of a run"


def test_what_was_tried_with_other_code_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "src" / "noisewise" / "a.py"
    file.parent.mkdir(parents=True)
    file.write_text("x = 1")
    before = code_digest(tmp_path)
    assert code_digest(tmp_path) == before
    file.write_text("x = 2")
    assert code_digest(tmp_path) != before
    file.rename(file.with_name("b.py")).write_text("x = 1")
    assert code_digest(tmp_path) != before


def line(**values: object) -> str:
    return json.dumps({"stage": "teacher", "images": 0, "seconds": 0.5, **values}) + "\n"


def test_where_a_process_died_and_how_long_the_next_one_takes(tmp_path: Path) -> None:
    took = {"start": 2.0, "training": 10.0, "end": 3.0}
    assert where(tmp_path, "train", b"") == PLACES[0]
    assert left(tmp_path, "train", took) == 15.0
    log = tmp_path / "log.jsonl"
    log.write_text(line() + line(images=480, seconds=8.0))
    assert where(tmp_path, "train", b"") == PLACES[1]
    assert where(tmp_path, "train", log.read_bytes()) == PLACES[0]
    assert left(tmp_path, "train", took) == 10.0
    assert left(tmp_path, "distill", took) == 15.0
    log.write_text(log.read_text() + line(images=960, seconds=9.0, kind="finished"))
    assert where(tmp_path, "train", b"") == PLACES[2]
    assert left(tmp_path, "train", took) == 5.0
    assert parts(tmp_path, "train", 12.0) == {"start": 3.0, "training": 8.0, "end": 1.0}


def test_notes_are_added_up() -> None:
    notes = ["1 at the start, 3 in training, 1 at the end, 0 inside a write", "2 at the start"]
    expected = "3 at the start, 3 in training, 1 at the end, 0 inside a write"
    assert added(notes) == expected


def test_rows_can_be_chosen_and_their_tests_exist() -> None:
    names = [what for what, *_ in SUITE]
    assert [name for name in names if is_wanted(name, ["BROWSER"])] == names[-1:]
    assert all(is_wanted(name, [""]) for name in names)
    assert not is_wanted("kills in train", ["disks", "clocks"])
    assert len(set(names)) == len(names)
    assert all((HERE / file).is_file() for *_, files in SUITE for file in files)
