"""The answer of a command on stdout, said by one process of several."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from noisewise.app.terminal.stderr import readable


def leads() -> bool:
    """Whether this is the process that speaks, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def show(values: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print a result on stdout: one JSON object, or lines for people; of several processes once."""
    if not leads():
        return
    text = json.dumps(values, ensure_ascii=False) if as_json else text
    print(readable(text), flush=True)
