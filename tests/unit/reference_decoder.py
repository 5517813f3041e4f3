"""A second decoder of .ohm payloads, written from docs/file-format.md alone, in plain Python integers."""

TOTAL = 1 << 24


class ReferenceRangeDecoder:
    """The range decoder of the format page."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.used = 0
        self.low, self.range = 0, (1 << 64) - 1
        self.point = (self._word() << 32) | self._word()

    def _word(self) -> int:
        part = self.payload[self.used : self.used + 4]
        self.used += 4
        return int.from_bytes(part + bytes(4 - len(part)), "big")

    def symbol(self, frequencies: list[int]) -> int:
        scale = self.range >> 24
        quantile = ((self.point - self.low) % (1 << 64)) // scale
        assert quantile < TOTAL
        symbol = start = 0
        while quantile >= start + frequencies[symbol]:
            start += frequencies[symbol]
            symbol += 1
        frequency = frequencies[symbol]
        self.low = (self.low + scale * start) % (1 << 64)
        self.range = scale * frequency
        if self.range < 1 << 32:
            self.low = (self.low << 32) % (1 << 64)
            self.range <<= 32
            self.point = ((self.point << 32) | self._word()) % (1 << 64)
        return symbol


def tile_payloads(payload: bytes, count: int) -> list[bytes]:
    """The payloads of the tiles of a layer."""
    place, lengths = 0, []
    for _ in range(count):
        value = shift = 0
        while True:
            byte = payload[place]
            place += 1
            value += (byte % 128) << shift
            shift += 7
            if byte < 128:
                break
        lengths.append(value)
    found = []
    for length in lengths:
        found.append(payload[place : place + length])
        place += length
    assert place == len(payload)
    return found


def tile_places(height: int, width: int, side: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the latent that each tile holds."""
    down, across = -(-height // side), -(-width // side)
    places = []
    for number in range(down * across):
        row, column = number // across * side, number % across * side
        places.append((slice(row, min(row + side, height)), slice(column, min(column + side, width))))
    return places


def context_frequencies(logits: list[int], exp2: list[int]) -> list[int]:
    """Frequencies from integer logits, as the format page says."""
    top = max(logits)
    weights = [exp2[(top - x) & 1023] >> min((top - x) >> 10, 62) for x in logits]
    total = sum(weights)
    frequencies = [1 + w * (TOTAL - len(weights)) // total for w in weights]
    frequencies[weights.index(max(weights))] += TOTAL - sum(frequencies)
    return frequencies


def context_coefficients(around: list[int], layers: list[tuple[list[list[int]], list[int]]]) -> list[int]:
    """The integer network of the format page: 9 * D inputs to coefficients."""
    x = around
    for number, (weight, bias) in enumerate(layers):
        x = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        x = [max(v, 0) >> 12 for v in x] if number < 2 else [v >> 8 for v in x]
    return x
