"""The real transformers, Lightning and accelerate, real short trainings; skipped elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# 236 rows are 29 micro-batches of 8 and one of 4: the eighth step of an epoch has 8 and 4.
COMMON = """
import json, sys, torch
from torch import nn
from noisewise.scaling import Measurement, advise, watch

def show(found, monitor, **more):
    print(json.dumps({"batch": found.batch, "size": found.size, "steps": len(monitor.noise),
                      "skipped": dict(monitor.skipped), "clipped": found.clipped_share,
                      "g2": found.g2.value, "lr": advise(found, batch=found.batch).lr, **more}))
"""

TRAINER = (
    COMMON
    + """
from transformers import Trainer, TrainerCallback, TrainingArguments
from noisewise.scaling.callbacks import trainer_callback

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 1)
    def forward(self, x, labels):
        return {"loss": (self.inner(x)[:, 0] - labels).square().mean()}

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)
    def forward(self, x, labels, num_items_in_batch=None, **kwargs):
        scores, labels = self.inner(x).flatten(0, 1), labels.flatten()
        total = nn.functional.cross_entropy(scores, labels, reduction="sum")
        return {"loss": total / (num_items_in_batch or labels.ne(-100).sum())}

class Reporter(TrainerCallback):  # as those for TensorBoard: called before ours
    def __init__(self):
        self.seen = 0
    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen += "noise/b_simple_low" in dict(logs)

def arguments(**more):
    kept = {"gradient_accumulation_steps": 4, "max_steps": 15, "save_strategy": "no", **more}
    return TrainingArguments(
        sys.argv[1], per_device_train_batch_size=8, logging_steps=5, report_to=[], use_cpu=True,
        disable_tqdm=True, learning_rate=1e-3, **kept,
    )

torch.manual_seed(0)
x = torch.randn(236, 4)
data = [{"x": row, "labels": row.sum()} for row in x]
callback, reporter = trainer_callback(every=1, save=sys.argv[1] + "/m.json"), Reporter()
trainer = Trainer(Net(), arguments(max_grad_norm=1e-3), train_dataset=data,
                  callbacks=[reporter, callback])
trainer.train()
found, first = Measurement.load(sys.argv[1] + "/m.json"), callback.monitor
history = sum("noise/b_simple_low" in entry for entry in trainer.state.log_history)
reported = reporter.seen
trainer.train()
again = [callback.monitor is not first, len(callback.monitor.noise)]

torch.manual_seed(0)
texts = torch.randn(640, 6, 4)
tags = torch.randint(3, (640, 6)).masked_fill(torch.rand(640, 6) < 0.4, -100)
words = trainer_callback(every=1)
data = [{"x": row, "labels": tag} for row, tag in zip(texts, tags)]
Trainer(Words(), arguments(), train_dataset=data, callbacks=[words]).train()
by_labels = [words.monitor.noise.batch, len(words.monitor.noise), words.monitor.num_skipped]

# Accumulation 1: nothing can be measured, or only the normalisation layers; both are said.
import warnings
from pathlib import Path

def single(net, name, **more):
    kept = {"gradient_accumulation_steps": 1, "max_steps": 12, "save_strategy": "no", **more}
    return Trainer(net, arguments(**kept), train_dataset=data,
                   callbacks=[trainer_callback(every=1, skip=0, save=sys.argv[1] + "/" + name)])

data = [{"x": row, "labels": row.sum()} for row in x]
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    single(Net(), "none.json").train()
told = [str(w.message) for w in said if "noisewise" in str(w.message)]
class Normed(Net):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 1))
single(Normed(), "norms.json").train()
norms = Measurement.load(sys.argv[1] + "/norms.json").source
one = [told, Path(sys.argv[1] + "/none.json").exists(), norms]

# The file follows the training, and a resumed training keeps its measurement.
class Follower(TrainerCallback):
    def __init__(self):
        self.seen = []
    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(Path(sys.argv[1] + "/live.json").exists())
