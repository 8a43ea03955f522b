"""A training loop of your own, from noisewise's parts: no run folder, nothing hidden.

Pictures, net, noise levels, loss, weight average, sampler, distance: python examples/my_own_loop.py
"""

import copy

import torch

from noisewise.demo import demo_path
from noisewise.diffusion import (
    EDMWeight,
    LogNormal,
    Preconditioned,
    denoising_loss,
    heun,
    karras_sigmas,
    sample,
)
from noisewise.nets.derive import build
from noisewise.pictures.pictures import load_pictures
from noisewise.quality.distance import distance
from noisewise.training.stages.weight_averages import EMA


def main() -> None:
    """Train for 60 steps of 64 pictures, draw 64, and measure them."""
    pictures = load_pictures(demo_path())
    training, held_out = pictures.split(seed=0)
    sigma_data = pictures.sigma_data()
    torch.manual_seed(0)
    net = {"name": "unet", "widths": [16, 32], "blocks": [1, 1], "patch": 2, "attention": False}
    net |= {"size": 28, "channels": 1, "num_classes": 0, "dropout": 0.0}
    denoiser = Preconditioned(build(net), sigma_data)
    levels = LogNormal(mean=-0.8, std=1.4)  # of ln sigma
    weight = EDMWeight(sigma_data)  # a loss of 1 at every noise level at the start
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=3e-3)
    average = EMA(denoiser, shares=(0.2,))
    random = torch.Generator().manual_seed(0)
    for step in range(1, 61):
        chosen = training[torch.randint(len(training), (64,), generator=random).numpy()]
        x0 = pictures.tensor(chosen)
        sigma, noise = levels.sample(64, random), torch.randn(x0.shape, generator=random)
        loss = denoising_loss(denoiser, x0, sigma, noise, weight).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(batch=64, images=64 * step)
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    best = copy.deepcopy(denoiser).eval().requires_grad_(False)
    average.copy_to(best, 0)
    noise = torch.randn(64, 1, 28, 28, generator=random)
    drawn = sample(heun(best, noise, karras_sigmas(5, 0.3, 40.0))).clamp(-1, 1)
    found = distance(drawn, pictures.tensor(held_out))
    print(f"distance {found.value:.3f}, real pictures from each other {found.floor:.3f}")


if __name__ == "__main__":
    main()
