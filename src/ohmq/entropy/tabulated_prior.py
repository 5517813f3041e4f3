"""The tabulated context prior in integers: symbols decoded so far choose one of the static tables of a channel.

The arithmetic is normative; `docs/file-format.md` describes it. Integers are carried in floating point where a matrix
product is needed: in float32 where no sum can need more than 24 bits, else in float64, where none needs more than 53.
Both are exact in any order, on any machine, and so give the same.

The context of a channel is the latent of earlier channel-conditional groups (Minnen & Singh, Channel-wise
Autoregressive Entropy Models, 2020). Channels of checkerboard groups are coded in three passes over the positions, and
the second and third pass also see the symbols of earlier passes at four neighbours (He et al., Checkerboard Context
Model, 2021, has two passes):

```
1 3 1 3
3 2 3 2    pass 2 sees the four diagonal neighbours, of pass 1
1 3 1 3    pass 3 sees the upper, lower, left and right neighbours, of passes 1 and 2
```
"""

import bisect
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ohmq.entropy.context_prior import (
    CHUNK_ROWS,
    WEIGHT_BITS,
    Array,
    CodingStep,
    SymbolTables,
    check_exp2_table,
    exp2_weights,
    integer_tensors,
    neighbour_rows,
)
from ohmq.entropy.exact_affine import FLOAT32_INTEGERS, Affine
from ohmq.entropy.kernels import (
    LARGEST_NEIGHBOUR,
    NUMPY,
    VALUE_BITS,
    Codebook,
    ContextRun,
    Decoder,
    Kernels,
    Levels,
    NeighbourNetworks,
    Neighbours,
)
from ohmq.entropy.range_coder import prepare_tables
from ohmq.entropy.tables import frequencies_from_weights

__all__ = [
    "CHECKERBOARD_LEVELS",
    "LEVELS",
    "ContextNetwork",
    "IntegerTabulatedPrior",
    "TabulatedPriorState",
    "feature_limits",
]

LEVELS = ((-8, 7), (-4, 3))
"""Lowest and highest level of each of the two coefficients."""
CHECKERBOARD_LEVELS = ((-8, 7), (-16, 15))
"""The same for checkerboard channels: neighbours predict a symbol's value, not only its spread."""
HELPED_ABOVE = 512
"""Rows from which a helper gains more than it costs to wake it."""
KEPT_SIZES = 4
"""Sizes of latents whose neighbours are kept."""
RUN_SYMBOLS = 2**18
"""Symbols whose tables are held in memory at the same time."""
_Result = TypeVar("_Result")
_PASS_NEIGHBOURS = {1: (0, 2, 6, 8), 2: (1, 7, 3, 5)}
"""Neighbours, among the 3x3 around a row, that the second and the third pass see: those of earlier passes."""


class ContextNetwork(NamedTuple):
    """Integer network of a channel-conditional group: from the latent of earlier groups to coefficients.

    Attributes:
        layers: the projection of the latent, then three layers over 3x3 projected positions.
        own_projection: the latent in the directions of the channels themselves.
        latent_limit: bound of each |latent coefficient|, (live coefficients,), if it alone proves that float32 is
            exact.
    """

    layers: list[Affine]
    own_projection: Affine
    latent_limit: NDArray[Any] | None


