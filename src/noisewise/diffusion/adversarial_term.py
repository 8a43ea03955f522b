"""Real pictures by an adversary inside the fake score: its encoder tells real from generated.

    fake score:  its own loss + mean w (softplus(-l(x*)) + softplus(l(x))) / (2 pixels)
    generator:   L_lambda + a mean w softplus(-l(x))

x* and x are real and generated pictures with the same noise. The logits l are the channel mean of
what the innermost layer of the fake score gives, one for each place: there are no new parameters,
and a checkpoint holds nothing new. Each loss is averaged over the batch before it takes the mean
weight of its denoising loss, as in the authors' code.

Paper: Zhou et al. 2024, "Adversarial score identity distillation" (SiDA, arXiv 2410.14919).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.diffusion.losses import Weight, mean_pixels
from noisewise.diffusion.noise import add_noise

_NAMES = ("middle", "mid_block")  # of the innermost layer, in our nets and in those of diffusers
_LISTS = ("blocks", "transformer_blocks")  # of alike layers; the one in the middle is taken
_MOST_LOGIT = 10.0


def innermost(net: nn.Module) -> nn.Module:
    """The layer between encoder and decoder of a net.

    Args:
        net: of noisewise, or with one part called mid_block or transformer_blocks, as in diffusers.

    Raises:
        ValueError: if there is none.

    Example:
        >>> from noisewise.nets.unet import UNet
        >>> net = UNet(channels=1, size=8, widths=(8, 8), blocks=(1, 1))
        >>> innermost(net) is net.middle
        True
    """
    for part in net.modules():
        for name in _NAMES:
            if isinstance(found := getattr(part, name, None), nn.Module):
                return found
    for part in net.modules():
        for name in _LISTS:
            found = getattr(part, name, None)
            if isinstance(found, nn.ModuleList) and len(found):
                return found[(len(found) - 1) // 2]
    raise ValueError(
        f"{type(net).__name__} has no layer between an encoder and a decoder, which --data-term "
        "sida reads; use --data-term realuid"
    )


class Hearing(nn.Module):
    """A denoiser that keeps the logits of each call: what an adversary in it says of the pictures.

    Args:
        denoiser: D; its weights are a part of this module.
        layer: whose output gives the logits; inside D, see `innermost`.

    Example:
        >>> layer = nn.Conv2d(1, 4, 1)
        >>> heard = Hearing(layer, layer)
        >>> heard(torch.zeros(2, 1, 3, 3)).shape, heard.logits.shape
        (torch.Size([2, 4, 3, 3]), torch.Size([2, 9]))
    """

    def __init__(self, denoiser: nn.Module, layer: nn.Module) -> None:
        """Take the denoiser."""
        super().__init__()
        self.denoiser = denoiser
        self._layer = (layer,)  # in a tuple: it is a part of the denoiser already
        self._heard: list[Tensor] = []

    @property
    def logits(self) -> Tensor:
        """Of the last call, float32 [n, places]; above 0: real. Guidance's own calls do not count.

        Raises:
            ValueError: if the layer was not called, or gave no map and no tokens.
        """
        if not self._heard:
            raise ValueError("the innermost layer gave no features; use --data-term realuid")
        found = self._heard[0].float()
        return found.mean(1).flatten(1) if found.ndim == 4 else found.mean(-1)

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """Call the denoiser."""
        self._heard.clear()

        def keep(module: nn.Module, given: object, output: object) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, Tensor) and output.ndim in (3, 4):
                self._heard.append(output)

        handle = self._layer[0].register_forward_hook(keep)
        try:
            return self.denoiser(*inputs)
        finally:
            handle.remove()


def telling_loss(real: Tensor, generated: Tensor) -> Tensor:
    """The adversary's loss: half of the cross-entropy of real and of generated pictures.

    Args:
        real: logits of real pictures, [n, places].
        generated: of generated pictures, [m, places].

    Source: Zhou et al. 2024 (SiDA), the loss of the discriminator.

    Example:
        >>> round(float(telling_loss(torch.zeros(2, 1), torch.zeros(2, 1))), 4)  # ln 2: a guess
        0.6931
    """
    return (F.softplus(-real).mean() + F.softplus(generated).mean()) / 2


def fooling_loss(generated: Tensor) -> Tensor:
    """The generator's loss: the cross-entropy of its pictures as real ones.

    Logits beyond 10 have no gradient.

    Args:
        generated: logits of generated pictures, [n, places], with their graph.

    Source: Zhou et al. 2024 (SiDA), the loss of the generator.

    Example:
        >>> logits = torch.tensor([[0.0], [-20.0]], requires_grad=True)
        >>> fooling_loss(logits).backward()
        >>> logits.grad.flatten()
        tensor([-0.2500,  0.0000])
    """
    return F.softplus(-generated.clamp(-_MOST_LOGIT, _MOST_LOGIT)).mean()


def fake_loss_with_adversary(
    fake: Hearing,
    generated: Tensor,
    real: Tensor,
    sigma: Tensor,
    noise: Tensor,
    weight: Weight,
    condition: Tensor | None = None,
    mean_weight: Tensor | None = None,
) -> Tensor:
    """Loss of the fake score, and of the adversary inside it, in one call of it; a scalar.

    Args:
        fake: f_psi, whose innermost layer is heard.
        generated: x_g, float [n, ...]; detached here.
        real: x0*, float [n, ...]; they get the noise of the generated ones.
        sigma: noise level of each pair, [n].
        noise: standard normal, with the shape of x_g.
        weight: that of the teacher's training.
        condition: class of each generated and then of each real picture, [2 n, ...], or None.
        mean_weight: mean weight of the whole batch; None: this is the whole batch.

    Source: Zhou et al. 2024 (SiDA), section 3; there as sums over pixels.

    Example:
        >>> net = nn.Conv2d(1, 1, 1)
        >>> _ = nn.init.zeros_(net.weight), nn.init.zeros_(net.bias)
        >>> zero, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
        >>> hearing = Hearing(net, net)
        >>> hearing.forward = lambda x, sigma, c: Hearing.forward(hearing, x)
        >>> found = fake_loss_with_adversary(hearing, one, zero, torch.ones(1), zero, lambda s: s)
        >>> round(found.item(), 4)  # 1 for the picture, ln 2 for the guess
        1.6931
    """
    n, x0 = len(generated), torch.cat([generated.detach(), real])
    x = add_noise(x0, torch.cat([sigma, sigma]), torch.cat([noise, noise]))
    found = fake(x, torch.cat([sigma, sigma]), condition)
    weights, logits = weight(sigma), fake.logits
    own = (weights * mean_pixels((found[:n] - x0[:n]).square())).mean()
    factor = weights.mean() if mean_weight is None else mean_weight
    return own + factor / x0[0].numel() * telling_loss(logits[n:], logits[:n])
