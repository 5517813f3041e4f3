"""The published command line of training, translated into options of `ohmq.training`."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ohmq.errors import ConfigError

__all__ = ["build_parser", "options_from", "run"]


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; every option can be spelled with one dash or two."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a model with the published command line (ohmq train is the modern spelling).",
        epilog="Example: python train.py --mnist -batch_size 512 -n_epochs 1000 -learning_rate 1e-3 "
        "-lambda_rd 0.95 0.999 -encoder_channels 8192 -bottleneck_channels 0 32 -no_quant_symbols 256",
        allow_abbrev=False,
    )

    def add(name: str, **settings: Any) -> None:
        parser.add_argument(f"-{name}", f"--{name}", dest=name, **settings)

    add("n_epochs", type=int, default=1000, help="passes over the training images")
    add("batch_size", type=int, default=512)
    add("learning_rate", type=float, default=1e-3)
    add("weight_decay", type=float, default=1e-5)
    add("encoder_channels", type=int, help="C_max * S for OHM, C_max otherwise; checked")
    add("bottleneck_channels", type=int, nargs="+", default=[0, 16], help="c_max, or c_min c_max")
    add("no_quant_symbols", type=int, default=256, help="S, alphabet size")
    add("lambda_rd", type=float, nargs="+", default=[0.95, 0.999], help="lambda, or lambda_min lambda_max")
    add("no_quant", action="store_true", help="no quantizer: distortion only")
    add("integer_quant", action="store_true", help="integer rounding instead of OHM")
    add("mnist", action="store_true", help="train on MNIST; else on the photos below DATA_BASE_PATH/openimages")
    add("data_base_path", type=Path, help="where the data are; else $OHMQ_DATA, ./data, or a download")
    add("description", default="", help="free text, kept in the checkpoint; names the default output folder")
    add("output_dir", type=Path, help="logs and checkpoints (default: runs/DESCRIPTION or runs/mnist)")
    add("test_sets", nargs="*", default=[], help="image folders to evaluate after training")
    add("crop_size", type=int, default=256, help="of photos; MNIST is not cropped")
    add("num_train_samples", type=int)
    add("num_val_samples", type=int)
    add("num_workers", type=int, default=0, help="processes that load photos; MNIST stays in memory")
    add("devices", default="auto", help="as Lightning takes it: a number, or auto")
    add("num_nodes", type=int, default=1, help="machines that train together")
    add("cpu", action="store_true", help="never use an accelerator")
    add("ckpt", type=Path, help="resume from this checkpoint")
    add("seed", type=int, default=0)
    add("log_interval", type=int, default=50, help="steps between log rows")
    add("initialisation", choices=["published", "scalar"], default="scalar", help="scalar: the warm start (default)")
    add("warm_start_epochs", type=int, default=20, help="passes of the warm start")
    return parser


def options_from(arguments: argparse.Namespace) -> Any:
    """Translate the parsed command line into `TrainOptions`.

    Args:
        arguments: parsed by the parser of `build_parser`.

    Raises:
        ConfigError: values that do not fit together; the message gives the right value.
    """
    from ohmq.models import MnistConfig, OpenImagesConfig
    from ohmq.training.options import TrainOptions

    if arguments.no_quant and arguments.integer_quant:
        raise ConfigError("-no_quant and -integer_quant exclude each other")
    channels, lambdas = arguments.bottleneck_channels, arguments.lambda_rd
    if len(channels) not in (1, 2):
        raise ConfigError(f"-bottleneck_channels takes one or two values, not {len(channels)}")
    if len(lambdas) not in (1, 2):
        raise ConfigError(f"-lambda_rd takes one or two values, not {len(lambdas)}")
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
        epochs=arguments.n_epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        initialisation=arguments.initialisation,
        warm_start_epochs=arguments.warm_start_epochs,
        data_base_path=arguments.data_base_path,
        crop_size=arguments.crop_size,
        num_train_samples=arguments.num_train_samples,
        num_val_samples=arguments.num_val_samples,
        log_interval=arguments.log_interval,
        num_workers=arguments.num_workers,
        devices=int(arguments.devices) if arguments.devices.isdigit() else arguments.devices,
        num_nodes=arguments.num_nodes,
        cpu=arguments.cpu,
        seed=arguments.seed,
        output_dir=output_dir,
        description=arguments.description,
        test_sets=tuple(arguments.test_sets),
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
    from ohmq.cli.output import echo_error, print_rate_points, progress_bar
    from ohmq.datasets.mnist import resolve_test_set
    from ohmq.evaluation.report import EvaluationOptions, evaluate_set, read_images, write_evaluation
    from ohmq.model_files.resolve import resolve_model
    from ohmq.training.fit import is_first_process
    from ohmq.training.resume import resume_point
    from ohmq.training.run import train

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = options_from(arguments)
    # Read first, so that test images that cannot be read fail before the training.
    test_sets: list[tuple[str, Sequence[tuple[str, Any]]]] = []
    for path in options.test_sets:
        if arguments.mnist:
            digits = resolve_test_set(path, options.data_base_path)
            test_sets.append((digits.name, [(f"{number:05d}", image) for number, image in enumerate(digits.images)]))
        else:
            photos, _ = read_images([path], grey=False, report=echo_error)
            test_sets.append((Path(path).resolve().name, photos))
    checkpoint = train(options, resume=resume_point(options.output_dir, arguments.ckpt, False))
    if not is_first_process():
        return 0
    print(f"last checkpoint: {checkpoint}")
    if options.model.quantizer == "none":
        return 0
    frozen = resolve_model(checkpoint)
    for number, (name, images) in enumerate(test_sets):
        repeated = name in [earlier for earlier, _ in test_sets[:number]]
        folder = options.output_dir / (f"test_{name}_{number}" if repeated else f"test_{name}")
        with progress_bar(len(images), "evaluate") as update:
            evaluation = evaluate_set(frozen, images, EvaluationOptions(), data=name, progress=update)
        write_evaluation(evaluation, folder)
        print_rate_points(evaluation.result.points, evaluation.result.data)
    return 0
