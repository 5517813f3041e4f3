"""The choice prior frozen to integers: symbols decoded so far choose one of the static tables of a channel.

The arithmetic is normative; `docs/file-format.md` describes it. Integers are carried in floating point where a matrix product
is needed: in float32 where no sum can need more than 24 bits, else in float64, where none needs more than 53. Both are exact in
any order, on any machine, and so give the same.
"""

import bisect
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ohmq.entropy.context_prior import (
    CHUNK_ROWS,
    LOGIT_BITS,
    WEIGHT_BITS,
    Array,
    CodingStep,
    SymbolTables,
    exp2_weights,
    integer_tensors,
    neighbour_rows,
)
from ohmq.entropy.exact_affine import Affine
from ohmq.entropy.kernels import LARGEST_NEIGHBOUR, NUMPY, VALUE_BITS, Kernels, Levels
from ohmq.entropy.range_coder import prepare_tables
from ohmq.entropy.tables import frequencies_from_weights

__all__ = ["CHECKERBOARD_LEVELS", "LEVELS", "IntegerTabulatedPrior", "TabulatedPriorState", "feature_limits"]

LEVELS = ((-8, 7), (-4, 3))
"""Lowest and highest level of each of the two coefficients."""
CHECKERBOARD_LEVELS = ((-8, 7), (-16, 15))
"""The same for interlaced channels: neighbours predict a symbol's value, not only its spread."""
RUN_SYMBOLS = 2**18
"""Symbols whose tables are held at a time."""
_NEIGHBOURS = {1: (0, 2, 6, 8), 2: (1, 7, 3, 5)}
"""Which of the nine around a row the second and the third pass look at: those of earlier passes."""


