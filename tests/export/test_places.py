"""What an export may be called, where it may go, and what is said where it may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from export_models import UNET, models
from noisewise.export import FORMATS, FormatName, write
from noisewise.export.export import check_place
from noisewise.export.formats import format_named


def test_the_listing_and_the_names_agree() -> None:
    assert tuple(known.name for known in FORMATS) == get_args(FormatName)


def test_a_place_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    (tmp_path / "model.onnx").write_text("earlier")
    (tmp_path / "empty").mkdir()
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "README.md", "config.json", "model.safetensors"):
        (run / name).write_text("{}")
    for to, place, message in (
        ("onnx", "model.pt", r"ends in \.onnx; name it .*model\.onnx"),
        ("onnx", "model", r"name it .*model\.onnx"),
        ("pt2", "model.onnx", r"ends in \.pt2"),
        ("onnx", "model.onnx", "is there already; name another place, or add --overwrite"),
        ("hub", "file", "is a file; name a new folder"),
        ("hub", "folder", "holds something else; name a new folder"),
        ("diffusers", "run", "holds something else"),
    ):
        for overwrite in (False, True):
            if overwrite and "already" in message:
                continue
            with pytest.raises(ValueError, match=message):
                check_place(format_named(to), tmp_path / place, overwrite)
    check_place(format_named("hub"), tmp_path / "empty", False)
    check_place(format_named("onnx"), tmp_path / "model.onnx", True)
    with pytest.raises(ValueError, match="unknown format 'gguf'; use one of html, onnx, pt2"):
        write(tmp_path, "gguf", tmp_path / "x")
    assert (tmp_path / "folder" / "thesis.tex").read_text() == "mine"


def test_a_missing_package_is_one_sentence() -> None:
    strange = replace(format_named("onnx"), packages=("no_such_package",))
    with pytest.raises(ValueError, match=r"needs no_such_package; install it: pip install 'noise"):
        strange.writer()


def test_a_refused_export_leaves_what_was_there(tmp_path: Path) -> None:
    """The check comes before the file takes its place."""
    (tmp_path / "model.pt2").write_text("earlier")
    generator = models(UNET)[1]
    # An if on a value has no graph.
    generator.denoiser.forward = lambda x, sigma, label: x if float(x.sum()) > 0 else -x
    with pytest.raises(Exception):  # noqa: B017, PT011 (any failure of tracing or of the check)
        write(generator, "pt2", tmp_path / "model.pt2", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "earlier"


def test_a_disk_without_room_is_named_by_the_place(tmp_path: Path) -> None:
    """What is written beside the place first, under another name, is nobody's business."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra: export)")
    import resource

    place, before = tmp_path / "page.html", resource.getrlimit(resource.RLIMIT_FSIZE)
    model = models(UNET)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))  # a page has 2 MB and more
    try:
        with pytest.raises(OSError, match=r"page\.html") as found:
            write(model, "html", place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found.value.filename == str(place)
    assert list(tmp_path.iterdir()) == []
