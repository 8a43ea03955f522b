"""The folder for the Hub: it loads elsewhere, and its card says what people must know."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import noisewise
from export_models import CLASSES, UNET, models
from noisewise.export import write
from noisewise.export.card import header
from noisewise.export.source import Source, open_source
from noisewise.training.models.models import Generator, Teacher

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra: hub)")


@pytest.fixture(scope="module")
def folder(exported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator of the run, exported."""
    place = tmp_path_factory.mktemp("hub") / "arrows"
    done = write(exported_run, "hub", place, license="cc0-1.0", note="For arrows only.")
    assert done.difference == 0
    return place


def test_the_folder_has_what_people_expect(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *("README.md", "config.json", "model.safetensors", "samples.png"),
        *("teacher/config.json", "teacher/model.safetensors"),  # the second call needs it
    }


def test_it_draws_the_same_pictures_elsewhere(
    folder: Path, exported_run: Path, tmp_path: Path
) -> None:
    """Moved, loaded by the mixin and by noisewise itself, also through links as hubs keep files."""
    from noisewise.export import HubModel

    generator = noisewise.load(exported_run)
    linked = tmp_path / "snapshots" / "abc"
    for path in folder.rglob("*"):
        if path.is_file():
            place = linked / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)
    for place in (folder, linked):
        published = HubModel.from_pretrained(place)
        assert isinstance(published.model, Generator)
        for found in (published.model, noisewise.load(place)):
            for label, calls in ((None, None), (None, 2), ("up", None)):
                expected = generator.sample(5, 2, label, calls)
                assert torch.equal(found.sample(5, 2, label, calls), expected)


def test_it_goes_round_and_keeps_its_card(folder: Path, tmp_path: Path) -> None:
    from noisewise.export import HubModel

    HubModel.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for name in ("README.md", "model.safetensors", "config.json", "teacher/model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_code_of_the_card_runs_elsewhere(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "arrows")
    card = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    code += f"assert list(pictures.shape) == [16, 1, 8, 8]\nmodel.sample(label={CLASSES[2]!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "pictures.png") as drawn:
        assert drawn.size[0] > 400
    for option in re.findall(r"`(model\.sample.*?)`", card):
        model = noisewise.load(folder)
        assert eval(option, {"model": model}).shape[0] == 16


def test_the_card_is_read_by_the_hub_library(folder: Path) -> None:
    card = hub.ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "cc0-1.0"
    assert data["library_name"] == "noisewise"
    assert {"noisewise", "one-step"} <= set(data["tags"])
    for words in (
        "# arrows",
        "For arrows only.",
        "Licence: cc0-1.0",
        "| training pictures | 1,200; fingerprint 0123456789abcdef |",
        "| classes | left, right, up |",
        "| generator, one call, from its teacher's pictures |",
        "![64 pictures, drawn with seed 0](samples.png)",
    ):
        assert words in card.text
    assert "/home/me" not in card.content


def test_any_licence_gives_a_header_that_yaml_reads() -> None:
    import yaml

    model = models(UNET)[1]
    for given, expected in (
        ("", {"license": "unknown"}),
        ("MIT", {"license": "mit"}),
        ('My "Studio": all #rights', {"license": "other", "license_name": "my-studio-all-rights"}),
        ("- no\n  yaml: [", {"license": "other", "license_name": "no-yaml"}),
    ):
        text = header(Source(model, "x", license=given), "noisewise")
        read = yaml.safe_load(text.strip().strip("-"))
        assert {name: read.get(name) for name in expected} == expected


def test_a_teacher_is_published_with_its_sampler(exported_run: Path, tmp_path: Path) -> None:
    write(exported_run, "hub", tmp_path / "teacher", teacher=True)
    again = noisewise.load(tmp_path / "teacher")
    assert isinstance(again, Teacher)
    assert torch.equal(again.sample(3), noisewise.load(exported_run, "teacher").sample(3))
    card = (tmp_path / "teacher" / "README.md").read_text()
    assert "5 network calls for each picture" in card
    assert "The authors gave no licence" in card
    assert "generator" not in card.split("## Quality")[1].split("Floors say")[0]


def test_without_a_login_an_upload_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from noisewise.export import HubModel

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"not logged in .* run `hf auth login` once") as refused:
        HubModel.from_pretrained(folder).push_to_hub("me/arrows")
    assert "\n" not in str(refused.value)


def test_a_model_outside_of_a_run_has_a_card_too(tmp_path: Path) -> None:
    generator = replace(models(UNET)[1].config)
    assert generator.kind == "generator"
    write(models(UNET)[1], "hub", tmp_path / "bare")
    card = (tmp_path / "bare" / "README.md").read_text()
    assert "| training pictures | unknown |" in card
    assert open_source(tmp_path / "bare").name == "bare"
