"""Start factors A, B whose first step follows full fine-tuning. Works on matrices only.

Papers: Wang, Yu and Li 2024 (LoRA-GA); Su 2024, kexue.fm/archives/10226 (the same, and its form for
Adam); Meng, Wang and Zhang 2024 (PiSSA); Zhang et al. 2025 (LoRA-One).

With ``W + c B A`` and G = dL/dW, one small step changes W, per unit of learning rate, by

    SGD:   -c^2 (B B^T G + G A^T A)                  full fine-tuning: -G
    Adam:  -c (B sign(B^T G) + sign(G A^T) A)        full fine-tuning: -sign(G)

The SGD step has rank 2r at most, so no start comes closer to G than the best approximation of G of
rank 2r. The first 2r singular vectors, r of them in each factor, reach it. With B = 0 the step has
rank r; the first r right singular vectors in A reach the best of rank r, and W does not change. In
the step of Adam the signs depend on the factors, so there is no closed form. It has three
approximate answers (`Answer`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noisewise.lowrank import svd

Split = Literal["ArB2r", "A2rBr", "alternate", "random"]
Scale = Literal["stable", "gd", "unit", "adam"]
Answer = Literal["gradient", "sign", "solve"]

_ROUNDS = 200  # steps of the search for the answer "solve"
_FAILURE = 1e-6  # probability that the error of a factorisation is above its stated bound


@dataclass(frozen=True)
class Start:
    """The start factors of one layer, and the error of their factorisation.

    Attributes:
        a: A [r, n], float32.
        b: B [m, r], float32.
        moved: True if c B A must be subtracted from the frozen weight to keep the function.
        error: certified relative error of the factorisation: an upper bound of
            ``|X - X_k| / |X|`` that fails with probability at most 1e-6.
    """

    a: Tensor
    b: Tensor
    moved: bool
    error: float


def lora_ga_start(
    g: Tensor,
    rank: int,
    c: float,
    *,
    mutate_base: bool = False,
    scale: Scale = "stable",
    gamma: float = 16.0,
    split: Split = "ArB2r",
    answer: Answer = "gradient",
    generator: torch.Generator | None = None,
) -> Start:
    """Return A, B from a gradient G: LoRA-GA, or a form of it that does not move the weights.

    ``A = s_A V_I^T``, ``B = s_B U_J`` with G = U S V^T; I and J are disjoint and together the first
    2r. Without mutate_base ``A = s_A V_r^T``, ``B = 0``. A multiple of G gives the same factors.

    Args:
        g: G [m, n], float.
        rank: r, at most min(m, n); with mutate_base 2r must be at most min(m, n).
        c: scaling of B A: alpha / r, or alpha / sqrt(r).
        mutate_base: True: the paper's form; subtract ``c B A`` from W afterwards.
        scale: lengths s of the rows and columns. stable: ``m^(1/4) / sqrt(gamma)``, as in the
            paper; gd: 1 / c, an SGD step is as long as full fine-tuning's; unit: 1; adam: Adam's
            first step is as long (in Frobenius norm) as full fine-tuning's, for G of full rank:
            ``sqrt(n / r) / c`` with B = 0, else ``sqrt(n / 2r) / c``, ``sqrt(m / 2r) / c``.
        gamma: constant of "stable", above 0.
        split: which of the 2r vectors go to A. ArB2r: the first r (official code); A2rBr: the
            other r; alternate; random, which needs a generator.
        answer: for SGD "gradient"; for Adam also "sign" (the same with sign(G)) or "solve" (search
            for a better cosine between Adam's step and sign(G), from the better of the other two).
        generator: random generator for "random" and for factorising large matrices.

    Raises:
        ValueError: if the rank does not fit, an option is unknown, or G is zero or not finite.

    Source: Wang et al. 2024, theorem 3.1 and equation 6; Su 2024, archives/10226.

    Example:
        >>> g = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0, 0.0]))
        >>> start = lora_ga_start(g, 2, c=1.0, mutate_base=True, scale="gd")
        >>> step = start.b @ start.b.T @ g + g @ start.a.T @ start.a
        >>> bool(torch.allclose(step, g, atol=1e-6))
        True
    """
    _check(g, rank, mutate_base, scale, split, answer)
    found = _singular(g, rank, c, mutate_base, split, generator)
    if answer != "gradient":
        signed = _singular(g.sign(), rank, c, mutate_base, split, generator)
        if answer == "sign":
            found = signed
        else:
            best = max((found, signed), key=lambda start: _adam_cosine(g, start))
            found = _with_better_cosine(g, best)
    s_a, s_b = _lengths(g.shape, rank, c, mutate_base, scale, gamma)
    a = found.a * (s_a * math.sqrt(rank) / found.a.norm())
    b = found.b * (s_b * math.sqrt(rank) / found.b.norm()) if mutate_base else found.b
    return Start(a, b, mutate_base, found.error)


def pissa_start(w: Tensor, rank: int, c: float, generator: torch.Generator | None = None) -> Start:
    """Return A, B from the weight itself: ``c B A`` is its best approximation of rank r (PiSSA).

    ``A = sqrt(S_r / c) V_r^T``, ``B = U_r sqrt(S_r / c)``; subtract ``c B A`` from W afterwards.

    Args:
        w: W [m, n], float.
        rank: r, at most min(m, n).
        c: scaling of B A.
        generator: random generator for factorising large matrices.

    Raises:
        ValueError: if the rank does not fit, or W is not finite.

    Source: Meng et al. 2024 (PiSSA), equations 2 to 4.

    Example:
        >>> start = pissa_start(torch.diag(torch.tensor([4.0, 1.0])), 1, c=2.0)
        >>> (2 * start.b @ start.a).round(decimals=5).tolist()
        [[4.0, 0.0], [0.0, 0.0]]
    """
    _check_rank(w, rank, False)
    found = svd(w.float(), rank, generator=generator, accurate=True, failure_probability=_FAILURE)
    u, s, vh = found.factors
    root = (s / c).sqrt()
    return Start(root[:, None] * vh, u * root, True, _relative(found.error.upper, w))


def lora_one_start(
    g: Tensor, rank: int, gamma: float = 128.0, generator: torch.Generator | None = None
) -> Start:
    """Return A, B for which ``c B A`` is itself a step of rank r against the gradient (LoRA-One).

    ``A = k sqrt(S_r / S_1) V_r^T``, ``B = -k U_r sqrt(S_r / S_1)``, ``k = m^(1/4) / sqrt(gamma)``.
    The weights do not change, but the function does: the start is the first step.

    Args:
        g: G [m, n], float.
        rank: r, at most min(m, n).
        gamma: a larger gamma makes a smaller step; above 0.
        generator: random generator for factorising large matrices.

    Raises:
        ValueError: if the rank does not fit, or G is not finite.

    Source: Zhang et al. 2025 (LoRA-One), algorithm 1.

    Example:
        >>> start = lora_one_start(torch.diag(torch.tensor([2.0, 1.0])), 1, gamma=1.0)
        >>> bool((start.b @ start.a)[0, 0] < 0), start.moved
        (True, False)
    """
    _check_rank(g, rank, False)
    found = svd(g.float(), rank, generator=generator, accurate=True, failure_probability=_FAILURE)
    u, s, vh = found.factors
    root = (s / s[0]).sqrt() * g.shape[0] ** 0.25 / math.sqrt(gamma)
    return Start(root[:, None] * vh, -u * root, False, _relative(found.error.upper, g))


def sgd_step(g: Tensor, a: Tensor, b: Tensor, c: float) -> Tensor:
    """Return the step of SGD on W, per unit of learning rate and with opposite sign, [m, n].

    ``c^2 (B B^T G + G A^T A)``; for full fine-tuning it is G.

    Example:
        >>> sgd_step(torch.eye(2), torch.tensor([[1.0, 0.0]]), torch.zeros(2, 1), 2.0).tolist()
        [[4.0, 0.0], [0.0, 0.0]]
    """
    return c**2 * (b @ (b.mT @ g) + (g @ a.mT) @ a)


def adam_step(g: Tensor, a: Tensor, b: Tensor, c: float) -> Tensor:
    """Return Adam's first step on W, per unit of learning rate and with opposite sign, [m, n].

    ``c (B sign(B^T G) + sign(G A^T) A)``; for full fine-tuning it is sign(G).

    Source: Su 2024, archives/10226 (c appears once: Adam's step does not depend on the c in the
    gradient).

    Example:
        >>> adam_step(torch.eye(2), torch.tensor([[3.0, 0.0]]), torch.zeros(2, 1), 1.0).tolist()
        [[3.0, 0.0], [0.0, 0.0]]
    """
    return c * (b @ (b.mT @ g).sign() + (g @ a.mT).sign() @ a)


def cosine(x: Tensor, y: Tensor) -> float:
    """Return the cosine between two matrices as vectors, in float64; 0 if one of them is 0."""
    x, y = x.double().flatten(), y.double().flatten()
    lengths = float(x.norm() * y.norm())
    return float(x @ y) / lengths if lengths > 0 else 0.0


def bound(g: Tensor, rank: int) -> float:
    """Return the smallest relative residual of a step of rank k, sqrt(sum_{i>k} S_i^2 / sum S_i^2).

    Source: Eckart and Young 1936.

    Example:
        >>> round(bound(torch.diag(torch.tensor([4.0, 3.0])), 1), 6)
        0.6
    """
    values = torch.linalg.svdvals(g.double()).square()
    total = float(values.sum())
    return math.sqrt(float(values[rank:].sum()) / total) if total > 0 else 0.0


def _singular(
    g: Tensor, rank: int, c: float, both: bool, split: Split, generator: torch.Generator | None
) -> Start:
    """Return factors with unit rows and columns, made of the leading singular vectors."""
    wanted = 2 * rank if both else rank
    found = svd(g.float(), wanted, generator=generator, accurate=True, failure_probability=_FAILURE)
    u, _, vh = found.factors
    error = _relative(found.error.upper, g)
    if not both:
        return Start(vh, torch.zeros_like(u), False, error)
    to_a = _to_a(rank, split, generator)
    mask = torch.zeros(wanted, dtype=torch.bool, device=u.device)
    mask[to_a.to(u.device)] = True
    return Start(vh[mask], u[:, ~mask], True, error)


def _to_a(rank: int, split: Split, generator: torch.Generator | None) -> Tensor:
    """Return which of the 2r vectors go to A."""
    if split == "ArB2r":
        return torch.arange(rank)
    if split == "A2rBr":
        return torch.arange(rank, 2 * rank)
    if split == "alternate":
        return torch.arange(0, 2 * rank, 2)
    if generator is None:
        raise ValueError(
            "a random split needs a generator, such as torch.Generator().manual_seed(0)"
        )
    device = generator.device
    return torch.randperm(2 * rank, generator=generator, device=device)[:rank].cpu()


def _lengths(
    shape: torch.Size, rank: int, c: float, both: bool, scale: Scale, gamma: float
) -> tuple[float, float]:
    """Return the root mean square lengths of the rows of A and of the columns of B."""
    m, n = shape
    if scale == "stable":
        return (m**0.25 / math.sqrt(gamma),) * 2
    if scale == "gd":
        return 1 / c, 1 / c
    if scale == "unit":
        return 1.0, 1.0
    share = 2 * rank if both else rank
    return math.sqrt(n / share) / c, math.sqrt(m / share) / c


def _adam_cosine(g: Tensor, start: Start) -> float:
    """Return the cosine between Adam's first step and that of full fine-tuning."""
    g = g.float()
    return cosine(adam_step(g, start.a, start.b, 1.0), g.sign())


