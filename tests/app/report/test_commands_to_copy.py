"""The commands on the page work in the folder that holds the run, and name no other folder."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from noisewise.app.report import next_commands as commands
from noisewise.app.report.next_commands import next_commands
from noisewise.training.run.begin import new_run
from noisewise.training.run.run_json import FORMAT

NUMBERS = dict.fromkeys(("num_pictures", "num_training", "num_held_out", "size", "channels"), 1)


@pytest.mark.parametrize(
    ("pictures", "shown"),
    [
        ("sets/cats", "../cats"),
        ("sets/runs/cats", "cats"),
        ("sets", ".."),
        ("sets/runs/a run/cats", "a run/cats"),
        ("client/cats", "cats"),
    ],
)
def test_pictures_are_named_from_the_folder_of_the_run(
    tmp_path: Path, pictures: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, path = tmp_path / pictures, tmp_path / "sets" / "runs" / "a run"
    place.mkdir(parents=True)
    data = {"source": str(place), "fingerprint": "", **NUMBERS}
    info = {"format": FORMAT, "seed": 0, "data": data, "train": {"budget": "5m"}, "stages": {}}
    run = new_run(path, info)
    [(_, line)] = next_commands(run)
    _, verb, folder, out, name, *_ = shlex.split(line)
    assert (verb, folder, out, name) == ("train", shown, "--out", "a run")
    monkeypatch.chdir(path.parent)
    assert Path(name).resolve() == path
    if "client" not in pictures:
        assert Path(folder).resolve() == place


@pytest.mark.parametrize(
    ("beside", "shown"),
    [
        ("work/.venv/bin", "../.venv/bin/noisewise"),
        ("work/runs/venv/bin", "venv/bin/noisewise"),
        ("work/secret/.venv/bin", "noisewise"),
        ("opt/python/bin", "noisewise"),
    ],
)
def test_the_program_is_found_in_an_environment_above(
    tmp_path: Path, beside: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / beside / "noisewise"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert commands._program(tmp_path / "work" / "runs") == shown


def test_a_generator_can_be_sent(tmp_path: Path) -> None:
    """The page gets the run's name; without a generator there is nothing to send."""
    finished = {"finished": True, "budget": "5m"}
    for stages in ({"teacher": finished}, {"teacher": finished, "generator": finished}):
        path = tmp_path / f"my run {len(stages)}"
        data = {"source": "pictures", "fingerprint": "", **NUMBERS}
        info = {"format": FORMAT, "seed": 0, "data": data, "train": {"budget": "5m"}}
        run = new_run(path, {**info, "stages": stages})
        lines = [line for _, line in next_commands(run) if " export " in line]
        if len(stages) == 1:
            assert not lines
            continue
        _, *words = shlex.split(lines[0])
        assert words == ["export", "my run 2", "my run 2.html", "--to", "html"]
