"""LoRA-Pro: rewrites the gradients of A and B so that the step of W is closest to the full one.

Papers: Wang et al. 2024, "LoRA-Pro: are low-rank adapters properly optimized?", theorems 2.1 and
2.2; Su 2024, kexue.fm/archives/10266, for the cheap form used here: the rewritten gradients go to
an ordinary optimiser, whose moments have the size of the factors.

With ``W + c B A``, ``g_A = c B^T G`` and ``g_B = c G A^T``, and with P_B, P_A the projections onto
the columns of B and the rows of A:

    H_A = (B^T B)^+ g_A / c^2 + X A,    H_B = (I - P_B) g_B (A A^T)^+ / c^2 - B X,

    c (H_B A + B H_A) = P_B G + (I - P_B) G P_A,    which misses exactly  (I - P_B) G (I - P_A),

for every X. The X for which H is closest to g solves
``B^T B X + X A A^T = -(B^T B)^+ g_A A^T / c^2``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from noisewise.adapters.layers import active_adapter, factor_parameters, kind_of, lora_layers

if TYPE_CHECKING:
    from peft import PeftModel

DAMPING = 1.0  # in units of the factor's own step; see `lora_pro`


def lora_pro(
    optimizer: torch.optim.Optimizer,
    peft_model: PeftModel,
    *,
    damping: float = DAMPING,
    adapter: str | None = None,
) -> RemovableHandle:
    """Rewrite the gradients of A and B before every step of any optimiser (LoRA-Pro).

    Clip and unscale gradients before `optimizer.step()`, as usual. The optimiser's moments are
    those of the factors; in the authors' own form (`LoraProAdamW`) they are as large as W.

    Args:
        optimizer: any optimiser with the adapter's parameters.
        peft_model: a LoRA or rsLoRA model, with any start.
        damping: number added to the singular values of a factor when it is inverted, in units of
            that factor's own step. While B is close to 0, its inverse is very large, and a step of
            A along it is too long for a first-order argument; after some steps this is over. 0:
            exactly the theorem.
        adapter: name of the adapter; None: the active one.

    Returns:
        A handle; ``.remove()`` stops the rewriting.

    Raises:
        ValueError: for DoRA and AdaLoRA, whose steps have other formulas; if the optimiser does
            not have the factors; if step() gets a closure, which would compute gradients later.

    Source: Wang et al. 2024 (LoRA-Pro), theorems 2.1, 2.2; Su 2024, archives/10266.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> config = LoraConfig(target_modules=["0"])
        >>> net = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 3)), config)
        >>> optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        >>> handle = lora_pro(optimizer, net)
        >>> net(torch.ones(2, 4)).sum().backward()
        >>> optimizer.step()
        >>> handle.remove()
    """
    name = active_adapter(peft_model, adapter)
    kind = kind_of(peft_model, name)
    if kind != "lora":
        raise ValueError(
            f"LoRA-Pro supports LoRA and rsLoRA only; this adapter is {kind}: do not use it"
        )
    if not damping >= 0:
        raise ValueError(f"damping {damping:g} must be 0 or more; the default is {DAMPING:g}")
    layers = lora_layers(peft_model, name)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for key, layer in layers.items():
        if not all(id(p) in held for p in factor_parameters(layer, name)):
            raise ValueError(
                f"the optimiser does not have the factors of {key}: pass it all parameters"
            )

    def rewrite(_: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        if any(value is not None for value in (*args[1:], *kwargs.values())):
            raise ValueError(
                "LoRA-Pro rewrites gradients before step(): call step() without a closure"
            )
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        for layer in layers.values():
            a, b = factor_parameters(layer, name)
            if a.grad is None or b.grad is None:
                continue
            h_a, h_b = rewritten(
                a.detach().flatten(1).float(),
                b.detach().flatten(1).float(),
                a.grad.flatten(1).float(),
                b.grad.flatten(1).float(),
                float(layer.scaling[name]),
                damping * float(rates[id(b)]),
            )
            a.grad.copy_(h_a.reshape(a.shape))
            b.grad.copy_(h_b.reshape(b.shape))

    return optimizer.register_step_pre_hook(rewrite)


@torch.no_grad()
def rewritten(
    a: Tensor, b: Tensor, g_a: Tensor, g_b: Tensor, c: float, reach: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return H_A [r, n] and H_B [m, r] from A, B and their gradients; see the top of this file.

    For rank-deficient factors (B = 0 at the start) it uses pseudo-inverses; the identity holds for
    them too. Computed in float64.

    Args:
        a: A [r, n].
        b: B [m, r].
        g_a: gradient of A.
        g_b: gradient of B.
        c: scaling of B A.
        reach: damping times learning rate. The number added to the singular values of a factor is
            its own step of this length, root mean square over its columns; see `lora_pro`.

    Example:
        >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0], [2.0]])
        >>> g = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> h_a, h_b = rewritten(a, b, b.T @ g, g @ a.T, 1.0)
        >>> (g - (h_b @ a + b @ h_a)).round(decimals=5).abs().tolist()  # what remains
        [[0.0, 2.0], [0.0, 0.0]]
    """
    return Projections(a, b, c).rewritten(g_a, g_b, reach)


