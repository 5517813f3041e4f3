"""``ohmq compress``."""

import math
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ohmq.cli.jobs import Job, compiled_for, find_files, place_outputs, run_jobs
from ohmq.cli.options import COMPILED, FRACTION, IMAGE_EXTENSIONS
from ohmq.cli.output import finish

if TYPE_CHECKING:
    from ohmq.codec import Codec

__all__ = ["command"]


@dataclass
class _Compress:
    """Compresses the image of a job; what is sent to a process, which loads the model itself."""

    model: str
    count: int | None
    bpp: float | None
    max_bytes: int | None
    psnr: float | None
    layers: int | None
    fixed_rate: bool
    flatten: bool
    keep_metadata: bool
    psnr_table: bool
    max_pixels: int
    tile: int | None
    effort: int | None
    force: bool
    compiled: bool | None

    @cached_property
    def codec(self) -> "Codec":
        from ohmq.loading import load

        return load(self.model, compiled=self.compiled)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "codec"}

    def __call__(self, job: Job) -> dict[str, Any]:
        from ohmq.bitstream.format import ExtraType, bytes_of_rate
        from ohmq.bitstream.reader import read_header
        from ohmq.errors import OutputExistsError
        from ohmq.imaging.convert import prepare_image
        from ohmq.imaging.files import open_image
        from ohmq.utils.atomic_write import check_output, write_atomically

        if job.target.exists() and job.target.samefile(job.source):
            raise OutputExistsError(f"{job.target} is the picture itself; choose another output")
        check_output(job.target, force=self.force)
        start = time.perf_counter()
        loaded = open_image(job.source, max_pixels=self.max_pixels)
        picture, notes = prepare_image(
            loaded.image, grey=self.codec.grey, flatten=self.flatten, keep_metadata=self.keep_metadata
        )
        notes = (*loaded.notes, *notes)
        del loaded  # of a large picture, one copy less
        pixels = picture.width * picture.height
        limit = self.max_bytes if self.bpp is None else bytes_of_rate(self.bpp, picture.width, picture.height)
        data, count, reached = self.codec.compress_picture(
            picture, self.count, max_bytes=limit, psnr=self.psnr, layers=self.layers, fixed_rate=self.fixed_rate,
            psnr_table=self.psnr_table, tile=self.tile, effort=self.effort,
        )  # fmt: skip
        header = read_header(data)
        write_atomically(job.target, data, force=self.force)
        return {
            "output": str(job.target),
            "input_bytes": job.source.stat().st_size,
            "bytes": len(data),
            "width": picture.width,
            "height": picture.height,
            "extras_bytes": sum(extra.length for extra in header.extras if extra.type != ExtraType.PSNR),
            "channels": count,
            "file_bpp": 8 * len(data) / pixels,
            **({} if reached is None else {"psnr_db": reached if reached < math.inf else None}),  # as `info` says it
            "seconds": time.perf_counter() - start,
            "notes": list(notes),
        }


def _finite(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value} is not a positive number")
    return value


