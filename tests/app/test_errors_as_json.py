"""What goes wrong, for programs: JSON on stdout with --json, the sentence on stderr as ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noisewise.app import cli


@pytest.mark.parametrize(
    ("words", "command", "part"),
    [
        ("sample no/such/run --json", "noisewise sample", "is not a run"),
        ("sample --json", "noisewise sample", ""),
        ("trian --json", "noisewise", "perhaps you meant train"),
        ("lr advice m.json --json", "noisewise lr", "perhaps you meant advise"),
        ("sample x --colour --json", "noisewise sample", "there is no flag --colour"),
        ("powers 2^^2^^2( --json", "noisewise powers", ""),
    ],
)
def test_an_error_is_json_too(
    words: str, command: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["command"] == command
    assert found["exit_code"] == 2
    assert part in found["error"]
    assert said.err.strip() == f"{command}: {found['error']}"


def test_what_is_not_the_fault_of_users_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.exit_code(RuntimeError("odd"), "noisewise train", "", True) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 1
    assert "RuntimeError: odd" in found["error"]


@pytest.mark.parametrize("words", ["sample no/such/run", "powers -- --json"])
def test_without_json_stdout_stays_empty(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A word after -- is no flag."""
    assert cli.main(words.split()) == 2
    assert capsys.readouterr().out == ""


def test_a_run_with_nearly_this_name_is_proposed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("demo", "garments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "dmoe").mkdir()  # a folder that is no run
    for typed, meant in (("dmeo", "demo"), ("garment", "garments")):
        for command in ("sample", "evaluate", "report"):
            assert cli.main([command, str(tmp_path / typed)]) == 2
            said = capsys.readouterr().err
            assert f"{tmp_path / typed} is not a run; perhaps you meant {tmp_path / meant}" in said
    for typed in ("something", "dmoe"):
        assert cli.main(["sample", str(tmp_path / typed)]) == 2
        assert "train one first" in capsys.readouterr().err


def test_a_run_in_the_folder_runs_is_proposed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs lie in `runs` in every example; people leave it out."""
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "run.json").write_text("{}")
    for typed in ("demo", "dmeo"):
        assert cli.main(["sample", str(tmp_path / typed)]) == 2
        assert f"perhaps you meant {tmp_path / 'runs' / 'demo'}" in capsys.readouterr().err
    assert cli.main(["sample", str(tmp_path / "other")]) == 2
    assert "train one first" in capsys.readouterr().err
