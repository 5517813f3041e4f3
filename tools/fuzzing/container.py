"""Readers of ``.ohm`` files: container, ``ohmq info``, decoder, progressive decoder; and their damage.

Two thirds of the files get right checksums again, so that the damage reaches what lies behind.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

import ohmq
from fuzzing.reader import NUMBERS, Files, cut, noise, splice
from ohmq.bitstream.format import FLAG_EXTRAS, FLAG_RESIDUAL, FLAG_TILED, HeaderInfo, ResidualInfo
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import write_ohm
from ohmq.cli.info import command as info_command
from ohmq.codec import Codec
from ohmq.errors import BitstreamError, ModelMismatchError
from ohmq.imaging.files import open_image
from ohmq.model_files.frozen_model import load_model

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
MAX_PIXELS = 1 << 13
"""Limit on width x height; decoding a larger image would take long."""


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
        tile: positions of a side; written if the flag is set.
        extras: (type, body) of each; written if the flag is set.
        residual: step and decoder id; written if the flag is set.
    """

    version: int
    flags: int
    model_id: bytes
    width: int
    height: int
    layers: tuple[tuple[int, bytes], ...]
    tile: int = 0
    extras: tuple[tuple[int, bytes], ...] = ()
    residual: ResidualInfo = ResidualInfo(8, bytes(4))


def seeds(shipped: bool = True) -> list[Seed]:
    """Return files of every kind, all of small images.

    Args:
        shipped: also files of the shipped models. Default: True.
    """
    codecs = {path.stem: Codec(load_model(path), compiled=False) for path in sorted(GOLDEN.glob("*.safetensors"))}
    files = [
        Seed(path.stem, path.read_bytes(), codecs[path.stem.split("_")[0]]) for path in sorted(GOLDEN.glob("*.ohm"))
    ]
    if shipped:
        digit = open_image(ROOT / "examples" / "digits" / "digit_3_a.png").image
        photo = open_image(ROOT / "examples" / "photos" / "coffee.png").image.resize((40, 24))
        for name, image in (("mnist-ohm", digit), ("mnist-int", digit), ("photo", photo)):
            codec = ohmq.load(name, compiled=False)
            files.append(Seed(name, codec.compress(image, layers="all", effort=0 if name == "photo" else None), codec))
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


def parse_fields(data: bytes) -> Fields:
    """Return the fields of a whole file."""
    header = read_header(data)
    start = header.header_bytes
    extras, layers = [], []
    for extra in header.extras:
        extras.append((extra.type, data[start : start + extra.length]))
        start += extra.length
    for layer in header.layers:
        layers.append((layer.channels, data[start : start + layer.length]))
        start += layer.length
    return Fields(
        data[4],
        data[5],
        data[6:10],
        header.width,
        header.height,
        tuple(layers),
        header.tile,
        tuple(extras),
        header.residual or Fields._field_defaults["residual"],
    )


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
    if fields.flags & FLAG_TILED:
        header += varint(fields.tile)
    extras = fields.extras if fields.flags & FLAG_EXTRAS else ()
    if fields.flags & FLAG_EXTRAS:
        header += varint(len(extras))
    for extra_type, body in extras:
        header += varint(extra_type) + varint(len(body)) + struct.pack(">I", zlib.crc32(body))
    if fields.flags & FLAG_RESIDUAL:
        header += varint(fields.residual.step) + fields.residual.decoder_id
    header += struct.pack(">I", zlib.crc32(header))
    return bytes(header) + b"".join(body for _, body in (*extras, *fields.layers))


