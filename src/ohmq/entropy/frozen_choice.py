"""The choice prior frozen to integers: symbols decoded so far choose one of 128 static tables a channel.

The arithmetic is normative; `docs/file-format.md` describes it. Integers are carried in float64 where a matrix product is
needed: every sum stays below 2^53, so it is exact in any order, on any machine.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy import frequencies_from_weights
from ohmq.entropy.frozen import (
    VALUE_BITS,
    WEIGHT_BITS,
    Array,
    ChannelTables,
    exp2_weights,
    neighbour_rows,
)

__all__ = ["LEVELS", "LEVEL_BITS", "ChoiceState", "FrozenChoicePrior"]

LEVEL_BITS = 2
"""Fraction bits of a coefficient's grid: quarters."""
LEVELS = ((-8, 7), (-4, 3))
"""Lowest and highest level of each of the two coefficients."""
CHUNK_ROWS = 4096
_LIMIT = 2**52
_FAR = 2**20
"""What is larger than this is cut off to it: no grid and no feature reaches so far."""


class FrozenChoicePrior:
    """A choice prior in integers.

    Args:
        tensors: "logits" (C, S), "features" (C, S, 2), "exp2" (1024,), "values" (C, S), "directions" (C, D), "project"
            (C, D), "own" (C, 2, 4), and for each group g >= 1 "projection.g.weight" (P, D), "projection.g.bias" (P,) and
            for each layer l of 0, 1, 2 "network.g.l.weight" (out, in) and "network.g.l.bias" (out,).
        group_sizes: channels of each group.

    Raises:
        ValueError: tensors that do not fit together, or could overflow.
    """

    is_context = True

    def __init__(self, tensors: Mapping[str, Array], group_sizes: Sequence[int]) -> None:
        self.group_sizes = tuple(group_sizes)
        self.tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        self.num_channels, self.num_symbols = self.tensors["logits"].shape
        if sum(self.group_sizes) != self.num_channels:
            raise ValueError(f"tables of {self.num_channels} channels do not fit groups {self.group_sizes}")
        self.values, self.directions, self.project = (
            self.tensors[name].astype(np.float64) for name in ("values", "directions", "project")
        )
        self.own = self.tensors["own"].astype(np.int32)
        if np.abs(self.own).max() >= 2**18:
            raise ValueError("the weights of a channel's own coefficient are too large")
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
        self._tables: dict[int, NDArray[np.int64]] = {}

    @staticmethod
    def _check(largest: float) -> None:
        if not largest < _LIMIT:
            raise ValueError("the choice prior could leave the range of exact integers")

    def begin(self, tiles: int, height: int, width: int) -> "ChoiceState":
        """Start coding the symbols of ``tiles`` latents of the same size."""
        return ChoiceState(self, tiles, height, width)

    def channel_tables(self, channel: int) -> NDArray[np.int64]:
        """The tables of a channel, shape (128, S): row 8 * i + j for level i of the first and j of the second coefficient."""
        if channel not in self._tables:
            first, second = (np.arange(low, high + 1) for low, high in LEVELS)
            logits = self.tensors["logits"][channel].astype(np.int64)
            features = self.tensors["features"][channel].astype(np.int64)
            whole = logits + first[:, None, None] * features[:, 0] + second[:, None] * features[:, 1]
            weights = exp2_weights(whole.reshape(-1, self.num_symbols), self.tensors["exp2"].astype(np.int64))
            self._tables[channel] = frequencies_from_weights(weights)
        return self._tables[channel]


