"""The real transformers, Lightning and accelerate, real short trainings; skipped elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAINER = """
import json, sys, torch
from torch import nn
from transformers import Trainer, TrainingArguments
from noisewise.scaling import Measurement
from noisewise.scaling.callbacks import trainer_callback

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 1)
    def forward(self, x, labels):
        return {"loss": (self.inner(x)[:, 0] - labels).square().mean()}

torch.manual_seed(0)
x = torch.randn(640, 4)
data = [{"x": row, "labels": row.sum()} for row in x]
callback = trainer_callback(every=1, save=sys.argv[1] + "/m.json")
arguments = TrainingArguments(
    sys.argv[1], per_device_train_batch_size=8, gradient_accumulation_steps=4, max_steps=15,
    logging_steps=5, report_to=[], use_cpu=True, max_grad_norm=1e-3, disable_tqdm=True,
    save_strategy="no", learning_rate=1e-3,
)
trainer = Trainer(Net(), arguments, train_dataset=data, callbacks=[callback])
trainer.train()
found = Measurement.load(sys.argv[1] + "/m.json")
logged = [entry for entry in trainer.state.log_history if "noise/b_simple_low" in entry]
print(json.dumps([found.batch, found.size, len(callback.monitor.noise), found.clipped_share,
                  found.g2.value, len(logged)]))
"""

LIGHTNING = """
import json, sys, warnings, torch
from torch import nn
import lightning
from noisewise.scaling import Measurement
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

torch.manual_seed(0)
data = torch.utils.data.TensorDataset(torch.randn(640, 4))
loader = torch.utils.data.DataLoader(data, batch_size=8)
callback = lightning_callback(every=1, save=sys.argv[1] + "/m.json")
trainer = lightning.Trainer(
    max_steps=15, accumulate_grad_batches=4, gradient_clip_val=1e-3, callbacks=[callback],
    accelerator="cpu", enable_progress_bar=False, default_root_dir=sys.argv[1], logger=False,
    enable_model_summary=False,
)
trainer.fit(Net(), loader)
found = Measurement.load(sys.argv[1] + "/m.json")
state = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=False)["callbacks"]
kept = [s for s in state.values() if "noise" in s]
print(json.dumps([found.batch, found.size, len(callback.monitor.noise), found.clipped_share,
                  found.g2.value, len(kept)]))
"""

ACCELERATE = """
import json, sys, torch
from torch import nn
from accelerate import Accelerator
from noisewise.scaling import watch

torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
net = nn.Linear(4, 1)
adam = torch.optim.Adam(net.parameters(), lr=1e-3)
loader = torch.utils.data.DataLoader(torch.randn(480, 4), batch_size=8)
net, adam, loader = accelerator.prepare(net, adam, loader)
monitor = watch(net, adam, every=1)
for x in loader:
    with accelerator.accumulate(net):
        loss = (net(x)[:, 0] - x.sum(1)).square().mean()
        accelerator.backward(loss)
        if accelerator.sync_gradients:
            accelerator.clip_grad_norm_(net.parameters(), 1e-3)
        adam.step()
        adam.zero_grad()
found = monitor.measurement()
print(json.dumps([found.batch, found.size, len(monitor.noise), found.clipped_share,
                  found.g2.value, 1]))
"""


@pytest.mark.parametrize(
    ("library", "program"),
    [("transformers", TRAINER), ("lightning", LIGHTNING), ("accelerate", ACCELERATE)],
    ids=["transformers", "lightning", "accelerate"],
)
def test_a_real_loop_of_fifteen_steps(library: str, program: str, tmp_path: Path) -> None:
    pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    batch, size, steps, clipped, g2, kept = json.loads(done.stdout.splitlines()[-1])
    assert (batch, size, steps) == (32.0, 8.0, 15)
    assert clipped == 1.0  # seen before clipping
    assert 1.0 < g2 < 40.0  # of the order of the true |g|^2, not of the clipped 1e-6
    assert kept >= 1
