"""Factors of which one half is trained and the other half subtracts the start.

A start with A0 and B0 both different from 0 adds c B0 A0 to the function. The papers subtract it
from W. Then W is right only with its own adapter, and every way of saving that does not know this
is wrong. Here W does not change. The adapter subtracts its own start, by ranks that are held:

    W + c (B A - B0 A0) = W + c [B, -B0] [A; A0]

For everybody who reads `weight` or the state dict, this is a plain LoRA of rank 2r on the original
weights: PEFT, diffusers, accelerate, Lightning, sharded training. Only A and B are parameters, so
only they get gradients, moments and weight decay. They are named "trained", because the two alone
are no adapter: a file with them and without the held half would be wrong on the original weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer


class HeldWeight(nn.Module):
    """A layer whose weight is [trained, held], along `held_dim`.

    Attributes:
        trained: the parameter.
        held: the buffer beside it, of the same shape.
        held_dim: 0: the ranks are rows (A); 1: they are columns (B).
    """

    trained: nn.Parameter
    held: Tensor
    held_dim: int

    @property
    def weight(self) -> Tensor:
        """Both halves in one tensor, with a gradient for the trained one."""
        return _joined(self.trained, self.held, self.held_dim)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        trained = destination.pop(f"{prefix}trained")
        destination[f"{prefix}weight"] = _joined(trained, self.held, self.held_dim)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        missing: list[str] = []
        own = _split(state_dict, f"{prefix}weight", f"{prefix}trained", self.trained, self.held_dim)
        held = own.pop(f"{prefix}held", None)
        super()._load_from_state_dict(
            own, prefix, local_metadata, strict, missing, unexpected_keys, error_msgs
        )
        missing_keys += [key.replace(f"{prefix}trained", f"{prefix}weight") for key in missing]
        if held is not None:
            self.held = held.to(self.held if not self.held.is_meta else self.trained)


class HeldLinear(HeldWeight, nn.Linear):
    """A factor of a linear layer."""


class HeldConv1d(HeldWeight, nn.Conv1d):
    """A factor of a convolution along one dimension."""


class HeldConv2d(HeldWeight, nn.Conv2d):
    """A factor of a convolution along two dimensions."""


class HeldConv3d(HeldWeight, nn.Conv3d):
    """A factor of a convolution along three dimensions."""


_HELD: dict[type, type] = {
    nn.Linear: HeldLinear,
    nn.Conv1d: HeldConv1d,
    nn.Conv2d: HeldConv2d,
    nn.Conv3d: HeldConv3d,
}


class HeldFactors(nn.ParameterDict):
    """The same for embeddings, whose factors PEFT keeps in a dictionary by adapter.

    Reading an entry gives both halves; `items` and `values`, by which PEFT freezes parameters, give
    the parameter.
    """

    held_dim: int

    def trained(self, key: str) -> nn.Parameter:
        """Return the parameter of an adapter."""
        return super().__getitem__(key)

    def is_held(self, key: str) -> bool:
        """Whether the factor of an adapter has a held half."""
        return f"{key}_held" in self._buffers

    def hold(self, key: str, trained: nn.Parameter, held: Tensor) -> None:
        """Replace the factor of an adapter by two halves."""
        del self[key]
        self.register_buffer(f"{key}_held", held, persistent=False)
        super().__setitem__(key, trained)

    def _key_to_attr(self, key: str) -> str:
        return f"{key}_trained" if self.is_held(key) else key

    def __getitem__(self, key: str) -> Tensor:
        found = self.trained(key)
        if not self.is_held(key):
            return found
        return _joined(found, self.get_buffer(f"{key}_held"), self.held_dim)

    def __setitem__(self, key: str, value: Tensor) -> None:
        if self.is_held(key):
            trained, held = value.detach().chunk(2, self.held_dim)
            flag = self.trained(key).requires_grad
            setattr(self, f"{key}_held", held.clone())
            value = nn.Parameter(trained.clone(), requires_grad=flag)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._buffers.pop(f"{key}_held", None)

    def items(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the adapters and their parameters."""
        return ((key, self.trained(key)) for key in self)

    def values(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the adapters."""
        return (self.trained(key) for key in self)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for key in filter(self.is_held, self):
            trained = destination.pop(f"{prefix}{key}_trained")
            held = self.get_buffer(f"{key}_held")
            destination[f"{prefix}{key}"] = _joined(trained, held, self.held_dim)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own, missing, held = dict(state_dict), [], {}
        for key in filter(self.is_held, self):
            whole, part = f"{prefix}{key}", f"{prefix}{key}_trained"
            own = _split(own, whole, part, self.trained(key), self.held_dim)
            held[key] = own.pop(f"{prefix}held", None)
        super()._load_from_state_dict(
            own, prefix, local_metadata, strict, missing, unexpected_keys, error_msgs
        )
        missing_keys += [key.removesuffix("_trained") for key in missing]
        for key, value in held.items():
            if value is not None:
                old = self.get_buffer(f"{key}_held")
                setattr(self, f"{key}_held", value.to(self.trained(key) if old.is_meta else old))


@torch.no_grad()
def hold_start(layer: LoraLayer, adapter: str, a: Tensor, b: Tensor) -> None:
    """Give an adapted layer of rank 2r the start A [r, n], B [m, r], and hold the same start.

    Raises:
        ValueError: if PEFT made a factor of a type that is not known here.
    """
    if adapter in layer.lora_embedding_A:
        for factors, value, dim in (
            (layer.lora_embedding_A, a, 0),
            (layer.lora_embedding_B, b, 1),
        ):
            old = factors[adapter]
            trained, held = _halves(old, value, dim)
            factors.__class__, factors.held_dim = HeldFactors, dim
            factors.hold(adapter, nn.Parameter(trained, requires_grad=old.requires_grad), held)
        return
    for module, value, dim in ((layer.lora_A[adapter], a, 0), (layer.lora_B[adapter], b, 1)):
        if type(module) not in _HELD:
            raise ValueError(
                f"PEFT made a factor of type {type(module).__name__} here, which cannot hold a "
                "start: use mutate_base=False"
            )
        old = module.weight
        trained, held = _halves(old, value, dim)
        del module._parameters["weight"]
        module.__class__, module.held_dim = _HELD[type(module)], dim
        module.register_parameter("trained", nn.Parameter(trained, old.requires_grad))
        module.register_buffer("held", held, persistent=False)


def has_start(layer: LoraLayer, adapter: str) -> bool:
    """Whether one half of the ranks of a layer subtracts the start."""
    if adapter in layer.lora_embedding_A:
        factors = layer.lora_embedding_A
        return isinstance(factors, HeldFactors) and factors.is_held(adapter)
    return isinstance(layer.lora_A[adapter], HeldWeight)


def _halves(old: Tensor, value: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the trained and the held half in PEFT's shape and type; B0 is held with a minus."""
    shape = list(old.shape)
    shape[dim] //= 2
    trained = value.to(old.device, old.dtype).reshape(shape)
    trained = trained.clone(memory_format=torch.contiguous_format)  # FSDP2 asks for it
    return trained, trained.clone() if dim == 0 else -trained


def _joined(trained: Tensor, held: Tensor, dim: int) -> Tensor:
    held = held.to(trained.dtype)
    mesh: Any = getattr(trained, "device_mesh", None)
    if mesh is not None:  # sharded by FSDP2; the held half is whole on every device
        from torch.distributed.tensor import DTensor, Replicate

        held = DTensor.from_local(held, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return torch.cat([trained, held], dim)


def _split(
    state_dict: dict[str, Any], whole: str, part: str, trained: Tensor, dim: int
) -> dict[str, Any]:
    """Return a copy in which the entry `whole` is split in two, `part` and "held" beside it.

    Raises:
        ValueError: if the entry has another number of ranks than the trained and held ones.
    """
    own = dict(state_dict)
    value = own.pop(whole, None)
    ranks, name = trained.shape[dim], whole.removesuffix(".weight")
    if value is None:
        if part in own:
            raise ValueError(
                f"this file has only the trained half of {name}, without its start: save "
                "model.state_dict() or get_peft_model_state_dict(model), not named_parameters()"
            )
        return own
    if value.ndim != trained.ndim or value.shape[dim] != 2 * ranks:
        raise ValueError(
            f"{name} has {2 * ranks} ranks here, {ranks} trained and {ranks} that subtract the "
            f"start, but shape {tuple(value.shape)} in the file: load it onto the original base "
            "model with noisewise.adapters.load"
        )
    first, second = (value.narrow(dim, start, ranks) for start in (0, ranks))
    if hasattr(second, "full_tensor"):  # sharded
        second = second.full_tensor()
    if hasattr(trained, "device_mesh") and not hasattr(first, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        sharded: Any = trained
        first = distribute_tensor(first.to(sharded.device), sharded.device_mesh, sharded.placements)
    place = whole[: whole.rindex(".") + 1]
    return own | {part: first, f"{place}held": second.detach().clone()}
