"""The page with a generator: what is refused, what is written into it, that its parts are whole."""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export_models import UNET, models
from noisewise.export import html_file, write
from noisewise.export.half_weights import halved, in_rows
from noisewise.export.source import Source
from noisewise.training.models.models import Generator

VENDOR = Path(html_file.__file__).parent / "web" / "vendor"
HOSTILE = ("left", "</script><img src=x onerror=alert(1)>", "up & \u202edown")


def named(classes: tuple[str, ...], net: dict = UNET) -> Generator:
    generator = models({**net, "num_classes": 3})[1]
    shares = (5,) * len(classes)
    return Generator(
        generator.denoiser, replace(generator.config, classes=classes, label_histogram=shares)
    )


def test_a_teacher_is_refused_with_the_way_out(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match=r"a page needs a generator.*noisewise distill RUN"):
        write(models(UNET)[0], "html", tmp_path / "x.html")
    assert not list(tmp_path.iterdir())


def test_a_large_model_is_refused_before_it_is_traced(tmp_path: Path) -> None:
    generator = models(UNET)[1]
    generator.denoiser.more = torch.nn.Parameter(torch.empty(20_000_000, device="meta"))
    with pytest.raises(ValueError, match=r"too large for a page: .* 53 MB.*export it to onnx"):
        html_file.write(Source(generator, "large"), tmp_path / "x.html")
    assert not list(tmp_path.iterdir())


def test_text_of_people_stays_text() -> None:
    source = Source(named(HOSTILE), "<b>me</b>", {}, "<i>", "for @wasm@ & others")
    page = html_file._page(source, b"model").decode()
    shown = re.sub(r'<script type="text/plain".*?</script>', "", page, flags=re.DOTALL)
    assert "<img" not in shown
    assert "<b>" not in shown
    assert "<h1>&lt;b&gt;me&lt;/b&gt;</h1>" in shown
    assert "<p>for @wasm@ &amp; others</p>" in shown
    assert "\u202e" not in re.sub(r'<script type="application/json".*?</script>', "", shown)
    facts = re.search(r'<script type="application/json" id="about">(.*?)</script>', page)
    assert facts is not None
    assert json.loads(facts[1])["classes"] == list(HOSTILE)
    packed = re.search(r'<script type="text/plain" id="model">(.*?)</script>', page)
    assert packed is not None
    assert lzma.decompress(base64.b64decode(packed[1])) == b"model"


def test_many_classes_are_a_list() -> None:
    few, many = (html_file._classes(tuple(map(str, range(count)))) for count in (16, 17))
    assert few.count('type="radio"') == 17
    assert many.count("<option") == 18
    assert html_file._classes(()) == ""


def test_a_page_needs_nothing_else_and_is_small() -> None:
    page = html_file._page(Source(named(("a", "b", "c")), "arrows"), b"")
    assert len(page) < html_file._PAGE_BYTES
    shown = re.sub(rb'<script type="text/plain".*?</script>', b"", page, flags=re.DOTALL)
    assert not re.search(rb'(src|href)="(?!data:|#)', shown)
    assert not re.search(rb"@\w+@", shown)


def test_what_is_vendored_is_what_npm_has() -> None:
    recorded = json.loads((VENDOR / "vendored.json").read_text())
    code, wasm = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
    found = {
        code: (VENDOR / code).read_bytes(),
        wasm: lzma.decompress((VENDOR / f"{wasm}.lzma").read_bytes()),
    }
    for name, data in found.items():
        assert hashlib.sha256(data).hexdigest() == recorded["sha256"][name]
    assert f"v{recorded['version']}".encode() in found[code][:100]
    assert "Microsoft" in (VENDOR / "LICENSE").read_text()


def test_weights_of_16_bits_are_off_by_half_a_step() -> None:
    """Of each row; float16 is off by more on average."""
    values = np.random.default_rng(0).standard_normal((64, 100)).astype(np.float32)
    numbers, scales = in_rows(values)
    error = np.abs(numbers * scales - values)
    assert numbers.dtype == np.int16
    assert (error <= 0.51 * scales).all()
    of_float16 = np.abs(values.astype(np.float16).astype(np.float32) - values)
    assert np.sqrt((error**2).mean()) < 0.3 * np.sqrt((of_float16**2).mean())
    assert (in_rows(np.zeros((2, 3), np.float32))[0] == 0).all()
    assert in_rows(values[0])[1].shape == ()


def test_a_graph_with_16_bits_computes_the_same() -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 16)).astype(np.float32)
    small, whole = np.ones(4, np.float32), np.arange(100)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["w", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, "n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [32, "n"])],
        [
            numpy_helper.from_array(values, name)
            for name, values in (("w", weight), ("small", small), ("whole", whole))
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    session = onnxruntime.InferenceSession(halved(model))
    x = rng.standard_normal((16, 3)).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    assert np.abs(y - weight @ x).max() < 1e-3
    kept = {w.name: w.data_type for w in onnx.load_from_string(halved(model)).graph.initializer}
    assert kept["small"] == TensorProto.FLOAT
    assert kept["w_16"] == TensorProto.INT16
    assert kept["whole"] == TensorProto.INT64
