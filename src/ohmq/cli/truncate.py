"""``ohmq truncate``: cut .ohm files, without a model and without torch."""

from typing import Any

import click

from ohmq.cli.jobs import Job, find_files, place_outputs, run_jobs
from ohmq.cli.options import FRACTION, OUTPUT, SKIP_EXISTING, check_skip
from ohmq.cli.output import finish

__all__ = ["command"]


@click.command(epilog="Example: ohmq truncate photo.ohm -o small.ohm --max-bytes 2000")
@click.argument("inputs", nargs=-1, required=True)
@OUTPUT
@click.option("--layers", type=click.IntRange(1), help="Keep this number of layers.")
@click.option("--channels", type=click.IntRange(1), help="Keep layers of at most this many channels.")
@click.option("--fraction", type=FRACTION, help="Keep layers of at most this fraction of the file's channels.")
@click.option("--max-bytes", type=click.IntRange(1), help="Keep layers up to a file of at most this many bytes.")
@click.option("--bpp", type=float, help="Keep layers up to a file of at most this many bits per pixel.")
@click.option("--psnr", type=float, help="Keep the fewest layers that reach this PSNR in dB, by the file's PSNR table.")
@SKIP_EXISTING
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(
    inputs: tuple[str, ...],
    output: str | None,
    layers: int | None,
    channels: int | None,
    fraction: float | None,
    max_bytes: int | None,
    bpp: float | None,
    psnr: float | None,
    skip_existing: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Cut .ohm files (- is standard input) to a lower bitrate, without a model. Give exactly one limit."""
    from ohmq.bitstream.reader import read_header
    from ohmq.bitstream.truncate import truncate_ohm
    from ohmq.errors import ConfigError
    from ohmq.utils.atomic_write import copy_time, write_atomically

    limits: dict[str, Any] = {"num_layers": layers, "channels": channels, "fraction": fraction}
    limits |= {"max_bytes": max_bytes, "bpp": bpp, "psnr": psnr}
    if sum(limit is not None for limit in limits.values()) != 1:
        raise click.UsageError("give exactly one of --layers, --channels, --fraction, --max-bytes, --bpp and --psnr")
    check_skip(skip_existing, force)
    jobs = find_files(inputs, (".ohm",))
    if output is None and any(job.data is None for job in jobs):
        raise click.UsageError("give -o: a file or a folder for the cut files")
    jobs = place_outputs(jobs, output, ".ohm", skip_existing=skip_existing)

    def work(job: Job) -> dict[str, Any]:
        data = job.read()
        try:
            cut = truncate_ohm(data, **limits)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        write_atomically(job.target, cut, force=force)
        notes = copy_time(job.source, job.target) if read_header(data).has_metadata else ()
        return {"output": str(job.target), "bytes_before": len(data), "bytes": len(cut), "notes": [*notes]}

    def show(result: dict[str, Any]) -> None:
        change = f"{result['bytes_before']:,} -> {result['bytes']:,} bytes"
        click.echo(f"{result['input']} -> {result['output']}: {change}")

    outcome = run_jobs(jobs, work, "truncate", as_json, show=show)
    before, after = (sum(result[name] for result in outcome.results) for name in ("bytes_before", "bytes"))
    totals = {"bytes_before": before, "bytes": after}
    return finish(outcome, as_json, f"cut, {before:,} -> {after:,} bytes", totals)