def _with_better_cosine(g: Tensor, start: Start) -> Start:
    """Increase the cosine between Adam's step and sign(G); the result is never below the start.

    The signs are replaced by ``x / sqrt(x^2 + tau^2)``, which has a gradient; tau is a falling
    share of the root mean square of x. The best factors are chosen with the true signs.
    """
    g = g.float() / g.float().square().mean().sqrt()
    target = g.sign()
    best, value = start, _adam_cosine(g, start)
    with torch.enable_grad():
        a = start.a.clone().requires_grad_()
        b = start.b.clone().requires_grad_(start.moved)
        free = [a, b] if start.moved else [a]
        optimizer = torch.optim.Adam([{"params": [p], "lr": 0.05 * _rms(p)} for p in free])
        for round_ in range(_ROUNDS + 1):
            tau = 1.0 * (1 - round_ / _ROUNDS) + 0.02
            right = g @ a.mT, target @ a.mT
            left = (b.mT @ g, b.mT @ target) if start.moved else None
            with torch.no_grad():
                reached = float(_step_cosine(a, b, right, left, target.numel(), None))
            if reached > value:
                now = a.detach().clone(), b.detach().clone()
                best, value = Start(*now, start.moved, start.error), reached
            if round_ == _ROUNDS:
                return best
            optimizer.zero_grad()
            (-_step_cosine(a, b, right, left, target.numel(), tau)).backward()
            optimizer.step()
    return best


