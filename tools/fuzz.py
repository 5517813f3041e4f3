"""Damage .ohm files and read them: every outcome but an image must be a `BitstreamError` or a `ModelMismatchError`.

    python tools/fuzz.py --count 100000 --seed 1 [--keep FOLDER]

The files of tests/golden, and digits coded with the shipped grey models, are changed by bit flips, cuts, splices and noise.
Two thirds get right checksums again, so that the changes reach the parsers and decoders behind the checks. Each file goes
through the container, ``ohmq info``, truncation, and decoding: whole, as a truncated download, layer by layer, and the first
layer alone. A truncated file must decode to the same symbols. Files that cause other errors are kept in FOLDER. The same seed
gives the same files.
"""

import argparse
import contextlib
import io
import random
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import ohmq
from ohmq.bitstream.format import HeaderInfo
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import write_ohm
from ohmq.cli.info import command as info_command
from ohmq.codec import Codec
from ohmq.errors import BitstreamError, ModelMismatchError
from ohmq.imaging.files import open_image
from ohmq.model_files.frozen_model import load_model
from ohmq.utils.atomic_write import write_atomically

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
MAX_PIXELS = 1 << 13
"""Limit on width x height; decoding a larger image would take long."""
NUMBERS = (
    *(0, 1, 2, 127, 128, 255, 256, 16383, 16384, 65535, 65536, 65537),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**35 - 1),
)
"""Values of fields at the limits of ranges and types."""


class Seed(NamedTuple):
    """Valid file, and the codec that reads it.

    Attributes:
        name: of the file.
        data: its bytes.
        codec: its codec.
    """

    name: str
    data: bytes
    codec: Codec


class Fields(NamedTuple):
    """Fields of a header; `build_file` computes right checksums for any fields.

    Attributes:
        version: of the format.
        flags: 8 bits.
        model_id: 4 bytes.
        width: in pixels.
        height: in pixels.
        layers: (channels, payload) of each.
    """

    version: int
    flags: int
    model_id: bytes
    width: int
    height: int
    layers: tuple[tuple[int, bytes], ...]


class Finding(NamedTuple):
    """Forbidden outcome.

    Attributes:
        operation: name of the operation.
        data: the file.
        report: traceback.
    """

    operation: str
    data: bytes
    report: str


def seeds(shipped: bool = True) -> list[Seed]:
    """Return files of every kind, all of small images.

    Args:
        shipped: also files of the shipped grey models. Default: True.
    """
    codecs = {path.stem: Codec(load_model(path)) for path in sorted(GOLDEN.glob("*.safetensors"))}
    files = [
        Seed(path.stem, path.read_bytes(), codecs[path.stem.split("_")[0]]) for path in sorted(GOLDEN.glob("*.ohm"))
    ]
    if shipped:
        digit = open_image(ROOT / "examples" / "digits" / "digit_3_a.png").image
        for name in ("mnist-ohm", "mnist-int"):
            codec = ohmq.load(name)
            files.append(Seed(name, codec.compress(digit, layers="all"), codec))
    return files


def varint(value: int, extra: int = 0) -> bytes:
    """Encode a number; with extra bytes it is not in its shortest form."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    for _ in range(extra):
        out[-1] |= 128
        out.append(0)
    return bytes(out)


def parse_fields(data: bytes) -> Fields | None:
    """Return the fields of a file that has only the basic header; None for other files."""
    header = read_header(data)
    layers, start = [], header.header_bytes
    for layer in header.layers:
        layers.append((layer.channels, data[start : start + layer.length]))
        start += layer.length
    fields = Fields(data[4], data[5], data[6:10], header.width, header.height, tuple(layers))
    return fields if build_file(fields) == data else None


def build_file(fields: Fields, lengths: Sequence[int] | None = None, extra: int = 0) -> bytes:
    """Build a file with right checksums.

    Args:
        fields: of the header.
        lengths: payload bytes that the header says; None: the right ones.
        extra: superfluous bytes of the first number. Default: 0.
    """
    header = bytearray(b"\x93OHM" + bytes([fields.version, fields.flags]) + fields.model_id)
    header += varint(fields.width, extra) + varint(fields.height) + varint(len(fields.layers))
    for number, (channels, payload) in enumerate(fields.layers):
        length = len(payload) if lengths is None else lengths[number]
        header += varint(channels) + varint(length) + struct.pack(">I", zlib.crc32(payload))
    header += struct.pack(">I", zlib.crc32(header))
    return bytes(header) + b"".join(payload for _, payload in fields.layers)


def payload_ranges(header: HeaderInfo) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and CRC-32 of each payload."""
    start = header.header_bytes
    for layer in header.layers:
        yield start, start + layer.length, layer.crc32
        start += layer.length


