"""Receptive fields of transforms: how much surroundings a window of the latent needs, from the layers themselves."""

from torch import nn

from ohmq.models.config import BLOCK
from ohmq.models.photo import ChannelGain

__all__ = ["analysis_halo", "synthesis_halo"]

_POINTWISE = (nn.ReLU, nn.SiLU, nn.Linear, nn.Identity, ChannelGain)
"""Layers whose output at a position depends on their input at that position alone, or on no position."""


def analysis_halo(transform: nn.Module) -> int:
    """Return the number of latent positions around a window that an analysis transform needs.

    Args:
        transform: its layers follow each other, with a total stride of 16.

    Raises:
        TypeError: a layer whose receptive field is not known.
    """
    first, last = _receptive_field(transform, 0, 0)
    return max(-(first // BLOCK), last // BLOCK)


def synthesis_halo(transform: nn.Module, reach: int = 0) -> int:
    """Return the number of latent positions around a window that a synthesis transform needs.

    Args:
        transform: its layers follow each other, with a total stride of 16.
        reach: pixels around the window that are needed too, as by a post-filter.

    Raises:
        TypeError: a layer whose receptive field is not known.
    """
    first, last = _receptive_field(transform, -reach, BLOCK - 1 + reach)
    return max(-first, last)


def _receptive_field(transform: nn.Module, first: int, last: int) -> tuple[int, int]:
    """Return the first and the last input sample that the output samples ``first`` to ``last`` depend on."""
    for layer in reversed([layer for layer in transform.modules() if not list(layer.children())]):
        if isinstance(layer, nn.ConvTranspose2d):
            (size, _), (stride, _), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
            first, last = -((size - 1 - padding - first) // stride), (last + padding) // stride
        elif isinstance(layer, nn.Conv2d):
            (size, _), (stride, _), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
            first, last = first * stride - padding, last * stride - padding + size - 1
        elif isinstance(layer, nn.PixelShuffle):
            first, last = first // layer.upscale_factor, last // layer.upscale_factor
        elif not isinstance(layer, _POINTWISE):
            raise TypeError(f"the receptive field of a layer {type(layer).__name__} is not known")
    return first, last
