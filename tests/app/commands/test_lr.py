"""`noisewise lr`: text, JSON and pictures from a saved measurement; complaints in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from noisewise.app import cli
from noisewise.scaling import calibrate


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real measurement of a small regression."""
    torch.manual_seed(0)
    model = nn.Linear(6, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.98))

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        return (net(x[:, :6])[:, 0] - x.sum(1)).square().mean()

    for x in torch.randn(150, 16, 8):
        optimizer.zero_grad()
        loss(model, x).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("lr") / "m.json"
    calibrate(model, loss, list(torch.randn(64, 16, 8)), optimizer).save(path)
    return path


def test_advise_as_text_json_and_picture(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["lr", "advise", str(saved), "--batch", "64"]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert text.startswith("learning rate")
    assert "That is" in text.splitlines()[1]
    assert "not used" not in text
    assert cli.main([*words, "--verbose"]) == 0
    assert "not used       linear" in capsys.readouterr().out
    for ending in ("svg", "png"):
        picture = tmp_path / f"advice.{ending}"
        assert cli.main([*words, "--hold", "trajectory", "--json", "--plot", str(picture)]) == 0
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        values = json.loads(out)
        assert values["rule"] == "square root"
        assert values["ratio"] == pytest.approx(2)
        assert values["plot"] == str(picture)
        assert picture.stat().st_size > 5000
    drawn = (tmp_path / "advice.svg").read_text()
    for word in ("your rate", "direct measurement", "one-step optimum", "preconditioned"):
        assert word in drawn


def test_a_tuned_rate_and_its_batch_override_the_measurements(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["lr", "advise", str(saved), "--batch", "64", "--lr", "0.5", "--batch0", "64", "--json"]
    assert cli.main(words) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["lr"] == pytest.approx(0.5)
    assert values["lr0"] == 0.5


def test_several_files_another_epsilon_and_an_average(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = json.loads(saved.read_text())
    later["ended"] = 0.7
    for point in later["curve"]:  # later in the training a larger batch could go faster
        share = (point["batch"] / 16) ** 0.3
        for name in ("value", "low", "high"):
            point["ratio"][name] *= share
        point["slope"] *= share
    second = tmp_path / "later.json"
    second.write_text(json.dumps(later))

    def asked(*words: str) -> dict:
        assert cli.main(["lr", "advise", *words, "--batch", "64", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    one, two = asked(str(saved)), asked(str(second))
    both = asked(str(saved), str(second))
    assert both["ratio"] == pytest.approx((one["ratio"] * two["ratio"]) ** 0.5)
    assert both["low"] < min(one["lr"], two["lr"]) < max(one["lr"], two["lr"]) < both["high"]
    assert "when_measured" in one["warning_codes"]
    assert "when_measured" not in both["warning_codes"]
    more = asked(str(saved), "--epsilon", "1e-3", "--ema", "0.999")
    assert more["epsilon"] == 1e-3
    assert more["lr"] > one["lr"]
    assert more["ema"] == pytest.approx(0.999**4)
    assert cli.main(["lr", "advise", str(saved), "--batch", "64", "--unit", "labels"]) == 2
    assert "counts examples, not labels" in capsys.readouterr().err


def test_curves_show_the_surge_and_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "curves.svg"
    assert cli.main(["lr", "curves", "--out", str(picture), "--json"]) == 0
    aligned, diagonal = json.loads(capsys.readouterr().out)["panels"]
    peaks = [line["peak"] for line in aligned["lines"]]
    assert peaks[0] is not None
    assert peaks[-1] is None
    assert all(line["peak"] is None for line in diagonal["lines"])
    assert "epsilon 0.03" in picture.read_text()
    assert cli.main(["lr", "curves", "--out", str(picture), "--epsilons", "0", "1"]) == 0
    assert "falls beyond" in capsys.readouterr().out


def test_watch_once(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lr", "watch", str(saved), "--once"]) == 0
    assert "batch 16" in capsys.readouterr().out
    assert cli.main(["lr", "watch", str(saved), "--once", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lr", "advise", "none.json", "--batch", "8"], "cannot be read"),
        (["lr", "advise", "SAVED", "--batch", "0"], "above 0"),
        (["lr", "advise", "SAVED", "--batch", "-8"], "above 0"),
        (["lr", "advise", "SAVED"], "--batch"),
        (["lr", "advise", "SAVED", "--batch", "8", "--hold", "time"], "--hold"),
        (["lr", "advise", "SAVED", "--batch", "8", "--plot", "x.gif"], "ends in"),
        (["lr", "advise", "SAVED", "--batch", "8", "--plot", "no/such/x.svg"], "no folder"),
        (["lr", "curves"], "--out"),
        (["lr", "curves", "--out", "x.svg", "--epsilons", "-1"], "0 or more"),
        (["lr", "watch", "none.json", "--once"], "cannot be read"),
        (["lr", "watch", "SAVED", "--every", "0"], "use 0.1 to 86400 seconds"),
        (["lr", "find"], "advise, branch, warmup, curves, watch"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    words: list[str], said: str, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([str(saved) if word == "SAVED" else word for word in words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_help_of_all_three(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lr"]) == 0
    overview = capsys.readouterr().out
    for name in ("advise", "curves", "watch"):
        assert name in overview
        assert cli.main(["lr", name, "--help"]) == 0
        assert "--json" in capsys.readouterr().out
