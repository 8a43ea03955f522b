"""What can be asked of pictures when they are read."""

from __future__ import annotations

from typing import Literal

Crop = Literal["centre", "random", "pad"]
