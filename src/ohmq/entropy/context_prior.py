"""Static and context prior in integers: from decoded symbols to frequency tables, without a floating-point decision.

The arithmetic of the context prior is normative; `docs/file-format.md` describes it. Integers are carried in float64
where a matrix product is needed: every sum stays below 2^53, so it is exact in any order, on any machine. (Ballé et
al., Integer Networks for Data Compression with Latent-Variable Models, 2019, say why entropy models need that.)

The context of a channel is the sum of the codewords of earlier channel-conditional groups in the 3x3 neighbourhood
(Minnen & Singh, Channel-wise Autoregressive Entropy Models, 2020).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.kernels import NUMPY, VALUE_BITS, Decoder, Kernels
from ohmq.entropy.tables import frequencies_from_weights

__all__ = [
    "BORDER_CLASSES",
    "ChannelTables",
    "CodingStep",
    "ContextPriorState",
    "IntegerContextPrior",
    "SymbolTables",
    "border_classes",
    "check_exp2_table",
    "exp2_table",
    "exp2_weights",
    "integer_tensors",
    "neighbour_rows",
    "rows_as_slice",
]

Array = NDArray[np.generic]

WEIGHT_BITS = 12
"""Fraction bits of the context networks' weights."""
COEFFICIENT_BITS = 12
"""Fraction bits of the feature coefficients."""
LOGIT_BITS = 10
"""Fraction bits of logits (base 2) and features."""
CHUNK_ROWS = 4096
"""Rows that a network takes at once."""
BORDER_CLASSES = 16
"""Classes of positions: 4 of rows (first, middle, last, only) times 4 of columns."""


def border_classes(height: int, width: int) -> NDArray[np.int32]:
    """Return the border class of each position of a latent, in raster order: 4 * row class + column class.

    Args:
        height: positions.
        width: positions.

    Returns:
        (height * width,), int32 in [0, 16). Row and column classes: 0 first, 1 middle, 2 last, 3 the only one.

    Example:
        >>> border_classes(3, 3)
        array([ 0,  1,  2,  4,  5,  6,  8,  9, 10], dtype=int32)
    """

    def along(size: int) -> NDArray[np.int32]:
        classes = np.ones(size, np.int32)
        classes[0], classes[-1] = 0, 2
        return classes if size > 1 else np.array([3], np.int32)

    return (4 * along(height)[:, None] + along(width)[None]).ravel()


def exp2_table(num_symbols: int) -> NDArray[np.int64]:
    """Return round(2^(B - i / 1024)) for i in [0, 1024), B such that the sum of S weights fits 30 bits.

    Args:
        num_symbols: S.

    Returns:
        (1024,), int64.
    """
    bits = min(20, 30 - (num_symbols - 1).bit_length())
    steps = 1 << LOGIT_BITS
    return np.round(2.0 ** (bits - np.arange(steps) / steps)).astype(np.int64)


