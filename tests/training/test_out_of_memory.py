"""Memory that runs out in training: one sentence, the last checkpoint, a way out that is true."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import noisewise
from noisewise.app import cli
from noisewise.training.adapt import AdaptTask
from noisewise.training.distill import DistillTask
from noisewise.training.out_of_memory import OutOfMemory, is_out_of_memory
from noisewise.training.run.run import Run
from noisewise.training.settings.config import AdaptConfig, DistillConfig, TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from tiny import blobs, build

RECIPE = TeacherRecipe(distance_images=0, sampler_images=0, noise_every=0)
# In steps of 512 pictures of 32 pixels, a map of 16 channels has 32 MiB: malloc must ask for more.
TEACH = TrainConfig(
    budget=f"{512 * 4}images", size=32, batch=512, kinds=0, checkpoint_seconds=1e-9, recipe=RECIPE
)

CHILD = """
    import resource, sys
    from pathlib import Path
    import noisewise
    from noisewise.app.cli import exit_code
    from test_out_of_memory import TEACH, build

    def limit(record):
        if record.step == 2:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + 2**24
            resource.setrlimit(resource.RLIMIT_AS, (most, most))

    try:
        noisewise.train(sys.argv[1], sys.argv[2], config=TEACH, build=build, on_record=limit)
    except Exception as error:  # as the command does: whatever it is, one sentence
        sys.exit(exit_code(error, "noisewise train"))
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "blobs.npz"
    np.savez(path, images=blobs(640, 32))
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is one of Linux")
def test_a_step_without_memory_ends_in_a_sentence_and_the_way_out_resumes(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = [sys.executable, "-c", textwrap.dedent(CHILD), str(data), str(out)]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    child = subprocess.run(words, capture_output=True, text=True, env=paths)
    assert child.returncode == 1, child.stderr
    (said,) = child.stderr.strip().splitlines()
    assert "memory ran out; the last checkpoint is kept" in said
    found = re.search(r"with --accumulate (\d+) to resume from step (\d+)", said)
    assert found, said
    assert int(found[2]) == 2
    assert "the same batch of 512 in 2 parts" in said
    run = noisewise.train(data, out, config=replace(TEACH, accumulate=int(found[1])), build=build)
    assert run.finished("teacher")
    assert [r.step for r in run.records() if r.loss] == list(range(1, 5))


COMMANDS = """
    import resource, sys
    from pathlib import Path
    from noisewise.app import cli
    import noisewise.training.distill, noisewise.training.evaluate, noisewise.training.inspect

    words, least = sys.argv[2:], int(sys.argv[1]) * 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + least
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.exit(cli.main(words))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is one of Linux")
@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["inspect", "PICTURES", "--size", "256"], "use fewer pictures or a smaller --size"),
        (["sample", "RUN", "-n", "400", "--scale", "64", "--out", "SHEET"], "draw fewer pictures"),
        (["evaluate", "RUN", "--against", "PICTURES"], "measure fewer pictures with -n"),
        (["distill", "RUN", "--budget", "8192images", "--batch", "4096"], "--batch"),
    ],
)
@pytest.mark.parametrize("mebibytes", [1, 24])
def test_every_command_that_meets_a_limit_names_the_way_out(
    tmp_path: Path, words: list[str], way_out: str, mebibytes: int
) -> None:
    """With 1 MiB already a part of torch or the flags may not load; with 24 MiB work begins."""
    np.savez(tmp_path / "x.npz", images=blobs(400, 256))
    known = Path(__file__).parents[1] / "frozen" / "one_checkpoint" / "run"
    shutil.copytree(known, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("generator*"):
        path.unlink()
    names = {"PICTURES": "x.npz", "RUN": "run", "SHEET": "sheet.png"}
    given = [str(tmp_path / names[word]) if word in names else word for word in words]
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COMMANDS), str(mebibytes), *given],
        capture_output=True, text=True,
    )  # fmt: skip
    assert child.returncode == 1, child.stderr
    said = child.stderr.strip().splitlines()[-1]
    assert "Traceback" not in child.stderr
    assert said.startswith(f"noisewise {words[0]}: memory ran out"), said
    assert way_out in said


def test_what_says_that_memory_ran_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.float64)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as by_numpy:
        np.empty(2**55)
    assert is_out_of_memory(by_numpy.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert is_out_of_memory(ImportError("x.so: failed to map segment from shared object"))
    assert not is_out_of_memory(ImportError("No module named 'torchvision'"))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "no space left"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_without_memory_says_so() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, device="cuda")
    assert is_out_of_memory(caught.value)


def test_every_command_says_it_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.exit_code(MemoryError(), "noisewise evaluate") == 1
    assert "memory ran out; close other programs" in capsys.readouterr().err
    assert cli.exit_code(OutOfMemory("memory ran out: use less"), "noisewise train") == 1
    assert capsys.readouterr().err == "noisewise train: memory ran out: use less.\n"


def test_a_resumed_adaptation_may_have_a_smaller_batch_and_a_distillation_not(
    tmp_path: Path,
) -> None:
    """What each of them advises; the settings that a run resumes with are tested where they are."""
    adapt = AdaptTask(tmp_path, tmp_path, tmp_path, AdaptConfig(), None)
    assert "run the same command again to resume" in adapt.need_less_memory(" to resume")
    distil = DistillTask(tmp_path, None, DistillConfig(batch=8), None)
    assert distil.need_less_memory("") == "run the same command with --batch 4"
    advice = distil.need_less_memory(" to resume from step 9")
    assert advice.startswith("free some and run the same command again to resume from step 9, or ")
    assert "--batch 4" in advice


def test_parts_that_a_resume_changes_change_no_result(data: Path, tmp_path: Path) -> None:
    small = replace(TEACH, budget="96images", batch=16)
    whole = noisewise.train(data, tmp_path / "whole", config=small, build=build)
    stopped, count = tmp_path / "stopped", iter(range(100))
    noisewise.train(data, stopped, config=small, build=build, stop=lambda: next(count) >= 3)
    parts = noisewise.train(data, stopped, config=replace(small, accumulate=4), build=build)
    assert parts.finished("teacher")
    one, two = (Run(run.path).teacher(build).denoiser.state_dict() for run in (whole, parts))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)


PARSER = """
    import ast, inspect, resource, sys
    from pathlib import Path
    from noisewise.training.out_of_memory import is_out_of_memory

    lines = inspect.getsource(ast)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize()
    for kib in range(0, 8192, 64):
        resource.setrlimit(resource.RLIMIT_AS, (most + 1024 * kib, resource.RLIM_INFINITY))
        try:
            compile(lines, "ast.py", "exec")
        except Exception as error:
            assert is_out_of_memory(error), repr(error)
    try:
        compile("def f(", "wrong.py", "exec")
    except SyntaxError as error:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        assert not is_out_of_memory(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is one of Linux")
def test_pythons_parser_without_memory_is_recognised() -> None:
    """It may call sound code a SyntaxError; a module without bytecode is parsed when it loads."""
    words = [sys.executable, "-c", textwrap.dedent(PARSER)]
    child = subprocess.run(words, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
