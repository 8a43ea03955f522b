"""The file constraints.txt: the versions that continuous integration tested, one package a line.

    python .ci/constraints.py check     what does not fit pyproject.toml; exit code 1 if anything
    python .ci/constraints.py write     the file again, from what is installed here

A line is `name==version`, and for what pyproject.toml does not name, `  # via` the packages that
need it. This program needs `packaging`, which pytest and matplotlib bring.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = (
    "adapters",
    "diffusers",
    "powers",
    "export",
    "hub",
    "sklearn",
    "dask",
    "browser",
    "dev",
)  # that .ci/run installs
HEAD = """# The versions that continuous integration tested together, on Linux and Python 3.11.
# `pip install -c constraints.txt .` takes these. What is not named stays free, as CUDA's packages.
# Written by `make constraints`, checked by `make lint`. torch is plain here, whatever its build.
"""
LINE = re.compile(r"([a-z0-9][a-z0-9.-]*)==([0-9][A-Za-z0-9.]*)(?:  # via ([a-z0-9., -]+))?")


def main(words: list[str]) -> int:
    """Check the file or write it; return the exit code."""
    path = ROOT / "constraints.txt"
    if words == ["write"]:
        try:
            path.write_text(written(), encoding="utf-8")
        except PackageNotFoundError as error:
            extras = ",".join(EXTRAS[:-1])
            print(f"{error.name} is not installed: make test WITH={extras} first", file=sys.stderr)
            return 1
    elif words != ["check"]:
        print(__doc__, file=sys.stderr)
        return 2
    wrong = list(problems(path.read_text(encoding="utf-8"), declared()))
    for problem in wrong:
        print(f"constraints.txt: {problem}", file=sys.stderr)
    return 1 if wrong else 0


def declared() -> dict[str, Requirement]:
    """What pyproject.toml asks for, by name: the core, and the extras that are tested.

    The key of a core dependency begins with "core ".
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {f"core {name}": need for name, need in _named(project["dependencies"])}
    for extra in EXTRAS:
        found |= {
            f"{extra} {name}": n for name, n in _named(project["optional-dependencies"][extra])
        }
    return found


def problems(text: str, needs: dict[str, Requirement]) -> Iterator[str]:
    """What is wrong with the file, one sentence each.

    Args:
        text: of the file.
        needs: from `declared`.
    """
    pins: dict[str, str] = {}
    via: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None or canonicalize_name(match[1]) != match[1]:
            yield f"{line!r} is not a line `name==version`, with the name in its normal form"
        elif match[1] in pins:
            yield f"{match[1]} stands there twice"
        else:
            pins[match[1]], via[match[1]] = match[2], set((match[3] or "").split(", ")) - {""}
    if list(pins) != sorted(pins):
        yield "the lines are not sorted by name"
    direct = set()
    for key, need in needs.items():
        part, name = key.split(" ")
        direct.add(name)
        if name not in pins:
            yield f"{name} is missing, which pyproject.toml asks for ({part}): make constraints"
        elif not need.specifier.contains(Version(pins[name]), prereleases=True):
            yield f"{name}=={pins[name]} is outside of {need} in pyproject.toml ({part})"
    yield from _not_needed(pins, via, direct)


def _not_needed(pins: dict[str, str], via: dict[str, set[str]], direct: set[str]) -> Iterator[str]:
    """Packages that nothing asks for, or not what the line says."""
    reached = set(direct)
    while more := {name for name, by in via.items() if by & reached} - reached:
        reached |= more
    for name in pins:
        if name not in reached:
            yield f"{name} is needed by nothing that pyproject.toml asks for; remove it"
        for by in sorted(via[name]):
            if by not in pins:
                yield f"{name} is there for {by}, which is missing"
            elif _is_installed(by, pins[by]) and name not in _all_needs(by):
                yield f"{name} is there for {by}, which does not need it"


def written() -> str:
    """The file from what is installed: what pyproject.toml asks for, and all that these need."""
    needs = declared()
    direct = {key.split(" ")[1] for key in needs}
    todo = [(key.split(" ")[1], extra) for key, n in needs.items() for extra in ("", *n.extras)]
    seen: set[tuple[str, str]] = set()
    via: dict[str, set[str]] = {name: set() for name in direct}
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for other, need in _named(requires(name) or ()):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                via.setdefault(other, set()).add(name)
                todo += [(other, part) for part in ("", *need.extras)]
    lines = [_line(name, set() if name in direct else via[name]) for name in sorted(via)]
    return "\n".join([HEAD.rstrip(), *lines]) + "\n"


def _line(name: str, by: set[str]) -> str:
    pin = f"{name}=={Version(version(name)).public}"  # without the build, such as +cpu
    return f"{pin}  # via {', '.join(sorted(by))}" if by else pin


def _named(texts: Iterable[str]) -> list[tuple[str, Requirement]]:
    found = [Requirement(text) for text in texts]
    return [(canonicalize_name(need.name), need) for need in found]


def _all_needs(name: str) -> set[str]:
    """All that a package can need, on any system and with any extra."""
    return {other for other, _ in _named(requires(name) or ())}


def _is_installed(name: str, pin: str) -> bool:
    try:
        return Version(version(name)).public == pin
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
