"""Hash the files that this encoder writes, to compare two checkouts or two settings bit for bit.

Encoding decides in floating point, so hashes are comparable on one machine and one set of libraries only. Write them with
one checkout, then compare the other one with them:

    python tools/encoder_bytes.py --out before.json
    python tools/encoder_bytes.py --against before.json

Exit status 1 if any file or decoded image differs.
"""

import argparse
import hashlib
import itertools
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import ohmq

EXAMPLES = Path(__file__).parents[1] / "examples" / "photos"
TARGETS: dict[str, dict[str, Any]] = {
    "all": {"channels": 1000, "layers": "all"},
    "channels": {"channels": 116, "layers": 3},
    "bpp": {"bpp": 0.6, "layers": "all"},
    "max_bytes": {"max_bytes": 2500, "layers": 2, "psnr_table": True},
    "psnr": {"psnr": 27.0, "layers": "all"},
    "quality": {"quality": 70},
    "tiles": {"channels": 300, "tile": 5, "layers": "all", "psnr_table": True},
}
"""Arguments of `ohmq.Codec.compress` by the name of the case."""
DIGIT_TARGETS: dict[str, dict[str, Any]] = {
    "all": {"layers": "all"},
    "half": {"fraction": 0.5, "layers": "all"},
    "fixed_rate": {"fixed_rate": True, "layers": "all"},
    "max_bytes": {"max_bytes": 150, "layers": "all"},
    "psnr": {"psnr": 5.0, "layers": "all"},
}


def photographs() -> Iterator[tuple[str, Image.Image]]:
    """Twelve small images of several modes, cropped from the example photographs."""
    crops = ((0, 0, 192, 128), (60, 90, 220, 250), (100, 40, 231, 150), (30, 20, 180, 141))
    for path in sorted(EXAMPLES.glob("*.png")):
        with Image.open(path) as image:
            whole = image.convert("RGB")
        for number, box in enumerate(crops):
            part = whole.crop(box)
            if number == 2:
                part = part.convert("L")
            if number == 3:
                part.putalpha(Image.linear_gradient("L").resize(part.size))
            yield f"{path.stem}-{number}", part


def cases(compiled: bool) -> Iterator[tuple[str, ohmq.Codec, Callable[[], bytes]]]:
    """(name, codec, what compresses) of each case."""
    photo = ohmq.load("photo", compiled=compiled)
    for name, image in photographs():
        for effort, (target, arguments) in itertools.product(range(3), TARGETS.items()):
            yield (
                f"photo/{name}/effort {effort}/{target}",
                photo,
                lambda image=image, effort=effort, arguments=arguments: photo.compress(
                    image, effort=effort, **arguments
                ),
            )
        yield (
            f"photo/{name}/fixed rate",
            photo,
            lambda image=image: photo.compress(image, channels=64, layers="all", fixed_rate=True),
        )
    for model in ("mnist-ohm", "mnist-int"):
        codec = ohmq.load(model, compiled=compiled)
        for name, image in photographs():
            small = image.convert("L").resize((56, 45))
            for target, arguments in DIGIT_TARGETS.items():
                yield (
                    f"{model}/{name}/{target}",
                    codec,
                    lambda codec=codec, small=small, arguments=arguments: codec.compress(small, **arguments),
                )


def hashes(compiled: bool) -> dict[str, str]:
    """SHA-256 of the file and of its decoded pixels, or the error's class, by case."""
    found = {}
    for name, codec, compress in cases(compiled):
        try:
            data = compress()
        except ohmq.OhmqError as error:
            found[name] = type(error).__name__
            continue
        pixels = np.asarray(codec.decompress(data))
        found[name] = f"{len(data)} {hashlib.sha256(data).hexdigest()} {hashlib.sha256(pixels.tobytes()).hexdigest()}"
        if len(found) % 50 == 0:
            print(f"{len(found)} cases", file=sys.stderr)
    return found


def main() -> None:
    warnings.simplefilter("ignore", ohmq.ImageConversionWarning)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the hashes to this JSON file")
    parser.add_argument("--against", type=Path, help="compare with the hashes in this JSON file")
    arguments = parser.parse_args()
    found = {}
    for compiled in (False, True):
        found |= {f"{'compiled' if compiled else 'plain'}/{name}": value for name, value in hashes(compiled).items()}
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} cases")
    if arguments.against:
        before = json.loads(arguments.against.read_text())
        different = sorted(name for name in found.keys() | before.keys() if found.get(name) != before.get(name))
        print(f"{len(different)} differ" + "".join(f"\n  {name}" for name in different[:20]))
        sys.exit(bool(different))


if __name__ == "__main__":
    main()
