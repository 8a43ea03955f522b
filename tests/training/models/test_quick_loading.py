"""Loading a model and drawing with it does not import torch's compiler, which takes for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from export_models import PYRAMID, UNET, models
from noisewise.nets.derive import build
from noisewise.training.models.limits import check_weights
from noisewise.training.models.model_folder import save_model
from noisewise.training.models.networks import network

NETS = {
    "unet": {**UNET, "num_classes": 3},
    "pyramid": PYRAMID,
    "vit": {"name": "vit", "channels": 1, "size": 8, "width": 32, "depth": 1, "patch": 2},
    "uvit": {"name": "uvit", "channels": 1, "size": 8, "widths": [8], "width": 32, "depth": 1},
}
# Each of them imports a thousand modules.
COMPILER = ("torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes", "sympy")
DRAWS = """
import sys
from noisewise.app.cli import main
for folder in sys.argv[1:]:
    assert main(["sample", folder, "-n", "2", "--out", folder + ".png"]) == 0
    found = [name for name in {names} if name in sys.modules]
    assert not found, (folder, found)
"""


def test_sample_imports_no_compiler(tmp_path: Path) -> None:
    for name, net in NETS.items():
        generator = models(net, "bands" if name == "pyramid" else "edm")[1]
        save_model(tmp_path / name, generator.denoiser, generator.config)
    program = DRAWS.format(names=COMPILER)
    folders = [str(tmp_path / name) for name in NETS]
    done = subprocess.run(
        [sys.executable, "-c", program, *folders], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NETS)
def test_shapes_alone_are_those_of_the_net(name: str, tmp_path: Path) -> None:
    """What is left out on torch's device "meta" has no weights."""
    generator = models(NETS[name], "bands" if name == "pyramid" else "edm")[1]
    save_model(tmp_path, generator.denoiser, generator.config)
    net = network(generator.denoiser)
    made: list[nn.Module] = []

    def make() -> nn.Module:
        made.append(build(dict(NETS[name])))
        return made[0]

    check_weights(make, tmp_path / "model.safetensors")
    assert all(weight.device.type == "meta" for weight in made[0].parameters())
    assert {k: v.shape for k, v in made[0].state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }
    again = build(dict(NETS[name]))
    assert all(torch.isfinite(weight).all() for weight in again.parameters())
    assert torch.get_default_device().type == "cpu"
