"""Options for reading pictures."""

from __future__ import annotations

from typing import Literal

Crop = Literal["centre", "random", "pad"]
