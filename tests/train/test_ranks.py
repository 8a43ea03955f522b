"""Two real processes with gloo train what one does; and what happens when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from killing import Workshop, traces
from noisewise.train.checkpoint import load_tensors
from noisewise.train.ranks import Ranks

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Pictures, and settings with a batch that two processes cannot share evenly: 8 and 7."""
    shop = Workshop.make(tmp_path_factory.mktemp("ranks"))
    for name in ("train", "distill"):
        values = json.loads((shop.root / f"{name}.json").read_text())
        recipe = {**values["recipe"], "dropout": 0.0} if name == "train" else values["recipe"]
        values |= {"batch": 15, "checkpoint_seconds": 60.0, "recipe": recipe}
        (shop.root / f"{name}.json").write_text(json.dumps(values))
    return shop


def launch(num_ranks: int, command: list[str]) -> subprocess.Popen[str]:
    """Start a command of ours in several processes."""
    words = command[command.index("-m") :]
    return subprocess.Popen(
        [*LAUNCH, str(num_ranks), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    return said


def losses(run: Path, stage: str, key: str = "loss") -> list[float]:
    log: Any = traces(run, stage)["log"]
    return [line[key] for line in log if key in line]


def weights(run: Path, stage: str) -> torch.Tensor:
    tensors, _ = load_tensors(run / stage / "model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def test_parts_cover_a_batch_and_weigh_what_they_hold() -> None:
    for n in (1, 5, 64, 67):
        for world in (1, 2, 3, 5):
            parts = [range(n)[Ranks(rank, world).part(n)] for rank in range(world)]
            assert [i for part in parts for i in part] == list(range(n))
            scales = [Ranks(rank, world).scale(n) for rank in range(world)]
            assert sum(scales) == pytest.approx(world)


def same_as_one(shop: Workshop, verb: str, stage: str, budget: str) -> None:
    """Do a stage with one process and with two, and compare every step."""
    one, two = shop.root / "one", shop.root / "two"
    shop.finish(verb, one, budget)
    said = finish(launch(2, shop.command(verb, two, budget)))
    assert said.count("done after") == 1, "one of them speaks"
    assert losses(two, stage) == pytest.approx(losses(one, stage), rel=2e-4, abs=1e-7)
    norms = losses(one, stage, "grad_norm")
    assert losses(two, stage, "grad_norm") == pytest.approx(norms, rel=5e-3)
    torch.testing.assert_close(weights(two, stage), weights(one, stage), rtol=0, atol=2e-3)


def test_two_processes_train_what_one_does(shop: Workshop) -> None:
    same_as_one(shop, "train", "teacher", "450images")


@pytest.mark.slow
def test_two_processes_distil_what_one_does_and_exchange_their_runs(shop: Workshop) -> None:
    same_as_one(shop, "train", "teacher", "450images")
    same_as_one(shop, "distill", "generator", "150images")
    one, two = shop.root / "one", shop.root / "two"
    shop.finish("train", two, "600images")
    finish(launch(2, shop.command("train", one, "600images")))
    assert losses(two, "teacher") == pytest.approx(losses(one, "teacher"), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_net_in_parts_learns_what_a_whole_one_does(shop: Workshop, optimizer: str) -> None:
    """FSDP2; its run goes on with one process, and the other way round."""
    values = json.loads((shop.root / "train.json").read_text())
    values["recipe"]["optimizer"] = optimizer
    whole, parts = shop.root / f"whole-{optimizer}", shop.root / f"parts-{optimizer}"
    commands = {}
    for path, shard in ((whole, False), (parts, True)):
        config = shop.root / f"{path.name}.json"
        config.write_text(json.dumps({**values, "shard": shard}))
        commands[path] = shop.command("train", path, "450images")
        commands[path][commands[path].index("--config") + 1] = str(config)
    finish(launch(1, commands[whole]))
    finish(launch(2, commands[parts]))
    assert losses(parts, "teacher") == pytest.approx(losses(whole, "teacher"), rel=1e-3)
    torch.testing.assert_close(
        weights(parts, "teacher"), weights(whole, "teacher"), rtol=0, atol=5e-3
    )
    shop_config = commands[whole][commands[whole].index("--config") + 1]
    onwards = shop.command("train", parts, "600images")
    onwards[onwards.index("--config") + 1] = shop_config
    finish(launch(1, onwards))
    assert len(losses(parts, "teacher")) > 30


@pytest.mark.slow
def test_in_bfloat16_too(shop: Workshop) -> None:
    values = json.loads((shop.root / "train.json").read_text())
    config = shop.root / "bfloat16.json"
    config.write_text(json.dumps({**values, "precision": "bfloat16"}))
    for name, ranks in (("half-one", 1), ("half-two", 2)):
        command = shop.command("train", shop.root / name, "450images")
        command[command.index("--config") + 1] = str(config)
        finish(launch(ranks, command))
    found = losses(shop.root / "half-two", "teacher")
    assert found == pytest.approx(losses(shop.root / "half-one", "teacher"), rel=0.03)


@pytest.mark.slow
def test_a_rank_that_dies_takes_the_run_down_and_the_run_goes_on(shop: Workshop) -> None:
    """Killed without warning; the survivor ends with a sentence, and one process ends the run."""
    run = shop.root / "lost"
    values = json.loads((shop.root / "train.json").read_text())
    config = shop.root / "often.json"
    config.write_text(json.dumps({**values, "checkpoint_seconds": 1e-9}))
    command = shop.command("train", run, "3000images")
    command[command.index("--config") + 1] = str(config)
    process = launch(2, command)
    deadline = time.monotonic() + 200
    while not list((run / "checkpoints").glob("teacher-0*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "the same command goes on, with any number of processes" in said or "SIGKILL" in said
    alone = subprocess.run(command, capture_output=True, text=True, check=False)
    assert alone.returncode == 0, alone.stderr
    assert "resumed at step" in alone.stderr


def test_other_commands_refuse_several_processes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "noisewise", "sample", str(tmp_path)], capture_output=True,
        text=True, check=False, env={**os.environ, "WORLD_SIZE": "2", "RANK": "0"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "only train and distill run in several processes" in done.stderr
