"""Distil a model that noisewise did not train, here a flow: python examples/my_own_teacher.py."""

import tempfile

import numpy as np
import torch
from torch import Tensor, nn

import noisewise
from noisewise.demo import demo_path
from noisewise.diffusion import x0_from_flow


class Flow(nn.Module):
    """A small velocity net u(x_s, s) on the straight path x_s = (1 - s) x0 + s eps."""

    def __init__(self) -> None:
        super().__init__()
        first, last = nn.Conv2d(2, 24, 5, padding=2), nn.Conv2d(24, 1, 5, padding=2)
        self.net = nn.Sequential(first, nn.SiLU(), last)

    def forward(self, x_s: Tensor, s: Tensor) -> Tensor:
        return self.net(torch.cat([x_s, s[:, None, None, None].expand_as(x_s)], 1))


class AsDenoiser(nn.Module):
    """What noisewise calls: x = x0 + sigma * noise instead of the flow's x_s."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        velocity = self.flow(x / (1 + sigma)[:, None, None, None], sigma / (1 + sigma))
        return x0_from_flow(x, sigma, velocity)


def main() -> None:
    """Train the flow for a few seconds, describe it, distil it, draw in one call."""
    torch.manual_seed(0)
    images = torch.from_numpy(np.load(demo_path())["images"]).permute(0, 3, 1, 2) / 127.5 - 1
    flow = Flow()
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
    for _ in range(80):
        x0, s = images[torch.randint(len(images), (32,))], torch.rand(32)
        eps = torch.randn_like(x0)
        loss = (flow(x0.lerp(eps, s[:, None, None, None]), s) - (eps - x0)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    teacher = noisewise.as_teacher(AsDenoiser(flow), size=28, channels=1, sigma_data=0.7)
    with tempfile.TemporaryDirectory() as folder:
        generator = noisewise.distill(folder, "640images", teacher=teacher)
        print(f"{noisewise.Run(folder)}\none call: {tuple(generator.sample(16).shape)}")


if __name__ == "__main__":
    main()
