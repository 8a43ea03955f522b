"""The part of a denoiser that learns: what is trained, averaged, saved and loaded.

A denoiser of ours is `Preconditioned(net)`: the net learns, and the description beside it
(sigma_data, prediction) says how to wrap it. Any other denoiser, for example a wrapper around
somebody else's model, is taken whole.
"""

from __future__ import annotations

from torch import nn

from noisewise.diffusion import Preconditioned


def network(denoiser: nn.Module) -> nn.Module:
    """Return the net inside a preconditioned denoiser; any other denoiser itself.

    Example:
        >>> net = nn.Identity()
        >>> network(Preconditioned(net, 0.5)) is net, network(net) is net
        (True, True)
    """
    return denoiser.net if isinstance(denoiser, Preconditioned) else denoiser


def with_network(denoiser: nn.Module, net: nn.Module) -> nn.Module:
    """Return a denoiser like this one around another net.

    Example:
        >>> denoiser = with_network(Preconditioned(nn.Identity(), 0.5), nn.Flatten())
        >>> type(network(denoiser)).__name__, denoiser.sigma_data
        ('Flatten', 0.5)
    """
    if isinstance(denoiser, Preconditioned):
        return Preconditioned(net, denoiser.sigma_data, denoiser.prediction)
    return net