class IntegerTabulatedPrior:
    """Tabulated context prior in integers.

    Args:
        tensors: "logits" (C, S), "features" (C, S, 2), "exp2" (1024,), "values" (C, S), "directions" (C, D), "project"
            (C, D), "own" (C, 2, 4), for the I checkerboard channels "places" (I, S) and "spatial" (I, 2, 2, 4), where
            they have networks of H hidden units "neighbour.weight" (I, 2, H, 4), "neighbour.bias" (I, 2, H) and
            "neighbour.out" (I, 2, 2, H), and for each group g >= 1 "projection.g.weight" (P, D), "projection.g.bias"
            (P,) and for each layer l of 0, 1, 2 "network.g.l.weight" (out, in) and "network.g.l.bias" (out,).
        group_sizes: channels of each group.
        group_symbols: alphabet size of each group.
        checkerboard_groups: leading groups whose channels are coded in three passes over the positions. Default: 0.
        cut_points: channels at which layers usually end; channels between two cut points are coded together.

    Raises:
        ValueError: tensors that do not fit together, or could overflow.
    """

    def __init__(
        self,
        tensors: Mapping[str, Array],
        group_sizes: Sequence[int],
        group_symbols: Sequence[int],
        checkerboard_groups: int = 0,
        cut_points: Sequence[int] = (),
    ) -> None:
        self._segment_ends = sorted({*np.cumsum(group_sizes).tolist(), *cut_points})
        self.group_sizes, self.checkerboard_groups = tuple(group_sizes), checkerboard_groups
        self.alphabets = np.repeat(group_symbols, group_sizes)
        self.tensors = integer_tensors(tensors)
        self.num_channels, self.num_symbols = self.tensors["logits"].shape
        self.num_checkerboard_channels = sum(self.group_sizes[:checkerboard_groups])
        self._check_tables(max(group_symbols))
        self._check_checkerboard()
        self._prepare_features()
        self._prepare_latent()
        self._prepare_networks()
        self._tables: dict[int, NDArray[np.float32]] = {}  # by segment
        self._bits: dict[int, NDArray[np.float32]] = {}  # by segment
        self._central_bits: dict[int, NDArray[np.float32]] = {}  # by group

    def _check_tables(self, largest_alphabet: int) -> None:
        """Check the shapes of the tensors that all channels have."""
        shape = self.num_channels, self.num_symbols
        if sum(self.group_sizes) != self.num_channels:
            raise ValueError(f"tables of {self.num_channels} channels do not fit groups {self.group_sizes}")
        latent = self.tensors["directions"].shape[-1:]
        for name, expected in (
            ("features", (*shape, 2)), ("values", shape), ("own", (shape[0], 2, 4)), ("directions", (*shape[:1], *latent)),
            ("project", (*shape[:1], *latent)),
        ):  # fmt: skip
            if self.tensors[name].shape != expected:
                raise ValueError(f"{name} has shape {self.tensors[name].shape}; expected {expected}")
        check_exp2_table(self.tensors["exp2"], self.num_symbols)
        if largest_alphabet > self.num_symbols:
            raise ValueError(f"an alphabet of {largest_alphabet} symbols, and tables of {self.num_symbols}")

    def _check_checkerboard(self) -> None:
        """Check the tensors of checkerboard channels; without neighbour networks they get some of no hidden units."""
        channels = self.num_checkerboard_channels
        if "neighbour.weight" not in self.tensors:
            for name, shape in (("weight", (0, 4)), ("bias", (0,)), ("out", (2, 0))):
                self.tensors[f"neighbour.{name}"] = np.zeros((len(self.tensors["places"]), 2, *shape), np.int16)
        for name, limit in (("own", 2**18), ("places", 2**24), ("spatial", 2**16), ("neighbour.out", 2**16)):
            if np.abs(self.tensors[name].astype(np.int64)).max(initial=0) >= limit:
                raise ValueError(f"the prior's tensor {name} holds values of {limit} or more")
        if self.tensors["places"].shape != (channels, self.num_symbols) or self.tensors["spatial"].shape != (
            channels, 2, 2, 4,
        ):  # fmt: skip
            raise ValueError(f"the tables of {channels} checkerboard channels have another shape")
        weight, bias, out = (self.tensors[f"neighbour.{name}"] for name in ("weight", "bias", "out"))
        self.neighbour_hidden = hidden = weight.shape[2]
        expected = ((channels, 2, *shape) for shape in ((hidden, 4), (hidden,), (2, hidden)))
        if (weight.shape, bias.shape, out.shape) != tuple(expected):
            raise ValueError(f"the networks of {channels} checkerboard channels have another shape")

    def _prepare_features(self) -> None:
        """Choose the number type of the features, and convert the weights that multiply them."""
        own, symbol_values = self.tensors["own"], self.tensors["places"]
        weight, bias = self.tensors["neighbour.weight"], self.tensors["neighbour.bias"]
        spatial = np.concatenate([self.tensors["spatial"], self.tensors["neighbour.out"]], -1)
        summed = np.concatenate([own, *np.moveaxis(_with_other_channels(spatial, len(own)), 1, 0)], 2)
        features = Affine(summed.reshape(-1, summed.shape[2]))
        self.feature_type = features.exact_type(features.bounds(feature_limits(self.neighbour_hidden)))
        hidden = Affine(weight.reshape(-1, 4), bias.reshape(-1))
        if hidden.exact_type(hidden.bounds(float(LARGEST_NEIGHBOUR))) is np.float64:
            self.feature_type = np.float64
        if np.abs(symbol_values).max(initial=0) >= 2**20:  # sums of four, exact after a division by three
            self.feature_type = np.float64
        self.own, self.spatial, self.neighbour_weight, self.neighbour_bias = (
            x.astype(self.feature_type) * self.feature_type(2.0**-WEIGHT_BITS) for x in (own, spatial, weight, bias)
        )
        self.checkerboard_values: NDArray[Any] = symbol_values.astype(self.feature_type)

    def _prepare_latent(self) -> None:
        """Order the coefficients of the latent, bound them, and choose their number type."""
        # Coefficients that no earlier channel touches are zero. Ordered by the group that first touches them, the
        # leading ones suffice for each group.
        directions = self.tensors["directions"]
        ends = np.cumsum(self.group_sizes)
        first_group = np.searchsorted(ends, _first_nonzero(directions), "right")
        self._order = np.argsort(first_group, kind="stable")
        self.live = np.searchsorted(first_group[self._order], np.arange(len(ends))).tolist()
        sums = Affine(directions[:, self._order].T)
        self._largest_values = np.abs(self.tensors["values"].astype(np.float64)).max(1)
        self._latent_bounds = sums.bounds(self._largest_values)
        # Codewords are added as the difference from the middle one, so these products must be exact too.
        differences = np.abs(self.tensors["values"].astype(np.int64) - self._middle_values()).max(1)
        products = (differences.astype(np.float64) * np.abs(sums.weight(np.float64))).max(1)
        self.latent_type = sums.exact_type(np.maximum(self._latent_bounds, products))
        values: NDArray[Any] = self.tensors["values"].astype(self.latent_type)
        self.directions = sums.weight(self.latent_type).T
        self.codebooks: list[Codebook] = []
        for live, end, size in zip(self.live[1:], ends, self.group_sizes, strict=False):
            group = slice(end - size, end)
            self.codebooks.append(Codebook.of(values[group], self.directions[group, :live], self.alphabets[group]))

    def _middle_values(self) -> NDArray[np.int64]:
        """Return the value of the middle symbol of each channel, (C, 1)."""
        return np.take_along_axis(self.tensors["values"], self.alphabets[:, None] // 2, 1).astype(np.int64)

    def _prepare_networks(self) -> None:
        """Make the context network of each group but the first, and check that its sums are exact."""
        self.networks: list[ContextNetwork] = []
        directions_shape = self.tensors["directions"].shape
        for group, (start, end) in enumerate(itertools.pairwise(np.cumsum(self.group_sizes).tolist()), start=1):
            live = self._order[: self.live[group]]
            names = [f"projection.{group}", *(f"network.{group}.{layer}" for layer in range(3))]
            weights, biases = ([self.tensors[f"{name}.{kind}"] for name in names] for kind in ("weight", "bias"))
            if weights[0].shape[1:] != directions_shape[1:]:
                raise ValueError(f"the projection of group {group} has shape {weights[0].shape}")
            weights[0] = weights[0][:, live]
            layers = [Affine(weight, bias) for weight, bias in zip(weights, biases, strict=True)]
            shapes = [weight.shape for weight in weights]
            inputs = (live.size, 9 * shapes[0][0], shapes[1][0], shapes[2][0])
            if tuple(columns for _, columns in shapes) != inputs or shapes[3][0] != 2 * (end - start):
                raise ValueError(f"the network of group {group} has layers of shapes {shapes}")
            own_projection = Affine(self.tensors["project"][start:end, live])
            largest = self._latent_bounds.max(initial=0)
            own_projection.bounds(largest + 1)
            for layer in layers:
                largest = layer.bounds(largest + 1).max(initial=0)
            directions = self.directions[:start, : len(live)]
            latent_limit = self._largest_values[:start] @ np.abs(directions.astype(np.float64)) + 1
            narrow = all(x.exact_type(x.bounds(latent_limit)) is np.float32 for x in (layers[0], own_projection))
            self.networks.append(ContextNetwork(layers, own_projection, latent_limit if narrow else None))

    def segment_end(self, channel: int) -> int:
        """Return the first end of a group or cut point above a channel.

        Args:
            channel: the channel.
        """
        return self._segment_ends[bisect.bisect_right(self._segment_ends, channel)]

    def aligned(self, ends: Sequence[int]) -> bool:
        """Say whether layers with these ends keep together the channels that are coded together.

        Args:
            ends: the channels at which layers end.
        """
        return set(ends) <= set(self._segment_ends)

    @staticmethod
    def levels(checkerboard: bool) -> Levels:
        """Return the grid of the two coefficients."""
        return CHECKERBOARD_LEVELS if checkerboard else LEVELS

    def begin(
        self, tiles: int, height: int, width: int, *, kernels: Kernels = NUMPY, helper: Executor | None = None
    ) -> "TabulatedPriorState":
        """Start coding the symbols of ``tiles`` latents of the same size.

        Args:
            tiles: latents, coded channel by channel together.
            height: positions.
            width: positions.
            kernels: loops over symbols; default: numpy.
            helper: computes a part of the products beside the calling thread; default: none.

        Returns:
            The state before the first channel.
        """
        return TabulatedPriorState(self, tiles, height, width, kernels=kernels, helper=helper)

    def channel_tables(self, channels: slice) -> NDArray[np.float32]:
        """Return the tables of some channels of a segment; those of the whole segment are kept.

        Args:
            channels: a range within one segment.

        Returns:
            (channels * 128 or, in checkerboard groups, * 512; alphabet of the group), in the form of
            `ohmq.entropy.prepare_tables`: one channel after the other, the levels of the second coefficient running
            fastest.
        """
        segment, number = self._segment(channels.start)
        if number not in self._tables:
            levels = self.levels(channels.start < self.num_checkerboard_channels)
            first, second = (np.arange(low, high + 1) for low, high in levels)
            self._tables[number] = self._tables_at(segment, first[:, None, None], second[:, None])
        tables = self._tables[number]
        each = len(tables) // (segment.stop - segment.start)
        return tables[(channels.start - segment.start) * each : (channels.stop - segment.start) * each]

    def channel_bits(self, channels: slice) -> NDArray[np.float32]:
        """Return -log2 of the frequency of each symbol in each of `channel_tables`; kept like these.

        Args:
            channels: a range within one segment.

        Returns:
            (alphabet, tables).
        """
        segment, number = self._segment(channels.start)
        if number not in self._bits:
            self._bits[number] = _bits(self.channel_tables(segment))
        bits = self._bits[number]
        each = bits.shape[1] // (segment.stop - segment.start)
        return bits[:, (channels.start - segment.start) * each : (channels.stop - segment.start) * each]

    def central_bits(self, group: int) -> NDArray[np.float32]:
        """Return -log2 of the frequency of each symbol of each channel where both coefficients are zero; kept.

        Args:
            group: number of the group.

        Returns:
            (alphabet, channels of the group).
        """
        if group not in self._central_bits:
            end = sum(self.group_sizes[: group + 1])
            zero = np.zeros((1, 1, 1), int)
            self._central_bits[group] = _bits(self._tables_at(slice(end - self.group_sizes[group], end), zero, zero))
        return self._central_bits[group]

    def _segment(self, channel: int) -> tuple[slice, int]:
        """Return the channels that are coded together with a channel, and the number of that segment."""
        number = bisect.bisect_right(self._segment_ends, channel)
        return slice(self._segment_ends[number - 1] if number else 0, self._segment_ends[number]), number

    def _tables_at(self, channels: slice, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
        """Return the tables of channels of one alphabet at some levels, (channels * levels, alphabet)."""
        alphabet = self.alphabets[channels.start]
        logits = self.tensors["logits"][channels, None, None, :alphabet].astype(np.int64)
        features = self.tensors["features"][channels, None, None, :alphabet].astype(np.int64)
        shifted = logits + first * features[..., 0] + second * features[..., 1]
        weights = exp2_weights(shifted.reshape(-1, alphabet).astype(np.int64), self.tensors["exp2"].astype(np.int64))
        return prepare_tables(frequencies_from_weights(weights))


def _bits(tables: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return -log2 of frequencies: (T, S) to (S, T)."""
    bits = np.add(tables.T, 1, dtype=np.float32, order="C")  # prepared tables hold frequency - 1
    np.log(bits, out=bits)
    bits *= np.float32(-1 / np.log(2))
    return bits


class TabulatedPriorState:
    """Context of some latents whose channels are coded one run after the other; rows as in `ContextPriorState`.

    Args:
        prior: the prior.
        tiles: latents.
        height: positions.
        width: positions.
        kernels: loops over symbols.
        helper: as for `IntegerTabulatedPrior.begin`.

    Attributes:
        channel: the next channel to code.
    """

    def __init__(
        self,
        prior: IntegerTabulatedPrior,
        tiles: int,
        height: int,
        width: int,
        *,
        kernels: Kernels = NUMPY,
        helper: Executor | None = None,
    ) -> None:
        self.prior, self.kernels = prior, kernels
        self._helper = helper if tiles * height * width >= HELPED_ABOVE else None
        self.height, self.width, self.rows = height, width, tiles * height * width
        self.channel = 0
        self._tiles = tiles
        self._latent: NDArray[Any] = np.zeros((self.rows, prior.directions.shape[1]), prior.latent_type)
        self._group, self._group_start = 0, 0
        self._group_symbols = np.empty((prior.group_sizes[0], self.rows), np.int32)
        self._group_coefficients: tuple[NDArray[Any], NDArray[np.float32]] | None = None
        self._passes, self._neighbours = _checkerboard(tiles, height, width, prior.feature_type)
        self._neighbour_values: NDArray[Any] = np.zeros((0, self.rows + 1), prior.feature_type)

    @property
    def _is_checkerboard(self) -> bool:
        return self._group < self.prior.checkerboard_groups

    def channel_run(self, limit: int) -> int:
        """Return the number of next channels that are coded together, at most ``limit``.

        Args:
            limit: limit on the number of channels.
        """
        return min(self.prior.segment_end(self.channel) - self.channel, limit)

    def coding_steps(self, images: int, channels: int) -> Iterator[CodingStep]:
        """Divide the next channels into coding steps.

        Args:
            images: the rows belong to this number of images, in equal parts.
            channels: of `channel_run`.

        Yields:
            The steps in the order of coding. The symbols of each are passed to `observe` before the next is requested.
        """
        first = self.channel - self._group_start
        own_run, network_run = (part[first : first + channels] for part in self._known_coefficients())
        checkerboard = self._is_checkerboard
        self._neighbour_values = np.zeros((channels if checkerboard else 0, self.rows + 1), self.prior.feature_type)
        levels = self.prior.levels(checkerboard)
        step = max(1, RUN_SYMBOLS // self.rows)
        for number, rows in enumerate(self._passes if checkerboard else [np.arange(self.rows)]):
            if rows.size == 0:
                continue
            image_rows = rows.reshape(images, -1)
            for start in range(0, channels, step):
                part = slice(start, min(start + step, channels))
                neighbours = self._neighbour_coefficients(number, part) if number else None
                indexes = self.kernels.build_indexes(
                    own_run[part], network_run[part], levels, rows if checkerboard else None, neighbours
                ).reshape(-1, *image_rows.shape)
                tables = functools.partial(self._image_tables, self.channel + start, indexes)
                yield CodingStep(0, part, image_rows, tables)

    def decode_run(self, decoder: Decoder, out: NDArray[np.int32]) -> bool:
        """Decode the next channels at once, if the kernels can: the symbols of all coding steps.

        Args:
            decoder: of the kernels.
            out: symbols, (channels of `channel_run`, rows), overwritten if they can.

        Returns:
            Whether they can.

        Raises:
            BitstreamError: a payload that cannot be decoded.
        """
        if self.kernels.decode_run is None:
            return False
        prior, first, later = self.prior, self.channel - self._group_start, range(0)
        channels = slice(self.channel, self.channel + len(out))
        own, network = (part[first : first + len(out)] for part in self._known_coefficients())
        passes, values = [np.arange(self.rows)], prior.checkerboard_values[:0]
        if self._is_checkerboard:
            passes, values = self._passes, prior.checkerboard_values[channels]
            later = range(1, len(passes))
        run = ContextRun(
            prior.channel_tables(channels),
            own,
            network,
            prior.levels(self._is_checkerboard),
            passes,
            [self._neighbours[number] for number in later],
            [self._neighbour_networks(number, channels) for number in later],
            values,
        )
        self.kernels.decode_run(decoder, run, out)
        return True

    def _known_coefficients(self) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Return the coefficients of the group, which are computed once."""
        if self._group_coefficients is None:
            self._group_coefficients = self._coefficients()
        return self._group_coefficients

    def _image_tables(self, channel: int, indexes: NDArray[np.int32], image: int) -> SymbolTables:
        """Return the tables of an image, for the channels from ``channel`` on; indexes: (channels, images, m)."""
        tables = self.prior.channel_tables(slice(channel, channel + len(indexes)))
        first = np.arange(len(indexes), dtype=np.int32)[:, None] * np.int32(len(tables) // len(indexes))
        return SymbolTables(tables, (indexes[:, image] + first).reshape(-1), in_order=True)

    def observe(self, coding_step: CodingStep, symbols: Array) -> None:
        """Take the symbols of a coding step, which later passes see.

        Args:
            coding_step: the step.
            symbols: of all channels of the run, (channels, rows).
        """
        if self._is_checkerboard:
            part = coding_step.channels
            values = self.prior.checkerboard_values[self.channel + part.start : self.channel + part.stop]
            # Rows of later passes get meaningless values here; nothing reads them before their pass overwrites them.
            self.kernels.look_up(values, symbols[part], self._neighbour_values[part])

    def advance(self, symbols: Array) -> None:
        """Take the symbols of the next channels and go on to the channels after them.

        Args:
            symbols: (channels, rows).
        """
        prior = self.prior
        first = self.channel - self._group_start
        self._group_symbols[first : first + len(symbols)] = symbols
        self.channel += len(symbols)
        if self._group_start + len(self._group_symbols) == self.channel < prior.num_channels:
            self.kernels.add_codewords(prior.codebooks[self._group], self._group_symbols, self._latent)
            self._group += 1
            self._group_start, self._group_coefficients = self.channel, None
            self._group_symbols = np.empty((prior.group_sizes[self._group], self.rows), np.int32)

    def _start(self, function: Callable[..., _Result], *arguments: Any) -> Callable[[], _Result]:
        """Start a part of the work beside this thread, or do it; returns a function that gives its result."""
        if self._helper is not None:
            return self._helper.submit(function, *arguments).result
        result = function(*arguments)
        return lambda: result

    def _coefficients(self) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Return the own coefficients and the network coefficients of the group, each (channels, 2, rows)."""
        prior = self.prior
        size = prior.group_sizes[self._group]
        if self._group == 0:
            return np.zeros((size, 2, self.rows), prior.feature_type), np.zeros((size, 2, self.rows), np.float32)
        network = prior.networks[self._group - 1]
        latent = self._latent[:, : prior.live[self._group]]
        if network.latent_limit is not None:
            latent, largest = np.floor(latent), network.latent_limit
        else:
            latent = latent.copy()
            largest = self.kernels.floor_in_place(latent, -np.inf)
        own = self._start(self._own_coefficients, network, latent, largest)
        coefficients = self._network_coefficients(network, latent, largest)
        return own(), coefficients

    def _own_coefficients(self, network: ContextNetwork, latent: NDArray[Any], largest: NDArray[Any]) -> NDArray[Any]:
        """Return the share of the channels' own projections of the latent, (channels, 2, rows)."""
        own = network.own_projection.integers(latent, largest)
        weights = self.prior.own[self._group_start : self._group_start + len(own)]
        return self.kernels.own_coefficients(weights, own, (self._tiles, self.height, self.width))

    def _network_coefficients(
        self, network: ContextNetwork, latent: NDArray[Any], largest: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Run the network on the latent, (rows, live), with |latent| <= largest; returns (channels, 2, rows)."""
        tiles, height, width = self._tiles, self.height, self.width
        floor_in_place = self.kernels.floor_in_place
        projection, *layers, last = network.layers
        projected = projection(latent, largest)
        largest = floor_in_place(projected, -np.inf)
        if largest.max(initial=0) < FLOAT32_INTEGERS:  # half the memory, and no conversion of nine positions each
            projected, largest = projected.astype(np.float32, copy=False), largest.astype(np.float32)
        largest_inputs = np.tile(largest, 9)
        depth = projected.shape[1]
        padded = np.zeros((tiles, height + 2, width + 2, depth), projected.dtype)
        padded[:, 1:-1, 1:-1] = projected.reshape(tiles, height, width, -1)
        # The three positions of a row of a 3x3 neighbourhood lie one after the other in memory.
        a, b, c, d = padded.strides
        around = as_strided(padded, (tiles, height, width, 3, 3 * depth), (a, b, c, b, d), writeable=False)
        out = np.empty((2 * self.prior.group_sizes[self._group], tiles, height, width), np.float32)

        def compute(first: int, end: int) -> None:
            for chunk in _chunks(tiles, first, end, width):
                x, limit = around[chunk].reshape(-1, len(largest_inputs)), largest_inputs
                for layer in layers:
                    x = layer(x, limit)
                    limit = floor_in_place(x, 0)
                chunk_out = out[:, *chunk]
                chunk_out[:] = last.integers(x, limit).reshape(chunk_out.shape)

        split = height
        if self._helper is not None:
            # The calling thread has computed the projection; the helper has the own coefficients to compute before.
            before, later = network.own_projection.size - projection.size, sum(layer.size for layer in (*layers, last))
            split = min(height, round(height * (1 + before / later) / 2))
        others = self._start(compute, split, height)
        compute(0, split)
        others()
        return out.reshape(-1, 2, self.rows)

    def _neighbour_coefficients(self, number: int, part: slice) -> NDArray[Any]:
        """Return the share of earlier passes, for some channels of the run and the rows of a pass; (channels, 2, m)."""
        networks = self._neighbour_networks(number, slice(self.channel + part.start, self.channel + part.stop))
        return self.kernels.neighbour_coefficients(networks, self._neighbour_values[part], self._neighbours[number])

    def _neighbour_networks(self, number: int, channels: slice) -> NeighbourNetworks:
        """Return the weights of a pass for some channels."""
        weights = self.prior.spatial, self.prior.neighbour_weight, self.prior.neighbour_bias
        return NeighbourNetworks(*(weight[channels, number - 1] for weight in weights))


@functools.lru_cache(maxsize=KEPT_SIZES)
def _checkerboard(
    tiles: int, height: int, width: int, kind: type
) -> tuple[list[NDArray[np.int64]], dict[int, Neighbours]]:
    """Return the rows of each of the three passes, and the neighbours that the second and the third see."""
    row, column = np.arange(height)[:, None] % 2, np.arange(width) % 2
    number = np.tile(np.where(row == column, row, 2).ravel(), tiles)
    passes = [np.flatnonzero(number == each) for each in range(3)]
    around = neighbour_rows(tiles, height, width)
    neighbours = {}
    for each, columns in _PASS_NEIGHBOURS.items():
        index = np.ascontiguousarray(around[passes[each]][:, columns].T)
        in_bounds: NDArray[Any] = (index < len(number)).astype(kind)
        neighbours[each] = Neighbours(index, in_bounds, np.maximum(in_bounds.sum(0), 1))
    return passes, neighbours


def _first_nonzero(rows: Array) -> NDArray[np.int64]:
    """Return the first row in which each column is not zero; the number of rows if there is none."""
    nonzero = rows != 0
    return np.where(nonzero.any(0), nonzero.argmax(0), len(rows))


def feature_limits(hidden: int) -> NDArray[np.int64]:
    """Return the largest features: of a channel's own projection, then of neighbours in the second and the third pass.

    Args:
        hidden: hidden units of each neighbour network.

    Returns:
        (4 + 2 * (4 + hidden),), with `VALUE_BITS` fraction bits.
    """
    neighbours = [1 << VALUE_BITS, *(3 + hidden) * [LARGEST_NEIGHBOUR]]
    return np.array([2 << VALUE_BITS, 2 << VALUE_BITS, 1 << VALUE_BITS, 1 << VALUE_BITS, *2 * neighbours])


def _with_other_channels(spatial: Array, channels: int) -> NDArray[Any]:
    """Append zeros for the channels outside checkerboard groups, (channels, 2, 2, features)."""
    out = np.zeros((channels, *spatial.shape[1:]), np.int32)
    out[: len(spatial)] = spatial
    return out


def _chunks(tiles: int, first: int, end: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Divide some lines of all tiles into chunks of about `CHUNK_ROWS` rows: (tiles, lines)."""
    lines = max(1, CHUNK_ROWS // width)
    tiles_at_once = max(1, CHUNK_ROWS // max(1, (end - first) * width))
    for tile in range(0, tiles, tiles_at_once):
        for line in range(first, end, lines):
            yield slice(tile, tile + tiles_at_once), slice(line, min(line + lines, end))
