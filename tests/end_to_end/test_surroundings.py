"""No home, no temporary folder, no settings folder: commands need only what they are given.

As in containers with a read-only system and a user without a name. Each case is a fresh process,
because libraries look at these places when they are imported.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from killing import Workshop
from small_disk import close_disk, fill, small_disk

# Carries out several commands one after the other; importing torch for each would take minutes.
_SEVERAL = """
import json, sys
from noisewise.app import cli
for words in json.loads(sys.argv[1]):
    code = cli.main(words)
    print("code", code, *words[:2], file=sys.stderr, flush=True)
"""
# Where libraries keep files of their own; each is set to a place that cannot be used.
_PLACES = ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCH_HOME", "HF_HOME")


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """Pictures, settings and a matrix."""
    shop = Workshop.make(tmp_path / "shop")
    np.save(shop.root / "matrix.npy", np.random.default_rng(0).normal(size=(12, 12)))
    return shop


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that can be filled and closed."""
    with small_disk(tmp_path / "disk", 100) as disk:
        yield disk


def every(shop: Workshop, out: Path) -> list[list[str]]:
    """Commands of each kind: nets, pictures, plots, pages."""
    run = out / "run"
    words = [
        shop.command("train", run, "48images")[3:],
        shop.command("distill", run, "32images")[3:],
        ["sample", run, "-n", "4"],
        ["evaluate", run, "-n", "16"],
        ["report", run, "-n", "64"],
        ["inspect", shop.root / "blobs.npz", "--out", out / "sheet.png"],
        ["lr", "curves", "--out", out / "curves.svg"],
        ["lowrank", shop.root / "matrix.npy", "--rank", "2", "--plot", out / "values.png"],
    ]
    return [[str(word) for word in command] for command in words]


def ended(
    shop: Workshop,
    out: Path,
    env: dict[str, str],
    before: tuple[str, ...] = (),
    cwd: str = "/",
    verbs: tuple[str, ...] = (),
) -> None:
    """Carry them all out in one process, in these surroundings; each ends well."""
    out.mkdir(exist_ok=True)
    commands = [words for words in every(shop, out) if not verbs or words[0] in verbs]
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    # A disk where Python may write its own compiled files would hide what others write.
    plain = {**kept, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*before, sys.executable, "-c", _SEVERAL, json.dumps(commands)],
        env={**plain, **env}, cwd=cwd, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if line.startswith("code ")]
    assert said == [f"code 0 {' '.join(words[:2])}" for words in commands], done.stderr
    assert "Traceback" not in done.stderr


def test_no_place_of_ones_own(shop: Workshop, tmp_path: Path) -> None:
    """All are set to folders that do not exist, and the working folder is the root of the disk."""
    nowhere = dict.fromkeys((*_PLACES, *_CACHES), "/proc/nowhere")
    ended(shop, tmp_path / "out", nowhere, verbs=("train", "sample"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["not set", "a file", "full", "read-only"])
@pytest.mark.parametrize("name", ["HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "all"])
def test_a_place_that_cannot_be_used(
    name: str, how: str, shop: Workshop, disk: Path, tmp_path: Path
) -> None:
    if how == "a file":
        place = disk / "file"
        place.touch()
    else:
        place = disk / "folder"
        place.mkdir()
    if how == "full":
        fill(disk, 0)
    if how == "read-only":
        close_disk(disk)
    names = (*_PLACES, *_CACHES) if name == "all" else (name,)
    env = {} if how == "not set" else dict.fromkeys(names, str(place))
    verbs = () if name == "all" else ("train", "sample", "inspect", "lr")
    ended(shop, tmp_path / "out", env, cwd=str(disk), verbs=verbs)


@pytest.mark.slow
def test_a_system_that_is_read_only(shop: Workshop, tmp_path: Path) -> None:
    """As in a container: the only place that can be written is that of the results."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare command")
    close = 'mount --make-rprivate / && mount -o remount,bind,ro / && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", close, "sh")
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the system cannot be made read-only here (root is needed)")
    with small_disk(tmp_path / "out", 20_000) as out:
        # Without any such place matplotlib ends the commands that draw charts, and says this name.
        ended(shop, out, {"MPLCONFIGDIR": str(out / "matplotlib")}, before)
