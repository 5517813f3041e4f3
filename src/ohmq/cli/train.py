"""``ohmq train``: the modern command line of `ohmq.training`."""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ohmq.errors import ConfigError

if TYPE_CHECKING:
    from ohmq.training.options import TrainOptions

__all__ = ["command"]

_MODEL_KEYS = ("quantizer", "channels_min", "channels_max", "num_symbols", "prior", "refinement")


class _TrainCommand(click.Command):
    """The command, whose ``--lambda-rd`` takes one value or two."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat ``--lambda-rd`` before a second value: no argument of this command stands alone."""
        spread: list[str] = []
        for word in args:
            if len(spread) > 1 and spread[-2] == "--lambda-rd" and _is_number(word) and _is_number(spread[-1]):
                spread.append("--lambda-rd")
            spread.append(word)
        return super().parse_args(ctx, spread)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _option(*names: str, help: str, default: str = "", **settings: Any) -> Any:
    """Build an option that changes a preset only if it is given; ``default`` is that without a preset, for the help."""
    return click.option(*names, default=None, help=f"{help} [default: {default}]" if default else help, **settings)


@click.command(cls=_TrainCommand, epilog="Example: ohmq train --preset mnist-ohm --data data -o runs/mnist-ohm")
@click.option(
    "--preset",
    "preset_name",
    help="Settings to start from: mnist-ohm, mnist-int, photo and photo-int as shipped; mnist-published, openimages-ohm "
    "and openimages-int as published. Further options change them. Without one, the data tell: photos are trained on "
    "with the preset photo, MNIST with the defaults below.",
)
@click.option("-o", "--output-dir", type=click.Path(path_type=Path), required=True, help="Logs and checkpoints.")
@_option(
    "--data",
    "data_base_path",
    metavar="SOURCE",
    default="$OHMQ_DATA, then ./data",
    help="Folder of MNIST or of the photos. Photos also lie in tar or Parquet shards or in object storage: a URL, a "
    "folder of shards, or a pattern such as 's3://lake/raw-{000..999}.tar'.",
)
@_option(
    "--image-column", metavar="NAME", default="the only one that may be", help="Column of photos in Parquet shards."
)
@_option(
    "--data-cache",
    type=click.Path(path_type=Path),
    default="in the user's cache",
    help="Folder for copies of shards that training reads.",
)
@_option(
    "--data-cache-bytes",
    type=int,
    metavar="BYTES",
    default="34359738368",
    help="Limit on these copies, on each machine.",
)
@click.option(
    "--test-set",
    "test_sets",
    multiple=True,
    metavar="FOLDER",
    help="Images to evaluate the trained model on; may be given several times. For digits mnist_png/testing is MNIST's "
    "test file.",
)
@click.option("--test-limit", type=click.IntRange(1), help="Evaluate on the first images of each test set only.")
@_option("--quantizer", type=click.Choice(["ohm", "integer", "none"]), default="ohm", help="Quantizer of the latent.")
@_option("--channels-min", type=int, default="0", help="Channels that are always active.")
@_option("--channels-max", type=int, default="16", help="All channels.")
@_option("--num-symbols", type=int, default="256", help="Alphabet size S.")
@_option("--prior", type=click.Choice(["static", "context"]), default="static", help="Prior of the symbols.")
@_option(
    "--refinement/--no-refinement",
    default="no-refinement",
    help="Later channels quantize the residual of earlier ones.",
)
@click.option(
    "--lambda-rd",
    "lambdas",
    type=float,
    multiple=True,
    metavar="LAMBDA [LAMBDA]",
    help="Lambda of the loss; or two, for the fewest and for all channels. [default: 0.95 0.999]",
)
@_option("--epochs", type=int, default="1000", help="Passes over the training images, without a warm start.")
@_option(
    "--minutes",
    type=float,
    default="0",
    help="Photos: training time, in place of --epochs; the learning rate follows the clock, over all resumptions. Ends with "
    "OUTPUT_DIR/model.safetensors. Without --quick-epochs, the analysis transform is not distilled.",
)
@_option(
    "--quick-epochs",
    type=int,
    default="0",
    help="Photos: last epochs, which distil the analysis transform; 0: keep the full one.",
)
@_option("--batch-size", type=int, default="512", help="Images of a step, over all devices.")
@_option("--learning-rate", type=float, default="0.001", help="Adam's learning rate.")
@_option("--weight-decay", type=float, default="1e-05", help="Adam's L2 penalty.")
@_option("--schedule", type=click.Choice(["constant", "cosine"]), default="constant", help="Of the learning rate.")
@_option("--ema-decay", type=float, default="0.0", help="Decay of the running mean of the weights; 0: no mean.")
@_option("--clip-norm", type=float, default="0.0", help="Largest gradient norm; 0: no limit.")
@_option(
    "--perceptual",
    type=float,
    metavar="WEIGHT",
    default="0.0",
    help="Photos: weight of a term for looks (SSIMULACRA2) in the loss beside the squared error. At 1 both pull equally "
    "strongly; 0.6 is a careful choice; 0: none. Needs crops of at least 128 pixels.",
)
@_option(
    "--order-exponent",
    type=float,
    metavar="POWER",
    default="0.0",
    help="Photos: order channels for looks. The slope of a channel is multiplied by this power of how much errors of its "
    "frequency show; 0: the order of the squared error. With --start-from, the model's channels are ordered anew.",
)
@_option("--fraction-power", type=float, default="0.5", help="fraction = U(0, 1) ** power; 0.5 as published.")
@_option(
    "--initialisation",
    type=click.Choice(["published", "scalar", "vector", "rounding"]),
    default="scalar",
    help="Random weights as published, or a warm start: scalar or vector for OHM, rounding for integer rounding.",
)
@_option("--warm-start-epochs", type=int, default="20", help="Passes of the warm start, before the epochs.")
@_option("--grow-epochs", type=int, default="0", help="Last epochs, with the whole alphabet; 0: all epochs.")
@_option("--initial-symbols", type=int, default="32", help="Alphabet size before the last epochs.")
@_option("--crop-size", type=int, default="256", help="Side of the random crops of photos, in pixels.")
@_option(
    "--data-on-device",
    is_flag=True,
    help="Photos: decode all of them once into the memory of the device, and cut crops there; for a fast GPU.",
)
@_option("--num-train-samples", type=int, default="all", help="Training images to use.")
@_option("--num-val-samples", type=int, default="all", help="Validation images to use.")
@_option("--val-every", type=int, default="1", help="Epochs between validations.")
@_option("--log-interval", type=int, default="50", help="Steps between log rows.")
@_option(
    "--num-workers",
    type=int,
    default="on GPUs up to 8 processes each, else a thread",
    help="Processes that read photos for each device; 0: a thread.",
)
@_option("--devices", default="auto", help="Number of devices, a list of GPUs such as 0,1, or auto: all GPUs.")
@_option("--num-nodes", type=int, default="1", help="Machines that train together.")
@_option(
    "--device",
    "accelerator",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    help="Kind of device to train on; auto: an accelerator if there is one.",
)
@_option("--cpu", is_flag=True, help="The same as --device cpu.")
@_option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    help="Of the photo networks' convolutions; auto: bfloat16 where the hardware has it.",
)
@_option("--seed", type=int, default="0", help="Seed of all random numbers.")
@_option("--description", help="Free text, kept in the checkpoint.")
@_option("--start-from", help="Train on from another model, with a new schedule: a photo model (shipped name, "
         "model file or checkpoint) of as many channels or fewer, or a checkpoint of OHM for digits with refinement, "
         "of any number of channels.")  # fmt: skip
