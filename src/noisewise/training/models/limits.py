"""Bounds of what a model's config.json can say, checked before memory is allocated.

A model may come from somebody else: a width of a million, or a text in place of a number, has to
end in one sentence. The bounds are far above what can be trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from noisewise.diffusion import Prediction
from noisewise.sizes import Size, as_size, num_pixels, sides
from noisewise.training.files.tensor_header import tensor_shapes

_MOST_PIXELS = 2**22  # of a picture, 2048 x 2048
_LEAST_SIDE = 1
_MOST_TOKENS = 2**16  # places between which there is attention
_MOST_CLASSES = 1_000_000
_MOST_STEPS = 10_000  # of a sampler
_MOST_OF_SAMPLER = 1e6  # of its sigmas, rho and guidance
_MOST_COUNT = 2**53  # pictures of a class
_MOST_SIGMA = 1e6
_MOST_CALLS = 64  # of a generator

_WHOLE = {
    "channels": (1, 64),
    "patch": (1, 256),
    "width": (1, 16_384),
    "depth": (0, 1024),
    "bottleneck": (0, 16_384),
    "num_classes": (0, _MOST_CLASSES),
}
_LISTS = {"widths": (0, 16_384), "blocks": (1, 256)}
_TABLES = ("detail_sd", "coarse_sd", "power", "colours", "mean")
_LONGEST = 64  # items of a list


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse wrong types and numbers out of bounds in a model's config.json, apart from its net.

    Args:
        values: of config.json; entries that may be missing are checked where they are there.

    Raises:
        ValueError: at the first one.
    """
    check_size(as_size(values.get("size")))
    _whole("channels", values.get("channels"), 1, 4096)
    _number("sigma_data", values.get("sigma_data"), 0.0, _MOST_SIGMA)
    for name in ("sigma_init", "two_call_sigma"):
        if values.get(name) is not None:
            _number(name, values[name], 0.0, _MOST_SIGMA)
    if values.get("kind") == "generator":
        _number("sigma_init", values.get("sigma_init"), 0.0, _MOST_SIGMA)
    _check_later(values.get("later_sigmas", ()))
    for name in ("net", "noise", "sampler", "flats", "palette", "stats"):
        if not isinstance(values.get(name, {}), dict):
            raise ValueError(f"{name} is {_shown(values[name])}; it has to be an object")
    _one_of("kind", values.get("kind"), ("teacher", "generator"))
    _one_of("prediction", values.get("prediction", "edm"), (*get_args(Prediction), "denoiser"))
    if not isinstance(values.get("multiscale", False), bool):
        raise ValueError(f"multiscale is {_shown(values['multiscale'])}; use true or false")
    _whole("the sampler's num_steps", values.get("sampler", {}).get("num_steps", 1), 1, _MOST_STEPS)
    for name in ("sigma_min", "sigma_max", "rho", "guidance"):
        if name in values.get("sampler", {}):
            _number(f"the sampler's {name}", values["sampler"][name], 0.0, _MOST_OF_SAMPLER)
    _check_classes(values.get("classes", ()), values.get("label_histogram", ()))


def check_size(size: Size) -> None:
    """Refuse a picture without pixels, or with more than any model has."""
    if min(sides(size)) < _LEAST_SIDE or num_pixels(size) > _MOST_PIXELS:
        raise ValueError(
            f"size is {_shown(size)}; pictures have at least 1 and at most {_MOST_PIXELS:,} pixels"
        )


def check_net(net: Mapping[str, Any]) -> None:
    """Refuse wrong types and numbers out of bounds in the configuration of a net of noisewise.

    Raises:
        ValueError: at the first one.

    Example:
        >>> check_net({"name": "unet", "channels": 1, "size": 8, "widths": [10**6]})
        Traceback (most recent call last):
        ...
        ValueError: the net's widths is [1000000]; use a list of whole numbers from 0 to 16,384
    """
    for name, (low, high) in _WHOLE.items():
        if name in net:
            _whole(f"the net's {name}", net[name], low, high)
    for name, (low, high) in _LISTS.items():
        given = net.get(name, [])
        if not isinstance(given, list | tuple) or len(given) > _LONGEST:
            raise ValueError(f"the net's {name} is {_shown(given)}; use a list of whole numbers")
        if not all(_is_whole(one) and low <= one <= high for one in given):
            raise ValueError(
                f"the net's {name} is {_shown(given)}; use a list of whole numbers from {low} to "
                f"{high:,}"
            )
    for name in _TABLES:
        _check_table(name, net.get(name, []))
    if "dropout" in net:
        _number("the net's dropout", net["dropout"], -1e-9, 1.0)
    if not isinstance(net.get("attention", True), bool):
        raise ValueError(f"the net's attention is {_shown(net['attention'])}; use true or false")
    size = as_size(net.get("size"))
    check_size(size)
    _check_tokens(net, size)


