"""How the tests are started must not matter, and what is not installed is not tested.

Doctests of rooms whose extra is not installed are left out, as are those rooms' tests. `nohup`, a
shell's `&` and some CI runners start programs with signals ignored; children inherit that.
"""

from __future__ import annotations

import signal
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
collect_ignore += [] if find_spec("sklearn") else ["src/noisewise/lowrank/pca.py"]
collect_ignore += (
    []
    if find_spec("diffusers")
    else [f"src/noisewise/export/{x}.py" for x in ("pipeline", "scheduler")]
)
collect_ignore += [] if find_spec("huggingface_hub") else ["src/noisewise/export/hub_model.py"]

# Tests send these to themselves and to their children, and look at what the product does.
for _name, _usual in (
    ("SIGHUP", signal.SIG_DFL),
    ("SIGTERM", signal.SIG_DFL),
    ("SIGINT", signal.default_int_handler),
):
    _number = getattr(signal, _name, None)
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
