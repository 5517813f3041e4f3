"""The published command line of training, translated into options of `ohmq.training`."""

import argparse
import logging
from pathlib import Path
from typing import Any

from ohmq.errors import ConfigError

__all__ = ["build_parser", "options_from", "run"]

log = logging.getLogger(__name__)

_DEFAULTS = {"n_epochs": 1000, "batch_size": 512, "learning_rate": 1e-3, "weight_decay": 1e-5}
"""Published settings of digits, the defaults of the command line."""
_PUBLISHED_PHOTOS = {**_DEFAULTS, "n_epochs": 10, "batch_size": 32, "learning_rate": 1e-4}
"""Published settings of photos."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; every option can be spelled with one dash or two."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a model with the published command line (ohmq train is the modern spelling). Unlike the "
        "published training, OHM models begin with 20 epochs of a warm start (-initialisation scalar), in addition to "
        "-n_epochs; -published trains exactly as published.",
        epilog="Example: python train.py --mnist -batch_size 512 -n_epochs 1000 -learning_rate 1e-3 "
        "-lambda_rd 0.95 0.999 -encoder_channels 8192 -bottleneck_channels 0 32 -no_quant_symbols 256",
        allow_abbrev=False,
    )

    def add(name: str, **settings: Any) -> None:
        parser.add_argument(f"-{name}", f"--{name}", dest=name, **settings)

    add(
        "published",
        action="store_true",
        help="exactly the published training: random start, static prior, no refinement, constant learning rate, no warm "
        "start; on photos the defaults become 10 epochs, batches of 32 and a rate of 1e-4, and with -no_quant a rate of 1e-4",
    )
    add("n_epochs", type=int, help="passes over the training images, after the warm start (default: 1000)")
    add("batch_size", type=int, help="images of a step, over all devices (default: 512)")
    add("learning_rate", type=float, help="Adam's learning rate (default: 1e-3)")
    add("weight_decay", type=float, help="Adam's L2 penalty (default: 1e-5)")
    add("encoder_channels", type=int, help="C_max * S for OHM, C_max otherwise; checked")
    add("bottleneck_channels", type=int, nargs="+", default=[0, 16], help="c_max, or c_min c_max (default: 0 16)")
    add("no_quant_symbols", type=int, default=256, help="S, alphabet size (default: 256)")
    add(
        "lambda_rd",
        type=float,
        nargs="+",
        default=[0.95, 0.999],
        help="lambda, or lambda_min lambda_max (default: 0.95 0.999)",
    )
    add("no_quant", action="store_true", help="no quantizer: distortion only")
    add("integer_quant", action="store_true", help="integer rounding instead of OHM")
    add(
        "mnist",
        action="store_true",
        help="train on MNIST; else on the photos below DATA_BASE_PATH/openimages or photos",
    )
    add(
        "data_base_path",
        help="where the data are; else $OHMQ_DATA or ./data, for MNIST also a download; photos also by URL, or in tar or "
        "Parquet shards, as ohmq train takes them",
    )
    add("image_column", help="column of photos in Parquet shards (default: the only one that may be)")
    add("data_cache", type=Path, help="folder for copies of shards (default: in the user's cache)")
    add("data_cache_bytes", type=int, default=2**35, help="limit on these copies (default: 34359738368)")
    add("description", default="", help="free text, kept in the checkpoint; names the default output folder")
    add("output_dir", type=Path, help="logs and checkpoints (default: runs/DESCRIPTION, runs/mnist or runs/openimages)")
    add("test_sets", nargs="*", default=[], help="image folders to evaluate after training")
    add("test_limit", type=int, help="evaluate on the first images of each test set only (default: all)")
    add("crop_size", type=int, default=256, help="of photos, in pixels; MNIST is not cropped (default: 256)")
    add("num_train_samples", type=int, help="training images to use (default: all)")
    add("num_val_samples", type=int, help="validation images to use (default: all)")
    add(
        "num_workers",
        type=int,
        help="processes that read photos for each device, 0 for a thread; MNIST stays in memory (default: on GPUs up to 8 "
        "each, else a thread)",
    )
    add("devices", default="auto", help="number of devices, a list of GPUs such as 0,1, or auto (default)")
    add("num_nodes", type=int, default=1, help="machines that train together (default: 1)")
    add("cpu", action="store_true", help="never use an accelerator")
    add("ckpt", type=Path, help="resume from this checkpoint")
    add("seed", type=int, default=0, help="seed of all random numbers (default: 0)")
    add("log_interval", type=int, default=50, help="steps between log rows (default: 50)")
    add(
        "initialisation",
        choices=["published", "scalar"],
        help="published: random weights; scalar: a warm start before -n_epochs (default; OHM only)",
    )
    add("warm_start_epochs", type=int, help="passes of the warm start, in addition to -n_epochs (default: 20)")
    return parser


def options_from(arguments: argparse.Namespace) -> Any:
    """Translate the parsed command line into `TrainOptions`.

    Args:
        arguments: parsed by the parser of `build_parser`.

    Raises:
        ConfigError: values that do not fit together; the message gives the right value.
    """
    from ohmq.datasets.folders import data_place
    from ohmq.models import MnistConfig, OpenImagesConfig
    from ohmq.training.options import TrainOptions

    if arguments.no_quant and arguments.integer_quant:
        raise ConfigError("-no_quant and -integer_quant exclude each other")
    channels, lambdas = arguments.bottleneck_channels, arguments.lambda_rd
    if len(channels) not in (1, 2):
        raise ConfigError(f"-bottleneck_channels takes one or two values, not {len(channels)}")
    if len(lambdas) not in (1, 2):
        raise ConfigError(f"-lambda_rd takes one or two values, not {len(lambdas)}")
    _check_published(arguments)
    settings = _published_settings(arguments) if arguments.published else _DEFAULTS
    training = {name: _given(getattr(arguments, name), default) for name, default in settings.items()}
    quantizer = "none" if arguments.no_quant else "integer" if arguments.integer_quant else "ohm"
    config = (MnistConfig if arguments.mnist else OpenImagesConfig)(
        quantizer=quantizer,  # type: ignore[arg-type]
        channels_min=channels[0],
        channels_max=channels[-1],
        num_symbols=arguments.no_quant_symbols,
    )
    encoder_channels = config.channels_max * (config.num_symbols if quantizer == "ohm" else 1)
    if arguments.encoder_channels not in (None, encoder_channels):
        product = f" = {config.channels_max} channels * {config.num_symbols} symbols" if quantizer == "ohm" else ""
        raise ConfigError(
            f"-encoder_channels is {arguments.encoder_channels}; this model needs {encoder_channels}{product}"
        )
    output_dir = arguments.output_dir or Path("runs") / (
        arguments.description.replace("/", "_") or ("mnist" if arguments.mnist else "openimages")
    )
    return TrainOptions(
        model=config,
        lambdas=(lambdas[0], lambdas[-1]),
        epochs=training["n_epochs"],
        batch_size=training["batch_size"],
        learning_rate=training["learning_rate"],
        weight_decay=training["weight_decay"],
        initialisation="published" if arguments.published else _given(arguments.initialisation, "scalar"),
        warm_start_epochs=_given(arguments.warm_start_epochs, 20),
        data_base_path=data_place(arguments.data_base_path) if arguments.data_base_path else None,
        data_cache=arguments.data_cache,
        data_cache_bytes=arguments.data_cache_bytes,
        image_column=arguments.image_column,
        crop_size=arguments.crop_size,
        num_train_samples=arguments.num_train_samples,
        num_val_samples=arguments.num_val_samples,
        log_interval=arguments.log_interval,
        num_workers=arguments.num_workers,
        devices=int(arguments.devices) if arguments.devices.isdecimal() else arguments.devices,
        num_nodes=arguments.num_nodes,
        cpu=arguments.cpu,
        seed=arguments.seed,
        output_dir=output_dir,
        description=arguments.description,
        test_sets=tuple(arguments.test_sets),
    )


def _published_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the published run of these data and this quantizer."""
    if not arguments.mnist:
        return _PUBLISHED_PHOTOS
    return {**_DEFAULTS, "learning_rate": 1e-4} if arguments.no_quant else _DEFAULTS


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _check_published(arguments: argparse.Namespace) -> None:
    """Refuse options of a warm start beside -published."""
    if not arguments.published:
        return
    if arguments.initialisation not in (None, "published"):
        raise ConfigError(
            f"-published starts from random weights, and -initialisation {arguments.initialisation} does not: leave one out"
        )
    if arguments.warm_start_epochs:
        raise ConfigError("-published has no warm start: leave -warm_start_epochs out")


