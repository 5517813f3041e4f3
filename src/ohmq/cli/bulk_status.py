"""``ohmq bulk status``: say how far a job is, and what failed."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ohmq.cli.bulk_plan import bytes_text
from ohmq.cli.output import print_json

if TYPE_CHECKING:
    from ohmq.bulk.status import BulkStatus

__all__ = ["command"]

KINDS_SHOWN = 10
"""Number of kinds of failures that are printed; JSON has all."""


@click.command("status", epilog="Example: ohmq bulk status s3://lake/ohm/ --failures failures.csv")
@click.argument("target")
@click.option(
    "--failures",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a CSV file with a line for each image that failed; an existing one is replaced.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
def command(target: str, failures: Path | None, as_json: bool) -> int:
    """Say how far the job of a target is, and what failed. Neither sources nor outputs are read."""
    from ohmq.bulk.job import target_root
    from ohmq.bulk.status import read_status
    from ohmq.storage.open_store import open_store

    status = read_status(open_store(target_root(target)), failures=failures)
    if as_json:
        print_json(status.to_dict())
    else:
        _show(status, failures)
    return 0


def _show(status: "BulkStatus", failures: Path | None) -> None:
    model = f" with {status.model} ({status.model_id})" if status.model_id else ""
    updates = f", {status.generations - 1} updates" if status.generations > 1 else ""
    click.echo(f"{status.target}: {status.operation}{model}{updates}")
    running = f"{len(status.running):,} running, " if status.running else ""
    click.echo(f"shards    {status.done:,} done, {running}{status.left:,} left of {status.shards:,}")
    click.echo(f"images    {status.images:,} done, {status.failed:,} failed")
    rate = f", {status.bpp:.3f} bpp" if status.bpp is not None else ""
    click.echo(
        f"bytes     {bytes_text(status.bytes_in)} in, {bytes_text(status.bytes_out)} out{rate}; "
        f"{bytes_text(status.bytes_planned)} planned"
    )
    if status.images_per_s is not None:
        click.echo(f"speed     {status.images_per_s:.2f} images/s of a worker")
    for title, shards in (
        ("running", sorted(((s, n) for n, s in status.running.items()), reverse=True)[: len(status.slowest) or 5]),
        ("slowest", [(shard.seconds, shard.shard) for shard in status.slowest]),
    ):
        if shards:
            click.echo(f"{title}   " + ", ".join(f"shard {number:06d} {seconds:.1f} s" for seconds, number in shards))
    for kind in status.failures[:KINDS_SHOWN]:
        click.echo(_printable(f"failed    {kind.images:,}: {kind.kind} (such as {kind.example})"))
    if len(status.failures) > KINDS_SHOWN:
        click.echo(f"failed    {len(status.failures) - KINDS_SHOWN} kinds more; --json lists all")
    if status.foreign:
        click.echo(f"foreign   {status.foreign:,} markers belong to another plan and do not count")
    if failures is not None:
        click.echo(f"failures  {status.failed:,} lines in {failures}")


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
