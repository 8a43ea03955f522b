"""A stand-in for torchvision, for denoising-diffusion-pytorch on the CPU build of torch.

That project imports torchvision for two things only: transforms in its folder data set and
`save_image` in its Trainer. Neither is used here (pictures come from memory, samples go to an
.npz). The CPU build of torch has no matching torchvision on PyPI, and a CUDA pair would make the
peers run on another torch than ours. So `install` registers empty modules of that name; anything
taken from them raises when it is used.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types


class _Absent(types.ModuleType):
    """A module that imports and holds nothing."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(f"{self.__name__}.{name} was used, but torchvision is not installed.")


def install() -> bool:
    """Register the stand-in where no real torchvision is installed; say whether it was needed."""
    if importlib.util.find_spec("torchvision") is not None:
        return False
    package = _Absent("torchvision")
    for name in ("transforms", "utils"):
        part = _Absent(f"torchvision.{name}")
        part.__spec__ = importlib.machinery.ModuleSpec(part.__name__, None)
        setattr(package, name, part)
        sys.modules[part.__name__] = part
    package.__path__ = []
    package.__spec__ = importlib.machinery.ModuleSpec("torchvision", None, is_package=True)
    sys.modules["torchvision"] = package
    return True
