"""Train diffusers' UNet2DModel for a given wall-clock time, with its DDPM loss and DDIM sampler.

As in its example of unconditional training: epsilon prediction, 1,000 linear-beta times, AdamW
(0.95, 0.999), weight decay 1e-6, eps 1e-8, cosine decay, clipping at 1. Its 500 warm-up steps would
fill a short run, so warm-up is 5 % and the decay fits the budget. It needs an environment without
torchvision (a torchvision that does not match torch breaks the import).
"""

from __future__ import annotations

import math

import against_clock
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

# readme: as in the example, two layers a level and attention at the level before the last; its six
# levels of 128-512 channels become three of 32-128 for two cores. small: one layer a level,
# attention at the lowest level. large: as readme, for pictures above 64 pixels, with more levels of
# 128 channels down to 32 pixels and attention there only, as in the example.
LAYOUTS = {
    "readme": {
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "small": {
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    },
}
WIDTHS = (32, 64, 128)


def net_of(layout: str, size: int, channels: int) -> UNet2DModel:
    """The net of a layout, for pictures of this size."""
    if layout != "large":
        widths, own = WIDTHS, LAYOUTS[layout]
    else:
        levels = max(3, (size // 32).bit_length())
        widths = (*WIDTHS, *[WIDTHS[-1]] * (levels - 3))
        own = {
            "layers_per_block": 2,
            "down_block_types": (*["DownBlock2D"] * (levels - 1), "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", *["UpBlock2D"] * (levels - 1)),
            "attention_head_dim": 32,
        }
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        norm_num_groups=8,
        **own,
    )


def cosine_with_warmup(share: float) -> float:
    """Return the factor of the learning rate at a share of the time."""
    if share < 0.05:
        return max(share / 0.05, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - 0.05) / 0.95)))


def main() -> None:
    """Train, sample, report."""
    task = against_clock.read_task("diffusers' UNet2DModel for a given time", (*LAYOUTS, "large"))
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    size = against_clock.side(task.data)
    images = against_clock.load_images(task.data, size)
    channels = images.shape[1]
    net = net_of(task.layout, size, channels)
    noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    ddim = DDIMScheduler(num_train_timesteps=1000, beta_schedule="linear")

    def loss_of(images: torch.Tensor) -> torch.Tensor:
        noise = torch.randn_like(images)
        times = torch.randint(1000, (len(images),))
        predicted = net(noising.add_noise(images, noise, times), times, return_dict=False)[0]
        return torch.nn.functional.mse_loss(predicted, noise)

    def draw(count: int) -> torch.Tensor:
        x = torch.randn(count, channels, size, size)
        ddim.set_timesteps(task.steps)
        for time in ddim.timesteps:
            predicted = net(x, time, return_dict=False)[0]
            x = ddim.step(predicted, time, x, return_dict=False)[0]
        return x

    optimizer = torch.optim.AdamW(
        net.parameters(), lr=task.lr, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    trained = against_clock.train(net, images, task, loss_of, optimizer, cosine_with_warmup)
    pixels, seconds = against_clock.sample(task, draw, size)
    against_clock.finish(task, net, trained, pixels, seconds, "diffusers")


if __name__ == "__main__":
    main()
