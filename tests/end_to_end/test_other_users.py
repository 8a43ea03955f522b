"""Runs of another user, and every umask: files have the permissions of any new file."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from forked import Where, run
from killing import Workshop, contents

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user"
)
NOBODY = Where(user=65534)


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    """A place that all users may read, with a run that root made without an umask."""
    root = Path(tempfile.mkdtemp(prefix="noisewise-users-"))  # pytest's own is closed to others
    root.chmod(0o755)
    shop = Workshop.make(root)
    np.save(root / "matrix.npy", np.random.default_rng(0).normal(size=(12, 12)))
    everything(shop, root / "open", Where(umask=0o022))
    yield shop
    shutil.rmtree(root)


UMASKS = [0o022, *(pytest.param(umask, marks=pytest.mark.slow) for umask in (0o077, 0o000))]


def everything(shop: Workshop, folder: Path, where: Where) -> None:
    """Each command that writes: a run, and files beside it."""
    for verb, budget in (("train", "64images"), ("distill", "32images")):
        run(*shop.command(verb, folder, budget)[3:], where=where).ended()
    beside = folder.with_name(f"{folder.name}-beside")
    for words in (
        ["sample", folder, "-n", "4"],
        ["sample", folder, "-n", "2", "--out", beside / "many"],
        ["report", folder, "-n", "64"],
        ["inspect", shop.root / "blobs.npz", "--out", beside / "sheet.png"],
        ["lowrank", shop.root / "matrix.npy", "--rank", "2", "--write", beside / "w.safetensors"],
    ):
        run(*words, where=where).ended()


@pytest.mark.parametrize("umask", UMASKS)
def test_files_follow_the_umask(umask: int, shop: Workshop) -> None:
    """Safetensors alone gives files that only their owner can read, `tempfile` too."""
    folder = shop.root / ("open" if umask == 0o022 else f"umask-{umask:03o}")
    if not folder.exists():
        everything(shop, folder, Where(umask=umask))
    found = [folder, *folder.rglob("*"), *folder.with_name(f"{folder.name}-beside").rglob("*")]
    names = {path.suffix for path in found}
    assert names >= {".json", ".safetensors", ".png", ".npy", ".html", ".md", ".jsonl"}
    for path in found:
        usual = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == usual, path


def test_a_run_of_somebody_else_can_be_used_and_not_changed(shop: Workshop) -> None:
    folder, own = shop.root / "open", shop.root / "nobody"
    own.mkdir()
    os.chown(own, 65534, 65534)
    before = contents(folder)
    for words in (
        ["sample", folder, "-n", "4", "--out", own / "sheet.png"],
        ["sample", folder, "-n", "4", "--teacher", "--out", own / "many"],
        ["evaluate", folder, "-n", "16"],
        ["report", folder, "-n", "64", "--out", own / "page.html"],
    ):
        run(*words, where=NOBODY).ended()
    assert {path.name for path in own.iterdir()} == {"sheet.png", "many", "page.html"}
    for words in (
        ["sample", folder, "-n", "4"],
        ["report", folder, "-n", "64"],
        shop.command("train", folder, "960images")[3:],
        shop.command("distill", folder, "320images")[3:],
        shop.command("train", shop.root / "new", "64images")[3:],
    ):
        run(*words, where=NOBODY).refused("cannot be read or written (Permission denied)")
    assert contents(folder) == before
    assert not (shop.root / "new").exists()


@pytest.mark.parametrize("closed", ["", "run.json", "generator/model.safetensors", "samples"])
def test_a_run_that_is_closed_to_others_is_named(closed: str, shop: Workshop) -> None:
    folder, own = shop.root / "closed", shop.root / "out.png"
    shutil.copytree(shop.root / "open", folder)
    try:
        place = folder / closed if closed else folder
        place.chmod(0o700 if place.is_dir() else 0o600)
        said = run("sample", folder, "--out", own, where=NOBODY).refused("Permission denied")
        assert str(place) in said
    finally:
        shutil.rmtree(folder)
