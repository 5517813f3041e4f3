"""Draw docs/images/kind-*.png: parts of pictures of the worst kinds, coded by the photo model and by AVIF at equal bytes.

    python benchmarks/kinds.py kinds --make
    python tools/draw_kinds.py kinds

Coded is the square at the centre of a picture; shown is a part of it, at 0.15 and 0.4 bits per pixel, not scaled.
"""

import argparse
import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import ohmq
from ohmq.errors import OhmqError
from ohmq.utils.atomic_write import write_atomically

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIDE = 512
"""Side of the square that is coded, in pixels."""
RATES = (0.15, 0.4)
PARTS = {"text/book": (120, 150, 360, 250), "screens/spreadsheet": (140, 120, 380, 220)}
"""Parts that are shown: left, upper, right, lower side in the square."""
LABEL = 18
"""Height of a line of text, in pixels."""
GAP = 4


def avif_within(image: Image.Image, limit: int) -> tuple[Image.Image, int]:
    """Return the best AVIF image of at most some bytes, as Pillow writes it, and its size; else the smallest one."""
    low, high, best = 0, 100, b""
    while low <= high:
        middle = (low + high) // 2
        file = io.BytesIO()
        image.save(file, "AVIF", quality=middle, speed=4, max_threads=1, autotiling=False)
        if file.tell() <= limit or not best:
            best = file.getvalue()
        low, high = (middle + 1, high) if file.tell() <= limit else (low, middle - 1)
    return Image.open(io.BytesIO(best)).convert("RGB"), len(best)


def draw(codec: ohmq.Codec, image: Image.Image, part: tuple[int, int, int, int]) -> Image.Image:
    """Draw the part of one picture: the original, then for each rate the model's and AVIF's."""
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    square = image.convert("RGB").crop((left, top, left + SIDE, top + SIDE))
    cells = [("original", square)]
    for rate in RATES:
        data = codec.compress(square, bpp=rate)
        other, size = avif_within(square, len(data))
        cells.append((f"ohmq, {8 * len(data) / SIDE**2:.2f} bpp", codec.decompress(data)))
        cells.append((f"AVIF, {8 * size / SIDE**2:.2f} bpp", other))
    width, height = part[2] - part[0], part[3] - part[1]
    columns = 1 + len(RATES)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, 2 * (height + LABEL + GAP) - GAP), "white")
    pencil, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (label, picture) in enumerate(cells):
        column, row = (0, 0) if number == 0 else (1 + (number - 1) // 2, (number - 1) % 2)
        x, y = column * (width + GAP), row * (height + LABEL + GAP)
        pencil.text((x + 2, y), label, "black", font)
        sheet.paste(picture.crop(part), (x, y + LABEL))
    return sheet


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the pictures")
    parser.add_argument("--model", default="photo")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder to draw into (default: docs/images)")
    arguments = parser.parse_args()
    try:
        codec = ohmq.load(arguments.model)
        for name, part in PARTS.items():
            with Image.open(arguments.folder / f"{name}.png") as image:
                sheet = draw(codec, image, part)
            file = io.BytesIO()
            sheet.quantize(256).save(file, "PNG", optimize=True)
            path = arguments.out / f"kind-{name.split('/')[0]}.png"
            write_atomically(path, file.getvalue(), force=True)
            print(f"{path.name}: {sheet.width}x{sheet.height}, {file.tell() / 1000:.0f} kB")
    except (OhmqError, OSError) as error:
        sys.exit(f"draw_kinds.py: {error}")


if __name__ == "__main__":
    main()