class Projections:
    """What the factors A, B determine: made once, it rewrites any gradient of theirs.

    All products are of the size of the factors, in float64. The cost for A [..., r, n] and
    B [..., m, r] is ``O((m + n) r^2)``. Leading dimensions: several layers of one shape; c then has
    the shape [..., 1, 1].
    """

    def __init__(self, a: Tensor, b: Tensor, c: float | Tensor) -> None:
        """Decompose ``A A^T`` and ``B^T B``."""
        self._dtype, self._c = a.dtype, c
        self._a, self._b = a.double(), b.double()
        self._values_a, self._vectors_a = torch.linalg.eigh(self._a @ self._a.mT)
        self._values_b, self._vectors_b = torch.linalg.eigh(self._b.mT @ self._b)
        self._inverse_a = _inverse(self._values_a, self._vectors_a, 0.0)
        self._inverse_b = _inverse(self._values_b, self._vectors_b, 0.0)

    def known(self, g_a: Tensor, g_b: Tensor) -> Tensor:
        """Return the part of G that g_A and g_B determine, ``P_B G + (I - P_B) G P_A``, [m, n]."""
        h_a = self._inverse_b @ g_a.double() / self._c
        h_b = self._outside(g_b) @ self._inverse_a * self._c
        left = torch.cat([h_b, self._b], -1).to(self._dtype)
        return left @ torch.cat([self._a, h_a], -2).to(self._dtype)

    def rewritten(self, g_a: Tensor, g_b: Tensor, reach: float) -> tuple[Tensor, Tensor]:
        """Return H_A [r, n] and H_B [m, r]; see the function `rewritten`."""
        outside = self._outside(g_b)
        along = g_a.double() / self._c**2  # (B^T B)+ of it is B+ G / c
        floor = _floor(reach, outside @ self._inverse_a)
        along_b = _inverse(self._values_b, self._vectors_b, floor) @ along
        floor = _floor(reach, along_b)
        outside_b = outside @ _inverse(self._values_a, self._vectors_a, floor)
        x = _sylvester(
            self._values_b,
            self._vectors_b,
            self._values_a,
            self._vectors_a,
            -along_b @ self._a.mT,
        )
        h_a, h_b = along_b + x @ self._a, outside_b - self._b @ x
        return h_a.to(self._dtype), h_b.to(self._dtype)

    def _outside(self, g_b: Tensor) -> Tensor:
        """Return ``(I - P_B) g_B / c^2``."""
        g_b = g_b.double()
        return (g_b - self._b @ (self._inverse_b @ (self._b.mT @ g_b))) / self._c**2


def _floor(reach: float, step: Tensor) -> Tensor | float:
    """Return the square of how much the singular values of a factor grow in one step."""
    if not reach:
        return 0.0
    squares = step.square().sum((-2, -1), keepdim=True)[..., 0]
    return squares * (reach**2 / min(step.shape[-2:]))


def _inverse(values: Tensor, vectors: Tensor, floor: Tensor | float) -> Tensor:
    """Return the pseudo-inverse of a symmetric matrix, with `floor` added to its eigenvalues."""
    alive = values > 1e-12 * values[..., -1:].clamp_min(1e-300)
    inverted = ((values + floor).clamp_min_(1e-300).reciprocal_()) * alive
    return vectors * inverted[..., None, :] @ vectors.mT


def _sylvester(
    values_b: Tensor, vectors_b: Tensor, values_a: Tensor, vectors_a: Tensor, right: Tensor
) -> Tensor:
    """Solve ``B^T B X + X A A^T = right``; both matrices are given by their eigenvectors."""
    sums = values_b.clamp_min(0)[..., :, None] + values_a.clamp_min(0)[..., None, :]
    inside = vectors_b.mT @ right @ vectors_a
    alive = sums > 1e-12 * sums.amax((-2, -1), keepdim=True)
    return vectors_b @ (inside / sums.clamp_min(1e-300) * alive) @ vectors_a.mT
