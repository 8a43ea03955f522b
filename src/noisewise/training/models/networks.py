"""The trainable part of a denoiser: the module that is trained, averaged, saved and loaded.

A denoiser of noisewise is `Preconditioned(net)`: the net is trained, and its description
(sigma_data, prediction) says how to wrap it. Of any other denoiser, for example a wrapper around
another model, the whole module is trained.
"""

from __future__ import annotations

from torch import nn

from noisewise.diffusion import Preconditioned


def network(denoiser: nn.Module) -> nn.Module:
    """Return the net inside a `Preconditioned` denoiser, or any other denoiser itself.

    Example:
        >>> net = nn.Identity()
        >>> network(Preconditioned(net, 0.5)) is net, network(net) is net
        (True, True)
    """
    return denoiser.net if isinstance(denoiser, Preconditioned) else denoiser


def with_network(denoiser: nn.Module, net: nn.Module) -> nn.Module:
    """Return a denoiser like this one, with another net.

    Example:
        >>> denoiser = with_network(Preconditioned(nn.Identity(), 0.5), nn.Flatten())
        >>> type(network(denoiser)).__name__, denoiser.sigma_data
        ('Flatten', 0.5)
    """
    if isinstance(denoiser, Preconditioned):
        return Preconditioned(net, denoiser.sigma_data, denoiser.prediction)
    return net
