"""Analysis of photo models on a CPU: in windows that fit its cache, in threads, in bfloat16 where it multiplies that.

Pixels less 128 are exact in bfloat16. Coefficients of low frequencies are large beside the quantizer's steps and stay in float32.
"""

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ohmq.geometry import Window
from ohmq.models.config import BLOCK
from ohmq.models.photo import CONVOLUTION_SCALE, PhotoAnalysis
from ohmq.runtime.devices import coding_state
from ohmq.runtime.photo_synthesis import LOW_FREQUENCIES, converted, divided, run_layer
from ohmq.runtime.receptive_field import analysis_halo
from ohmq.runtime.workers import map_windows

__all__ = ["PhotoAnalysisWindows"]

CENTRE = 128
"""Grey level that is subtracted from pixels, so that bfloat16 holds them."""
SIDE = BLOCK // 2
"""Side of the patches that the convolutions begin with, in pixels."""


class PhotoAnalysisWindows:
    """Windowed analysis transform of a photo model whose convolutions all are at an eighth of the resolution.

    Args:
        transform: in evaluation mode, on the CPU.
        mean: of the model's normalisation.
        std: of the model's normalisation.
        bfloat16: whether to compute in bfloat16, but for low frequencies.
    """

    def __init__(self, transform: PhotoAnalysis, mean: float, std: float, *, bfloat16: bool) -> None:
        self._type = torch.bfloat16 if bfloat16 else torch.float32
        self._low = LOW_FREQUENCIES if bfloat16 else 0
        self._halo = analysis_halo(transform)
        with coding_state():
            scale, shift = 1 / (255 * std), CENTRE - 255 * mean
            block = transform.block.flatten(1).T * scale  # (768, D)
            self._low_block = block[:, : self._low].contiguous()
            self._block = block[:, self._low :].to(self._type)
            self._offset = block.sum(0) * shift
            first, *layers, self._last = transform.path
            assert isinstance(first, nn.Conv2d) and first.bias is not None
            weight = first.weight.flatten(1) * (scale * CONVOLUTION_SCALE)
            self._first = weight.to(self._type), (first.bias + weight.sum(1) * shift).to(self._type)
            self._layers = [converted(layer, self._type) for layer in layers]
            self._last = converted(self._last, self._type)

    @staticmethod
    def supports(transform: nn.Module) -> bool:
        """Say whether a transform begins with patches of 8x8 pixels.

        Args:
            transform: an analysis transform.
        """
        if not isinstance(transform, PhotoAnalysis):
            return False
        first = transform.path[0]
        return isinstance(first, nn.Conv2d) and first.kernel_size == first.stride == (SIDE, SIDE)

    def latent(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Analyse images of one size.

        Args:
            images: (N, 3, 16 h, 16 w).

        Returns:
            (N, h, w, D); the same for any number of threads.
        """
        whole = Window(0, 0, images.shape[2] // BLOCK, images.shape[3] // BLOCK)
        out = np.empty((len(images), *whole.shape, len(self._offset)), np.float32)

        def analyse(part: tuple[int, Window]) -> None:
            number, window = part
            with coding_state():
                target = torch.from_numpy(out[number, window.rows, window.columns])
                self._window(torch.from_numpy(images[number]), whole.shape, window, target)

        map_windows(analyse, list(itertools.product(range(len(images)), divided(whole))))
        return out

    def _window(self, image: Tensor, grid: tuple[int, int], window: Window, out: Tensor) -> None:
        """Analyse a window of an image into ``out``, (h, w, D)."""
        outer = window.widened(self._halo, *grid)
        x = image[:, outer.top * BLOCK : outer.bottom * BLOCK, outer.left * BLOCK : outer.right * BLOCK]
        x = x.to(self._type).sub_(CENTRE)
        inner = window.within(outer)
        inside = x[:, inner.top * BLOCK : inner.bottom * BLOCK, inner.left * BLOCK : inner.right * BLOCK]
        blocks = _patches(inside, BLOCK)
        torch.add(blocks @ self._block, self._offset[self._low :], out=out[..., self._low :])
        if self._low:
            torch.add(blocks.float() @ self._low_block, self._offset[: self._low], out=out[..., : self._low])
        y = functional.linear(_patches(x, SIDE), *self._first).permute(2, 0, 1)[None]
        for layer in self._layers:
            y = run_layer(layer, y)
        # The last convolution doubles the step; one position more before the window has what its kernel sees there.
        needed = Window(max(0, inner.top - 1), max(0, inner.left - 1), inner.bottom, inner.right)
        y = y[:, :, 2 * needed.top : 2 * needed.bottom, 2 * needed.left : 2 * needed.right]
        cut = inner.within(needed)
        out.add_(run_layer(self._last, y)[0, :, cut.rows, cut.columns].permute(1, 2, 0))


def _patches(x: Tensor, side: int) -> Tensor:
    """Return patches of an image (3, H, W), row by row: (H / side, W / side, 3 * side²)."""
    height, width = x.shape[1] // side, x.shape[2] // side
    return x.reshape(3, height, side, width, side).permute(1, 3, 0, 2, 4).reshape(height, width, -1)