def _step_cosine(
    a: Tensor,
    b: Tensor,
    right: tuple[Tensor, Tensor],
    left: tuple[Tensor, Tensor] | None,
    entries: int,
    tau: float | None,
) -> Tensor:
    """Return the cosine between ``sign(G A^T) A + B sign(B^T G)`` and T = sign(G).

    Without a matrix of the size of G: ``right`` is [G A^T, T A^T], ``left`` [B^T G, B^T T], and
    |T|^2 is the number of entries. With tau the signs are soft.
    """
    p = right[0].sign() if tau is None else _soft(right[0], tau)
    inner = (p * right[1]).sum()
    square = ((p.mT @ p) * (a @ a.mT)).sum()
    if left is not None:
        q = left[0].sign() if tau is None else _soft(left[0], tau)
        inner = inner + (q * left[1]).sum()
        square = square + ((b.mT @ b) * (q @ q.mT)).sum()
        square = square + 2 * ((b.mT @ p) * (q @ a.mT)).sum()
    return inner * torch.rsqrt(square.clamp_min(1e-30) * entries)


def _soft(x: Tensor, tau: float) -> Tensor:
    scale: Callable[[Tensor], Tensor] = lambda y: y.detach().square().mean().sqrt()  # noqa: E731
    return x * torch.rsqrt(x.square() + (tau * scale(x)) ** 2 + 1e-30)


