"""An empty replacement for torchvision, for denoising-diffusion-pytorch on the CPU build of torch.

That project imports torchvision for two things only: transforms in its folder data set and
`save_image` in its Trainer. Neither is used here (pictures come from memory, samples go to an
.npz). The CPU build of torch has no matching torchvision on PyPI, and with a CUDA pair the peers
would use another torch than noisewise. So `install` registers empty modules of that name; using
anything from them raises an error.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types


class _Absent(types.ModuleType):
    """A module that can be imported and is empty."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(f"{self.__name__}.{name} was used, but torchvision is not installed.")


def install() -> bool:
    """Register the replacement if torchvision is not installed; return whether it was needed."""
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
