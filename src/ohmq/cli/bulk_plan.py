"""``ohmq bulk plan``: plan a job without starting it, and estimate it from a sample."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ohmq.cli.bulk_options import make_job, measure_option, output_options, source_options
from ohmq.cli.options import COMPILED, DEVICE, encoder_options
from ohmq.cli.output import SECONDS_BETWEEN_LINES, echo_error, print_json, progress_bar

if TYPE_CHECKING:
    from ohmq.bulk.job import BulkJob
    from ohmq.bulk.plan import Plan
    from ohmq.bulk.sample import Estimate, Requests

__all__ = ["command"]

_ENGINE = {
    "engine": "local",
    "workers": None,
    "address": None,
    "gpus_per_worker": 0.0,
    "image_timeout": 600.0,
    "stall_timeout": 30.0,
    "max_attempts": 5,
}
"""Options of the engine, which a plan does not depend on."""
_CUTS = ("channels", "fraction", "max_bytes", "bpp", "psnr")


@click.command("plan", epilog="Example: ohmq bulk plan s3://lake/raw/ --bpp 0.3 --sample 500")
@click.argument("places", nargs=-1, metavar="SOURCE... [TARGET]")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Code N images taken at random; write nothing.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sample.")
@click.option(
    "--operation",
    type=click.Choice(["compress", "decompress", "transcode", "truncate"]),
    default="compress",
    show_default=True,
    help="Operation to plan; its own options go with it.",
)
@click.option("-m", "--model", default=None, help="Shipped name, model file or checkpoint.  [default: photo]")
@click.option(
    "--decode-model", default="", help="Model of the .ohm files that are read.  [default: as each file names]"
)
@click.option("--format", "image_format", default="png", show_default=True, help="Format of decompressed images.")
@encoder_options
@measure_option
@source_options
@output_options
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads that code the sample.")
@DEVICE
@COMPILED
@click.option("--json", "as_json", is_flag=True, help="Print plan and estimate as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    places: tuple[str, ...],
    sample: int | None,
    seed: int,
    operation: str,
    model: str | None,
    as_json: bool,
    quiet: bool,
    **values: Any,
) -> int:
    """Plan a job without starting it, or estimate it before anything is written.

    Take the places and options of the job itself, and name it by --operation. The plan is written into TARGET, where the
    job takes it up. With --sample, or without a target, nothing is written: images taken at random are coded on this
    machine, and the size of the outputs, the hours of a core and the number of requests are estimated.
    """
    from ohmq.bulk.operations import make_operation
    from ohmq.bulk.plan import has_plan, make_plan
    from ohmq.bulk.sample import sample_plan
    from ohmq.storage.lock import TargetLock
    from ohmq.storage.open_store import open_store
    from ohmq.storage.probe import probe_target

    has_target = len(places) + bool(values["from_list"]) > 1
    if not places and not values["from_list"]:
        raise click.UsageError("give at least one source")
    values = _values_of(operation, model, values)

    last = time.monotonic()

    def tell(count: int) -> None:
        nonlocal last
        if not quiet and time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            echo_error(f"plan: {count:,} sources listed")

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ohmq-plan-"))
        job = make_job(operation, places if has_target else (*places, f"{folder}/target"), values)
        work = make_operation(job)
        if sample is None and not has_target:
            plan = make_plan(job, on_progress=tell)
        elif sample is None:
            store = open_store(job.target_root, processes=2, for_writing=True)
            probe_target(store)
            model_id = work.model_id or None
            with TargetLock(store):
                plan = make_plan(job, model_id, store=store, on_progress=tell)
        else:
            known = has_target and not job.update and has_plan(open_store(job.target_root))
            store = open_store(job.target_root if known else f"{folder}/plan")
            plan = make_plan(job, work.model_id or None, store=store, on_progress=tell)
        estimate = None
        if sample is not None:
            with _threads(job), _progress(min(sample, plan.num_rows), quiet) as update:
                estimate = sample_plan(plan, work, sample, seed=seed, on_progress=update)
        _show(job, plan, estimate, has_target and sample is None, as_json)
    return 0


def _values_of(operation: str, model: str | None, values: dict[str, Any]) -> dict[str, Any]:
    """Keep the options of an operation, as its own command has them.

    Raises:
        click.UsageError: an option that the operation does not have was given.
    """
    context = click.get_current_context()
    own = {
        "compress": {"model", "measure", *_encoder_names()},
        "transcode": {"model", "measure", "decode_model", *_encoder_names()},
        "decompress": {"model", "image_format", "max_pixels"},
        "truncate": {"layers", *_CUTS},
    }[operation]
    special = {"model", "measure", "decode_model", "image_format", *_encoder_names()}
    for name in special - own:
        if context.get_parameter_source(name) not in (click.core.ParameterSource.DEFAULT, None):
            option = next(option for option in context.command.params if option.name == name)
            raise click.UsageError(f"{option.opts[-1]} does not go with --operation {operation}")
    values = {name: value for name, value in values.items() if name not in special - own}
    if operation == "truncate":
        limits = {**{name: values.pop(name) for name in _CUTS}, "num_layers": values.pop("layers")}
        if context.get_parameter_source("layers") is click.core.ParameterSource.DEFAULT:
            limits["num_layers"] = None
        if limits["num_layers"] == "all":
            raise click.UsageError("--layers all cuts nothing; give a number")
        values["cut"] = {name: limit for name, limit in limits.items() if limit is not None}
        if len(values["cut"]) != 1:
            raise click.UsageError(
                "give exactly one of --layers, --channels, --fraction, --max-bytes, --bpp and --psnr to truncate"
            )
    elif model is not None:
        values["decode_model" if operation == "decompress" else "model"] = model
    return _ENGINE | values


def _encoder_names() -> tuple[str, ...]:
    from ohmq.encoder.options import EncodeOptions

    return EncodeOptions.names()


@contextlib.contextmanager
def _threads(job: "BulkJob") -> Iterator[None]:
    """Use as many threads as a worker does, while images of the sample are coded."""
    if job.operation == "truncate":
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _progress(length: int, quiet: bool) -> Iterator[Any]:
    if quiet:
        yield None
        return
    with progress_bar(length, "sample") as update:
        yield lambda done: update(1)


def _show(job: "BulkJob", plan: "Plan", estimate: "Estimate | None", written: bool, as_json: bool) -> None:
    kinds = {kind: sum(generation.kinds[kind] for generation in plan.generations) for kind in plan.generations[0].kinds}
    unknown = sum(generation.unknown_sizes for generation in plan.generations)
    changed = plan.generations[-1].changed if plan.added else 0
    if as_json:
        print_json(
            {
                "operation": job.operation,
                "model_id": plan.model_id,
                "target": job.target if written else None,
                "sources": plan.num_rows,
                "kinds": kinds,
                "unknown_sizes": unknown,
                "bytes_in": plan.num_bytes,
                "shards": plan.num_shards,
                "generations": len(plan.generations),
                "added": plan.added if written else 0,
                "changed": changed,
                "estimate": estimate and estimate.to_dict(),
            }
        )
        return
    words = {"object": "single files", "tar": "tar shards", "parquet": "Parquet sources"}
    sources = ", ".join(f"{count:,} {words[kind]}" for kind, count in kinds.items() if count)
    size = bytes_text(plan.num_bytes) + (f" and {unknown:,} of unknown size" if unknown else "")
    click.echo(f"sources   {sources}; {size}")
    click.echo(f"shards    {plan.num_shards:,}")
    if written:
        news = f"{plan.added:,} sources added" if plan.added else "complete before, nothing added"
        if plan.added and len(plan.generations) > 1:
            news += f" by this update, {changed:,} of them changed"
        click.echo(f"plan      in {job.target_root}: {news}")
    if estimate is not None:
        _show_estimate(estimate, kinds["object"] == plan.num_rows)


def _show_estimate(estimate: "Estimate", exact: bool) -> None:
    failed = f", {estimate.failed} failed (the first: {estimate.first_error})" if estimate.failed else ""
    click.echo(f"sample    {estimate.sampled:,} of {'' if exact else 'about '}{estimate.images:,} images{failed}")
    value, low, high = map(bytes_text, estimate.bytes_out)
    rate = "" if estimate.bpp is None else f"; {estimate.bpp:.3f} bpp in the sample"
    quality = "" if estimate.psnr_db is None else f", {estimate.psnr_db:.2f} dB"
    click.echo(f"outputs   {value} (95 % interval: {low} to {high}){rate}{quality}")
    hours = estimate.core_hours
    click.echo(
        f"time      {_hours(hours.value)} hours of a core (95 % interval: {_hours(hours.low)} to {_hours(hours.high)}); "
        f"{estimate.images_per_s:.1f} images/s"
    )
    click.echo(
        f"requests  sources: {_requests(estimate.source_requests)}; target: {_requests(estimate.target_requests)}"
    )
    click.echo("nothing was written")


def bytes_text(size: float) -> str:
    """Return a size in decimal units, such as "1.2 GB"."""
    if size == float("inf"):
        return "unknown"
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _hours(value: float) -> str:
    return "unknown" if value == float("inf") else f"{value:.3g}"


def _requests(requests: "Requests") -> str:
    if not any(requests):
        return "none, a folder"
    return f"{requests.gets:,} gets, {requests.heads:,} heads, {requests.puts:,} puts, {requests.lists:,} lists"
