"""Calibrate the quality scale of a photo model, or check it on other photographs.

SSIMULACRA2 scores are those of `ohmq.metrics`, as of libjxl's tool.

    python tools/calibrate_quality.py photo PHOTOS --out src/ohmq/pretrained/photo.quality.json
    python tools/calibrate_quality.py photo OTHER_PHOTOS --check results/quality.json

The first line codes square crops of some photographs at each cut point and fits `ohmq.encoder.quality_scale`. The second
codes other photographs at several qualities and measures the mean and the spread of their scores, beside
JPEG, WebP and AVIF (4:2:0, as Pillow writes it).
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import ohmq
from ohmq.encoder.options import EncodeOptions
from ohmq.encoder.quality_scale import LEAST_ERROR, measure_probe
from ohmq.metrics import ssimulacra2
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.provenance import command_line, software_versions

PROBE_CHANNELS = 402
"""Channels of the probe: of the cut points, the one that predicts the scores of all others best on the training photographs."""
RIDGE = 0.03
"""Weight of the squared coefficients in the fit, which keeps few photographs from giving large ones."""
QUALITIES = (0, 30, 50, 70, 80, 90, 100)
OTHERS = {
    "JPEG": (10, 20, 30, 40, 50, 60, 75, 90),
    "WEBP": (1, 10, 30, 50, 70, 80, 90),
    "AVIF": (15, 25, 40, 50, 60, 75),
}
"""Settings of ``quality`` at which Pillow codes for comparison."""


def crops(folder: Path, count: int, side: int) -> Iterator[tuple[str, Image.Image]]:
    """Yield the centres of photographs that are spread evenly over a folder, by name.

    Args:
        folder: folder of JPEG or PNG files.
        count: number of photographs; 0: all.
        side: longest side of a crop, in pixels.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    count = min(count or len(paths), len(paths))
    for number in range(count):
        path = paths[round((number + 0.5) * len(paths) / count - 0.5)]
        with Image.open(path) as file:
            image = file.convert("RGB")
        left, top = max((image.width - side) // 2, 0), max((image.height - side) // 2, 0)
        yield path.stem, image.crop((left, top, min(left + side, image.width), min(top + side, image.height)))
        print(f"{number + 1} of {count}: {path.name}, {time.process_time():.0f} s of CPU", file=sys.stderr, flush=True)


def score(original: Image.Image, decoded: Image.Image) -> float:
    """Return the SSIMULACRA2 score of a decoded image."""
    return ssimulacra2(np.asarray(original), np.asarray(decoded.convert("RGB")))


def log_errors(codec: ohmq.Codec, image: Image.Image) -> NDArray[np.float64]:
    """Return the logarithms of the errors of a probe, (2,)."""
    assert codec.encoder.refiner is not None
    errors = measure_probe(codec.encoder.refiner.decoded_parts(codec.latent(image, effort=0), PROBE_CHANNELS))
    return np.log(np.maximum(errors, LEAST_ERROR))


def calibrate(codec: ohmq.Codec, images: Iterator[tuple[str, Image.Image]]) -> dict[str, Any]:
    """Fit the scores at each cut point to the errors of the probe."""
    logs, scores, rates = [], [], []
    for _, image in images:
        files = [codec.compress(image, channels=count) for count in codec.cut_points]
        scores.append([score(image, codec.decompress(file)) for file in files])
        rates.append([8 * len(file) / (image.width * image.height) for file in files])
        logs.append(log_errors(codec, image))
    x, y = np.array(logs), np.array(scores)
    centred = x - x.mean(0)
    slopes = np.linalg.solve(centred.T @ centred + RIDGE * np.eye(2), centred.T @ (y - y.mean(0)))  # (2, n)
    constants = y.mean(0) - x.mean(0) @ slopes
    return {
        "images": len(x),
        "probe_channels": PROBE_CHANNELS,
        "best_score": round(float(y[:, -1].mean()), 3),
        "ranges": np.stack([x.min(0), x.max(0)], 1).round(4).tolist(),
        "points": [
            {
                "channels": count,
                "coefficients": [round(float(value), 4) for value in (constants[i], *slopes[:, i])],
                "mean_score": round(float(y[:, i].mean()), 2),
                "score_deviation": round(float(y[:, i].std()), 2),
                "mean_bpp": round(float(np.mean(rates, 0)[i]), 4),
            }
            for i, count in enumerate(codec.cut_points)
        ],
    }


def summary(
    setting: int, scores: Sequence[float], rates: Sequence[float], channels: Sequence[int] = ()
) -> dict[str, Any]:
    """Return means and deviations of one setting."""
    values = {
        "quality": setting,
        "mean_score": round(float(np.mean(scores)), 2),
        "score_deviation": round(float(np.std(scores)), 2),
        "mean_bpp": round(float(np.mean(rates)), 4),
    }
    if channels:
        values |= {"least_channels": min(channels), "most_channels": max(channels)}
    return values


def check(codec: ohmq.Codec, images: Iterator[tuple[str, Image.Image]]) -> dict[str, Any]:
    """Measure the scores of files at several qualities, and those of other codecs."""
    measured: dict[tuple[str, int], list[tuple[float, float, int]]] = {}
    for _, image in images:
        pixels = image.width * image.height
        for quality in QUALITIES:
            coded = codec.compress_prepared(image, EncodeOptions(quality=quality))
            row = score(image, codec.decompress(coded.data)), 8 * len(coded.data) / pixels, coded.channels
            measured.setdefault(("ohmq", quality), []).append(row)
        for name, qualities in OTHERS.items():
            for quality in qualities:
                file = io.BytesIO()
                image.save(file, name, quality=quality)
                row = score(image, Image.open(file)), 8 * file.tell() / pixels, 0
                measured.setdefault((name, quality), []).append(row)
    found: dict[str, Any] = {name: [] for name in ("ohmq", *OTHERS)}
    for (name, quality), rows in measured.items():
        scores, rates, channels = zip(*rows, strict=True)
        found[name].append(summary(quality, scores, rates, channels if name == "ohmq" else ()))
    return {"images": len(rows), **found}


def main() -> None:
    """Calibrate or check, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="shipped name or model file")
    parser.add_argument("photos", type=Path, help="folder of photographs")
    parser.add_argument("--count", type=int, default=24, help="number of photographs, 0: all (default: 24)")
    parser.add_argument("--side", type=int, default=384, help="longest side of a crop, in pixels (default: 384)")
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument("--out", type=Path, help="calibrate, and write the table to this JSON file")
    output.add_argument("--check", type=Path, help="check the scale, and write what it gives to this JSON file")
    arguments = parser.parse_args()
    codec = ohmq.load(arguments.model)
    images = crops(arguments.photos, arguments.count, arguments.side)
    result = calibrate(codec, images) if arguments.out else check(codec, images)
    target = arguments.out or arguments.check
    provenance = {
        "model_id": codec.model_id.hex(),
        "transforms_id": codec.frozen.transforms_id.hex(),
        "score": "SSIMULACRA2 of ohmq.metrics",
        "command": command_line(),
        "versions": software_versions(),
    }
    write_atomically(target, (json.dumps(provenance | result, indent=1) + "\n").encode(), force=True)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
