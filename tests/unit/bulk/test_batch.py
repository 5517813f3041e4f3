"""Batches for other pipelines: bytes in, bytes out, an error for each image that fails."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from support.small_models import make_codec

from ohmq.bulk.batch import CompressBatch, DecompressBatch
from ohmq.codec import Codec
from ohmq.errors import ModelFileError, UnsupportedImageError
from ohmq.model_files.frozen_model import save_model

DIGITS = sorted((Path(__file__).parents[3] / "examples" / "digits").glob("*.png"))[:3]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_codec("static")


@pytest.fixture(scope="module")
def model(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "static.safetensors"
    save_model(codec.frozen, path)
    return str(path)


def column(values: list[Any]) -> np.ndarray:
    return np.fromiter(values, object, len(values))


def test_columns_become_columns(codec: Codec, model: str) -> None:
    files = [path.read_bytes() for path in DIGITS]
    paths = [path.name for path in DIGITS]
    compress = CompressBatch(model, channels=3, compiled=False)
    given = {
        "path": column([*paths, "empty.png", "text.png", "none.png"]),
        "bytes": column([*files, b"", "text", None]),
    }
    batch = compress(given)
    expected = [codec.compress(Image.open(path), channels=3) for path in DIGITS]
    assert list(batch["ohm"]) == [*expected, None, None, None]
    assert list(batch["error"][:3]) == [None, None, None]
    assert list(batch["error"][3:]) == [
        "empty.png: the file is empty",
        "text.png: str in place of the bytes of a file",
        "none.png: NoneType in place of the bytes of a file",
    ]
    assert set(batch) == {"path", "ohm", "error"}
    assert list(batch["path"]) == list(given["path"])
    back = DecompressBatch(model, image_format="bmp", compiled=False)({"ohm": batch["ohm"]})
    assert set(back) == {"bytes", "error"}
    for data, path in zip(back["bytes"][:3], DIGITS, strict=False):
        with Image.open(io.BytesIO(data)) as image, Image.open(path) as source:
            assert (image.format, image.size) == ("BMP", source.size)
            assert np.array_equal(image, codec.decompress(codec.compress(source, channels=3)))
    assert list(back["bytes"][3:]) == [None] * 3
    assert back["error"][3] == "image 3: NoneType in place of the bytes of a file"


def test_tables_become_tables(model: str) -> None:
    table = pa.table({"bytes": [DIGITS[0].read_bytes(), b"no image"], "path": ["a.png", "b.png"], "label": [3, 4]})
    done = CompressBatch(model, compiled=False)(table)
    assert done.schema == pa.schema(
        [("path", pa.string()), ("label", pa.int64()), ("ohm", pa.large_binary()), ("error", pa.string())]
    )
    assert done["ohm"][0].as_py().startswith(b"\x93OHM")
    assert done["ohm"][1].as_py() is None
    assert done["error"].to_pylist() == [None, "b.png: not an image, or of a format that Pillow cannot read"]
    assert done["label"].to_pylist() == [3, 4]
    assert CompressBatch(model, compiled=False)(table.slice(0, 0)).num_rows == 0


def test_a_data_loader_collates_samples(codec: Codec, model: str) -> None:
    files = [path.read_bytes() for path in DIGITS]
    loader = torch.utils.data.DataLoader(files, batch_size=2, collate_fn=CompressBatch(model, compiled=False))
    first, second = loader
    assert first == {"ohm": [codec.compress(Image.open(path)) for path in DIGITS[:2]], "error": [None, None]}
    assert len(second["ohm"]) == 1
    samples = [{"image": data, "label": number} for number, data in enumerate([files[0], b""])]
    batch = CompressBatch(model, column="image", output="small", names="label", compiled=False)(samples)
    assert batch == {"label": [0, 1], "small": [first["ohm"][0], None], "error": [None, "1: the file is empty"]}


def test_a_pickle_holds_no_model(model: str) -> None:
    compress = CompressBatch(model, compiled=False)
    before = compress([DIGITS[0].read_bytes()])
    packed = pickle.dumps(compress)
    assert len(packed) < 2000
    assert pickle.loads(packed)([DIGITS[0].read_bytes()]) == before


def test_what_no_image_can_mend_is_an_error_at_once(model: str) -> None:
    with pytest.raises(ValueError, match="quality is 101"):
        CompressBatch(quality=101)
    with pytest.raises(TypeError, match="no option 'qualty'"):
        CompressBatch(qualty=90)
    with pytest.raises(UnsupportedImageError, match=r"extension '\.doc'"):
        DecompressBatch(image_format="doc")
    with pytest.raises(ModelFileError, match="missing"):
        CompressBatch("missing.safetensors")([DIGITS[0].read_bytes()])
    with pytest.raises(KeyError, match="bytes"):
        CompressBatch(model)({"image": column([b""])})
    with pytest.raises(TypeError, match="not bytes"):
        CompressBatch(model)(b"bytes")
