"""Compress and decompress digits and photographs with the shipped models; show the result as tables and images.

    python examples/demo.py [--data FOLDER_WITH_MNIST] [--output demo-output]

With MNIST at hand (--data, $OHMQ_DATA or ./data) the digits are the first 20 of its test set; else the drawings in
examples/digits.
"""

import argparse
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import ohmq
from ohmq.bitstream.reader import read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.codec import Codec
from ohmq.datasets.mnist import find_mnist, load_mnist_images
from ohmq.errors import ConfigError
from ohmq.metrics import psnr_db
from ohmq.utils.atomic_write import write_atomically

COUNT = 20
"""Number of digits."""
ZOOM = 3
"""Factor by which digits are shown larger."""
PHOTOS = ("astronaut", "chelsea", "coffee")
"""Names of the example photographs that are shown."""
RATES_BPP = (0.15, 0.4)
"""Targets for the photographs, in bits per pixel."""
CROP = 192
"""Pixels of a photograph that are shown, each side."""


class RoundTrip(NamedTuple):
    """Size of a file in bytes, the image decoded from it, and its PSNR in dB."""

    size: int
    image: Image.Image
    psnr_db: float


def digits(data: str | None) -> tuple[str, list[Image.Image]]:
    """Load 20 digits.

    Args:
        data: folder with MNIST; None: look in the usual places, else take the drawings of examples/digits.

    Returns:
        Where the digits come from, in words, and the images.

    Raises:
        ConfigError: a folder was given, and it has no MNIST.
    """
    try:
        folder = find_mnist(data, download=False)
    except ConfigError:
        if data is not None:
            raise
        files = sorted((Path(__file__).parent / "digits").glob("*.png"))[:COUNT]
        return "own drawings from examples/digits (no MNIST found; give it by DATA=folder)", [
            Image.open(file).convert("L") for file in files
        ]
    return f"MNIST test digits from {folder}", [
        Image.fromarray(image) for image in load_mnist_images(folder, train=False)[:COUNT]
    ]


