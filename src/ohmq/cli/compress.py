"""``ohmq compress``."""

import math
import time
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import click

from ohmq.cli.jobs import Job, compiled_for, find_files, place_outputs, run_jobs
from ohmq.cli.options import (
    COMPILED,
    DEVICE,
    IMAGE_EXTENSIONS,
    OUTPUT,
    SKIP_EXISTING,
    check_skip,
    encoder_options,
)
from ohmq.cli.output import finish
from ohmq.utils.counting import counted

if TYPE_CHECKING:
    from ohmq.codec import Codec
    from ohmq.encoder.options import EncodeOptions

__all__ = ["command"]


@dataclass
class _Compress:
    """Compresses the image of a job. It is sent to worker processes, each of which loads the model itself."""

    model: str
    options: "EncodeOptions"
    force: bool
    compiled: bool | None
    device: str

    @cached_property
    def codec(self) -> "Codec":
        from ohmq.loading import load

        return load(self.model, compiled=self.compiled, device=self.device)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "codec"}

    def __call__(self, job: Job) -> dict[str, Any]:
        from ohmq.bitstream.format import ExtraType
        from ohmq.bitstream.reader import read_header
        from ohmq.errors import OutputExistsError
        from ohmq.imaging.convert import prepare_image
        from ohmq.imaging.files import open_image
        from ohmq.utils.atomic_write import check_output, copy_time, write_atomically

        if job.data is None and job.target.is_file() and job.target.samefile(job.source):
            raise OutputExistsError(f"{job.target} is the image itself; choose another output")
        check_output(job.target, force=self.force)
        start = time.perf_counter()
        loaded = open_image(job.source, max_pixels=self.options.max_pixels, data=job.data)
        image, notes = prepare_image(
            loaded.image,
            grey=self.codec.grey,
            flatten=self.options.flatten,
            keep_metadata=self.options.keep_metadata,
        )
        notes = (*loaded.notes, *notes)
        del loaded  # one copy less of a large image
        coded = self.codec.compress_prepared(image, self.options)
        data, psnr_db, quality, score = coded.data, coded.psnr_db, coded.quality, coded.ssimulacra2
        header = read_header(data)
        write_atomically(job.target, data, force=self.force)
        if self.options.keep_metadata:
            notes += copy_time(job.source, job.target)
        return {
            "output": str(job.target),
            "input_bytes": job.source.stat().st_size if job.data is None else len(job.data),
            "bytes": len(data),
            "width": image.width,
            "height": image.height,
            "extras_bytes": sum(extra.length for extra in header.extras if extra.type != ExtraType.PSNR),
            "channels": coded.channels,
            **({} if coded.residual is None else {"residual": coded.residual}),
            "layers": len(header.layers),
            **({} if quality is None else {"quality": quality}),
            "file_bpp": 8 * len(data) / (image.width * image.height),
            **({} if psnr_db is None else {"psnr_db": psnr_db if psnr_db < math.inf else None}),  # JSON has no infinity
            **({} if score is None else {"ssimulacra2": score}),
            "seconds": time.perf_counter() - start,
            "notes": list(notes),
        }


def _options_for(codec: "Codec", options: dict[str, Any]) -> "EncodeOptions":
    """Build the options of the encoder, and check that the model has what they ask for.

    Raises:
        click.UsageError: an option out of range, or one that the model does not have.
    """
    from ohmq.encoder.options import EncodeOptions
    from ohmq.errors import ConfigError

    try:
        built = EncodeOptions(**options)
        codec.check_options(built)
    except (ValueError, ConfigError) as error:
        raise click.UsageError(str(error)) from error
    return built


def _choice(result: dict[str, Any], options: "EncodeOptions", num_channels: int) -> str:
    """Describe the quality and the channels of a file, and how to choose others if they are defaults."""
    channels = f"{result['channels']} of {counted(num_channels, 'channel')}"
    if "residual" in result:
        channels = f"all channels, residual with steps of {result['residual']:g}"
    if "psnr_db" in result:
        return f"{channels}, {result['psnr_db']:.2f} dB"
    if "ssimulacra2" in result:
        return f"{channels}, SSIMULACRA2 {result['ssimulacra2']:.2f}"
    if "quality" in result:
        default = "" if options.has_target else " (default; -q 0 to 100)"
        return f"quality {result['quality']:g}{default}, {channels}"
    return channels if options.has_target else f"{channels} (default; --bpp, --psnr or --channels for less)"


@click.command(epilog="Example: ohmq compress photos/ -o coded/ --bpp 0.3")
@click.argument("inputs", nargs=-1, required=True)
@OUTPUT
@click.option("--keep-extension", is_flag=True, help="Keep the extension in the output's name: a.png.ohm.")
@click.option("-m", "--model", default="photo", show_default=True, help="Shipped name, model file or checkpoint.")
@encoder_options
@click.option(
    "-j",
    "--jobs",
    "processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of files compressed at once.",
)
@DEVICE
@COMPILED
@SKIP_EXISTING
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(
    inputs: tuple[str, ...],
    output: str | None,
    keep_extension: bool,
    model: str,
    processes: int,
    device: str,
    compiled: bool | None,
    skip_existing: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Turn images into .ohm files.

    Inputs are files, folders, glob patterns, and - for standard input. At most one of --quality, --fraction, --channels,
    --bpp, --max-bytes, --psnr, --ssimulacra2 and --residual says how large or how good the files are.
    """
    from ohmq.encoder.options import TARGETS, EncodeOptions
    from ohmq.imaging.files import open_image

    if sum(options[name] is not None for name in TARGETS) > 1:
        raise click.UsageError(
            "give only one of --quality, --fraction, --channels, --bpp, --max-bytes, --psnr, --ssimulacra2 and --residual"
        )
    check_skip(skip_existing, force)
    files = find_files(inputs, IMAGE_EXTENSIONS)
    work = _Compress(model, EncodeOptions(), force, compiled_for(compiled, files, processes), device)
    codec = work.codec
    work.options = _options_for(codec, options)
    jobs = place_outputs(
        files,
        output,
        ".ohm",
        keep_extension=keep_extension,
        skip_existing=skip_existing,
        probe=partial(open_image, max_pixels=work.options.max_pixels),
    )

    def show(result: dict[str, Any]) -> None:
        click.echo(
            f"{result['input']} -> {result['output']}: {result['bytes']:,} bytes, {result['file_bpp']:.3f} bpp, "
            f"{_choice(result, work.options, codec.num_channels)}"
        )

    outcome = run_jobs(jobs, work, "compress", as_json, show=show, processes=processes)
    results = outcome.results
    before, after = (sum(result[name] for result in results) for name in ("input_bytes", "bytes"))
    pixels = sum(result["width"] * result["height"] for result in results)
    totals = {"input_bytes": before, "bytes": after}
    summary = f"compressed, {after:,} bytes"
    if results:
        totals |= {"ratio": before / after, "file_bpp": 8 * after / pixels}
        summary += f" from {before:,} ({before / after:.2f} to 1), {8 * after / pixels:.3f} bpp"
    return finish(outcome, as_json, summary, totals)
