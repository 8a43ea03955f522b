"""The batches of teacher training: pictures, changed or not, labels, noise levels and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from noisewise.diffusion import stratified
from noisewise.pictures.pictures import Pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.stages.augmentation import Augmentation
from noisewise.training.stages.growth import Scale
from noisewise.training.stages.plan import TeacherPlan


@dataclass(frozen=True)
class Batch:
    """Pictures with the noise to add to them.

    Attributes:
        x0: clean pictures [n, c, h, w] in [-1, 1].
        sigma: noise level of each picture [n].
        noise: noise of variance 1, in the shape of x0.
        labels: int64 [n], or None.
        told: how each picture was changed, float [n, length of `Augmentation`]; None: no changes.
    """

    x0: Tensor
    sigma: Tensor
    noise: Tensor
    labels: Tensor | None
    told: Tensor | None = None

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.x0)

    def rows(self, rows: slice) -> Batch:
        """A batch of some of these pictures."""
        labels = None if self.labels is None else self.labels[rows]
        told = None if self.told is None else self.told[rows]
        return Batch(self.x0[rows], self.sigma[rows], self.noise[rows], labels, told)


class BatchOrder:
    """The order of the pictures: a new random order in every pass over them.

    It depends only on the seed and the number of images seen, so a resume needs no saved state.

    Example:
        >>> order = BatchOrder(np.arange(3), seed=0)
        >>> sorted(order.batch(seen=0, count=3).tolist()), len(order.batch(seen=2, count=8))
        ([0, 1, 2], 8)
    """

    def __init__(self, indices: np.ndarray, seed: int) -> None:
        """Store the indices of the pictures."""
        self._indices = indices
        self._seed = seed
        self._round = -1
        self._order = indices

    def batch(self, seen: int, count: int) -> np.ndarray:
        """Indices of the next `count` pictures after `seen` pictures, int64."""
        parts = []
        while count > 0:
            turn, start = divmod(seen, len(self._indices))
            part = self._shuffled(turn)[start : start + count]
            parts.append(part)
            seen, count = seen + len(part), count - len(part)
        return np.concatenate(parts)

    def _shuffled(self, turn: int) -> np.ndarray:
        if turn != self._round:
            self._order = np.random.default_rng((self._seed, turn)).permutation(self._indices)
            self._round = turn
        return self._order


class Batches:
    """The batches of a training.

    Every process draws the random numbers of the whole batch and keeps its own part of it.

    Args:
        pictures: all pictures.
        training: indices of the training pictures.
        plan: batch size, noise levels, flips, changes.
        seed: random seed.
        engine: device and processes.
    """

    def __init__(
        self,
        pictures: Pictures,
        training: np.ndarray,
        plan: TeacherPlan,
        seed: int,
        engine: Engine,
    ) -> None:
        """Start at the first picture."""
        self._pictures, self._plan, self._engine = pictures, plan, engine
        self._order = BatchOrder(training, seed)
        self._draws = engine.generator(seed)
        self._part = engine.ranks.part(plan.batch)
        self._changes = Augmentation.from_dict(plan.augment) if plan.augment else None

    def next(self, seen: int, num_parts: int = 1, scale: Scale | None = None) -> Batch:
        """Return the batch after `seen` pictures.

        Args:
            seen: number of pictures before this batch.
            num_parts: the batch has this many parts; noise levels are stratified within each part.
            scale: the low-pass band that is trained; None: the whole pictures.
        """
        n, engine, part = self._plan.batch, self._engine, self._part
        chosen = self._order.batch(seen, n)[part]
        x0 = engine.tensor(self._flipped(self._pictures.tensor(chosen).to(engine.device)))
        x0, told = self._changed(x0)
        draw = self._plan.noise
        if scale is not None:
            x0 = engine.tensor(scale.reduced(x0))
            draw = scale.noise
        sizes = [len(rows) for rows in np.array_split(np.arange(n), num_parts)]
        levels = [stratified(draw, k, self._draws, engine.device) for k in sizes]
        noise = torch.randn((n, *x0.shape[1:]), generator=self._draws, device=engine.device)
        sigma, noise = torch.cat(levels)[part], engine.tensor(noise)[part]
        return Batch(x0, sigma, noise, self.labels(chosen), told)

    def labels(self, chosen: np.ndarray) -> Tensor | None:
        """Labels of pictures, on the device; None if the net has no classes."""
        if not self._plan.classes:
            return None
        assert self._pictures.labels is not None
        labels = torch.from_numpy(self._pictures.labels[chosen].astype(np.int64))
        return labels.to(self._engine.device)

    def get_state(self) -> Tensor:
        """State of the random generator."""
        return self._draws.get_state()

    def set_state(self, state: Tensor) -> None:
        """Restore the result of `get_state`."""
        self._draws.set_state(state)

    def _flipped(self, x0: Tensor) -> Tensor:
        if not self._plan.flips:
            return x0
        shape = (self._plan.batch, 1, 1, 1)
        drawn = torch.rand(shape, generator=self._draws, device=x0.device)[self._part]
        return torch.where(drawn < 0.5, x0.flip(3), x0)

    def _changed(self, x0: Tensor) -> tuple[Tensor, Tensor | None]:
        """Changed pictures, and what was done to each."""
        if self._changes is None:
            return x0, None
        size, engine = (int(x0.shape[2]), int(x0.shape[3])), self._engine
        told = self._changes.draw(self._plan.batch, size, self._draws, engine.device)[self._part]
        return engine.tensor(self._changes.apply(x0, told)), told
