"""The published command line ``compress.py``."""

import argparse
import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ohmq.cli.output import echo_error, echo_skipped, print_rate_points, progress_bar
from ohmq.errors import ConfigError
from ohmq.evaluation.evaluate import CodedImage, OnCoded, channel_fraction, ignore_coded
from ohmq.evaluation.report import EvaluationOptions, ImageReader, evaluate_set, write_evaluation
from ohmq.imaging.files import save_image
from ohmq.model_files.resolve import resolve_model
from ohmq.models.config import ModelConfig
from ohmq.utils.atomic_write import write_atomically

__all__ = ["build_parser", "run"]

DEFAULT_FOLDER = Path("inference_results")
"""Folder that gets a folder of each run with --do_save or --do_plot and without --output_dir."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the published options."""
    parser = argparse.ArgumentParser(
        prog="compress.py",
        description="Evaluate a model on images with the published command line.",
        epilog="Example: python compress.py --image_path digits/ --checkpoint mnist-ohm --output_dir results "
        "--channel_fractions 0.25 0.5 1.0 --do_save --do_plot",
        allow_abbrev=False,
    )
    parser.add_argument("--image_path", required=True, help="image, or folder searched recursively")
    parser.add_argument("--checkpoint", required=True, help="checkpoint, model file or name of a shipped model")
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="folder of tables, plot and files, replaced if they are there; default: the table is printed only, and with "
        "--do_save or --do_plot a new folder inference_results/CHECKPOINT is made",
    )
    parser.add_argument("--channel_fractions", type=float, nargs="+", default=[-1.0], help="-1 (default): all")
    parser.add_argument("--limit", type=_count, help="code at most this many images (default: all)")
    parser.add_argument("--do_save", action="store_true", help="write .ohm files and reconstructions")
    parser.add_argument("--do_plot", action="store_true", help="draw rate_distortion.png, PSNR over payload")
    parser.add_argument("--batch_size", type=int, default=1, help="accepted; images of one size are batched anyway")
    device = parser.add_mutually_exclusive_group()
    device.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto (default): an accelerator if there is one"
    )
    device.add_argument("--cpu", dest="device", action="store_const", const="cpu", help="the same as --device cpu")
    return parser


def _count(text: str) -> int:
    """Read a positive whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def run(argv: list[str] | None = None) -> int:
    """Evaluate a model on images; with --do_save also write .ohm files and decoded images.

    Images are read, coded and saved one after the other.

    Args:
        argv: arguments without the program's name; default: those of this process.

    Returns:
        The exit code: 1 if a file could not be read, else 0.
    """
    arguments = build_parser().parse_args(argv)
    frozen = resolve_model(arguments.checkpoint)
    grey = frozen.config.image_channels == 1
    images = ImageReader([arguments.image_path], grey=grey, report=echo_error, limit=arguments.limit)
    output_dir: Path | None = arguments.output_dir
    if output_dir is None and (arguments.do_save or arguments.do_plot):
        output_dir = _new_folder(Path(arguments.checkpoint).stem)
    on_coded: OnCoded = ignore_coded
    if arguments.do_save and output_dir is not None:
        on_coded = functools.partial(_save, frozen.config, output_dir, _keeps_extensions(images.names))
    options = EvaluationOptions(fractions=arguments.channel_fractions, device=arguments.device)
    with progress_bar(len(images), "evaluate") as update:
        evaluation = evaluate_set(
            frozen, images, options, data=arguments.image_path, progress=update, on_coded=on_coded
        )
    if output_dir is not None:
        write_evaluation(evaluation, output_dir, plot=arguments.do_plot)
    print_rate_points(evaluation.result.points, evaluation.result.data)
    if output_dir is not None:
        print(f"results: {output_dir}")
    echo_skipped(images.failed)
    return 1 if images.failed else 0


def _new_folder(name: str) -> Path:
    """Name a folder in `DEFAULT_FOLDER` that does not exist yet."""
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(folder for folder in (DEFAULT_FOLDER / name for name in names) if not folder.exists())


def _keeps_extensions(names: Sequence[str]) -> bool:
    """Tell whether saved files keep the extensions of their images, as two names differ in nothing else.

    Raises:
        ConfigError: two images have one name, as a pattern can match them in several folders.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError(
                f"{count} images named {name} would be saved under one name; give a folder that holds them"
            )
    return len({Path(name).with_suffix("") for name in names}) < len(names)


def _save(config: ModelConfig, output_dir: Path, keep_extensions: bool, coded: CodedImage) -> None:
    """Write a measured file and its decoded image; there is no file for no channels or without a quantizer."""
    folder = output_dir / f"fraction_{channel_fraction(config, coded.channels):.4f}"
    name = coded.name if keep_extensions else str(Path(coded.name).with_suffix(""))
    if coded.data:
        write_atomically(folder / f"{name}.ohm", coded.data, force=True)
    save_image(folder / f"{name}.png", Image.fromarray(coded.pixels), force=True)