def payload_ranges(header: HeaderInfo) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and CRC-32 of each payload."""
    start = header.header_bytes + header.extras_bytes
    for layer in header.layers:
        yield start, start + layer.length, layer.crc32
        start += layer.length


class Mutator:
    """Damage to ``.ohm`` files.

    Args:
        files: valid files, to splice with.
    """

    def __init__(self, files: Sequence[bytes]) -> None:
        self.files = files
        self.fields = [parse_fields(data) for data in files]

    def change(self, random: Random, data: bytes) -> bytes:
        """Change a file in one way, sometimes in two."""
        try:
            for _ in range(random.choice((1, 1, 1, 2))):
                kind = random.choices(range(6), (2, 1, 1, 2, 3, 3))[0]
                if kind == 0:
                    data = noise(random, data)
                elif kind == 1:
                    data = cut(random, data)
                elif kind == 2:
                    data = splice(random, data, random.choice(self.files))
                else:
                    way = (self.header_noise, self.fields_noise, self.payload_noise)[kind - 3]
                    data = way(random, data)
        except (BitstreamError, IndexError):  # the first change left no valid header
            pass
        return data

    def header_noise(self, random: Random, data: bytes) -> bytes:
        """Change any bytes of the header, under a right checksum."""
        size = read_header(data).header_bytes
        header = data[:4] + noise(random, data[4 : size - 4])
        return header + struct.pack(">I", zlib.crc32(header)) + data[size:]

    def fields_noise(self, random: Random, data: bytes) -> bytes:
        """Change fields, the order of layers or the form of numbers, under right checksums."""
        pick = random
        fields = parse_fields(data)
        layers = list(fields.layers)
        kind = pick.randrange(12)
        if kind == 0:
            fields = fields._replace(version=pick.randrange(256))
        elif kind == 1:
            fields = fields._replace(flags=fields.flags ^ 1 << pick.choice((0, 1, 2, 3, 3, 4, 4, 5, 7)))
        elif kind == 2:
            fields = fields._replace(model_id=pick.choice((pick.choice(self.fields).model_id, pick.randbytes(4))))
        elif kind == 3:
            sizes = {side: pick.choice((pick.randrange(1, 90), *NUMBERS)) for side in ("width", "height")}
            fields = fields._replace(**sizes)
        elif kind == 4:
            layers[pick.randrange(len(layers))] = pick.choice(pick.choice(self.fields).layers)
        elif kind == 5:
            place = pick.randrange(len(layers))
            layers[place] = (pick.choice((pick.randrange(40), *NUMBERS)), layers[place][1])
        elif kind == 6:
            pick.shuffle(layers)
        elif kind == 7:
            layers = layers[: pick.randrange(len(layers) + 1)] * pick.choice((0, 1, 1, 2, 60))
        elif kind == 8:
            tile = pick.choice((0, 1, 2, 3, 255, 256, 257, 65535))
            fields = fields._replace(tile=tile, flags=fields.flags | FLAG_TILED)
        elif kind == 9:
            extras = [
                pick.choice(((pick.randrange(8), b""), (200, pick.randbytes(9)))) for _ in range(pick.randrange(20))
            ]
            fields = fields._replace(extras=tuple(extras), flags=fields.flags | FLAG_EXTRAS)
        elif kind == 11:
            step = pick.choice((0, 7, 8, 2047, 2048, pick.randrange(2**20)))
            decoder_id = pick.choice((fields.residual.decoder_id, fields.residual.decoder_id, pick.randbytes(4)))
            residual = ResidualInfo(step, decoder_id)
            fields = fields._replace(residual=residual, flags=fields.flags | FLAG_RESIDUAL)
        fields = fields._replace(layers=tuple(layers))
        lengths = [len(payload) for _, payload in layers]
        if kind == 10 and lengths:
            lengths[pick.randrange(len(lengths))] = pick.choice((pick.randrange(200), *NUMBERS))
        return build_file(fields, lengths, extra=int(pick.random() < 0.03))

    def payload_noise(self, random: Random, data: bytes) -> bytes:
        """Change payloads of the same length under right checksums, to reach the entropy decoder."""
        fields = parse_fields(data)
        layers = []
        for channels, payload in fields.layers:
            changed = bytearray(payload)
            if payload and random.random() < 0.7:
                kind = random.randrange(4)
                if kind == 0:
                    changed[:] = random.randbytes(len(payload))
                elif kind == 1:
                    changed[:] = bytes([random.choice((0, 255))]) * len(payload)
                else:
                    for _ in range(random.randrange(1, 4)):
                        changed[random.randrange(len(payload))] ^= 1 << random.randrange(8)
            layers.append((channels, bytes(changed)))
        return build_file(fields._replace(layers=tuple(layers)))


class OhmReader:
    """A reader of ``.ohm`` files; subclasses read.

    Args:
        files: valid files.
    """

    allowed: tuple[type[Exception], ...] = (BitstreamError,)

    def __init__(self, files: Sequence[Seed]) -> None:
        self.mutator = Mutator([file.data for file in files])
        # The shipped photo model takes ten times as long as the small ones.
        self.files, self.weights = files, [0.2 if file.name == "photo" else 1.0 for file in files]

    def make(self, random: Random) -> Files:
        """Damage one of the files; its codec is known by the name."""
        seed = random.choices(self.files, self.weights)[0]
        return {f"{seed.name}.ohm": self.mutator.change(random, seed.data)}

    def codec_and_data(self, files: Files) -> tuple[Codec, bytes]:
        """Return the codec of a case and its file."""
        ((name, data),) = files.items()
        return next(seed.codec for seed in self.files if f"{seed.name}.ohm" == name), data


class Container(OhmReader):
    """The container: header, file, truncation."""

    name, share = "container", 35.0

    def read(self, files: Files) -> str:
        """Read the file, write it again, truncate it."""
        (data,) = files.values()
        file = read_ohm(data)
        assert write_ohm(file) == data, "writing the file that was read gives other bytes"
        first = truncate_ohm(data, num_layers=1)
        assert read_ohm(first).layers == file.layers[:1], "the first layer changed"
        assert truncate_ohm(data, fraction=1.0) == truncate_ohm(data, max_bytes=len(data)) == data, "all is not all"
        return "read"


class Info(OhmReader):
    """The command ``ohmq info``.

    Args:
        files: valid files.
        folder: for the file that the command reads.
    """

    name, share, allowed = "info", 6.0, ()

    def __init__(self, files: Sequence[Seed], folder: Path) -> None:
        super().__init__(files)
        self.file = folder / "fuzz.ohm"

    def read(self, files: Files) -> str:
        """Run the command: it shows the file or says in one line why not."""
        (data,) = files.values()
        self.file.write_bytes(data)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            code = info_command.main([str(self.file)], standalone_mode=False)
        lines = errors.getvalue().splitlines()
        assert (code, len(lines)) in ((0, 0), (1, 1)), f"exit code {code}, {lines}"
        return "one clear line" if code else "shown"


class Decode(OhmReader):
    """The decoder, from file to pixels."""

    name, share = "decode", 20.0
    allowed = (BitstreamError, ModelMismatchError)

    def read(self, files: Files) -> str:
        """Decode the file, and its first layer to the same symbols."""
        codec, data = self.codec_and_data(files)
        file, symbols = codec.decode(data, max_pixels=MAX_PIXELS)
        image = codec.synthesise(symbols, file.num_channels)
        assert image.size == (symbols.width, symbols.height), "another size"
        first = codec.decode(truncate_ohm(data, num_layers=1), max_pixels=MAX_PIXELS)[1].values
        assert np.array_equal(first, symbols.values[..., : first.shape[-1]]), "the first layer decodes to other symbols"
        return "decoded"


class Truncated(Decode):
    """The decoder of downloads that end early."""

    name, share = "allow truncated", 8.0

    def read(self, files: Files) -> str:
        """Decode the layers that are whole."""
        codec, data = self.codec_and_data(files)
        codec.decode(data, allow_truncated=True, max_pixels=MAX_PIXELS)
        return "decoded"


class Progressive(Decode):
    """The decoder of files that arrive in pieces."""

    name, share = "progressive", 7.0

    def read(self, files: Files) -> str:
        """Decode layer by layer."""
        codec, data = self.codec_and_data(files)
        pieces = (data[start : start + 50] for start in range(0, len(data), 50))
        count = sum(1 for _ in codec.decompress_progressive(pieces, max_pixels=MAX_PIXELS))
        assert count == len(read_header(data).layers), "not an image for each layer"
        return "decoded"
