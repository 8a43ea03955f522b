"""Denoisers from nets of other libraries: EDM's own, and those of diffusers with their schedulers.

Papers: Karras et al. 2022 (EDM), table 1; Ho et al. 2020 (DDPM); Salimans and Ho 2022 for v;
Lipman et al. 2023 for the flow velocity.

Each wrapper converts ``x = x0 + sigma * noise`` to the noised picture that the net was trained on,
and its prediction to the picture. No other library is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from noisewise.diffusion.denoiser import x0_from_eps, x0_from_flow, x0_from_v
from noisewise.diffusion.noise import per_image

NetPrediction = Literal["epsilon", "sample", "v_prediction"]


class FromEDM(nn.Module):
    """A denoiser that wraps an EDM-style callable; see `from_edm`."""

    def __init__(self, fn: Callable[..., Tensor], num_classes: int = 0) -> None:
        """Wrap fn."""
        super().__init__()
        self.fn = fn
        self.num_classes = num_classes
        self.takes_shares = num_classes > 0

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise x, float [n, ...], at sigma [n]; the result has shape and dtype of x."""
        if condition is None:
            return self.fn(x, sigma).to(x.dtype)
        if self.num_classes == 0:
            raise ValueError("this denoiser has no classes: set num_classes, or give no labels")
        if not condition.is_floating_point():
            condition = nn.functional.one_hot(condition, self.num_classes)
        return self.fn(x, sigma, condition.to(x.dtype)).to(x.dtype)


def from_edm(fn: Callable[..., Tensor], num_classes: int = 0) -> FromEDM:
    """Wrap an EDM-style ``fn(x, sigma, class_labels) -> x0`` (one-hot labels) as a denoiser.

    Args:
        fn: the callable; if it is a module, its parameters become parameters of the wrapper.
        num_classes: length of the one-hot labels; 0: no labels.

    Returns:
        A module ``denoiser(x, sigma, condition)`` with int64 labels [n], or shares of the classes,
        float [n, num_classes].

    Example:
        >>> from_edm(lambda x, sigma: x / 2)(torch.ones(1, 1), torch.ones(1))
        tensor([[0.5000]])
    """
    return FromEDM(fn, num_classes)


class FromDiffusers(nn.Module):
    """A denoiser that wraps a diffusers-style net with discrete time steps; see `from_diffusers`.

    Attributes:
        sigma_min: lowest noise level that the net was trained on.
        sigma_max: highest noise level that the net was trained on.
    """

    log_sigmas: Tensor

    def __init__(
        self,
        unet: Callable[..., Any],
        alphas_cumprod: Tensor,
        prediction_type: NetPrediction,
        clip: float | None = None,
    ) -> None:
        """Wrap unet."""
        super().__init__()
        _check_prediction(prediction_type, get_args(NetPrediction))
        table = alphas_cumprod.detach().double()
        if table.ndim != 1 or not bool(
            ((table > 0) & (table < 1)).all() & (table.diff() < 0).all()
        ):
            raise ValueError(
                "alphas_cumprod must be a list of falling numbers, all above 0 and below 1: for a "
                "schedule with zero terminal SNR, remove the last step"
            )
        log_sigmas = 0.5 * ((1 - table) / table).log()
        self.unet = unet
        self.prediction_type = prediction_type
        self.clip = clip
        self.sigma_min, self.sigma_max = log_sigmas[[0, -1]].exp().tolist()
        self.register_buffer("log_sigmas", log_sigmas.float(), persistent=False)

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise x, float [n, ...], at sigma [n] in the range of the net; like x in shape, dtype.

        Raises:
            ValueError: if a sigma is outside the range that the net was trained on.
        """
        x_t = x * per_image(torch.rsqrt(1 + sigma.square()), x)
        t = self.timestep(sigma)
        out = _called(self.unet, x_t, t, condition).to(x.dtype)
        if self.prediction_type != "sample":
            convert = x0_from_eps if self.prediction_type == "epsilon" else x0_from_v
            out = convert(x, sigma, out)
        return _clipped(out, self.clip)

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the (fractional) time step of sigma [n], interpolated in ln sigma.

        Raises:
            ValueError: if a sigma is outside the range that the net was trained on.
        """
        if not torch.compiler.is_compiling():  # a graph cannot hold a check of values
            self._check(sigma)
        levels = self.log_sigmas
        log_sigma = sigma.to(levels.dtype).log().clamp(levels[0], levels[-1])
        index = torch.searchsorted(levels, log_sigma).clamp(1, len(levels) - 1)
        below, above = levels[index - 1], levels[index]
        return index - 1 + (log_sigma - below) / (above - below)

    def _check(self, sigma: Tensor) -> None:
        low, high = sigma.aminmax()
        if low < self.sigma_min * (1 - 1e-3) or high > self.sigma_max * (1 + 1e-3):
            raise ValueError(
                f"sigma goes from {low:.4g} to {high:.4g}, outside the range of this net: choose "
                f"noise levels from {self.sigma_min:.4g} to {self.sigma_max:.4g}"
            )


