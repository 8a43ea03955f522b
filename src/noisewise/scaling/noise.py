"""How noisy a gradient is: |g|^2, tr Sigma and their ratio, unbiased, with intervals.

Paper: McCandlish, Kaplan, Amodei et al. 2018, "An empirical model of large-batch training",
appendix A. The estimator is a one-way analysis of variance, so micro-batches may differ in size.

A *micro-batch* is any part of a batch whose own mean gradient can be read: one accumulation step,
one data-parallel rank before the all-reduce, or one example. Micro-batch i has b_i examples; its
mean gradient g_i has mean g and covariance Sigma / b_i. B = sum b_i, G = sum b_i g_i / B. Then

    tr Sigma = (sum b_i |g_i|^2 - B |G|^2) / (n - 1),      |g|^2 = |G|^2 - tr Sigma / B

are unbiased for any distribution of the noise; for equal sizes they are the paper's two-batch
formulas. B_simple = tr Sigma / |g|^2 divides two averages, because a mean of ratios has no
expectation.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from noisewise.scaling.flat import gram
from noisewise.scaling.intervals import Estimate, fieller, jackknife_covariance, symmetric

__all__ = [
    "GradientNoise",
    "Noise",
    "measure_noise",
    "unbiased_moments",
]

_MAX_BLOCKS = 32  # blocks longer than neighbouring steps are correlated, so errors are not too low
ALL = "all"


@dataclass(frozen=True)
class Noise:
    """Signal and noise of a gradient, with 95 % intervals.

    Attributes:
        g2: |g|^2, squared norm of the true gradient; may come out negative.
        trace_sigma: tr Sigma, the noise of one example's gradient.
        b_simple: tr Sigma / |g|^2 in examples (Fieller); no upper bound while g2 may be zero.
        num_micro: number of micro-batches measured.
        groups: the same for each parameter group or layer.
    """

    g2: Estimate
    trace_sigma: Estimate
    b_simple: Estimate
    num_micro: int
    groups: dict[str, Noise] = field(default_factory=dict)

    @property
    def identifiable(self) -> bool:
        """Whether the noise scale has an upper bound, so that its value means something."""
        return self.b_simple.bounded

    def why_not_known(self) -> str:
        """Return the first half of a sentence for people; only if not `identifiable`."""
        low = self.b_simple.low
        known = (
            f"it is above {low:.3g} examples and has no upper bound"
            if low > 0
            else ("any value is still possible")
        )
        return f"The noise scale is not known well enough yet: {known}"

    def more_needed(self, relative: float = 0.25) -> int:
        """Return how many times the data so far to add for this relative error of |g|^2.

        The error falls as one over the square root of the data. While |g|^2 cannot be told from
        zero, the result is a low guess. 0 means that there is enough data already.
        """
        scale = max(abs(self.g2.value), self.g2.standard_error)
        if not scale > 0:
            return 1
        times = (self.g2.standard_error / scale / relative) ** 2
        return math.ceil(times - 1) if times > 1 else 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "g2": self.g2.to_dict(),
            "trace_sigma": self.trace_sigma.to_dict(),
            "b_simple": self.b_simple.to_dict(),
            "num_micro": self.num_micro,
            "groups": {name: noise.to_dict() for name, noise in self.groups.items()},
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Noise:
        """Make it from what `to_dict` returned."""
        return cls(
            Estimate.from_dict(stored["g2"]),
            Estimate.from_dict(stored["trace_sigma"]),
            Estimate.from_dict(stored["b_simple"]),
            int(stored["num_micro"]),
            {name: cls.from_dict(noise) for name, noise in stored.get("groups", {}).items()},
        )


def unbiased_moments(
    weighted_squares: Tensor,
    mean_square: Tensor,
    num_micro: Tensor | int,
    batch: Tensor | float,
    dataset_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return unbiased |g|^2 and tr Sigma from two squared norms.

    ``tr Sigma = (Q - B |G|^2) / (n - 1)``, ``|g|^2 = |G|^2 - (1/B - 1/D) tr Sigma``

    Args:
        weighted_squares: Q = sum_i b_i |g_i|^2, any shape.
        mean_square: |G|^2 of the mean over all B examples, same shape.
        num_micro: micro-batches n, at least 2.
        batch: B, examples in all.
        dataset_size: D, if examples are drawn without replacement from D and you want the gradient
            of those D; None: the gradient of the distribution that they come from.

    Raises:
        ValueError: for one micro-batch, or a batch larger than the data set.

    Source: McCandlish et al. 2018, equations A.2 and A.3; Cochran 1977, theorem 2.2 (the finite
    population).

    Example:
        >>> g = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
        >>> g2, trace = unbiased_moments(g.square().sum(), g.mean(0).square().sum(), 2, 2)
        >>> float(g2), float(trace)  # g1.g2 = 7
        (7.0, 2.0)
    """
    if int(torch.as_tensor(num_micro).min()) < 2:
        raise ValueError(
            "One micro-batch shows no noise: use two or more per step (gradient accumulation or "
            "data-parallel ranks), or calibrate()."
        )
    if dataset_size is not None and float(torch.as_tensor(batch).max()) > dataset_size:
        raise ValueError(
            f"A batch of {batch} cannot be drawn without replacement from {dataset_size} examples."
        )
    trace = (weighted_squares - batch * mean_square) / (num_micro - 1)
    left = 0.0 if dataset_size is None else 1.0 / dataset_size
    return mean_square - (1.0 / batch - left) * trace, trace


