"""Compare the photo model with other codecs by kind of picture: faces, skies, night, foliage, products, screens, text, lines.

    python benchmarks/kinds.py --make kinds                    # fetch and draw the pictures of kinds.toml
    python benchmarks/kinds.py kinds -o results/kinds.json     # measure, print a table, write the result

Making them downloads 350 MB of packages (into --cache) and needs Chromium and dpkg-deb. Measuring takes the square at the
centre of each picture. A BD-rate is the mean over the pictures of a kind, each over the range that both codecs cover.
--per-kind, --rates and --side make it smaller.
"""

import argparse
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kinds_set import make_set, pixel_hash, read_table
from PIL import Image

import ohmq
from ohmq.encoder.options import EncodeOptions
from ohmq.errors import ConfigError, OhmqError
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.classic import CLASSIC_CODECS, library_versions
from ohmq.evaluation.compare import compare_codecs, default_settings, spread
from ohmq.evaluation.comparison import MODEL, CodecResult, CodedPoint, CodedRow
from ohmq.evaluation.qualities import QUALITIES
from ohmq.model_files.resolve import resolve_model
from ohmq.utils.atomic_write import check_output, write_atomically
from ohmq.utils.provenance import command_line, software_versions

CODECS = ("jpeg", "webp", "jxl", "avif", "avif-psnr")
QUALITY_NAMES = ("psnr_db", "ms_ssim_db", "ssimulacra2")
SHOWN_BPP = 0.4
"""Rate at which the table gives scores, in bits per pixel."""


def centre(image: Image.Image, side: int) -> np.ndarray:
    """Return the square at the centre of an image, or all of a smaller side, (H, W, 3) uint8."""
    width, height = (min(side, length) for length in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.convert("RGB").crop((left, top, left + width, top + height)))


