"""Decode the golden files on this machine, and compare with what another one decoded; see check_arm64.sh.

    python tools/check_arm64.py here.json
    python tools/check_arm64.py there.json --compare here.json

Files: those of tests/golden, and images that are compressed here with the shipped models. Symbols must be those that are
stored beside the golden files, with the compiled kernels and with those in numpy; pixels may differ by 1 of 255. With
--compare, the files that the other machine compressed are decoded, too. The exit code is 1 if anything differs.
"""

import argparse
import base64
import hashlib
import importlib.metadata
import json
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ohmq.codec import Codec
from ohmq.entropy.kernels import NUMPY
from ohmq.entropy.kernels_numba import COMPILED
from ohmq.loading import load

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
PACKAGES = ("torch", "numpy", "Pillow", "safetensors", "click", "numba", "llvmlite", "constriction")
TOLERANCE = 1
"""Largest difference of a pixel, of 255."""


def decoded_symbols(codec: Codec, data: bytes) -> list[np.ndarray[Any, Any]]:
    """Decode a file with the kernels of both kinds; the range coder is the compiled one."""
    symbols = []
    for kernels in (COMPILED, NUMPY._replace(encoder=COMPILED.encoder, decoder=COMPILED.decoder)):
        codec.decoder.kernels = kernels
        symbols.append(codec.decode(data)[1].values)
    return symbols


def digest(symbols: np.ndarray[Any, Any]) -> str:
    """Return the SHA-256 of symbols as 16-bit integers."""
    return hashlib.sha256(str(symbols.shape).encode() + symbols.astype("<u2").tobytes()).hexdigest()


def check_file(codec: Codec, data: bytes, symbols_sha256: str | None, pixels: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Decode a file and compare it.

    Args:
        codec: the codec of its model.
        data: the file.
        symbols_sha256: of the right symbols; None: those of the first kernels.
        pixels: the right pixels.
    """
    digests = [digest(symbols) for symbols in decoded_symbols(codec, data)]
    decoded = np.asarray(codec.decompress(data), int)
    difference = int(np.abs(decoded - pixels).max()) if decoded.shape == pixels.shape else 255
    right = symbols_sha256 or digests[0]
    same = [digest == right for digest in digests]
    return {
        "symbols_sha256": digests[0],
        "compiled_symbols_equal": same[0],
        "numpy_symbols_equal": same[1],
        "largest_pixel_difference": difference,
        "pixels_that_differ": float(np.mean(decoded != pixels)) if decoded.shape == pixels.shape else 1.0,
        "ok": all(same) and difference <= TOLERANCE,
    }


def golden_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the comparison of each golden file."""
    codecs = {path.stem: load(path) for path in sorted(GOLDEN.glob("*.safetensors"))}
    for path in sorted(GOLDEN.glob("*.ohm")):
        record = json.loads(path.with_suffix(".json").read_text())
        stored = np.array(record["symbols"] if isinstance(record, dict) else record)
        with Image.open(path.with_suffix(".png")) as image:
            pixels = np.asarray(image, int)
        yield path.name, check_file(codecs[path.stem.split("_")[0]], path.read_bytes(), digest(stored), pixels)


def shipped_rows(other: dict[str, Any] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compress images with the shipped models, and decode those of the other machine; yield name and comparison."""
    for name, source in (
        ("mnist-ohm", "digits/digit_3_a.png"),
        ("mnist-int", "digits/digit_3_a.png"),
        ("photo", "photos/coffee.png"),
    ):
        codec = load(name)
        with Image.open(ROOT / "examples" / source) as opened:
            image = opened.convert("L" if codec.grey else "RGB")
        if not codec.grey:
            image = image.crop((100, 100, 196, 164))
        data = codec.compress(image, layers=3)
        pixels = np.asarray(codec.decompress(data), int)
        row = check_file(codec, data, None, pixels)
        yield f"{name}, compressed here", {**row, "file": base64.b64encode(data).decode(), "pixels": pixels.tolist()}
        if other is not None:
            theirs = other["files"][f"{name}, compressed here"]
            row = check_file(
                codec, base64.b64decode(theirs["file"]), theirs["symbols_sha256"], np.array(theirs["pixels"])
            )
            yield f"{name}, compressed there", {**row, "same_bytes_as_here": base64.b64decode(theirs["file"]) == data}


def versions() -> dict[str, str]:
    """Return the versions of what takes part."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--compare", type=Path, help="output of another machine")
    options = parser.parse_args()
    other = json.loads(options.compare.read_text()) if options.compare else None
    warnings.simplefilter("ignore")
    files = dict(golden_rows()) | dict(shipped_rows(other))
    for name, row in files.items():
        print(
            f"{name:34} symbols {'equal' if row['compiled_symbols_equal'] and row['numpy_symbols_equal'] else 'DIFFER'}, "
            f"pixels within {row['largest_pixel_difference']}"
        )
        if other is not None and name in other["files"] and not name.endswith("here"):
            row["ok"] &= other["files"][name]["symbols_sha256"] == row["symbols_sha256"]
    failed = [name for name, row in files.items() if not row["ok"]]
    print(f"{platform.machine()}: {len(files)} files, {len(failed)} differ {' '.join(failed)}")
    result = {"versions": versions(), "files": files, "differ": failed}
    if other is not None:
        result["other_versions"] = other["versions"]
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