class Mutator:
    """Generator of damaged files.

    Args:
        files: valid files, to change and to splice.
        seed: of the random numbers.
    """

    def __init__(self, files: Sequence[bytes], seed: int) -> None:
        self.files, self.random = files, random.Random(seed)
        self.fields = [fields for fields in map(parse_fields, files) if fields]

    def change(self, data: bytes) -> bytes:
        """Change a file in one way, sometimes in two."""
        ways = (self.noise, self.cut, self.splice, self.header_noise, self.fields_noise, self.payload_noise)
        try:
            for _ in range(self.random.choice((1, 1, 1, 2))):
                data = self.random.choices(ways, (2, 1, 1, 2, 3, 3))[0](data)
        except BitstreamError:  # the first change left no valid header
            pass
        return data

    def noise(self, data: bytes) -> bytes:
        """Change bits and bytes anywhere; checksums stay as they are."""
        pick, out = self.random, bytearray(data)
        for _ in range(pick.choice((1, 1, 2, 8))):
            place = pick.randrange(len(out) + 1)
            kind = pick.randrange(4)
            if kind == 0 and place < len(out):
                out[place] ^= 1 << pick.randrange(8)
            elif kind == 1:
                out[place : place + pick.randrange(5)] = pick.randbytes(pick.randrange(5))
            elif kind == 2:
                out[place : place + 1] = bytes([pick.choice((0, 1, 127, 128, 255))])
            else:
                length = pick.randrange(1, 20)
                out[place:place] = out[pick.randrange(len(out) + 1) :][:length]
        return bytes(out)

    def cut(self, data: bytes) -> bytes:
        """Cut the end off, or remove a piece."""
        start = self.random.randrange(len(data) + 1)
        end = len(data) if self.random.random() < 0.7 else self.random.randrange(start, len(data) + 1)
        return data[:start] + data[end:]

    def splice(self, data: bytes) -> bytes:
        """Join the beginning of one file and the end of another."""
        other = self.random.choice(self.files)
        return data[: self.random.randrange(len(data) + 1)] + other[self.random.randrange(len(other) + 1) :]

    def header_noise(self, data: bytes) -> bytes:
        """Change any bytes of the header, under a right checksum."""
        size = read_header(data).header_bytes
        header = self.noise(data[4 : size - 4])
        header = data[:4] + header
        return header + struct.pack(">I", zlib.crc32(header)) + data[size:]

    def fields_noise(self, data: bytes) -> bytes:
        """Change fields, the order of layers or the form of numbers, under right checksums."""
        pick = self.random
        fields = parse_fields(data) or pick.choice(self.fields)
        layers = list(fields.layers)
        kind = pick.randrange(9)
        if kind == 0:
            fields = fields._replace(version=pick.randrange(256))
        elif kind == 1:
            fields = fields._replace(flags=fields.flags ^ 1 << pick.randrange(8))
        elif kind == 2:
            fields = fields._replace(model_id=pick.choice((pick.choice(self.fields).model_id, pick.randbytes(4))))
        elif kind == 3:
            sizes = {side: pick.choice((pick.randrange(1, 90), *NUMBERS)) for side in ("width", "height")}
            fields = fields._replace(**sizes)
        elif kind == 4:
            layers[pick.randrange(len(layers))] = pick.choice(pick.choice(self.fields).layers)
        elif kind == 5:
            place = pick.randrange(len(layers))
            channels = pick.choice((pick.randrange(40), *NUMBERS))
            layers[place] = (channels, layers[place][1])
        elif kind == 6:
            pick.shuffle(layers)
        elif kind == 7:
            layers = layers[: pick.randrange(len(layers) + 1)] * pick.choice((0, 1, 1, 2, 60))
        fields = fields._replace(layers=tuple(layers))
        lengths = [len(payload) for _, payload in layers]
        if kind == 8 and lengths:
            lengths[pick.randrange(len(lengths))] = pick.choice((pick.randrange(200), *NUMBERS))
        return build_file(fields, lengths, extra=int(pick.random() < 0.03))

    def payload_noise(self, data: bytes) -> bytes:
        """Change payloads of the same length under right checksums, to reach the entropy decoder."""
        pick, header = self.random, read_header(data)
        out, start = bytearray(data), header.header_bytes
        for begin, end, crc in payload_ranges(header):
            if begin == end or end > len(data) or pick.random() < 0.3:
                continue
            payload = bytearray(data[begin:end])
            kind = pick.randrange(4)
            if kind == 0:
                payload[:] = pick.randbytes(len(payload))
            elif kind == 1:
                payload[:] = bytes([pick.choice((0, 255))]) * len(payload)
            else:
                for _ in range(pick.randrange(1, 4)):
                    payload[pick.randrange(len(payload))] ^= 1 << pick.randrange(8)
            place = bytes(out[:start]).rfind(struct.pack(">I", crc), 0, start - 4)
            if place >= 0:
                out[begin:end] = payload
                out[place : place + 4] = struct.pack(">I", zlib.crc32(payload))
        out[start - 4 : start] = struct.pack(">I", zlib.crc32(out[: start - 4]))
        return bytes(out)