live, resumed = trainer_callback(every=1, skip=0, save=sys.argv[1] + "/live.json"), None
follower = Follower()
saving = {"save_strategy": "steps", "save_steps": 8}
Trainer(Net(), arguments(**saving), train_dataset=data, callbacks=[live, follower]).train()
resumed = trainer_callback(every=1, skip=0)
later = Trainer(Net(), arguments(**saving), train_dataset=data, callbacks=[resumed])
later.train(resume_from_checkpoint=sys.argv[1] + "/checkpoint-8")
added = trainer_callback(every=1, skip=0)  # to a training that had none
Trainer(Net(), arguments(**saving), train_dataset=data).train()
late = Trainer(Net(), arguments(**saving), train_dataset=data, callbacks=[added])
late.train(resume_from_checkpoint=sys.argv[1] + "/checkpoint-8")
flow = {"seen": follower.seen.index(True), "whole": live.monitor.noise.num_steps,
        "resumed": [resumed.monitor.noise.num_steps, resumed.monitor.measurement().begun],
        "added": added.monitor.noise.num_steps, "ended": live.monitor.measurement().ended}

# Nothing of ours ends the training.
broken = trainer_callback(every=1, skip=0, save=sys.argv[1] + "/no/such/folder/m.json")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    Trainer(Net(), arguments(), train_dataset=data, callbacks=[broken]).train()
fault = [str(w.message) for w in said if "noisewise" in str(w.message)]

many = Trainer(Net(), arguments(), train_dataset=data, callbacks=[trainer_callback()])
many.args._n_gpu = 2
try:
    many.train()
    refused = "no complaint"
except ValueError as error:
    refused = str(error)
show(found, first, reported=reported, history=history, again=again, by_labels=by_labels,
     refused=refused, one=one, flow=flow, fault=fault)
"""
)

LIGHTNING = (
    COMMON
    + """
import lightning
from lightning.pytorch.plugins.precision import MixedPrecision
from noisewise.scaling.callbacks import lightning_callback

class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 1)
    def training_step(self, batch, _):
        (x,) = batch
        return (self.inner(x)[:, 0] - x.sum(1)).square().mean()
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)

def fit(callback, net=None, accumulate_grad_batches=4, **more):
    trainer = lightning.Trainer(
        max_steps=15, accumulate_grad_batches=accumulate_grad_batches, callbacks=[callback],
        accelerator="cpu", enable_progress_bar=False, default_root_dir=sys.argv[1], logger=False,
        enable_model_summary=False, **more,
    )
    torch.manual_seed(0)
    trainer.fit(net or Net(), torch.utils.data.DataLoader(data, batch_size=8))
    return trainer

torch.manual_seed(0)
data = torch.utils.data.TensorDataset(torch.randn(236, 4))
callback = lightning_callback(every=1, save=sys.argv[1] + "/m.json")
trainer = fit(callback, gradient_clip_val=1e-3)
found, first = Measurement.load(sys.argv[1] + "/m.json"), callback.monitor
state = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=False)["callbacks"]
kept = [s["noise"]["num_steps"] for s in state.values() if "noise" in s]
half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
fit(callback, plugins=[half])
half = callback.monitor.measurement()
again = [callback.monitor is not first, len(callback.monitor.noise)]

import warnings
from pathlib import Path
alone = lightning_callback(every=1, skip=0, save=sys.argv[1] + "/alone.json")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    fit(alone, accumulate_grad_batches=1)
told = [str(w.message) for w in said if "noisewise" in str(w.message)]
class Normed(Net):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 1))
norms = lightning_callback(every=1, skip=0, save=sys.argv[1] + "/norms.json")
fit(norms, Normed(), accumulate_grad_batches=1)
norms = Measurement.load(sys.argv[1] + "/norms.json")
one = [told, Path(sys.argv[1] + "/alone.json").exists(), norms.source, norms.ended]
broken = lightning_callback(every=1, skip=0, save=sys.argv[1] + "/no/such/folder/m.json")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    fit(broken)
fault = [str(w.message) for w in said if "noisewise" in str(w.message)]
show(found, first, kept=kept, again=again, scaled=[half.g2.value, half.clipped_share], one=one,
     fault=fault)
