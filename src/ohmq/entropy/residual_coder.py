"""Entropy coding of a residual: the levels of its block transform, channel by channel, from low frequencies to high ones.

The table of a level depends on the magnitudes of earlier channels at the block and at its four neighbours, so that all
blocks of a channel are coded at once. `docs/file-format.md`, section 12, is normative; the weights and tables in
``residual_tables.json`` are part of the format. They were fitted by ``tools/fit_residual_tables.py``.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.bitstream.format import RESIDUAL_CHANNELS
from ohmq.bitstream.writer import join_tiles
from ohmq.entropy.kernels import Kernels
from ohmq.entropy.latent_coder import LatentCoder
from ohmq.entropy.range_coder import prepare_tables
from ohmq.entropy.tables import PRECISION_BITS, frequencies_from_weights
from ohmq.geometry import Window

__all__ = [
    "BLOCKS",
    "CHANNELS",
    "CUTS",
    "ESCAPE",
    "KEPT",
    "LARGEST_LEVEL",
    "SIDE",
    "ResidualContexts",
    "ResidualDecoder",
    "TileDecoder",
    "context_sums",
    "encode_residual",
    "encode_tile",
    "residual_contexts",
]

Levels = NDArray[np.int16]

SIDE = 8
"""Side of a block, in pixels."""
BLOCKS = 2
"""Blocks in each direction of a latent position."""
CUTS = (18, 45, 108, RESIDUAL_CHANNELS)
"""Channels at which this project's writer ends layers, if files can be cut."""
ESCAPE = 16
"""Magnitude from which a level has its excess coded apart."""
KEPT = 15
"""Largest magnitude that contexts see."""
EXCESS_DIGITS = 3
"""Digits of an excess, in base 16."""
LARGEST_LEVEL = ESCAPE + 16**EXCESS_DIGITS - 1


