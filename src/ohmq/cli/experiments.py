"""``ohmq experiments``: runs by name, each trained, exported and tested."""

import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ohmq.cli.output import print_json
from ohmq.errors import ConfigError, OhmqError

if TYPE_CHECKING:
    from ohmq.cli.published_compress import Images
    from ohmq.evaluation.results import ResultFile
    from ohmq.experiments import Experiment
    from ohmq.training.options import TrainOptions

__all__ = ["command"]

DEFAULT_OUTPUT = Path("runs/experiments")
DEFINITIONS = {
    "epochs": "passes over the training images with the quantizer in place; a warm start comes before them",
    "epochs_of_the_file": "the same, as the experiment's file says",
    "seconds": "wall-clock seconds of training: warm start, validation and checkpoints included, stops left out",
}
_FREE = ("description", "num_workers", "devices", "num_nodes", "cpu", "log_interval")
"""Options that do not change what a run gives, or do so only by rounding."""

_output = click.option(
    "-o", "--output-dir", type=click.Path(path_type=Path), default=DEFAULT_OUTPUT, show_default=True,
    help="Gets runs/NAME (checkpoints, logs, model file) and results/NAME (curve).",
)  # fmt: skip
_epochs = click.option(
    "--epochs", type=click.IntRange(1), help="So many in place of the file's; the warm start shrinks in proportion."
)


@click.group(epilog="Example: ohmq experiments run mnist-ohm-c0-16-lambda0.95-0.999 --data data")
def command() -> None:
    """Runs by name: `list` them, `run` them.

    Each is one TOML file in the folder ohmq/experiments of the package.
    """


@command.command("list", epilog="Example: ohmq experiments list")
@_output
@_epochs
@click.option("--json", "as_json", is_flag=True, help="As JSON, with all settings.")
def list_command(output_dir: Path, epochs: int | None, as_json: bool) -> None:
    """All experiments, and which of them are done in the output folder."""
    from ohmq.experiments import GROUPS, find_experiments

    experiments = find_experiments(["*"])
    rows: list[dict[str, Any]] = [
        {
            "name": experiment.name,
            "group": experiment.group,
            "description": experiment.description,
            "status": _status(experiment, experiment.scaled(epochs), output_dir),
            "epochs": experiment.scaled(epochs).epochs,
            "test": experiment.test,
            "fixed_rate": experiment.fixed_rate,
            "published": experiment.published,
            "options": experiment.scaled(epochs).to_dict(),
        }
        for experiment in experiments
    ]
    if as_json:
        print_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for group, title in GROUPS.items():
        click.echo(f"{title} ({group})")
        for row in rows:
            if row["group"] == group:
                click.echo(f"  {row['name']:{width}}  {row['epochs']:3d} epochs  {row['status']}")


@command.command("run", epilog="Example: ohmq experiments run 'mnist-int-*' --data data --epochs 10")
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every experiment of the list.")
@_epochs
@click.option(
    "--data", "data_base_path", type=click.Path(path_type=Path), help="Where MNIST or the photos are, or $OHMQ_DATA."
)
@click.option("--images", type=click.Path(path_type=Path), help="Pictures that photo models are tested on; "
              "default: the folder kodak below --data.")  # fmt: skip
@_output
@click.option("--devices", default="1", show_default=True, help="As Lightning takes it: a number, or auto.")
@click.option("--num-nodes", type=click.IntRange(1), default=1, show_default=True)
@click.option("--cpu", is_flag=True, help="Never use an accelerator.")
def run_command(
    names: tuple[str, ...],
    everything: bool,
    epochs: int | None,
    data_base_path: Path | None,
    images: Path | None,
    output_dir: Path,
    devices: str,
    num_nodes: int,
    cpu: bool,
) -> int:
    """Train, export and test experiments: names, patterns, or TOML files of your own.

    What is done is skipped; what was interrupted goes on from its last checkpoint. One that fails does not stop the others.
    One that others start from is run before them.
    """
    from ohmq.experiments import find_experiments
    from ohmq.training.run import is_first_process

    if bool(names) == everything:
        raise click.UsageError("give names of experiments (or patterns), or --all")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    machine = {
        "data_base_path": data_base_path,
        "devices": int(devices) if devices.isdigit() else devices,
        "num_nodes": num_nodes,
        "cpu": cpu,
    }
    test_set = _test_sets(data_base_path, images)
    experiments = find_experiments(["*"] if everything else names)
    failed = 0
    for number, experiment in enumerate(experiments, start=1):
        head = f"[{number}/{len(experiments)}] {experiment.name}"
        try:
            line = _run(experiment, experiment.scaled(epochs), output_dir, machine, test_set)
        except OhmqError as error:
            failed += 1
            if is_first_process():
                click.echo(f"{head}: failed: {error}", err=True)
            continue
        if is_first_process():
            click.echo(f"{head}: {line}")
    return 1 if failed else 0


