"""A calibration burst: gradients of many micro-batches at frozen weights, then their curvature.

Papers: McCandlish et al. 2018, appendix A; see `direct` and `preconditioned` for the laws. Averages
over a training change as the weights move; a burst has fixed weights, so it can also measure the
curvature. It does not change weights, gradients, buffers, random state or optimiser state.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.scaling.cost import Plan, fitted, measured_speed
from noisewise.scaling.counting import examples_in
from noisewise.scaling.curvature import (
    Route,
    half_form,
    hessian_trace,
    noise_probes,
    sign_noise_curvature,
)
from noisewise.scaling.direct import Burst, direct_points, law_points, update_curvature
from noisewise.scaling.epsilon import epsilon_curve
from noisewise.scaling.exact_laws import gaussian_sums
from noisewise.scaling.flat import Flat, Loss, checked_loss, gradient
from noisewise.scaling.intervals import Estimate, mean_estimate
from noisewise.scaling.measurement import Measurement
from noisewise.scaling.noise import Noise, measure_noise
from noisewise.scaling.optimizer_facts import OptimizerFacts, scheduled_by_hand, unwrapped
from noisewise.scaling.probes import HalfForm, Probes, noise_scale
from noisewise.scaling.stability import sharpness
from noisewise.scaling.updates import Updater
from noisewise.scaling.warning_codes import CodedWarning
from noisewise.scaling.wrapped import check_whole, inner_of

__all__ = ["calibrate"]

_LEAST = 12  # micro-batches: 4 for each half, and 4 for the Hessian
# If more than this share of sqrt(v) is below epsilon, Adam's preconditioner is nearly constant.
_SETTLED = 0.5
_MEMORY = 4 << 30  # most bytes of stored gradients, by default
_LONG = 10.0  # seconds above which the cost is said as a warning


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
    lr: float | None = None,
    after: float | None = None,
    seconds: float | None = None,
) -> Measurement:
    """Measure noise, curvature and the law of the learning rate at the present weights.

    What it will cost is logged before it starts ("noisewise.scaling"), as a warning if that is
    more than ten seconds.

    Args:
        model: in the mode that it is trained in. It runs as it is without torch.compile and
            DistributedDataParallel around it.
        loss: `loss(model, batch)`, the mean over the batch as a tensor with a graph.
        batches: micro-batches of equal size, 12 or more (better 64), drawn as in training; one
            eighth of them (4 to 16) is used for the Hessian.
        optimizer: the training's optimiser; its state is read and not changed.
        size: examples in a micro-batch; None: the first dimension of its first tensor.
        batch: examples per step that the optimiser has used so far; None: `size`.
        epsilon: an epsilon for Adam other than the optimiser's, to see what it changes: compare
            the laws of both measurements.
        probes: differences of micro-batches whose curvature is measured, at each batch of the law.
        dataset_size: size of the data set, if the micro-batches were drawn without replacement
            and are a large part of it.
        route: how to compute Hessian products; use "central_difference" if the model cannot be
            differentiated twice.
        memory_bytes: most bytes for gradients (one float32 copy of the model per micro-batch); if
            they do not fit, neighbouring micro-batches are averaged.
        seed: seed of the probes, and of dropout and other randomness in the loss; each micro-batch
            gets its own random numbers.
        lr: the tuned learning rate of the first parameter group; None: the peak of its schedule.
        after: share of the training that is done, 0 to 1, for the advice; None: not known.
        seconds: most time to take, about; None: no limit. With less time fewer probes and batches
            are measured, and a warning says so.

    Returns:
        The measurement; see also its `warnings`.

    Raises:
        ValueError: for a loss without a graph, a gradient that is not finite, too few or unequal
            micro-batches, a model without trainable parameters, a loss that changes from call to
            call, an optimiser without state or that cannot be copied, a learning rate that a loop
            has set by a formula (give lr), a batch or lr that is not positive, sharded parameters,
            or a time in which nothing can be measured.

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
    for name, value in (("size", size), ("batch", batch), ("seconds", seconds)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            unit = "a time" if name == "seconds" else "a number of examples"
            raise ValueError(f"{name} is {value}: give {unit} above 0.")
    if probes < 1:
        raise ValueError(f"{probes} probes cannot measure a curvature: use 1 or more, such as 16.")
    if after is not None and not 0 <= after <= 1:
        raise ValueError(f"after is {after}: give the share of the training that is done, 0 to 1.")
    model = inner_of(model)
    check_whole(model)
    _check_rate(optimizer, lr)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    flat = Flat(model, seed, held)
    updater = Updater(optimizer, flat, epsilon, lr)
    given = list(batches)
    if len(given) < _LEAST:
        raise ValueError(
            f"{len(given)} micro-batches are too few to separate signal from noise: give {_LEAST} "
            "or more, better 64."
        )
    size = _common_size(given, size)
    with _eager():
        _check_repeats(flat, loss, given[0])
        full = _full_plan(updater, len(given), probes, batch or size)
        speed = measured_speed(flat, loss, given[0], route)
        plan = fitted(full, updater.facts.family, speed, seconds)
        _say_cost(plan, plan.seconds(speed))
        given = given[: plan.kept + plan.rows]
        rows, together = _gradients(flat, loss, given[plan.kept :], plan.kept, memory_bytes)
        names = flat.slices()
        noise = measure_noise(rows, size * together, names, dataset_size)
        own = batch or size
        burst = Burst(flat, loss, rows, given[: plan.kept], size * together, own, route)
        probes = min(plan.probes, len(rows) // 2)
        pairs = [(rows[2 * i], rows[2 * i + 1]) for i in range(probes)]
        spread = noise_probes(flat, loss, pairs, burst.batches, burst.size, None, route)
        drift = half_form(flat, loss, burst.halves, burst.batches, route)
        curvature = _curvature(burst, updater, spread, drift, seed, plan)
        if updater.facts.family == "adam" and plan.compare:
            curvature |= gaussian_sums(
                burst, updater.facts.epsilon, _grid(own), min(8, probes), seed
            )
        curve = ()
        if updater.facts.family in ("sgd", "adam"):
            curve = law_points(burst, updater, _grid(own, plan.law), probes)
        direct = direct_points(burst, updater, draws=plan.draws) if plan.draws else ()
    warnings = _warnings(model, noise, updater.facts, optimizer, plan != full)
    return Measurement(
        noise=noise,
        b_noise=noise_scale(spread, drift),
        optimizer=updater.facts,
        batch=own,
        size=size,
        num_parameters=flat.num_parameters,
        curvature=curvature,
        curve=curve,
        direct=direct,
        epsilon_share=_epsilon_share(updater),
        warnings=tuple(text for _, text in warnings),
        warning_codes=tuple(code for code, _ in warnings),
        begun=math.nan if after is None else after,
        ended=math.nan if after is None else after,
        epsilons=epsilon_curve(optimizer) if updater.facts.family == "adam" else (),
    )


def _check_rate(optimizer: torch.optim.Optimizer, lr: float | None) -> None:
    if lr is None and scheduled_by_hand(optimizer):
        now, made = optimizer.param_groups[0]["lr"], optimizer.defaults["lr"]
        raise ValueError(
            f"The learning rate is {float(now):.3g} now, but the optimiser was made with "
            f"{float(made):.3g}: if a schedule by hand set it, it is not the rate that you tuned; "
            "give lr=, the top of the schedule."
        )


def _full_plan(updater: Updater, num: int, probes: int, batch: float) -> Plan:
    """What is measured without a limit of time."""
    facts, kept = updater.facts, min(16, max(4, num // 8))
    share = _epsilon_share(updater)
    return Plan(
        rows=num - kept,
        kept=kept,
        probes=probes,
        law=len(_grid(batch)) if facts.family == "adam" else 1,
        draws=min(8, max(2, probes // 2)),
        compare=facts.family == "adam",
        sharpest=facts.family == "sgd" or share > _SETTLED,
    )


def _say_cost(plan: Plan, seconds: float) -> None:
    level = logging.WARNING if seconds > _LONG else logging.INFO
    logging.getLogger("noisewise.scaling").log(
        level,
        "calibrate: %d gradients and %d products with the Hessian, about %.3g seconds "
        "(seconds= sets a limit)",
        plan.rows, plan.products, seconds,
    )  # fmt: skip


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled models as they are: their graphs cannot be differentiated twice."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _common_size(given: Sequence[Any], size: float | None) -> float:
    """Examples in each micro-batch; all must have the same number."""
    found = {examples_in(batch) for batch in given}
    if len(found) > 1:
        raise ValueError(f"Micro-batches have {sorted(found, key=str)} examples: give equal sizes.")
    inferred = found.pop()
    if size is None and inferred is None:
        raise ValueError("The examples in a micro-batch cannot be counted: give size=.")
    return float(size if size is not None else inferred or 0)


def _check_repeats(flat: Flat, loss: Loss, batch: object) -> None:
    """Refuse a loss that changes from call to call, and name the buffer that changes it."""
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
        raise ValueError("The loss is not finite (NaN or inf): measure where training is stable.")
    if abs(values[0] - values[1]) > 1e-5 * max(abs(values[0]), 1e-12):
        cause = f" (the buffer {changed[0]} changes with every call)" if changed else ""
        raise ValueError(
            f"The loss of the same batch changes from {values[0]:.6g} to {values[1]:.6g}{cause}: "
            "freeze running statistics, and draw random numbers from torch's default generator."
        )


def _gradients(
    flat: Flat, loss: Loss, given: Sequence[Any], first: int, memory_bytes: int
) -> tuple[Tensor, int]:
    """Gradients of micro-batches, [n, p] with n even; neighbours are averaged to save memory.

    Each uses its own draw of random numbers, from `first` on: lower draws belong to the Hessian.
    """
    bytes_each = 4 * flat.num_parameters
    together = 1
    while len(given) // together * bytes_each > memory_bytes and len(given) // together >= 16:
        together *= 2
    n = len(given) // together
    if n * bytes_each > memory_bytes:
        raise ValueError(
            f"{n} gradients of {flat.num_parameters:,} parameters need "
            f"{n * bytes_each / 2**30:.1f} GiB: increase memory_bytes, or measure with watch()."
        )
    n -= n % 2
    rows = flat.vector().new_zeros(n, flat.num_parameters)
    for i in range(n * together):
        rows[i // together] += gradient(flat, loss, given[i], first + i) / together
    return rows, together


def _curvature(
    burst: Burst, updater: Updater, spread: Probes, drift: HalfForm, seed: int, plan: Plan
) -> dict[str, Estimate]:
    probes, generator = len(spread.values), torch.Generator().manual_seed(seed)
    flat, loss, at, route = burst.flat, burst.loss, burst.batches, burst.route
    found = {
        "trace_h": hessian_trace(flat, loss, at, generator, route, probes),
        "trace_sigma_h": spread.estimate(),
        "g_h_g": drift.estimate(),
    }
    found.update(_real_updates(burst, updater, probes))
    if plan.sharpest:
        scale = updater.preconditioner(updater.second_moment())
        found["sharpness"] = sharpness(flat, loss, at, generator, scale, route)
    if updater.facts.family == "adam" and plan.compare:
        pairs = [(burst.rows[2 * i], burst.rows[2 * i + 1]) for i in range(probes)]
        found["sign_noise"] = sign_noise_curvature(flat, loss, pairs, at, route)
        found.update(_soft_sign_sums(burst, updater.facts.epsilon, found["trace_h"].value))
    return found


def _real_updates(burst: Burst, updater: Updater, probes: int) -> dict[str, Estimate]:
    """Curvature of real updates of the optimiser: from whole batches, with its own v.

    An update from a smaller batch is different and longer. So without two whole batches this
    returns nothing (`direct` has the batches with enough data, each with its own v).
    """
    together = round(burst.batch / burst.size)
    count = min(probes, len(burst.rows) // max(1, together))
    if count < 2 or abs(together * burst.size / burst.batch - 1) > 0.25:
        return {}
    v = updater.second_moment()
    groups = (burst.rows[i * together : (i + 1) * together].mean(0) for i in range(count))
    return {"update_curvature": update_curvature(burst, (updater.update(g, v) for g in groups))}


def _soft_sign_sums(burst: Burst, epsilon: float, trace: float) -> dict[str, Estimate]:
    """Sum nu_i g_i and nu'H nu without noise, from means of half the data, for the closed form.

    The mean of B examples gives beta times the first, and beta^2 times the second plus
    (1 - beta^2) tr H, with beta^-2 = 1 + K / B and K = tr Sigma / (|g|^2 + p eps^2). This is undone
    here.
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


def _grid(batch: float, most: int = 7) -> list[float]:
    """Batches of the law: the present one times powers of four, or of 8 or 64 with fewer."""
    powers = {5: (-3, -1.5, 0, 1.5, 3), 3: (-3, 0, 3)}.get(most, range(-2, 5))
    return sorted({max(1.0, batch * 4.0**k) for k in powers})


def _epsilon_share(updater: Updater) -> float:
    """Share of coordinates with sqrt(v) below epsilon; nan without v."""
    v = updater.second_moment()
    if v is None:
        return math.nan
    return float((v.sqrt() < updater.epsilons()).double().mean())


def _warnings(
    model: nn.Module,
    noise: Noise,
    facts: OptimizerFacts,
    optimizer: torch.optim.Optimizer,
    shortened: bool,
) -> list[CodedWarning]:
    found: list[CodedWarning] = []
    if any(m.training for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        text = (
            "Batch norm is in training mode: the noise is that of micro-batches of this size; with "
            "another size the loss itself changes."
        )
        found.append(("batch_norm", text))
    if not noise.identifiable:
        more = noise.more_needed() * noise.num_micro
        text = f"{noise.why_not_known()}; collect about {more:,} more micro-batches."
        found.append(("noise_not_known", text))
    if facts.family == "other":
        text = f"There is no law for {facts.name}: the advice can use only its measured updates."
        found.append(("no_law", text))
    now = float(optimizer.param_groups[0]["lr"])
    if not math.isclose(now, facts.lr):
        text = (
            f"The schedule is at a learning rate of {now:.3g}; its top, {facts.lr:.3g}, counts as "
            "the rate that you tuned (lr= and --lr set another)."
        )
        found.append(("by_schedule", text))
    if shortened:
        text = "To save time fewer probes and batches were measured: the band is wider for it."
        found.append(("shortened", text))
    return found