class Channel(NamedTuple):
    """Channel of a residual: a coefficient of the block transform in one colour.

    Attributes:
        row: vertical frequency, 0 to 7.
        column: horizontal frequency, 0 to 7.
        colour: 0: the sum of the colours; 1: red minus blue; 2: red and blue minus green.
    """

    row: int
    column: int
    colour: int

    @property
    def diagonal(self) -> int:
        """Sum of both frequencies."""
        return self.row + self.column

    @property
    def kind(self) -> int:
        """Row of its weights: seven ranges of the diagonal, for the first colour and for the others."""
        return 2 * min((self.diagonal + 1) // 2, 6) + min(self.colour, 1)


CHANNELS = tuple(
    sorted(
        (Channel(row, column, colour) for row in range(SIDE) for column in range(SIDE) for colour in range(3)),
        key=lambda channel: (channel.diagonal, max(channel.row, channel.column), channel.row, channel.colour),
    )
)
"""All channels in the order of coding."""
assert len(CHANNELS) == RESIDUAL_CHANNELS
_NUMBER = {channel: number for number, channel in enumerate(CHANNELS)}


class ResidualContexts(NamedTuple):
    """Integers that choose the table of a level.

    Attributes:
        weights: of a channel's kind, (14, 8), int32: seven sums of magnitudes and a constant.
        bounds: of the weighted sum between two tables, ascending, (tables - 1,), int32.
        tables: of the symbols 0 to 32 (level + 16), (tables, 33), as `ohmq.entropy.range_coder.prepare_tables` gives them.
    """

    weights: NDArray[np.int32]
    bounds: NDArray[np.int32]
    tables: NDArray[np.float32]


@cache
def residual_contexts() -> ResidualContexts:
    """Read the weights and tables of the format."""
    record = json.loads((files("ohmq.entropy") / "residual_tables.json").read_text())
    magnitudes = np.array(record["magnitudes"], np.int64)
    weights = np.concatenate([magnitudes[:, :0:-1], 2 * magnitudes[:, :1], magnitudes[:, 1:]], 1)
    tables = prepare_tables(frequencies_from_weights(weights))
    return ResidualContexts(np.array(record["weights"], np.int32), np.array(record["bounds"], np.int32), tables)


_DIGIT_TABLE = prepare_tables(np.full((1, 16), 2 ** (PRECISION_BITS - 4)))


class _Magnitudes:
    """Magnitudes of the channels coded so far, as contexts see them; zero for all others and beyond the border."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._values = np.zeros((RESIDUAL_CHANNELS, *shape), np.int32)
        self._contexts = residual_contexts()

    def add(self, number: int, levels: NDArray[Any]) -> None:
        """Add the levels of a channel, (h, w)."""
        np.minimum(np.abs(levels.astype(np.int32)), KEPT, out=self._values[number])

    def tables(self, number: int) -> NDArray[np.int32]:
        """Return the table of each block for a channel, (h · w,)."""
        weights = self._contexts.weights[CHANNELS[number].kind]
        total = np.full(self._values.shape[1:], weights[7])
        for weight, part in zip(weights[:7], context_sums(self._values, number), strict=True):
            if weight:
                total += weight * part
        return np.searchsorted(self._contexts.bounds, total.reshape(-1), "right").astype(np.int32)


def context_sums(magnitudes: NDArray[np.int32], number: int) -> NDArray[np.int32]:
    """Return the seven sums that the table of a channel depends on.

    Args:
        magnitudes: of the channels before it, at most `KEPT`, (192, h, w); others are not looked at.
        number: of the channel.

    Returns:
        (7, h, w).
    """
    row, column, colour = CHANNELS[number]
    sums = np.zeros((7, *magnitudes.shape[1:]), np.int32)
    near = ((row - 1, column), (row, column - 1))
    middle = ((row - 1, column - 1), (row - 2, column), (row, column - 2))
    for place, frequencies in enumerate((near, middle)):
        for frequency in frequencies:
            if min(frequency) >= 0:
                sums[place] += magnitudes[_NUMBER[Channel(*frequency, colour)]]
        sums[2 + place] = _around(sums[place])
    if colour:
        sums[4] = magnitudes[_NUMBER[Channel(row, column, 0)]]
        sums[5] = _around(sums[4])
    if colour == 2:
        sums[6] = magnitudes[_NUMBER[Channel(row, column, 1)]]
    return sums


def _around(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the sum over the upper, lower, left and right neighbour; zero beyond the border."""
    total = np.zeros_like(values)
    total[1:] += values[:-1]
    total[:-1] += values[1:]
    total[:, 1:] += values[:, :-1]
    total[:, :-1] += values[:, 1:]
    return total


def encode_tile(levels: Levels, ends: Sequence[int], kernels: Kernels) -> list[bytes]:
    """Encode the levels of a tile, or of an image in one piece.

    Args:
        levels: (channels, h, w), at most `LARGEST_LEVEL` in magnitude.
        ends: the channels at which the layers end, ascending; the last one is the number of channels.
        kernels: inner loops.

    Returns:
        The payload of each layer.
    """
    magnitudes, tables = _Magnitudes(levels.shape[1:]), residual_contexts().tables
    payloads, first = [], 0
    for end in ends:
        encoder = kernels.encoder()
        for number in range(first, end):
            values = levels[number].reshape(-1).astype(np.int32)
            index = magnitudes.tables(number)
            encoder.encode(np.clip(values, -ESCAPE, ESCAPE) + ESCAPE, tables, index, True)
            excess = np.abs(values[np.abs(values) >= ESCAPE]) - ESCAPE
            if len(excess):
                digits = np.stack([excess >> 8, excess >> 4 & 15, excess & 15], 1)
                encoder.encode(digits.reshape(-1), _DIGIT_TABLE)
            magnitudes.add(number, levels[number])
        payloads.append(encoder.finish())
        first = end
    return payloads


def encode_residual(
    levels: Levels, ends: Sequence[int], grid: tuple[int, int, int], coder: LatentCoder, kernels: Kernels
) -> list[bytes]:
    """Encode the residual of an image.

    Args:
        levels: (channels, 2 h, 2 w).
        ends: as for `encode_tile`.
        grid: (1, h, w) of the image's latent.
        coder: divides the latent into tiles.
        kernels: inner loops.

    Returns:
        The payload of each layer.
    """
    tiles = coder.for_blocks(
        lambda tile: encode_tile(_part(levels, tile), ends, kernels), coder.blocks(*grid[1:]), phase="residual"
    )
    return [join_tiles(layer) for layer in zip(*tiles, strict=True)] if coder.tile else tiles[0]


def _part(levels: Levels, tile: Window) -> Levels:
    """Return the blocks of a tile of the latent, a view."""
    rows, columns = (slice(BLOCKS * part.start, BLOCKS * part.stop) for part in (tile.rows, tile.columns))
    return levels[:, rows, columns]


class ResidualDecoder:
    """Decodes the layers of the residual of an image one after the other.

    Args:
        coder: divides the latent into tiles.
        grid: (1, h, w) of the image's latent.
        channels: the number of channels that will be decoded.
        kernels: inner loops.

    Attributes:
        levels: (channels, 2 h, 2 w), int16; zero in channels that are not decoded yet.
        channel: the number of channels decoded so far.
    """

    def __init__(self, coder: LatentCoder, grid: tuple[int, int, int], channels: int, kernels: Kernels) -> None:
        self.levels = np.zeros((channels, BLOCKS * grid[1], BLOCKS * grid[2]), np.int16)
        self.channel = 0
        self._coder, self._kernels = coder, kernels
        self._tiles = coder.blocks(*grid[1:])
        self._whole: TileDecoder | None = None

    def decode(self, payload: bytes, end: int) -> None:
        """Decode the next layer into `levels`.

        Args:
            payload: of the layer.
            end: the channel at which it ends.

        Raises:
            BitstreamError: a payload that cannot be decoded.
        """

        def decode_tile(tile: Window, payloads: list[bytes]) -> None:
            target = _part(self.levels, tile)
            target[self.channel : end] = self._decoder(target).decode(payloads[0], end)

        parts = self._coder.split([payload], len(self._tiles))
        self._coder.for_blocks(decode_tile, self._tiles, parts, phase="residual")
        self.channel = end

    def _decoder(self, target: Levels) -> "TileDecoder":
        """Return the decoder of a tile; as for latents, those of tiles start anew."""
        if self._coder.tile:
            return TileDecoder(target.shape[1:], self._kernels, target[: self.channel])
        if self._whole is None:
            self._whole = TileDecoder(target.shape[1:], self._kernels)
        return self._whole


class TileDecoder:
    """Decodes the layers of a tile, or of an image in one piece, one after the other.

    Args:
        shape: (h, w), in blocks.
        kernels: inner loops.
        known: levels of leading channels that are decoded already, (channels, h, w); default: none.
    """

    def __init__(self, shape: tuple[int, ...], kernels: Kernels, known: Levels | None = None) -> None:
        self._shape, self._kernels, self._channel = shape, kernels, 0
        self._magnitudes = _Magnitudes(shape)
        for levels in () if known is None else known:
            self._magnitudes.add(self._channel, levels)
            self._channel += 1

    def decode(self, payload: bytes, end: int) -> Levels:
        """Decode the next layer.

        Args:
            payload: of the layer.
            end: the channel at which it ends.

        Returns:
            Its levels, (channels, h, w).

        Raises:
            BitstreamError: bytes that no encoder writes.
        """
        decoder, tables = self._kernels.decoder(payload), residual_contexts().tables
        count = self._shape[0] * self._shape[1]
        levels = np.empty((end - self._channel, *self._shape), np.int16)
        for place, number in enumerate(range(self._channel, end)):
            values = decoder.decode(tables, self._magnitudes.tables(number), count, True) - ESCAPE
            escaped = np.flatnonzero(np.abs(values) == ESCAPE)
            if len(escaped):
                digits = decoder.decode(_DIGIT_TABLE, None, EXCESS_DIGITS * len(escaped)).reshape(-1, EXCESS_DIGITS)
                values[escaped] += np.sign(values[escaped]) * (digits @ np.array([256, 16, 1], np.int32))
            levels[place] = values.reshape(self._shape)
            self._magnitudes.add(number, levels[place])
        self._channel = end
        return levels