@_option(
    "--only",
    help="Train only the parameters of a photo model whose names begin with this, such as prior; decoders: the decoder "
    "ladder of the model of --start-from; decoders.fast: one of them.",
)
@click.option("--ckpt", type=click.Path(path_type=Path), help="Resume from this checkpoint.")
@click.option("--resume", is_flag=True, help="Resume from OUTPUT_DIR/last.ckpt if it is there.")
def command(
    preset_name: str | None,
    ckpt: Path | None,
    resume: bool,
    lambdas: tuple[float, ...],
    test_limit: int | None,
    **flags: Any,
) -> None:
    """Train a model: checkpoints, CSV and TensorBoard logs go to the output folder.

    Photos are read from the folders train and validation below --data, below --data/photos or below --data/openimages;
    from shards and object storage, parts called train and validation are taken, or some photos are held out.

    Defaults are those without a preset; a preset has its own.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from ohmq.cli.test_sets import evaluate_test_sets, read_test_sets
    from ohmq.datasets.folders import data_place
    from ohmq.training.fit import is_first_process
    from ohmq.training.resume import resume_point
    from ohmq.training.run import train

    changes = {key: value for key, value in flags.items() if value not in (None, ())}
    if changes.get("accelerator") == "cpu":
        changes |= {"accelerator": "auto", "cpu": True}
    if "data_base_path" in changes:
        changes["data_base_path"] = data_place(changes["data_base_path"])
    if len(lambdas) > 2:
        raise ConfigError(f"--lambda-rd takes one or two values, not {len(lambdas)}")
    if lambdas:
        changes["lambdas"] = (lambdas[0], lambdas[-1])
    options = _train_options(preset_name, changes)
    resume_from = resume_point(options.output_dir, ckpt, resume)
    test_sets = read_test_sets(options, test_limit)
    last = train(options, resume=resume_from)
    if is_first_process():
        click.echo(f"last checkpoint: {last}")
        evaluate_test_sets(options, last, test_sets)


def _train_options(preset_name: str | None, changes: dict[str, Any]) -> "TrainOptions":
    """Build the options of a run from those of a preset and the changes to them."""
    from ohmq.models import MnistConfig
    from ohmq.models.config import memory_name
    from ohmq.training.options import TrainOptions, preset

    name = preset_name or _inferred_preset(changes.get("data_base_path"))
    settings = preset(name) if name else {"model": MnistConfig()}
    model_changes = {memory_name(key): changes.pop(key) for key in _MODEL_KEYS if key in changes}
    settings["model"] = dataclasses.replace(settings["model"], **model_changes)
    if changes.get("minutes"):
        if "epochs" in changes:
            raise click.UsageError("give one of --epochs and --minutes")
        settings |= {"epochs": 0, "quick_epochs": 0}
    return TrainOptions(**{**settings, **changes})


def _inferred_preset(data_base_path: Path | str | None) -> str:
    """Choose what to train by the data; "" for digits without a preset.

    Raises:
        ConfigError: both digits and photos, or a named folder with neither.
    """
    from ohmq.datasets.folders import data_folders, find_data
    from ohmq.datasets.mnist import MNIST_FOLDERS, holds_mnist
    from ohmq.datasets.photos import find_photos
    from ohmq.datasets.shard_index import is_shard_source
    from ohmq.storage.urls import redacted
    from ohmq.training.options import PRESETS

    if is_shard_source(data_base_path):
        click.echo(f"photos in {redacted(str(data_base_path))}: training with --preset photo", err=True)
        return "photo"
    folders = [Path(data_base_path)] if data_base_path else data_folders()
    digits = find_data(folders, MNIST_FOLDERS, holds_mnist)
    photos = find_photos(data_base_path)
    where = ", ".join(map(str, folders))
    if digits and photos:
        of_digits = [name for name in PRESETS if name.startswith("mnist")]
        of_photos = [name for name in PRESETS if name not in of_digits]
        raise ConfigError(
            f"there are photos ({photos}) and digits ({digits}) in {where}: choose with --preset; for photos there are "
            f"{', '.join(of_photos)}; for digits {', '.join(of_digits)}"
        )
    if photos:
        click.echo(f"photos in {photos}: training with --preset photo", err=True)
        return "photo"
    if data_base_path and not digits:
        raise ConfigError(
            f"neither photos (folders train and validation, or photos/train and so on) nor MNIST below {data_base_path}; "
            "name another folder with --data, or say with --preset what to train, such as mnist-ohm"
        )
    click.echo("training on digits (MNIST), as there is no --preset", err=True)
    return ""
