"""A finished model in a format of somebody else: a page, ONNX, torch.export, diffusers, the Hub.

    from noisewise.export import write

    write("runs/mine", "onnx", "mine.onnx")

A format is one module with a function `write`, and one line in `formats`. The packages that it
needs are loaded when it is used, and not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from noisewise.export.formats import FORMATS, Format, FormatName

if TYPE_CHECKING:
    from noisewise.export.export import Exported, write
    from noisewise.export.hub_model import HubModel
    from noisewise.export.pipeline import NoisewisePipeline

__all__ = [
    "FORMATS",
    "Exported",
    "Format",
    "FormatName",
    "HubModel",
    "NoisewisePipeline",
    "write",
]

_HOMES = {
    "Exported": "noisewise.export.export",
    "HubModel": "noisewise.export.hub_model",
    "NoisewisePipeline": "noisewise.export.pipeline",
    "write": "noisewise.export.export",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'noisewise.export' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
