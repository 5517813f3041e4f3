"""``ohmq decompress``."""

from pathlib import Path
from typing import Any

import click

from ohmq.cli.common import Job, find_files, finish, output_for, run_jobs

__all__ = ["command"]


@click.command(epilog="Example: ohmq decompress coded/ -o decoded/")
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Image file or folder; default: beside the input."
)
@click.option("-m", "--model", help="Default: the shipped model that the file names.")
@click.option("--channels", type=click.IntRange(1), help="Decode at most so many channels.")
@click.option("--format", "extension", default="png", show_default=True, help="Of pictures written into folders.")
@click.option("--allow-truncated", is_flag=True, help="Decode the whole layers of a file that ends early.")
@click.option("--max-pixels", type=click.IntRange(1), default=2**27, show_default=True, help="Refuse larger pictures.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON.")
def command(
    inputs: tuple[str, ...],
    output: Path | None,
    model: str | None,
    channels: int | None,
    extension: str,
    allow_truncated: bool,
    max_pixels: int,
    force: bool,
    as_json: bool,
) -> int:
    """Turn .ohm files into images: files, folders and globs."""
    from ohmq.codec import Codec, load
    from ohmq.container import read_header
    from ohmq.errors import BitstreamError, ModelMismatchError, OhmqError
    from ohmq.files import check_output
    from ohmq.images import save_image
    from ohmq.model_file import load_model, shipped_models

    given = load(model) if model else None
    shipped: dict[bytes, Codec] = {}

    def codec_for(model_id: bytes) -> Codec:
        if given is not None:
            return given
        if model_id not in shipped:
            for name, path in shipped_models().items():
                frozen = load_model(path, name)
                shipped.setdefault(frozen.model_id, Codec(frozen))
        if model_id not in shipped:
            known = ", ".join(f"{codec.name} {key.hex()}" for key, codec in shipped.items()) or "none"
            raise ModelMismatchError(
                f"made with model {model_id.hex()}, which is not a shipped one ({known}): give it with --model"
            )
        return shipped[model_id]

    jobs = find_files(inputs, (".ohm",))

    def work(job: Job) -> dict[str, Any]:
        target = output_for(job, output, len(jobs) == 1, "." + extension.lstrip("."))
        check_output(target, force=force)
        try:
            data = job.source.read_bytes()
            codec = codec_for(read_header(data).model_id)
            picture = codec.decompress(data, channels=channels, allow_truncated=allow_truncated, max_pixels=max_pixels)
        except (BitstreamError, ModelMismatchError) as error:
            raise OhmqError(f"{job.source}: {error}") from error
        save_image(target, picture, force=force)
        if not as_json:
            click.echo(f"{job.source} -> {target}: {picture.width}x{picture.height}")
        return {"output": str(target), "width": picture.width, "height": picture.height}

    results, failures = run_jobs(jobs, work, "decompress", as_json)
    return finish(results, failures, as_json, "decompressed")
