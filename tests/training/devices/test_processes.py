"""Two real processes with gloo train what one does; and what happens when one of them dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from killing import Workshop, traces
from noisewise.app import cli
from noisewise.scaling import Measurement
from noisewise.training.devices.processes import Ranks
from noisewise.training.files.atomic import load_tensors
from noisewise.training.run.run import Run

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]

# The command line where putting aside takes so long that two processes would meet in it.
SLOW = """
import pathlib, sys, time
from noisewise.app import cli
from noisewise.scaling import Measurement
replace = pathlib.Path.replace
def slow(path, target):
    if str(target).endswith(".damaged"):
        time.sleep(3)
    return replace(path, target)
pathlib.Path.replace = slow
cli.entry()  # as the command ends: threads of gloo must not abort it
"""


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


def launch_bare(command: list[str], world: int = 2) -> list[subprocess.Popen[str]]:
    """Start the processes without a launcher, which would speak and kill on its own account."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    about = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)}
    return [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **about, "RANK": str(rank)},
        )
        for rank in range(world)
    ]  # fmt: skip


def finish_all(processes: list[subprocess.Popen[str]]) -> str:
    """Wait for all; returns what the first one said."""
    said = [process.communicate(timeout=280)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said[0]


def settings(shop: Workshop, name: str, **more: Any) -> str:  # noqa: ANN401
    """The file of the shop's settings for training with some changed."""
    values = json.loads((shop.root / "train.json").read_text())
    path = shop.root / f"{name}.json"
    path.write_text(json.dumps({**values, **more}))
    return str(path)


def training(shop: Workshop, run: str, config: str, budget: str) -> list[str]:
    command = shop.command("train", shop.root / run, budget)
    command[command.index("--config") + 1] = config
    return command


def alone(command: list[str]) -> None:
    """The same command in this process."""
    assert cli.main(command[command.index("-m") + 2 :]) == 0


def await_checkpoints(run: Path, count: int, processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 200
    while len(list((run / "checkpoints").glob("teacher-0*"))) < count:
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.05)


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


@pytest.mark.parametrize("world", [2, 3])  # 3: parts of 4, 4, 4, 3 on processes with 5 each
def test_several_processes_measure_the_noise_that_one_does(shop: Workshop, world: int) -> None:
    """One of every two steps is measured; the gradients of those steps are the same as well."""
    recipe = {**json.loads((shop.root / "train.json").read_text())["recipe"], "noise_every": 2}
    config = settings(shop, "noise", recipe=recipe)
    one, more = "short-noise-1", f"short-noise-{world}"
    if not (shop.root / one).exists():
        alone(training(shop, one, config, "450images"))
    finish_all(launch_bare(training(shop, more, config, "450images"), world))
    found, wanted = (Measurement.load(shop.root / run / "noise.json") for run in (more, one))
    assert found.noise.num_micro == wanted.noise.num_micro >= 32
    assert found.g2.value == pytest.approx(wanted.g2.value, rel=2e-3)
    assert found.trace_sigma.value == pytest.approx(wanted.trace_sigma.value, rel=2e-3)
    assert (found.batch, found.size) == (wanted.batch, wanted.size)
    assert losses(shop.root / more, "teacher") == pytest.approx(
        losses(shop.root / one, "teacher"), rel=5e-4, abs=1e-7
    )


def test_two_processes_tell_the_net_of_the_same_changes(shop: Workshop) -> None:
    """What it is told has weights of its own, whose gradients are averaged too."""
    values = json.loads((shop.root / "train.json").read_text())
    recipe = {**values["recipe"], "changed_share": 0.5, "noise_every": 3}
    config = settings(shop, "changed", augment="turns,shifts", recipe=recipe)
    alone(training(shop, "changed-one", config, "300images"))
    finish_all(launch_bare(training(shop, "changed-two", config, "300images")))
    one, two = (losses(shop.root / f"changed-{n}", "teacher") for n in ("one", "two"))
    assert two == pytest.approx(one, rel=5e-4, abs=1e-7)
    alone(training(shop, "unchanged", settings(shop, "plain", augment="none"), "300images"))
    assert one != losses(shop.root / "unchanged", "teacher")


@pytest.mark.slow
def test_two_processes_distil_what_one_does_and_exchange_their_runs(shop: Workshop) -> None:
    same_as_one(shop, "train", "teacher", "450images")
    same_as_one(shop, "distill", "generator", "150images")
    one, two = shop.root / "one", shop.root / "two"
    shop.finish("train", two, "600images")
    finish(launch(2, shop.command("train", one, "600images")))
    assert losses(two, "teacher") == pytest.approx(losses(one, "teacher"), rel=1e-3)


@pytest.mark.slow
def test_two_processes_distil_with_guidance_and_an_adversary_as_one_does(shop: Workshop) -> None:
    config = settings(shop, "classed", classes=True)
    alone(training(shop, "classed", config, "150images"))
    values = json.loads((shop.root / "distill.json").read_text())
    values |= {"guidance": 1.5, "data_weight": 0.5, "data_term": "sida"}
    (shop.root / "both.json").write_text(json.dumps(values))
    commands = []
    for name in ("both-one", "both-two"):
        shutil.copytree(shop.root / "classed", shop.root / name)
        command = shop.command("distill", shop.root / name, "90images")
        command[command.index("--config") + 1] = str(shop.root / "both.json")
        commands.append(command)
    alone(commands[0])
    finish_all(launch_bare(commands[1]))
    one, two = shop.root / "both-one", shop.root / "both-two"
    for key in ("loss", "fake_loss"):
        expected = losses(one, "generator", key)
        assert losses(two, "generator", key) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    torch.testing.assert_close(
        weights(two, "generator"), weights(one, "generator"), rtol=0, atol=2e-3
    )


def test_two_processes_in_bfloat16(shop: Workshop) -> None:
    config = settings(shop, "bfloat16", precision="bfloat16")
    alone(training(shop, "short-half-one", config, "150images"))
    finish_all(launch_bare(training(shop, "short-half-two", config, "150images")))
    one, two = (losses(shop.root / f"short-half-{n}", "teacher") for n in ("one", "two"))
    assert len(one) >= 10
    assert two == pytest.approx(one, rel=0.03)
    alone(training(shop, "short-whole", settings(shop, "float32"), "150images"))
    assert one != losses(shop.root / "short-whole", "teacher")


def test_a_net_in_parts_of_two_processes(shop: Workshop) -> None:
    """FSDP2, in short; its checkpoint is a whole one, with which one process goes on."""
    whole = settings(shop, "whole")
    alone(training(shop, "short-one", whole, "150images"))
    finish_all(
        launch_bare(training(shop, "short-parts", settings(shop, "p", shard=True), "150images"))
    )
    one, parts = shop.root / "short-one", shop.root / "short-parts"
    assert losses(parts, "teacher") == pytest.approx(losses(one, "teacher"), rel=1e-3)
    torch.testing.assert_close(
        weights(parts, "teacher"), weights(one, "teacher"), rtol=0, atol=5e-3
    )
    for name in ("short-one", "short-parts"):
        alone(training(shop, name, whole, "225images"))
    assert "resumed at step 10" in (parts / "log.jsonl").read_text()
    assert losses(parts, "teacher") == pytest.approx(losses(one, "teacher"), rel=1e-3)


def test_a_lost_process_and_a_damaged_checkpoint(shop: Workshop) -> None:
    """The survivor says so and ends; two go on, both from the last checkpoint that is whole."""
    run = shop.root / "short-lost"
    command = training(
        shop, "short-lost", settings(shop, "o", checkpoint_seconds=1e-9), "750images"
    )
    processes = launch_bare(command)
    await_checkpoints(run, 2, processes)
    processes[1].kill()
    processes[1].communicate()
    _, said = processes[0].communicate(timeout=200)
    assert processes[0].returncode == 1
    assert "another of the 2 processes has ended, so this one ends too" in said
    assert "run the same command again to resume from the last checkpoint" in said
    newest, before = Run.open(run).checkpoints("teacher").paths()
    newest.write_bytes(newest.read_bytes()[:-1000])
    said = finish_all(launch_bare([sys.executable, "-c", SLOW, *command[3:]]))
    assert f"{newest.name} is damaged" in said
    assert f"resumed from an earlier checkpoint, {before.name}" in said
    alone(training(shop, "short-kept", settings(shop, "k"), "750images"))
    kept = losses(shop.root / "short-kept", "teacher")
    assert losses(run, "teacher") == pytest.approx(kept, rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_net_in_parts_learns_what_a_whole_one_does(shop: Workshop, optimizer: str) -> None:
    """FSDP2; its run goes on with one process, and the other way round."""
    recipe = json.loads((shop.root / "train.json").read_text())["recipe"]
    recipe["optimizer"] = optimizer
    one = settings(shop, f"whole-{optimizer}", recipe=recipe)
    many = settings(shop, f"parts-{optimizer}", recipe=recipe, shard=True)
    whole, parts = shop.root / f"whole-{optimizer}", shop.root / f"parts-{optimizer}"
    finish(launch(1, training(shop, whole.name, one, "450images")))
    finish(launch(2, training(shop, parts.name, many, "450images")))
    assert losses(parts, "teacher") == pytest.approx(losses(whole, "teacher"), rel=1e-3)
    torch.testing.assert_close(
        weights(parts, "teacher"), weights(whole, "teacher"), rtol=0, atol=5e-3
    )
    said = finish(launch(1, training(shop, parts.name, one, "600images")))
    assert "resumed at step 30" in said
    said = finish(launch(2, training(shop, whole.name, many, "600images")))
    assert "resumed at step 30" in said
    assert len(losses(parts, "teacher")) > 30
    assert losses(parts, "teacher") == pytest.approx(losses(whole, "teacher"), rel=2e-3)


@pytest.mark.slow
def test_in_bfloat16_too(shop: Workshop) -> None:
    config = settings(shop, "bfloat16", precision="bfloat16")
    for name, ranks in (("half-one", 1), ("half-two", 2)):
        finish(launch(ranks, training(shop, name, config, "450images")))
    found = losses(shop.root / "half-two", "teacher")
    assert found == pytest.approx(losses(shop.root / "half-one", "teacher"), rel=0.03)


@pytest.mark.slow
def test_a_rank_that_dies_takes_the_run_down_and_the_run_goes_on(shop: Workshop) -> None:
    """Killed without warning; the survivor ends with a sentence, and one process ends the run."""
    often = settings(shop, "often", checkpoint_seconds=1e-9)
    command = training(shop, "lost", often, "3000images")
    process = launch(2, command)
    await_checkpoints(shop.root / "lost", 1, [process])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "run the same command again to resume from the last checkpoint" in said
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stderr
    alone(training(shop, "never-lost", often, "3000images"))
    never = losses(shop.root / "never-lost", "teacher")
    assert losses(shop.root / "lost", "teacher") == pytest.approx(never, rel=5e-3)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed")
def test_accelerate_launches_what_torchrun_does(shop: Workshop) -> None:
    command = training(shop, "accelerated", settings(shop, "a"), "450images")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launcher += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    process = subprocess.Popen(
        [*launcher, "--dynamo_backend", "no", *command[command.index("-m") :]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    said = finish(process)
    assert "2 processes" in said
    alone(training(shop, "not-accelerated", settings(shop, "a"), "450images"))
    expected = losses(shop.root / "not-accelerated", "teacher")
    assert losses(shop.root / "accelerated", "teacher") == pytest.approx(expected, rel=2e-4)


def test_other_commands_refuse_several_processes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "noisewise", "sample", str(tmp_path)], capture_output=True,
        text=True, check=False, env={**os.environ, "WORLD_SIZE": "2", "RANK": "0"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "only train and distill run in several processes" in done.stderr