class ChoiceState:
    """What is known while the channels of some latents are coded one after the other; rows as in `PriorState`."""

    def __init__(self, prior: FrozenChoicePrior, tiles: int, height: int, width: int) -> None:
        self.prior, self.height, self.width, self.rows = prior, height, width, tiles * height * width
        self.channel = 0
        self._neighbours = neighbour_rows(tiles, height, width)
        self._latent = np.zeros((self.rows, prior.directions.shape[1]))
        self._group, self._group_start = 0, 0
        self._chosen: NDArray[np.int64] | None = None
        self._taken: list[NDArray[np.float64]] = []

    def tables(self, rows: slice = slice(None)) -> ChannelTables:
        """Tables for the current channel, for some of the rows: table i codes symbol i."""
        tables = self.prior.channel_tables(self.channel)
        if self._group == 0:
            middle = -LEVELS[0][0] * (LEVELS[1][1] - LEVELS[1][0] + 1) - LEVELS[1][0]
            count = len(range(*rows.indices(self.rows)))
            return ChannelTables(np.broadcast_to(tables[middle], (count, tables.shape[1])), None)
        if self._chosen is None:
            self._chosen = self._choose()
        return ChannelTables(tables.take(self._chosen[self.channel - self._group_start, rows], 0), None)

    def advance(self, symbols: Array) -> None:
        """Take the symbols of the current channel, shape (rows,), and go to the next channel."""
        prior = self.prior
        self._taken.append(prior.values[self.channel].take(symbols))
        self.channel += 1
        if self.channel == self._group_start + prior.group_sizes[self._group]:
            directions = prior.directions[self._group_start : self.channel]
            self._latent += np.stack(self._taken, 1) @ directions
            self._taken, self._chosen = [], None
            self._group_start, self._group = self.channel, self._group + 1

    def _choose(self) -> NDArray[np.int64]:
        """Which table each row uses for each channel of the group, shape (channels, rows)."""
        prior = self.prior
        size = prior.group_sizes[self._group]
        channels = slice(self._group_start, self._group_start + size)
        latent = np.floor(self._latent / 2**WEIGHT_BITS)
        (weight, bias), *layers = prior.layers[self._group - 1]
        seen = np.zeros((self.rows + 1, len(weight)))  # the last row stands for beyond the border
        np.floor((latent @ weight.T + bias) / 2**WEIGHT_BITS, out=seen[:-1])
        phi = self._own_features(np.floor((latent @ prior.project[channels].T) / 2**WEIGHT_BITS))
        out = np.empty((self.rows, size, 2), np.int32)
        for start in range(0, self.rows, CHUNK_ROWS):
            part = slice(start, min(start + CHUNK_ROWS, self.rows))
            x = seen[self._neighbours[part]].reshape(-1, layers[0][0].shape[1])
            for layer, (weight, bias) in enumerate(layers):
                x = x @ weight.T + bias
                x = np.floor((np.maximum(x, 0) if layer < 2 else x) / 2**WEIGHT_BITS)
            out[part] = np.clip(x, -_FAR, _FAR).reshape(-1, size, 2)
        half, shift = 1 << (VALUE_BITS - LEVEL_BITS - 1), VALUE_BITS - LEVEL_BITS
        chosen = np.zeros((self.rows, size), np.int32)
        for k, (low, high) in enumerate(LEVELS):
            total = phi[0] * prior.own[channels, k, 0]
            for j in range(1, 4):
                total += phi[j] * prior.own[channels, k, j]
            total >>= WEIGHT_BITS
            total += out[..., k]
            total += half
            total >>= shift
            chosen = chosen * (high - low + 1) + (np.clip(total, low, high) - low)
        return np.ascontiguousarray(chosen.T).astype(np.int64)

    def _own_features(self, own: NDArray[np.float64]) -> list[NDArray[np.int32]]:
        """The four features of each channel's own coefficient, each (rows, channels), int32."""
        one, two = 1 << VALUE_BITS, 2 << VALUE_BITS
        grid = np.clip(own, -_FAR, _FAR).astype(np.int32).reshape(-1, self.height, self.width, own.shape[1])
        magnitude = np.abs(grid)
        features = [
            np.minimum(magnitude, two),
            np.minimum(_four_neighbour_sum(magnitude) >> 2, two),
            np.clip(grid, -one, one),
            np.clip(_four_neighbour_sum(grid) >> 2, -one, one),
        ]
        return [feature.reshape(self.rows, -1) for feature in features]


def _four_neighbour_sum(x: NDArray[np.int32]) -> NDArray[np.int32]:
    """Sum of the left, right, upper and lower neighbour, zero beyond the border; shape (tiles, h, w, channels)."""
    out = np.zeros_like(x)
    out[:, 1:] += x[:, :-1]
    out[:, :-1] += x[:, 1:]
    out[:, :, 1:] += x[:, :, :-1]
    out[:, :, :-1] += x[:, :, 1:]
    return out
