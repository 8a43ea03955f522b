"""Curvature of the loss: H v by three routes, traces, and the curvature that the noise sees.

Papers: Pearlmutter 1994, "Fast exact multiplication by the Hessian"; Hutchinson 1990 (random
probes of a trace); McCandlish et al. 2018, section 2.2 (tr(Sigma H), g'Hg). The curvature along an
update is measured on other data than the update was made from; otherwise it is biased.

Vectors are flat, `[p]`: the trainable parameters in the model's order (`Flat`). A probe is one
number; the result is the mean of several, and `Estimate.needed(0.1)` is the number of probes for
10 %. Its error includes the spread of the probes and of the Hessian's batches (`probes`); with a
single batch the Hessian counts as exact. Each batch has its own draw of the model's random numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from noisewise.scaling.flat import Flat, Loss, along, checked_loss, gradient
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.probes import HalfForm, Probes

__all__ = [
    "Route",
    "half_product",
    "hessian_product",
    "hessian_trace",
    "noise_curvature",
    "quadratic_form",
    "sign_noise_curvature",
]

Route = Literal["double_backward", "central_difference", "three_losses"]
_STEP = {torch.float64: 1e-5, torch.float32: 3e-3}  # relative step for a difference of gradients
_LOSS_STEP = {torch.float64: 1e-4, torch.float32: 2e-2}  # for a second difference of losses


def hessian_product(
    flat: Flat,
    loss: Loss,
    batch: object,
    v: Tensor,
    route: Route = "double_backward",
    draw: int = 0,
) -> Tensor:
    """Return H v, [p], for the loss on one batch.

    "double_backward": d(g'v)/dw, exact, costs about two gradients; some fused kernels do not
    support it. "central_difference": (grad(w + h v) - grad(w - h v)) / 2h, costs two gradients,
    works for any model, with an error of O(h^2) and rounding.

    Args:
        flat: the model's parameters.
        loss: scalar mean loss.
        batch: what the loss takes.
        v: direction [p].
        route: one of the two above.
        draw: number of the draw of the model's random numbers, see `Flat`.

    Raises:
        ValueError: for "three_losses", which gives only v'Hv, or if the model cannot be
            differentiated twice.

    Source: Pearlmutter 1994, equation 8.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> square = lambda m, x: 0.5 * m(x).square().mean()
        >>> hessian_product(Flat(model), square, x, torch.tensor([1.0, 0.0])).tolist()
        [1.0, 2.0]
    """
    if route == "double_backward":
        return _double_backward(flat, loss, batch, v, draw)
    if route != "central_difference":
        raise ValueError(f"The route {route!r} gives v'Hv only: use quadratic_form() with it.")
    step = _step(flat, v, _STEP)
    with flat.moved(step * v):
        above = gradient(flat, loss, batch, draw)
    with flat.moved(-step * v):
        below = gradient(flat, loss, batch, draw)
    return (above - below) / (2 * step)


def _double_backward(flat: Flat, loss: Loss, batch: object, v: Tensor, draw: int) -> Tensor:
    with flat.still(draw), torch.enable_grad():
        value = checked_loss(flat, loss, batch)
        try:
            first = torch.autograd.grad(
                value, flat.parameters, create_graph=True, allow_unused=True, materialize_grads=True
            )
            along = sum(
                ((g * piece).sum() for g, piece in zip(first, flat.split(v), strict=True)),
                value.new_zeros(()),
            )
            if not along.requires_grad:  # a loss that is linear in the weights
                return torch.zeros_like(v)
            second = torch.autograd.grad(
                along, flat.parameters, allow_unused=True, materialize_grads=True
            )
        except RuntimeError as error:
            raise ValueError(
                "The model cannot be differentiated twice (a fused or compiled kernel does not "
                'support it): use route="central_difference".'
            ) from error
    return flat.join(second).detach()


def quadratic_form(
    flat: Flat,
    loss: Loss,
    batch: object,
    v: Tensor,
    route: Route = "double_backward",
    draw: int = 0,
) -> float:
    """Return v'Hv for the loss on one batch, by any of the three routes.

    "three_losses": (L(w + h v) - 2 L(w) + L(w - h v)) / h^2, three forward passes and no gradient;
    the least exact route in float32.

    Args:
        flat: the model's parameters.
        loss: scalar mean loss.
        batch: what the loss takes; not the data that v was made from.
        v: direction [p].
        route: see `hessian_product` for the other two.
        draw: number of the draw of the model's random numbers, the same for all three losses.

    Raises:
        ValueError: as in `hessian_product`, or if v is zero.

    Source: Pearlmutter 1994; second difference of the loss.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(2, 1, bias=False).double()
        >>> x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
        >>> square = lambda m, x: 0.5 * m(x).square().mean()
        >>> v = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> round(quadratic_form(Flat(model), square, x, v, "three_losses"), 4)
        4.0
    """
    if route != "three_losses":
        return float(v.double() @ hessian_product(flat, loss, batch, v, route, draw).double())
    step = _step(flat, v, _LOSS_STEP)
    total = 0.0
    for factor, weight in ((step, 1.0), (0.0, -2.0), (-step, 1.0)):
        with flat.moved(factor * v), flat.still(draw), torch.no_grad():
            total += weight * float(checked_loss(flat, loss, batch).double())
    return total / step**2


def _step(flat: Flat, v: Tensor, relative: dict[torch.dtype, float]) -> float:
    """A step along v, small compared with the weights and large compared with their rounding."""
    norm = float(v.double().norm())
    if not norm > 0:
        raise ValueError("A direction of length zero has no curvature.")
    weights = float(flat.vector().double().norm()) or 1.0
    return relative.get(flat.parameters[0].dtype, 2e-2) * weights / norm


def probe_batches(
    flat: Flat,
    loss: Loss,
    directions: Iterable[Tensor],
    batches: Sequence[object],
    route: Route = "double_backward",
) -> Probes:
    """V'Hv of each direction, on the batches in turn; batch j uses draw j."""
    k = len(batches)
    found = [
        quadratic_form(flat, loss, batches[i % k], v, route, i % k)
        for i, v in enumerate(directions)
    ]
    return Probes(torch.tensor(found, dtype=torch.float64), k)


def hessian_trace(
    flat: Flat,
    loss: Loss,
    batches: Sequence[object],
    generator: torch.Generator,
    route: Route = "double_backward",
    probes: int | None = None,
) -> Estimate:
    """Return tr H by Rademacher probes: ``E z'Hz``, z_i = +-1.

    Args:
        flat: the model's parameters.
        loss: scalar mean loss.
        batches: data for the Hessian, used in turn.
        generator: draws the signs, on the CPU.
        route: how to compute Hessian products.
        probes: number of probes; None: one for each batch.

    Raises:
        ValueError: without a batch, or with fewer than 1 probe.

    Source: Hutchinson 1990.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x = [torch.eye(2)] * 2  # H = diag(1, 1) / 2
        >>> half = lambda m, x: 0.5 * m(x).square().mean()
        >>> hessian_trace(Flat(model), half, x, torch.Generator().manual_seed(0)).value
        1.0
    """
    count = len(batches) if probes is None else probes
    if count < 1 or not batches:
        raise ValueError("A trace needs at least one batch for the Hessian and one probe.")
    like = flat.vector()
    signs = (
        torch.randint(2, like.shape, generator=generator).to(like) * 2 - 1 for _ in range(count)
    )
    return probe_batches(flat, loss, signs, batches, route).estimate()


def noise_curvature(
    flat: Flat,
    loss: Loss,
    pairs: Sequence[tuple[Tensor, Tensor]],
    batches: Sequence[object],
    size: float,
    preconditioner: Tensor | None = None,
    route: Route = "double_backward",
) -> Estimate:
    """Return tr(P Sigma P H), the curvature along one example's preconditioned noise.

    ``E (b / 2) (P (g1 - g2))' H (P (g1 - g2))`` for micro-batches of size b; P = 1 gives
    tr(Sigma H). It includes correlations between coordinates: nothing is assumed diagonal.

    Args:
        flat: the model's parameters.
        loss: scalar mean loss.
        pairs: gradients of two disjoint micro-batches, [p] each; one probe per pair.
        batches: data for the Hessian, used in turn; other data than the pairs were made from.
        size: b, examples in a micro-batch.
        preconditioner: diagonal [p], for example 1 / (sqrt(v) + eps).
        route: how to compute Hessian products.

    Raises:
        ValueError: without a pair or a batch.

    Source: McCandlish et al. 2018, equation 2.8 (tr(H Sigma)).
    """
    return noise_probes(flat, loss, pairs, batches, size, preconditioner, route).estimate()


def noise_probes(
    flat: Flat,
    loss: Loss,
    pairs: Sequence[tuple[Tensor, Tensor]],
    batches: Sequence[object],
    size: float,
    preconditioner: Tensor | None = None,
    route: Route = "double_backward",
) -> Probes:
    """The probes of `noise_curvature`, before they are averaged."""
    _check_pairs(pairs, batches)
    scale = 1.0 if preconditioner is None else preconditioner
    found = probe_batches(flat, loss, ((a - b) * scale for a, b in pairs), batches, route)
    return Probes(0.5 * size * found.values, found.batches)


def _check_pairs(pairs: Sequence[object], batches: Sequence[object]) -> None:
    if not pairs or not batches:
        raise ValueError(
            "A probe of the noise needs two micro-batches, and a third one for the Hessian."
        )


def sign_noise_curvature(
    flat: Flat,
    loss: Loss,
    pairs: Sequence[tuple[Tensor, Tensor]],
    batches: Sequence[object],
    route: Route = "double_backward",
) -> Estimate:
    """Return ``E sign(xi)' H sign(xi)`` for pure noise xi: sign descent's curvature as B -> 0.

    With independent coordinates this is tr H; on a real net it was six times as large, so the
    closed forms fail there. Arguments as in `noise_curvature`.

    Raises:
        ValueError: without a pair or a batch.
    """
    _check_pairs(pairs, batches)
    signs = ((a - b).sign() for a, b in pairs)
    return probe_batches(flat, loss, signs, batches, route).estimate()


def half_product(
    flat: Flat,
    loss: Loss,
    halves: tuple[Tensor, Tensor],
    batches: Sequence[object],
    route: Route = "double_backward",
) -> Estimate:
    """Return g'Hg from two independent halves of micro-batch gradients, ``gA' H gB``.

    The same noisy gradient on both sides would add tr(Sigma H) / B. The error includes that of the
    rows on both sides and, with two or more batches, the spread of the Hessian's batches.

    Args:
        flat: the model's parameters.
        loss: scalar mean loss.
        halves: gradients [n_A, p] and [n_B, p], at least two rows each; no micro-batch in both.
        batches: data for the Hessian; other data than the rows were made from.
        route: how to compute Hessian products, not "three_losses".

    Raises:
        ValueError: if a half has fewer than two rows, or without a batch.

    Source: McCandlish et al. 2018, equation 2.7; the independent halves are ours.
    """
    return half_form(flat, loss, halves, batches, route).estimate()


def half_form(
    flat: Flat,
    loss: Loss,
    halves: tuple[Tensor, Tensor],
    batches: Sequence[object],
    route: Route = "double_backward",
    preconditioner: Tensor | None = None,
) -> HalfForm:
    """GA'P H P gB for each batch, before it is averaged."""
    a, b = halves
    if len(a) < 2 or len(b) < 2 or not batches:
        raise ValueError("g'Hg needs two halves of two or more gradients each, and a batch for H.")
    scale = 1.0 if preconditioner is None else preconditioner
    sides, by_batch = [], torch.zeros(len(batches), dtype=torch.float64)
    for own, other in ((a, b), (b, a)):
        v, left = scale * other.mean(0), (scale * own.mean(0)).double()
        mean = torch.zeros_like(v)
        for j, batch in enumerate(batches):
            product = hessian_product(flat, loss, batch, v, route, j)
            by_batch[j] += float(left @ product.double()) / 2
            mean += product / len(batches)
        sides.append(along(own, scale * mean))
    rows = sum(float(side.var()) / len(side) for side in sides)
    count = min(len(a), len(b))
    return HalfForm(by_batch, (rows, count - 1), (sides[0], sides[1]))


def mean_hessian_product(
    flat: Flat,
    loss: Loss,
    batches: Sequence[object],
    v: Tensor,
    route: Route = "double_backward",
    chosen: Sequence[int] | None = None,
) -> Tensor:
    """H v, [p], averaged over all or the chosen batches of equal size; batch j uses draw j."""
    total, chosen = torch.zeros_like(v), range(len(batches)) if chosen is None else chosen
    for j in chosen:
        total += hessian_product(flat, loss, batches[j], v, route, j)
    return total / len(chosen)