"""
)

ACCELERATE = (
    COMMON
    + """
from accelerate import Accelerator

def run(scaler, clip):
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    accelerator.scaler = scaler  # as mixed_precision="fp16" has it on a GPU
    net = nn.Linear(4, 1)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(torch.randn(236, 4), batch_size=8)
    net, adam, loader = accelerator.prepare(net, adam, loader)
    monitor = watch(net, adam, every=1)
    for _ in range(2):
        for x in loader:
            with accelerator.accumulate(net):
                loss = (net(x)[:, 0] - x.sum(1)).square().mean()
                accelerator.backward(loss)
                if accelerator.sync_gradients and clip:
                    accelerator.clip_grad_norm_(net.parameters(), 1e-3)
                adam.step()
                adam.zero_grad()
    return monitor

monitor = run(None, True)
half = run(torch.amp.GradScaler("cpu", init_scale=1024.0), False).measurement()
show(monitor.measurement(), monitor, scaled=[half.g2.value, half.clipped_share])
"""
)


def result_of(library: str, program: str, folder: Path) -> dict[str, Any]:
    """What a program printed, after what holds for each of them."""
    pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["batch"], found["size"]) == (32.0, 8.0)
    assert found["clipped"] == 1.0  # seen before clipping
    assert 1.0 < found["g2"] < 40.0  # of the order of the true |g|^2, not of the clipped 1e-6
    assert found["lr"] == pytest.approx(1e-3)  # the schedule's top, not its end
    assert all("unequal" in reason for reason in found["skipped"])
    return found


def test_transformers(tmp_path: Path) -> None:
    found = result_of("transformers", TRAINER, tmp_path)
    # Of 15 steps the first 4 are left out, and the eighth, whose micro-batches differ.
    assert (found["steps"], sum(found["skipped"].values())) == (10, 1)
    assert found["history"] == found["reported"] >= 2
    assert found["again"] == [True, 10]
    labels, steps, skipped = found["by_labels"]
    assert (steps, skipped) == (11, 0)
    assert labels == pytest.approx(32 * 6 * 0.6, rel=0.1)
    assert "one device" in found["refused"]
    told, written, source = found["one"]
    assert len(told) == 1
    assert "measured nothing and" in told[0]
    assert "only one micro-batch" in told[0]
    assert not written
    assert source == "norm layers"
    flow = found["flow"]
    assert flow["seen"] <= 2  # after two measured steps, long before the end
    assert flow["whole"] == flow["resumed"][0] == 14  # of 15, one has unequal micro-batches
    assert flow["resumed"][1] == 0.0
    assert flow["added"] == 7  # the steps after the checkpoint
    assert flow["ended"] == 1.0
    assert len(found["fault"]) == 1
    assert "No such file" in found["fault"][0]


def test_lightning(tmp_path: Path) -> None:
    found = result_of("lightning", LIGHTNING, tmp_path)
    assert (found["steps"], sum(found["skipped"].values())) == (10, 1)
    assert found["kept"] == [10]
    told, written, source, ended = found["one"]
    assert len(told) == 1
    assert "only one micro-batch" in told[0]
    assert (written, source, ended) == (False, "norm layers", 1.0)
    assert len(found["fault"]) == 1
    assert "No such file" in found["fault"][0]
    assert found["again"] == [True, 10]
    g2, clipped = found["scaled"]
    assert clipped == 0.0
    assert 1.0 < g2 < 40.0  # not times 1024^2


def test_accelerate(tmp_path: Path) -> None:
    found = result_of("accelerate", ACCELERATE, tmp_path)
    assert (found["steps"], sum(found["skipped"].values())) == (10, 2)  # of 16
    g2, clipped = found["scaled"]
    assert clipped == 0.0
    assert g2 == pytest.approx(found["g2"], rel=1e-3)  # both nets have hardly moved, and alike