class Checks:
    """Operations on each file.

    Args:
        folder: for the file that ``ohmq info`` reads.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "fuzz.ohm"

    def operations(self, data: bytes, codec: Codec) -> dict[str, Callable[[], str]]:
        """Return the operations by name; each returns its outcome in words or raises."""
        return {
            "container": lambda: self.container(data),
            "info": lambda: self.info(data),
            "truncate": lambda: self.truncate(data),
            "decode": lambda: self.decode(data, codec),
            "allow truncated": lambda: self.allow_truncated(data, codec),
            "progressive": lambda: self.progressive(data, codec),
        }

    def container(self, data: bytes) -> str:
        file = read_ohm(data)
        assert write_ohm(file) == data, "writing the file that was read gives other bytes"
        return "read"

    def info(self, data: bytes) -> str:
        self.file.write_bytes(data)
        assert info_command.callback is not None
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            code = info_command.callback((str(self.file),), False)
        lines = errors.getvalue().splitlines()
        assert (code, len(lines)) in ((0, 0), (1, 1)), f"exit code {code}, {lines}"
        return "one clear line" if code else "shown"

    def truncate(self, data: bytes) -> str:
        first = truncate_ohm(data, num_layers=1)
        assert read_ohm(first).layers == read_ohm(data).layers[:1], "the first layer changed"
        assert truncate_ohm(data, fraction=1.0) == truncate_ohm(data, max_bytes=len(data)) == data, "all is not all"
        return "cut"

    def decode(self, data: bytes, codec: Codec) -> str:
        file, symbols = codec.decode(data, max_pixels=MAX_PIXELS)
        image = codec.synthesise(symbols, file.num_channels)
        assert image.size == (symbols.width, symbols.height), "another size"
        first = codec.decode(truncate_ohm(data, num_layers=1), max_pixels=MAX_PIXELS)[1].values
        assert np.array_equal(first, symbols.values[..., : first.shape[-1]]), "the first layer decodes to other symbols"
        return "decoded"

    def allow_truncated(self, data: bytes, codec: Codec) -> str:
        codec.decode(data, allow_truncated=True, max_pixels=MAX_PIXELS)
        return "decoded"

    def progressive(self, data: bytes, codec: Codec) -> str:
        pieces = (data[start : start + 50] for start in range(0, len(data), 50))
        count = sum(1 for _ in codec.decompress_progressive(pieces, max_pixels=MAX_PIXELS))
        assert count == len(read_header(data).layers), "not an image for each layer"
        return "decoded"


def fuzz(
    count: int, seed: int, *, files: Sequence[Seed] | None = None, progress: Callable[[int], None] = lambda done: None
) -> tuple[Counter[tuple[str, str]], list[Finding], float]:
    """Change and read files.

    Args:
        count: number of damaged files.
        seed: of the random numbers.
        files: valid files; None: `seeds`.
        progress: called with the number of files done.

    Returns:
        Count of each (operation, outcome); forbidden outcomes; seconds of the slowest file.
    """
    files = seeds() if files is None else files
    mutator = Mutator([file.data for file in files], seed)
    outcomes: Counter[tuple[str, str]] = Counter()
    findings: list[Finding] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(Path(folder))
        for number in range(count):
            seed_file = mutator.random.choice(files)
            data = mutator.change(seed_file.data)
            clock = time.perf_counter()
            for operation, work in checks.operations(data, seed_file.codec).items():
                try:
                    outcome = work()
                except (BitstreamError, ModelMismatchError) as error:
                    outcome = type(error).__name__
                except Exception as error:
                    outcome = f"WRONG: {type(error).__name__}"
                    findings.append(Finding(operation, data, traceback.format_exc()))
                outcomes[operation, outcome] += 1
            slowest = max(slowest, time.perf_counter() - clock)
            progress(number + 1)
    return outcomes, findings, slowest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for files that were found")
    options = parser.parse_args(arguments)
    start = time.perf_counter()

    def progress(done: int) -> None:
        if done % 5000 == 0:
            print(f"{done} of {options.count}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    outcomes, findings, slowest = fuzz(options.count, options.seed, progress=progress)
    for (operation, outcome), number in sorted(outcomes.items()):
        print(f"{operation:16} {outcome:24} {number:9,}")
    print(
        f"{options.count:,} files, seed {options.seed}: {len(findings)} findings; the slowest file took {slowest:.2f} s"
    )
    for number, finding in enumerate(findings[:20]):
        path = options.keep / f"seed{options.seed}-{number:03d}.ohm"
        write_atomically(path, finding.data, force=True)
        print(f"\n{path}: {finding.operation}\n{finding.report}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
