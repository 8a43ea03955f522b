"""A run whose every name is an attack, and its page in a real browser: names are shown, never run.

Names come from other people: classes, files, folders, and all that a run.json and a log can hold.
"""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from noisewise.app.report.collect import report
from noisewise.training.run.run import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# What runs leaves a mark, renames the page, and asks an address that the log of the network shows.
_RUN = "document.documentElement.dataset.ran=1;document.title='ran';fetch('http://hostile.test/x')"
ATTACKS = (
    f"<script>{_RUN}</script>",
    f"</script><script>{_RUN}</script>",
    f"</style><script>{_RUN}</script>",
    f"</title><script>{_RUN}</script>",
    f'</svg><img src=x onerror="{_RUN}">',
    f'"><img src=x onerror="{_RUN}">',
    f"'><svg onload='{_RUN.replace(chr(39), chr(34))}'>",
    f'" autofocus onfocus="{_RUN}" x="',
    "--><img src=http://hostile.test/image>",
    "]]><iframe src=http://hostile.test/frame></iframe>",
    "<style>@import 'http://hostile.test/style';</style>",
    "</pre></code><base href=http://hostile.test/><link rel=stylesheet href=sheet>",
    f"javascript:{_RUN}",
    f'<a href="javascript:{_RUN}" id=x>a</a>',
    "<meta http-equiv=refresh content='0;url=http://hostile.test/away'>",
    f"\u2028\u2029*/;{_RUN};//",
    f"\\u003cscript\\u003e{_RUN}\\u003c/script\\u003e",
    f"&lt;script&gt;{_RUN}&lt;/script&gt;&#60;script&#62;",
    f"${{{_RUN}}}`{_RUN}`",
    "{{constructor.constructor('document.title=1')()}}",
    "\u202ereversed \x1b[31mred\x07 \x00nul \ufeff",
)


class Shown(html.parser.HTMLParser):
    """The texts, the tags and the attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def hostile(value: Any, number: list[int]) -> Any:  # noqa: ANN401 (any JSON value)
    """The same JSON with an attack after every text that is no name of a setting."""
    if isinstance(value, dict):
        return {key: hostile(item, number) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, number) for item in value]
    if not isinstance(value, str):
        return value
    number[0] += 1
    return value + ATTACKS[number[0] % len(ATTACKS)]


def attacked(run: Path) -> list[str]:
    """Put an attack into every name of a run; return those that a page has to show."""
    info = json.loads((run / "run.json").read_text())
    info.pop("seal")
    shown = list(ATTACKS)
    info["data"]["classes"] = shown[: max(2, len(info["data"]["classes"]))]
    info["data"]["notes"] = list(ATTACKS)
    info["data"]["skipped"] = [{"name": text, "reason": text} for text in ATTACKS]
    for name in ("versions", "machine", "derived"):
        info[name] = hostile(info[name], [0])
    info["created"] = ATTACKS[0]
    for stage in info["stages"].values():
        stage["failed"] = ATTACKS[1]
    for name in ("run.json", "run-copy.json"):
        (run / name).write_text(json.dumps(info))
    log = run / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for i, text in enumerate(ATTACKS):
        lines[i % len(lines)]["event"] = text
        lines.append({**lines[-1], "event": text, "kind": "went_back"})
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return shown


@pytest.fixture(scope="module")
def page(teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of such a run; its folder has a hostile name as well."""
    root = tmp_path_factory.mktemp("hostile")
    folder = root / "<img src=x onerror=document.title=1>'\"&`"
    shutil.copytree(teacher_run, folder)
    attacked(folder)
    return report(Run(folder), root / "page.html", num_images=64)


def test_the_page_has_no_tag_and_no_address_of_a_name(page: Path) -> None:
    found = Shown(page.read_text(encoding="utf-8"))
    assert found.tags.count("script") <= 1
    assert found.tags.count("style") == 1
    assert not {"iframe", "base", "object", "embed", "form"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    addresses = [value for name, value in found.attributes if name in ("src", "href", "xlink:href")]
    assert not [a for a in addresses if not a.startswith(("#", "data:image/")) and a != "data:,"]
    assert not [value for name, value in found.attributes if name == "http-equiv"]


def test_the_page_shows_the_names_as_they_are(page: Path) -> None:
    text = "".join(Shown(page.read_text(encoding="utf-8")).texts)
    for attack in ATTACKS[:15]:
        assert attack in text, attack


def browse(address: str, folder: Path) -> tuple[str, str]:
    """Open a page; returns the document after its scripts have run, and the network's log."""
    assert CHROMIUM is not None
    log = folder / "net.json"
    done = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}",
            "--virtual-time-budget=3000", "--dump-dom", address,
        ],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, log.read_text(errors="replace")


@needs_browser
def test_a_browser_runs_nothing_of_the_names(page: Path, tmp_path: Path) -> None:
    before = Shown(page.read_text(encoding="utf-8"))
    document, network = browse(page.as_uri(), tmp_path)
    found = Shown(document)
    assert "data-ran" not in [name for name, _ in found.attributes]
    assert re.findall(r"<title>(.*?)</title>", document, re.S)[0].startswith("noisewise: ")
    assert "hostile.test" not in network
    assert found.tags.count("script") == before.tags.count("script")
    assert not {"iframe", "base"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert '<figure class="on">' in document, "the page's own script still runs"
    text = "".join(found.texts)
    for attack in ATTACKS[:15]:
        assert attack in text, attack


@needs_browser
@pytest.mark.parametrize("attack", [0, 8])
def test_the_browser_would_show_if_something_ran(attack: int, tmp_path: Path) -> None:
    """The same attacks on a page that escapes nothing."""
    bad = tmp_path / "bad.html"
    bad.write_text(f"<!doctype html><title>page</title><body>{ATTACKS[attack]}</body>")
    document, network = browse(bad.as_uri(), tmp_path)
    if attack != 8:
        assert 'data-ran="1"' in document
    assert "hostile.test" in network
