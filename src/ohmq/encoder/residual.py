"""Residuals: what the image of all channels lacks, for qualities that a model does not reach."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from ohmq.bitstream.format import MIN_STEP, RESIDUAL_CHANNELS, ResidualInfo
from ohmq.encoder.encoder import Encoder
from ohmq.entropy.residual_coder import BLOCKS
from ohmq.geometry import WINDOW, windows
from ohmq.runtime.latents import Latent, Source, Symbols
from ohmq.runtime.residual import Residual, residual_levels
from ohmq.runtime.windowed import pixel_box
from ohmq.utils.ordered import map_in_order

__all__ = ["STEPS", "ResidualSource"]

STEPS = tuple(sorted({round(MIN_STEP * 2 ** (number / 12)) for number in range(44)}, reverse=True))
"""Steps that a search tries, in eighths of a grey level, from few bits to many: 12 to 1 grey levels. Coarser ones gain less than
the decoder `fast` loses against `standard`."""


class ResidualSource(NamedTuple):
    """An image, and what a decoder makes of all channels of the model.

    Attributes:
        encoder: its encoder.
        symbols: of all channels.
        original: the image, mode "RGB".
        decoded: the image of the symbols, mode "RGB".
    """

    encoder: Encoder
    symbols: Symbols
    original: Image.Image
    decoded: Image.Image

    @classmethod
    def of(cls, encoder: Encoder, source: Source, original: Image.Image) -> "ResidualSource":
        """Choose the symbols of all channels, from a latent at the model's own λ, and decode them.

        Args:
            encoder: an encoder with a `residual_base`.
            source: symbols or latent of the image.
            original: the image, mode "RGB" or "RGBA".
        """
        assert encoder.residual_base is not None
        channels = encoder.config.channels_max
        symbols = encoder.symbols(source._replace(lambda_scale=1.0) if isinstance(source, Latent) else source, channels)
        decoded = encoder.residual_base.windowed.synthesise(symbols, channels)
        return cls(encoder, symbols, original.convert("RGB"), decoded)

    @property
    def channels(self) -> int:
        """The number of channels of a file with a residual."""
        return self.encoder.config.channels_max + RESIDUAL_CHANNELS

    def quantized(self, step: int) -> Symbols:
        """Return the symbols with a residual.

        Args:
            step: as in `ohmq.bitstream.format.ResidualInfo`.
        """
        base = self.encoder.residual_base
        assert base is not None
        rows, columns = self.symbols.values.shape[1:3]
        levels = np.zeros((RESIDUAL_CHANNELS, BLOCKS * rows, BLOCKS * columns), np.int16)
        parts = windows(rows, columns, WINDOW)

        def quantize(number: int) -> None:
            part = parts[number]
            box = pixel_box(part, *self.original.size)
            original, decoded = (np.asarray(image.crop(box)) for image in (self.original, self.decoded))
            blocks = tuple(slice(BLOCKS * place.start, BLOCKS * place.stop) for place in (part.rows, part.columns))
            levels[:, blocks[0], blocks[1]] = residual_levels(original, decoded, step, part)

        for _ in map_in_order(quantize, range(len(parts)), base.windowed.transforms.file_workers()):
            pass
        return self.symbols._replace(residual=Residual(ResidualInfo(step, base.decoder_id), levels))
