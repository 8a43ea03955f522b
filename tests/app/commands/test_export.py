"""`noisewise export`: what it prints, and one sentence where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import noisewise
from export_models import UNET, models
from noisewise.app import cli
from noisewise.app.engines import in_words
from noisewise.training.models.model_folder import save_model


def test_it_says_what_was_written_and_how_near_it_is(
    distilled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(distilled_run), str(tmp_path / "mine.pt2"), "--to", "pt2"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'mine.pt2'}: the generator as pt2" in said
    assert "largest difference" in said
    assert cli.main(words) == 2  # it is there already
    assert cli.main([*words, "--overwrite", "--teacher", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["model"] == "teacher"
    assert values["difference"] < 1e-5
    assert values["num_bytes"] == (tmp_path / "mine.pt2").stat().st_size
    program = torch.export.load(tmp_path / "mine.pt2").module()
    teacher = noisewise.load(distilled_run, "teacher")
    x, sigma = teacher.noise(0, 0, 3), torch.tensor([0.5, 1.0, 9.0])
    given = {"x": x, "sigma": sigma}
    labels = teacher.labels(0, 0, 3)
    if labels is not None:
        given["label"] = labels
    expected = teacher(x, sigma, labels)  # pyrefly: ignore
    torch.testing.assert_close(program(**given), expected)


def test_the_times_of_both_engines_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra: export)")
    generator = models({**UNET, "num_classes": 3})[1]
    save_model(tmp_path / "mine", generator.denoiser, generator.config)
    words = [
        "export",
        str(tmp_path / "mine"),
        str(tmp_path / "mine.onnx"),
        "--to",
        "onnx",
        "--json",
    ]
    assert cli.main(words) == 0
    seconds = json.loads(capsys.readouterr().out)["seconds_per_picture"]
    assert set(seconds) == {"ONNX Runtime", "torch"}
    assert all(value > 0 for value in seconds.values())
    said = in_words(seconds)
    assert said.startswith(min(seconds, key=lambda name: seconds[name]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "{out}.onnx"], "--to"),
        (["{run}", "{out}", "--to", "gguf"], "gguf"),
        (["{run}", "{out}.pt", "--to", "pt2"], "name it"),
        (["{out}", "{out}.pt2", "--to", "pt2"], "is not a run"),
        (["{run}", "{out}.pt2", "--to", "pt2", "--push", "me/x"], "--push goes with --to hub"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    words: list[str],
    message: str,
    teacher_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [word.format(run=teacher_run, out=tmp_path / "new") for word in words]
    assert cli.main(["export", *given]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


def test_an_upload_without_a_login_writes_nothing(
    distilled_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    words = ["export", str(distilled_run), str(tmp_path / "hub"), "--to", "hub", "--push", "me/x"]
    assert cli.main(words) == 2
    assert "run `hf auth login` once" in capsys.readouterr().err
    assert not (tmp_path / "hub").exists()
