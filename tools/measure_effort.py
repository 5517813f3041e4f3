"""Measure what `--effort` gives at equal settings: the table in docs/choose-a-bitrate.md.

    python tools/measure_effort.py photo PHOTOS --out results/effort.json

Codes the middle squares of photographs at each setting and effort, and writes the mean bytes, PSNR and SSIMULACRA2 score of each.
The scores are those of `ohmq.metrics.ssimulacra2`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from calibrate_quality import crops, score
from PIL import Image

import ohmq
from ohmq.encoder.options import EncodeOptions
from ohmq.errors import UnreachableTargetError
from ohmq.metrics import psnr_db
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.provenance import command_line, software_versions

SETTINGS: dict[str, dict[str, Any]] = {
    "--quality 80": {"quality": 80},
    "--quality 40": {"quality": 40},
    "--channels 269": {"channels": 269},
    "--quality 100 --layers all": {"quality": 100, "layers": "all"},
    "--bpp 0.3": {"bpp": 0.3},
    "--bpp 0.8": {"bpp": 0.8},
    "--psnr 28": {"psnr": 28},
    "--psnr 30": {"psnr": 30},
}
EFFORTS = (0, 1, 2)


def measure(codec: ohmq.Codec, image: Image.Image) -> dict[tuple[str, int], tuple[float, float, float]]:
    """Return the bytes, PSNR and score of an image by setting and effort.

    Raises:
        UnreachableTargetError: a rate or a PSNR that the model does not reach on this image.
    """
    rows = {}
    for setting, options in SETTINGS.items():
        for effort in EFFORTS:
            data = codec.compress_prepared(image, EncodeOptions(**options, effort=effort)).data
            decoded = codec.decompress(data)
            rows[setting, effort] = (
                len(data),
                psnr_db(np.asarray(image), np.asarray(decoded)),
                score(image, decoded),
            )
    return rows


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name or file")
    parser.add_argument("photos", type=Path, help="folder")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--count", type=int, default=12, help="photographs (default: 12)")
    parser.add_argument("--side", type=int, default=288, help="of the crops, in pixels (default: 288)")
    arguments = parser.parse_args()
    codec = ohmq.load(arguments.model)
    measured: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    names, left_out = [], []
    for name, image in crops(arguments.photos, arguments.count, arguments.side):
        try:
            rows_of_image = measure(codec, image)
        except UnreachableTargetError as error:
            print(f"{name} left out: {error}", file=sys.stderr)
            left_out.append(name)
            continue
        names.append(name)
        for key, row in rows_of_image.items():
            measured.setdefault(key, []).append(row)
    rows = []
    for (setting, effort), values in measured.items():
        size, decibel, mark = np.mean(values, 0)
        rows.append({"setting": setting, "effort": effort, "bytes": round(float(size), 1),
                     "psnr_db": round(float(decibel), 3), "ssimulacra2": round(float(mark), 2)})  # fmt: skip
    result = {
        "command": command_line(),
        "model_id": codec.model_id.hex(),
        "versions": software_versions(),
        "crops": names,
        "left_out": left_out,
        "side": arguments.side,
        "means": rows,
    }
    write_atomically(arguments.out, (json.dumps(result, indent=1) + "\n").encode(), force=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
