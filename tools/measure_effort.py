"""Measure what `--effort` gives at equal settings: the table in docs/choose-a-bitrate.md.

    python tools/measure_effort.py photo PHOTOS --out results/effort.json

Codes the middle squares of photographs at each setting and effort, and writes the mean bytes, PSNR and SSIMULACRA2 score of each.
The scores come from the package `ssimulacra2` (pip install ssimulacra2).
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from calibrate_quality import crops, score

import ohmq
from ohmq.encoder.options import EncodeOptions
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
    "--psnr 30": {"psnr": 30},
    "--psnr 34": {"psnr": 34},
}
EFFORTS = (0, 1, 2)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name or file")
    parser.add_argument("photos", type=Path, help="folder")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--count", type=int, default=8, help="photographs (default: 8)")
    parser.add_argument("--side", type=int, default=288, help="of the crops, in pixels (default: 288)")
    arguments = parser.parse_args()
    codec = ohmq.load(arguments.model)
    measured: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    names = []
    for name, image in crops(arguments.photos, arguments.count, arguments.side):
        names.append(name)
        for setting, options in SETTINGS.items():
            for effort in EFFORTS:
                data = codec.compress_prepared(image, EncodeOptions(**options, effort=effort)).data
                decoded = codec.decompress(data)
                row = len(data), psnr_db(np.asarray(image), np.asarray(decoded)), score(image, decoded)
                measured.setdefault((setting, effort), []).append(row)
    rows = []
    for (setting, effort), values in measured.items():
        size, decibel, mark = np.mean(values, 0)
        rows.append({"setting": setting, "effort": effort, "bytes": round(float(size), 1),
                     "psnr_db": round(float(decibel), 3), "ssimulacra2": round(float(mark), 2)})  # fmt: skip
    result = {
        "command": command_line(),
        "model_id": codec.model_id.hex(),
        "versions": software_versions() | {"ssimulacra2": version("ssimulacra2")},
        "crops": names,
        "side": arguments.side,
        "means": rows,
    }
    write_atomically(arguments.out, (json.dumps(result, indent=1) + "\n").encode(), force=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
