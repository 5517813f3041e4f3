"""Files of every format version decode to the same symbols for ever, and to the same pixels within 1 of 255."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.reference_decoder import reference_file, reference_mask

from ohmq.bitstream.psnr_table import psnr_table
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.bitstream.writer import write_ohm
from ohmq.codec import Codec
from ohmq.imaging.extras import METADATA
from ohmq.model_files.frozen_model import load_model

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*.ohm"))


def test_there_is_one_of_every_kind() -> None:
    assert {path.stem for path in FILES} == {
        f"{model}_{kind}"
        for model in ("context", "integer", "photo", "static")
        for kind in ("cut", "fixed", "layers", "one", "tiles")
    } | {f"{model}_{kind}" for model in ("context", "photo") for kind in ("alpha", "metadata")} | {
        "filters_cut",
        "filters_grid",
        "filters_layers",
        "neighbours_cut",
        "neighbours_layers",
        "neighbours_tiles",
        "swapped_layers",
        "context_table",
        "photo_grid",
        "photo_gridfixed",
        "photo_residual",
        "photo_residualtiles",
    }


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path, compiled: bool) -> None:
    codec = Codec(load_model(FOLDER / f"{path.stem.split('_')[0]}.safetensors"), compiled=compiled)
    data = path.read_bytes()
    assert read_header(data).version == 1
    assert write_ohm(read_ohm(data)) == data
    file, symbols = codec.decode(data)
    stored = json.loads(path.with_suffix(".json").read_text())
    if symbols.residual:
        assert symbols.residual.levels.tolist() == stored["levels"]
        assert reference_file(data)["residual"] == symbols.residual.info
    assert symbols.values.tolist() == (stored["symbols"] if symbols.residual else stored)
    decoded = codec.decompress(data)
    with Image.open(path.with_suffix(".png")) as image:
        expected = np.asarray(image).astype(int)
        assert decoded.mode == image.mode
        assert decoded.info == {name: image.info[name] for name in METADATA.values() if name in image.info}
    pixels = np.asarray(decoded).astype(int)
    assert np.abs(pixels - expected).max() <= 1
    if decoded.mode.endswith("A"):
        assert np.array_equal(pixels[..., -1], expected[..., -1])
        (body,) = (body for kind, body in reference_file(data)["extras"] if kind == 1)
        assert reference_mask(body, *decoded.size) == expected[..., -1].tolist()
    if path.stem.endswith(
        ("layers", "one", "grid", "residual", "residualtiles")
    ):  # encoding again gives the same bytes
        again = codec.encode(symbols, file.num_channels, layers=None if symbols.residual else len(file.layers))
        assert again == data


def test_the_psnr_table() -> None:
    data = (FOLDER / "context_table.ohm").read_bytes()
    ((kind, body),) = reference_file(data)["extras"]
    assert (kind, len(body)) == (5, 6)
    entries = [int.from_bytes(body[2 * n : 2 * n + 2], "big") / 100 for n in range(3)]
    assert psnr_table(data) == tuple(entries)
    assert entries == sorted(entries)
