"""Make the files in tests/golden, once for each format version or feature; existing ones are never made again.

python tools/make_golden.py
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.small_models import CONFIGS, make_codec, photo_picture  # noqa: E402

from ohmq.bitstream.truncate import truncate_ohm  # noqa: E402
from ohmq.codec import Codec  # noqa: E402
from ohmq.imaging.files import save_image  # noqa: E402
from ohmq.loading import load  # noqa: E402
from ohmq.model_files.frozen_model import save_model  # noqa: E402
from ohmq.utils.atomic_write import write_atomically  # noqa: E402

FOLDER = ROOT / "tests" / "golden"


def extra_files(codec: Codec, image: Image.Image) -> dict[str, bytes]:
    """Files with a soft mask, with a hard one, and with a hard one and all metadata."""
    picture = image.copy()
    picture.putalpha(Image.radial_gradient("L").resize(image.size))
    files = {"alpha": codec.compress(picture, layers=2)}
    hard = picture.getchannel("A").point(lambda value: 255 * (value < 150))
    picture.putalpha(hard)
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # when it was made: now
    picture.info = {"exif": exif.tobytes(), "xmp": "<x:xmpmeta>ö</x:xmpmeta>".encode()}
    if not codec.grey:
        picture.info["icc_profile"] = bytes(profile)
    return {**files, "metadata": codec.compress(picture, layers=2, keep_metadata=True)}


def main() -> None:
    """Write models, files, and what they decode to."""
    for name in (
        *CONFIGS,
        "photo",
        "neighbours",
        "filters",
    ):  # "neighbours": photo, with networks of neighbours' symbols
        model = FOLDER / f"{name}.safetensors"
        codec = load(model) if model.exists() else make_codec("photo" if name == "neighbours" else name)
        if not model.exists():
            save_model(codec.frozen, model)
        digits = ROOT / "examples" / "digits"
        image = Image.open(digits / "digit_3_a.png").convert("L")
        wide = Image.new("L", (45, 31), 20)
        wide.paste(image, (9, 2))
        if name in ("photo", "neighbours", "filters"):  # whole pictures, whose sides are not multiples of a block
            image, wide = photo_picture(50, 70, 1), photo_picture(33, 17, 2)
        files = {
            "layers": codec.compress(image),
            "one": codec.compress(image, layers=1),
            "fixed": codec.compress(image, layers=2, fixed_rate=True),
            "tiles": codec.compress(wide, layers=2),
        }
        files["cut"] = truncate_ohm(files["layers"], num_layers=2)
        if name in ("context", "photo"):
            files |= extra_files(codec, image)
        if name == "context":
            files["table"] = codec.compress(image, layers=3, psnr_table=True)
        if name == "photo":  # the latent of one picture in tiles
            files["grid"] = codec.compress(image, tile=3)
            files["gridfixed"] = codec.compress(image, tile=2, layers=2, fixed_rate=True)
        if name == "filters":
            files["grid"] = codec.compress(image, tile=3)
            files = {kind: files[kind] for kind in ("layers", "cut", "grid")}
        if name == "neighbours":
            files = {kind: files[kind] for kind in ("layers", "tiles", "cut")}
        for kind, data in files.items():
            target = FOLDER / f"{name}_{kind}.ohm"
            if target.exists():
                print(f"{target.name} is there already")
                continue
            write_atomically(target, data)
            symbols = codec.decode(data)[1].values
            write_atomically(target.with_suffix(".json"), json.dumps(symbols.tolist()).encode())
            save_image(target.with_suffix(".png"), codec.decompress(data))
            print(f"{target.name}: {len(data)} bytes, symbols {np.shape(symbols)}")


if __name__ == "__main__":
    main()