def _tell_training(arguments: argparse.Namespace, options: Any) -> None:
    """Log how the training differs from the published one."""
    if options.warm_starts:
        log.info(
            "%d epochs of a warm start (-initialisation scalar) come before the %d of the published training; "
            "-published leaves them out",
            options.warm_start_epochs,
            options.epochs,
        )
    elif options.initialisation != "published" and arguments.mnist:
        log.info("weights start variance-preserving; -published starts from PyTorch's random weights")
    if not arguments.published:
        return
    published = _published_settings(arguments)
    changed = [
        f"-{name} {getattr(arguments, name)} (published: {value})"
        for name, value in published.items()
        if getattr(arguments, name) not in (None, value)
    ]
    log.info(
        "published training: random start, static prior, constant rate%s",
        f"; but {', '.join(changed)}" if changed else "",
    )


def run(argv: list[str] | None = None) -> int:
    """Train, then evaluate on the test sets.

    Args:
        argv: arguments of the command line; None: those of the process.

    Returns:
        The exit code.

    Raises:
        OhmqError: options, data or a checkpoint that cannot be used.
    """
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from ohmq.cli.test_sets import evaluate_test_sets, read_test_sets
    from ohmq.training.fit import is_first_process
    from ohmq.training.resume import resume_point
    from ohmq.training.run import train

    options = options_from(arguments)
    resume = resume_point(options.output_dir, arguments.ckpt, False)
    test_sets = read_test_sets(options, arguments.test_limit)
    _tell_training(arguments, options)
    checkpoint = train(options, resume=resume)
    if is_first_process():
        print(f"last checkpoint: {checkpoint}")
        evaluate_test_sets(options, checkpoint, test_sets)
    return 0
