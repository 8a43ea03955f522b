"""`noisewise powers`: answers, JSON, one sentence for every mistake, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from noisewise.app import cli


def ask(*words: str) -> int:
    return cli.main(["powers", *words])


def test_one_line_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("10^11", "11^10") == 0
    assert capsys.readouterr().out == (
        "10^11 > 11^10: the left side is 100000000000 and the right side is 25937424601.\n"
    )


def test_json_of_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("27^1000000", "9^1500000", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sign"] == 0
    assert found["relation"] == "="
    assert found["method"] == "common root"
    assert found["ln_ratio"] == [0.0, 0.0]
    assert set(found) == {
        "left", "right", "sign", "relation", "reason", "method", "bits", "times", "ln_ratio",
    }  # fmt: skip


def test_explanation_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("10^11", "11^10", "--explain") == 0
    text = capsys.readouterr().out
    for title in ("Compute it", "See the pattern", "Prove it"):
        assert title in text
    assert ask("--json", "10^11", "11^10", "--explain") == 0
    found = json.loads(capsys.readouterr().out)
    assert [step["level"] for step in found["explanation"]] == ["compute", "pattern", "proof"]
    assert found["explanation"][2]["lines"][-1] in text


def test_several_are_put_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("70!", "10^100", "2^333") == 0
    assert capsys.readouterr().out == "10^100 < 70! < 2^333\n"
    assert ask("70!", "10^100", "2^333", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["order"] == ["10^100", "70!", "2^333"]
    assert [step["sign"] for step in found["steps"]] == [-1, -1]


def test_several_are_explained_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("70!", "10^100", "2^333", "--explain") == 0
    text = capsys.readouterr().out
    assert text.startswith("10^100 < 70! < 2^333\n")
    assert "So ln(70!) > 230.439 > 100 * 2.303 > 100 ln 10." in text
    assert "So 333 ln 2 > 333 * 0.693 > 230.440 > ln(70!)." in text
    assert ask("3", "2", "1", "--explain", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [[step["level"] for step in one] for one in found["explanations"]] == [["proof"]] * 2
    assert ask("3", "2", "1", "--level", "primary") == 0
    assert "Compute it" in capsys.readouterr().out


def test_levels_of_schools(capsys: pytest.CaptureFixture[str]) -> None:
    titles = {"primary": "Compute it", "middle": "See the pattern", "high": "Prove it"}
    for level, title in titles.items():
        assert ask("10^11", "11^10", "--level", level) == 0
        text = capsys.readouterr().out
        assert [t for t in titles.values() if t in text] == [title]
    assert ask("e^pi", "pi^e", "--level", "middle") == 0
    assert "There is no table for this question" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("10^11", "11^10"),
        ("7/2^(9/2)", "9/2^(7/2)"),
        ("70!", "10^100", "2^333"),
        ("10^10^10", "2^10", "googolplex"),
        ("10^-5", "e^-7"),
        ("(10^100)^(10^100 + 1)", "(10^100 + 1)^(10^100)"),
        ("2", "2"),
    ],
)
def test_figures(words: tuple[str, ...], tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a.png", "b.svg", "c.svg"):
        assert ask(*words, "--plot", str(tmp_path / "new" / name)) == 0
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert min(picture.size) > 200
        assert len(picture.convert("L").getcolors(1000) or ()) > 20
    assert (tmp_path / "new" / "b.svg").read_bytes() == (tmp_path / "new" / "c.svg").read_bytes()
    assert "</svg>" in (tmp_path / "new" / "b.svg").read_text()


@pytest.mark.parametrize("words", [("10^11", "11^10"), ("2.5^3.5", "3.5^2.5")])
def test_each_level_gets_its_own_panel(tmp_path: Path, words: tuple[str, str]) -> None:
    panels = {"primary": "Compute", "middle": "See the pattern", "high": "Prove"}
    for level in ("all", *panels):
        file = tmp_path / f"{level}.svg"
        assert ask(*words, "--level", level, "--plot", str(file)) == 0
        found = [name for name, title in panels.items() if f"<!-- {title}" in file.read_text()]
        assert found == (list(panels) if level == "all" else [level])


def test_bars_for_primary_pupils_have_digits_and_no_logarithms(tmp_path: Path) -> None:
    file = tmp_path / "bars.svg"
    assert ask("2^10", "3^6", "--level", "primary", "--plot", str(file)) == 0
    text = file.read_text()
    assert "4 digits" in text
    assert "3 digits" in text
    assert "10^" not in text
    assert "number of digits" in text


def test_a_figure_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert ask("2", "3", "--plot", str(tmp_path / "file" / "a.png")) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "a.png" in err


def test_negative_numbers_are_no_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("-2^3", "-(1/2)^3") == 0
    assert capsys.readouterr().out.startswith("-2^3 < -(1/2)^3")
    assert ask("-sqrt(2)", "-7/5") == 0
    assert capsys.readouterr().out.startswith("-sqrt(2) < -7/5")
    assert ask("--2", "-Sqrt(2)", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sign"] == 1


def test_a_power_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command line holds some 100,000 characters; a number may have more."""
    (tmp_path / "n.txt").write_text("7" * 200_000 + "\n")
    assert ask(f"@{tmp_path / 'n.txt'}", "10^200000") == 0
    out = capsys.readouterr().out
    assert "<" in out
    assert len(out) < 400
    assert ask("@/nowhere/n.txt", "3") == 2
    assert "/nowhere/n.txt cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["2^3"], "give two powers"),
        ([], "give two powers"),
        (["2^", "3"], "position 3"),
        (["2^x", "3"], "'x' is a name"),
        (["2", "3", "--jsn"], "perhaps you meant --json"),
        (["1,5", "3"], "write a point before decimals"),
        (["1.000", "3"], "may mean 1 or 1000"),
        (["3^^^4", "3"], "more levels than can be counted"),
        (["2", "3", "--plot", "x.gif"], "name a file that ends in .svg or .png"),
        (["2^^60", "3", "--plot", "/nowhere/x.png"], "leave out --plot"),
        (["-2", "3", "--plot", "/nowhere/x.png"], "numbers above 0 only"),
        (["2", "3", "--level", "college"], "college"),
        (["0^-1", "3"], "divides by zero"),
    ],
)
def test_mistakes_are_one_sentence_and_code_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("noisewise powers: ")


def test_neither_help_nor_an_answer_needs_torch_or_numpy() -> None:
    program = (
        "import sys; from noisewise.app.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(99 if {'torch', 'numpy'} & set(sys.modules) else code)"
    )
    for words in (["powers", "--help"], ["powers", "10^11", "11^10"]):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True)
        assert done.returncode == 0, done.stderr


def test_the_front_page_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "powers" in capsys.readouterr().out
