"""The page with a generator in a real browser, opened from the disk: it draws what Python draws."""

from __future__ import annotations

import base64
import io
import json
import lzma
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from export_models import UNET, models
from in_browser import Watched, browser
from noisewise.export import write
from noisewise.training.models.models import Generator

pytestmark = pytest.mark.timeout(900)
TOLERANCE = 1e-4  # between ONNX Runtime in a browser and in Python, on the scale of -1 to 1
CLASSES = ("left", "</script><b>right", "up & down")


def small_generator() -> Generator:
    """Pictures of 8 x 8 pixels with transparency, of three classes."""
    generator = models({**UNET, "channels": 4, "num_classes": 3})[1]
    return Generator(generator.denoiser, replace(generator.config, classes=CLASSES)).eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("playwright", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (extras: export, browser)")
    out = tmp_path_factory.mktemp("page") / "arrows & more.html"
    write(small_generator(), "html", out, license="cc0-1.0", note="For tests <only>.")
    return out


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def watched(file: Path, opened: Any) -> Watched:  # noqa: ANN401
    found = Watched(opened, file, viewport={"width": 1280, "height": 900})
    drawn(found.page, 1)
    return found


def drawn(page: Any, times: int) -> None:  # noqa: ANN401
    """Wait until so many grids were drawn."""
    page.wait_for_function(f"document.documentElement.dataset.drawn === '{times}'")


def times_drawn(page: Any) -> int:  # noqa: ANN401
    return int(page.evaluate("document.documentElement.dataset.drawn"))


def network(file: Path) -> bytes:
    """The ONNX file inside the page."""
    found = re.search(r'<script type="text/plain" id="model">(.*?)</script>', file.read_text())
    assert found is not None
    return lzma.decompress(base64.b64decode(found[1]))


def grid(page: Any) -> np.ndarray:  # noqa: ANN401
    """What the page shows, uint8 [16, 8, 8, 4]."""
    return np.array(page.evaluate("items.map((item) => Array.from(item.pixels.data))")).reshape(
        16, 8, 8, 4
    )


def test_the_noise_is_that_of_python(watched: Watched) -> None:
    generator = small_generator()
    for seed, number in ((0, 0), (7, 3), (2**32 - 1, 15)):
        found = watched.page.evaluate(f"Array.from(noisewise.noise({seed}, {number}))")
        expected = generator.noise(seed, number, 1).flatten()
        torch.testing.assert_close(torch.tensor(found), expected, atol=1e-5, rtol=0)
    labels = watched.page.evaluate(
        "Array.from({length: 64}, (_, i) => drawnLabel(7, i, about.label_histogram))"
    )
    expected_labels = generator.labels(7, 0, 64)
    assert expected_labels is not None
    assert labels == expected_labels.tolist()
    # A number of pixels that no block of 16 divides.
    from noisewise.training.models.seeded_noise import picture_noise

    found = watched.page.evaluate("Array.from(normals(1, 2, 3 * 5 * 7))")
    expected = picture_noise(1, 2, 1, (3, 5, 7)).flatten()
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-5, rtol=0)


def test_sixteen_pictures_are_those_of_onnx_runtime(watched: Watched, file: Path) -> None:
    import onnxruntime

    noise = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = [i % 3 for i in range(16)]
    given = json.dumps([noise.flatten().tolist(), labels])
    found = watched.page.evaluate(
        "async ([noise, labels]) => Array.from((await noisewise.draw(noise, labels)).pictures)",
        json.loads(given),
    )
    session = onnxruntime.InferenceSession(network(file))
    (expected,) = session.run(None, {"z": noise.numpy(), "label": np.array(labels)})
    apart = np.abs(np.array(found, dtype=np.float32).reshape(expected.shape) - expected)
    assert apart.max() < TOLERANCE


