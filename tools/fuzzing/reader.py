"""What every reader under test is, and damage that knows nothing of a format."""

import json
from random import Random
from typing import Any, Protocol

NUMBERS = (
    *(0, 1, 2, 127, 128, 255, 256, 16383, 16384, 65535, 65536, 65537),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**35 - 1),
)
"""Values of fields at the limits of ranges and types."""
JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 255, 65535, 65537, 2**31, 2**63, 10**30, 1.5, -0.0, 1e308, float("nan")),
    *("", "x", "ohm", "integer", "none", "context", "static", "photo", "mnist", "00", "zz", "é" * 50),
    *([], [0], [1, 2], [-1], ["x"], [[1]], {}, {"a": 1}, [2**31, 2**31]),
)
"""Values that take the place of a value in JSON."""

Files = dict[str, bytes]
"""Content of the files of a case by name: one file, or those of a folder."""


class Reader(Protocol):
    """Reader under test.

    Attributes:
        name: for reports.
        share: its part of all cases, relative to the other readers.
        allowed: errors that damaged input may cause.
    """

    name: str
    share: float
    allowed: tuple[type[Exception], ...]

    def make(self, random: Random) -> Files:
        """Make a damaged file or folder."""

    def read(self, files: Files) -> str:
        """Read it; return the outcome in words, or raise."""


def noise(random: Random, data: bytes, most: int = 8) -> bytes:
    """Change bits and bytes anywhere."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, most))):
        place = random.randrange(len(out) + 1)
        kind = random.randrange(4)
        if kind == 0 and place < len(out):
            out[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            out[place : place + random.randrange(5)] = random.randbytes(random.randrange(5))
        elif kind == 2:
            out[place : place + 1] = bytes([random.choice((0, 1, 127, 128, 255))])
        else:
            length = random.randrange(1, 20)
            out[place:place] = out[random.randrange(len(out) + 1) :][:length]
    return bytes(out)


def cut(random: Random, data: bytes) -> bytes:
    """Cut the end off, or remove a piece."""
    start = random.randrange(len(data) + 1)
    end = len(data) if random.random() < 0.7 else random.randrange(start, len(data) + 1)
    return data[:start] + data[end:]


def splice(random: Random, data: bytes, other: bytes) -> bytes:
    """Join the beginning of one file and the end of another."""
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def damage(random: Random, data: bytes, other: bytes) -> bytes:
    """Change bytes in one of the ways above."""
    kind = random.randrange(4)
    return noise(random, data) if kind < 2 else cut(random, data) if kind == 2 else splice(random, data, other)


def change_json(random: Random, value: Any) -> Any:
    """Return JSON with one value, at any depth, replaced, removed, copied or renamed."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        out = dict(value)
        key = random.choice(list(out))
        kind = random.randrange(10)
        if kind == 0:
            del out[key]
        elif kind == 1:
            out[random.choice((*out, "x", ""))] = out.pop(key)
        elif kind == 2:
            out[key] = out[random.choice(list(out))]
        else:
            out[key] = change_json(random, out[key])
        return out
    if isinstance(value, list) and value and random.random() < 0.7:
        place = random.randrange(len(value))
        kept = [] if random.random() < 0.2 else [change_json(random, value[place])] * random.choice((1, 1, 1, 2))
        return [*value[:place], *kept, *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and random.random() < 0.5:
        return random.choice((value + 1, value - 1, -value, 2 * value, value // 2, value << 16))
    return random.choice(JSON_VALUES)


def json_text(random: Random, value: Any) -> str:
    """Write JSON, sometimes damaged or far too deep."""
    text = json.dumps(value)
    kind = random.randrange(40)
    if kind == 0:
        return "[" * 100_000
    if kind < 4:
        return noise(random, text.encode()).decode(errors="replace")
    return text
