"""Make the files in tests/golden, once for each format version or feature; existing ones are never made again.

python tools/make_golden.py
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.small_models import CONFIGS, make_codec, photo_picture  # noqa: E402

from ohmq.bitstream.truncate import truncate_ohm  # noqa: E402
from ohmq.codec import Codec  # noqa: E402
from ohmq.imaging.files import save_image  # noqa: E402
from ohmq.loading import load  # noqa: E402
from ohmq.model_files.frozen_model import load_model, save_model, with_synthesis  # noqa: E402
from ohmq.runtime.latents import Symbols  # noqa: E402
from ohmq.utils.atomic_write import write_atomically  # noqa: E402

FOLDER = ROOT / "tests" / "golden"
MODELS = (*CONFIGS, "photo", "neighbours", "filters", "swapped")
"""Names of the models; "neighbours": photo with neighbour networks; "swapped": integer with another synthesis."""
KINDS = {
    "neighbours": ("layers", "tiles", "cut"),
    "filters": ("layers", "cut", "grid"),
    "swapped": ("layers",),
}
"""Kinds of files of models that do not have all of them."""


def make_model(name: str, path: Path) -> None:
    """Write a model file.

    Args:
        name: one of `MODELS`.
        path: of the file.
    """
    if name != "swapped":
        save_model(make_codec("photo" if name == "neighbours" else name).frozen, path)
        return
    parent = load_model(FOLDER / "integer.safetensors")
    state = {key: value.numpy() for key, value in parent.model.synthesis_transform.state_dict().items()}
    state["4.bias"] = state["4.bias"] + np.float32(0.2)  # brighter
    save_model(with_synthesis(parent, state, {"made": "brighter"}), path)


def extra_files(codec: Codec, image: Image.Image) -> dict[str, bytes]:
    """Return files with a soft mask, and with a hard one and all metadata, by kind."""
    masked = image.copy()
    masked.putalpha(Image.radial_gradient("L").resize(image.size))
    files = {"alpha": codec.compress(masked, layers=2)}
    masked.putalpha(masked.getchannel("A").point(lambda value: 255 * (value < 150)))
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # the date of creation: now
    masked.info = {"exif": exif.tobytes(), "xmp": "<x:xmpmeta>ö</x:xmpmeta>".encode()}
    if not codec.grey:
        masked.info["icc_profile"] = bytes(profile)
    return {**files, "metadata": codec.compress(masked, layers=2, keep_metadata=True)}


def golden_images(codec: Codec) -> tuple[Image.Image, Image.Image]:
    """Return an image, and one whose sides are not multiples of a patch or block."""
    if not codec.grey:
        return photo_picture(50, 70, 1), photo_picture(33, 17, 2)
    digit = Image.open(ROOT / "examples" / "digits" / "digit_3_a.png").convert("L")
    wide = Image.new("L", (45, 31), 20)
    wide.paste(digit, (9, 2))
    return digit, wide


def golden_files(name: str, codec: Codec) -> dict[str, bytes]:
    """Return the files of a model, by kind."""
    image, wide = golden_images(codec)
    files = {
        "layers": codec.compress(image, layers="all"),
        "one": codec.compress(image, layers=1),
        "fixed": codec.compress(image, layers=2, fixed_rate=True),
        "tiles": codec.compress(wide, layers=2),
    }
    files["cut"] = truncate_ohm(files["layers"], num_layers=2)
    if name in ("context", "photo"):
        files |= extra_files(codec, image)
    if name == "context":
        files["table"] = codec.compress(image, layers=3, psnr_table=True)
    if name in ("photo", "filters"):  # the latent of one image in tiles
        files["grid"] = codec.compress(image, layers="all", tile=3)
    if name == "photo":
        files["gridfixed"] = codec.compress(image, tile=2, layers=2, fixed_rate=True)
        files["residual"] = codec.compress(image, residual=3, layers="all")
        files["residualtiles"] = codec.compress(golden_images(codec)[1], residual=2, layers="all", tile=1)
    return {kind: files[kind] for kind in KINDS.get(name, files)}


def golden_symbols(symbols: Symbols) -> Any:
    """Return symbols as nested lists; with a residual, an object that has its levels, too."""
    values = symbols.values.tolist()
    return {"symbols": values, "levels": symbols.residual.levels.tolist()} if symbols.residual else values


def main() -> None:
    """Write models, files, their symbols and their decoded images."""
    for name in MODELS:
        model = FOLDER / f"{name}.safetensors"
        if not model.exists():
            make_model(name, model)
        codec = load(model)
        for kind, data in golden_files(name, codec).items():
            target = FOLDER / f"{name}_{kind}.ohm"
            if target.exists():
                print(f"{target.name} exists already")
                continue
            write_atomically(target, data)
            symbols = codec.decode(data)[1]
            write_atomically(target.with_suffix(".json"), json.dumps(golden_symbols(symbols)).encode())
            save_image(target.with_suffix(".png"), codec.decompress(data))
            print(f"{target.name}: {len(data)} bytes, symbols {np.shape(symbols.values)}")


if __name__ == "__main__":
    main()
