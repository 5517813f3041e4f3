"""Feedback in the encoder: what a choice of symbols decodes to moves the latent that symbols are chosen from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.models.config import BLOCK, GREY_LEVELS

__all__ = ["STEPS", "block_coefficients", "fed_back"]

Array = NDArray[Any]

STEPS = (0.5, 0.25)
"""How far to go each time. Larger ones gain less: symbols are chosen anew, and decode to something else again."""


def block_coefficients(pictures: Array, block: Array) -> NDArray[np.float32]:
    """The block transform of pictures, or of differences between pictures, in units of the latent.

    Shape:
        pictures: (P, 3, H, W), in grey levels. block: the filters, (D, 3, 16, 16). Returns: (P, H / 16, W / 16, D).
    """
    count, colours, height, width = pictures.shape
    blocks = pictures.reshape(count, colours, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    rows = blocks.transpose(0, 2, 4, 1, 3, 5).reshape(count, height // BLOCK, width // BLOCK, -1)
    return np.asarray(rows @ block.reshape(len(block), -1).T / np.float32(GREY_LEVELS), np.float32)


def fed_back(latent: Array, left: Array, missed: Array, step: float) -> NDArray[np.float32]:
    r"""The latent of a picture, moved against what decoding makes of a choice of its symbols.

    $$ z' = z + s \left(m - \beta r\right), \qquad \beta = \frac{\langle m, r \rangle}{\langle r, r \rangle} $$

    r is what the choice leaves of the latent, m what the decoded picture misses of the original. In a linear codec they would
    be the same up to a factor, and nothing would move: quantization stays as it was chosen. What m has besides is what
    synthesis makes of just these codewords, which analysis could not know.

    Args:
        step: s.

    Shape:
        latent: (h, w, D). left: r, the same. missed: m, the same, the `block_coefficients` of original minus decoded picture.
        Returns: the same.
    """
    energy = float(np.vdot(left, left))
    part = np.float32(np.vdot(missed, left) / energy if energy else 0)
    return np.asarray(latent + np.float32(step) * (missed - part * left), np.float32)
