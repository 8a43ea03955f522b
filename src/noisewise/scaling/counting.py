"""How many examples a micro-batch has, from what the model was given and what it returned.

The first dimension of all tensors is the rule. Where tensors disagree (`model(scale, x)`), the
output decides. Where a layer is time-major (`nn.GRU`, `nn.MultiheadAttention` without
`batch_first`), that layer's own input says which dimension counts examples. If nothing decides,
the examples are not counted, and the user is asked for `batch=`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

__all__ = ["Count", "count_examples", "examples_in", "labels_in", "time_major_layers"]

_ROW_FREE = ("attention_mask", "position_ids", "cache_position")  # may be the same for all rows


@dataclass(frozen=True)
class Count:
    """Examples of a micro-batch, and where the number is from.

    Attributes:
        count: number of examples.
        source: what was counted, in words.
    """

    count: int
    source: str


def count_examples(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    output: object = None,
    layer: tuple[int, int] | None = None,
) -> Count | None:
    """Return the number of examples that a model was called with; None if nothing decides.

    Args:
        args: positional arguments of the call.
        kwargs: named arguments of the call.
        output: what the model returned.
        layer: (time, examples), the first dimensions of what a time-major layer was given.

    Example:
        >>> import torch
        >>> x = torch.zeros(32, 5)
        >>> count_examples((x,), {}).count
        32
        >>> count_examples((torch.ones(4), x), {}, output=torch.zeros(32, 1)).count
        32
        >>> count_examples((torch.zeros(10, 32, 5),), {}, layer=(10, 32)).count
        32
        >>> count_examples((torch.ones(4), x), {}) is None
        True
        >>> count_examples((x[:1], torch.ones(4)), {}, output=torch.zeros(1, 5)).count
        1
    """
    found = list(_tensors(args, kwargs))
    if not found:
        return None
    if layer is not None:
        if any(shape[:2] == layer for _, shape in found):
            return Count(layer[1], "the second dimension of the input (time comes first)")
        if any(shape[0] == layer[1] for _, shape in found):
            return Count(layer[1], "the first dimension of the input")
    rows = [(name, shape) for name, shape in found if shape[0] != 1]  # 1: one value for all
    if rows and len(rows) < len(found) and (single := _single(rows, output)):
        wide = next((shape for shape in single if len(shape) > 1), None)
        of = "the first dimension of the output"
        return None if wide is None else Count(1, f"{of}, {list(wide)}")
    found = rows or found
    sizes = {shape[0] for _, shape in found}
    if len(sizes) == 1:
        name, shape = found[0]
        return Count(shape[0], f"the first dimension of {name}, {list(shape)}")
    for name, shape in found:
        if name in ("labels", "label", "targets", "target"):
            return Count(shape[0], f"the first dimension of {name}, {list(shape)}")
    for _, shape in _leaves(output, "the output"):
        if shape[0] in sizes:
            return Count(shape[0], f"the first dimension of the output, {list(shape)}")
    return None


def _single(rows: list[tuple[str, tuple[int, ...]]], output: object) -> list[tuple[int, ...]]:
    """Outputs of one row, if none has the rows of an input: perhaps `model(x[:1], scales)`."""
    sizes, outputs = {shape[0] for _, shape in rows}, [s for _, s in _leaves(output, "")]
    alike = any(shape[0] in sizes for shape in outputs)
    return [] if alike else [shape for shape in outputs if shape[0] == 1]


def _tensors(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for i, value in enumerate(args):
        yield from _leaves(value, f"input {i + 1}")
    yield from _leaves(kwargs, "the input")


def _leaves(value: object, name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor with a dimension."""
    if isinstance(value, PackedSequence):
        yield name, (int(value.batch_sizes[0]),)
    elif isinstance(value, Tensor):
        if value.ndim:
            yield name, tuple(value.shape)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _ROW_FREE:
                yield from _leaves(item, str(key))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _leaves(item, name)
    elif hasattr(value, "__dataclass_fields__"):
        for key in value.__dataclass_fields__:
            yield from _leaves(getattr(value, key, None), key)


def time_major_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers whose input has time first and examples second."""
    kinds = (nn.RNNBase, nn.MultiheadAttention)
    return [m for m in model.modules() if isinstance(m, kinds) and not m.batch_first]


def examples_in(batch: object) -> int | None:
    """Return the examples of a batch (tensor, tuple, list, dict); None: they cannot be counted.

    Example:
        >>> import torch
        >>> examples_in({"x": torch.zeros(3, 2)}), examples_in("text")
        (3, None)
    """
    found = count_examples((batch,), {})
    return None if found is None else found.count


def labels_in(model: nn.Module, arguments: Mapping[str, Any]) -> int | None:
    """Return how many labels count in a loss, from the arguments of a model; None: not known.

    By the conventions of transformers: -100 is not a label, `shift_labels` are used unchanged, and
    a causal model does not predict the first token.

    Args:
        model: the model itself, without torch.compile or DistributedDataParallel around it.
        arguments: named arguments of its call.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[7, 3, 1], [-100, 2, -100]])
        >>> labels_in(nn.Linear(1, 1), {"labels": labels})
        4
    """
    labels = arguments.get("shift_labels")
    if labels is None:
        labels = arguments.get("labels")
        two_sided = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        causal = getattr(model, "loss_type", None) == "ForCausalLM" and not two_sided
        if causal and isinstance(labels, Tensor):
            labels = labels[..., 1:]
    return int(labels.ne(-100).sum()) if isinstance(labels, Tensor) else None
