"""Synthesis of photo models on a CPU: in windows that fit its cache, in threads, in bfloat16 where it multiplies that.

The convolutions of a window compute what its pixels need and no more: after each step to a higher resolution the margin shrinks
to the receptive field of the layers that follow. The low frequencies of the block transform, whose error would be seen, stay
in float32.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmq.errors import ModelFileError
from ohmq.geometry import Window
from ohmq.models.config import BLOCK
from ohmq.models.decoders import RATE_CENTRE, RATE_SPREAD, LadderDecoder, RateBlock
from ohmq.models.photo import LATENT_SCALE, PhotoSynthesis, ResidualBlock
from ohmq.postfilter.classes import REACH
from ohmq.postfilter.filters import PostFilter
from ohmq.runtime.devices import coding_state
from ohmq.runtime.receptive_field import LayerChain
from ohmq.runtime.workers import map_windows

__all__ = ["LOW_FREQUENCIES", "PhotoWindows", "converted", "divided", "run_layer"]

WINDOW_ROWS, WINDOW_COLUMNS = 32, 48
"""Latent positions of the sides of a window, at most."""
DIVIDED_ABOVE = 512
"""Latent positions of an image from which it is divided into two windows at least, for two threads."""
LOW_FREQUENCIES = 32
"""Leading filters of the block transform, forward and inverse, that are multiplied in float32."""
KEPT_PATHS = 4
"""Numbers of channels whose convolutions are kept ready."""


class _Path(NamedTuple):
    """Convolutions for one number of channels, one after the other, and their receptive fields."""

    layers: list[nn.Module]
    chain: LayerChain


class PhotoWindows:
    """Windowed synthesis transform of a photo model, with post-filter.

    Args:
        transform: in evaluation mode, on the CPU.
        mean: of the model's normalisation.
        std: of the model's normalisation.
        bfloat16: whether the convolutions and the high frequencies of the block transform compute in bfloat16.
    """

    def __init__(self, transform: PhotoSynthesis | LadderDecoder, mean: float, std: float, *, bfloat16: bool) -> None:
        self._transform, self._offset, self._scale = transform, 255 * mean, 255 * std
        self._type = torch.bfloat16 if bfloat16 else torch.float32
        self._paths: OrderedDict[int, _Path] = OrderedDict()
        with coding_state():
            self._block = transform.block.flatten(1) * self._scale
            self._high_block = self._block[LOW_FREQUENCIES:].to(self._type)

    def pixels(
        self,
        latent: Callable[[Window], Tensor],
        grid: tuple[int, int],
        inside: Window,
        channels: int,
        filters: PostFilter | None,
    ) -> NDArray[np.uint8]:
        """Synthesise the pixels of a window of an image, filter and round them.

        Args:
            latent: gives the latent of a window, (1, D, h, w); called by several threads.
            grid: rows and columns of the latent of the image.
            inside: the window of the latent whose pixels are wanted.
            channels: that were decoded.
            filters: the post-filter; None: none.

        Returns:
            (3, H, W), uint8; the same for any number of threads.

        Raises:
            ModelFileError: pixels that are not finite.
        """
        with coding_state():
            path = self._path(channels)
            # Colours of a pixel lie side by side, as images have them.
            out = np.empty((inside.shape[0] * BLOCK, inside.shape[1] * BLOCK, 3), np.uint8).transpose(2, 0, 1)

            def synthesise(window: Window) -> None:
                with coding_state():
                    decoded, box = self._window(latent, grid, window, path, REACH if filters else 0)
                if not np.isfinite(decoded.sum()):
                    raise ModelFileError(
                        "the model decodes to pixels that are no numbers: its weights are damaged or diverged"
                    )
                place = window.within(inside)
                target = out[:, place.top * BLOCK : place.bottom * BLOCK, place.left * BLOCK : place.right * BLOCK]
                if filters is None:
                    target[...] = decoded.round()
                    return
                pixels = Window(*(BLOCK * edge for edge in window))
                above, below = pixels.top - box.top, box.bottom - pixels.bottom
                left, right = pixels.left - box.left, box.right - pixels.right
                filters.filter_inside(decoded, (above, below, left, right), channels, target)

            map_windows(synthesise, list(divided(inside)))
        return out

    def _window(
        self,
        latent: Callable[[Window], Tensor],
        grid: tuple[int, int],
        window: Window,
        path: _Path,
        reach: int,
    ) -> tuple[NDArray[np.float32], Window]:
        """Synthesise a window and ``reach`` pixels around it, as far as the image goes; returns (3, H, W) and its pixels."""
        box = Window(*(BLOCK * edge for edge in window)).widened(reach, BLOCK * grid[0], BLOCK * grid[1])
        rows = path.chain.needed_inputs(grid[0], box.top, box.bottom)
        columns = path.chain.needed_inputs(grid[1], box.left, box.right)
        outer = Window(rows[0][0], columns[0][0], rows[0][1], columns[0][1])
        y = latent(outer)
        covered = Window(box.top // BLOCK, box.left // BLOCK, -(-box.bottom // BLOCK), -(-box.right // BLOCK))
        inner = covered.within(outer)
        image = _shuffled(self._blocks(y[0, :, inner.rows, inner.columns].permute(1, 2, 0)), BLOCK)
        part = Window(*(edge - BLOCK * origin for edge, origin in zip(box, 2 * covered[:2], strict=True)))
        image = image[:, part.rows, part.columns]

        scales = path.chain.scales
        x, here = (y * LATENT_SCALE).to(self._type), outer
        for number, layer in enumerate(path.layers):
            wanted = Window(rows[number][0], columns[number][0], rows[number][1], columns[number][1])
            if isinstance(layer, (nn.Conv2d, ResidualBlock)) and wanted != here:
                cut = wanted.within(here)
                x, here = x[:, :, cut.rows, cut.columns], wanted
            if number == len(path.layers) - 1 and isinstance(layer, nn.PixelShuffle):
                x = _shuffled(x[0].permute(1, 2, 0), layer.upscale_factor)[None]
            else:
                x = run_layer(layer, x)
            here = Window(*(edge * scales[number + 1] // scales[number] for edge in here))
        cut = box.within(here)
        image.add_(x[0, :, cut.rows, cut.columns], alpha=self._scale).add_(self._offset).clamp_(0, 255)
        return image.numpy(), box

    def _blocks(self, y: Tensor) -> Tensor:
        """Invert the block transform of a latent, (h, w, D): (h, w, 768)."""
        if self._type == torch.float32:
            return y @ self._block
        rows = y.reshape(-1, y.shape[-1])  # one matrix, also where the window is a part of wider rows
        blocks = rows[:, :LOW_FREQUENCIES] @ self._block[:LOW_FREQUENCIES]
        return blocks.add_(rows[:, LOW_FREQUENCIES:].to(self._type) @ self._high_block).view(*y.shape[:2], -1)

    def _path(self, channels: int) -> _Path:
        """Return the convolutions for a number of channels, in the type that they compute in."""
        key = channels if isinstance(self._transform, LadderDecoder) else 0
        if key not in self._paths:
            layers = [converted(layer, self._type) for layer in _plain_layers(self._transform, channels)]
            self._paths[key] = _Path(layers, LayerChain(layers))
            while len(self._paths) > KEPT_PATHS:
                self._paths.popitem(last=False)
        return self._paths[key]


def _plain_layers(transform: PhotoSynthesis | LadderDecoder, channels: int) -> list[nn.Module]:
    """Return the layers of a path of convolutions, the number of channels folded into their weights."""
    if isinstance(transform, PhotoSynthesis):
        return list(transform.path)
    rate = torch.tensor([[(math.log(channels) - RATE_CENTRE) / RATE_SPREAD]], dtype=torch.float32)
    return [_plain_block(layer, rate) if isinstance(layer, RateBlock) else layer for layer in transform.path]


def _plain_block(block: RateBlock, rate: Tensor) -> ResidualBlock:
    gain, shift = block.rate(rate).chunk(2, -1)
    with torch.device("meta"):
        plain = ResidualBlock(block.expand.out_channels).requires_grad_(False)
    reduce = {"weight": block.reduce.weight * (1 + gain[0])[:, None, None, None]}
    reduce["bias"] = torch.as_tensor(block.reduce.bias) * (1 + gain[0]) + shift[0]
    for place, state in ((0, reduce), (2, block.spatial.state_dict()), (4, block.expand.state_dict())):
        plain.inner[place].load_state_dict(state, assign=True)
    return plain


def converted(layer: nn.Module, kind: torch.dtype) -> nn.Module:
    """Return a layer with weights of a type, channels last; itself in float32.

    Args:
        layer: the layer.
        kind: the type.
    """
    if kind == torch.float32:
        return layer
    out: nn.Module = copy.deepcopy(layer).to(kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return out


def _shuffled(x: Tensor, factor: int) -> Tensor:
    """Shuffle pixels (h, w, 3 f²) to planes (3, f h, f w), in a tenth of the time that torch takes for such sizes."""
    height, width = x.shape[:2]
    blocks = x.reshape(height, width, 3, factor, factor).permute(2, 0, 3, 1, 4)
    return blocks.reshape(3, height * factor, width * factor)


def run_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer without memory that it can do without.

    Args:
        layer: the layer.
        x: its input.
    """
    if not isinstance(layer, ResidualBlock):
        return torch.as_tensor(layer(x))
    reduce, _, spatial, _, expand = layer.inner
    return torch.as_tensor(expand(spatial(reduce(x).relu_()).relu_()).add_(x))


def divided(inside: Window) -> Iterator[Window]:
    """Divide a window into windows of about equal sides, the same for any number of threads.

    Args:
        inside: the window, in latent positions.

    Yields:
        The windows, in raster order.
    """
    height, width = inside.shape
    rows, columns = -(-height // WINDOW_ROWS), -(-width // WINDOW_COLUMNS)
    if rows * columns == 1 and height * width >= DIVIDED_ABOVE:  # along the longer side, for fewer positions around
        rows, columns = (1, 2) if width >= height else (2, 1)
    for row in range(rows):
        for column in range(columns):
            yield Window(
                inside.top + row * height // rows,
                inside.left + column * width // columns,
                inside.top + (row + 1) * height // rows,
                inside.left + (column + 1) * width // columns,
            )