def lossless_bpp(pixels: np.ndarray) -> float:
    """Return the rate of a lossless WebP file, in bits per pixel."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, method=6)
    return 8 * file.tell() / (pixels.shape[0] * pixels.shape[1])


def quality(row: CodedRow, name: str) -> float:
    """Return a quality of one coded picture."""
    return -10 * math.log10(max(1 - row.ms_ssim, 1e-10)) if name == "ms_ssim_db" else float(getattr(row, name))


def curve(codec: CodecResult, picture: int, name: str) -> tuple[list[float], list[float]]:
    """Return the rates and the qualities of one picture."""
    rows = [rows[picture] for rows in codec.rows]
    return [row.file_bpp for row in rows], [quality(row, name) for row in rows]


def at_rate(codec: CodecResult, picture: int, name: str, bpp: float) -> float:
    """Interpolate a quality over the logarithm of the rate; NaN outside of the measured rates."""
    rates, values = (np.array(part) for part in curve(codec, picture, name))
    order = np.argsort(rates)
    return float(np.interp(math.log(bpp), np.log(rates[order]), values[order], left=math.nan, right=math.nan))


def point_values(point: CodedPoint) -> dict[str, float]:
    """Return rate and qualities of a point, rounded."""
    qualities = {name: round(getattr(point, name), 3) for name in QUALITY_NAMES}
    return {"bpp": round(point.file_bpp, 4), **qualities}


def summarise(codecs: Sequence[CodecResult], names: Sequence[str], pixels: Sequence[np.ndarray]) -> dict[str, Any]:
    """Summarise one kind: BD-rates by codec and quality, scores at one rate, the best that the model reaches."""
    model, bd = codecs[0], {}
    for codec in codecs[1:]:
        bd[codec.name] = {}
        for name in QUALITY_NAMES:
            by_picture, refusals = {}, {}
            for picture, title in enumerate(names):
                try:
                    points = *curve(codec, picture, name), *curve(model, picture, name)
                    by_picture[title] = round(bd_rate(*points, unit=QUALITIES[name].unit).percent, 1)
                except ConfigError as error:
                    refusals[title] = str(error)
            mean = round(math.fsum(by_picture.values()) / len(by_picture), 1) if by_picture else None
            bd[codec.name][name] = {"percent": mean, "by_picture": by_picture, "refused": refusals}
    scores = {
        codec.name: [round(at_rate(codec, picture, "ssimulacra2", SHOWN_BPP), 1) for picture in range(len(names))]
        for codec in codecs
    }
    best = model.points[-1]
    return {
        "pictures": list(names),
        "bd_rate_percent": bd,
        f"ssimulacra2_at_{SHOWN_BPP}_bpp": {
            name: [None if math.isnan(value) else value for value in values] for name, values in scores.items()
        },
        "best_of_model": point_values(best),
        "lossless_webp_bpp": round(float(np.mean([lossless_bpp(picture) for picture in pixels])), 3),
        "points": {
            codec.name: [{"setting": point.setting, **point_values(point)} for point in codec.points]
            for codec in codecs
        },
    }


def table_row(kind: str, found: dict[str, Any], codecs: Sequence[str]) -> dict[str, Any]:
    """Return a row of the table as text: BD-rates in percent by PSNR / MS-SSIM / SSIMULACRA2 against each codec."""
    row: dict[str, Any] = {"kind": kind, "pictures": len(found["pictures"])}
    for name in codecs:
        values = [found["bd_rate_percent"][name][quality_name]["percent"] for quality_name in QUALITY_NAMES]
        row[name] = " / ".join("none" if value is None else f"{value:+.0f}" for value in values)
    best = found["best_of_model"]
    row["best"] = f"{best['psnr_db']:.1f} dB, {best['ssimulacra2']:.0f}, {best['bpp']:.2f} bpp"
    return row | {"lossless": f"{found['lossless_webp_bpp']:.2f} bpp"}


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows of the table."""
    for row in rows:
        print(" | ".join(map(str, row.values())), flush=True)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all kinds."""
    codec = ohmq.Codec(resolve_model(arguments.model), decoder=arguments.decoder)
    options = EncodeOptions(effort=arguments.effort, tune=arguments.tune)
    settings = spread(default_settings(codec, options), arguments.rates)
    chosen = set(arguments.only)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for picture in read_table()["pictures"]:
        if not chosen or picture["kind"] in chosen:
            by_kind.setdefault(picture["kind"], []).append(picture)
    kinds, rows, other = {}, [], []
    print(
        " | ".join(
            [
                "kind",
                "pictures",
                *(CLASSIC_CODECS[name].label for name in arguments.codec),
                "best of the model",
                "lossless WebP",
            ]
        )
    )
    for kind, pictures in by_kind.items():
        images = []
        for picture in spread(pictures, arguments.per_kind):
            path = arguments.folder / kind / f"{picture['name']}.png"
            if not path.exists():
                raise ConfigError(f"no {path}; make the pictures with --make {arguments.folder}")
            with Image.open(path) as image:
                if pixel_hash(image) != picture["sha256"]:
                    other.append(f"{kind}/{picture['name']}")
                images.append((picture["name"], centre(image, arguments.side)))
        codecs = compare_codecs(
            codec,
            images,
            settings,
            arguments.codec,
            rates=arguments.rates,
            effort=arguments.effort,
            tune=arguments.tune,
            metrics=("ms-ssim", "ssimulacra2"),
        )
        kinds[kind] = summarise(codecs, [name for name, _ in images], [pixels for _, pixels in images])
        rows.append(table_row(kind, kinds[kind], arguments.codec))
        print_rows(rows[-1:])
    return {
        "format": 1,
        "command": command_line(),
        "model": codec.name,
        "model_id": codec.model_id.hex(),
        "effort": codec.effort_for(arguments.effort),
        "versions": {**software_versions(), **library_versions()},
        "codecs": {
            MODEL: f"ohmq {codec.name}, {codecs[0].settings}",
            **{name: f"{CLASSIC_CODECS[name].label}, {CLASSIC_CODECS[name].settings}" for name in arguments.codec},
        },
        "side": arguments.side,
        "not_the_pixels_of_the_table": other,
        "table": rows,
        "kinds": kinds,
    }


def main() -> None:
    """Make the pictures or measure them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the pictures")
    parser.add_argument("--make", action="store_true", help="make the pictures, in the folder")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "ohmq" / "kinds", help="downloaded packages"
    )
    parser.add_argument("--model", default="photo")
    parser.add_argument("--decoder", help="decoder of the model (default: its own)")
    parser.add_argument("--effort", type=int, help="refinement passes (default: the model's)")
    parser.add_argument("--tune", choices=["psnr", "visual"], help="tuning of the encoder (default: the model's)")
    parser.add_argument(
        "--codec", action="append", choices=list(CLASSIC_CODECS), help=f"repeatable (default: {' '.join(CODECS)})"
    )
    parser.add_argument("--only", nargs="*", default=[], metavar="KIND", help="kinds to measure (default: all)")
    parser.add_argument("--per-kind", type=int, help="pictures of each kind (default: all)")
    parser.add_argument("--rates", type=int, default=6, help="rates of each codec (default: 6)")
    parser.add_argument(
        "--side", type=int, default=512, help="side of the square that is measured, in pixels (default: 512)"
    )
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    arguments.codec = arguments.codec or list(CODECS)
    try:
        if arguments.make:
            different = make_set(arguments.folder, arguments.cache)
            for line in different:
                print(f"not the pixels of the table: {line}", file=sys.stderr)
            print(
                f"made {len(read_table()['pictures'])} pictures in {arguments.folder}, {len(different)} of other pixels"
            )
            return
        if arguments.output:
            check_output(arguments.output, force=True)
        result = measure(arguments)
        if arguments.output:
            write_atomically(arguments.output, (json.dumps(result, indent=1) + "\n").encode(), force=True)
            print(f"wrote {arguments.output}")
    except OhmqError as error:
        sys.exit(f"kinds.py: {error}")


if __name__ == "__main__":
    main()
