"""Exports to HTML: one file with the generator, ONNX Runtime Web and a page, to send to people.

It opens from a disk, without a network or a server. The parts lie in `noisewise.export.web`; what
is not text is packed by LZMA, which is a third smaller here than what browsers unpack themselves,
and written in base64.
"""

from __future__ import annotations

import base64
import json
import lzma
import math
import re
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from noisewise.export import onnx_file
from noisewise.export.graph import described, example, module_of
from noisewise.export.half_weights import halved
from noisewise.export.source import Source, Written
from noisewise.plain_text import printable
from noisewise.sizes import Size, spelled
from noisewise.training.models.models import Generator

MOST_BYTES = 25_000_000
"""Of a page: what mail services take, and what a browser opens while people wait."""
ONE_LEVEL = 1.001 * 2 / 255
"""Largest difference from torch, on the scale of -1 to 1: one level of 8 bits, and rounding."""
_COMPARED = (1, 5)  # pictures in a batch
_PAGE_BYTES = 3_100_000  # without a model
_BYTES_OF_A_WEIGHT = 2.5  # 16 bits, packed, in base64
_FEW_CLASSES = 16  # get buttons; more of them are a list
_ENGINE = ("lzma.js", "engine.js")
_SCRIPTS = ("noise.js", "pixels.js", "png.js", "page.js")


def write(source: Source, place: Path) -> Written:
    """Write the page, and compare the network in it with torch.

    Raises:
        ValueError: if the model is a teacher, or too large for a page.
        DiffersError: if ONNX Runtime computes something else.
    """
    generator = _generator(source)
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "model.onnx"
        written = onnx_file.write(source, whole)
        content = whole.read_bytes()
    model, note = halved(content), ()
    difference = _difference(generator, model)
    if difference > ONE_LEVEL:
        model, difference = content, written.difference
        note = (
            "its weights have 32 bits: with 16, pictures are off by more than a level of 8 bits",
        )
    page = _page(source, model)
    if len(page) > MOST_BYTES:
        raise ValueError(_too_large(len(page)))
    place.write_bytes(page)
    return Written(difference, written.checked, note)


