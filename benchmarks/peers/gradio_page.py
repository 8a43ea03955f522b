"""A gradio page with a diffusers pipeline; run by benchmarks/export/page_to_send.py.

    gradio_page.py serve PIPELINE PORT   the page, on this machine only
    gradio_page.py size                  megabytes of what has to be installed for it, as JSON

It runs in an environment with gradio and diffusers (see benchmarks/README.md). The pipeline is one
that `noisewise export --to diffusers` wrote, so noisewise has to be found too (PYTHONPATH).
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

# What somebody installs to open such a page; noisewise itself is added below, without its own needs
# for training.
ROOTS = ("gradio", "diffusers", "torch", "numpy", "pillow", "safetensors")


def serve(pipeline: str, port: int) -> None:
    """Sixteen pictures when the page opens, and a button for more."""
    import gradio
    import torch

    from noisewise.export import NoisewisePipeline

    pipe = NoisewisePipeline.from_pretrained(pipeline)
    pipe.set_progress_bar_config(disable=True)

    def draw(seed: float) -> list[object]:
        return pipe(16, generator=torch.Generator().manual_seed(int(seed))).images

    with gradio.Blocks() as page:
        seed = gradio.Number(0, label="Seed")
        button = gradio.Button("New pictures")
        pictures = gradio.Gallery(columns=4, format="png")
        button.click(draw, seed, pictures)
        page.load(draw, seed, pictures)
    page.launch(server_name="127.0.0.1", server_port=port, quiet=True)


def size() -> None:
    """Megabytes of the roots and all that they need, each once."""
    import noisewise

    found = _needed(ROOTS)
    own = Path(noisewise.__path__[0])
    whole = {name: _bytes(metadata.distribution(name)) for name in found}
    whole["noisewise"] = sum(f.stat().st_size for f in own.rglob("*") if _counts(f))
    versions = {name: metadata.version(name) for name in ("gradio", "diffusers", "torch")}
    print(
        json.dumps(
            {
                "megabytes": sum(whole.values()) / 1e6,
                "packages": len(whole),
                "torch": whole["torch"] / 1e6,
                "versions": versions,
            }
        )
    )


def _needed(roots: tuple[str, ...]) -> set[str]:
    """Names of installed distributions that the roots need, and theirs."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in roots]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in metadata.requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(wanted.name))
    return found


def _bytes(package: metadata.Distribution) -> int:
    files = [Path(str(package.locate_file(file))) for file in package.files or ()]
    return sum(file.stat().st_size for file in files if file.is_file() and _counts(file))


def _counts(file: Path) -> bool:
    return file.is_file() and file.suffix != ".pyc"


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        size()