def from_diffusers(
    unet: Callable[..., Any],
    alphas_cumprod: Tensor,
    prediction_type: NetPrediction = "epsilon",
    clip: float | None = None,
) -> FromDiffusers:
    """Wrap a diffusers-style ``unet(x_t, timestep, class_labels=...).sample`` as a denoiser.

    The net gets its own variance-preserving x_t; a sigma between two of its steps becomes a
    fractional time step. diffusers itself is not imported.

    Args:
        unet: the net; if it is a module, its parameters become parameters of the wrapper.
        alphas_cumprod: the table of the scheduler, alpha_t^2 for t = 0, 1, ..., falling,
            [num_steps].
        prediction_type: the setting of the scheduler: what the net predicts.
        clip: largest |pixel| of the denoised pictures, the scheduler's clip_sample_range if its
            clip_sample is set; None: no limit.

    Returns:
        A module ``denoiser(x, sigma, condition)``.

    Raises:
        ValueError: if the table does not fall inside (0, 1), or the prediction type is unknown.

    Example:
        >>> from types import SimpleNamespace
        >>> net = lambda x_t, timestep: SimpleNamespace(sample=torch.zeros_like(x_t))
        >>> denoiser = from_diffusers(net, torch.tensor([0.9, 0.5, 0.1]), "epsilon")
        >>> denoiser(torch.ones(1, 1), torch.ones(1))
        tensor([[1.]])
    """
    return FromDiffusers(unet, alphas_cumprod, prediction_type, clip)


class FromFlowMatching(nn.Module):
    """A denoiser that wraps a diffusers-style flow net; see `from_flow_matching`."""

    def __init__(self, net: Callable[..., Any], num_train_timesteps: float = 1000) -> None:
        """Wrap net."""
        super().__init__()
        if not 0 < num_train_timesteps < float("inf"):
            raise ValueError(f"num_train_timesteps is {num_train_timesteps}: give a number above 0")
        self.net = net
        self.num_train_timesteps = float(num_train_timesteps)

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise x, float [n, ...], at sigma [n]; the result has shape and dtype of x."""
        s = sigma / (1 + sigma)
        x_s = x * per_image(1 - s, x)
        velocity = _called(self.net, x_s, s * self.num_train_timesteps, condition)
        return x0_from_flow(x, sigma, velocity.to(x.dtype))


def from_flow_matching(
    net: Callable[..., Any], num_train_timesteps: float = 1000
) -> FromFlowMatching:
    """Wrap a diffusers-style flow net ``net(x_s, timestep, class_labels=...).sample``.

    It gives the velocity ``u = eps - x0`` on the path ``x_s = (1 - s) x0 + s eps``; its time step
    is s times num_train_timesteps, and ``sigma = s / (1 - s)``.

    Args:
        net: the net; if it is a module, its parameters become parameters of the wrapper.
        num_train_timesteps: the setting of the scheduler.

    Returns:
        A module ``denoiser(x, sigma, condition)``.

    Raises:
        ValueError: if num_train_timesteps is not above 0.

    Source: Lipman et al. 2023; diffusers' FlowMatchEulerDiscreteScheduler.

    Example:
        >>> from types import SimpleNamespace
        >>> net = lambda x_s, timestep: SimpleNamespace(sample=x_s)
        >>> from_flow_matching(net)(torch.full((1, 1), 4.0), torch.ones(1))  # (4 - 1 * 2) / 2
        tensor([[1.]])
    """
    return FromFlowMatching(net, num_train_timesteps)


class FromEDMScheduler(nn.Module):
    """A denoiser that wraps a diffusers-style net with EDM's scaling; see `from_edm_scheduler`."""

    def __init__(
        self,
        net: Callable[..., Any],
        sigma_data: float = 0.5,
        prediction_type: NetPrediction = "epsilon",
    ) -> None:
        """Wrap net."""
        super().__init__()
        if not 0 < sigma_data < float("inf"):
            raise ValueError(f"sigma_data is {sigma_data}: give a positive number")
        _check_prediction(prediction_type, ("epsilon", "v_prediction"))
        self.net = net
        self.sigma_data = float(sigma_data)
        self.prediction_type = prediction_type

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise x, float [n, ...], at sigma [n]; the result has shape and dtype of x."""
        total = sigma.square() + self.sigma_data**2
        c_skip, c_in = self.sigma_data**2 / total, total.rsqrt()
        c_out = sigma * self.sigma_data * c_in
        if self.prediction_type == "v_prediction":
            c_out = -c_out
        out = _called(self.net, x * per_image(c_in, x), 0.25 * sigma.log(), condition).to(x.dtype)
        return per_image(c_skip, x) * x + per_image(c_out, x) * out


def from_edm_scheduler(
    net: Callable[..., Any],
    sigma_data: float = 0.5,
    prediction_type: NetPrediction = "epsilon",
) -> FromEDMScheduler:
    """Wrap a diffusers-style net that was trained for one of diffusers' EDM schedulers.

    ``D(x, sigma) = c_skip x + c_out net(c_in x, ln(sigma) / 4).sample``; c_out has the other sign
    for "v_prediction".

    Args:
        net: the net; if it is a module, its parameters become parameters of the wrapper.
        sigma_data: the setting of the scheduler.
        prediction_type: the setting of the scheduler, "epsilon" or "v_prediction".

    Returns:
        A module ``denoiser(x, sigma, condition)``.

    Raises:
        ValueError: if sigma_data is not above 0, or the prediction type is unknown.

    Source: Karras et al. 2022, table 1; diffusers' EDMEulerScheduler.

    Example:
        >>> from types import SimpleNamespace
        >>> net = lambda x, timestep: SimpleNamespace(sample=torch.zeros_like(x))
        >>> from_edm_scheduler(net)(torch.ones(1, 1), torch.full((1,), 0.5))  # c_skip
        tensor([[0.5000]])
    """
    return FromEDMScheduler(net, sigma_data, prediction_type)


def _check_prediction(given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValueError(f"prediction_type {given!r} is unknown: use one of {', '.join(known)}")


def _called(
    net: Callable[..., Any], x: Tensor, timestep: Tensor, condition: Tensor | None
) -> Tensor:
    """Call a net of diffusers, whose nets without classes know no class_labels."""
    if condition is None:
        return net(x, timestep).sample
    return net(x, timestep, class_labels=condition).sample


def _clipped(x0: Tensor, clip: float | None) -> Tensor:
    return x0 if clip is None else x0.clamp(-clip, clip)
