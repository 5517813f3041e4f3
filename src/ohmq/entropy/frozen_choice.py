"""The choice prior frozen to integers: symbols decoded so far choose one of the static tables of a channel.

The arithmetic is normative; `docs/file-format.md` describes it. Integers are carried in float64 where a matrix product is
needed: every sum stays below 2^53, so it is exact in any order, on any machine.
"""

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.frozen import CHUNK_ROWS, VALUE_BITS, WEIGHT_BITS, Array, Portion, exp2_weights, neighbour_rows
from ohmq.entropy.range_coder import prepare_tables
from ohmq.entropy.tables import frequencies_from_weights

__all__ = ["INTERLACED_LEVELS", "LEVELS", "LEVEL_BITS", "SPATIAL_LIMIT", "ChoiceState", "FrozenChoicePrior"]

LEVEL_BITS = 2
"""Fraction bits of a coefficient's grid: quarters."""
LEVELS = ((-8, 7), (-4, 3))
"""Lowest and highest level of each of the two coefficients."""
INTERLACED_LEVELS = ((-8, 7), (-16, 15))
"""The same for interlaced channels: neighbours predict a symbol's value, not only its spread."""
SPATIAL_LIMIT = 8
"""Features of neighbours' symbols are clipped to so many steps."""
RUN_SYMBOLS = 2**18
"""Symbols whose tables are held at a time."""
_DIAGONAL, _DIRECT = ((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (1, 0), (0, -1), (0, 1))
_LIMIT = 2**52
_FAR = 2**20
"""What is larger than this is cut off to it: no grid and no feature reaches so far."""


class FrozenChoicePrior:
    """A choice prior in integers.

    Args:
        tensors: "logits" (C, S), "features" (C, S, 2), "exp2" (1024,), "values" (C, S), "directions" (C, D), "project"
            (C, D), "own" (C, 2, 4), for the interlaced channels "places" (channels, S) and "spatial" (channels, 2, 2, 4),
            and for each group g >= 1 "projection.g.weight" (P, D), "projection.g.bias" (P,) and
            for each layer l of 0, 1, 2 "network.g.l.weight" (out, in) and "network.g.l.bias" (out,).
        group_sizes: channels of each group. group_symbols: the alphabet size of each group.
        interlaced_groups: leading groups whose channels are coded in three passes over the positions.
        cut_points: where layers end as a rule: channels between two of them are coded together.

    Raises:
        ValueError: tensors that do not fit together, or could overflow.
    """

    def __init__(
        self,
        tensors: Mapping[str, Array],
        group_sizes: Sequence[int],
        group_symbols: Sequence[int],
        interlaced_groups: int = 0,
        cut_points: Sequence[int] = (),
    ) -> None:
        self._segment_ends = sorted({*np.cumsum(group_sizes).tolist(), *cut_points})
        self.group_sizes, self.interlaced_groups = tuple(group_sizes), interlaced_groups
        self.alphabets = np.repeat(group_symbols, group_sizes)
        self.tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        self.num_channels, self.num_symbols = self.tensors["logits"].shape
        if sum(self.group_sizes) != self.num_channels:
            raise ValueError(f"tables of {self.num_channels} channels do not fit groups {self.group_sizes}")
        self.values, self.directions, self.project = (
            self.tensors[name].astype(np.float64) for name in ("values", "directions", "project")
        )
        self.own, self.places, self.spatial = (
            self.tensors[name].astype(np.int32) for name in ("own", "places", "spatial")
        )
        # Four products of each with features of at most 2^9, 2^20 and 2^11 must fit 32 bits together.
        for name, limit in (("own", 2**18), ("places", 2**24), ("spatial", 2**16)):
            if np.abs(self.tensors[name].astype(np.int64)).max(initial=0) >= limit:
                raise ValueError(f"the prior's tensor {name} holds values of {limit} or more")
        interlaced = sum(self.group_sizes[:interlaced_groups])
        if self.places.shape != (interlaced, self.num_symbols) or self.spatial.shape != (interlaced, 2, 2, 4):
            raise ValueError(f"the tables of {interlaced} interlaced channels have another shape")
        bound = np.abs(self.values).max(1) @ np.abs(self.directions)
        self._check(bound.max())
        self._check(bound.max() * np.abs(self.project).sum(1).max())
        self.layers: list[list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = []
        for group in range(1, len(self.group_sizes)):
            names = [f"projection.{group}", *(f"network.{group}.{layer}" for layer in range(3))]
            parts = [
                (self.tensors[f"{name}.weight"].astype(np.float64), self.tensors[f"{name}.bias"].astype(np.float64))
                for name in names
            ]
            largest = bound.max() / 2**WEIGHT_BITS + 1
            for weight, bias in parts:
                largest = float((np.abs(weight).sum(1) * largest + np.abs(bias)).max())
                self._check(largest)
                largest = largest / 2**WEIGHT_BITS + 1
            self.layers.append(parts)
        self._tables: dict[int, NDArray[np.float64]] = {}

    @staticmethod
    def _check(largest: float) -> None:
        if not largest < _LIMIT:
            raise ValueError("the choice prior could leave the range of exact integers")

    def segment_end(self, channel: int) -> int:
        """The first end of a group or cut point above a channel."""
        return self._segment_ends[bisect.bisect_right(self._segment_ends, channel)]

    def aligned(self, ends: Sequence[int]) -> bool:
        """Whether layers with these ends keep together what is coded together."""
        return set(ends) <= set(self._segment_ends)

    @staticmethod
    def levels(interlaced: bool) -> tuple[tuple[int, int], tuple[int, int]]:
        """The grid of the two coefficients."""
        return INTERLACED_LEVELS if interlaced else LEVELS

    def begin(self, tiles: int, height: int, width: int) -> "ChoiceState":
        """Start coding the symbols of ``tiles`` latents of the same size."""
        return ChoiceState(self, tiles, height, width)

    def channel_tables(self, channel: int) -> NDArray[np.float64]:
        """The tables of a channel, the levels of the second coefficient running fastest.

        Shape:
            Returns: (128 or, interlaced, 512; alphabet of the channel), as `ohmq.entropy.prepare_tables` gives them.
        """
        if channel not in self._tables:
            first, second = (np.arange(low, high + 1) for low, high in self.levels(channel < len(self.places)))
            alphabet = self.alphabets[channel]
            logits = self.tensors["logits"][channel, :alphabet].astype(np.int64)
            features = self.tensors["features"][channel, :alphabet].astype(np.int64)
            whole = logits + first[:, None, None] * features[:, 0] + second[:, None] * features[:, 1]
            weights = exp2_weights(whole.reshape(-1, alphabet), self.tensors["exp2"].astype(np.int64))
            self._tables[channel] = prepare_tables(frequencies_from_weights(weights))
        return self._tables[channel]


class ChoiceState:
    """What is known while the channels of some latents are coded one after the other; rows as in `PriorState`."""

    def __init__(self, prior: FrozenChoicePrior, tiles: int, height: int, width: int) -> None:
        self.prior, self.height, self.width, self.rows = prior, height, width, tiles * height * width
        self.channel = 0
        self._neighbours = neighbour_rows(tiles, height, width)
        self._latent = np.zeros((self.rows, prior.directions.shape[1]))
        self._rounded = np.empty_like(self._latent)
        self._group, self._group_start = 0, 0
        self._taken = np.empty((prior.group_sizes[0], self.rows))
        self._parts: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None
        row, column = np.arange(height)[:, None] % 2, np.arange(width) % 2
        self._pass = np.tile(np.where(row == column, row, 2).ravel(), tiles)
        self._places = np.zeros((0, self.rows), np.int32)

    @property
    def _interlaced(self) -> bool:
        return self._group < self.prior.interlaced_groups

    def run(self, most: int) -> int:
        """How many of the next channels are coded together, at most ``most``."""
        return min(self.prior.segment_end(self.channel) - self.channel, most)

    def portions(self, pictures: int, channels: int) -> Iterator[Portion]:
        """What to code of the next ``channels`` channels (from `run`), in this order; see `Portion`."""
        if self._parts is None:
            self._parts = self._coefficients()
        first = self.channel - self._group_start
        own, network = (part[:, first : first + channels] for part in self._parts)
        self._places = np.zeros((channels if self._interlaced else 0, self.rows), np.int32)
        step = max(1, RUN_SYMBOLS // self.rows)
        for number in range(3 if self._interlaced else 1):
            rows = np.flatnonzero(self._pass == number) if self._interlaced else np.arange(self.rows)
            if rows.size == 0:
                continue
            for start in range(0, channels, step):
                part = slice(start, min(start + step, channels))
                added = self._spatial(number, part) if number else 0
                chosen = self._table_numbers(own[:, part] + added, network[:, part])
                each = rows.reshape(pictures, -1)
                yield Portion(0, part, each, self._picture_tables(each, self.channel + start, chosen))

    def _picture_tables(
        self, rows: NDArray[np.int64], channel: int, chosen: NDArray[np.int32]
    ) -> Callable[[int], tuple[Array, Array | None]]:
        tables = [self.prior.channel_tables(channel + i) for i in range(len(chosen))]

        def of(number: int) -> tuple[Array, None]:
            each = rows.shape[1]
            out = np.empty((len(tables) * each, tables[0].shape[1]))
            for i, table in enumerate(tables):
                np.take(table, chosen[i, rows[number]], 0, out=out[i * each : (i + 1) * each], mode="clip")
            return out, None

        return of

    def learn(self, portion: Portion, symbols: Array) -> None:
        """Take the symbols of a portion, those of all rows and channels in shape (rows, channels)."""
        if self._interlaced:
            rows = portion.rows.reshape(-1)
            for i in range(portion.channels.start, portion.channels.stop):
                self._places[i, rows] = self.prior.places[self.channel + i].take(symbols[rows, i])

    def advance(self, symbols: Array) -> None:
        """Take the symbols of the next channels, shape (rows, channels), and go on to those after them."""
        prior = self.prior
        first = self.channel - self._group_start
        for i, values in enumerate(symbols.T):
            np.take(prior.values[self.channel + i], values, out=self._taken[first + i], mode="clip")
        self.channel += symbols.shape[1]
        if self._group_start + len(self._taken) == self.channel < prior.num_channels:
            self._latent += self._taken.T @ prior.directions[self._group_start : self.channel]
            self._group_start, self._group, self._parts = self.channel, self._group + 1, None
            self._taken = np.empty((prior.group_sizes[self._group], self.rows))

    def _table_numbers(self, own: NDArray[np.int32], network: NDArray[np.int32]) -> NDArray[np.int32]:
        """The tables that coefficients choose; each (2, channels, rows), returns (channels, rows)."""
        half, shift = 1 << (VALUE_BITS - LEVEL_BITS - 1), VALUE_BITS - LEVEL_BITS
        levels = self.prior.levels(self._interlaced)
        first, second = (
            np.clip(((own[k] >> WEIGHT_BITS) + network[k] + half) >> shift, low, high) - low
            for k, (low, high) in enumerate(levels)
        )
        return first * (levels[1][1] - levels[1][0] + 1) + second

    def _coefficients(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """What the channels' own coefficients and the network say of the group, each (2, channels, rows)."""
        prior = self.prior
        size = prior.group_sizes[self._group]
        if self._group == 0:
            return np.zeros((2, size, self.rows), np.int32), np.zeros((2, size, self.rows), np.int32)
        channels = slice(self._group_start, self._group_start + size)
        latent = _scaled(self._latent, self._rounded)
        (weight, bias), *layers = prior.layers[self._group - 1]
        seen = np.zeros((self.rows + 1, len(weight)))  # the last row stands for beyond the border
        x = latent @ weight.T
        x += bias
        _scaled(x, seen[:-1])
        network = np.empty((2, size, self.rows), np.int32)
        for start in range(0, self.rows, CHUNK_ROWS):
            part = slice(start, min(start + CHUNK_ROWS, self.rows))
            x = seen[self._neighbours[part]].reshape(-1, layers[0][0].shape[1])
            for layer, (weight, bias) in enumerate(layers):
                x = x @ weight.T
                x += bias
                x = _scaled(np.maximum(x, 0, out=x) if layer < 2 else x, x)
            network[:, :, part] = x.clip(-_FAR, _FAR, out=x).reshape(-1, size, 2).transpose(2, 1, 0)
        x = prior.project[channels] @ latent.T
        phi = self._own_features(_scaled(x, x))
        return _weighted(phi, prior.own[channels]), network

    def _own_features(self, own: NDArray[np.float64]) -> list[NDArray[np.int32]]:
        """The four features of each channel's own coefficient, each (channels, rows)."""
        one, two = 1 << VALUE_BITS, 2 << VALUE_BITS
        grid = self._grid(own.clip(-_FAR, _FAR, out=own).astype(np.int32))
        magnitude = np.abs(grid)
        around, magnitude_around = _sum_of_neighbours(grid) >> 2, _sum_of_neighbours(magnitude) >> 2
        features = [
            np.minimum(magnitude, two, out=magnitude),
            np.minimum(magnitude_around, two, out=magnitude_around),
            grid.clip(-one, one, out=grid),
            around.clip(-one, one, out=around),
        ]
        return [feature.reshape(len(own), -1) for feature in features]

    def _spatial(self, number: int, part: slice) -> NDArray[np.int32]:
        """What symbols of earlier passes add for some channels of the run, shape (2, channels, rows)."""
        known = self._grid((self._pass < number).astype(np.int32))
        places = self._grid(self._places[part]) * known
        offsets = _DIAGONAL if number == 1 else _DIRECT
        there = [_shifted(known, offset) for offset in offsets]
        around = [_shifted(places, offset) for offset in offsets]
        weight = 12 // np.maximum(sum(there), 1)
        mean = sum(around) * weight // 12
        magnitude = sum(np.abs(x) for x in around) * weight // 12
        deviation = sum(np.abs(x - mean) * y for x, y in zip(around, there, strict=True)) * weight // 12
        limit = SPATIAL_LIMIT << VALUE_BITS
        phi = [np.full_like(mean, 1 << VALUE_BITS), *(np.clip(x, -limit, limit) for x in (mean, magnitude, deviation))]
        weights = self.prior.spatial[self.channel + part.start : self.channel + part.stop, number - 1]
        return _weighted([feature.reshape(len(weights), -1) for feature in phi], weights)

    def _grid(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """(..., rows) as (..., tiles, h, w)."""
        return rows.reshape(*rows.shape[:-1], -1, self.height, self.width)


def _scaled(x: NDArray[np.float64], out: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of products at the scale of values, rounded down."""
    np.multiply(x, 2.0**-WEIGHT_BITS, out=out)
    return np.floor(out, out=out)


def _weighted(features: Sequence[NDArray[np.int32]], weights: NDArray[np.int32]) -> NDArray[np.int32]:
    """Sums of features, each (channels, rows), by weights, (channels, 2, features); shape (2, channels, rows)."""
    total = np.zeros((2, *features[0].shape), np.int32)
    product = np.empty_like(total[0])
    for k in range(2):
        for j, feature in enumerate(features):
            total[k] += np.multiply(feature, weights[:, k, j, None], out=product)
    return total


def _sum_of_neighbours(x: NDArray[np.int32]) -> NDArray[np.int32]:
    """The sum of the left, right, upper and lower neighbour, zero beyond the border; shape (..., h, w)."""
    out = np.zeros_like(x)
    out[..., 1:, :] = x[..., :-1, :]
    out[..., :-1, :] += x[..., 1:, :]
    out[..., :, 1:] += x[..., :, :-1]
    out[..., :, :-1] += x[..., :, 1:]
    return out


def _shifted(x: NDArray[np.int32], offset: tuple[int, int]) -> NDArray[np.int32]:
    """The neighbour at an offset, zero beyond the border; shape (..., h, w)."""
    out = np.zeros_like(x)
    (to_row, from_row), (to_column, from_column) = (
        (slice(max(0, -step), size - max(0, step)), slice(max(0, step), size - max(0, -step)))
        for step, size in zip(offset, x.shape[-2:], strict=True)
    )
    out[..., to_row, to_column] = x[..., from_row, from_column]
    return out
