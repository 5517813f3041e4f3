"""What ``--effort`` gains and costs on pictures.

    python benchmarks/effort.py IMAGES [--model photo] [--channels 135] [--count N] [-o results/effort.json]

Each picture is compressed at each effort with the same number of channels, one file of all its layers. As rate and error both
change, the gain is also given as a rate: bytes, and what the difference in error is worth at the slope of the picture's own
curve. Times are ratios to effort 0 of the same picture.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ohmq.codec import load
from ohmq.evaluation.results import command_line, software_versions
from ohmq.files import write_atomically
from ohmq.metrics import psnr_db


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--model", default="photo")
    parser.add_argument("--channels", type=int, default=135)
    parser.add_argument("--count", type=int, help="only so many pictures, evenly spread")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    codec = load(arguments.model)
    files = sorted(path for path in arguments.images.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        parser.error(f"no pictures in {arguments.images}")
    if arguments.count:
        files = files[:: max(1, len(files) // arguments.count)][: arguments.count]
    rows = []
    for file in files:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        pixels = np.asarray(picture)
        source = codec.latent(picture) if codec.priced else codec.analyse(picture)
        slope = codec._slope(picture, source, arguments.channels)
        row: dict[str, object] = {"image": file.name}
        first = None
        for effort in (0, 1, 2):
            start = time.perf_counter()
            data = codec.compress(picture, channels=arguments.channels, effort=effort)
            seconds = time.perf_counter() - start
            psnr = psnr_db(pixels, np.asarray(codec.decompress(data)))
            bits, error = 8 * len(data) / (picture.width * picture.height), 255**2 / 10 ** (psnr / 10)
            first = first or (bits, error, seconds)
            gain = (bits - first[0] + slope * (error - first[1])) / first[0]
            row |= {f"bytes_{effort}": len(data), f"psnr_db_{effort}": psnr}
            row |= {f"rate_percent_{effort}": 100 * gain, f"time_ratio_{effort}": seconds / first[2]}
        print(
            f"{file.name:16}"
            + "  ".join(
                f"{row[f'bytes_{e}']:7,} {row[f'psnr_db_{e}']:.2f} dB {row[f'rate_percent_{e}']:+.2f} %"
                for e in (0, 1, 2)
            ),
            flush=True,
        )
        rows.append(row)
    mean = {key: statistics.mean(float(row[key]) for row in rows) for key in rows[0] if key != "image"}  # type: ignore[arg-type]
    for effort in (0, 1, 2):
        ratio = statistics.median(float(row[f"time_ratio_{effort}"]) for row in rows)  # type: ignore[arg-type]
        print(
            f"effort {effort}: mean {mean[f'bytes_{effort}']:,.0f} bytes, {mean[f'psnr_db_{effort}']:.3f} dB, "
            f"as a rate {mean[f'rate_percent_{effort}']:+.2f} %, {ratio:.1f} times the time"
        )
    if arguments.output:
        record = {"command": command_line(), "model_id": codec.model_id.hex(), "data": arguments.images.name}
        record |= {"channels": arguments.channels, "versions": software_versions(), "mean": mean, "images": rows}
        write_atomically(arguments.output, (json.dumps(record, indent=1) + "\n").encode(), force=True)


if __name__ == "__main__":
    main()
