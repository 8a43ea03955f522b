"""A Gaussian mixture of which everything is known exactly: the truth that tests are held against.

For p(x0) = sum_k w_k N(m_k, C_k), x = x0 + sigma noise has the density sum_k w_k N(m_k, C_k +
sigma^2 I), and E[x0 | x] follows component by component. All of it is differentiable, in the means
and covariances too, so that an oracle can stand for a fake score that moves with its generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class GaussianMixture:
    """The mixture, its noised density, and its exact denoiser.

    Args:
        means: [k, *shape], float64 as a rule.
        covariances: [k] (isotropic variances), [k, d] (diagonals) or [k, d, d], d = numel of shape.
        weights: [k], summing to 1; equal if None.
    """

    def __init__(self, means: Tensor, covariances: Tensor, weights: Tensor | None = None) -> None:
        """Flatten everything to vectors of length d."""
        self.shape = means.shape[1:]
        self.means = means.flatten(1)
        k, d = self.means.shape
        if covariances.ndim == 1:
            covariances = covariances[:, None].expand(k, d)
        self.covariances = covariances.diag_embed() if covariances.ndim == 2 else covariances
        self.weights = means.new_full((k,), 1 / k) if weights is None else weights

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise: E[x0 | x], or E[x0 | x, component] where the condition names one."""
        solved, log_joint = self._solve(x, sigma)
        expected = x.flatten(1)[:, None] - sigma[:, None, None] ** 2 * solved  # m + C S^-1 (x - m)
        if condition is not None:
            return expected[torch.arange(len(x)), condition].reshape(x.shape)
        return torch.einsum("nk,nkd->nd", log_joint.softmax(1), expected).reshape(x.shape)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Log p_sigma(x), [n]."""
        return self._solve(x, sigma)[1].logsumexp(1)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Gradient of log p_sigma at x, the shape of x: (D(x, sigma) - x) / sigma^2 (Tweedie)."""
        return (self(x, sigma) - x) / sigma.reshape(-1, *(1,) * (x.ndim - 1)) ** 2

    def sample(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw clean samples, [num_images, *shape]."""
        k = torch.multinomial(self.weights, num_images, replacement=True, generator=generator)
        z = torch.randn(
            num_images, self.means.shape[1], generator=generator, dtype=self.means.dtype
        )
        root = torch.linalg.cholesky(self.covariances)
        return (self.means[k] + torch.einsum("nij,nj->ni", root[k], z)).reshape(-1, *self.shape)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean [d] and covariance [d, d] of the clean data."""
        mean = self.weights @ self.means
        apart = self.means - mean
        between = torch.einsum("k,ki,kj->ij", self.weights, apart, apart)
        return mean, torch.einsum("k,kij->ij", self.weights, self.covariances) + between

    def flow(self, x: Tensor, sigma: float, lower: float) -> Tensor:
        """Solve the probability-flow ODE exactly from sigma to lower (one component only).

        Along each eigenvector of C, x - m scales as sqrt(c + sigma^2).
        """
        assert len(self.means) == 1, "only a single Gaussian's flow has a closed form"
        c, u = torch.linalg.eigh(self.covariances[0])
        scale = ((c + lower**2) / (c + sigma**2)).sqrt()
        moved = (x.flatten(1) - self.means) @ (u * scale) @ u.T + self.means
        return moved.reshape(x.shape)

    def _solve(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return S^-1 (x - m), [n, k, d], and ln(w_k N_k(x)), [n, k], with S = C + sigma^2 I."""
        centred = x.flatten(1)[:, None] - self.means
        d = centred.shape[-1]
        levels, index = sigma.unique(return_inverse=True)  # one factorisation for each sigma
        noise = levels[:, None, None, None] ** 2 * torch.eye(d, dtype=x.dtype)
        root = torch.linalg.cholesky(self.covariances + noise)
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        inverse = torch.cholesky_inverse(root)
        if len(levels) == 1:
            solved, log_det = torch.einsum("kij,nkj->nki", inverse[0], centred), log_det[0]
        else:
            solved, log_det = torch.einsum("nkij,nkj->nki", inverse[index], centred), log_det[index]
        quadratic = (centred * solved).sum(-1)
        log_normal = -0.5 * (quadratic + log_det + d * math.log(2 * math.pi))
        return solved, self.weights.log() + log_normal


class AffineGenerator(torch.nn.Module):
    """x_g = A z + b, of which the fake score at its optimum is known exactly at every moment."""

    def __init__(self, matrix: Tensor, shift: Tensor) -> None:
        """Start from A = matrix [d, d] and b = shift [d]."""
        super().__init__()
        self.matrix = torch.nn.Parameter(matrix.clone())
        self.shift = torch.nn.Parameter(shift.clone())

    def forward(self, z: Tensor) -> Tensor:
        """Generate from z, [n, d]."""
        return z @ self.matrix.T + self.shift

    def gradients(self, loss: Tensor) -> Tensor:
        """Gradient of a loss by A (row by row), then b, as one vector."""
        by_matrix, by_shift = torch.autograd.grad(loss, [self.matrix, self.shift])
        return torch.cat([by_matrix.flatten(), by_shift])

    def law(self, moving: bool = False) -> GaussianMixture:
        """Return the generator's own distribution; it moves with the parameters only if asked."""
        matrix, shift = self.matrix, self.shift
        if not moving:
            matrix, shift = matrix.detach(), shift.detach()
        return GaussianMixture(shift[None], (matrix @ matrix.T)[None])


def cubature(dimension: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Points +-sqrt(d) e_i, [2d, d]: their plain mean is exact for any quadratic of N(0, I)."""
    axes = math.sqrt(dimension) * torch.eye(dimension, dtype=dtype)
    return torch.cat([axes, -axes])


def same_level(sigma: float, n: int) -> Tensor:
    """Give n images the same noise level, float64."""
    return torch.full((n,), sigma, dtype=torch.float64)


def affine_generator(scale: float = 0.6) -> AffineGenerator:
    """Start somewhere beside the data, in the plane, float64."""
    matrix = scale * torch.tensor([[0.9, -0.3], [0.5, 0.7]], dtype=torch.float64)
    return AffineGenerator(matrix, torch.tensor([0.3, -0.4], dtype=torch.float64))


def gaussian(seed: int = 0, dimension: int = 2, spread: float = 0.5) -> GaussianMixture:
    """One Gaussian with a full covariance, float64, not aligned with the axes."""
    generator = torch.Generator().manual_seed(seed)
    kind = {"generator": generator, "dtype": torch.float64}
    root = spread * torch.randn(dimension, dimension, **kind)
    covariance = root @ root.T + 0.02 * torch.eye(dimension, dtype=torch.float64)
    return GaussianMixture(0.5 * torch.randn(1, dimension, **kind), covariance[None])


def mixture() -> GaussianMixture:
    """Three unequal, overlapping components in the plane, float64."""
    means = torch.tensor([[-0.8, -0.3], [0.6, 0.7], [0.5, -0.6]], dtype=torch.float64)
    covariances = torch.tensor(
        [[[0.05, 0.02], [0.02, 0.04]], [[0.08, -0.03], [-0.03, 0.05]], [[0.02, 0.0], [0.0, 0.1]]],
        dtype=torch.float64,
    )
    return GaussianMixture(means, covariances, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
