"""The formats that a model can be exported to. Nothing here imports torch: help texts list them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from noisewise.export.source import Source, Written

FormatName = Literal["html", "onnx", "pt2", "diffusers", "hub"]


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: as people choose it.
        summary: what it is for.
        module: has ``write(source, place) -> Written``.
        suffix: of the file, with the dot; "" for a folder.
        packages: what has to be installed, as the names to import.
        extra: of noisewise that installs them; "" if it needs nothing more.
    """

    name: FormatName
    summary: str
    module: str
    suffix: str = ""
    packages: tuple[str, ...] = ()
    extra: str = ""

    def check_packages(self) -> None:
        """Refuse a format whose packages are not installed.

        Raises:
            ValueError: with the command that installs them.
        """
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            raise ValueError(
                f"exporting to {self.name} needs {' and '.join(missing)}; install it: "
                f"pip install 'noisewise[{self.extra}]' (or pip install {' '.join(missing)})"
            )

    def writer(self) -> Callable[[Source, Path], Written]:
        """The function that writes it.

        Raises:
            ValueError: if its packages are not installed.
        """
        self.check_packages()
        return import_module(self.module).write


FORMATS: tuple[Format, ...] = (
    Format(
        "html",
        "one page that draws in a browser, to send to people",
        "noisewise.export.html_file",
        ".html",
        ("onnx", "onnxscript", "onnxruntime"),
        "export",
    ),
    Format(
        "onnx",
        "one file for ONNX Runtime, in any language and in browsers",
        "noisewise.export.onnx_file",
        ".onnx",
        ("onnx", "onnxscript", "onnxruntime"),
        "export",
    ),
    Format(
        "pt2",
        "one file for PyTorch, without the code of noisewise",
        "noisewise.export.pt2_file",
        ".pt2",
    ),
    Format(
        "diffusers",
        "a pipeline folder for diffusers",
        "noisewise.export.diffusers_folder",
        packages=("diffusers",),
        extra="diffusers",
    ),
    Format(
        "hub",
        "a folder for the Hugging Face Hub, with a model card",
        "noisewise.export.hub_folder",
        packages=("huggingface_hub",),
        extra="hub",
    ),
)


def format_named(name: str) -> Format:
    """The format of this name.

    Raises:
        ValueError: if there is none.

    Example:
        >>> format_named("onnx").suffix
        '.onnx'
    """
    for known in FORMATS:
        if known.name == name:
            return known
    raise ValueError(
        f"unknown format {name!r}; use one of {', '.join(known.name for known in FORMATS)}"
    )
