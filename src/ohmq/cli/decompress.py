"""``ohmq decompress``: turn .ohm files into images."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ohmq.cli.jobs import Job, compiled_for, find_files, place_outputs, run_jobs
from ohmq.cli.options import COMPILED, DEVICE
from ohmq.cli.output import finish

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
    progressive: bool
    allow_truncated: bool
    flatten: bool
    max_pixels: int
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

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "chosen_codec"}

    def __call__(self, job: Job) -> dict[str, Any]:
        from ohmq.bitstream.reader import read_header, read_ohm
        from ohmq.errors import ConfigError
        from ohmq.imaging.convert import prepare_image
        from ohmq.imaging.files import check_extension, check_holds, save_image
        from ohmq.loading import load_for
        from ohmq.utils.atomic_write import check_output, copy_time

        check_extension(job.target)
        data = job.source.read_bytes()
        header = read_header(data)
        if self.channels is not None and self.channels < header.layers[0].channels:
            raise ConfigError(f"the first layer alone holds {header.layers[0].channels} channels; raise --channels")
        if not self.flatten:
            check_holds(job.target, alpha=header.alpha)
        codec = self.chosen_codec or load_for(data, compiled=self.compiled, device=self.device)
        options: dict[str, Any] = {
            "channels": self.channels,
            "allow_truncated": self.allow_truncated,
            "max_pixels": self.max_pixels,
        }
        result = {"output": str(job.target), "width": header.width, "height": header.height}

        def save(target: Path, image: "Image.Image") -> tuple[str, ...]:
            if self.flatten and header.alpha:
                info, image = image.info, prepare_image(image, grey=codec.grey).image
                image.info = info
            dropped = save_image(target, image, force=self.force)
            return (*dropped, *copy_time(job.source, target)) if header.has_metadata else dropped

        if not self.progressive:
            check_output(job.target, force=self.force)
            return {**result, "notes": [*save(job.target, codec.decompress(data, **options))]}
        read_ohm(data, allow_truncated=self.allow_truncated)  # Errors are raised before anything is written.
        folder, layers = job.target.with_suffix(""), 0
        notes: tuple[str, ...] = ()
        for layers, image in enumerate(codec.decompress_progressive(data, **options), start=1):
            notes = save(folder / f"layer_{layers:02d}{job.target.suffix}", image)
        return {**result, "output": str(folder), "layers": layers, "notes": [*notes]}


@click.command(epilog="Example: ohmq decompress coded/ -o decoded/")
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Image file or folder; default: beside the input."
)
@click.option(
    "--progressive",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the image after each layer, as NAME/layer_01.png, ...; in place of -o.",
)
@click.option(
    "-m",
    "--model",
    help="Shipped name, model file, checkpoint or ONNX folder; default: the shipped model that the file names.",
)
@click.option(
    "--runtime",
    type=click.Choice(["torch", "onnx"]),
    default="torch",
    show_default=True,
    help="Runtime of the transforms; onnx: --model is a folder of `ohmq export --onnx`, torch is not needed.",
)
@click.option("--channels", type=click.IntRange(1), help="Decode at most this many channels.")
@click.option(
    "--format", "extension", default="png", show_default=True, help="Format of images that are written into folders."
)
@click.option("--allow-truncated", is_flag=True, help="Decode the whole layers of a file that ends early.")
@click.option("--flatten", is_flag=True, help="Lay transparent images onto white.")
@click.option("-j", "--jobs", "processes", type=click.IntRange(1), default=1, show_default=True, help="Files at once.")
@click.option("--max-pixels", type=click.IntRange(1), default=2**27, show_default=True, help="Refuse larger images.")
@DEVICE
@COMPILED
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON.")
def command(
    inputs: tuple[str, ...],
    output: Path | None,
    progressive: Path | None,
    model: str | None,
    runtime: str,
    channels: int | None,
    extension: str,
    allow_truncated: bool,
    flatten: bool,
    processes: int,
    max_pixels: int,
    device: str,
    compiled: bool | None,
    force: bool,
    as_json: bool,
) -> int:
    """Turn .ohm files into images: files, folders and globs.

    An image with metadata (compress --keep-metadata) gets the time of its .ohm file.
    """
    if output is not None and progressive is not None:
        raise click.UsageError("give -o or --progressive, not both")
    jobs = find_files(inputs, (".ohm",))
    if progressive is not None:
        jobs = [job._replace(in_folder=True) for job in jobs]  # Each file has its own folder below.
    jobs = place_outputs(jobs, progressive or output, "." + extension.lstrip("."))
    if runtime == "onnx" and model is None:
        raise click.UsageError("--runtime onnx needs --model: a folder that ohmq export --onnx wrote")
    work = _Decompress(
        model=model,
        runtime=runtime,
        channels=channels,
        progressive=progressive is not None,
        allow_truncated=allow_truncated,
        flatten=flatten,
        max_pixels=max_pixels,
        force=force,
        compiled=compiled_for(compiled, jobs, processes),
        device=device,
    )
    _ = work.chosen_codec  # A wrong model is reported once, not for each file.

    def show(result: dict[str, Any]) -> None:
        layers = f", {result['layers']} layers" if progressive else ""
        click.echo(f"{result['input']} -> {result['output']}: {result['width']}x{result['height']}{layers}")
        for note in result["notes"]:
            click.echo(f"  note: {note}", err=True)

    results, failures = run_jobs(jobs, work, "decompress", as_json, show=show, processes=processes)
    return finish(results, failures, as_json, "decompressed")