def test_the_grid_shows_what_sample_draws(watched: Watched) -> None:
    """The same seed draws the same pictures as in Python, up to one level of 8 bits."""
    page, before = watched.page, times_drawn(watched.page)
    page.fill("#seed", "5")
    page.press("#seed", "Enter")
    drawn(page, before + 1)
    pictures = small_generator().sample(16, seed=5)
    shown = grid(page).astype(int)
    straight = ((pictures + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(shown[..., 3] - straight[..., 3]).max() <= 1
    assert np.abs(shown - straight).max() <= 1
    page.fill("#seed", "6")
    page.press("#seed", "Enter")
    drawn(page, before + 2)
    assert not np.array_equal(grid(page), shown)
    page.fill("#seed", "5")
    page.press("#seed", "Enter")
    drawn(page, before + 3)
    assert np.array_equal(grid(page), shown)


def test_a_generator_of_several_calls_draws_in_all_of_them(tmp_path: Path, opened: Any) -> None:  # noqa: ANN401
    one = small_generator()
    few = Generator(one.denoiser, replace(one.config, later_sigmas=(1.0, 0.3))).eval()
    write(few, "html", tmp_path / "few.html")
    page = Watched(opened, tmp_path / "few.html", viewport={"width": 1280, "height": 900}).page
    drawn(page, 1)
    page.fill("#seed", "5")
    page.press("#seed", "Enter")
    drawn(page, 2)
    pictures, first = few.sample(16, seed=5), few.sample(16, seed=5, calls=1)
    shown = grid(page).astype(int)
    straight, other = (
        ((x + 1) * 127.5).round().permute(0, 2, 3, 1).numpy() for x in (pictures, first)
    )
    assert np.abs(shown - straight).max() <= 1
    assert np.abs(shown - other).max() > 20


def test_buttons_and_slider_work(watched: Watched) -> None:
    page, before = watched.page, times_drawn(watched.page)
    page.click("text='up & down'")
    drawn(page, before + 1)
    assert set(page.evaluate("items.map((item) => item.label)")) == {2}
    assert page.get_attribute("#grid button:first-child", "aria-label") == "Picture 1, up & down"
    page.click("#grid button:nth-child(4)")
    assert page.inner_text("#caption") == "Picture 4, up & down"
    page.click("#mixing")
    page.click("#grid button:nth-child(9)")
    page.wait_for_function("document.getElementById('shown').dataset.share === '50'")
    middle = page.evaluate("Array.from(mixed.data)")
    page.focus("#share")
    for _ in range(50):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.getElementById('shown').dataset.share === '0'")
    ends = page.evaluate("[Array.from(mixed.data), Array.from(items[3].pixels.data)]")
    assert np.abs(np.array(ends[0]) - np.array(ends[1])).max() <= 1  # batches round differently
    assert middle != ends[0]
    page.click("#mixing")
    assert page.is_hidden("#mix")
    page.click("#alike")
    drawn(page, before + 2)
    assert page.inner_text("#heading") == "More like Picture 4, up & down"
    page.click("#back")
    drawn(page, before + 3)
    seed = page.input_value("#seed")
    page.click("text='New pictures'")
    drawn(page, before + 4)
    assert page.input_value("#seed") != seed
    assert "milliseconds a picture" in page.inner_text("#status")
    page.check("[name=class][value='']", force=True)
    drawn(page, before + 5)


def test_a_saved_picture_is_exact(watched: Watched, tmp_path: Path) -> None:
    """Each pixel of the file is the one shown, transparent ones too; enlarged ones are squares."""
    page = watched.page
    for scale, selector, count in ((1, "#save", 1), (8, "#save", 1), (1, "#sheet", 16)):
        page.select_option("#scale", str(scale))
        with page.expect_download() as waiting:
            page.click(selector)
        waiting.value.save_as(tmp_path / "saved.png")
        assert waiting.value.suggested_filename.endswith(".png")
        saved = np.asarray(Image.open(io.BytesIO((tmp_path / "saved.png").read_bytes())))
        assert saved.shape[2] == 4
        if count == 16:
            assert saved.shape[:2] == (35, 35)
            assert np.array_equal(saved[9:17, 9:17], grid(page)[5])
            continue
        shown = grid(page)[page.evaluate("shown")]
        assert np.array_equal(saved, shown.repeat(scale, 0).repeat(scale, 1))
    assert len(np.unique(grid(page)[..., 3])) > 4


def test_the_keyboard_is_enough(watched: Watched) -> None:
    page = watched.page
    page.focus("#grid button[tabindex='0']")
    page.keyboard.press("Home")
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert page.evaluate("shown") == 5
    assert page.get_attribute("#grid button:nth-child(6)", "aria-current") == "true"
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")  # stays
    page.keyboard.press("Space")
    assert page.evaluate("shown") == 15


def test_text_of_people_is_shown_as_it_is(watched: Watched) -> None:
    assert "</script><b>right" in watched.page.inner_text("fieldset")
    assert "Licence of the network: cc0-1.0." in watched.page.inner_text("footer")
    assert "For tests <only>." in watched.page.inner_text("footer")


def test_nothing_was_asked_of_the_network_and_nothing_went_wrong(watched: Watched) -> None:
    watched.check()
    assert watched.sideways() <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_barriers(file: Path, opened: Any, scheme: str) -> None:  # noqa: ANN401
    phone = Watched(
        opened, file, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True
    )
    drawn(phone.page, 1)
    assert phone.sideways() <= 0
    assert phone.serious() == []
    phone.check()
    phone.context.close()


def test_without_script_it_says_what_to_do(file: Path, opened: Any) -> None:  # noqa: ANN401
    plain = Watched(opened, file, java_script_enabled=False)
    assert "Switch it on" in plain.page.inner_text("noscript")
    plain.context.close()
