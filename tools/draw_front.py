"""Draw the picture at the top of README.md: one photograph at equal file size, as JPEG, AVIF and .ohm.

    python tools/draw_front.py docs/images/front.png

Each file has at most as many bytes as the .ohm file at 0.2 bits per pixel: the largest quality setting that fits. JPEG is 4:2:0,
optimised and progressive; AVIF is libaom at speed 4, 4:2:0, as Pillow writes it. The panels show the same detail of each.
"""

import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import ohmq

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "photos" / "coffee.png"
BITS_PER_PIXEL = 0.2
DETAIL = (150, 60, 450, 360)
"""Left, upper, right and lower edge of the detail, in pixels."""
GAP, CAPTION = 8, 30


def largest_that_fits(image: Image.Image, kind: str, max_bytes: int, **settings: object) -> bytes:
    """Return the largest file of at most ``max_bytes``, over the quality settings of Pillow.

    Args:
        image: the photograph.
        kind: "JPEG" or "AVIF".
        max_bytes: limit, in bytes.
        settings: further settings of Pillow.
    """
    best = b""
    for quality in range(1, 96):
        file = io.BytesIO()
        image.save(file, kind, quality=quality, **settings)
        if len(best) < file.tell() <= max_bytes:
            best = file.getvalue()
    if not best:
        raise SystemExit(f"no {kind} file of {max_bytes} bytes")
    return best


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    with Image.open(PHOTO) as file:
        photo = file.convert("RGB")
    codec = ohmq.load("photo")
    data = codec.compress(photo, bpp=BITS_PER_PIXEL)
    jpeg = largest_that_fits(photo, "JPEG", len(data), optimize=True, progressive=True)
    avif = largest_that_fits(photo, "AVIF", len(data), speed=4)
    panels = [
        ("original", photo),
        (f"JPEG, {len(jpeg):,} bytes", Image.open(io.BytesIO(jpeg)).convert("RGB")),
        (f"AVIF, {len(avif):,} bytes", Image.open(io.BytesIO(avif)).convert("RGB")),
        (f"ohmq, {len(data):,} bytes", codec.decompress(data)),
    ]
    width, height = DETAIL[2] - DETAIL[0], DETAIL[3] - DETAIL[1]
    picture = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height + CAPTION), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
    for number, (label, image) in enumerate(panels):
        left = number * (width + GAP)
        picture.paste(image.crop(DETAIL), (left, CAPTION))
        draw.text((left + 4, 4), label, "black", font)
    picture.save(output, optimize=True)
    print(f"{output}: {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
