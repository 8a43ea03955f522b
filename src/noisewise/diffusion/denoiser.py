"""The denoiser ``D(x, sigma) -> x0``, and wrappers that make one from any net.

Papers: Karras et al. 2022 (EDM) for the preconditioning; Salimans and Ho 2022 for v; Lipman et al.
2023 and Liu et al. 2023 for the flow velocity.

Everything in this package uses one call, ``denoiser(x, sigma, condition) -> x0``, where
``x = x0 + sigma * noise``, sigma has one value per picture, and the best result is E[x0 | x].
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from noisewise.diffusion.noise import per_image

Prediction = Literal["edm", "x0", "v", "eps", "bands"]


class Denoiser(Protocol):
    """Anything callable as ``denoiser(x, sigma, condition) -> x0``.

    Args:
        x: noised pictures, float [n, ...].
        sigma: noise level of each, float [n].
        condition: class of each, int64 [n], or None. Some denoisers take shares of all classes
            too, float [n, num_classes].
    """

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None, /) -> Tensor:
        """Return the denoised pictures, with shape and dtype of x."""
        ...


class Preconditioned(nn.Module):
    """A denoiser from a net: ``D(x, sigma) = c_skip x + c_out net(c_in x, ln sigma)``.

    The input of the net always has unit variance, ``c_in = 1 / sqrt(sigma^2 + sigma_data^2)``. The
    other two depend on what the net predicts:

    * "edm": ``c_skip = sd^2 / (sigma^2 + sd^2)``, ``c_out = sigma sd / sqrt(sigma^2 + sd^2)``: a
      target of unit variance at every sigma. With sd = 1 the net's output is -v.
    * "x0": the picture; ``c_skip = 0``, ``c_out = 1``.
    * "v": ``c_skip = 1 / (1 + sigma^2)``, ``c_out = -sigma / sqrt(1 + sigma^2)``.
    * "eps": the noise; ``c_skip = 1``, ``c_out = -sigma``.
    * "bands": the picture, from a net that scales its own input: ``D(x, sigma) = net(x, ln sigma)``
      (`noisewise.nets.pyramid.Pyramid`).

    Args:
        net: ``net(x, noise_level, condition) -> same shape as x``, noise_level = ln sigma, [n].
        sigma_data: standard deviation of the pictures, in [-1, 1] units.
        prediction: what the net predicts.

    Raises:
        ValueError: if sigma_data is not positive or prediction is unknown.

    Source: Karras et al. 2022, equation 7 and table 1 (c_noise there is ln(sigma) / 4).

    Example:
        >>> class Zero(nn.Module):
        ...     def forward(self, x, noise_level, condition=None):
        ...         return torch.zeros_like(x)
        >>> denoiser = Preconditioned(Zero(), sigma_data=0.5)
        >>> denoiser(torch.ones(1, 1, 1, 1), torch.tensor([0.5])).item()  # c_skip
        0.5
    """

    def __init__(self, net: nn.Module, sigma_data: float, prediction: Prediction = "edm") -> None:
        """Wrap net; see the class."""
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data is {sigma_data}: give a positive number")
        if prediction not in get_args(Prediction):
            known = ", ".join(get_args(Prediction))
            raise ValueError(f"prediction {prediction!r} is unknown: use one of {known}")
        self.net = net
        self.sigma_data = float(sigma_data)
        self.prediction: Prediction = prediction

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        condition: Tensor | None = None,
        told: Tensor | None = None,
    ) -> Tensor:
        """Denoise x, float [n, ...], at sigma [n]; the result has shape and dtype of x.

        What training tells a net of noisewise beside its condition, [n, width of its embedding], is
        handed on; None: nothing.
        """
        more = (condition,) if told is None else (condition, told)
        if self.prediction == "bands":
            return self.net(x, sigma.log(), *more).to(x.dtype)
        c_in = torch.rsqrt(sigma.square() + self.sigma_data**2)
        out = self.net(per_image(c_in, x) * x, sigma.log(), *more).to(x.dtype)
        if self.prediction == "x0":
            return out
        c_skip, c_out = self.coefficients(sigma)
        return torch.addcmul(per_image(c_skip, x) * x, per_image(c_out, x), out)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return c_skip and c_out at sigma, both with the shape of sigma."""
        if self.prediction == "edm":
            sd, total = self.sigma_data, sigma.square() + self.sigma_data**2
            return sd**2 / total, sigma * sd * total.rsqrt()
        if self.prediction == "v":
            total = 1 + sigma.square()
            return 1 / total, -sigma * total.rsqrt()
        if self.prediction == "eps":
            return torch.ones_like(sigma), -sigma
        return torch.zeros_like(sigma), torch.ones_like(sigma)  # x0 and bands


