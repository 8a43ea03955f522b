"""The house keeps its shape: its floors, short rooms, nothing pickled, a README that is true."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from noisewise.app.commands import table

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "noisewise"
SOURCES = sorted(PACKAGE.rglob("*.py"))
CHECKED = SOURCES + sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 500
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# A new room is written in here and into the contract in pyproject.toml. `__init__` hands out names
# from every floor, lazily; `__main__` is the front door.
FLOORS = {
    "plain_files": 0,
    "plain_text": 0,
    "whole_files": 0,
    "quality": 1,
    "lowrank": 1,
    "scaling": 1,
    "powers": 1,
    "sizes": 1,
    "demo": 1,
    "nets": 2,
    "diffusion": 2,
    "adapters": 2,
    "pictures": 3,
    "training": 4,
    "export": 5,
    "app": 6,
    "__main__": 7,
}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNPICKLERS = {("torch", "load"), ("torch", "save"), ("np", "load"), ("numpy", "load")}
DRAWERS = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, anywhere in it, with the line; all names absolute."""
    package = ("noisewise", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def public_definitions(path: Path) -> Iterator[tuple[str, Definition]]:
    """Public classes, functions and methods of a file; not what stands inside a function."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Definition]]:
        for node in body:
            if isinstance(node, Definition):
                called = f"{prefix}{node.name}"
                if not node.name.startswith("_") or node.name in {"__init__", "__call__"}:
                    yield called, node
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    yield from walk(node.body, f"{called}.")

    yield from walk(tree_of(path).body, "")


# ---------------------------------------------------------------------- floors and rooms
def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in SOURCES} - {"__init__"}
    assert rooms <= set(FLOORS), f"give {rooms - set(FLOORS)} a floor, here and in pyproject.toml"


def test_imports_go_down_only() -> None:
    upward = []
    for path in SOURCES:
        here = room_of(path)
        if here == "__init__":
            continue
        for line, module in imports_of(path):
            parts = module.split(".")
            if parts[0] != "noisewise" or len(parts) < 2 or parts[1] not in FLOORS:
                continue
            there = parts[1]
            if there != here and FLOORS[there] >= FLOORS[here]:
                upward.append(f"{name_of(path)}:{line} imports {there}")
    assert not upward, upward


def test_the_contract_names_the_same_floors() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = {
        room.strip(" ()"): height
        for height, layer in enumerate(reversed(layers))
        for room in layer.split("|")
    }
    assert named == {room: floor for room, floor in FLOORS.items() if room != "__main__"}


def test_no_drawer_for_odds_and_ends() -> None:
    assert not [name_of(path) for path in CHECKED if path.name in DRAWERS]


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_a_file_is_short_enough_to_be_read(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: split it where its subject changes"


# ---------------------------------------------------------------------- what a file may do
def refuses_pickles(call: ast.Call) -> bool:
    """True of `np.load(file)` and `np.load(file, allow_pickle=False)`, of nothing less plain."""
    return len(call.args) <= 2 and all(
        word.arg is not None
        and (word.arg != "allow_pickle" or getattr(word.value, "value", True) is False)
        for word in call.keywords
    )


def test_nothing_is_pickled() -> None:
    found = []
    for path in SOURCES:
        found += [
            f"{name_of(path)}:{line} imports {module}"
            for line, module in imports_of(path)
            if module.split(".")[0] in PICKLES
        ]
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            if not isinstance(owner, ast.Name) or (owner.id, node.func.attr) not in UNPICKLERS:
                continue
            # numpy's load refuses pickles unless told otherwise; torch's reads and writes them.
            if owner.id == "torch" or not refuses_pickles(node):
                found.append(f"{name_of(path)}:{node.lineno} calls {owner.id}.{node.func.attr}")
    assert not found, found


def test_only_the_terminal_prints() -> None:
    """Its functions make text printable; the script for a shell is ours and must stay as it is."""
    speakers = {PACKAGE / "app" / "commands" / "completion.py"}
    speakers |= set((PACKAGE / "app" / "terminal").glob("*.py"))
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        if path not in speakers
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not found, found


def test_public_functions_name_every_argument() -> None:
    found = [
        f"{name_of(path)}:{node.lineno} {called}(**{node.args.kwarg.arg})"
        for path in SOURCES
        for called, node in public_definitions(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.args.kwarg
    ]
    assert not found, found


def is_stub(node: Definition) -> bool:
    """A member of a Protocol, or an overload: its body is three dots, its class describes it."""
    return [ast.unparse(statement) for statement in node.body] == ["..."]


def test_what_is_public_is_described() -> None:
    bare = [name_of(path) for path in SOURCES if not ast.get_docstring(tree_of(path))]
    for path in SOURCES:
        for called, node in public_definitions(path):
            magic = called.rpartition(".")[2].startswith("__")
            if not magic and not is_stub(node) and not ast.get_docstring(node):
                bare.append(f"{name_of(path)}:{node.lineno} {called}")
    assert not bare, bare


# ---------------------------------------------------------------------- the front door
def run_python(code: str) -> subprocess.CompletedProcess[str]:
    quiet = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=60)


def ask(*arguments: str) -> tuple[int, str, bool]:
    """Runs `python -m noisewise ARGUMENTS`: exit code, what it printed, was torch imported."""
    done = run_python(
        "import runpy, sys\n"
        f"sys.argv = ['noisewise', *{list(arguments)!r}]\n"
        "code = 0\n"
        "try:\n"
        "    runpy.run_module('noisewise', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n"
        "    code = stop.code or 0\n"
        "sys.stderr.write(f'\\nTORCH {\"torch\" in sys.modules}')\n"
        "sys.exit(code)\n"
    )
    printed, _, torch_seen = done.stderr.rpartition("\nTORCH ")
    assert torch_seen in {"True", "False"}, done.stderr
    return done.returncode, done.stdout + printed, torch_seen == "True"


def test_importing_the_package_does_not_import_torch() -> None:
    done = run_python("import sys, noisewise; dir(noisewise); assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_help_does_not_import_torch() -> None:
    code, printed, imported_torch = ask("--help")
    assert code == 0, printed
    assert not imported_torch


def test_an_unknown_command_is_bad_usage() -> None:
    code, _, imported_torch = ask("no-such-command")
    assert code == 2
    assert not imported_torch


# ---------------------------------------------------------------------- the README is true
def shell_lines(page: str) -> list[str]:
    """The commands in a page's shell blocks, without prompts, remarks and continuation marks."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", page, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").strip() for line in lines if line.strip()]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = {
    line: page.name
    for page in PAGES
    for line in shell_lines(page.read_text(encoding="utf-8"))
    if line.startswith("noisewise ")
}


def test_the_pages_show_every_command() -> None:
    assert {line.split()[1] for line in SHOWN} == set(table.NAMES)


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_of_the_pages_can_be_read(line: str) -> None:
    """With its flags and their values, as the table of commands has them."""
    _, *words = shlex.split(line.partition(" > ")[0], comments=True)
    commands = dict(table.every())
    called = words[0] if words[0] in commands else " ".join(words[:2])
    commands[called].read(words[len(called.split()) :])


def test_the_make_targets_of_the_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        lines = shell_lines((ROOT / page).read_text(encoding="utf-8"))
        asked = {line.split()[1] for line in lines if line.startswith("make ")}
        assert asked <= targets, f"{page}: {asked - targets}"


def test_the_pages_point_at_files_that_exist() -> None:
    missing = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            beside = page.parent / target
            if "://" not in target and not beside.exists():
                missing.append(f"{name_of(page)}: {target}")
    assert not missing, missing
