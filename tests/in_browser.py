"""A real browser for tests: Debian's chromium, driven by playwright. Without them, tests skip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
WAIT = 240_000  # milliseconds; generous to a busy machine


@contextmanager
def browser() -> Iterator[Any]:
    """Start the browser; skips the test where there is none."""
    pytest.importorskip("playwright", reason="playwright is not installed (extra: browser)")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()


class Watched:
    """A page opened from the disk; what it asks for and complains about is kept.

    Args:
        opened: the browser.
        path: of the file.
        context: of playwright, such as viewport, color_scheme, java_script_enabled.
    """

    def __init__(self, opened: Any, path: Path, **context: Any) -> None:  # noqa: ANN401
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.context = opened.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())

    def _heard(self, message: Any) -> None:  # noqa: ANN401
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def check(self) -> None:
        """No complaint, and nothing was asked of the network."""
        assert not self.complaints
        assert all(url.startswith(("file:", "blob:", "data:")) for url in self.requests)

    def sideways(self) -> float:
        """Pixels by which the page is wider than the screen."""
        root = "document.documentElement"
        return self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth")

    def serious(self) -> list[str]:
        """What axe finds that is serious or critical; skips where axe is missing."""
        spec = find_spec("axe_playwright_python")
        if spec is None or spec.origin is None:
            pytest.skip("axe is not installed (extra: browser)")
        script = Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")
        self.page.evaluate(script)
        found = self.page.evaluate("axe.run()")
        return [
            f"{one['id']} ({one['impact']}): {one['nodes'][0]['html'][:200]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
