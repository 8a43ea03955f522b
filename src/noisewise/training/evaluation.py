"""What `evaluate` found, as values; people see a small table of them, in a notebook too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from noisewise.quality.verdict import MEANINGS, Word
from noisewise.training.in_html import page


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        model: "generator" or "teacher".
        num_images: pictures generated.
        against: which real pictures, and how many.
        verdict: "as real", "close", "visibly different", "poor" or "cannot tell".
        verdict_reason: one sentence.
        floors: how far the pictures are from real ones, in units of the distance that 500 real
            pictures have from 500 others. With interval, parts, and what chance may reach.
        told_apart: share of pictures that a classifier puts right, with interval; 0.5: it cannot.
            None (and the next six) with fewer than 10 pictures.
        precision: share of generated pictures that look like some real picture; noise is not seen.
        recall: share of real pictures that generated ones cover; it rises on torn pictures.
        spectrum_db: error of the power at each fineness of detail, in dB.
        flat_area: share of pixels in areas of one exact value, generated and real.
        even_area: share of pixels in areas that look even, generated and real.
        class_shares: share of each class or kind, with interval and the real one; None without.
        distance: unbiased kernel distance in frozen random features (it is not FID); 0 in
            expectation if generated and real pictures have the same law.
        distance_low: lower end of its 95% interval.
        distance_high: upper end of its 95% interval.
        floor: as many real pictures stay below this distance 95 times in 100.
        wasserstein: sliced Wasserstein distance of each Laplacian level, coarse to fine.
        copies: share of generated pictures that copy a training picture, with interval and
            threshold, and the same of near copies with the power of that test; None if the training
            pictures are missing.
        seconds_per_image: time to draw one picture, in batches, on this machine as busy as it was.
        network_calls: calls for each picture.
        device: where the pictures were drawn.
        fid: for comparing with papers; None unless its weights were given.
        kid: the same; papers often give 1000 times it.
    """

    model: str
    num_images: int
    against: str
    verdict: Word
    verdict_reason: str
    floors: dict[str, Any]
    told_apart: dict[str, float] | None
    precision: float | None
    recall: float | None
    spectrum_db: float | None
    flat_area: dict[str, float] | None
    even_area: dict[str, float] | None
    class_shares: list[dict[str, Any]] | None
    distance: float
    distance_low: float
    distance_high: float
    floor: float
    wasserstein: tuple[float, ...]
    copies: dict[str, Any] | None
    seconds_per_image: float
    network_calls: int
    device: str
    fid: float | None = None
    kid: float | None = None

    def __repr__(self) -> str:
        """One line; `print` shows a small table, `to_dict` has all of it."""
        copies = "" if self.copies is None else f", {100 * self.copies['fraction']:.2g}% copies"
        calls = "1 call" if self.network_calls == 1 else f"{self.network_calls} calls"
        floors = self.floors
        return (
            f"Evaluation({self.model}, {calls}: {self.verdict}, {floors['value']:.3g} floors "
            f"[{floors['low']:.3g}, {floors['high']:.3g}]{copies}, "
            f"{self.num_images:,} against {self.against})"
        )

    def __str__(self) -> str:
        """A small table: the verdict, then what it was read from."""
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, and the small table."""
        title = f"{self.verdict} ({MEANINGS[self.verdict]}): {self.verdict_reason}"
        return page(title, rows=self.rows())

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of what people look at first; what was not measured is left out."""
        told, copies = self.told_apart, self.copies
        rows: list[tuple[str, str | None]] = [
            ("verdict", self.verdict),
            ("floors", _with_interval(self.floors["value"], self.floors, ".3g")),
            ("told apart", _with_interval(told["share"], told, ".0%") if told else None),
            ("precision", None if self.precision is None else f"{self.precision:.0%}"),
            ("recall", None if self.recall is None else f"{self.recall:.0%}"),
            ("copies", f"{copies['fraction']:.2%} of them" if copies else None),
            ("distance", f"{self.distance:.4f} (floor {self.floor:.4f})"),
            ("pictures", f"{self.num_images:,} of the {self.model} against {self.against}"),
            ("drawing", self._drawing()),
        ]
        return [(name, value) for name, value in rows if value]

    def _drawing(self) -> str:
        calls = "1 call" if self.network_calls == 1 else f"{self.network_calls} calls"
        return f"{calls}, {1000 * self.seconds_per_image:.3g} ms a picture on {self.device}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "wasserstein": list(self.wasserstein)}


def _with_interval(value: float, ends: Mapping[str, Any], form: str) -> str:
    """A value with its interval; none of them is shown below 0.

    Example:
        >>> _with_interval(3.14159, {"low": -0.5, "high": 4.0}, ".3g")
        '3.14 (0 to 4)'
    """
    low, high = max(ends["low"], 0.0), max(ends["high"], 0.0)
    return f"{max(value, 0.0):{form}} ({low:{form}} to {high:{form}})"
