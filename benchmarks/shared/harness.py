"""Shared by all benchmarks: cells that survive an interruption, tables with their conditions.

A benchmark is a grid of cells (a setting and a seed). A finished cell goes into the results file
immediately and atomically (temporary file, sync, rename), so a stopped program continues where it
was; `--redo` runs cells again. Every cell stores the machine, threads and versions that it ran
with.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

Setting = Mapping[str, object]
Values = dict[str, object]

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FIGURES = ROOT / "docs" / "images"
SCRATCH = ROOT / "runs" / "benchmarks"  # ignored by git
DATA_VARIABLE = "NOISEWISE_DATA"


class UsageError(ValueError):
    """A mistake of the user; the program prints one sentence and exits with 2."""


# --------------------------------------------------------------------------------------- conditions


def cpu_name() -> str:
    """Name of the processor, from the system."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def version_of(package: str) -> str | None:
    """Installed version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def source_commit() -> str | None:
    """Short commit of the tree, with `+` if tracked files of src or benchmarks differ."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "-uno", "--", "src", "benchmarks/**/*.py")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def environment(threads: int, packages: Iterable[str] = ("noisewise", "torch", "numpy")) -> Values:
    """Hardware, threads and versions, stored with each cell."""
    return {
        "cpu": cpu_name(),
        "cores": cpu_cores(),
        "threads": threads,
        "device": "cpu",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in packages},
        "commit": source_commit(),
    }


def describe(conditions: Mapping[str, object]) -> str:
    """One line for a header: hardware, threads, versions."""
    versions = conditions.get("versions")
    named = versions.items() if isinstance(versions, Mapping) else ()
    stack = ", ".join(f"{name} {version}" for name, version in named if version)
    return (
        f"{conditions['cpu']}, {conditions['cores']} cores, {conditions['threads']} threads, "
        f"{conditions['device']}; {conditions['system']}; Python {conditions['python']}, {stack}; "
        f"commit {conditions['commit'] or 'unknown'}"
    )


def use_threads(threads: int | None) -> int:
    """Set torch's threads (default: all cores for this process) and return their number."""
    import torch

    torch.set_num_threads(threads or cpu_cores())
    return torch.get_num_threads()


def keep_to_one_core(core: int | None) -> int:
    """Keep this process on one core and one thread; returns the core, -1 where it cannot be chosen.

    Args:
        core: its number; None: the last one that this process may use.

    Raises:
        UsageError: if this process may not use that core.
    """
    use_threads(1)
    if not hasattr(os, "sched_setaffinity"):
        return -1
    allowed = sorted(os.sched_getaffinity(0))
    if core is not None and core not in allowed:
        raise UsageError(f"--core {core} cannot be used here; use one of {allowed}.")
    chosen = allowed[-1] if core is None else core
    os.sched_setaffinity(0, {chosen})
    return chosen


# ------------------------------------------------------------------------------------------- cells


