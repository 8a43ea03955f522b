"""Where the pictures and the teacher of a run lie: in a private file, not in what is published.

run.json holds a path with one name, such as `../../pictures`, and only if it does not climb to the
home of the person or above. Else it holds the last name alone: `../../../ann/client/pictures` would
tell two more. The true place, absolute and from the run, is in local.json. That file is private to
this machine, and the run's .gitignore lists it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from getpass import getuser
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, Self, TypeGuard

from noisewise.plain_files import read_plain
from noisewise.training.files.atomic import write_json, write_text
from noisewise.training.files.run_folder import IGNORED, LOCAL, is_run

What = Literal["pictures", "teacher", "home"]
_ALL: tuple[What, ...] = ("pictures", "teacher")

_KINDS = (PurePosixPath, PureWindowsPath)  # a run may come from another system
_NAMES = ("skipped", "classes", "twins")  # many, and below the pictures: no paths of the machine
_RUNS = ("lr_from", "start_from")  # settings that name another run
_MOST = 2**20  # bytes of local.json
_LONGEST = 2**14  # letters of a path
_ABOUT = "where things lie on this machine: leave this file out when you publish the run"
_IGNORED = f"""# Written by noisewise: private to this machine, or the training pictures themselves.
/{LOCAL}
/cache/
/.lock
/run.json.damaged
"""
_START, _END = r"(?<![\w.\-])", r"(?![\w\-])"  # of a path: not in the middle of another
_REST = r"""(?:[/\\][^\s/\\'"`;:,()<>|]*)*"""


# ---------------------------------------------------------------------- in files that are published
def public_place(place: Path, run: Path, what: What) -> str:
    """How a place is written into a file of a run: from the run, or its last name alone.

    Args:
        place: absolute.
        run: folder of the run.
        what: the word for it if its name is that of the person.

    Example:
        >>> public_place(Path("/data/sets/cats"), Path("/data/sets/runs/x"), "pictures")
        '../../cats'
        >>> public_place(Path("/data/clients/acme/cats"), Path("/data/runs/x"), "pictures")
        'cats'
    """
    if what == "teacher" and place.name == "teacher" and is_run(place.parent):
        return f"{public_place(place.parent, run, what)}/teacher"
    place, run = place.resolve(), run.resolve()
    name = public_name(place, what)
    try:
        way = Path(os.path.relpath(place, run))
    except ValueError:  # on another drive
        return name
    up = sum(part == ".." for part in way.parts)
    common = run if up == 0 else run.parents[up - 1]
    down = [part for part in way.parts if part != ".."]
    if down not in ([], [name]) or _is_home_or_above(common):
        return name
    return way.as_posix() if up else f"./{way.as_posix()}"


def public_name(place: Path, what: What = "pictures") -> str:
    """The last name of a path; a word for the home, and for what has the person's login as name.

    Example:
        >>> public_name(Path("/data/cats")), public_name(Path.home())
        ('cats', 'pictures')
    """
    name = place.name
    if name in ("", "..", _login()) or _is_home_or_above(place):
        return what
    return name


def without_places(info: dict[str, Any], places: Places) -> tuple[dict[str, Any], dict[What, Path]]:
    """The content of run.json without absolute paths, and the places that were in it.

    Args:
        info: content of run.json; it is not changed.
        places: what is known already.
    """
    run = places.run
    found: dict[What, Path] = {}

    def public(values: Mapping[str, Any], key: str, what: What) -> dict[str, Any]:
        noted = values.get(key)
        if not is_path(noted):
            return dict(values)
        if Path(noted).is_absolute():
            found[what] = Path(noted)
            return {**values, key: public_place(found[what], run, what)}
        other = next((kind(noted) for kind in _KINDS if kind(noted).is_absolute()), None)
        return dict(values) if other is None else {**values, key: other.name or what}

    info = public(info, "teacher_from", "teacher")
    if isinstance(info.get("data"), dict):
        info["data"] = public(info["data"], "source", "pictures")
    if isinstance(info.get("adapt"), dict):
        info["adapt"] = public(info["adapt"], "teacher_from", "teacher")
    asked = info.get("train")
    if isinstance(asked, dict):
        named = [name for name in _RUNS if isinstance(asked.get(name), str)]
        info["train"] = {**asked, **{name: run_name(asked[name]) for name in named}}
    clean = places.cleaner(found.values())
    return {name: _cleaned(part, clean) for name, part in info.items()}, found


def is_path(value: object) -> TypeGuard[str]:
    """Whether a value from a file can be a path; a run may come from somebody else.

    Example:
        >>> is_path("../cats"), is_path("a" * 99999), is_path(3)
        (True, False, False)
    """
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and "\0" not in value


def run_name(path: str | Path) -> str:
    """The last name of a run's folder, as it was typed.

    Example:
        >>> run_name("runs/mine/")
        'mine'
    """
    return Path(os.path.abspath(path)).name


# ---------------------------------------------------------------------- in the private file
@dataclass(frozen=True)
class Places:
    """What is known of the places of a run on this machine.

    Attributes:
        run: folder of the run.
        noted: what local.json says; nothing if it is missing or damaged, as it only saves a flag.
    """

    run: Path
    noted: Mapping[What, Mapping[str, Any]]

    @classmethod
    def read(cls, run: Path) -> Self:
        """Read local.json; it may be missing."""
        try:
            values = json.loads(read_plain(run / LOCAL, _MOST).decode("utf-8"))
        except (OSError, ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            return cls(run, {})
        return cls(run, {what: values[what] for what in _ALL if isinstance(values.get(what), dict)})

    def known(self, what: What, public: str = "") -> list[Path]:
        """Where something may lie, the likeliest first; none of it need exist.

        Beside the run as before, if all was moved together; where it lay when the run was written;
        where run.json says.

        Args:
            what: the pictures, or the teacher.
            public: what run.json says: absolute in older versions; a name alone says nothing.
        """
        folder, mine, found = self.run.resolve(), self.noted.get(what, {}), []
        if is_path(way := mine.get("from_run")):
            found.append(Path(os.path.normpath(folder / way)))
        if is_path(path := mine.get("path")) and Path(path).is_absolute():
            found.append(Path(path))
        if Path(public).is_absolute() or public.startswith(("..", "./")):
            found.append(Path(os.path.normpath(folder / public)))
        return list(dict.fromkeys(found))

    def cleaner(self, more: Iterable[Path] = ()) -> Callable[[str], str]:
        """A function that shortens the paths in a text: of the run, its places, and the home.

        Args:
            more: places that are not in local.json yet.

        Example:
            >>> clean = Places(Path("/data/runs/x"), {}).cleaner([Path("/data/acme/cats")])
            >>> clean("/data/runs/x/run.json is damaged"), clean("/data/acme/cats/1.png is broken")
            ('x/run.json is damaged', 'cats/1.png is broken')
            >>> clean(f"see {Path.home()}/a/b.txt")
            'see b.txt'
        """
        places = [*more, *(place for what in _ALL for place in self.known(what))]
        names = {str(path): public_name(path) for path in places}
        typed = (str(self.run), os.path.abspath(self.run), str(self.run.resolve()))
        names |= dict.fromkeys(typed, run_name(self.run))
        order = sorted((text for text in names if len(Path(text).parts) > 1), key=len, reverse=True)
        known = [re.compile(_START + re.escape(text) + _END) for text in order]
        homes = [re.compile(_START + re.escape(str(home)) + _END + _REST) for home in _homes()]

        def clean(text: str) -> str:
            for pattern, path in zip(known, order, strict=True):
                text = pattern.sub(lambda _, path=path: names[path], text)
            for pattern in homes:
                text = pattern.sub(lambda match: public_name(Path(match[0]), "home"), text)
            return text

        return clean

    def with_(self, places: Mapping[What, Path]) -> Self:
        """The same with other places; nothing is written."""
        return replace(self, noted={**self.noted, **{w: self._entry(p) for w, p in places.items()}})

    def note(self, places: Mapping[What, Path]) -> Self:
        """Write places into local.json, and .gitignore if there is none; return what then holds.

        Raises:
            OSError: if they cannot be written.
        """
        if not (self.run / IGNORED).exists():
            write_text(self.run / IGNORED, _IGNORED)
        now = self.with_(places)
        if now.noted != Places.read(self.run).noted:
            write_json(self.run / LOCAL, {"about": _ABOUT, **now.noted})
        return now

    def _entry(self, place: Path) -> dict[str, str]:
        entry = {"path": str(place)}
        with suppress(ValueError):  # on another drive
            entry["from_run"] = os.path.relpath(place.resolve(), self.run.resolve())
        return entry


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:  # noqa: ANN401 (any JSON value)
    if isinstance(value, str):
        return clean(value) if os.sep in value else value
    if isinstance(value, dict):
        return {n: v if n in _NAMES else _cleaned(v, clean) for n, v in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(part, clean) for part in value]
    return value


def _is_home_or_above(path: Path) -> bool:
    if path.parent == path:
        return True
    return any(path == home or path in home.parents for home in _homes())


def _homes() -> set[Path]:
    """The home of the person, as it is named and as it is; none if the system knows none."""
    try:
        home = Path.home()
    except RuntimeError:
        return set()
    return {path for path in (home, home.resolve()) if len(path.parts) > 1}


def _login() -> str:
    try:
        return getuser()
    except (OSError, KeyError, ImportError):  # a number without a name
        return ""
