"""The flags of `noisewise powers`, which stands alone: it needs no torch and no run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

# -2^3, -(1/2)^3 and -sqrt(2) are numbers, not flags.
_NEGATIVE = re.compile(r"-[-+\s]*(?:[0-9.(]|sqrt\b)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class PowersOptions:
    """Which is larger? Compares powers of any size exactly, or puts several in order."""

    expressions: Positional[Annotated[tuple[str, ...], arg(metavar="POWER POWER [POWER...]")]]
    """Like "10^11", "1.5^(2/3)", "2^10 * 3^5", "10^10^100", "70!"; @FILE reads one from a file."""
    explain: bool = False
    """Compute it, see the pattern, prove it (of two powers)."""
    json: bool = False
    """Print one JSON object."""

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        if len(self.expressions) < 2:
            raise ValueError('one power is nothing to compare; give two, like "10^11" "11^10"')
        if self.explain and len(self.expressions) > 2:
            raise ValueError("--explain is about two powers; leave it out, or give two")


def parse_powers(arguments: Sequence[str]) -> PowersOptions:
    """Read the words after `noisewise powers`.

    Raises:
        ValueError: for fewer than two powers.
        SystemExit: from tyro, for --help (0) and for flags that cannot be read (2).
    """
    # A space in front keeps a negative number from being taken for a flag.
    words = [f" {word}" if _NEGATIVE.match(word) else word for word in arguments]
    return tyro.cli(
        PowersOptions,
        prog="noisewise powers",
        args=words,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