def _plain(value: object) -> object:
    """Convert to JSON values; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def write_atomically(path: Path, text: str) -> None:
    """Write a text so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def note(text: str) -> None:
    """A line of progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Cell:
    """One finished measurement."""

    setting: Setting
    values: Mapping[str, object]
    environment: str

    def asked(self, name: str) -> float:
        """A number of the setting."""
        value = self.setting[name]
        assert isinstance(value, (int, float))
        return float(value)

    def number(self, name: str) -> float | None:
        """A value as a number; None if it is missing."""
        value = self.values.get(name)
        return float(value) if isinstance(value, (int, float)) else None

    def numbers(self, name: str) -> list[float]:
        """A value that is a list of numbers (one per sample seed), without missing ones."""
        value = self.values.get(name)
        if not isinstance(value, list):
            return []
        return [float(item) for item in value if isinstance(item, (int, float))]


class Results:
    """The finished cells of one program, in one JSON file."""

    def __init__(self, path: Path, conditions: Mapping[str, object], redo: bool = False) -> None:
        """Open the file; if it is missing, the first finished cell creates it."""
        self.path = path
        self.conditions = conditions
        self.redo = redo
        self._redone: set[str] = set()
        self._read()

    def _read(self) -> dict[str, dict[str, dict[str, object]]]:
        if not self.path.exists():
            return {"environments": {}, "cells": {}}
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return {"environments": stored["environments"], "cells": stored["cells"]}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.path} is not a results file ({error}): move it away and run again."
            ) from error

    def _write(self, stored: Mapping[str, object]) -> dict[str, dict[str, dict[str, object]]]:
        text = json.dumps(_plain(stored), indent=1, sort_keys=True, allow_nan=False)
        write_atomically(self.path, text + "\n")
        return json.loads(text)

    @staticmethod
    def key(setting: Setting) -> str:
        """The setting as one line of JSON with sorted names."""
        return json.dumps(_plain(setting), sort_keys=True)

    def _environment(self) -> str:
        text = json.dumps(_plain(self.conditions), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def find(self, setting: Setting) -> Cell | None:
        """The finished cell of this setting; None if it has to run (again)."""
        key = self.key(setting)
        if self.redo and key not in self._redone:
            return None
        stored = self._read()["cells"].get(key)
        return _cell(stored) if stored else None

    def add(self, setting: Setting, values: Mapping[str, object], seconds: float) -> Cell:
        """Append one finished cell; keeps what other programs wrote in the meantime."""
        stored = self._read()
        name = self._environment()
        stored["environments"][name] = dict(self.conditions)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        cell: dict[str, object] = {
            "setting": dict(setting),
            "values": dict(values),
            "environment": name,
            "seconds": round(seconds, 2),
            "finished": now,
        }
        key = self.key(setting)
        stored["cells"][key] = cell
        self._redone.add(key)
        return _cell(self._write(stored)["cells"][key])

    def cell(self, setting: Setting, compute: Callable[[], Mapping[str, object]]) -> Cell:
        """The cell of this setting: read it if it is finished, or else compute and append it."""
        found = self.find(setting)
        if found is not None:
            note(f"[kept] {self.key(setting)}")
            return found
        return self.run(setting, compute)

    def run(self, setting: Setting, compute: Callable[[], Mapping[str, object]]) -> Cell:
        """Compute a cell and append it, whether it was finished or not."""
        note(f"[runs] {self.key(setting)}")
        start = time.perf_counter()
        values = compute()
        seconds = time.perf_counter() - start
        note(f"[done] {self.key(setting)} in {seconds:.1f} s")
        return self.add(setting, values, seconds)

    def complete(self, settings: Iterable[Setting]) -> bool:
        """Whether all these cells are finished."""
        return all(self.find(setting) is not None for setting in settings)

    def forget(self, match: Setting) -> None:
        """Drop the cells whose settings agree with `match`, so that they run again."""
        stored, wanted = self._read(), _plain(match)
        assert isinstance(wanted, dict)
        kept = {
            key: cell
            for key, cell in stored["cells"].items()
            if not _agrees(_cell(cell).setting, wanted)
        }
        if len(kept) < len(stored["cells"]):
            note(f"[drop] {len(stored['cells']) - len(kept)} cells of {self.key(match)}")
            stored["cells"] = kept
            self._write(stored)

    def cells(self, match: Setting) -> list[Cell]:
        """All finished cells whose settings agree with `match`, in the file's order."""
        found = [_cell(stored) for stored in self._read()["cells"].values()]
        wanted = _plain(match)
        assert isinstance(wanted, dict)
        return [cell for cell in found if _agrees(cell.setting, wanted)]

    def header(self, title: str) -> str:
        """Title and conditions, one line for each machine and version that cells ran with."""
        stored = self._read()
        used = {str(cell["environment"]) for cell in stored["cells"].values()}
        lines = [f"- {describe(stored['environments'][name])}" for name in sorted(used)]
        return "\n".join([f"## {title}", "", *lines, ""])


def _agrees(setting: Setting, wanted: Setting) -> bool:
    return all(setting.get(name) == value for name, value in wanted.items())