def _difference(model: Generator, network: bytes) -> float:
    """Largest difference from torch of what can be seen; of a thousand values, one is left out.

    Rounding puts some pixels to the other side of a border, such as that of an exact ground.
    """
    run, original, found = onnx_file.onnx_function(network), module_of(model), 0.0
    for count in _COMPARED:
        inputs = example(model, count)
        with torch.no_grad():
            apart = (_seen(run(**inputs)) - _seen(original(**inputs))).abs().flatten()
        apart = apart.nan_to_num(math.inf).sort().values
        found = max(found, float(apart[len(apart) - 1 - len(apart) // 1000]))
    return found


def _seen(pictures: Tensor) -> Tensor:
    """Colour times opacity, where there is any: hidden colour may be anything."""
    if pictures.shape[1] != 4:
        return pictures
    opacity = (pictures[:, 3:] + 1) / 2
    return torch.cat([(pictures[:, :3] + 1) * opacity - 1, pictures[:, 3:]], 1)


def _generator(source: Source) -> Generator:
    """The model; what no page can draw is refused before the work begins."""
    if not isinstance(source.model, Generator):
        raise ValueError(
            "a page needs a generator, which draws in one call, and this model draws in many; make "
            "one first: noisewise distill RUN, then export the run without --teacher"
        )
    weights = sum(weight.numel() for weight in source.model.parameters())
    least = _PAGE_BYTES + int(_BYTES_OF_A_WEIGHT * weights)
    if least > MOST_BYTES:
        raise ValueError(_too_large(least))
    return source.model


def _too_large(num_bytes: int) -> str:
    return (
        f"this model is too large for a page: it would have about {num_bytes / 1e6:.0f} MB, and "
        f"mail takes {MOST_BYTES / 1e6:.0f}; export it to onnx, or distil a smaller net"
    )


def _page(source: Source, model: bytes) -> bytes:
    """All parts in one file; nothing in it needs another one."""
    about = described(source.model)
    facts = {name: about[name] for name in ("height", "width", "channels", "classes")}
    facts |= {"name": source.name, "label_histogram": about["label_histogram"]}
    facts["calls"] = about.get("calls", 1)
    runtime = json.loads(_text("vendor/vendored.json"))
    return _filled(
        _text("page.html"),
        {
            "version": escape(version("noisewise")),
            "name": _shown(source.name),
            "style": _text("page.css"),
            "about": _about(source),
            "works": _works(source),
            "classes": _classes(source.config.classes),
            "rights": _rights(source),
            "runtime": escape(runtime["version"]),
            "runtime_license": escape(_text("vendor/LICENSE")),
            "facts": json.dumps(facts).replace("<", "\\u003c"),
            "runtime_code": _packed(_text("vendor/ort.wasm.bundle.min.mjs").encode()),
            "wasm": _base64(_bytes("vendor/ort-wasm-simd-threaded.wasm.lzma")),
            "model": _packed(model, lc=0, lp=1, pb=1),
            "engine": "\n".join(map(_text, _ENGINE)),
            "script": "\n".join(map(_text, _SCRIPTS)),
        },
    ).encode()


def _filled(page: str, parts: dict[str, str]) -> str:
    """The page with each `@name@` replaced once; what is put in is not looked at again.

    Example:
        >>> _filled("<p>@a@ @b@</p>", {"a": "@b@", "b": "2"})
        '<p>@b@ 2</p>'
    """
    return re.sub(r"@(\w+)@", lambda found: parts[found[1]], page)


def _about(source: Source) -> str:
    config = source.config
    colour = "grey" if config.channels == 1 else "colour"
    clear = ", with transparency," if config.channels == 4 else ""
    return (
        f"A small neural network draws {colour} pictures of {_size(config.size)} pixels{clear} "
        "from random noise, here in your browser. Nothing is sent anywhere."
    )


def _size(size: Size) -> str:
    return spelled(size).replace("x", "×")


def _works(source: Source) -> str:
    weights = sum(weight.numel() for weight in source.model.parameters())
    made = source.info.get("data", {}).get("num_training")
    of = f", trained on {made:,} pictures" if made else ""
    calls = described(source.model).get("calls", 1)
    steps = "one step" if calls == 1 else f"{calls} steps"
    return escape(
        f"The network has {weights:,} weights{of}. It turns noise into a picture in {steps}. It "
        f"was made with noisewise {version('noisewise')}: a diffusion model learnt the pictures, "
        "then this generator was distilled from it."
    )


def _rights(source: Source) -> str:
    """Licence and intended use, where they were given."""
    lines = [f"Licence of the network: {source.license}."] if source.license else []
    return "".join(f"<p>{_shown(line)}</p>" for line in (*lines, source.note) if line)


def _classes(names: tuple[str, ...]) -> str:
    """Buttons for a few classes, a list for many; nothing without classes."""
    if not names:
        return ""
    options = [("", "any"), *((str(i), name) for i, name in enumerate(names))]
    if len(names) > _FEW_CLASSES:
        inside = "".join(
            f'<option value="{value}">{_shown(name)}</option>' for value, name in options
        )
        return f'<label class="seed">Class <select id="class">{inside}</select></label>'
    inside = "".join(
        f'<label><input type="radio" name="class" value="{value}"{"" if value else " checked"}>'
        f"{_shown(name)}</label>"
        for value, name in options
    )
    return (
        f'<fieldset><legend class="unseen">Class</legend><div class="chips">{inside}</div>'
        "</fieldset>"
    )


def _shown(text: str) -> str:
    """Text of people inside HTML."""
    return escape(" ".join(map(printable, text.split())))


def _bytes(name: str) -> bytes:
    return files("noisewise.export.web").joinpath(name).read_bytes()


def _text(name: str) -> str:
    return _bytes(name).decode()


def _packed(content: bytes, lc: int = 3, lp: int = 0, pb: int = 2) -> str:
    """Content packed by LZMA, in base64.

    Args:
        content: anything.
        lc: bits of the byte before that predict a byte.
        lp: bits of the position that predict it: 1 for numbers of two bytes.
        pb: the same for what was seen before.
    """
    how = {"id": lzma.FILTER_LZMA1, "preset": 9, "dict_size": 1 << 24, "lc": lc, "lp": lp, "pb": pb}
    return _base64(lzma.compress(content, lzma.FORMAT_ALONE, filters=[how]))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
