"""Receptive fields of transforms: how much surroundings a window of the latent needs, from the layers themselves."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from ohmq.models.config import BLOCK
from ohmq.models.photo import ChannelGain

__all__ = ["LayerChain", "analysis_halo", "synthesis_halo"]

_POINTWISE = (nn.ReLU, nn.SiLU, nn.Linear, nn.Identity, ChannelGain)
"""Layers whose output at a position depends on their input at that position alone, or on no position."""


def analysis_halo(transform: nn.Module) -> int:
    """Return the number of latent positions around a window that an analysis transform needs.

    Args:
        transform: its layers follow each other, with a total stride of 16.

    Raises:
        TypeError: a layer whose receptive field is not known.
    """
    first, last = _receptive_field(_steps(transform), 0, 0)
    return max(-(first // BLOCK), last // BLOCK)


def synthesis_halo(transform: nn.Module, reach: int = 0) -> int:
    """Return the number of latent positions around a window that a synthesis transform needs.

    Args:
        transform: its layers follow each other, with a total stride of 16.
        reach: pixels around the window that are needed too, as by a post-filter.

    Raises:
        TypeError: a layer whose receptive field is not known.
    """
    first, last = _receptive_field(_steps(transform), -reach, BLOCK - 1 + reach)
    return max(-first, last)


class LayerChain:
    """Receptive fields of the layers of a synthesis transform, prepared for many windows.

    Args:
        layers: follow each other; pixel shuffles and transposed convolutions multiply the resolution.

    Attributes:
        scales: samples for a latent position at the input of each layer and at the output of the last.

    Raises:
        TypeError: a layer whose receptive field is not known.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._steps = [_steps(layer) for layer in layers]
        self.scales = [1]
        for steps in self._steps:
            factor = 1
            for step in steps:
                factor *= step.stride if step.enlarges else 1
            self.scales.append(self.scales[-1] * factor)

    def needed_inputs(self, size: int, first: int, end: int) -> list[tuple[int, int]]:
        """Return the samples at the input of each layer that some output samples depend on, along one axis.

        Args:
            size: latent positions along the axis; samples beyond the border are not counted.
            first: the first output sample.
            end: the output sample after the last.

        Returns:
            First sample and sample after the last, for the input of each layer and for the output of the last.
        """
        out = [(first, end)]
        for steps, scale in zip(reversed(self._steps), reversed(self.scales[:-1]), strict=True):
            low, high = _receptive_field(steps, first, end - 1)
            first, end = max(0, low), min(size * scale, high + 1)
            out.append((first, end))
        return out[::-1]


class _Step(NamedTuple):
    """A layer that looks around or changes the resolution: to ``stride`` times it if it enlarges, else to a fraction."""

    enlarges: bool
    size: int
    stride: int
    padding: int


def _steps(transform: nn.Module) -> list[_Step]:
    """List the steps of the layers of a transform, in their order."""
    out = []
    for layer in transform.modules():
        if list(layer.children()):
            continue
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(layer, nn.ConvTranspose2d)
            out.append(_Step(transposed, layer.kernel_size[0], layer.stride[0], int(layer.padding[0])))
        elif isinstance(layer, nn.PixelShuffle):
            out.append(_Step(True, layer.upscale_factor, layer.upscale_factor, 0))
        elif not isinstance(layer, _POINTWISE):
            raise TypeError(f"the receptive field of a layer {type(layer).__name__} is not known")
    return out


def _receptive_field(steps: Sequence[_Step], first: int, last: int) -> tuple[int, int]:
    """Return the first and the last input sample that the output samples ``first`` to ``last`` depend on."""
    for step in reversed(steps):
        if step.enlarges:
            first, last = -((step.size - 1 - step.padding - first) // step.stride), (last + step.padding) // step.stride
        else:
            first, last = first * step.stride - step.padding, last * step.stride - step.padding + step.size - 1
    return first, last
