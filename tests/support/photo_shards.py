"""Shards of drawn photos to train on."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ohmq.storage.tar_shards import TarWriter


def photo_bytes(seed: int, height: int = 40, width: int = 50, kind: str = "PNG") -> bytes:
    """Encode a photo of random blocks."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.repeat(10, 0).repeat(10, 1)[:height, :width]).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, photos: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar shard of photos, each with a label; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, TarWriter(file) as writer:
        for name, content in photos:
            writer.add(name, content)
            writer.add(name.partition(".")[0] + ".json", b'{"label": 1}')
    return path


def make_tars(folder: Path, shards: int, photos: int, first: int = 0) -> list[Path]:
    """Write tar shards ``raw-000.tar`` and so on, with different photos."""
    return [
        write_tar(
            folder / f"raw-{shard:03}.tar",
            [(f"{number:03}.png", photo_bytes(first + 1000 * shard + number)) for number in range(photos)],
        )
        for shard in range(shards)
    ]


def write_parquet(path: Path, images: list[bytes | None], *, struct: bool = True) -> Path:
    """Write a Parquet shard as Hugging Face does; its folder is made."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    values = [image and {"bytes": image, "path": f"{number}.png"} for number, image in enumerate(images)]
    table = pa.table({"image": pa.array(values if struct else images, kind), "label": list(range(len(images)))})
    pq.write_table(table, path, row_group_size=4)
    return path
