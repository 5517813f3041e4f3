"""Readers of extras and metadata: masks, EXIF, ICC, XMP and PSNR tables in ``.ohm`` files, metadata of input images."""

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

from PIL import Image, ImageCms

from fuzzing.container import Fields, OhmReader, Seed, build_file, parse_fields
from fuzzing.reader import Files, damage, noise
from ohmq.bitstream.format import FLAG_EXTRAS, ExtraType
from ohmq.bitstream.psnr_table import psnr_table
from ohmq.bitstream.reader import read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.errors import UnsupportedImageError
from ohmq.imaging.convert import prepare_image
from ohmq.imaging.extras import decode_extras
from ohmq.imaging.files import open_image


def damage_png(random: Random, data: bytes) -> bytes:
    """Change a PNG stream under right checksums: header fields, pixels inside the compression, chunks."""
    chunks, position = [], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    if not chunks:
        return noise(random, data)
    kind = random.randrange(6)
    if kind == 0 and len(chunks[0][1]) == 13:
        fields = list(struct.unpack(">IIBBBBB", chunks[0][1]))
        place = random.randrange(7)
        fields[place] = (
            random.choice((0, 1, 2, 8, 16, 255)) if place > 1 else random.choice((0, 1, 2**31, fields[place] + 1))
        )
        chunks[0] = (chunks[0][0], struct.pack(">IIBBBBB", *fields))
    elif kind == 1:
        place = random.randrange(len(chunks))
        chunks[place] = (chunks[place][0], noise(random, chunks[place][1]))
    elif kind == 2:  # other pixels, filters or lengths inside valid compression
        for place, (name, body) in enumerate(chunks):
            if name == b"IDAT":
                try:
                    pixels = zlib.decompress(body)
                except zlib.error:
                    continue
                longer = pixels + bytes(random.choice((0, 0, 1, 5, 10**6)))
                chunks[place] = (
                    name,
                    zlib.compress(noise(random, random.choice((pixels, longer))), random.randrange(10)),
                )
    elif kind == 3:
        chunks.insert(random.randrange(len(chunks) + 1), random.choice(chunks))
    elif kind == 4:
        extra = random.choice((b"tRNS", b"gAMA", b"iTXt", b"PLTE", b"acTL", b"IEND", b"IDAT"))
        chunks.insert(random.randrange(len(chunks) + 1), (extra, random.randbytes(random.randrange(20))))
    else:
        del chunks[random.randrange(len(chunks))]
    out = bytearray(data[:8])
    for name, body in chunks:
        out += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return bytes(out)


class Extras(OhmReader):
    """Extras of ``.ohm`` files, under right checksums."""

    name, share = "extras", 12.0

    def __init__(self, files: Sequence[Seed]) -> None:
        super().__init__([file for file in files if parse_fields(file.data).extras])
        self.bodies = [extra for fields in self.mutator.fields for extra in fields.extras]

    def make(self, random: Random) -> Files:
        """Damage the extras of a file."""
        seed = random.choice(self.files)
        fields = parse_fields(seed.data)
        extras = list(fields.extras)
        for _ in range(random.choice((1, 1, 2))):
            self._change(random, extras, fields)
        changed = fields._replace(extras=tuple(extras), flags=fields.flags | FLAG_EXTRAS)
        if random.random() < 0.1:
            changed = changed._replace(width=random.randrange(1, 100), height=random.randrange(1, 100))
        return {f"{seed.name}.ohm": build_file(changed)}

    def _change(self, random: Random, extras: list[tuple[int, bytes]], fields: Fields) -> None:
        kind = random.randrange(9)
        place = random.randrange(len(extras)) if extras else 0
        if kind < 5 and extras:
            extra_type, body = extras[place]
            masked = extra_type == ExtraType.ALPHA and random.random() < 0.7
            body = damage_png(random, body) if masked else damage(random, body, random.choice(self.bodies)[1])
            extras[place] = (extra_type, body)
        elif kind == 5 and extras:
            extras[place] = (random.choice((0, 1, 2, 3, 4, 5, 6, 63, 64, 2**32)), extras[place][1])
        elif kind == 6:
            extras.append(random.choice(self.bodies))
            if random.random() < 0.7:
                extras.sort(key=lambda extra: extra[0])
        elif kind == 7:
            table = random.randbytes(2 * len(fields.layers) + random.choice((0, 0, 1, 2, 600)))
            extras.append((ExtraType.PSNR, table))
        elif extras:
            del extras[place]

    def read(self, files: Files) -> str:
        """Decode the extras and put them onto an image; cut by the PSNR table."""
        (data,) = files.values()
        file = read_ohm(data)
        decoded = decode_extras(file.extras, file.width, file.height)
        image = decoded.onto(Image.new("L" if file.grey else "RGB", (file.width, file.height)))
        assert image.size == (file.width, file.height)
        table = psnr_table(data)
        if table is not None:
            assert len(table) == len(file.layers), "not a value for each layer"
            if table[0] < 655:
                assert read_ohm(truncate_ohm(data, psnr=table[0])).extras == file.extras, "extras changed"
        return "with mask" if decoded.mask is not None else "without mask"


class Images(OhmReader):
    """Input images with damaged EXIF, XMP and ICC data, or other damage.

    Args:
        folder: for the file that is read.
    """

    name, share, allowed = "image metadata", 4.0, (UnsupportedImageError,)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        picture = Image.linear_gradient("L").resize((9, 7))
        exif = Image.Exif()
        exif[0x0112], exif[0x010E], exif[0x011A] = 6, "a picture", 72.0
        exif.get_ifd(0x8769)[0x9003] = "2024:01:01 00:00:00"
        self.exif = exif.tobytes()
        self.icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        self.xmp = b'<x:xmpmeta><a tiff:Orientation="6"/></x:xmpmeta>'
        self.pictures = [picture.convert(mode) for mode in ("RGB", "L", "RGBA", "CMYK")]

    def make(self, random: Random) -> Files:
        """Write an image whose metadata are damaged, or damage the file."""
        kind = random.choice(("PNG", "JPEG", "WEBP", "TIFF"))
        pictures = [picture for picture in self.pictures if picture.mode != "CMYK" or kind in ("JPEG", "TIFF")]
        picture = random.choice(pictures)
        if kind == "JPEG" and picture.mode == "RGBA":
            picture = picture.convert("RGB")
        bodies = {"exif": self.exif, "icc_profile": self.icc, "xmp": self.xmp}
        for name in random.sample(list(bodies), random.randrange(1, 4)):
            bodies[name] = damage(random, bodies[name], random.choice(list(bodies.values())))
        kept = {name: body for name, body in bodies.items() if body and random.random() < 0.8}
        if kind == "TIFF":
            kept.pop("exif", None)
        buffer = io.BytesIO()
        try:
            picture.save(buffer, kind, **kept)
        except Exception:  # Pillow refuses some damaged metadata; the image then has none
            buffer = io.BytesIO()
            picture.save(buffer, kind)
        data = buffer.getvalue()
        if random.random() < 0.3:
            data = noise(random, data)
        return {f"image.{kind.lower()}": data}

    def read(self, files: Files) -> str:
        """Read the image and prepare it, with its metadata."""
        ((name, data),) = files.items()
        path = self.folder / name
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = open_image(path, max_pixels=1 << 16).image
            for grey in (True, False):
                prepared = prepare_image(image, grey=grey, flatten=False, keep_metadata=True)
        return "prepared" if prepared.notes else "prepared without loss"
