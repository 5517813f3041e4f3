"""Receptive fields of transforms: how much surroundings a window of the latent needs, from the layers themselves."""

from collections.abc import Sequence

from torch import nn

from ohmq.models.config import BLOCK
from ohmq.models.photo import ChannelGain

__all__ = ["analysis_halo", "needed_inputs", "scales", "synthesis_halo"]

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


def scales(layers: Sequence[nn.Module]) -> list[int]:
    """Return the resolution at the input of each layer of a synthesis transform and at the output of the last.

    Args:
        layers: follow each other; pixel shuffles and transposed convolutions multiply the resolution.

    Returns:
        Samples for a latent position, one more than layers.
    """
    out = [1]
    for layer in layers:
        factor = 1
        for part in layer.modules():
            if isinstance(part, nn.PixelShuffle):
                factor *= part.upscale_factor
            elif isinstance(part, nn.ConvTranspose2d):
                factor *= part.stride[0]
        out.append(out[-1] * factor)
    return out


def needed_inputs(layers: Sequence[nn.Module], size: int, first: int, end: int) -> list[tuple[int, int]]:
    """Return the samples at the input of each layer that some output samples depend on, along one axis.

    Args:
        layers: of a synthesis transform, following each other.
        size: latent positions along the axis; samples beyond the border are not counted.
        first: the first output sample.
        end: the output sample after the last.

    Returns:
        First sample and sample after the last, for the input of each layer and for the output of the last.
    """
    out = [(first, end)]
    for layer, scale in zip(reversed(layers), reversed(scales(layers)[:-1]), strict=True):
        low, high = _receptive_field(layer, first, end - 1)
        first, end = max(0, low), min(size * scale, high + 1)
        out.append((first, end))
    return out[::-1]


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
