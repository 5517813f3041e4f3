"""Batches of images that are held in memory, in an order that depends on the seed and the step alone."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = ["ArrayLoader"]


class ArrayLoader:
    """Batches of a uint8 array, shuffled afresh each epoch.

    The order is a function of (seed, step), so a run that is resumed at any step sees the same images as one that was
    never stopped. With several processes, each takes its share of every batch.

    Args:
        images: uint8, shape (N, channels, H, W).
        batch_size: images of a step, over all processes.
        seed: of the order; None: in order, the last batch may be smaller.
        step: says how many training steps are done (asked when an epoch begins).
        rank, world_size: of this process.

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
        """Batches of an epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (self.seed is None and rest > 0)

    def __iter__(self) -> Iterator[Tensor]:
        """The batches that are left of the epoch."""
        if self.seed is None:
            order, first = torch.arange(len(self.images)), 0
        else:
            epoch, first = divmod(self.step(), len(self))
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.images), generator=generator)
        for batch in range(first, len(self)):
            index = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self.images[index[self.rank :: self.world_size]].float() / 255