class IntegerTabulatedPrior:
    """A choice prior in integers.

    Args:
        tensors: "logits" (C, S), "features" (C, S, 2), "exp2" (1024,), "values" (C, S), "directions" (C, D), "project"
            (C, D), "own" (C, 2, 4), for the I interlaced channels "places" (I, S) and "spatial" (I, 2, 2, 4), where they have
            networks of H hidden units "neighbour.weight" (I, 2, H, 4), "neighbour.bias" (I, 2, H) and "neighbour.out"
            (I, 2, 2, H), and for each group g >= 1 "projection.g.weight" (P, D), "projection.g.bias" (P,) and
            for each layer l of 0, 1, 2 "network.g.l.weight" (out, in) and "network.g.l.bias" (out,).
        group_sizes: channels of each group. group_symbols: the alphabet size of each group.
        checkerboard_groups: leading groups whose channels are coded in three passes over the positions.
        cut_points: where layers end as a rule: channels between two of them are coded together.

    Attributes:
        kernels: what runs the loops over symbols.

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
        self.kernels: Kernels = NUMPY
        self.tensors = integer_tensors(tensors)
        self.num_channels, self.num_symbols = shape = self.tensors["logits"].shape
        if sum(self.group_sizes) != self.num_channels:
            raise ValueError(f"tables of {self.num_channels} channels do not fit groups {self.group_sizes}")
        latent = self.tensors["directions"].shape[-1:]
        for name, expected in (
            ("features", (*shape, 2)), ("values", shape), ("own", (shape[0], 2, 4)), ("directions", (*shape[:1], *latent)),
            ("project", (*shape[:1], *latent)), ("exp2", (1 << LOGIT_BITS,)),
        ):  # fmt: skip
            if self.tensors[name].shape != expected:
                raise ValueError(f"{name} has shape {self.tensors[name].shape}; expected {expected}")
        if max(group_symbols) > self.num_symbols:
            raise ValueError(f"an alphabet of {max(group_symbols)} symbols, and tables of {self.num_symbols}")
        if "neighbour.weight" not in self.tensors:
            for name, shape in (("weight", (0, 4)), ("bias", (0,)), ("out", (2, 0))):
                self.tensors[f"neighbour.{name}"] = np.zeros((len(self.tensors["places"]), 2, *shape), np.int16)
        for name, limit in (("own", 2**18), ("places", 2**24), ("spatial", 2**16), ("neighbour.out", 2**16)):
            if np.abs(self.tensors[name].astype(np.int64)).max(initial=0) >= limit:
                raise ValueError(f"the prior's tensor {name} holds values of {limit} or more")
        interlaced = sum(self.group_sizes[:checkerboard_groups])
        own, places, spatial = (self.tensors[name] for name in ("own", "places", "spatial"))
        if places.shape != (interlaced, self.num_symbols) or spatial.shape != (interlaced, 2, 2, 4):
            raise ValueError(f"the tables of {interlaced} interlaced channels have another shape")
        weight, bias, out = (self.tensors[f"neighbour.{name}"] for name in ("weight", "bias", "out"))
        self.neighbour_hidden = hidden = weight.shape[2]
        wanted = ((interlaced, 2, *shape) for shape in ((hidden, 4), (hidden,), (2, hidden)))
        if (weight.shape, bias.shape, out.shape) != tuple(wanted):
            raise ValueError(f"the networks of {interlaced} interlaced channels have another shape")
        spatial = np.concatenate([spatial, out], -1)
        together = np.concatenate([own, *np.moveaxis(_of_all_channels(spatial, len(own)), 1, 0)], 2)
        features = Affine(together.reshape(-1, together.shape[2]))
        self.feature_type = features.exact_type(features.bounds(feature_limits(hidden)))
        neighbours = Affine(weight.reshape(-1, 4), bias.reshape(-1))
        if neighbours.exact_type(neighbours.bounds(float(LARGEST_NEIGHBOUR))) is np.float64:
            self.feature_type = np.float64
        if np.abs(places).max(initial=0) >= 2**20:  # sums of four, exact after a division by three
            self.feature_type = np.float64
        self.own, self.spatial, self.neighbour_weight, self.neighbour_bias = (
            x.astype(self.feature_type) * self.feature_type(2.0**-WEIGHT_BITS) for x in (own, spatial, weight, bias)
        )
        self.places: NDArray[Any] = places.astype(self.feature_type)
        # Coefficients that no earlier channel touches are zero: in the order in which they come, the first so many suffice.
        ends = np.cumsum(self.group_sizes).tolist()
        directions = self.tensors["directions"]
        first_group = np.searchsorted(ends, _first_nonzero(directions), "right")
        order = np.argsort(first_group, kind="stable")
        self.live = np.searchsorted(first_group[order], np.arange(len(ends))).tolist()
        sums = Affine(directions[:, order].T)
        largest_values = np.abs(self.tensors["values"].astype(np.float64)).max(1)
        latent_bounds = sums.bounds(largest_values)
        self.latent_type = sums.exact_type(latent_bounds)
        self.values: NDArray[Any] = self.tensors["values"].astype(self.latent_type)
        self.directions = sums.weight(self.latent_type).T
        self.layers: list[list[Affine]] = []
        self.projects: list[Affine] = []
        self.reaches: list[NDArray[Any] | None] = []  # what no latent exceeds before a group, where that says enough
        for group, (start, end) in enumerate(itertools.pairwise(ends), start=1):
            live = order[: self.live[group]]
            names = [f"projection.{group}", *(f"network.{group}.{layer}" for layer in range(3))]
            weights, biases = ([self.tensors[f"{name}.{kind}"] for name in names] for kind in ("weight", "bias"))
            weights[0] = weights[0][:, live]
            parts = [Affine(weight, bias) for weight, bias in zip(weights, biases, strict=True)]
            project = Affine(self.tensors["project"][start:end, live])
            largest = latent_bounds.max(initial=0)
            project.bounds(largest + 1)
            for part in parts:
                largest = part.bounds(largest + 1).max(initial=0)
            reach = largest_values[:start] @ np.abs(self.directions[:start, : len(live)].astype(np.float64)) + 1
            narrow = all(x.exact_type(x.bounds(reach)) is np.float32 for x in (parts[0], project))
            self.layers.append(parts)
            self.projects.append(project)
            self.reaches.append(reach if narrow else None)
        self._tables: dict[int, NDArray[np.float32]] = {}  # of each segment
        self._bits: dict[int, NDArray[np.float32]] = {}
        self._central: dict[int, NDArray[np.float32]] = {}  # of each group

    def segment_end(self, channel: int) -> int:
        """The first end of a group or cut point above a channel."""
        return self._segment_ends[bisect.bisect_right(self._segment_ends, channel)]

    def aligned(self, ends: Sequence[int]) -> bool:
        """Whether layers with these ends keep together what is coded together."""
        return set(ends) <= set(self._segment_ends)

    @staticmethod
    def levels(interlaced: bool) -> Levels:
        """The grid of the two coefficients."""
        return CHECKERBOARD_LEVELS if interlaced else LEVELS

    def begin(self, tiles: int, height: int, width: int, *, kernels: Kernels | None = None) -> "TabulatedPriorState":
        """Start coding the symbols of ``tiles`` latents of the same size.

        Args:
            tiles: latents, coded channel by channel together.
            height: positions.
            width: positions.
            kernels: the loops over symbols; None: those of the attribute ``kernels``.

        Returns:
            The state before the first channel.
        """
        return TabulatedPriorState(self, tiles, height, width, kernels or self.kernels)

    def channel_tables(self, channels: slice) -> NDArray[np.float32]:
        """The tables of some channels of a segment, one channel after the other, the levels of the second coefficient running
        fastest; kept for the whole segment.

        Shape:
            Returns: (channels * 128 or, interlaced, * 512; alphabet of the group), as `ohmq.entropy.prepare_tables` gives
            them.
        """
        segment, number = self._segment(channels.start)
        if number not in self._tables:
            first, second = (np.arange(low, high + 1) for low, high in self.levels(channels.start < len(self.places)))
            self._tables[number] = self._tables_at(segment, first[:, None, None], second[:, None])
        tables = self._tables[number]
        each = len(tables) // (segment.stop - segment.start)
        return tables[(channels.start - segment.start) * each : (channels.stop - segment.start) * each]

    def channel_bits(self, channels: slice) -> NDArray[np.float32]:
        """What each symbol costs in each of `channel_tables`, but for a constant; (alphabet, tables), kept as those."""
        segment, number = self._segment(channels.start)
        if number not in self._bits:
            self._bits[number] = _bits(self.channel_tables(segment))
        bits = self._bits[number]
        each = bits.shape[1] // (segment.stop - segment.start)
        return bits[:, (channels.start - segment.start) * each : (channels.stop - segment.start) * each]

    def central_bits(self, group: int) -> NDArray[np.float32]:
        """The same for the table of each channel of a group where both coefficients are zero, (alphabet, channels); kept."""
        if group not in self._central:
            end = sum(self.group_sizes[: group + 1])
            zero = np.zeros((1, 1, 1), int)
            self._central[group] = _bits(self._tables_at(slice(end - self.group_sizes[group], end), zero, zero))
        return self._central[group]

    def _segment(self, channel: int) -> tuple[slice, int]:
        """The channels that are coded together with one, and their number among such segments."""
        number = bisect.bisect_right(self._segment_ends, channel)
        return slice(self._segment_ends[number - 1] if number else 0, self._segment_ends[number]), number

    def _tables_at(self, channels: slice, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
        """The tables of channels of one alphabet at levels of the coefficients, (channels * levels, alphabet)."""
        alphabet = self.alphabets[channels.start]
        logits = self.tensors["logits"][channels, None, None, :alphabet].astype(np.int64)
        features = self.tensors["features"][channels, None, None, :alphabet].astype(np.int64)
        whole = logits + first * features[..., 0] + second * features[..., 1]
        weights = exp2_weights(whole.reshape(-1, alphabet).astype(np.int64), self.tensors["exp2"].astype(np.int64))
        return prepare_tables(frequencies_from_weights(weights))


def _bits(tables: NDArray[np.float32]) -> NDArray[np.float32]:
    """-log2 of frequencies, given less 1: (T, S) to (S, T)."""
    bits = np.add(tables.T, 1, dtype=np.float32, order="C")
    np.log(bits, out=bits)
    bits *= np.float32(-1 / np.log(2))
    return bits


class TabulatedPriorState:
    """What is known while the channels of some latents are coded one after the other; rows as in `ContextPriorState`."""

    def __init__(
        self, prior: IntegerTabulatedPrior, tiles: int, height: int, width: int, kernels: Kernels = NUMPY
    ) -> None:
        self.prior, self.height, self.width, self.rows = prior, height, width, tiles * height * width
        self.kernels = kernels
        self.channel = 0
        self._tiles = tiles
        self._latent: NDArray[Any] = np.zeros((self.rows, prior.directions.shape[1]), prior.latent_type)
        self._group, self._group_start = 0, 0
        self._taken: NDArray[Any] = np.empty((prior.group_sizes[0], self.rows), prior.latent_type)
        self._parts: tuple[NDArray[Any], NDArray[np.float32]] | None = None
        row, column = np.arange(height)[:, None] % 2, np.arange(width) % 2
        passes = np.tile(np.where(row == column, row, 2).ravel(), tiles)
        self._passes = [np.flatnonzero(passes == number) for number in range(3)]
        around = neighbour_rows(tiles, height, width)
        self._near = {}
        for number, at in _NEIGHBOURS.items():
            near = np.ascontiguousarray(around[self._passes[number]][:, at].T)
            there: NDArray[Any] = (near < self.rows).astype(prior.feature_type)
            self._near[number] = near, there, np.maximum(there.sum(0), 1)
        self._places: NDArray[Any] = np.zeros((0, self.rows + 1), prior.feature_type)

    @property
    def _is_checkerboard(self) -> bool:
        return self._group < self.prior.checkerboard_groups

    def run(self, most: int) -> int:
        """How many of the next channels are coded together, at most ``most``."""
        return min(self.prior.segment_end(self.channel) - self.channel, most)

    def coding_steps(self, pictures: int, channels: int) -> Iterator[CodingStep]:
        """What to code of the next ``channels`` channels (from `run`), in this order; see `CodingStep`."""
        if self._parts is None:
            self._parts = self._coefficients()
        first = self.channel - self._group_start
        own, network = (part[first : first + channels] for part in self._parts)
        self._places = np.zeros((channels if self._is_checkerboard else 0, self.rows + 1), self.prior.feature_type)
        step = max(1, RUN_SYMBOLS // self.rows)
        for number, rows in enumerate(self._passes if self._is_checkerboard else [np.arange(self.rows)]):
            if rows.size == 0:
                continue
            for start in range(0, channels, step):
                part = slice(start, min(start + step, channels))
                o, u = own[part], network[part]
                if self._is_checkerboard:
                    o, u = o.take(rows, 2), u.take(rows, 2)
                    if number:
                        o += self._spatial(number, part)
                each = rows.reshape(pictures, -1)
                levels = self.prior.levels(self._is_checkerboard)
                chosen = self.kernels.build_indexes(o, u, levels).reshape(-1, *each.shape)
                yield CodingStep(0, part, each, functools.partial(self._picture_tables, self.channel + start, chosen))

    def _picture_tables(self, channel: int, chosen: NDArray[np.int32], number: int) -> SymbolTables:
        """The tables of channels from one on that were chosen, (channels, pictures, m), in one picture."""
        tables = self.prior.channel_tables(slice(channel, channel + len(chosen)))
        first = np.arange(len(chosen), dtype=np.int32)[:, None] * np.int32(len(tables) // len(chosen))
        return SymbolTables(tables, (chosen[:, number] + first).reshape(-1), in_order=True)

    def learn(self, coding_step: CodingStep, symbols: Array) -> None:
        """Take the symbols of a coding_step, those of all channels and rows in shape (channels, rows)."""
        if self._is_checkerboard:
            part = coding_step.channels
            places = self.prior.places[self.channel + part.start : self.channel + part.stop]
            # Rows of later passes get whatever stands there: nobody looks at them before their turn.
            self.kernels.look_up(places, symbols[part], self._places[part])

    def advance(self, symbols: Array) -> None:
        """Take the symbols of the next channels, shape (channels, rows), and go on to those after them."""
        prior = self.prior
        first = self.channel - self._group_start
        values = prior.values[self.channel : self.channel + len(symbols)]
        self.kernels.look_up(values, symbols, self._taken[first : first + len(symbols)])
        self.channel += len(symbols)
        if self._group_start + len(self._taken) == self.channel < prior.num_channels:
            self._group += 1
            live = slice(0, prior.live[self._group])
            self._latent[:, live] += self._taken.T @ prior.directions[self._group_start : self.channel, live]
            self._group_start, self._parts = self.channel, None
            self._taken = np.empty((prior.group_sizes[self._group], self.rows), prior.latent_type)

    def _coefficients(self) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """What the channels' own coefficients and the network say of the group, each (channels, 2, rows)."""
        prior = self.prior
        size = prior.group_sizes[self._group]
        if self._group == 0:
            return np.zeros((size, 2, self.rows), prior.feature_type), np.zeros((size, 2, self.rows), np.float32)
        channels = slice(self._group_start, self._group_start + size)
        floored = self.kernels.floored
        latent = self._latent[:, : prior.live[self._group]].copy()
        found = floored(latent, -np.inf)
        reach = prior.reaches[self._group - 1]
        largest = found if reach is None else reach
        projection, *layers, last = prior.layers[self._group - 1]
        # Neighbours in a row lie one after the other: three runs of three positions around each one.
        tiles, height, width = self._tiles, self.height, self.width
        seen = projection(latent, largest)
        largest_seen = np.tile(floored(seen, -np.inf), 9)
        padded = np.zeros((tiles, height + 2, width + 2, seen.shape[1]), seen.dtype)
        padded[:, 1:-1, 1:-1] = seen.reshape(tiles, height, width, -1)
        a, b, c, d = padded.strides
        around = as_strided(padded, (tiles, height, width, 3, 3 * seen.shape[1]), (a, b, c, b, d), writeable=False)
        network = np.empty((2 * size, tiles, height, width), np.float32)
        for part in _chunks(tiles, height, width):
            x, reach = around[part].reshape(-1, len(largest_seen)), largest_seen
            for layer in layers:
                x = layer(x, reach)
                reach = floored(x, 0)
            place = network[:, *part]
            place[:] = last.integers(x, reach).reshape(place.shape)
        project = prior.projects[self._group - 1]
        own = project.integers(latent, largest)
        shape = tiles, height, width
        return self.kernels.own_coefficients(prior.own[channels], own, shape), network.reshape(size, 2, -1)

    def _spatial(self, number: int, part: slice) -> NDArray[Any]:
        """What symbols of earlier passes add for some channels of the run at the rows of a pass, (channels, 2, rows)."""
        first, last = self.channel + part.start, self.channel + part.stop
        of = slice(first, last), number - 1
        prior = self.prior
        return self.kernels.neighbour_coefficients(
            prior.spatial[of],
            prior.neighbour_weight[of],
            prior.neighbour_bias[of],
            self._places[part],
            *self._near[number],
        )


