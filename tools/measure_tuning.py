"""Measure what tunings of the encoder gain and cost: the tables in docs/experiments/tuning.md.

    python tools/measure_tuning.py photo PHOTOS --out results/tuning.json
    python tools/measure_tuning.py photo PHOTOS --tuning "frequency_exponent=1" --tuning "activity_exponent=0.5"

Codes the middles of photographs with each tuning at several numbers of channels, whole files of one layer, and gives the mean of
the images' BD-rates against the tuning "psnr". Rates are those of whole files. A tuning is a name of
`ohmq.encoder.tuning.TUNINGS`, or attributes of `ohmq.encoder.tuning.Tuning` that differ from its defaults.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from calibrate_quality import crops
from PIL import Image

import ohmq
from ohmq.encoder.encoder import FileSettings
from ohmq.encoder.tuning import TUNINGS, Tuning
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.metrics import Ssimulacra2, ms_ssim, psnr_db, psnr_hvs_m
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.provenance import command_line, software_versions

CHANNELS = (64, 135, 269, 402, 535, 678, 758, 920, 1000)
METRICS = ("psnr_db", "ms_ssim_db", "ssimulacra2", "psnr_hvs_m_db")
SHIFT = 1000.0
"""Added to scores, which may be negative, before their BD-rate, which does not change by it."""


def tuning_of(text: str) -> Tuning:
    """Return the tuning that a text describes."""
    if text in TUNINGS:
        return TUNINGS[text]
    fields = (item.split("=") for item in text.split())
    return Tuning(**{name: float(value) for name, value in fields})  # type: ignore[arg-type]


class Measured:
    """One photograph, and files of it.

    Args:
        codec: the codec.
        image: the photograph.
        effort: refinement passes of the encoder.
    """

    def __init__(self, codec: ohmq.Codec, image: Image.Image, effort: int) -> None:
        self.codec, self.pixels = codec, np.asarray(image)
        self.latent = codec.latent(image, effort=effort, tune="psnr")
        self.similarity = Ssimulacra2(self.pixels)

    def points(
        self, tuning: Tuning, channels: tuple[int, ...], scales: tuple[float, ...] = (1.0,)
    ) -> Iterator[dict[str, float]]:
        """Yield the rate and the metrics of the file of each number of channels and factor on λ."""
        latent = tuning.apply(self.latent, self.codec.transforms.quantizer["project"])
        for scale in scales:
            for count in channels:
                source = latent._replace(lambda_scale=scale)
                data = self.codec.encoder.encode(source, count, FileSettings(layers=1))
                decoded = np.asarray(self.codec.decompress(data))
                planes = (pixels.transpose(2, 0, 1)[None] for pixels in (self.pixels, decoded))
                yield {
                    "channels": count,
                    "lambda_scale": scale,
                    "file_bpp": 8 * len(data) / (decoded.shape[0] * decoded.shape[1]),
                    "psnr_db": psnr_db(self.pixels, decoded),
                    "ms_ssim_db": -10 * math.log10(1 - float(ms_ssim(*planes)[0])),
                    "ssimulacra2": self.similarity.score(decoded),
                    "psnr_hvs_m_db": psnr_hvs_m(self.pixels, decoded),
                }


def bd_rates(anchor: list[dict[str, float]], points: list[dict[str, float]]) -> dict[str, float]:
    """Return the BD-rate in per cent by each metric."""
    table = {}
    for name in METRICS:
        curves = [([row["file_bpp"] for row in rows], [row[name] + SHIFT for row in rows]) for rows in (anchor, points)]
        table[name] = bd_rate(*curves[0], *curves[1]).percent
    return table


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="shipped name or model file")
    parser.add_argument("photos", type=Path, help="folder of photographs")
    parser.add_argument("--tuning", action="append", help="tuning; repeatable (default: visual)")
    parser.add_argument("--count", type=int, default=6, help="number of photographs (default: 6)")
    parser.add_argument("--side", type=int, default=448, help="longest side of a crop, in pixels (default: 448)")
    parser.add_argument("--effort", type=int, default=1, help="refinement passes (default: 1)")
    parser.add_argument("--out", type=Path, help="also write all points to this JSON file")
    arguments = parser.parse_args()
    codec = ohmq.load(arguments.model)
    names = ["psnr", *(arguments.tuning or ["visual"])]
    tunings = {name: tuning_of(name) for name in names}
    points: dict[str, list[list[dict[str, float]]]] = {name: [] for name in names}
    for _, image in crops(arguments.photos, arguments.count, arguments.side):
        measured = Measured(codec, image, arguments.effort)
        for name, tuning in tunings.items():
            points[name].append(list(measured.points(tuning, CHANNELS)))
    means: dict[str, Any] = {}
    for name in names[1:]:
        rates = [bd_rates(*pair) for pair in zip(points["psnr"], points[name], strict=True)]
        means[name] = {metric: round(float(np.mean([row[metric] for row in rates])), 2) for metric in METRICS}
        print(f"{name}: " + ", ".join(f"{metric} {value:+.2f} %" for metric, value in means[name].items()))
    if arguments.out:
        result = {
            "command": command_line(),
            "versions": software_versions(),
            "model_id": codec.model_id.hex(),
            "effort": arguments.effort,
            "images": len(points["psnr"]),
            "bd_rate_percent": means,
            "points": points,
        }
        write_atomically(arguments.out, (json.dumps(result, indent=1) + "\n").encode(), force=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