def check_weights(make: Callable[[], nn.Module], path: Path) -> None:
    """Refuse weights of other shapes than a net has, before either is in memory.

    Args:
        make: builds the net; it is called on torch's meta device, which holds shapes only.
        path: a safetensors file.

    Raises:
        ValueError: if names or shapes differ, or the file is missing or damaged.
        OSError: if the system cannot read the file now.
    """
    found = tensor_shapes(path)
    with torch.device("meta"), _Unfilled():
        wanted = {name: tuple(value.shape) for name, value in make().state_dict().items()}
    if found != wanted:
        raise ValueError(f"{path} does not fit its config.json; restore both files from a copy")


class _Unfilled(TorchFunctionMode):
    """Leaves out what fills new weights: on "meta" that would import torch's compiler, for long."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 (a function of torch)
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        named = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)


def check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are not numbers: they draw noise, or nothing, without a word.

    Raises:
        ValueError: if a value is nan or infinite.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not _all_finite(tensor):
            raise ValueError(
                f"{path} cannot be used: the weights hold values that are not finite ({name}); "
                "restore the model from a copy, or train it again"
            )


def _all_finite(tensor: Tensor) -> bool:
    wide = tensor if tensor.element_size() > 1 else tensor.float()  # float8 has no isfinite
    return bool(wide.isfinite().all())


def _check_later(sigmas: object) -> None:
    """The noise levels of a generator's later calls: a short list of numbers."""
    if not isinstance(sigmas, list | tuple) or len(sigmas) >= _MOST_CALLS:
        raise ValueError(
            f"later_sigmas is {_shown(sigmas)}; use a list of fewer than {_MOST_CALLS} numbers"
        )
    for sigma in sigmas:
        _number("a noise level of later_sigmas", sigma, 0.0, _MOST_SIGMA)


def _check_classes(classes: object, histogram: object) -> None:
    if not isinstance(classes, list | tuple) or not all(isinstance(one, str) for one in classes):
        raise ValueError(f"classes is {_shown(classes)}; it has to be a list of names")
    counts = histogram if isinstance(histogram, list | tuple) else [-1]
    if len(classes) > _MOST_CLASSES or not all(
        _is_whole(one) and 0 <= one <= _MOST_COUNT for one in counts
    ):
        raise ValueError(
            f"label_histogram is {_shown(histogram)}; it has to be a list of whole numbers"
        )
    if classes and (len(counts) != len(classes) or not any(counts)):
        raise ValueError(
            f"label_histogram has {len(counts)} numbers for {len(classes)} classes; it has to "
            "have the number of pictures of each class"
        )


def _check_table(name: str, given: object) -> None:
    """A list of numbers, or of such lists."""
    if not isinstance(given, list | tuple) or len(given) > _LONGEST:
        raise ValueError(f"the net's {name} is {_shown(given)}; use a list of numbers")
    for row in given:
        for value in row if isinstance(row, list | tuple) else [row]:
            _number(f"the net's {name}", value, -math.inf, math.inf)


def _check_tokens(net: Mapping[str, Any], size: Size) -> None:
    """Attention between too many places takes all memory when a picture is drawn."""
    name, patch, levels = net.get("name"), net.get("patch", 1), len(net.get("widths", ()))
    halvings = {"unet": levels - 1, "pyramid": levels - 1, "uvit": levels}.get(str(name), 0)
    tokens = num_pixels(size) // max(1, patch) ** 2 // 4 ** max(0, halvings)
    if tokens > _MOST_TOKENS and net.get("attention", True):
        raise ValueError(
            f"the net has attention between {tokens:,} places; use more widths or a larger patch, "
            f"at most {_MOST_TOKENS:,} places"
        )


def _number(name: str, value: object, low: float, high: float) -> None:
    """A finite number above low and not above high."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) < 1e300 and low < value <= high:
        return
    limits = "" if math.isinf(high) else f" above {max(low, 0.0):g}, up to {high:g}"
    raise ValueError(f"{name} is {_shown(value)}; use a finite number{limits}")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if not (isinstance(value, int) and _is_whole(value) and low <= value <= high):
        raise ValueError(f"{name} is {_shown(value)}; use a whole number from {low} to {high:,}")


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {_shown(value)}; use one of {', '.join(known)}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """A value of somebody else in a sentence: not longer than a line."""
    text = ascii(value) if not isinstance(value, int) or abs(value) < 10**30 else "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."
