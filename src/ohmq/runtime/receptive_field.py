"""src/ohmq/runtime/receptive_field.py."""

from torch import nn

from ohmq.models.config import BLOCK
from ohmq.models.photo import ChannelGain

__all__ = ["analysis_halo", "synthesis_halo"]
_POINTWISE = (nn.ReLU, nn.Identity, ChannelGain)


def analysis_halo(transform: nn.Module) -> int:
    """How many positions around a window an analysis transform needs.

    Raises:
        TypeError: a layer of which it is not known how far it sees.
    """
    low, high = _seen(transform, 0, 0)
    return max(-(low // BLOCK), high // BLOCK)


def synthesis_halo(transform: nn.Module, reach: int = 0) -> int:
    """The same for a synthesis transform, whose pixels so many around the window are needed too."""
    low, high = _seen(transform, -reach, BLOCK - 1 + reach)
    return max(-low, high)


def _seen(transform: nn.Module, low: int, high: int) -> tuple[int, int]:
    """The first and the last input sample that output samples low to high depend on; layers follow each other."""
    for layer in reversed([layer for layer in transform.modules() if not list(layer.children())]):
        if isinstance(layer, nn.ConvTranspose2d):
            (size, _), (stride, _), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
            low, high = -((size - 1 - padding - low) // stride), (high + padding) // stride
        elif isinstance(layer, nn.Conv2d):
            (size, _), (stride, _), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
            low, high = low * stride - padding, high * stride - padding + size - 1
        elif isinstance(layer, nn.PixelShuffle):
            low, high = low // layer.upscale_factor, high // layer.upscale_factor
        elif not isinstance(layer, _POINTWISE):
            raise TypeError(f"how far a layer {type(layer).__name__} sees is not known")
    return low, high
