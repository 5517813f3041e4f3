"""Fetch an .ohm file and show its image while it arrives: better with every layer.

    python examples/fetch.py 'http://127.0.0.1:8000/coffee.ohm?bpp=0.4' -o latest.png

The output file is replaced as a whole, so that a viewer which watches it never sees half an image.
"""

import argparse
import io
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

import ohmq
from ohmq.utils.atomic_write import write_atomically


class CountingStream:
    """Stream that counts the bytes read from it.

    Args:
        stream: the stream to read from.

    Attributes:
        count: bytes read so far.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.count = stream, 0

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes."""
        data = self.stream.read(size)
        self.count += len(data)
        return data


def fetch(url: str, output: Path, model: str) -> None:
    """Write the image after each layer, and print a line about it.

    Args:
        url: address of an .ohm file.
        output: PNG file; it is replaced by each image.
        model: name of a shipped model, or a model file.

    Raises:
        OSError: the address cannot be read, or the output cannot be written.
        OhmqError: no such model, or a file that it cannot decode.
    """
    codec = ohmq.load(model)
    with urllib.request.urlopen(url, timeout=60) as response:
        size = int(response.headers["Content-Length"])
        source, start = CountingStream(response), time.perf_counter()
        for number, image in enumerate(codec.decompress_progressive(source, allow_truncated=True), start=1):
            png = io.BytesIO()
            image.save(png, "PNG")
            write_atomically(output, png.getvalue(), force=True)
            seconds = time.perf_counter() - start
            print(f"layer {number:2d}: {source.count} of {size} bytes, {seconds:.2f} s, {output}", flush=True)
    if source.count < size:
        print("the connection ended early: the image is the best of what arrived", file=sys.stderr)


def main() -> None:
    """Fetch one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("-o", "--output", type=Path, required=True, help="image to write, as PNG")
    parser.add_argument("-m", "--model", default="photo", help="shipped model's name or model file (default: photo)")
    arguments = parser.parse_args()
    try:
        fetch(arguments.url, arguments.output, arguments.model)
    except urllib.error.HTTPError as error:
        sys.exit(f"error: {error.code} {error.reason}: {error.read().decode(errors='replace').strip()}")
    except (OSError, ohmq.OhmqError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
