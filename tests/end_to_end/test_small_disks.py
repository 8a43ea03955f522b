"""A small disk under every command: a sentence, nothing cut; with more room, the same command ends.

What a full disk must not do is to change a file that was there: it stays, byte for byte.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from forked import Ended, run, stopped_in_training
from killing import Workshop, leftovers, traces
from noisewise.scaling import calibrate
from small_disk import fill, resize, small_disk

BUDGETS = {"train": "160images", "distill": "96images"}
_WRITTEN_AGAIN = ("log.jsonl", ".lock", "run.json", "run-copy.json")  # by a training
_ADAPTS = find_spec("peft") is not None


@dataclass(frozen=True)
class Case:
    """A command that writes on a disk.

    Attributes:
        words: of the command, for a workshop and a place on the disk.
        needs: a run that is copied to the disk first: "teacher" or "whole"; "" for none.
    """

    words: Callable[[Workshop, Path], list[str | Path]]
    needs: str = ""


def training(verb: str) -> Callable[[Workshop, Path], list[str | Path]]:
    return lambda shop, disk: [*shop.command(verb, disk / "run", BUDGETS[verb])[3:]]


def adapting(shop: Workshop, disk: Path) -> list[str | Path]:
    words = ["adapt", shop.root / "teacher", shop.root / "blobs.npz", "--out", disk / "adapted"]
    return [*words, "--budget", "32images", "--config", shop.root / "adapt.json"]


CASES = {
    "train": Case(training("train")),
    "distill": Case(training("distill"), "teacher"),
    "adapt": Case(adapting),
    "inspect": Case(lambda s, d: ["inspect", s.root / "blobs.npz", "--out", d / "sheet.png"]),
    "sample": Case(lambda s, d: ["sample", d / "run", "-n", "64", "--scale", "8"], "whole"),
    "sample into a folder": Case(
        lambda s, d: [
            *("sample", s.root / "whole", "-n", "24", "--scale", "8"),
            *("--out", d / "many", "--overwrite"),
        ]
    ),
    "evaluate": Case(lambda s, d: ["evaluate", d / "run", "-n", "16"], "whole"),
    "report": Case(lambda s, d: ["report", d / "run", "-n", "64"], "whole"),
    "lr advise": Case(
        lambda s, d: [
            *("lr", "advise", s.root / "measured.json", "--batch", "64"),
            *("--plot", d / "advice.png"),
        ]
    ),
    "lr curves": Case(lambda s, d: ["lr", "curves", "--out", d / "curves.svg"]),
    "lowrank --write": Case(
        lambda s, d: [
            *("lowrank", s.root / "matrix.npy", "--rank", "40"),
            *("--write", d / "factors.safetensors"),
        ]
    ),
    "lowrank --plot": Case(
        lambda s, d: ["lowrank", s.root / "matrix.npy", "--rank", "4", "--plot", d / "values.png"]
    ),
    "train --save-config": Case(
        lambda s, d: [
            *("train", s.root / "blobs.npz", "--dry-run", "--out", s.root / "none"),
            *("--save-config", d / "settings.json"),
        ]
    ),
}
NAMES = [name for name in CASES if name != "adapt" or _ADAPTS]
_LONG = ("distill", "adapt", "report", "lr curves")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """What the commands need, on a disk with room enough, and what each gives there."""
    shop = Workshop.make(tmp_path_factory.mktemp("small"))
    np.save(shop.root / "matrix.npy", np.random.default_rng(0).normal(size=(120, 80)))
    measure(shop.root / "measured.json")
    run(*shop.command("train", shop.root / "teacher", BUDGETS["train"])[3:]).ended()
    shutil.copytree(shop.root / "teacher", shop.root / "whole")
    run(*shop.command("distill", shop.root / "whole", BUDGETS["distill"])[3:]).ended()
    return shop


def measure(path: Path) -> None:
    """A measurement of a small regression."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)

    def loss(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return (net(x[:, :6])[:, 0] - x.sum(1)).square().mean()

    calibrate(model, loss, list(torch.randn(64, 16, 8)), optimizer).save(path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room, to be filled."""
    with small_disk(tmp_path / "disk", 40_000) as disk:
        yield disk


def files(place: Path) -> dict[str, bytes]:
    """Every file but the ballast."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != ".ballast"
    }


def same(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Each earlier file is whole; log and run.json may be newer ones."""
    for name, content in before.items():
        if name.endswith(_WRITTEN_AGAIN):
            assert len(after[name]) >= min(len(content), 2)
            if name.endswith(".json"):
                json.loads(after[name])
        else:
            is_whole = after.get(name) == content
            assert is_whole, f"{name} was cut or removed"
    assert not [name for name in after if name.endswith(".tmp") or "/.new-" in name], list(after)


def try_with_little_room(case: Case, shop: Workshop, disk: Path, kilobytes: int) -> Ended:
    """Do it with that room; then with enough, which must end well."""
    if case.needs and not (disk / "run").exists():
        shutil.copytree(shop.root / case.needs, disk / "run")
    words = case.words(shop, disk)
    before = files(disk)
    ballast = fill(disk, kilobytes)
    full = run(*words)
    if full.code:
        assert full.code == 2, full
        full.refused("No space left on device")
        same(before, files(disk))
    ballast.unlink()
    run(*words).ended()
    return full


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in _LONG)) for n in NAMES]
)
def test_a_full_disk_under_every_command(name: str, shop: Workshop, disk: Path) -> None:
    """Twice: where nothing was drawn before, and where the file of an earlier call lies."""
    full = try_with_little_room(CASES[name], shop, disk, 0)
    assert full.code == (0 if name == "evaluate" else 2)
    if name in ("train", "distill"):
        stage = {"train": "teacher", "distill": "generator"}[name]
        assert traces(disk / "run", stage) == traces(shop.root / "whole", stage)
        assert leftovers(disk / "run") == []
    elif name != "adapt":
        try_with_little_room(CASES[name], shop, disk, 4)


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [1, 2, 4, 8, 16, 40])
@pytest.mark.parametrize("name", NAMES)
def test_a_disk_of_one_to_forty_megabytes(
    name: str, megabytes: int, shop: Workshop, tmp_path: Path
) -> None:
    """With a larger net, whose checkpoints fill a disk; a tiny one where the run would not fit."""
    case, big = CASES[name], large(shop)
    # Without what would fill such a disk before anything begins.
    unused = shutil.ignore_patterns("checkpoints", "cache")
    with small_disk(tmp_path / "disk", 1000 * megabytes) as disk:
        if case.needs:
            try:
                shutil.copytree(big.root / case.needs, disk / "run", ignore=unused)
            except (OSError, shutil.Error):
                shutil.rmtree(disk / "run")
                big = shop
                shutil.copytree(big.root / case.needs, disk / "run", ignore=unused)
        before = files(disk)
        words = case.words(big, disk)
        full = run(*words)
        if full.code:
            full.refused("No space left on device")
            same(before, files(disk))
        resize(disk, 400_000)
        run(*words).ended()
        if name in ("train", "distill"):
            stage = {"train": "teacher", "distill": "generator"}[name]
            assert traces(disk / "run", stage) == traces(big.root / "whole", stage)


def large(shop: Workshop) -> Workshop:
    """The same workshop with a larger net; made once."""
    big = Workshop(shop.root / "large")
    if big.root.exists():
        return big
    Workshop.make(big.root)
    settings = json.loads((big.root / "train.json").read_text())
    (big.root / "train.json").write_text(json.dumps({**settings, "widths": [48, 96]}))
    for name in ("matrix.npy", "measured.json"):
        shutil.copy(shop.root / name, big.root / name)
    run(*big.command("train", big.root / "teacher", BUDGETS["train"])[3:]).ended()
    shutil.copytree(big.root / "teacher", big.root / "whole")
    run(*big.command("distill", big.root / "whole", BUDGETS["distill"])[3:]).ended()
    return big


def mount(*words: str | Path) -> None:
    """Change a mount; skips the test where that is not allowed."""
    command = ["mount", *map(str, words)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this mount cannot be changed here")


def test_a_disk_that_becomes_read_only_in_the_middle_of_training(
    shop: Workshop, disk: Path
) -> None:
    folder = disk / "run"
    words = training("train")(shop, disk)
    command = stopped_in_training(words, folder)
    # A disk with open files cannot be closed, a mount of it can: what is opened by name meets it.
    mount("--bind", folder, folder)
    try:
        mount("-o", "remount,bind,ro", folder)
        before = files(folder)
        command.go_on()
        command.wait().refused("Read-only file system", "what was saved before is kept")
        same(before, files(folder))
        run(*words).refused("Read-only file system")
        run("sample", folder).refused()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    run(*words).ended()
    assert traces(folder, "teacher") == traces(shop.root / "teacher", "teacher")
    assert leftovers(folder) == []


@pytest.mark.slow
def test_a_disk_that_fails_in_the_middle_of_training(shop: Workshop, tmp_path: Path) -> None:
    """An ext4 that is shut after an error: nothing is written any more, by open files neither."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * 2**20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mount("-o", "loop", image, disk)
    words, folder = training("train")(shop, disk), disk / "run"
    try:
        command = stopped_in_training(words, folder)
        mount("-o", "remount,abort", disk)
        command.go_on()
        command.wait().refused()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    mount("-o", "loop", image, disk)
    try:
        run(*words).ended()
        assert traces(folder, "teacher") == traces(shop.root / "teacher", "teacher")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
