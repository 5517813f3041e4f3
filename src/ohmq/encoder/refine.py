r"""Analysis by synthesis: refine a latent by what its symbols decode to.

Each pass chooses symbols without context, synthesises them, and moves the latent by the part of the reconstruction error that
quantization does not explain. The decoder does not know of it.

The last pass only estimates what its symbols decode to: a small decoder shows how the image changes since the pass before. That
gains most of what another full pass would, for two fifths of its arithmetic.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.encoder.rdoq import Rdoq
from ohmq.entropy.kernels import NUMPY, Kernels
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.geometry import Window
from ohmq.models.config import BLOCK, GREY_LEVELS
from ohmq.runtime.latents import Latent, PerceptualWeights
from ohmq.runtime.windowed import WindowedTransforms, pixel_box, to_patches
from ohmq.utils.progress import steps

__all__ = ["ESTIMATOR", "PASSES", "LatentRefiner", "Pass", "block_coefficients", "refine_latent"]

Array = NDArray[Any]


class Pass(NamedTuple):
    """A refinement pass.

    Attributes:
        step: its step size.
        estimated: whether the decoded image is estimated: that of the pass before, plus what changes between the two in the
            image of a small decoder, `ESTIMATOR`. Models without that decoder leave the pass out.
    """

    step: float
    estimated: bool = False


ESTIMATOR = "fast"
"""The decoder of estimated passes."""
PASSES = (
    (),
    (Pass(0.5), Pass(0.25, estimated=True)),
    (Pass(0.5), Pass(0.25), Pass(0.25, estimated=True)),
)
"""Refinement passes of each effort. Larger steps gain less: the next choice of symbols undoes them."""


def block_coefficients(images: Array, block: Array) -> NDArray[np.float32]:
    """Apply the block transform to images or to differences between images.

    Args:
        images: (N, 3, H, W), in grey levels.
        block: filters of the transform, (D, 3, 16, 16).

    Returns:
        Coefficients in units of the latent, (N, H / 16, W / 16, D).
    """
    count, colours, height, width = images.shape
    blocks = images.reshape(count, colours, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    rows = blocks.transpose(0, 2, 4, 1, 3, 5).reshape(count, height // BLOCK, width // BLOCK, -1)
    return np.asarray(rows @ block.reshape(len(block), -1).T / np.float32(GREY_LEVELS), np.float32)


def refine_latent(
    latent: Array, quantization_error: Array, reconstruction_error: Array, step: float
) -> NDArray[np.float32]:
    r"""Move a latent by the reconstruction error that quantization does not explain.

    $$ z' = z + s \left(e - \beta q\right), \qquad \beta = \frac{\langle e, q \rangle}{\langle q, q \rangle} $$

    In a linear codec the reconstruction error e would equal the quantization error q up to a factor, and nothing would move.
    The rest of e is the error that synthesis makes with these codewords, which analysis could not know.

    Args:
        latent: z, (h, w, D).
        quantization_error: q, latent minus chosen codewords, (h, w, D).
        reconstruction_error: e, the `block_coefficients` of original minus decoded image, (h, w, D).
        step: s.

    Returns:
        z', (h, w, D).
    """
    energy = float(np.vdot(quantization_error, quantization_error))
    explained = np.float32(np.vdot(reconstruction_error, quantization_error) / energy if energy else 0)
    return np.asarray(latent + np.float32(step) * (reconstruction_error - explained * quantization_error), np.float32)


class LatentRefiner:
    """Refines the latents of a model that supports RDOQ.

    Args:
        prior: the model's integer prior.
        quantizer: the quantizer's tensors, as for `Rdoq`, and "output_bias" (D,).
        windowed: the model's transforms.
        kernels: inner loops; default: numpy.
    """

    def __init__(
        self,
        prior: IntegerTabulatedPrior,
        quantizer: Mapping[str, Array],
        windowed: WindowedTransforms,
        kernels: Kernels = NUMPY,
    ) -> None:
        self._prior, self._quantizer, self._windowed, self._kernels = prior, quantizer, windowed, kernels
        # What refinement looks at need not be exact, and the decoder of a file need not be the one of the passes.
        self._own = windowed.transforms.in_low_precision()
        self._estimator = self._own.with_decoder(ESTIMATOR) if ESTIMATOR in self._own.decoders else None

    def passes(self, effort: int) -> Sequence[Pass]:
        """Return the refinement passes of an effort.

        Args:
            effort: 0 to 2.
        """
        return [item for item in PASSES[effort] if self._estimator or not item.estimated]

    def rdoq(
        self, latent: Array, channels: int, lambda_scale: float = 1.0, weights: PerceptualWeights | None = None
    ) -> Rdoq:
        """Choose symbols of latents (images, 1, h, w, D) by RDOQ while ``channels`` channels are coded.

        Args:
            latent: latents, (images, 1, h, w, D).
            channels: the number of channels that are coded.
            lambda_scale: factor on λ; default: 1.
            weights: perceptual weights of the (h, w) positions; default: all are 1.

        Returns:
            A source of symbols for `ohmq.entropy.layers.encode_layers`.
        """
        return Rdoq(
            self._prior,
            self._quantizer,
            latent,
            channels,
            lambda_scale=lambda_scale,
            channel_weights=None if weights is None else weights.channels,
            place_weights=None if weights is None else weights.places,
            kernels=self._kernels,
        )

    def refine(self, source: Latent, channels: int, place: Window | None = None) -> Array:
        """Refine a latent with as many passes as its effort; large images window by window.

        Args:
            source: the latent.
            channels: the number of channels that will be coded.
            place: the window of the latent that is wanted; default: all of it.

        Returns:
            (1, rows, columns, D).

        Raises:
            ValueError: an effort, and no image.
        """
        rows, columns = source.values.shape[1:3]
        place = place or Window(0, 0, rows, columns)
        if not source.effort:
            return source.values[:, place.rows, place.columns]
        if source.image is None:
            raise ValueError(f"effort is {source.effort}: analysis by synthesis needs the image of the latent")
        whole = not self._windowed.needs_windows(source)
        halo = 0 if whole else sum(self._halo(item) for item in self.passes(source.effort))
        refined = np.empty((1, *place.shape, source.values.shape[3]), np.float32)
        for window in self._windowed.subdivide(place, whole):
            outer = window.widened(halo, rows, columns)
            inner, target = window.within(outer), window.within(place)
            pixels = np.asarray(source.image.crop(pixel_box(outer, source.width, source.height)))
            weights = None if source.weights is None else source.weights.inside(outer)
            part = source._replace(values=source.values[:, outer.rows, outer.columns], weights=weights)
            values = self._refined(part, pixels, channels)
            refined[0, target.rows, target.columns] = values[inner.rows, inner.columns]
        return refined

    def decoded_parts(self, source: Latent, channels: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Decode a plain choice of symbols, without refinement and without coding; large images window by window.

        Args:
            source: the latent, with its image.
            channels: the number of channels.

        Yields:
            Original and decoded pixels of a part, (3, H, W) each; sides are multiples of 16, the image's edge is repeated.
        """
        assert source.image is not None
        rows, columns = source.values.shape[1:3]
        whole = not self._windowed.needs_windows(source)
        halo = 0 if whole else self._own.synthesis_halo
        for window in steps(self._windowed.subdivide(Window(0, 0, rows, columns), whole), "quality"):
            outer = window.widened(halo, rows, columns)
            inner = window.within(outer)
            plain = source._replace(weights=None)
            _, codewords = self._choose(plain, source.values[0, outer.rows, outer.columns], channels)
            decoded = self._own.pixels_from_codewords(codewords, channels)[0]
            pixels = np.asarray(source.image.crop(pixel_box(window, source.width, source.height)))
            (original,) = to_patches(pixels, (window.shape[0] * BLOCK, window.shape[1] * BLOCK))
            top, left = inner.top * BLOCK, inner.left * BLOCK
            yield original, decoded[:, top : top + original.shape[1], left : left + original.shape[2]]

    def _halo(self, item: Pass) -> int:
        """Return the latent positions around a window that a pass needs."""
        estimator = self._estimator if item.estimated else None
        return self._own.synthesis_halo if estimator is None else estimator.synthesis_halo

    def _choose(self, part: Latent, latent: Array, channels: int) -> tuple[Array, Array]:
        """Choose symbols of a latent (h, w, D) without context; returns its quantization error and codewords, (1, h, w, D)."""
        rdoq = self.rdoq(latent[None, None], channels, part.lambda_scale, part.weights)
        quantization_error = rdoq.choose_without_context()[0, 0]
        return quantization_error, (latent - quantization_error)[None]

    def _refined(self, part: Latent, pixels: Array, channels: int) -> Array:
        """Refine the latent (1, h, w, D) of a window, whose pixels (H, W, 3) may end up to a block earlier: (h, w, D)."""
        (latent,) = part.values
        (image,) = to_patches(pixels, (latent.shape[0] * BLOCK, latent.shape[1] * BLOCK))
        passes = self.passes(part.effort)
        offset: Array = np.zeros((), np.float32)
        for number, item in enumerate(passes, 1):
            quantization_error, codewords = self._choose(part, latent, channels)
            if item.estimated:
                decoded = offset + self._estimate(codewords, channels)
            else:
                decoded = self._own.pixels_from_codewords(codewords, channels)[0].astype(np.float32)
                if number < len(passes) and passes[number].estimated:
                    offset = decoded - self._estimate(codewords, channels)
            error = block_coefficients((image - decoded)[None], self._own.block)[0]
            if part.weights is not None:
                error *= part.weights.errors[..., None]
            latent = refine_latent(latent, quantization_error - self._quantizer["output_bias"], error, item.step)
        return latent

    def _estimate(self, codewords: Array, channels: int) -> Array:
        """Decode sums of codewords (1, h, w, D) by the small decoder: (3, 16 h, 16 w)."""
        assert self._estimator is not None
        return self._estimator.pixels_from_codewords(codewords, channels)[0]