def _cell(stored: Mapping[str, object]) -> Cell:
    setting, values = stored["setting"], stored["values"]
    assert isinstance(setting, dict)
    assert isinstance(values, dict)
    return Cell(setting, values, str(stored["environment"]))


# ------------------------------------------------------------------------------------- the program


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument(
        "--data",
        default=os.environ.get(DATA_VARIABLE),
        help=f"folder with the .npz data sets, or one file (or set {DATA_VARIABLE})",
    )
    made.add_argument("--threads", type=int, default=None, help="torch threads; none: all cores")
    made.add_argument("--redo", action="store_true", help="run finished cells again")
    made.add_argument("--quick", action="store_true", help="try the program in seconds; no results")
    made.add_argument("--table-only", action="store_true", help="print finished cells, run nothing")
    made.add_argument("--results", type=Path, default=None, help="results file (JSON)")
    made.add_argument("--work", type=Path, default=None, help="folder for runs, data and caches")
    return made


def numbers(kind: Callable[[str], float | int]) -> Callable[[str], list[float | int]]:
    """An argument type: several numbers, separated by commas; an empty place is refused."""

    def read(text: str) -> list[float | int]:
        return [kind(part) for part in text.split(",")]

    read.__name__ = "list of numbers"  # argparse names it
    return read


def names(text: str, known: Iterable[str], what: str, separator: str = ",") -> list[str]:
    """The names of a list that was typed, each once.

    Args:
        text: names with separators between them.
        known: all names.
        what: what they name, in a word.
        separator: between two names.

    Raises:
        UsageError: for an unknown name, or an empty place.

    Example:
        >>> names("b, a", ["a", "b"], "set")
        ['b', 'a']
    """
    usable = list(known)
    found = list(dict.fromkeys(part.strip() for part in text.split(separator)))
    for name in found:
        if name not in usable:
            told = f"Unknown {what} {name}" if name else f"The list {text!r} has an empty place"
            raise UsageError(f"{told}: use {f'{separator} '.join(usable)}.")
    return found


def results_file(arguments: argparse.Namespace, name: str) -> Path:
    """File for the cells: `benchmarks/results/NAME.json`; with --quick in the scratch folder."""
    if arguments.results:
        return Path(arguments.results)
    return (SCRATCH / "quick" if arguments.quick else RESULTS) / f"{name}.json"


def work_folder(arguments: argparse.Namespace, name: str) -> Path:
    """Folder for runs, prepared data and caches."""
    if arguments.work:
        return Path(arguments.work) / name
    return (SCRATCH / "quick" if arguments.quick else SCRATCH) / name


def data_file(given: str | None, name: str) -> Path:
    """The data set's path, from `--data` or the environment.

    Raises:
        UsageError: if no path was given or the file is missing.
    """
    if not given:
        raise UsageError(f"This benchmark needs {name}: give --data FOLDER or set {DATA_VARIABLE}.")
    path = Path(given)
    path = path / name if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"{path} is missing: --data takes the folder that holds {name}.")
    if path.suffix != ".npz":
        raise UsageError(f"{path} is not an .npz file: --data takes the folder that holds {name}.")
    return path


def publish(results: Results, title: str, parts: Sequence[str]) -> None:
    """Print header and tables, and write them beside the results as NAME.md."""
    text = "\n".join([results.header(title), *(part + "\n" for part in parts)])
    print(text)
    if results.path.exists():
        write_atomically(results.path.with_suffix(".md"), text)


def run_program(main: Callable[[], None]) -> None:
    """Run a benchmark; exit code 0: done, 2: wrong usage, 130: stopped, finished cells kept."""
    try:
        main()
    except UsageError as error:
        note(f"error: {error}")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        note("stopped; finished cells are kept: run the same command again to continue")
        raise SystemExit(130) from None


def millions(count: float | None) -> str | None:
    """A number of parameters in millions."""
    return None if count is None else f"{count / 1e6:.2f}"
