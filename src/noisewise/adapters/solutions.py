"""Where to start: factors A, B for which the first steps follow full fine-tuning. Matrices only.

Papers: Wang, Yu and Li 2024 (LoRA-GA); Su 2024, kexue.fm/archives/10226 (the same, and its form for
Adam); Meng, Wang and Zhang 2024 (PiSSA); Zhang et al. 2025 (LoRA-One).

With ``W + c B A`` and G = dL/dW, one small step moves W, per unit of learning rate, by

    SGD:   -c^2 (B B^T G + G A^T A)                  full fine-tuning: -G
    Adam:  -c (B sign(B^T G) + sign(G A^T) A)        full fine-tuning: -sign(G)

The first has rank 2r at most, so no start is nearer to G than its best approximation of that rank;
2r singular vectors, r of them given to each side, reach it. With B = 0 it has rank r, and the first
r right singular vectors in A reach the best of rank r, while W stays as it is. In the second the
sign of a product depends on the factors: there is no closed form, and three answers (`Answer`).
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

_ROUNDS = 200  # of the descent behind the answer "solve"
_FAILURE = 1e-6  # probability that a factorisation's error is above the bound it states


@dataclass(frozen=True)
class Start:
    """Factors of one layer at the start, and how good they are.

    Attributes:
        a: A [r, n], float32.
        b: B [m, r], float32.
        moved: c B A is taken off the frozen weight, so that the function stays as it was.
        error: relative error of the factorisation behind it, by its own certificate: an upper
            bound of ``|X - X_k| / |X|`` that fails with probability at most 1e-6.
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
    """Return A, B from a gradient G: LoRA-GA, or its form that leaves the weights alone.

    ``A = s_A V_I^T``, ``B = s_B U_J`` with G = U S V^T, I and J disjoint and together the first 2r;
    without mutate_base ``A = s_A V_r^T``, ``B = 0``. Multiplying G changes nothing.

    Args:
        g: G [m, n], float.
        rank: r; with mutate_base, 2r must not exceed min(m, n).
        c: factor of B A, alpha / r (or alpha / sqrt(r)).
        mutate_base: the paper's form; ``c B A`` has then to be taken off W.
        scale: lengths s of the rows and columns. stable: ``m^(1/4) / sqrt(gamma)``, the paper's;
            gd: 1 / c, so that an SGD step is as long as full fine-tuning's; unit: 1; adam: so that
            Adam's first step is as long (in Frobenius norm) as full fine-tuning's, for G of full
            rank: ``sqrt(n / r) / c`` with B = 0, else ``sqrt(n / 2r) / c``, ``sqrt(m / 2r) / c``.
        gamma: of "stable".
        split: which of the 2r go where: ArB2r, the first r to A (official code); A2rBr, to B;
            alternate; random, which needs a generator.
        answer: for SGD "gradient"; for Adam also "sign" (the same, of sign(G)) or "solve" (descent
            on the cosine between Adam's step and sign(G), from the better of the other two).
        generator: of "random", and of the factorisation of large matrices.

    Raises:
        ValueError: if the rank does not fit, or a word is unknown.

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
            best = max((found, signed), key=lambda start: _agreement(g, start))
            found = _solved(g, best)
    s_a, s_b = _lengths(g.shape, rank, c, mutate_base, scale, gamma)
    a = found.a * (s_a * math.sqrt(rank) / found.a.norm())
    b = found.b * (s_b * math.sqrt(rank) / found.b.norm()) if mutate_base else found.b
    return Start(a, b, mutate_base, found.error)


def pissa_start(w: Tensor, rank: int, c: float, generator: torch.Generator | None = None) -> Start:
    """Return A, B from the weight itself: ``c B A`` is its best approximation of rank r (PiSSA).

    ``A = sqrt(S_r / c) V_r^T``, ``B = U_r sqrt(S_r / c)``; ``c B A`` has to be taken off W.

    Args:
        w: W [m, n], float.
        rank: r, at most min(m, n).
        c: factor of B A.
        generator: of the factorisation of large matrices.

    Raises:
        ValueError: if the rank does not fit.

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
    The weights stay, and the function does not: the start is the first step.

    Args:
        g: G [m, n], float.
        rank: r, at most min(m, n).
        gamma: the larger, the smaller the step.
        generator: of the factorisation of large matrices.

    Raises:
        ValueError: if the rank does not fit.

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
    """What SGD does to W, per unit of learning rate and with the sign turned, [m, n].

    ``c^2 (B B^T G + G A^T A)``; full fine-tuning does G.

    Example:
        >>> sgd_step(torch.eye(2), torch.tensor([[1.0, 0.0]]), torch.zeros(2, 1), 2.0).tolist()
        [[4.0, 0.0], [0.0, 0.0]]
    """
    return c**2 * (b @ (b.mT @ g) + (g @ a.mT) @ a)


