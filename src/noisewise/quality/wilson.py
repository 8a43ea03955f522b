"""The interval of a share that was counted.

Paper: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
"""

from __future__ import annotations

import math


def wilson(count: float, total: float, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a share, count out of total.

    Args:
        count: from 0 to total.
        total: above 0; a number of independent pictures.
        z: half-width in standard deviations.

    Example:
        >>> [round(end, 3) for end in wilson(0, 10)]
        [0.0, 0.278]
    """
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
    spread /= 1 + z * z / total
    low = 0.0 if count <= 0 else max(0.0, middle - spread)  # exactly: no rounding makes it more
    high = 1.0 if count >= total else min(1.0, middle + spread)
    return low, high
