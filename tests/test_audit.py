"""What `make audit` says of what pip-audit found; nothing here asks the network."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOOD = {"name": "numpy", "version": "2.4.6", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
BAD = {
    "name": "pillow",
    "version": "13.0.0",
    "vulns": [
        {"id": "PYSEC-1", "fix_versions": ["13.0.1", "14.0"]},
        {"id": "PYSEC-2", "fix_versions": []},
    ],
}


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audited", ROOT / ".ci" / "audited.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_vulnerabilities_are_named_with_the_version_that_has_none(program: ModuleType) -> None:
    lines, code = program.told("pypi", [GOOD, BAD, UNKNOWN])
    assert code == 1
    assert lines == [
        "pillow 13.0.0: PYSEC-1, mended in 13.0.1, 14.0",
        "pillow 13.0.0: PYSEC-2, mended in no version yet",
        "pypi does not know torch: not audited",
        "2 of 3 packages of constraints.txt audited by pypi, 2 known vulnerabilities",
    ]


def test_a_clean_list_is_an_answer(program: ModuleType) -> None:
    lines, code = program.told("pypi", [GOOD])
    assert (lines, code) == (
        ["1 of 1 packages of constraints.txt audited by pypi, no known vulnerabilities"],
        0,
    )


def test_a_list_that_knows_nothing_is_no_answer(program: ModuleType) -> None:
    """A mirror without the list answers "not found" for each package."""
    assert program.told("pypi", [UNKNOWN, UNKNOWN]) == ([], 3)
