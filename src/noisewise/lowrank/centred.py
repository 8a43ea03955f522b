"""A sparse matrix minus the mean of each column, without making it dense."""

from __future__ import annotations

import torch
from torch import Tensor

from noisewise.lowrank.operators import Matrix, Sparse


class Centred(Matrix):
    """``A - 1 mean^T`` for a sparse A [m, n] and a mean [n] of the same dtype."""

    def __init__(self, of: Sparse, mean: Tensor) -> None:
        """Never raises."""
        super().__init__(of.shape, of.dtype, of.device, of.notes)
        self.of, self.mean = of, mean

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        return self.of.matmat(x) - self.mean[None, :] @ x

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        return self.of.rmatmat(y) - self.mean.conj()[:, None] * y.sum(-2, keepdim=True)

    def frobenius(self) -> Tensor:
        """|A|_F: stored values minus their mean, and the mean wherever nothing is stored."""
        _, column, values = self.of.coordinates
        wide = torch.complex128 if values.is_complex() else torch.float64
        mean = self.mean.to(wide)
        stored = (values.to(wide) - mean[column]).abs().square().sum()
        missing = self.m - torch.bincount(column, minlength=self.n)
        return (stored + (missing * mean.abs().square()).sum()).sqrt()
