"""``ohmq train``: the modern command line of `ohmq.training`."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import click

__all__ = ["command"]

_MODEL_KEYS = ("quantizer", "channels_min", "channels_max", "num_symbols", "prior", "refinement")


@click.command(epilog="Example: ohmq train --preset mnist-ohm --data data -o runs/mnist-ohm")
@click.option("--preset", "preset_name", help="Settings of a shipped model: mnist-ohm, mnist-int, photo.")
@click.option("-o", "--output-dir", type=click.Path(path_type=Path), required=True, help="Logs and checkpoints.")
@click.option(
    "--data", "data_base_path", type=click.Path(path_type=Path), help="Where MNIST or the photos are, or $OHMQ_DATA."
)
@click.option("--quantizer", type=click.Choice(["ohm", "integer", "none"]))
@click.option("--channels-min", type=int, help="Channels that are always active (default 0).")
@click.option("--channels-max", type=int, help="All channels (default 16).")
@click.option("--num-symbols", type=int, help="Alphabet size S (default 256).")
@click.option("--prior", type=click.Choice(["static", "context"]))
@click.option(
    "--refinement/--no-refinement", default=None, help="Later channels quantize the residual of earlier ones."
)
@click.option("--lambda-rd", "lambdas", type=float, nargs=2, help="lambda_min lambda_max (default 0.95 0.999).")
@click.option("--epochs", type=int)
@click.option(
    "--quick-epochs",
    type=int,
    help="Photos: last epochs, which distil the analysis transform; 0: keep the full one.",
)
@click.option("--batch-size", type=int, help="Over all devices.")
@click.option("--learning-rate", type=float)
@click.option("--weight-decay", type=float)
@click.option("--schedule", type=click.Choice(["constant", "cosine"]))
@click.option("--ema-decay", type=float, help="Average of the weights; 0: none.")
@click.option("--clip-norm", type=float, help="Largest gradient norm; 0: no limit.")
@click.option("--fraction-power", type=float, help="fraction = U(0, 1) ** power; 0.5 as published.")
@click.option("--initialisation", type=click.Choice(["published", "scalar", "vector"]))
@click.option("--warm-start-epochs", type=int)
@click.option("--grow-epochs", type=int, help="Last epochs, with the whole alphabet; 0: all epochs.")
@click.option("--initial-symbols", type=int, help="Alphabet size before the last epochs.")
@click.option("--crop-size", type=int, help="Side of the random crops of photos, in pixels.")
@click.option("--num-train-samples", type=int)
@click.option("--num-val-samples", type=int)
@click.option("--val-every", type=int, help="Epochs between validations.")
@click.option("--log-interval", type=int, help="Steps between log rows.")
@click.option("--devices", help="As Lightning takes it: a number, or auto.")
@click.option("--num-nodes", type=int)
@click.option("--device", "accelerator", type=click.Choice(["auto", "cpu", "cuda", "mps"]),
              help="Kind of device to train on; auto, the default: an accelerator if there is one.")  # fmt: skip
@click.option("--cpu", is_flag=True, default=None, help="The same as --device cpu.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Of the photo networks' convolutions; auto: bfloat16 where the hardware has it.",
)
@click.option("--seed", type=int)
@click.option("--description", help="Free text, kept in the checkpoint.")
@click.option("--start-from", help="Train on from another model, with a new schedule: a photo model (shipped name, "
              "model file or checkpoint) of as many channels or fewer, or a checkpoint of OHM for digits with refinement, "
              "of any number of channels.")  # fmt: skip
@click.option("--only", help="Train only the parameters of a photo model whose names begin with this, such as prior.")
@click.option("--ckpt", type=click.Path(path_type=Path), help="Resume from this checkpoint.")
@click.option("--resume", is_flag=True, help="Resume from OUTPUT_DIR/last.ckpt if it is there.")
def command(preset_name: str | None, ckpt: Path | None, resume: bool, **flags: Any) -> None:
    """Train a model: checkpoints, CSV and TensorBoard logs go to the output folder.

    Photos are read from the folders train and validation below --data, below --data/photos or below --data/openimages.
    """
    from ohmq.models import MnistConfig
    from ohmq.models.config import memory_name
    from ohmq.training.fit import is_first_process
    from ohmq.training.options import TrainOptions, preset
    from ohmq.training.resume import resume_point
    from ohmq.training.run import train

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = preset(preset_name) if preset_name else {}
    changes = {key: value for key, value in flags.items() if value is not None}
    if changes.get("accelerator") == "cpu":
        changes |= {"accelerator": "auto", "cpu": True}
    if str(changes.get("devices", "")).isdigit():
        changes["devices"] = int(changes["devices"])
    model_changes = {memory_name(key): changes.pop(key) for key in _MODEL_KEYS if key in changes}
    settings["model"] = dataclasses.replace(settings.get("model", MnistConfig()), **model_changes)
    options = TrainOptions(**{**settings, **changes})
    last = train(options, resume=resume_point(options.output_dir, ckpt, resume))
    if is_first_process():
        click.echo(f"last checkpoint: {last}")