def _run(
    experiment: "Experiment",
    options: "TrainOptions",
    output_dir: Path,
    machine: dict[str, Any],
    test_set: Callable[[str], tuple[str, "Images"]],
) -> str:
    """One experiment; what to say about it. Training goes on in all processes, tests in the first alone."""
    from ohmq.cli.output import progress_bar
    from ohmq.cli.published_compress import evaluate_set
    from ohmq.evaluation.published import published_curve
    from ohmq.model_files.frozen_model import load_model, save_model
    from ohmq.model_files.resolve import resolve_model
    from ohmq.models.config import PhotoConfig
    from ohmq.training.filters import filter_photos, fit_filters
    from ohmq.training.run import is_first_process, train

    done = _result(experiment, options, output_dir)
    if done is not None:
        return f"done before; {_summary(experiment, done)}"
    data, images = test_set(experiment.test)  # what cannot be read fails before the training
    folder = output_dir / "runs" / experiment.name
    last, model_path = folder / "last.ckpt", folder / f"{experiment.name}.safetensors"
    options = dataclasses.replace(options, **machine, output_dir=folder, description=experiment.name)
    start = None
    if options.start_from and not last.exists():
        # What its transforms learned with the small alphabet; this run's alphabet grows again.
        start = output_dir / "runs" / options.start_from / ("train.ckpt" if options.grow_epochs else "last.ckpt")
        if not start.exists():
            raise ConfigError(f"it starts from {options.start_from}, which is not trained: there is no {start}")
    with contextlib.redirect_stdout(sys.stderr):  # progress bars: standard output is for one line an experiment
        checkpoint = train(options, resume=last if last.exists() else None, start=start)
    if not is_first_process():
        return ""
    frozen = resolve_model(checkpoint)
    if isinstance(frozen.config, PhotoConfig):
        photos = filter_photos(options.data_base_path or Path(os.environ["OHMQ_DATA"]))
        with progress_bar(len(photos), "fitting filters") as progress:
            frozen = fit_filters(frozen, photos, progress)
    save_model(frozen, model_path, force=True)
    frozen = load_model(model_path, experiment.name)
    record = {
        "name": experiment.name,
        "group": experiment.group,
        "test": experiment.test,
        "fixed_rate": experiment.fixed_rate,
        "epochs": options.epochs,
        "epochs_of_the_file": experiment.options.epochs,
        "seconds": frozen.provenance["seconds"],
        "definitions": DEFINITIONS,
        "options": options.to_dict(),
    }
    result = evaluate_set(
        frozen,
        images,
        (-1,),
        output_dir / "results" / experiment.name,
        data=data,
        quiet=True,
        per_image=False,
        fixed_rate=experiment.fixed_rate,
        extra={"experiment": record},
        beside=[published_curve(experiment.published)] if experiment.published else [],
    )
    return f"trained {options.epochs} epochs in {record['seconds']:.0f} s; {_summary(experiment, result)}"


def _result(experiment: "Experiment", options: "TrainOptions", output_dir: Path) -> "ResultFile | None":
    """The result of this run, if it is there.

    Raises:
        ConfigError: a result of other settings under the same name.
    """
    from ohmq.evaluation.results import ResultFile
    from ohmq.training.options import recorded_options

    path = output_dir / "results" / experiment.name / "rate_distortion.json"
    if not path.exists():
        return None
    result = ResultFile.read(path)
    record = result.extra.get("experiment")
    if not isinstance(record, dict) or not isinstance(record.get("options"), dict):
        raise ConfigError(f"{path} was not written by `ohmq experiments run`; choose another -o")
    found = {**recorded_options(record["options"]), "fixed_rate": record.get("fixed_rate")}
    wanted = json.loads(json.dumps({**options.to_dict(), "fixed_rate": experiment.fixed_rate}))
    changed = [
        f"{key} was {found.get(key)!r}, now {wanted.get(key)!r}"
        for key in sorted({*found, *wanted} - set(_FREE))
        if found.get(key) != wanted.get(key)
    ]
    if changed:
        raise ConfigError(f"{path} holds another run ({'; '.join(changed)}); choose another -o, or remove it")
    return result


def _status(experiment: "Experiment", options: "TrainOptions", output_dir: Path) -> str:
    try:
        if _result(experiment, options, output_dir) is not None:
            return "done"
    except ConfigError:
        return "done with other settings"
    return "begun" if (output_dir / "runs" / experiment.name / "last.ckpt").exists() else "-"


def _summary(experiment: "Experiment", result: "ResultFile") -> str:
    """Rates, PSNR and the BD-rate against the published curve."""
    from ohmq.evaluation.bd_rate import bd_rate
    from ohmq.evaluation.published import published_curve

    first, last = result.points[0], result.points[-1]
    if experiment.options.model.quantizer == "none":
        return f"{last.psnr_db:.2f} dB without a quantizer on {result.data}"
    several = len(result.points) > 1
    rates = f"{first.payload_bpp:.4f} to {last.payload_bpp:.4f}" if several else f"{last.payload_bpp:.4f}"
    quality = f"{first.psnr_db:.2f} to {last.psnr_db:.2f}" if several else f"{last.psnr_db:.2f}"
    text = f"payload {rates} bpp, {quality} dB on {result.data}"
    if not experiment.published:
        return text
    curve, anchor = result.curve(), published_curve(experiment.published)
    try:
        difference = bd_rate(anchor.rates_bpp, anchor.psnr_db, curve.rates_bpp, curve.psnr_db)
    except ConfigError as error:
        return f"{text}; no BD-rate against the published curve: {error}"
    return f"{text}; BD-rate {difference.percent:+.1f} % against the published curve"


def _test_sets(data_base_path: Path | None, folder: Path | None) -> Callable[[str], tuple[str, "Images"]]:
    """Test sets by name, each read once: what it is, and its images."""

    @cache
    def test_set(name: str) -> tuple[str, "Images"]:
        from ohmq.cli.published_compress import read_images
        from ohmq.datasets.mnist import load_mnist

        if name == "mnist":
            return "MNIST test", [(f"{n:05d}", image) for n, image in enumerate(load_mnist(data_base_path, "test"))]
        base = data_base_path or (Path(os.environ["OHMQ_DATA"]) if "OHMQ_DATA" in os.environ else None)
        pictures = folder or (base and base / "kodak")
        if pictures is None or not pictures.exists():
            raise ConfigError(f"no pictures to test on{f' in {pictures}' if pictures else ''}: name them with --images")
        return pictures.name, read_images([str(pictures)], grey=False)[0]

    return test_set
