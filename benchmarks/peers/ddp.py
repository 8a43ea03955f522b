"""Train denoising-diffusion-pytorch (lucidrains) for a given wall-clock time.

As in the project: objective pred_v, sigmoid schedule, 1,000 training times, Adam (0.9, 0.99),
constant learning rate, clipping at 1 (its Trainer). Its Trainer reads picture files with worker
processes and computes an Inception distance; this loop reads pictures from memory instead, which
makes the peer faster. Flips are off: all shoes of Fashion-MNIST point the same way.
"""

from __future__ import annotations

import against_clock
import torch
import without_torchvision

without_torchvision.install()

from denoising_diffusion_pytorch import GaussianDiffusion, Unet  # noqa: E402

# readme: the four levels of the README, with half its width of 64 for two cores; pictures padded to
# 32 px (the net needs a multiple of 8). small: three levels on the unpadded 28 px. Larger pictures
# are taken as they are.
LAYOUTS = {"readme": ((1, 2, 4, 8), 32), "small": ((1, 2, 4), 28)}


def main() -> None:
    """Train, sample, report."""
    task = against_clock.read_task("denoising-diffusion-pytorch for a given time", tuple(LAYOUTS))
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    multiples, smallest = LAYOUTS[task.layout]
    side = against_clock.side(task.data)
    size = max(side, smallest)
    images = against_clock.load_images(task.data, size)
    channels = images.shape[1]
    net = Unet(dim=32, dim_mults=multiples, channels=channels, flash_attn=True)
    diffusion = GaussianDiffusion(net, image_size=size, sampling_timesteps=task.steps)

    def loss_of(images: torch.Tensor) -> torch.Tensor:
        return diffusion((images + 1) / 2)  # it takes [0, 1] and normalises itself

    def draw(count: int) -> torch.Tensor:
        return diffusion.sample(batch_size=count) * 2 - 1

    optimizer = torch.optim.Adam(net.parameters(), lr=task.lr, betas=(0.9, 0.99))
    trained = against_clock.train(net, images, task, loss_of, optimizer, lambda share: 1.0)
    pixels, seconds = against_clock.sample(task, draw, side)
    against_clock.finish(task, net, trained, pixels, seconds, "denoising-diffusion-pytorch")


if __name__ == "__main__":
    main()
