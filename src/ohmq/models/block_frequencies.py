"""Colours and frequencies of the photo codec's block transform."""

import math
from typing import NamedTuple

from ohmq.models.config import BLOCK

__all__ = ["Filter", "block_frequencies"]

CHROMA_COST = 2.2
"""Factor on the radius of chroma frequencies in the order of filters: chroma is smoother than luma."""
CHROMA_OFFSETS = (1.5, 2.2)
"""Added to the radius of the first and the second chroma component in that order."""


class Filter(NamedTuple):
    """Separable filter of the block transform: colour component (0 luma), vertical and horizontal frequency."""

    component: int
    vertical: int
    horizontal: int

    @property
    def radius(self) -> float:
        """Distance of the frequency from the mean, in half periods a block."""
        return math.hypot(self.vertical, self.horizontal)


def block_frequencies(count: int) -> list[Filter]:
    """Return the filters of the 16x16 cosine transform with a colour rotation, from low to high frequency.

    Args:
        count: number of filters, 1 to 768.
    """
    candidates = []
    for c in range(3):
        for u in range(BLOCK):
            for v in range(BLOCK):
                item = Filter(c, u, v)
                cost = item.radius if c == 0 else CHROMA_COST * item.radius + CHROMA_OFFSETS[c - 1]
                candidates.append((cost, item))
    return [item for _, item in sorted(candidates)[:count]]
