"""``ohmq truncate``: no model, no torch."""

from pathlib import Path
from typing import Any

import click

from ohmq.cli.common import Job, find_files, finish, output_for, run_jobs

__all__ = ["command"]


@click.command(epilog="Example: ohmq truncate photo.ohm -o small.ohm --max-bytes 2000")
@click.argument("inputs", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File or folder.")
@click.option("--layers", type=click.IntRange(1), help="Keep so many layers.")
@click.option("--channels", type=click.IntRange(1), help="Keep the layers that hold at most so many channels.")
@click.option("--max-bytes", type=click.IntRange(1), help="Keep the layers that fit in so many bytes.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON.")
def command(
    inputs: tuple[str, ...],
    output: Path,
    layers: int | None,
    channels: int | None,
    max_bytes: int | None,
    force: bool,
    as_json: bool,
) -> int:
    """Cut .ohm files to a lower bitrate, without a model. Give exactly one limit."""
    from ohmq.container import truncate_ohm
    from ohmq.errors import BitstreamError, ConfigError, OhmqError
    from ohmq.files import write_atomically

    if sum(limit is not None for limit in (layers, channels, max_bytes)) != 1:
        raise click.UsageError("give exactly one of --layers, --channels and --max-bytes")
    jobs = find_files(inputs, (".ohm",))

    def work(job: Job) -> dict[str, Any]:
        target = output_for(job, output, len(jobs) == 1, ".ohm")
        data = job.source.read_bytes()
        try:
            cut = truncate_ohm(data, num_layers=layers, channels=channels, max_bytes=max_bytes)
        except BitstreamError as error:
            raise OhmqError(f"{job.source}: {error}") from error
        except ValueError as error:
            raise ConfigError(f"{job.source}: {error}") from error
        write_atomically(target, cut, force=force)
        if not as_json:
            click.echo(f"{job.source} -> {target}: {len(data):,} -> {len(cut):,} bytes")
        return {"output": str(target), "bytes_before": len(data), "bytes": len(cut)}

    results, failures = run_jobs(jobs, work, "truncate", as_json)
    return finish(results, failures, as_json, "cut")
