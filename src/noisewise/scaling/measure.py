"""A calibration burst: gradients of many micro-batches at frozen weights, then their curvature.

Papers: McCandlish et al. 2018, appendix A; see `direct` and `preconditioned` for the laws. Averages
over a training drift with its weights; a burst does not, and can be asked for curvature. Nothing of
the training is changed: weights, gradients, buffers, random state, optimiser state all stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.scaling.curvature import (
    Route,
    half_form,
    hessian_trace,
    noise_probes,
    sign_noise_curvature,
)
from noisewise.scaling.direct import Burst, direct_points, law_points, update_curvature
from noisewise.scaling.exact_laws import gaussian_sums
from noisewise.scaling.flat import Flat, Loss, checked_loss, gradient
from noisewise.scaling.intervals import Estimate, mean_estimate
from noisewise.scaling.measurement import Measurement
from noisewise.scaling.noise import Noise, measure_noise
from noisewise.scaling.probes import HalfForm, Probes, noise_scale
from noisewise.scaling.sources import examples_in
from noisewise.scaling.stability import sharpness
from noisewise.scaling.updates import OptimizerFacts, Updater, unwrapped

__all__ = ["calibrate"]

_LEAST = 12  # micro-batches: 4 a half, and some for the Hessian
# Share of coordinates under epsilon from which on Adam's preconditioner is nearly fixed.
_SETTLED = 0.5
_MEMORY = 4 << 30  # bytes of gradients kept at most, unless told otherwise


def calibrate(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    *,
    size: float | None = None,
    batch: float | None = None,
    epsilon: float | None = None,
    probes: int = 16,
    dataset_size: int | None = None,
    route: Route = "double_backward",
    memory_bytes: int = _MEMORY,
    seed: int = 0,
) -> Measurement:
    """Measure noise, curvature and the learning rate's law at the present weights.

    Args:
        model: in the mode that it is trained in.
        loss: `loss(model, batch)`, the mean over the batch as a tensor with a graph.
        batches: micro-batches of one size, 12 or more (64 are better), drawn as in training; an
            eighth of them (4 to 16) is kept for the Hessian.
        optimizer: the one that trains; its state is read and not changed.
        size: examples in a micro-batch; None: the first dimension of its first tensor.
        batch: examples a step that the optimiser was run at so far; None: `size`.
        epsilon: Adam's, if another than the optimiser's is asked about: the ratio of the two laws
            is what a change of epsilon does to the learning rate.
        probes: differences of micro-batches whose curvature is taken, at each batch of the law.
        dataset_size: examples in all, if the micro-batches were drawn without replacement from a
            set hardly larger than what is drawn here.
        route: of Hessian products; "central_difference" where the model cannot be differentiated
            twice.
        memory_bytes: gradients kept at most (one float32 copy of the model a micro-batch); with
            more, neighbours are averaged.
        seed: of the probes, and of dropout and other randomness in the loss, of which each
            micro-batch has its own.

    Returns:
        The measurement; its `warnings` say what a reader should know.

    Raises:
        ValueError: in one sentence, for a loss without a graph, a gradient that is not finite, too
            few or unequal micro-batches, a model without trainable parameters, a loss that changes
            from call to call, an optimiser without state, a batch that is not positive.

    Source: McCandlish et al. 2018, appendix A.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> model = nn.Linear(4, 1)
        >>> data = [torch.randn(8, 5, generator=generator) for _ in range(32)]
        >>> loss = lambda m, x: (m(x[:, :4])[:, 0] - x[:, 4]).square().mean()
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> found = calibrate(model, loss, data, sgd)
        >>> found.size, found.b_noise.low <= found.b_noise.value <= found.b_noise.high
        (8.0, True)
    """
    optimizer = unwrapped(optimizer)
    for name, value in (("size", size), ("batch", batch)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}: give a number of examples above 0.")
    if probes < 1:
        raise ValueError(f"{probes} probes measure no curvature: use 1 or more, 16 for instance.")
    held = [p for group in optimizer.param_groups for p in group["params"]]
    flat = Flat(model, seed, held)
    updater = Updater(optimizer, flat, epsilon)
    given = list(batches)
    if len(given) < _LEAST:
        raise ValueError(
            f"{len(given)} micro-batches are too few to tell signal from noise: give {_LEAST} or "
            "more, better 64."
        )
    size = _common_size(given, size)
    _check_repeats(flat, loss, given[0])
    kept = min(16, max(4, len(given) // 8))
    rows, together = _gradients(flat, loss, given[kept:], kept, memory_bytes)
    names = flat.slices()
    noise = measure_noise(rows, size * together, names, dataset_size)
    own = batch or size
    burst = Burst(flat, loss, rows, given[:kept], size * together, own, route)
    probes = min(probes, len(rows) // 2)
    pairs = [(rows[2 * i], rows[2 * i + 1]) for i in range(probes)]
    spread = noise_probes(flat, loss, pairs, burst.batches, burst.size, None, route)
    drift = half_form(flat, loss, burst.halves, burst.batches, route)
    curvature = _curvature(burst, updater, spread, drift, seed)
    if updater.facts.family == "adam":
        curvature |= gaussian_sums(burst, updater.facts.epsilon, _grid(own), min(8, probes), seed)
    curve = ()
    if updater.facts.family in ("sgd", "adam"):
        curve = law_points(burst, updater, _grid(own), probes)
    return Measurement(
        noise=noise,
        b_noise=noise_scale(spread, drift),
        optimizer=updater.facts,
        batch=own,
        size=size,
        num_parameters=flat.num_parameters,
        curvature=curvature,
        curve=curve,
        direct=direct_points(burst, updater, draws=min(8, max(2, probes // 2))),
        epsilon_share=_epsilon_share(updater),
        warnings=tuple(_warnings(model, noise, updater.facts)),
    )


def _common_size(given: Sequence[Any], size: float | None) -> float:
    """Examples in each micro-batch; they must be alike."""
    found = {examples_in(batch) for batch in given}
    if len(found) > 1:
        raise ValueError(f"Micro-batches have {sorted(found, key=str)} examples: give equal ones.")
    inferred = found.pop()
    if size is None and inferred is None:
        raise ValueError("The examples in a micro-batch cannot be counted: say size=.")
    return float(size if size is not None else inferred or 0)


def _check_repeats(flat: Flat, loss: Loss, batch: object) -> None:
    """Refuse a loss that is another one each time it is asked, and name the buffer behind it."""
    buffers = {name: b.detach().clone() for name, b in flat.model.named_buffers()}
    with flat.still():
        values = []
        for _ in range(2):
            torch.manual_seed(flat.seed)
            values.append(float(checked_loss(flat, loss, batch).detach().double()))
        changed = [
            name for name, b in flat.model.named_buffers() if not torch.equal(b, buffers[name])
        ]
    if not all(math.isfinite(v) for v in values):
        raise ValueError("The loss is not finite (NaN or inf): measure where training is healthy.")
    if abs(values[0] - values[1]) > 1e-5 * max(abs(values[0]), 1e-12):
        cause = f" (the buffer {changed[0]} changes with every call)" if changed else ""
        raise ValueError(
            f"The loss of one batch is {values[0]:.6g} and then {values[1]:.6g}{cause}: freeze "
            "such statistics, and draw randomness from torch's own generator."
        )


def _gradients(
    flat: Flat, loss: Loss, given: Sequence[Any], first: int, memory_bytes: int
) -> tuple[Tensor, int]:
    """Gradients of micro-batches, [n, p] with n even; neighbours averaged where memory is short.

    Each has random numbers of its own, from the draw `first` on: those before are the Hessian's.
    """
    bytes_each = 4 * flat.num_parameters
    together = 1
    while len(given) // together * bytes_each > memory_bytes and len(given) // together >= 16:
        together *= 2
    n = len(given) // together
    if n * bytes_each > memory_bytes:
        raise ValueError(
            f"{n} gradients of {flat.num_parameters:,} parameters need "
            f"{n * bytes_each / 2**30:.1f} GiB: raise memory_bytes, or measure with watch()."
        )
    n -= n % 2
    rows = flat.vector().new_zeros(n, flat.num_parameters)
    for i in range(n * together):
        rows[i // together] += gradient(flat, loss, given[i], first + i) / together
    return rows, together


def _curvature(
    burst: Burst, updater: Updater, spread: Probes, drift: HalfForm, seed: int
) -> dict[str, Estimate]:
    probes, generator = len(spread.values), torch.Generator().manual_seed(seed)
    flat, loss, at, route = burst.flat, burst.loss, burst.batches, burst.route
    found = {
        "trace_h": hessian_trace(flat, loss, at, generator, route, probes),
        "trace_sigma_h": spread.estimate(),
        "g_h_g": drift.estimate(),
    }
    found.update(_real_updates(burst, updater, probes))
    share = _epsilon_share(updater)
    if updater.facts.family == "sgd" or share > _SETTLED:
        scale = updater.preconditioner(updater.second_moment())
        found["sharpness"] = sharpness(flat, loss, at, generator, scale, route)
    if updater.facts.family == "adam":
        pairs = [(burst.rows[2 * i], burst.rows[2 * i + 1]) for i in range(probes)]
        found["sign_noise"] = sign_noise_curvature(flat, loss, pairs, at, route)
        found.update(_soft_sign_sums(burst, updater.facts.epsilon, found["trace_h"].value))
    return found


def _real_updates(burst: Burst, updater: Updater, probes: int) -> dict[str, Estimate]:
    """Curvature of updates as the optimiser makes them: from whole batches, by its own v.

    An update from a smaller batch is longer, and another one: without two whole batches nothing is
    said here (`direct` has the sizes that the data suffice for, each with the v of its own).
    """
    together = round(burst.batch / burst.size)
    count = min(probes, len(burst.rows) // max(1, together))
    if count < 2 or abs(together * burst.size / burst.batch - 1) > 0.25:
        return {}
    v = updater.second_moment()
    groups = (burst.rows[i * together : (i + 1) * together].mean(0) for i in range(count))
    return {"update_curvature": update_curvature(burst, (updater.update(g, v) for g in groups))}


def _soft_sign_sums(burst: Burst, epsilon: float, trace: float) -> dict[str, Estimate]:
    """Sum nu_i g_i and nu'H nu at no noise, from means of half the data (the closed form's input).

    A half of B examples shows beta times the first, beta^2 of the second and (1 - beta^2) tr H,
    beta^-2 = 1 + K / B: undone here with K = tr Sigma / (|g|^2 + p eps^2).
    """
    halves = [half.mean(0) for half in burst.halves]
    signal = max(float(burst.signal.double().sum()), 0.0) + len(burst.rows[0]) * epsilon**2
    if not signal > 0:
        return {}
    noise = float(burst.variance.double().sum()) / signal
    share = 1 / (1 + noise / (burst.size * len(burst.rows) / 2))
    slopes, quadratics = [], []
    for own, other in (halves, halves[::-1]):
        nu = own / torch.hypot(own, own.new_tensor(max(epsilon, 1e-30)))
        slopes.append(float(nu.double() @ other.double()) / math.sqrt(share))
        seen = float(nu.double() @ burst.product(nu).double())
        quadratics.append((seen - (1 - share) * trace) / share)
    return {
        "sign_slope": mean_estimate(torch.tensor(slopes)),
        "sign_curvature": mean_estimate(torch.tensor(quadratics)),
    }


def _grid(batch: float) -> list[float]:
    """Batches of the law: powers of four about the present one."""
    return sorted({max(1.0, batch * 4.0**k) for k in range(-2, 5)})


def _epsilon_share(updater: Updater) -> float:
    v = updater.second_moment()
    if v is None:
        return math.nan
    return float((v.sqrt() < updater.epsilons()).double().mean())


def _warnings(model: nn.Module, noise: Noise, facts: OptimizerFacts) -> list[str]:
    found = []
    if any(m.training for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        found.append(
            "Batch norm in training mode: the noise is that of micro-batches of this size, and "
            "another size is another loss."
        )
    if not noise.identifiable:
        times = noise.more_needed()
        found.append(
            "Not identifiable yet: |g|^2 cannot be told from zero; collect about "
            f"{times * noise.num_micro:,} more micro-batches."
        )
    if facts.family == "other":
        found.append(f"{facts.name} has no law here; only its measured updates speak.")
    return found
