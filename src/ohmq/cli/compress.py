"""``ohmq compress``."""

import time
from pathlib import Path
from typing import Any

import click

from ohmq.cli.common import IMAGE_EXTENSIONS, Job, find_files, finish, output_for, run_jobs

__all__ = ["command"]


@click.command(epilog="Example: ohmq compress photos/ -o coded/ --fraction 0.5")
@click.argument("inputs", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File or folder; default: beside the input.")
@click.option("-m", "--model", default="photo", show_default=True, help="Shipped name, model file or checkpoint.")
@click.option("--fraction", type=click.FloatRange(0, 1), help="Of the adaptive range, 0 to 1 (default 1).")
@click.option("--channels", type=click.IntRange(1), help="Or: how many channels.")
@click.option("--layers", type=click.IntRange(1), help="At most so many places to cut the file (default: all).")
@click.option("--fixed-rate", is_flag=True, help="No entropy coder: the size depends on the picture's size only.")
@click.option("--max-pixels", type=click.IntRange(1), default=2**27, show_default=True, help="Refuse larger images.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON.")
def command(
    inputs: tuple[str, ...],
    output: Path | None,
    model: str,
    fraction: float | None,
    channels: int | None,
    layers: int | None,
    fixed_rate: bool,
    max_pixels: int,
    force: bool,
    as_json: bool,
) -> int:
    """Turn images into .ohm files: files, folders and globs."""
    from ohmq.codec import load
    from ohmq.files import check_output, write_atomically
    from ohmq.images import open_image, prepare_image

    if fraction is not None and channels is not None:
        raise click.UsageError("give --fraction or --channels, not both")
    codec = load(model)
    count = channels if channels is not None else codec.channels_for(1.0 if fraction is None else fraction)
    if not 1 <= count <= codec.num_channels:
        raise click.UsageError(f"{count} channels: {codec.name} codes 1 to {codec.num_channels}")
    jobs = find_files(inputs, IMAGE_EXTENSIONS)

    def work(job: Job) -> dict[str, Any]:
        target = output_for(job, output, len(jobs) == 1, ".ohm")
        check_output(target, force=force)
        start = time.perf_counter()
        loaded = open_image(job.source, max_pixels=max_pixels)
        prepared = prepare_image(loaded.image, grey=codec.grey)
        notes = (*loaded.notes, *prepared.notes)
        symbols = codec.analyse(prepared.image, max_pixels=max_pixels)
        data = codec.encode(symbols, count, layers=layers, fixed_rate=fixed_rate)
        write_atomically(target, data, force=force)
        bpp = 8 * len(data) / (symbols.width * symbols.height)
        if not as_json:
            click.echo(f"{job.source} -> {target}: {len(data):,} bytes, {bpp:.3f} bpp")
            for note in notes:
                click.echo(f"  note: {note}", err=True)
        seconds = time.perf_counter() - start
        return {"output": str(target), "bytes": len(data), "file_bpp": bpp, "seconds": seconds, "notes": notes}

    results, failures = run_jobs(jobs, work, "compress", as_json)
    total = sum(result["bytes"] for result in results)
    return finish(results, failures, as_json, f"compressed, {total:,} bytes")
