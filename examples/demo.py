"""Compress and decompress handwritten digits with the shipped model; show the result as a table and a picture.

    python examples/demo.py [--data FOLDER_WITH_MNIST] [--output demo-output]

With MNIST at hand (--data, $OHMQ_DATA or ./data) the digits are the first 20 of its test set; else the drawings in
examples/digits.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

import ohmq
from ohmq.codec import Codec
from ohmq.container import read_ohm
from ohmq.datasets import find_mnist, load_mnist_images
from ohmq.errors import ConfigError
from ohmq.files import write_atomically
from ohmq.metrics import psnr_db

COUNT = 20
ZOOM = 3


def digits(data: str | None) -> tuple[str, list[Image.Image]]:
    """What the digits are, and 20 of them."""
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
    """Size of the image as an optimised PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.tell()


def round_trip(codec: Codec, image: Image.Image, channels: int, path: Path) -> tuple[int, Image.Image, float]:
    """Write and read back one file; bytes, picture and PSNR. Fails if a decoded symbol differs."""
    symbols = codec.analyse(image)
    write_atomically(path, codec.encode(symbols, channels, layers=1), force=True)
    data = path.read_bytes()
    if not np.array_equal(codec.decode(data)[1].values, symbols.values[..., :channels]):
        raise SystemExit(f"{path}: the decoded symbols differ from the encoded ones")
    picture = codec.decompress(data)
    return len(data), picture, psnr_db(np.asarray(image), np.asarray(picture))


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with MNIST")
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    arguments = parser.parse_args()
    what, images = digits(arguments.data)
    codec = ohmq.load("mnist-ohm")
    print(f"{COUNT} digits, 28x28: {what}\nmodel mnist-ohm {codec.model_id.hex()}, {codec.num_channels} channels\n")
    print("                     bytes a digit    payload bits/pixel    PSNR dB   decoded symbols")
    print(f"PNG, lossless        {np.mean([png_bytes(image) for image in images]):13.1f}")
    rows = [images]
    for channels in (2, 4, 8, 16):
        sizes, payloads, pictures, quality = [], [], [], []
        for number, image in enumerate(images):
            path = arguments.output / f"digit{number:02d}_{channels:02d}.ohm"
            size, picture, db = round_trip(codec, image, channels, path)
            sizes.append(size)
            payloads.append(read_ohm(path.read_bytes()).payload_bytes)
            pictures.append(picture)
            quality.append(db)
        payload = 8 * np.mean(payloads) / 784
        print(
            f"ohmq, {channels:2d} channels    {np.mean(sizes):13.1f}    {payload:18.3f}    {np.mean(quality):7.2f}   identical"
        )
        rows.append(pictures)
    side = 28 * ZOOM
    sheet = Image.new("L", (COUNT * side, len(rows) * (side + 4)), 96)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image.resize((side, side), Image.Resampling.NEAREST), (x * side, y * (side + 4)))
    arguments.output.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.output / "digits.png")
    print(f"\n{COUNT * 4} files and the picture are in {arguments.output}: {arguments.output / 'digits.png'}")
    print("rows of the picture: original, then 2, 4, 8 and 16 channels")
    try:
        codec.decompress(path.read_bytes()[:-3])
    except ohmq.TruncatedFileError as error:
        print(f"a file cut short is refused: {error}")


if __name__ == "__main__":
    main()
