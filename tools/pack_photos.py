"""Pack training photos into two small tar shards, to train on a machine that little can be carried to.

    python tools/pack_photos.py data/photos -o runs/pack --megabytes 60
    ohmq train --preset photo --data runs/pack --data-on-device -o runs/photo

Photos to train on are made smaller by a factor of 0.6 (Lanczos), which removes the grid of their own JPEG, and coded as JPEG
4:4:4 at the highest quality at which all fit; the first photos of the validation part stay as they are. ``ohmq train`` reads the
folder as any other shards.
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import click
from PIL import Image, ImageFile

from ohmq.datasets.photos import photo_files, photo_folder, read_rgb
from ohmq.storage.tar_shards import TarWriter
from ohmq.utils.atomic_write import check_output, write_atomically

QUALITIES = range(95, 74, -1)
"""JPEG qualities that are tried, from the highest on."""
SAMPLE = 60
"""Photos that the size at a quality is estimated from."""
MEGABYTE = 2**20
HEADER_BYTES = 1024
"""Bytes that a member of a tar file takes besides its content, at most."""


def pack_photo(path: Path, *, scale: float, smallest_side: int, quality: int) -> bytes:
    """Scale a photo down and code it as JPEG 4:4:4.

    Args:
        path: image file.
        scale: factor on width and height.
        smallest_side: least width and height after scaling, in pixels; the factor grows where it is needed.
        quality: JPEG quality.
    """
    image = read_rgb(path)
    factor = min(1.0, max(scale, smallest_side / min(image.size)))
    size = [max(smallest_side, round(side * factor)) for side in image.size]
    ImageFile.MAXBLOCK = 1 << 24  # Pillow's buffer is too small for progressive JPEG of this quality
    file = io.BytesIO()
    image.resize((size[0], size[1]), Image.Resampling.LANCZOS).save(
        file, "JPEG", quality=quality, subsampling=0, optimize=True, progressive=True
    )
    return file.getvalue()


def shard(names: list[str], contents: list[bytes]) -> bytes:
    """Build a tar shard."""
    file = io.BytesIO()
    with TarWriter(file) as writer:
        for name, content in zip(names, contents, strict=True):
            writer.add(name, content)
    return file.getvalue()


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--megabytes", type=float, default=60.0, show_default=True, help="Limit on both shards together.")
@click.option("--scale", type=float, default=0.6, show_default=True, help="Factor on width and height.")
@click.option(
    "--smallest-side", type=int, default=256, show_default=True, help="Least side of a packed photo, in pixels."
)
@click.option("--validation", type=int, default=10, show_default=True, help="Photos of the validation part to keep.")
@click.option("--workers", type=int, default=os.cpu_count() or 1, help="Threads.")
@click.option("--force", is_flag=True, help="Overwrite existing shards.")
def main(
    data: Path,
    output: Path,
    megabytes: float,
    scale: float,
    smallest_side: int,
    validation: int,
    workers: int,
    force: bool,
) -> None:
    """Pack the photos of DATA into OUTPUT/train.tar and OUTPUT/validation.tar."""
    targets = {part: output / f"{part}.tar" for part in ("train", "validation")}
    for target in targets.values():
        check_output(target, force=force)
    files = photo_files(photo_folder(data, "train"), smallest_side)
    kept = photo_files(photo_folder(data, "validation"), 128)[:validation]
    held_out = shard([path.name for path in kept], [path.read_bytes() for path in kept])
    room = megabytes * MEGABYTE - len(held_out) - HEADER_BYTES * (len(files) + 20)
    sample = files[:: max(1, len(files) // SAMPLE)]
    with ThreadPoolExecutor(workers) as pool:
        for quality in QUALITIES:
            pack = partial(pack_photo, scale=scale, smallest_side=smallest_side, quality=quality)
            expected = sum(map(len, pool.map(pack, sample))) / len(sample) * len(files)
            click.echo(f"quality {quality}: about {expected / MEGABYTE:.1f} MiB")
            if expected > room:
                continue
            contents = list(pool.map(pack, files))
            if sum(map(len, contents)) <= room:
                break
        else:
            raise click.ClickException(
                f"{len(files)} photos do not fit into {megabytes:g} MiB at quality {QUALITIES[-1]}; choose a smaller --scale"
            )
    output.mkdir(parents=True, exist_ok=True)
    train = shard([f"{path.stem}.jpg" for path in files], contents)
    for part, content in (("train", train), ("validation", held_out)):
        write_atomically(targets[part], content, force=force)
    total = len(train) + len(held_out)
    click.echo(
        f"{output}: {len(files)} photos at quality {quality}, {len(kept)} to validate, {total / MEGABYTE:.1f} MiB"
    )


if __name__ == "__main__":
    main()
