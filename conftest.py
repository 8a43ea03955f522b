"""Doctests of rooms whose extra is not installed are left out, as are those rooms' tests."""

from __future__ import annotations

from importlib.util import find_spec

# The files whose examples make PEFT's layers; the others of that room need torch alone.
_NEED_PEFT = (
    "alignment",
    "extraction",
    "gradients",
    "layers",
    "merging",
    "moved",
    "pro",
    "pro_adamw",
    "saving",
    "starts",
    "steps",
)

collect_ignore = (
    [] if find_spec("peft") else [f"src/noisewise/adapters/{name}.py" for name in _NEED_PEFT]
)
