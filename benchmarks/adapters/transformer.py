"""Adapters on a small transformer: all methods over a grid of learning rates, and full fine-tuning.

A byte-level transformer learns Python's help texts (pydoc_data.topics). It is then tuned on the
source of Python's standard library by 100 steps of AdamW: all of its eight matrices, or adapters of
rank 4 in them. The loss is measured on held-out source at steps 20 and 100. The grid of learning
rates grows for a method whose best rate is at its edge. Comparing at a single rate would be wrong,
because methods differ most in the length of their steps. Below the tables are the verdicts on the
three goals, for methods that were named before the first run.

    python -m benchmarks.adapters.transformer    hours on one quiet core; run again to continue
    python -m benchmarks.adapters.transformer --threads 1
    python -m benchmarks.adapters.transformer --seeds 2 --methods full,LoRA
    python -m benchmarks.adapters.transformer --quick
"""

from __future__ import annotations

import copy
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.adapters.memory import peak_bytes, resident_bytes
from benchmarks.adapters.methods import (
    BATCH,
    CONTEXT,
    EARLY,
    LAYER_NAMES,
    METHODS,
    STEPS,
    Bytes,
    loss_of,
)
from benchmarks.adapters.tables import best_rate, rates_of, table
from benchmarks.shared import harness

NAME = "adapters/transformer"
TITLE = "Adapters on a small transformer: 100 steps, rank 4, learning rates swept"
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


@dataclass(frozen=True)
class Texts:
    """Bytes for the base model, bytes for tuning, and a held-out batch of the latter."""

    first: Tensor
    tuned: Tensor
    held_out: Tensor


def texts() -> Texts:
    """Return texts that are part of every Python."""
    from pydoc_data.topics import topics

    first = "\n".join(topics[key] for key in sorted(topics)).encode()
    library = Path(sysconfig.get_paths()["stdlib"])
    source = b"\n".join(path.read_bytes() for path in sorted(library.glob("*.py"))[:120])
    tokens = [torch.frombuffer(bytearray(t), dtype=torch.uint8).long() for t in (first, source)]
    cut = int(0.9 * len(tokens[1]))
    held = draw(tokens[1][cut:], 256, torch.Generator().manual_seed(99))
    return Texts(tokens[0], tokens[1][:cut], held)


