"""The report in a real browser: offline, without script, on a phone, without barriers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from in_browser import Watched, browser
from noisewise.app.report.collect import report

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def file(opened: Any, distilled_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ANN401
    out = tmp_path_factory.mktemp("page") / "report.html"
    return report(distilled_run, out, num_images=64, license="cc0-1.0", note="For <tests>.")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_no_barriers(file: Path, opened: Any, width: int, scheme: str) -> None:  # noqa: ANN401
    size = {"width": width, "height": 900}
    seen = Watched(opened, file, viewport=size, color_scheme=scheme)
    assert seen.sideways() <= 0
    assert seen.serious() == []
    seen.check()
    seen.context.close()


def test_it_shows_all_without_script_and_network(file: Path, opened: Any) -> None:  # noqa: ANN401
    plain = Watched(opened, file, java_script_enabled=False, offline=True)
    sheets = plain.page.locator(".frame img")
    assert sheets.count() > 1
    assert all(sheets.nth(i).is_visible() for i in range(sheets.count()))
    assert plain.page.locator(".frame figcaption").first.is_visible()
    assert plain.page.locator(".film input").first.is_hidden()
    first = plain.page.locator("details").first
    first.locator("summary").click()
    assert first.locator("table").first.is_visible()
    plain.check()
    plain.context.close()


def test_what_the_reader_can_do(file: Path, opened: Any) -> None:  # noqa: ANN401
    seen = Watched(opened, file, permissions=["clipboard-read", "clipboard-write"])
    page = seen.page
    assert page.locator(".frame img:visible").count() == 1
    page.locator(".film input").first.focus()
    page.keyboard.press("Home")
    assert "teacher" in page.locator(".film output").first.inner_text()
    block = page.locator(".code").first
    block.locator("button").click()
    page.wait_for_function("document.querySelector('.copy').textContent !== 'Copy'")
    page.click("nav a >> nth=1")
    assert page.evaluate("document.querySelector(location.hash) !== null")
    text = page.inner_text("main")
    assert "Licence: cc0-1.0." in text
    assert "For <tests>." in text
    seen.check()
    seen.context.close()
