"""How long drawing takes is told after the first pictures, once for each way, and only if long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from noisewise.app import cli
from noisewise.app.terminal import forecast as module
from noisewise.app.terminal.forecast import Forecast


class Clock:
    """Time that passes only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def drawn(forecast: Forecast, clock: Clock, seconds: float, batch: int, total: int) -> None:
    forecast.part("drawing", 0, total)
    for done in range(batch, total + 1, batch):
        clock.now += seconds
        forecast.part("drawing", done, total)
    forecast.part("judging", 0, 0)


def test_each_way_has_its_line() -> None:
    said: list[str] = []
    clock = Clock()
    forecast = Forecast(said.append, "-n 250", clock)
    drawn(forecast, clock, seconds=3.0, batch=100, total=1000)
    drawn(forecast, clock, seconds=60.0, batch=100, total=1000)
    assert said == [
        f"drawing 1,000 pictures takes about {length} on this machine; -n 250 would draw fewer"
        for length in ("30s", "10m")
    ]


def test_what_is_short_or_at_once_is_not_told() -> None:
    said: list[str] = []
    clock = Clock()
    forecast = Forecast(said.append, "-n 16", clock)
    drawn(forecast, clock, seconds=1.0, batch=100, total=1000)
    drawn(forecast, clock, seconds=100.0, batch=64, total=64)
    assert not said


def test_evaluate_and_report_tell_it(
    teacher_run: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(module, "_WORTH_A_LINE", 0.0)  # these pictures are tiny
    monkeypatch.setattr("noisewise.training.models.models.Model._at_once", at_once(64))
    page = str(tmp_path / "page.html")
    for words in (["evaluate"], ["report", "--out", page]):
        capsys.readouterr()
        assert cli.main([words[0], str(teacher_run), *words[1:], "-n", "256"]) == 0
        lines = [x for x in capsys.readouterr().err.splitlines() if "on this machine;" in x]
        assert len(lines) == 1
        assert lines[0].startswith("drawing 256 pictures takes about ")
        assert lines[0].endswith("; -n 64 would draw fewer")


def at_once(count: int) -> Callable[..., int]:
    return lambda *_: count