@click.command(epilog="Example: ohmq compress photos/ -o coded/ --bpp 0.3")
@click.argument("inputs", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File or folder; default: beside the input.")
@click.option("-m", "--model", default="photo", show_default=True, help="Shipped name, model file or checkpoint.")
@click.option("--fraction", type=FRACTION, help="Of the adaptive range, 0 to 1 (default 1).")
@click.option("--channels", type=click.IntRange(1), help="Or: how many channels.")
@click.option("--bpp", type=float, callback=_finite, help="Or: the largest file of so many bits per pixel.")
@click.option("--max-bytes", type=click.IntRange(1), help="Or: the largest file of so many bytes.")
@click.option("--psnr", type=float, callback=_finite, help="Or: the smallest file that decodes to so many dB.")
@click.option(
    "--effort",
    type=click.IntRange(0, 2),
    help="Rounds of feedback (default for photos: 1): more take longer and make smaller files of the same quality.",
)
@click.option("--layers", type=click.IntRange(1), help="At most so many places to cut the file (default: all).")
@click.option("--fixed-rate", is_flag=True, help="No entropy coder: the size depends on the picture's size only.")
@click.option("--flatten", is_flag=True, help="Lay transparent images onto white; default: keep their mask exactly.")
@click.option("--keep-metadata", is_flag=True, help="Keep EXIF, XMP and an sRGB profile; default: drop them.")
@click.option("--psnr-table", is_flag=True, help="Keep the PSNR of each layer in the file, for truncate --psnr.")
@click.option("-j", "--jobs", "processes", type=click.IntRange(1), default=1, show_default=True, help="Files at once.")
@click.option("--max-pixels", type=click.IntRange(1), default=2**27, show_default=True, help="Refuse larger images.")
@click.option(
    "--tile", type=click.IntRange(0, 256), help="Code in tiles of N x N blocks; 0: one piece (default: if large)."
)
@COMPILED
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON.")
def command(
    inputs: tuple[str, ...],
    output: Path | None,
    model: str,
    fraction: float | None,
    channels: int | None,
    bpp: float | None,
    max_bytes: int | None,
    psnr: float | None,
    effort: int | None,
    layers: int | None,
    fixed_rate: bool,
    flatten: bool,
    keep_metadata: bool,
    psnr_table: bool,
    processes: int,
    max_pixels: int,
    tile: int | None,
    compiled: bool | None,
    force: bool,
    as_json: bool,
) -> int:
    """Turn images into .ohm files: files, folders and globs. Say what you want in one way at most."""
    if sum(target is not None for target in (fraction, channels, bpp, max_bytes, psnr)) > 1:
        raise click.UsageError("give only one of --fraction, --channels, --bpp, --max-bytes and --psnr")
    files = find_files(inputs, IMAGE_EXTENSIONS)
    work = _Compress(
        model,
        channels,
        bpp,
        max_bytes,
        psnr,
        layers,
        fixed_rate,
        flatten,
        keep_metadata,
        psnr_table,
        max_pixels,
        tile,
        effort,
        force,
        compiled_for(compiled, files, processes),
    )
    codec = work.codec
    if tile and not codec.supports_tiles:
        raise click.UsageError(f"--tile {tile}: {codec.name} has tiles of its own; leave it out")
    if effort and fixed_rate:
        raise click.UsageError("--effort and --fixed-rate: the size does not depend on the symbols; leave one out")
    if effort and not codec.supports_rdoq:
        raise click.UsageError(f"--effort {effort}: {codec.name} is no photo model that prices its bits; leave it out")
    if bpp is max_bytes is psnr is None:
        work.count = channels if channels is not None else codec.channels_for(1.0 if fraction is None else fraction)
        if not 1 <= work.count <= codec.num_channels:
            raise click.UsageError(f"{work.count} channels: {codec.name} codes 1 to {codec.num_channels}")
    jobs = place_outputs(files, output, ".ohm")

    def show(result: dict[str, Any]) -> None:
        quality = f", {result['psnr_db']:.2f} dB" if "psnr_db" in result else ""
        click.echo(
            f"{result['input']} -> {result['output']}: {result['bytes']:,} bytes, {result['file_bpp']:.3f} bpp, "
            f"{result['channels']} of {codec.num_channels} channels{quality}"
        )
        for note in result["notes"]:
            click.echo(f"  note: {note}", err=True)

    results, failures = run_jobs(jobs, work, "compress", as_json, show=show, processes=processes)
    before, after = (sum(result[name] for result in results) for name in ("input_bytes", "bytes"))
    pixels = sum(result["width"] * result["height"] for result in results)
    totals = {"input_bytes": before, "bytes": after}
    summary = f"compressed, {after:,} bytes"
    if results:
        totals |= {"ratio": before / after, "file_bpp": 8 * after / pixels}
        summary += f" from {before:,} ({before / after:.2f} to 1), {8 * after / pixels:.3f} bpp"
    return finish(results, failures, as_json, summary, totals)