def _ratio_noise(values: Tensor, left_out: Tensor, num_micro: int) -> Noise:
    """Noise from (|g|^2, tr Sigma) and their values with one block left out, [m, 2]."""
    covariance, count = jackknife_covariance(left_out), len(left_out)
    g2, trace = values.tolist()
    swapped = covariance.flip(0, 1)  # fieller takes (numerator, denominator)
    return Noise(
        symmetric(g2, float(covariance[0, 0]), count),
        symmetric(trace, float(covariance[1, 1]), count),
        fieller(trace, g2, swapped, count),
        num_micro,
    )


def measure_noise(
    gradients: Tensor,
    sizes: Sequence[float] | float = 1.0,
    groups: Mapping[str, slice] | None = None,
    dataset_size: int | None = None,
) -> Noise:
    """Return the noise of micro-batch gradients, all computed at the same weights.

    Uses all pairs of micro-batches. Intervals leave out one micro-batch at a time.

    Args:
        gradients: float [n, p], mean gradient of each micro-batch, n >= 3; rows may be single
            examples (sizes 1).
        sizes: examples (or tokens, if the loss is their mean) in each; one number: all equal.
        groups: name -> columns; each group is reported separately too.
        dataset_size: as in `unbiased_moments`.

    Raises:
        ValueError: for fewer than 3 micro-batches, sizes that are not positive, or gradients that
            are not finite.

    Source: McCandlish et al. 2018, appendix A.1; Miller 1974.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> g = 1 + 4 * torch.randn(64, 100, generator=generator) / 32**0.5  # batch 32
        >>> noise = measure_noise(g, 32)
        >>> noise.b_simple.low < 16 < noise.b_simple.high
        True
    """
    if gradients.ndim != 2 or len(gradients) < 3:
        raise ValueError(
            f"Gradients of shape {tuple(gradients.shape)} give no interval: pass [n, p], the "
            "gradients of 3 or more micro-batches."
        )
    n = len(gradients)
    weights = torch.as_tensor(sizes, dtype=torch.float64).expand(n)
    if not bool((weights > 0).all()):
        raise ValueError("The size of a micro-batch must be positive.")
    whole = gram(gradients)
    if not bool(whole.diagonal().isfinite().all()):
        raise ValueError("A gradient is not finite (NaN or inf): leave it out, or use float32.")
    names = dict(groups or {})
    parts = {name: gram(gradients[:, columns]) for name, columns in names.items()}
    found = _noise_of_gram(whole, weights, dataset_size)
    return Noise(
        found.g2,
        found.trace_sigma,
        found.b_simple,
        n,
        {name: _noise_of_gram(gram, weights, dataset_size) for name, gram in parts.items()},
    )


def _noise_of_gram(gram: Tensor, sizes: Tensor, dataset_size: int | None) -> Noise:
    n, batch = len(gram), sizes.sum()
    sums = sizes[:, None] * gram * sizes  # inner products of the micro-batches' summed gradients
    own, total = sums.diagonal(), sums.sum()
    squares = own / sizes
    values = torch.stack(unbiased_moments(squares.sum(), total / batch**2, n, batch, dataset_size))
    rest = batch - sizes
    mean_square = (total - 2 * sums.sum(1) + own) / rest**2
    left_out = torch.stack(
        unbiased_moments(squares.sum() - squares, mean_square, n - 1, rest, dataset_size), 1
    )
    return _ratio_noise(values, left_out, n)


