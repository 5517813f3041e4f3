"""``ohmq decompress``: turn .ohm files into images."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ohmq.cli.jobs import Job, compiled_for, find_files, place_outputs, run_jobs, skipped
from ohmq.cli.options import COMPILED, DECODER, DEVICE, MAX_PIXELS, OUTPUT, SCALE, SKIP_EXISTING, check_skip
from ohmq.cli.output import finish
from ohmq.utils.counting import counted
from ohmq.utils.ordered import Workers

if TYPE_CHECKING:
    from PIL import Image

    from ohmq.codec import Codec

__all__ = ["command"]


@dataclass(kw_only=True)
class _Decompress:
    """Decompression of the file of a job. It is picklable; each process that gets it loads the model itself."""

    model: str | None
    runtime: str
    channels: int | None
    decoder: str | None
    scale: int
    progressive: bool
    allow_truncated: bool
    flatten: bool
    extension: str
    max_pixels: int
    skip_existing: bool
    force: bool
    compiled: bool | None
    device: str

    @cached_property
    def chosen_codec(self) -> "Codec | None":
        """Codec of ``--model``; None: the file says which model it needs."""
        from ohmq.loading import load

        if not self.model:
            return None
        return load(self.model, runtime=self.runtime, compiled=self.compiled, device=self.device)

    def workers(self) -> Workers | None:
        """Return threads that share out the files of this process."""
        if self.chosen_codec:
            return self.chosen_codec.transforms.file_workers()
        try:
            from ohmq.runtime.workers import file_workers
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            return None  # each file says that torch is missing
        return file_workers()

    def alone(self, job: Job, workers: Workers | None) -> bool:
        """Say whether a file is decompressed while no other is, since its image is large."""
        from ohmq.decoder.files import decoded_alone, file_header

        header = file_header(job.source if job.data is None else job.data)
        return self.scale == 1 and not job.error and decoded_alone(header, workers)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "chosen_codec"}

    def __call__(self, job: Job) -> dict[str, Any]:
        from ohmq.bitstream.reader import read_header, read_ohm
        from ohmq.decoder.decoder import leading_layers
        from ohmq.errors import ConfigError
        from ohmq.imaging.convert import prepare_image
        from ohmq.imaging.files import check_extension, check_holds, save_image
        from ohmq.loading import load_for
        from ohmq.runtime.thumbnails import reduced
        from ohmq.utils.atomic_write import check_output, copy_time
        from ohmq.utils.progress import steps
        from ohmq.utils.streams import is_stream

        extension = self.extension if is_stream(job.target) else job.target.suffix
        named = job.target.with_suffix(extension)
        check_extension(named)
        data = job.read()
        header = read_header(data)
        if self.channels is not None and self.channels < header.layers[0].channels:
            raise ConfigError(
                f"the first layer alone holds {counted(header.layers[0].channels, 'channel')}; raise --channels"
            )
        if not self.flatten:
            check_holds(named, alpha=header.alpha)
        codec = self.chosen_codec or load_for(data, compiled=self.compiled, device=self.device)
        options: dict[str, Any] = {
            "channels": self.channels,
            "allow_truncated": self.allow_truncated,
            "max_pixels": self.max_pixels,
            "decoder": self.decoder,
            "scale": self.scale,
        }
        width, height = reduced(header.width, self.scale), reduced(header.height, self.scale)
        result = {"output": str(job.target), "width": width, "height": height}

        def save(target: Path, image: "Image.Image") -> tuple[str, ...]:
            if self.flatten and header.alpha:
                info, image = image.info, prepare_image(image, grey=codec.grey).image
                image.info = info
            dropped = save_image(target, image, force=self.force, extension=extension)
            return (*dropped, *copy_time(job.source, target)) if header.has_metadata else dropped

        if not self.progressive:
            check_output(job.target, force=self.force)
            return {**result, "notes": [*save(job.target, codec.decompress(data, **options))]}
        read_ohm(data, allow_truncated=self.allow_truncated)  # Errors are raised before anything is written.
        folder, layers = job.target.with_suffix(""), 0
        files = [
            folder / f"layer_{number:02d}{job.target.suffix}"
            for number in range(1, 1 + leading_layers(header, self.channels))
        ]
        if self.skip_existing and all(file.is_file() for file in files):
            return skipped(job, folder)
        notes: tuple[str, ...] = ()
        images = codec.decompress_progressive(data, **options)
        for file, image in zip(
            steps(files, "layers"), images, strict=False
        ):  # A file that ends early has fewer images.
            layers += 1
            if not (self.skip_existing and file.is_file()):
                notes = save(file, image)
        return {**result, "output": str(folder), "layers": layers, "notes": [*notes]}


def _image_extension(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from ohmq.imaging.files import SAVE_FORMATS

    extension = "." + value.lower().lstrip(".")
    if extension not in SAVE_FORMATS:
        formats = ", ".join(name.lstrip(".") for name in SAVE_FORMATS)
        raise click.BadParameter(f"cannot write {value!r}; choose from {formats}")
    return extension


@click.command(epilog="Example: ohmq decompress coded/ -o decoded/")
@click.argument("inputs", nargs=-1, required=True)
@OUTPUT
@click.option(
    "--progressive",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the image after each layer, as NAME/layer_01.png, ...; in place of -o.",
)
@click.option(
    "-m",
    "--model",
    help="Shipped name, model file, checkpoint or ONNX folder.  [default: the shipped model that the file names]",
)
@click.option(
    "--runtime",
    type=click.Choice(["torch", "onnx"]),
    default="torch",
    show_default=True,
    help="Runtime of the transforms; onnx: --model is a folder of `ohmq export --onnx`, torch is not needed.",
)
@click.option("--channels", type=click.IntRange(1), help="Decode at most this many channels.  [default: all]")
@DECODER
@SCALE
@click.option(
    "--format",
    "extension",
    default="png",
    show_default=True,
    callback=_image_extension,
    help="Format of images whose file has no name yet: in folders, or on standard output.",
)
@click.option("--allow-truncated", is_flag=True, help="Decode the whole layers of a file that ends early.")
@click.option("--flatten", is_flag=True, help="Flatten transparent images onto white.  [default: keep their mask]")
@click.option(
    "-j",
    "--jobs",
    "processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of files decompressed at once.",
)
@MAX_PIXELS
@DEVICE
@COMPILED
@SKIP_EXISTING
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(
    inputs: tuple[str, ...],
    output: str | None,
    progressive: Path | None,
    model: str | None,
    runtime: str,
    channels: int | None,
    decoder: str | None,
    scale: int,
    extension: str,
    allow_truncated: bool,
    flatten: bool,
    processes: int,
    max_pixels: int,
    device: str,
    compiled: bool | None,
    skip_existing: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Turn .ohm files into images: files, folders, globs, and - for standard input.

    An image with metadata (compress --keep-metadata) gets the time of its .ohm file.
    """
    if output is not None and progressive is not None:
        raise click.UsageError("give -o or --progressive, not both")
    check_skip(skip_existing, force)
    place = f"{progressive}{os.sep}" if progressive else output
    skip_files = skip_existing and not progressive  # The image of a layer is not that of the file.
    jobs = place_outputs(find_files(inputs, (".ohm",)), place, extension, skip_existing=skip_files)
    if runtime == "onnx" and model is None:
        raise click.UsageError("--runtime onnx needs --model: a folder that ohmq export --onnx wrote")
    work = _Decompress(
        model=model,
        runtime=runtime,
        channels=channels,
        decoder=decoder,
        scale=scale,
        progressive=progressive is not None,
        allow_truncated=allow_truncated,
        flatten=flatten,
        extension=extension,
        max_pixels=max_pixels,
        skip_existing=skip_existing,
        force=force,
        compiled=compiled_for(compiled, jobs, processes),
        device=device,
    )
    if work.chosen_codec:  # A wrong model or decoder is reported once, not for each file.
        work.chosen_codec.windowed_for(decoder)

    def show(result: dict[str, Any]) -> None:
        layers = f", {counted(result['layers'], 'layer')}" if progressive else ""
        click.echo(f"{result['input']} -> {result['output']}: {result['width']}x{result['height']}{layers}")

    several = (
        processes == 1 and sum(not (job.error or (job.skip_existing and job.target.is_file())) for job in jobs) > 1
    )
    workers = work.workers() if several else None
    outcome = run_jobs(
        jobs,
        work,
        "decompress",
        as_json,
        show=show,
        processes=processes,
        workers=workers,
        alone=lambda job: work.alone(job, workers),
    )
    return finish(outcome, as_json, "decompressed")