def exp2_weights(logits: NDArray[np.int64], table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return integer weights in proportion to 2^(logits / 1024); the largest of a row is about table[0].

    Args:
        logits: (rows, S).
        table: of `exp2_table`, (1024,).

    Returns:
        (rows, S).
    """
    below = logits.max(-1, keepdims=True) - logits
    return table[below & ((1 << LOGIT_BITS) - 1)] >> np.minimum(below >> LOGIT_BITS, 62)


def check_exp2_table(table: Array, num_symbols: int) -> None:
    """Raise ValueError unless `exp2_weights` of a table of a model file make weights that frequencies can be made of.

    Args:
        table: of the model file.
        num_symbols: S.
    """
    if table.shape != (1 << LOGIT_BITS,):
        raise ValueError(f"exp2 has shape {table.shape}; expected {(1 << LOGIT_BITS,)}")
    if table[0] < 1 or table.min() < 0 or int(table.max()) * num_symbols > 1 << 30:
        raise ValueError("exp2 holds values out of range")


class ChannelTables(NamedTuple):
    """Frequency tables for the symbols of one channel.

    Attributes:
        frequencies: (T, S), int64, rows sum to 2^24.
        rows: table of each symbol, (n,); None: table i codes symbol i.
    """

    frequencies: NDArray[np.int64]
    rows: NDArray[np.int32] | None


def integer_tensors(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return the tensors of a prior, contiguous.

    Args:
        tensors: by name.

    Raises:
        ValueError: a tensor of other integers than 16 or 32 bits: sums could overflow.
    """
    for name, value in tensors.items():
        if value.dtype not in (np.int16, np.int32):
            raise ValueError(f"{name} is {value.dtype}; expected int16 or int32")
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


class SymbolTables(NamedTuple):
    """Tables of some symbols: the arguments of `ohmq.entropy.SymbolEncoder.encode`.

    Attributes:
        tables: frequencies, (T, S).
        rows: table of each symbol; None: table i codes symbol i.
        in_order: symbols are coded in their order, not table by table.
    """

    tables: Array
    rows: Array | None = None
    in_order: bool = False


class CodingStep(NamedTuple):
    """Rows whose symbols can be coded once the symbols of earlier steps of the same channels are known.

    Attributes:
        first: number of the first image.
        channels: range within the channels that are coded together.
        rows: of each image, (images, m).
        tables: returns the tables of the symbols of ``rows[i]``, channel by channel, given i.
    """

    first: int
    channels: slice
    rows: NDArray[np.int64]
    tables: Callable[[int], SymbolTables]


def rows_as_slice(rows: NDArray[np.int64], count: int) -> NDArray[np.int64] | slice:
    """Return rows as an index: a slice if they are all ``count`` rows, which numpy copies many times as fast.

    Args:
        rows: rows of a coding step, (m,).
        count: the number of all rows.
    """
    return slice(None) if len(rows) == count else rows


class IntegerContextPrior:
    """Prior in integers: static tables for each border class, or tables computed from the context.

    Args:
        tensors: those of `ohmq.model_files.freeze`. Static: "frequencies" (classes, C, S). Context: "logits" (classes,
            C, S), "features" (C, S, K), "codewords" (C, S, D), "exp2" (1024,), and for each group g >= 1 and layer l of
            0, 1, 2 "network.g.l.weight" (out, in) and "network.g.l.bias" (out,).
        group_sizes: channels of each group.

    Raises:
        ValueError: tensors that do not fit together, or could overflow.
    """

    def __init__(self, tensors: Mapping[str, Array], group_sizes: Sequence[int]) -> None:
        self.group_sizes = tuple(group_sizes)
        self.tensors = integer_tensors(tensors)
        self.is_context = "logits" in self.tensors
        shape = self.tensors["logits" if self.is_context else "frequencies"].shape
        if len(shape) != 3 or sum(self.group_sizes) != shape[1] or shape[0] not in (1, BORDER_CLASSES):
            raise ValueError(f"prior tables of shape {shape} do not fit groups {self.group_sizes}")
        self.num_classes, self.num_channels, self.num_symbols = shape
        if self.is_context:
            self._prepare_context()
        else:
            frequencies = self.tensors["frequencies"].astype(np.int64)
            if (frequencies < 1).any() or (frequencies.sum(-1) != 1 << 24).any():
                raise ValueError("frequency tables must be positive and sum to 2^24")
            self.frequencies = frequencies

    def _prepare_context(self) -> None:
        """Convert the tensors of a context prior, and check that they fit together and that all sums are exact."""
        self._check_shapes()
        self.logits = self.tensors["logits"].astype(np.int64)
        self.features = self.tensors["features"].astype(np.float64)
        self.codewords = self.tensors["codewords"].astype(np.int64)
        self.exp2 = self.tensors["exp2"].astype(np.int64)
        self.networks: list[list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = []
        limit = float(np.abs(self.codewords).max(1).sum(0).max())
        for group in range(1, len(self.group_sizes)):
            layers = []
            bound = limit
            for layer in range(3):
                weight = self.tensors[f"network.{group}.{layer}.weight"].astype(np.float64)
                bias = self.tensors[f"network.{group}.{layer}.bias"].astype(np.float64)
                bound = float((np.abs(weight).sum(1) * bound + np.abs(bias)).max())
                if bound >= 2**52:
                    raise ValueError(f"context network {group} could leave the range of exact integers")
                bound = bound / 2 ** (WEIGHT_BITS if layer < 2 else WEIGHT_BITS + VALUE_BITS - COEFFICIENT_BITS)
                layers.append((weight, bias))
            if bound * float(np.abs(self.features).sum(-1).max()) >= 2**52:
                raise ValueError(f"context network {group} could leave the range of exact integers")
            self.networks.append(layers)

    def _check_shapes(self) -> None:
        """Check the shapes of the tensors of a context prior."""
        tensors, table = self.tensors, (self.num_channels, self.num_symbols)
        features, latent = (tensors[name].shape[-1:] for name in ("features", "codewords"))
        check_exp2_table(tensors["exp2"], self.num_symbols)
        expected = {"features": (*table, *features), "codewords": (*table, *latent)}
        for group, size in enumerate(self.group_sizes[1:], start=1):
            inputs = 9 * latent[0]
            for layer in range(3):
                name = f"network.{group}.{layer}"
                outputs = len(tensors[f"{name}.weight"]) if layer < 2 else size * features[0]
                expected |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
                inputs = outputs
        for name, shape in expected.items():
            if tensors[name].shape != shape:
                raise ValueError(f"{name} has shape {tensors[name].shape}; expected {shape}")

    def aligned(self, ends: Sequence[int]) -> bool:
        """Say whether layers with these ends keep together the channels that are coded together: here each is alone.

        Args:
            ends: the channels at which layers end.
        """
        return True

    def begin(
        self, tiles: int, height: int, width: int, *, kernels: Kernels = NUMPY, helper: Executor | None = None
    ) -> "ContextPriorState":
        """Start coding the symbols of ``tiles`` latents of the same size.

        Args:
            tiles: latents, coded channel by channel together.
            height: positions.
            width: positions.
            kernels: loops over symbols; default: numpy.
            helper: not used.

        Returns:
            The state before the first channel.
        """
        return ContextPriorState(self, tiles, height, width, kernels=kernels)


class ContextPriorState:
    """Context of some latents whose channels are coded one after the other.

    Rows are the positions of all latents: tile by tile, in raster order in each.

    Args:
        prior: the prior.
        tiles: latents.
        height: positions.
        width: positions.
        kernels: loops over symbols.

    Attributes:
        channel: the next channel to code.
        rows: tiles * height * width.
    """

    def __init__(
        self, prior: IntegerContextPrior, tiles: int, height: int, width: int, *, kernels: Kernels = NUMPY
    ) -> None:
        self.prior, self.height, self.width, self.kernels = prior, height, width, kernels
        self.positions, self.rows = height * width, tiles * height * width
        classes = border_classes(height, width) if prior.num_classes > 1 else np.zeros(height * width, np.int32)
        self.classes = np.tile(classes, tiles)
        self.channel = 0
        self._group, self._group_start = 0, 0
        self._coefficients: NDArray[np.float64] | None = None
        if prior.is_context:
            self._codeword_sums = np.zeros((self.rows, prior.codewords.shape[2]), np.int64)
            self._neighbours = neighbour_rows(tiles, height, width)

    def tables(self, rows: slice = slice(None)) -> ChannelTables:
        """Return the tables of the current channel, for some of the rows."""
        prior, c = self.prior, self.channel
        if not prior.is_context:
            if prior.num_classes == 1:
                return ChannelTables(prior.frequencies[:, c], np.zeros(len(self.classes[rows]), np.int32))
            return ChannelTables(prior.frequencies[:, c], self.classes[rows])
        logits = prior.logits[self.classes[rows], c]
        if self._group > 0:
            if self._coefficients is None:
                self._coefficients = self._run_network()
            coefficients = self._coefficients[rows, c - self._group_start]
            products = coefficients @ prior.features[c].T
            logits = logits + np.floor(products / (1 << COEFFICIENT_BITS)).astype(np.int64)
        return ChannelTables(frequencies_from_weights(exp2_weights(logits, prior.exp2)), None)

    def channel_run(self, limit: int) -> int:
        """Return the number of next channels that are coded together, at most ``limit``: always 1.

        Args:
            limit: limit on the number of channels.
        """
        return 1

    def coding_steps(self, images: int, channels: int) -> Iterator[CodingStep]:
        """Divide the current channel into coding steps.

        Args:
            images: the rows belong to this number of images, in equal parts.
            channels: 1.

        Yields:
            The steps in the order of coding.
        """
        each = self.rows // images
        if not self.prior.is_context:
            spans = [(0, self.rows)]
        elif each <= CHUNK_ROWS:
            step = CHUNK_ROWS // each * each
            spans = [(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]
        else:
            spans = [
                (first + start, first + min(start + CHUNK_ROWS, each))
                for first in range(0, self.rows, each)
                for start in range(0, each, CHUNK_ROWS)
            ]
        for start, stop in spans:
            rows = np.arange(start, stop).reshape(max(1, (stop - start) // each), -1)
            yield CodingStep(start // each, slice(0, 1), rows, self._image_tables(slice(start, stop), rows.shape[1]))

    def _image_tables(self, rows: slice, each: int) -> Callable[[int], SymbolTables]:
        """Compute the tables of some rows; returns a function from an image among them to its tables."""
        tables, index = self.tables(rows)

        def image_tables(image: int) -> SymbolTables:
            part = slice(image * each, (image + 1) * each)
            return SymbolTables(tables[part]) if index is None else SymbolTables(tables, index[part])

        return image_tables

    def decode_run(self, decoder: Decoder, out: NDArray[np.int32]) -> bool:
        """Decode the next channels at once, if a kernel can; this prior has none.

        Args:
            decoder: of the kernels.
            out: symbols, (channels, rows).
        """
        return False

    def observe(self, coding_step: CodingStep, symbols: Array) -> None:
        """Take the symbols of a coding step; no other step of the same channel depends on them.

        Args:
            coding_step: the coding step.
            symbols: symbols of the current run, (channels, rows).
        """

    def advance(self, symbols: Array) -> None:
        """Take the symbols of the current channel, (1, rows), and go on to the next channel.

        Args:
            symbols: symbols of the current channel, (1, rows).
        """
        prior, c = self.prior, self.channel
        if prior.is_context:
            self._codeword_sums += prior.codewords[c][symbols[0]]
        self.channel += 1
        if self.channel == self._group_start + prior.group_sizes[self._group]:
            self._group_start, self._group = self.channel, self._group + 1
            self._coefficients = None

    def _run_network(self) -> NDArray[np.float64]:
        """Return the coefficients of the current group, (rows, channels of the group, K), integers in float64."""
        prior = self.prior
        padded = np.concatenate([self._codeword_sums, np.zeros((1, self._codeword_sums.shape[1]), np.int64)]).astype(
            np.float64
        )
        out = np.empty((self.rows, prior.group_sizes[self._group] * prior.features.shape[2]))
        for start in range(0, self.rows, CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            x = padded[self._neighbours[chunk]].reshape(-1, 9 * padded.shape[1])
            for layer, (weight, bias) in enumerate(prior.networks[self._group - 1]):
                x = x @ weight.T + bias
                if layer < 2:
                    x = np.floor(np.maximum(x, 0) / (1 << WEIGHT_BITS))
            out[chunk] = np.floor(x / (1 << (WEIGHT_BITS + VALUE_BITS - COEFFICIENT_BITS)))
        return out.reshape(self.rows, prior.group_sizes[self._group], -1)


def neighbour_rows(tiles: int, height: int, width: int) -> NDArray[np.int64]:
    """Return the rows of the 3x3 neighbourhood of each row; the number of rows stands for beyond the border.

    Args:
        tiles: latents.
        height: positions.
        width: positions.

    Returns:
        (tiles * height * width, 9).
    """
    rows = tiles * height * width
    inside = np.pad(np.arange(rows).reshape(tiles, height, width), ((0, 0), (1, 1), (1, 1)), constant_values=rows)
    windows = np.lib.stride_tricks.sliding_window_view(inside, (3, 3), axis=(1, 2))
    return windows.reshape(rows, 9)