def png_bytes(image: Image.Image) -> int:
    """Return the bytes of an image as an optimised PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.tell()


def round_trip(codec: Codec, image: Image.Image, channels: int, path: Path) -> RoundTrip:
    """Write one file, read it back, and decode it.

    Args:
        codec: the codec.
        image: grey image of 28x28 pixels.
        channels: channels to code.
        path: file to write.

    Returns:
        Size, decoded image and PSNR.

    Raises:
        SystemExit: a decoded symbol differs from the encoded one.
    """
    symbols = codec.analyse(image)
    write_atomically(path, codec.encode(symbols, channels, layers=1), force=True)
    data = path.read_bytes()
    if not np.array_equal(codec.decode(data)[1].values, symbols.values[..., :channels]):
        raise SystemExit(f"{path}: the decoded symbols differ from the encoded ones")
    decoded = codec.decompress(data)
    return RoundTrip(len(data), decoded, psnr_db(np.asarray(image), np.asarray(decoded)))


def jpeg_at(image: Image.Image, size: int) -> tuple[int, Image.Image]:
    """Find the best JPEG (4:2:0, optimised) within a size, or the smallest one.

    Args:
        image: RGB image.
        size: limit in bytes.

    Returns:
        Bytes of the file, and the image decoded from it.
    """
    best: tuple[int, Image.Image] | None = None
    for quality in range(1, 96):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=2)
        if best is None or buffer.tell() <= size:
            best = buffer.tell(), Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    assert best is not None
    return best


def photos(output: Path) -> None:
    """Code photographs at two rates, beside JPEG of the same size, and cut the larger file to the smaller rate.

    Args:
        output: folder for the files and for an image of all results.
    """
    codec = ohmq.load("photo")
    print(
        f"\nphotographs from examples/photos, model photo {codec.model_id.hex()}; in the last line of each the second file, cut"
    )
    print("                     bytes     bpp   PSNR dB     JPEG bytes   PSNR dB")
    sheet = Image.new("RGB", (CROP * (1 + 2 * len(RATES_BPP)), CROP * len(PHOTOS)))
    for row, name in enumerate(PHOTOS):
        image = Image.open(Path(__file__).parent / "photos" / f"{name}.png").convert("RGB")
        pixels = image.width * image.height
        corner = ((image.width - CROP) // 2, (image.height - CROP) // 3)
        box = (*corner, corner[0] + CROP, corner[1] + CROP)
        sheet.paste(image.crop(box), (0, row * CROP))
        for column, rate in enumerate(RATES_BPP):
            path = output / f"{name}_{rate}.ohm"
            write_atomically(path, codec.compress(image, bpp=rate, layers="all"), force=True)
            data = path.read_bytes()
            decoded = codec.decompress(data)
            size, jpeg = jpeg_at(image, len(data))
            ours, theirs = (psnr_db(np.asarray(image), np.asarray(other)) for other in (decoded, jpeg))
            print(
                f"{name:12s} {len(data):13,d}   {8 * len(data) / pixels:.3f}   {ours:7.2f}   {size:12,d}   {theirs:7.2f}"
            )
            sheet.paste(decoded.crop(box), ((1 + 2 * column) * CROP, row * CROP))
            sheet.paste(jpeg.crop(box), ((2 + 2 * column) * CROP, row * CROP))
        cut = truncate_ohm(data, max_bytes=int(RATES_BPP[0] * pixels / 8))
        ours = psnr_db(np.asarray(image), np.asarray(codec.decompress(cut)))
        print(f"{name:12s} {len(cut):13,d}   {8 * len(cut) / pixels:.3f}   {ours:7.2f}")
    sheet.save(output / "photos.png")
    print(
        f"columns of {output / 'photos.png'}: original; ohmq and JPEG at about {RATES_BPP[0]} bpp; both at {RATES_BPP[1]} bpp"
    )


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with MNIST")
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    arguments = parser.parse_args()
    source, images = digits(arguments.data)
    codec = ohmq.load("mnist-ohm")
    print(f"{COUNT} digits, 28x28: {source}\nmodel mnist-ohm {codec.model_id.hex()}, {codec.num_channels} channels\n")
    print("                     bytes a digit    payload bits/pixel    PSNR dB   decoded symbols")
    print(f"PNG, lossless        {np.mean([png_bytes(image) for image in images]):13.1f}")
    rows = [images]
    for channels in (2, 4, 8, 16):
        sizes, payloads, decoded, quality = [], [], [], []
        for number, image in enumerate(images):
            path = arguments.output / f"digit{number:02d}_{channels:02d}.ohm"
            result = round_trip(codec, image, channels, path)
            sizes.append(result.size)
            payloads.append(read_ohm(path.read_bytes()).payload_bytes)
            decoded.append(result.image)
            quality.append(result.psnr_db)
        payload = 8 * np.mean(payloads) / 784
        print(
            f"ohmq, {channels:2d} channels    {np.mean(sizes):13.1f}    {payload:18.3f}    {np.mean(quality):7.2f}   identical"
        )
        rows.append(decoded)
    side = 28 * ZOOM
    sheet = Image.new("L", (COUNT * side, len(rows) * (side + 4)), 96)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image.resize((side, side), Image.Resampling.NEAREST), (x * side, y * (side + 4)))
    arguments.output.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.output / "digits.png")
    print(f"\n{COUNT * 4} files and an image of all are in {arguments.output}: {arguments.output / 'digits.png'}")
    print("rows of the image: original, then 2, 4, 8 and 16 channels")
    photos(arguments.output)
    try:
        codec.decompress(path.read_bytes()[:-3])
    except ohmq.TruncatedFileError as error:
        print(f"a file cut short is refused: {error}")


if __name__ == "__main__":
    main()