def _first_nonzero(rows: Array) -> NDArray[np.int64]:
    """The first row in which each column is not zero; the number of rows where there is none."""
    there = rows != 0
    return np.where(there.any(0), there.argmax(0), len(rows))


def feature_limits(hidden: int) -> NDArray[np.int64]:
    """The largest features: of a channel's own coefficient, then of neighbours' symbols in the second and the third pass."""
    neighbours = [1 << VALUE_BITS, *(3 + hidden) * [LARGEST_NEIGHBOUR]]
    return np.array([2 << VALUE_BITS, 2 << VALUE_BITS, 1 << VALUE_BITS, 1 << VALUE_BITS, *2 * neighbours])


def _of_all_channels(spatial: Array, channels: int) -> NDArray[Any]:
    """With zeros for channels that are not interlaced, (channels, 2, 2, features)."""
    out = np.zeros((channels, *spatial.shape[1:]), np.int32)
    out[: len(spatial)] = spatial
    return out


def _chunks(tiles: int, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Tiles and lines of them, of about `CHUNK_ROWS` rows together."""
    lines = min(height, max(1, CHUNK_ROWS // width))
    several = max(1, CHUNK_ROWS // (height * width))
    for first in range(0, tiles, several):
        for line in range(0, height, lines):
            yield slice(first, first + several), slice(line, line + lines)