def draw(tokens: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return random pieces of the text, int64 [count, context + 1]."""
    starts = torch.randint(0, len(tokens) - CONTEXT - 1, (count, 1), generator=generator)
    return tokens[starts + torch.arange(CONTEXT + 1)]


def base_model(data: Texts, steps: int, place: Path) -> Bytes:
    """Return the base model; trained once and stored."""
    torch.manual_seed(0)
    model = Bytes()
    path = place / f"base-{steps}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, draw(data.first, BATCH, generator)).backward()
        optimizer.step()
        schedule.step()
    place.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path)
    return model


def weights(model: nn.Module) -> Tensor:
    """Return the tuned matrices as one vector, with adapters merged."""
    if hasattr(model, "peft_config"):
        model = copy.deepcopy(model).merge_and_unload()  # pyrefly: ignore
    modules = dict(model.named_modules())
    names = [name for name in modules if name.rpartition(".")[2] in LAYER_NAMES]
    return torch.cat([modules[name].get_parameter("weight").detach().flatten() for name in names])


def away(moved: Tensor, goal: Tensor) -> tuple[float, float]:
    """Return the relative distance of two changes of the weights, and their cosine."""
    distance = float((moved - goal).norm() / goal.norm())
    return distance, float(torch.cosine_similarity(moved, goal, dim=0))


def goal_file(place: Path, lr: float, seed: int) -> Path:
    """Return the file for the weights of full fine-tuning, with which others are compared."""
    return place / f"full-{lr:g}-{seed}.safetensors"


def run(
    base: Bytes, data: Texts, name: str, lr: float, seed: int, steps: int, place: Path
) -> harness.Values:
    """Tune once: held-out loss early and at the end, time, number of trained numbers, memory.

    It also measures the distance of the weights to those of full fine-tuning with the same batches
    at the same rate, which runs first and stores them.
    """
    path = goal_file(place, lr, seed)
    goals = load_file(path) if path.exists() and name != "full" else {}
    kept: dict[str, Tensor] = {}
    zero = weights(base)
    from noisewise.adapters import LoraProAdamW, adalora_schedule, lora_pro, param_groups

    method = METHODS[name]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    batches = [draw(data.tuned, BATCH, generator) for _ in range(4)]
    began = time.perf_counter()
    model = method.make(copy.deepcopy(base), batches)
    started = time.perf_counter() - began
    groups: Any = [p for p in model.parameters() if p.requires_grad]
    count = sum(p.numel() for p in groups)
    if hasattr(model, "peft_config"):
        groups = param_groups(model, lr, method.b_ratio)  # pyrefly: ignore
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=0.0)
    if method.pro == "full":
        optimizer = LoraProAdamW(model, lr)  # pyrefly: ignore
    elif method.pro:
        lora_pro(optimizer, model)  # pyrefly: ignore
    if name == "AdaLoRA":
        adalora_schedule(optimizer, model, steps)  # pyrefly: ignore
    found: dict[str, float] = {}
    began = time.perf_counter()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:  # a short warm-up, then constant
            group.setdefault("peak", group["lr"])
            group["lr"] = group["peak"] * min(1.0, step / 5)
        loss_of(model, draw(data.tuned, BATCH, generator)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in (EARLY, steps):
            with torch.no_grad():
                found[f"loss_{step}"] = float(loss_of(model, data.held_out))
                kept[str(step)] = weights(model) - zero
            if str(step) in goals:
                pair = away(kept[str(step)], goals[str(step)])
                found[f"distance_{step}"], found[f"cosine_{step}"] = pair
    seconds = time.perf_counter() - began
    kept_numbers = sum(
        value.numel()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
    if name == "full":
        place.mkdir(parents=True, exist_ok=True)
        save_file(kept, path)
    resident = resident_bytes(model, optimizer)

    def one_more() -> None:
        loss_of(model, draw(data.tuned, BATCH, generator)).backward()
        optimizer.step()
        optimizer.zero_grad()

    memory = {"step_bytes": resident + peak_bytes(one_more)}
    if seed == 0:  # made a second time, because profiling changes the time of a start
        memory["start_bytes"] = peak_bytes(lambda: method.make(copy.deepcopy(base), batches))
    return {
        **found,
        **memory,
        "start_seconds": started,
        "seconds": seconds,
        "trained": count,
        "moments": kept_numbers,
    }


def cut_to_rank(base: Bytes, data: Texts, rank: int, goals: dict[str, Tensor]) -> harness.Values:
    """Return losses and distances of full fine-tuning's own changes, cut to a rank."""
    found: dict[str, float] = {}
    for step, goal in goals.items():
        model, pieces, start = copy.deepcopy(base), [], 0
        for name, module in model.named_modules():
            if name.rpartition(".")[2] not in LAYER_NAMES:
                continue
            weight = module.get_parameter("weight")
            whole = goal[start : start + weight.numel()].view_as(weight)
            start += weight.numel()
            u, s, v = torch.linalg.svd(whole, full_matrices=False)
            pieces.append((u[:, :rank] * s[:rank]) @ v[:rank])
            with torch.no_grad():
                weight += pieces[-1]
        with torch.no_grad():
            found[f"loss_{step}"] = float(loss_of(model, data.held_out))
        moved = torch.cat([piece.flatten() for piece in pieces])
        found[f"distance_{step}"], found[f"cosine_{step}"] = away(moved, goal)
    return dict(found)


def lacks_distance(cell: harness.Cell | None, goal: harness.Cell) -> bool:
    """Whether a finished cell ran before full fine-tuning at the same rate."""
    end, value = f"distance_{STEPS}", f"loss_{STEPS}"
    if cell is None or cell.number(value) is None or goal.number(value) is None:
        return False
    return cell.number(end) is None


def main() -> None:
    """Run the missing cells, widen grids, and print the tables."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--methods", default="", help="names separated by commas; empty: all")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    names = ("noisewise", "torch", "peft", "transformers")
    conditions = harness.environment(threads, names)
    if harness.version_of("peft") is None:
        raise harness.UsageError("This benchmark needs PEFT: pip install noisewise[adapters].")
    results = harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo)
    if not arguments.table_only:
        data = texts()
        steps = 30 if arguments.quick else 1500
        place = harness.work_folder(arguments, NAME)
        base = base_model(data, steps, place)
        chosen = list(METHODS)
        if arguments.methods:
            chosen = harness.names(arguments.methods, METHODS, "method")
        seeds = range(1 if arguments.quick else arguments.seeds)

        def compute(method: str, lr: float, seed: int) -> Callable[[], harness.Values]:
            if METHODS[method].cut:
                return lambda: cut(METHODS[method].cut, lr, seed)
            return lambda: run(base, data, method, lr, seed, STEPS, place)

        def goal(lr: float, seed: int) -> harness.Cell:
            setting = {"method": "full", "lr": lr, "seed": seed}
            found = results.find(setting)
            if found is not None and goal_file(place, lr, seed).exists():
                return found
            return results.run(setting, compute("full", lr, seed))

        def cut(rank: int, lr: float, seed: int) -> harness.Values:
            goal(lr, seed)
            return cut_to_rank(base, data, rank, load_file(goal_file(place, lr, seed)))

        def cells(method: str, lr: float) -> None:
            for seed in seeds:
                setting = {"method": method, "lr": lr, "seed": seed}
                if method != "full" and lacks_distance(results.find(setting), goal(lr, seed)):
                    results.run(setting, compute(method, lr, seed))
                else:
                    results.cell(setting, compute(method, lr, seed))

        for lr in RATES[1:3] if arguments.quick else RATES:
            for method in chosen:
                cells(method, lr)
        for method in () if arguments.quick else [m for m in chosen if not METHODS[m].cut]:
            for _ in range(3):  # a best rate at the edge of the grid may not be the best
                rates, best = rates_of(results, method), best_rate(results, method)
                if best is None or best not in (rates[0], rates[-1]):
                    break
                cells(method, float(f"{best / 3 if best == rates[0] else best * 3:.0e}"))
    harness.publish(results, TITLE, table(results))


if __name__ == "__main__":
    harness.run_program(main)
