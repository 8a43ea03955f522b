"""constraints.txt: the tested versions, each of them asked for, all within pyproject.toml."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "constraints.txt"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("constraints", ROOT / ".ci" / "constraints.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_right() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "constraints.py"), "check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (r"numpy==.*\n", "", "numpy is missing, which pyproject.toml asks for (core)"),
        (r"pytest==.*\n", "", "pytest is missing, which pyproject.toml asks for (dev)"),
        (r"^tqdm", "gunicorn==6.5\ntqdm", "gunicorn is needed by nothing"),
        (r"^tqdm", "gunicorn==6.5  # via flask\ntqdm", "gunicorn is there for flask, which is"),
        (r"^tqdm", "gunicorn==6.5  # via rich\ntqdm", "for rich, which does not need it"),
        (r"^tqdm", "gunicorn==6.5  # via gunicorn\ntqdm", "gunicorn is needed by nothing"),
        (r"^torch==.*", "torch==2.5.1", "torch==2.5.1 is outside of torch>=2.6"),
        (r"^ruff==.*", "ruff==0.18.0", "is outside of ruff<0.18,>=0.17"),
        (r"^torch==(.*)", r"torch==\1+cpu", "is not a line `name==version`"),
        (r"^numpy==.*", "numpy @ file:///wheels/numpy.whl", "is not a line `name==version`"),
        (r"^numpy==.*", "-e .", "is not a line `name==version`"),
        (r"^numpy==", "NumPy==", "is not a line `name==version`"),
        (r"^(numpy==.*)", r"\1\n\1", "numpy stands there twice"),
        (r"^(contourpy==.*\n)(cycler.*\n)", r"\2\1", "not sorted"),
    ],
)
def test_what_does_not_fit_is_told(program: ModuleType, old: str, new: str, told: str) -> None:
    text, count = re.subn(old, new, FILE.read_text("utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1
    found = "\n".join(program.problems(text, program.declared()))
    assert told in found


def test_it_is_of_the_extras_that_are_tested(program: ModuleType) -> None:
    words = re.search(r"TORCH=torch==(\S+) WITH=(\S+)", (ROOT / ".ci" / "run").read_text("utf-8"))
    assert words is not None
    assert {*words[2].split(","), "dev"} == set(program.EXTRAS)
    assert f"\ntorch=={words[1]}\n" in FILE.read_text("utf-8")
