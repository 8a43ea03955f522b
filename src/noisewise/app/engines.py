"""How quick an exported model is beside torch, measured on this machine: people choose by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from noisewise.app.numbers import in_milliseconds
from noisewise.app.report.timing import times_in_turns

_BATCH = 16
_PIXELS = 2**18  # of a batch: fewer pictures if they are large, for the sake of memory


def seconds_of_engines(
    run: str | Path, file: str | Path, teacher: bool = False
) -> dict[str, float]:
    """Seconds of one network call a picture, in ONNX Runtime and in torch, on the CPU.

    They take turns with batches of at most 16, each with as many threads as it takes by itself.
    Making the noise is not counted.

    Args:
        run: that was exported.
        file: the ONNX file.
        teacher: whether it holds the teacher.

    Raises:
        ValueError: if there is no such model.
    """
    import torch

    from noisewise.export.graph import Run, example, module_of
    from noisewise.export.onnx_file import onnx_function
    from noisewise.sizes import num_pixels
    from noisewise.training.load import load

    model = load(run, "teacher" if teacher else "auto")
    count = max(1, min(_BATCH, _PIXELS // num_pixels(model.size)))
    inputs = example(model, count)
    engines: dict[str, Run] = {
        "ONNX Runtime": onnx_function(Path(file)),
        "torch": module_of(model),
    }

    def calling(engine: Run) -> Callable[[int], object]:
        return lambda _: engine(**inputs)

    with torch.no_grad():
        for engine in engines.values():
            engine(**inputs)  # the first call takes memory
        seconds = times_in_turns([calling(engine) for engine in engines.values()], count)
    return dict(zip(engines, seconds, strict=True))


def in_words(seconds: dict[str, float]) -> str:
    """The engines with their times, the quicker one first.

    Example:
        >>> in_words({"ONNX Runtime": 0.002, "torch": 0.003})
        'ONNX Runtime 2 ms a picture, torch 3 ms (in turns, on this machine)'
    """
    (first, a), (second, b) = sorted(seconds.items(), key=lambda item: item[1])
    return (
        f"{first} {in_milliseconds(a)} a picture, {second} {in_milliseconds(b)} "
        "(in turns, on this machine)"
    )
