"""Train a network of your own: any module `net(x, noise_level, condition)` of the shape of x.

noisewise adds the preconditioning, the noise, the averages and the sampler; `build` makes your net.
Run it: python examples/my_own_net.py
"""

import tempfile
from typing import Any

import torch
from torch import Tensor, nn

import noisewise
from noisewise.demo import demo_path


class Net(nn.Module):
    """Three dilated convolutions, shifted by the noise level and by the kind of picture."""

    def __init__(self, channels: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.into = nn.Conv2d(channels, width, 3, padding=1)
        self.level = nn.Linear(2, width)
        self.kind = nn.Embedding(max(num_classes, 1), width)
        self.inside = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (1, 2, 4)
        )
        self.out = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict from noised pictures x [n, c, h, w] at noise_level = ln sigma [n]."""
        shift = self.level(torch.stack([noise_level, noise_level.cos()], 1))
        if condition is not None:  # the class or kind of each picture, int64 [n]
            shift = shift + self.kind(condition)
        h = torch.relu(self.into(x) + shift[:, :, None, None])
        for layer in self.inside:
            h = h + torch.relu(layer(h))
        return self.out(h)


def build(config: dict[str, Any]) -> nn.Module:
    """Make the net from what noisewise derived from the pictures."""
    return Net(config["channels"], config["num_classes"])


def main() -> None:
    """Train it for 1,500 images, load it again, draw."""
    with tempfile.TemporaryDirectory() as folder:
        run = noisewise.train(demo_path(), folder, "1500images", build=build)
        print(run)
        teacher = noisewise.load(run, "teacher", build=build)  # a file knows no code: give it again
        pictures = teacher.sample(16, seed=0)
        print(f"held-out loss {run.stage('teacher').measured['heldout_loss']:.3f}")
        print(f"drawn: {tuple(pictures.shape)}, mean {pictures.mean():.2f}")


if __name__ == "__main__":
    main()
