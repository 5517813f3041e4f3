"""Batches of images held in memory, in an order that depends on the seed and the step alone."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = ["ArrayLoader"]


class ArrayLoader:
    """Batches of a uint8 array, shuffled afresh each epoch.

    The order is a function of (seed, step), so that a resumed run sees the same images as an uninterrupted one. Where
    several processes train together, each takes its share of every batch.

    Args:
        images: uint8, shape (N, channels, H, W).
        batch_size: images of a step, over all processes; at most N are taken.
        seed: seed of the order; None: unshuffled, and the last batch may be smaller.
        step: returns the number of training steps done; called when an epoch begins.
        rank: index of this process.
        world_size: number of processes.

    Shape:
        batches: (batch_size / world_size, channels, H, W), float32 in [0, 1].
    """

    def __init__(
        self,
        images: Tensor,
        batch_size: int,
        *,
        seed: int | None = None,
        step: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size > len(images):
            batch_size = len(images)
        self.images, self.batch_size, self.seed, self.step = images, batch_size, seed, step
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (self.seed is None and rest > 0)

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the remaining batches of the epoch."""
        if self.seed is None:
            order, first = torch.arange(len(self.images)), 0
        else:
            epoch, first = divmod(self.step(), len(self))
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.images), generator=generator)
        for batch in range(first, len(self)):
            index = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self.images[index[self.rank :: self.world_size]].float() / 255
