"""One call of a generator on a CPU: ONNX Runtime against torch, in turns.

Both draw finished pictures from the same noise, with the same number of threads. The weights are
random: they cost as much time as trained ones. The engines take turns, call by call, so that what
else the machine does slows both alike; what counts is the ratio.

    python -m benchmarks.export.engines                 # needs the extra `export`, no data
    python -m benchmarks.export.engines --run runs/demo # a generator of yours too
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.shared import harness
from benchmarks.shared.summaries import ratio, summarise, table
from noisewise.export import write
from noisewise.export.graph import example, module_of
from noisewise.nets.derive import derive, prediction_of
from noisewise.training.devices.engine import channels_last
from noisewise.training.load import load
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.model_folder import build_denoiser
from noisewise.training.models.models import Generator

NAME = "export/engines"
SETS = {"28 x 28 grey": (28, 1), "32 x 32 colour": (32, 3), "64 x 64 colour": (64, 3)}
BATCHES = (1, 16, 64)
BUDGET = 200_000  # pictures that the net of the demo is derived for
PACKAGES = ("noisewise", "torch", "onnxruntime", "onnx")
WAYS = ("torch", "onnxruntime")
OF = ("", ", processor")  # milliseconds by the clock, and of the processor


def main() -> None:
    """Time all sizes and batches, and print the table."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=30, help="calls of each engine")
    parser.add_argument("--run", default=None, help="a generator of yours, in the place of ours")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    conditions = harness.environment(threads, packages=PACKAGES)
    path = harness.results_file(arguments, NAME)
    results = harness.Results(path, conditions, redo=arguments.redo)
    names = [f"run {Path(arguments.run).name}"] if arguments.run else list(SETS)
    names, batches = (names[:1], BATCHES[:2]) if arguments.quick else (names, BATCHES)
    rounds = 3 if arguments.quick else arguments.rounds
    for name in () if arguments.table_only else names:
        settings = [{"pictures": name, "batch": n, "threads": threads} for n in batches]
        if arguments.redo or not results.complete(settings):
            model = _generator(name, arguments.run)
            with tempfile.TemporaryDirectory() as folder:
                run = _in_onnx_runtime(model, Path(folder) / "model.onnx", threads)
                for setting in settings:
                    timed = partial(_timed, model, run, int(setting["batch"]), rounds)
                    results.cell(setting, timed)
    harness.publish(results, "ONNX Runtime against torch", [_table(results)])


def _generator(name: str, run: str | None) -> Generator:
    """The generator of a run, or one with random weights and the net that noisewise derives."""
    if run is not None:
        found = load(run)
        if not isinstance(found, Generator):
            raise harness.UsageError(f"{run} has no generator: distil it first.")
        return found
    size, channels = SETS[name]
    net = derive(size, channels, images=BUDGET).net
    torch.manual_seed(0)
    denoiser = channels_last(build_denoiser(net, 0.5, prediction_of(net))).requires_grad_(False)
    config = ModelConfig(
        kind="generator",
        net=net,
        sigma_data=0.5,
        size=size,
        channels=channels,
        noise={"name": "LogNormal", "mean": -0.4, "std": 1.4},
        prediction=prediction_of(net),
        sigma_init=2.5,
    )
    return Generator(denoiser, config).eval()


def _in_onnx_runtime(model: Generator, place: Path, threads: int) -> Callable[..., Tensor]:
    """The exported model as a function, with so many threads."""
    import onnxruntime

    write(copy.deepcopy(model), "onnx", place)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(place, options, providers=["CPUExecutionProvider"])

    def run(**inputs: Tensor) -> Tensor:
        (found,) = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        return torch.from_numpy(found)

    return run


@torch.no_grad()
def _timed(
    model: Generator, run: Callable[..., Tensor], batch: int, rounds: int
) -> dict[str, object]:
    """Milliseconds of each call, in turns: by the clock, and of the processor; and what differs."""
    inputs, ours = example(model, batch), module_of(model)
    ways: dict[str, Callable[..., Tensor]] = {"torch": ours, "onnxruntime": run}
    first = {name: way(**inputs) for name, way in ways.items()}  # also fills caches
    taken: dict[str, list[float]] = {name + of: [] for name in ways for of in OF}
    for turn in range(rounds):
        for name in WAYS if turn % 2 else WAYS[::-1]:
            start, used = time.perf_counter(), time.process_time()
            ways[name](**inputs)
            taken[name].append(round(1000 * (time.perf_counter() - start), 4))
            taken[f"{name}, processor"].append(round(1000 * (time.process_time() - used), 4))
    return {**taken, "difference": (first["torch"] - first["onnxruntime"]).abs().max().item()}


def _table(results: harness.Results) -> str:
    rows = []
    for cell in results.cells({}):
        torchs, others = (cell.numbers(way) for way in WAYS)
        used = [cell.numbers(f"{way}, processor") for way in WAYS]
        rows.append(
            (
                cell.setting["pictures"],
                cell.setting["batch"],
                cell.setting["threads"],
                str(summarise([torchs])),
                str(summarise([others])),
                str(ratio([torchs], [others])),
                str(ratio([used[0]], [used[1]])),
                f"{cell.number('difference'):.1e}",
            )
        )
    columns = ("pictures", "batch", "threads", "torch, ms", "ONNX Runtime, ms")
    more = ("times as quick as torch", "the same, processor", "largest difference")
    return table([*columns, *more], rows)


if __name__ == "__main__":
    harness.run_program(main)
