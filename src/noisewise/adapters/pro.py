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
    dtype = a.dtype
    a, b, g_a, g_b = a.double(), b.double(), g_a.double(), g_b.double()
    values_a, vectors_a = torch.linalg.eigh(a @ a.mT)
    values_b, vectors_b = torch.linalg.eigh(b.mT @ b)
    projection = b @ (_inverse(values_b, vectors_b, 0.0) @ (b.mT @ g_b))
    outside = (g_b - projection) / c**2
    outside_b = outside @ _inverse(values_a, vectors_a, 0.0)
    along = g_a / c**2  # (B^T B)+ of it is B+ G / c
    along_b = _inverse(values_b, vectors_b, _floor(reach, outside_b)) @ along
    outside_b = outside @ _inverse(values_a, vectors_a, _floor(reach, along_b))
    x = _sylvester(values_b, vectors_b, values_a, vectors_a, -along_b @ a.mT)
    return (along_b + x @ a).to(dtype), (outside_b - b @ x).to(dtype)


def _floor(reach: float, step: Tensor) -> float:
    """Return the square of how much the singular values of a factor grow in one step."""
    return reach**2 * float(step.square().sum()) / min(step.shape)


def _inverse(values: Tensor, vectors: Tensor, floor: float) -> Tensor:
    """Return the pseudo-inverse of a symmetric matrix, with `floor` added to its eigenvalues."""
    alive = values > 1e-12 * values[-1].clamp_min(1e-300)
    inverted = torch.where(alive, 1 / (values + floor).clamp_min(1e-300), 0.0)
    return vectors * inverted @ vectors.mT


def _sylvester(
    values_b: Tensor, vectors_b: Tensor, values_a: Tensor, vectors_a: Tensor, right: Tensor
) -> Tensor:
    """Solve ``B^T B X + X A A^T = right``; both matrices are given by their eigenvectors."""
    sums = values_b.clamp_min(0)[:, None] + values_a.clamp_min(0)[None, :]
    inside = vectors_b.mT @ right @ vectors_a
    solved = torch.where(sums > 1e-12 * sums.max(), inside / sums.clamp_min(1e-300), 0.0)
    return vectors_b @ solved @ vectors_a.mT