def adam_step(g: Tensor, a: Tensor, b: Tensor, c: float) -> Tensor:
    """What Adam's first step does to W, per unit of learning rate and with the sign turned, [m, n].

    ``c (B sign(B^T G) + sign(G A^T) A)``; full fine-tuning does sign(G).

    Source: Su 2024, archives/10226 (the factor is c, once, as Adam's step does not see the other).

    Example:
        >>> adam_step(torch.eye(2), torch.tensor([[3.0, 0.0]]), torch.zeros(2, 1), 1.0).tolist()
        [[3.0, 0.0], [0.0, 0.0]]
    """
    return c * (b @ (b.mT @ g).sign() + (g @ a.mT).sign() @ a)


def cosine(x: Tensor, y: Tensor) -> float:
    """Cosine between two matrices as vectors, in float64; 0 where one of them is 0."""
    x, y = x.double().flatten(), y.double().flatten()
    lengths = float(x.norm() * y.norm())
    return float(x @ y) / lengths if lengths > 0 else 0.0


def bound(g: Tensor, rank: int) -> float:
    """Least relative residual of any step of this rank: ``sqrt(sum_{i>k} S_i^2 / sum S_i^2)``.

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
    """Unit factors out of the leading singular vectors."""
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
    """Which of the 2r vectors are A's."""
    if split == "ArB2r":
        return torch.arange(rank)
    if split == "A2rBr":
        return torch.arange(rank, 2 * rank)
    if split == "alternate":
        return torch.arange(0, 2 * rank, 2)
    if generator is None:
        raise ValueError("a random split needs a generator: torch.Generator().manual_seed(0)")
    device = generator.device
    return torch.randperm(2 * rank, generator=generator, device=device)[:rank].cpu()


def _lengths(
    shape: torch.Size, rank: int, c: float, both: bool, scale: Scale, gamma: float
) -> tuple[float, float]:
    """Root mean square lengths of A's rows and B's columns."""
    m, n = shape
    if scale == "stable":
        return (m**0.25 / math.sqrt(gamma),) * 2
    if scale == "gd":
        return 1 / c, 1 / c
    if scale == "unit":
        return 1.0, 1.0
    share = 2 * rank if both else rank
    return math.sqrt(n / share) / c, math.sqrt(m / share) / c


def _agreement(g: Tensor, start: Start) -> float:
    """Cosine between Adam's first step and that of full fine-tuning."""
    g = g.float()
    return cosine(adam_step(g, start.a, start.b, 1.0), g.sign())


def _solved(g: Tensor, start: Start) -> Start:
    """Climb the cosine between Adam's step and sign(G); never ends below where it began.

    The signs inside are softened to ``x / sqrt(x^2 + tau^2)``, tau a falling share of each row's
    root mean square, so that there is a slope; what is kept is judged by the true signs.
    """
    g = g.float() / g.float().square().mean().sqrt()
    target = g.sign()
    with torch.enable_grad():
        a = start.a.clone().requires_grad_()
        b = start.b.clone().requires_grad_(start.moved)
        free = [a, b] if start.moved else [a]
        optimizer = torch.optim.Adam([{"params": [p], "lr": 0.05 * _rms(p)} for p in free])
        best, value = start, _agreement(g, start)
        for round_ in range(_ROUNDS):
            tau = 1.0 * (1 - round_ / _ROUNDS) + 0.02
            optimizer.zero_grad()
            step = _soft(g @ a.mT, tau) @ a
            if start.moved:
                step = step + b @ _soft(b.mT @ g, tau)
            (-torch.cosine_similarity(step.flatten(), target.flatten(), dim=0)).backward()
            optimizer.step()
            now = Start(a.detach().clone(), b.detach().clone(), start.moved, start.error)
            reached = _agreement(g, now)
            if reached > value:
                best, value = now, reached
    return best


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
        raise ValueError(f"a gradient of shape {tuple(g.shape)} is no matrix; see layers.as_matrix")
    if not bool(g.isfinite().all()):
        raise ValueError("the matrix is not finite (NaN or inf): no start can be made of it")
    least = min(g.shape)
    if rank < 1 or rank > least:
        raise ValueError(f"rank {rank} does not fit a matrix {g.shape[0]} x {g.shape[1]}")
    if both and 2 * rank > least:
        raise ValueError(
            f"a start that moves the weights needs 2 r = {2 * rank} singular vectors, and a matrix "
            f"{g.shape[0]} x {g.shape[1]} has {least}; use rank {least // 2}, or mutate_base=False"
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
        raise ValueError("the gradient is zero: no start can be made of it")
