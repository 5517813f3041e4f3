"""``ohmq experiments``: runs by name, each trained, exported and tested."""

import logging
from pathlib import Path
from typing import Any

import click

from ohmq.cli.output import echo_error, print_json, progress_bar
from ohmq.errors import OhmqError
from ohmq.utils.counting import counted

__all__ = ["command"]

DEFAULT_OUTPUT = Path("runs/experiments")

_output = click.option(
    "-o", "--output-dir", type=click.Path(path_type=Path), default=DEFAULT_OUTPUT, show_default=True,
    help="Folder that gets runs/NAME (checkpoints, logs, model file) and results/NAME (curve).",
)  # fmt: skip
_epochs = click.option(
    "--epochs",
    type=click.IntRange(1),
    help="Number of epochs, in place of the file's; the warm start shrinks in proportion.",
)


@click.group(epilog="Example: ohmq experiments run mnist-ohm-c0-16-lambda0.95-0.999 --data data")
def command() -> None:
    """Run experiments by name: `list` them, `run` them.

    Each is one TOML file in the folder ohmq/experiments of the package.
    """


@command.command("list", epilog="Example: ohmq experiments list")
@_output
@_epochs
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON, with all settings.")
def list_command(output_dir: Path, epochs: int | None, as_json: bool) -> None:
    """List all experiments, and which of them are done in the output folder."""
    from ohmq.experiments.catalogue import GROUPS, find_experiments
    from ohmq.experiments.runner import experiment_status

    experiments = find_experiments(["*"])
    rows: list[dict[str, Any]] = [
        {
            "name": experiment.name,
            "group": experiment.group,
            "description": experiment.description,
            "status": experiment_status(experiment, experiment.scaled(epochs), output_dir),
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
                click.echo(f"  {row['name']:{width}}  {counted(row['epochs'], 'epoch'):>10}  {row['status']}")


@command.command("run", epilog="Example: ohmq experiments run 'mnist-int-*' --data data --epochs 10")
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Run every experiment of the list.")
@_epochs
@click.option(
    "--data",
    "data_base_path",
    type=click.Path(path_type=Path),
    help="Folder of MNIST or of the photos.  [default: $OHMQ_DATA, then ./data]",
)
@click.option("--images", type=click.Path(path_type=Path), help="Images that photo models are tested on; "
              "default: the folder kodak below --data.")  # fmt: skip
@_output
@click.option("--devices", default="1", show_default=True, help="Number of devices, or auto for all.")
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

    Experiments that are done are skipped; an interrupted one goes on from its last checkpoint. One that fails does
    not stop the others. One that others start from is run before them.
    """
    from ohmq.experiments.catalogue import find_experiments
    from ohmq.experiments.runner import image_sets, run_experiment
    from ohmq.training.fit import is_first_process

    if bool(names) == everything:
        raise click.UsageError("give names of experiments (or patterns), or --all")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    machine = {
        "data_base_path": data_base_path,
        "devices": int(devices) if devices.isdecimal() else devices,
        "num_nodes": num_nodes,
        "cpu": cpu,
    }
    test_images = image_sets(data_base_path, images, report=echo_error)
    experiments = find_experiments(["*"] if everything else names)
    failed = 0
    for number, experiment in enumerate(experiments, start=1):
        head = f"[{number}/{len(experiments)}] {experiment.name}"
        try:
            line = run_experiment(
                experiment,
                experiment.scaled(epochs),
                output_dir,
                machine=machine,
                test_images=test_images,
                show_progress=progress_bar,
            )
        except OhmqError as error:
            failed += 1
            if is_first_process():
                click.echo(f"{head}: failed: {error}", err=True)
            continue
        if is_first_process():
            click.echo(f"{head}: {line}")
    return 1 if failed else 0