class GradientNoise:
    """The noise of a running training: averages |g|^2 and tr Sigma over steps, then divides.

    Give it the squared norms of each step; the weights may move from step to step. Its interval
    leaves out blocks of neighbouring steps, because these are correlated.

    Args:
        groups: names of the parameter groups or layers to report separately.
        window: number of steps to remember, 2 or more; the noise changes during training.
        dataset_size: as in `unbiased_moments`.

    Raises:
        ValueError: if the window is below 2 or a name is repeated.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> noise = GradientNoise()
        >>> for _ in range(200):  # two micro-batches of 8; |g|^2 = 50, tr Sigma = 800
        ...     noise.add_gradients(1 + 2**0.5 * torch.randn(2, 50, generator=generator), 8)
        >>> found = noise.read()
        >>> found.b_simple.low < 16 < found.b_simple.high
        True
        >>> again = GradientNoise()
        >>> again.load_state_dict(noise.state_dict())
        >>> again.read() == found
        True
    """

    def __init__(
        self,
        groups: Sequence[str] = (ALL,),
        window: int = 2000,
        dataset_size: int | None = None,
    ) -> None:
        """Nothing is measured yet."""
        if window < 2:
            raise ValueError(f"A window of {window} steps gives no interval: use 2 or more.")
        if len(set(groups)) != len(groups) or not groups:
            raise ValueError("Give at least one group, and a different name for each.")
        self.groups = tuple(groups)
        self.window = window
        self.dataset_size = dataset_size
        self.num_steps = 0
        self._records: deque[tuple[list[float], list[float], int, float]] = deque(maxlen=window)

    def __len__(self) -> int:
        """Steps in the window."""
        return len(self._records)

    @property
    def num_micro(self) -> float:
        """Mean number of micro-batches per step; nan before the first step."""
        return sum(r[2] for r in self._records) / len(self) if len(self) else math.nan

    @property
    def batch(self) -> float:
        """Mean number of examples per step; nan before the first step."""
        return sum(r[3] for r in self._records) / len(self) if len(self) else math.nan

    def add(
        self, weighted_squares: Tensor, mean_square: Tensor, num_micro: int, batch: float
    ) -> None:
        """Record one step.

        Args:
            weighted_squares: [groups] sum_i b_i |g_i|^2.
            mean_square: [groups] |G|^2 of the step's mean gradient, before clipping.
            num_micro: micro-batches of the step, on all ranks.
            batch: examples of the step, on all ranks.

        Raises:
            ValueError: for one micro-batch, a wrong shape, or a number that is not finite; then
                nothing is recorded.
        """
        shape = (len(self.groups),)
        if weighted_squares.shape != shape or mean_square.shape != shape:
            raise ValueError(f"A step needs one number for each of the {shape[0]} groups.")
        if not bool((weighted_squares.isfinite() & mean_square.isfinite()).all()):
            raise ValueError("A gradient is not finite (NaN or inf): this step is not recorded.")
        if not batch > 0:
            raise ValueError(f"A batch of {batch} examples is not possible: give a number above 0.")
        g2, trace = unbiased_moments(
            weighted_squares.double().cpu(),
            mean_square.double().cpu(),
            num_micro,
            batch,
            self.dataset_size,
        )
        self._records.append((g2.tolist(), trace.tolist(), num_micro, float(batch)))
        self.num_steps += 1

    def newest(self) -> tuple[float, float]:
        """Return |g|^2 and tr Sigma of the last step, over all groups.

        Raises:
            ValueError: before the first step.
        """
        if not self._records:
            raise ValueError("No step is measured yet: add one first.")
        g2, trace, *_ = self._records[-1]
        return sum(g2), sum(trace)

    def add_gradients(self, gradients: Tensor, sizes: Sequence[float] | float = 1.0) -> None:
        """Record one step from its micro-batch gradients [n, p]; only for a single group."""
        if len(self.groups) != 1:
            raise ValueError("A matrix of gradients is one group: use add() for several groups.")
        weights = torch.as_tensor(sizes, dtype=torch.float64).expand(len(gradients))
        exact, batch = gradients.double(), float(weights.sum())
        squares = (weights * exact.square().sum(1)).sum()
        mean = (weights[:, None] * exact).sum(0) / batch
        self.add(squares[None], mean.square().sum()[None], len(gradients), batch)

    def read(self) -> Noise:
        """Return the averages over the window, with intervals.

        Raises:
            ValueError: before the second step.
        """
        if len(self) < 2:
            raise ValueError(f"{len(self)} steps are measured: an interval needs two or more.")
        pairs = torch.tensor([[r[0], r[1]] for r in self._records], dtype=torch.float64)
        num_micro = sum(r[2] for r in self._records)
        whole = _noise_of_steps(pairs.sum(2), num_micro)
        if len(self.groups) == 1:
            return whole
        parts = {
            name: _noise_of_steps(pairs[:, :, i], num_micro) for i, name in enumerate(self.groups)
        }
        return Noise(whole.g2, whole.trace_sigma, whole.b_simple, num_micro, parts)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as JSON values."""
        return {
            "groups": list(self.groups),
            "window": self.window,
            "dataset_size": self.dataset_size,
            "num_steps": self.num_steps,
            "records": [list(record) for record in self._records],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: if it belongs to other groups.
        """
        if list(state["groups"]) != list(self.groups):
            raise ValueError(
                "The saved state belongs to other parameter groups: start a new measurement."
            )
        self.window, self.dataset_size = int(state["window"]), state["dataset_size"]
        self.num_steps = int(state["num_steps"])
        records = ((list(g), list(s), int(n), float(b)) for g, s, n, b in state["records"])
        self._records = deque(records, maxlen=self.window)


def _noise_of_steps(pairs: Tensor, num_micro: int) -> Noise:
    """Noise from (|g|^2, tr Sigma) of each step, [t, 2]; leaves out blocks of neighbours."""
    blocks = pairs.tensor_split(min(len(pairs), _MAX_BLOCKS))
    sums = torch.stack([block.sum(0) for block in blocks])
    counts = torch.tensor([[len(block)] for block in blocks], dtype=torch.float64)
    left_out = (sums.sum(0) - sums) / (len(pairs) - counts)
    return _ratio_noise(pairs.mean(0), left_out, num_micro)
