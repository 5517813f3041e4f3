"""A second decoder of .ohm files, written from docs/file-format.md alone, with Python integers."""

import zlib
from typing import Any

TOTAL = 1 << 24


class ReferenceRangeDecoder:
    """Range decoder of the format page."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.used = 0
        self.low, self.range = 0, (1 << 64) - 1
        self.point = (self._word() << 32) | self._word()

    def _word(self) -> int:
        word = self.payload[self.used : self.used + 4]
        self.used += 4
        return int.from_bytes(word + bytes(4 - len(word)), "big")

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
    """Return the payloads of the tiles of a layer."""
    position, lengths = 0, []
    for _ in range(count):
        value = shift = 0
        while True:
            byte = payload[position]
            position += 1
            value += (byte % 128) << shift
            shift += 7
            if byte < 128:
                break
        lengths.append(value)
    payloads = []
    for length in lengths:
        payloads.append(payload[position : position + length])
        position += length
    assert position == len(payload)
    return payloads


def tile_places(height: int, width: int, side: int) -> list[tuple[slice, slice]]:
    """Return the rows and columns of the latent that each tile holds."""
    down, across = -(-height // side), -(-width // side)
    places = []
    for number in range(down * across):
        row, column = number // across * side, number % across * side
        places.append((slice(row, min(row + side, height)), slice(column, min(column + side, width))))
    return places


def context_frequencies(logits: list[int], exp2: list[int]) -> list[int]:
    """Compute frequencies from integer logits, as the format page says."""
    top = max(logits)
    weights = [exp2[(top - x) & 1023] >> min((top - x) >> 10, 62) for x in logits]
    total = sum(weights)
    frequencies = [1 + w * (TOTAL - len(weights)) // total for w in weights]
    frequencies[weights.index(max(weights))] += TOTAL - sum(frequencies)
    return frequencies


def context_coefficients(around: list[int], layers: list[tuple[list[list[int]], list[int]]]) -> list[int]:
    """Run the integer network of the format page: 9 * D inputs to coefficients."""
    x = around
    for number, (weight, bias) in enumerate(layers):
        x = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        x = [max(v, 0) >> 12 for v in x] if number < 2 else [v >> 8 for v in x]
    return x


def reference_file(data: bytes) -> dict[str, Any]:
    """Parse a whole file: fields by name, layers as (channels, payload), extras as (type, body)."""
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        position += count
        assert position <= len(data)
        return data[position - count : position]

    def varint() -> int:
        value, shift = 0, 0
        while True:
            byte = take(1)[0]
            value += (byte % 128) << shift
            shift += 7
            if byte < 128:
                assert shift <= 35 and (byte or shift == 7)
                return value

    def index(count: int) -> list[tuple[int, int, int]]:
        return [(varint(), varint(), int.from_bytes(take(4), "big")) for _ in range(count)]

    assert take(5) == b"\x93OHM\x01"
    flags = take(1)[0]
    file: dict[str, Any] = {"flags": flags, "model_id": take(4), "width": varint(), "height": varint()}
    layers = index(varint())
    file["tile"] = varint() if flags & 8 else 0
    extras = index(varint()) if flags & 4 else []
    file["residual"] = (varint(), take(4)) if flags & 16 else None
    assert int.from_bytes(take(4), "big") == zlib.crc32(data[: position - 4])
    bodies = [take(length) for _, length, _ in extras + layers]
    assert position == len(data)
    assert [zlib.crc32(body) for body in bodies] == [check for _, _, check in extras + layers]
    file["extras"] = [(kind, body) for (kind, _, _), body in zip(extras, bodies, strict=False)]
    file["layers"] = [(count, body) for (count, _, _), body in zip(layers, bodies[len(extras) :], strict=True)]
    return file


def reference_residual(
    payloads: list[tuple[int, bytes]], height: int, width: int, numbers: dict[str, Any]
) -> dict[tuple[int, int, int], list[list[int]]]:
    """Decode the levels of a residual of height x width blocks, by (row, column, colour) of the channel.

    ``payloads`` are (channels, payload) of its layers; ``numbers`` is the content of residual_tables.json.
    """
    channels = [(u, v, c) for u in range(8) for v in range(8) for c in range(3)]
    channels.sort(key=lambda channel: (channel[0] + channel[1], max(channel[:2]), channel[0], channel[2]))
    tables = []
    for row in numbers["magnitudes"]:
        weights = [*row[:0:-1], 2 * row[0], *row[1:]]
        frequencies = [1 + w * (TOTAL - 33) // sum(weights) for w in weights]
        frequencies[weights.index(max(weights))] += TOTAL - sum(frequencies)
        tables.append(frequencies)
    levels: dict[tuple[int, int, int], list[list[int]]] = {}

    def magnitude(channel: tuple[int, int, int], y: int, x: int) -> int:
        if channel not in levels or not (0 <= y < height and 0 <= x < width):
            return 0
        return min(abs(levels[channel][y][x]), 15)

    for count, payload in payloads:
        decoder = ReferenceRangeDecoder(payload)
        for channel in channels[len(levels) : len(levels) + count]:
            u, v, c = channel
            near = [(u - 1, v, c), (u, v - 1, c)]
            middle = [(u - 1, v - 1, c), (u - 2, v, c), (u, v - 2, c)]
            w = numbers["weights"][2 * min((u + v + 1) // 2, 6) + min(c, 1)]
            values = [[0] * width for _ in range(height)]
            for y in range(height):
                for x in range(width):
                    around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                    total = w[7] + sum(w[0] * magnitude(other, y, x) for other in near)
                    total += sum(w[1] * magnitude(other, y, x) for other in middle)
                    total += sum(w[2] * magnitude(other, *place) for other in near for place in around)
                    total += sum(w[3] * magnitude(other, *place) for other in middle for place in around)
                    if c:
                        total += w[4] * magnitude((u, v, 0), y, x)
                        total += w[5] * sum(magnitude((u, v, 0), *place) for place in around)
                    if c == 2:
                        total += w[6] * magnitude((u, v, 1), y, x)
                    table = tables[sum(bound <= total for bound in numbers["bounds"])]
                    values[y][x] = decoder.symbol(table) - 16
            for y in range(height):
                for x in range(width):
                    if abs(values[y][x]) == 16:
                        excess = 0
                        for _ in range(3):
                            excess = 16 * excess + decoder.symbol([1 << 20] * 16)
                        values[y][x] += excess if values[y][x] > 0 else -excess
            levels[channel] = values
    return levels


def reference_mask(png: bytes, width: int, height: int) -> list[list[int]]:
    """Return the rows of the mask in a grey PNG stream of 1 or 8 bits."""
    position, bits, packed = 8, 0, b""
    while position < len(png):
        length, name = int.from_bytes(png[position : position + 4], "big"), png[position + 4 : position + 8]
        body = png[position + 8 : position + 8 + length]
        assert name in (b"IHDR", b"IDAT", b"IEND")
        if name == b"IHDR":
            assert (int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")) == (width, height)
            assert body[8] in (1, 8) and body[9:] == bytes(4)
            bits = body[8]
        packed += body if name == b"IDAT" else b""
        position += 12 + length
    raw, size = zlib.decompress(packed), (width * bits + 7) // 8
    assert len(raw) == (size + 1) * height
    above, rows = [0] * size, []
    for start in range(0, len(raw), size + 1):
        row: list[int] = []
        for i, byte in enumerate(raw[start + 1 : start + 1 + size]):
            a, b, c = (row[i - 1] if i else 0), above[i], (above[i - 1] if i else 0)
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row.append((byte + (0, a, b, (a + b) // 2, nearest)[raw[start]]) % 256)
        above = row
        if bits == 1:
            row = [255 * (row[x // 8] >> 7 - x % 8 & 1) for x in range(width)]
        rows.append(row)
    return rows