# ---------------------------------------------------------------------------------------------
# Conversions between x0, eps, v and flow velocity. Always x = x0 + sigma * eps, not the
# variance-preserving x_t; sigma is [n], the others are [n, ...].


def x0_from_eps(x: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
    """Compute the picture from the noise: ``x0 = x - sigma eps``.

    Example:
        >>> x0_from_eps(torch.tensor([[5.0]]), torch.tensor([2.0]), torch.tensor([[1.0]]))
        tensor([[3.]])
    """
    return x - per_image(sigma, x) * eps


def eps_from_x0(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
    """Compute the noise from the picture: ``eps = (x - x0) / sigma``.

    Example:
        >>> eps_from_x0(torch.tensor([[5.0]]), torch.tensor([2.0]), torch.tensor([[3.0]]))
        tensor([[1.]])
    """
    return (x - x0) / per_image(sigma, x)


def x0_from_v(x: Tensor, sigma: Tensor, v: Tensor) -> Tensor:
    """Compute the picture from v: ``x0 = x / (1 + sigma^2) - sigma / sqrt(1 + sigma^2) v``.

    v = alpha eps - s x0 with alpha = 1 / sqrt(1 + sigma^2), s = sigma alpha.

    Source: Salimans and Ho 2022, section 4 (there in the variance-preserving form).

    Example:
        >>> x0_from_v(torch.tensor([[2.0]]), torch.tensor([1.0]), torch.tensor([[0.0]]))
        tensor([[1.]])
    """
    sigma = per_image(sigma, x)
    total = 1 + sigma.square()
    return x / total - sigma * total.rsqrt() * v


def v_from_x0(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
    """Compute v from the picture: ``v = (x / (1 + sigma^2) - x0) sqrt(1 + sigma^2) / sigma``.

    Example:
        >>> v_from_x0(torch.tensor([[2.0]]), torch.tensor([1.0]), torch.tensor([[1.0]]))
        tensor([[0.]])
    """
    sigma = per_image(sigma, x)
    total = 1 + sigma.square()
    return (x / total - x0) * total.sqrt() / sigma


def x0_from_flow(x: Tensor, sigma: Tensor, velocity: Tensor) -> Tensor:
    """Compute the picture from the flow velocity: ``x0 = (x - sigma u) / (1 + sigma)``.

    u = eps - x0 on the straight path x_s = (1 - s) x0 + s eps, where sigma = s / (1 - s).

    Source: Lipman et al. 2023 (flow matching); Liu et al. 2023 (rectified flow).

    Example:
        >>> x0_from_flow(torch.tensor([[4.0]]), torch.tensor([1.0]), torch.tensor([[2.0]]))
        tensor([[1.]])
    """
    sigma = per_image(sigma, x)
    return (x - sigma * velocity) / (1 + sigma)


def flow_from_x0(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
    """Compute the flow velocity from the picture: ``u = (x - (1 + sigma) x0) / sigma``.

    Example:
        >>> flow_from_x0(torch.tensor([[4.0]]), torch.tensor([1.0]), torch.tensor([[1.0]]))
        tensor([[2.]])
    """
    sigma = per_image(sigma, x)
    return (x - (1 + sigma) * x0) / sigma


def eps_error(x0_error: Tensor, sigma: Tensor) -> Tensor:
    """Convert the squared error of x0 to that of eps, both [n]: ``|x0 - x0_hat|^2 / sigma^2``.

    Example:
        >>> eps_error(torch.tensor([8.0]), torch.tensor([2.0]))
        tensor([2.])
    """
    return x0_error / sigma.square()


def v_error(x0_error: Tensor, sigma: Tensor) -> Tensor:
    """Convert the squared error of x0 to that of v, both [n].

    ``(1 + sigma^2) / sigma^2 |x0 - x0_hat|^2``

    Example:
        >>> v_error(torch.tensor([8.0]), torch.tensor([2.0]))
        tensor([10.])
    """
    return x0_error * (1 + sigma.square()) / sigma.square()


def flow_error(x0_error: Tensor, sigma: Tensor) -> Tensor:
    """Convert the squared error of x0 to that of the flow velocity, both [n].

    ``((1 + sigma) / sigma)^2 |x0 - x0_hat|^2``

    Example:
        >>> flow_error(torch.tensor([4.0]), torch.tensor([1.0]))
        tensor([16.])
    """
    return x0_error * ((1 + sigma) / sigma).square()