def _rms(x: Tensor) -> float:
    return float(x.detach().square().mean().sqrt())


def _relative(upper: Tensor, matrix: Tensor) -> float:
    total = float(matrix.double().norm())
    return float(upper) / total if total > 0 else 0.0


def _check_rank(g: Tensor, rank: int, both: bool) -> None:
    if g.ndim != 2:
        raise ValueError(
            f"shape {tuple(g.shape)} is not a matrix; convert it with layers.as_matrix"
        )
    if not bool(g.isfinite().all()):
        raise ValueError("the matrix is not finite (NaN or inf), so it gives no start")
    least = min(g.shape)
    if rank < 1 or rank > least:
        raise ValueError(
            f"rank {rank} does not fit a {g.shape[0]} x {g.shape[1]} matrix; use 1 to {least}"
        )
    if both and 2 * rank > least:
        raise ValueError(
            f"a start that moves the weights needs 2 r = {2 * rank} singular vectors, but a "
            f"{g.shape[0]} x {g.shape[1]} matrix has {least}; use rank {least // 2}, or "
            "mutate_base=False"
        )


def _check(g: Tensor, rank: int, both: bool, scale: Scale, split: Split, answer: Answer) -> None:
    _check_rank(g, rank, both)
    for name, value, known in (
        ("scale", scale, ("stable", "gd", "unit", "adam")),
        ("split", split, ("ArB2r", "A2rBr", "alternate", "random")),
        ("answer", answer, ("gradient", "sign", "solve")),
    ):
        if value not in known:
            raise ValueError(f"{name} {value!r} is unknown; use one of {', '.join(known)}")
    if not float(g.norm()) > 0:
        raise ValueError("the gradient is zero, so it gives no start")
