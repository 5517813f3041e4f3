"""The published command line ``compress.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohmq.cli.output import echo_error, print_rate_points, progress_bar
from ohmq.codec import Codec
from ohmq.errors import ConfigError
from ohmq.evaluation.report import EvaluationOptions, evaluate_set, read_images, write_evaluation
from ohmq.imaging.files import save_image
from ohmq.model_files.resolve import resolve_model
from ohmq.runtime.latents import Symbols
from ohmq.utils.atomic_write import write_atomically

__all__ = ["build_parser", "run"]


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
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--channel_fractions", type=float, nargs="+", default=[-1.0], help="-1: all")
    parser.add_argument("--do_save", action="store_true", help="write .ohm files and reconstructions")
    parser.add_argument("--do_plot", action="store_true", help="draw rate_distortion.png")
    parser.add_argument("--batch_size", type=int, default=1, help="accepted; images of one size are batched anyway")
    device = parser.add_mutually_exclusive_group()
    device.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto (default): an accelerator if there is one"
    )
    device.add_argument("--cpu", dest="device", action="store_const", const="cpu", help="the same as --device cpu")
    return parser


def run(argv: list[str] | None = None) -> int:
    """Evaluate a model on images; with --do_save also write .ohm files and decoded images.

    Args:
        argv: arguments without the program's name; default: those of this process.

    Returns:
        The exit code: 1 if a file could not be read, else 0.
    """
    arguments = build_parser().parse_args(argv)
    frozen = resolve_model(arguments.checkpoint)
    codec = Codec(frozen, device=arguments.device)
    images, failed = read_images([arguments.image_path], grey=codec.grey, report=echo_error)
    if arguments.do_save:
        _check_names([name for name, _ in images])
    options = EvaluationOptions(fractions=arguments.channel_fractions, device=codec.device)
    with progress_bar(len(images), "evaluate") as update:
        evaluation = evaluate_set(frozen, images, options, data=arguments.image_path, progress=update)
    write_evaluation(evaluation, arguments.output_dir, plot=arguments.do_plot)
    print_rate_points(evaluation.result.points)
    if arguments.do_save:
        for point in evaluation.result.points:
            folder = arguments.output_dir / f"fraction_{point.fraction:.4f}"
            for name, pixels in images:
                _save(codec, pixels, point.channels, folder / name)
    return 1 if failed else 0


def _check_names(names: Sequence[str]) -> None:
    """Refuse names that differ in their extensions only: their files would have the same name."""
    first_names: dict[Path, str] = {}
    for name in names:
        rival = first_names.setdefault(Path(name).with_suffix(""), name)
        if rival != name:
            raise ConfigError(f"{rival} and {name} would be saved under one name; rename one of them")


def _save(codec: Codec, pixels: NDArray[np.uint8], channels: int, target: Path) -> None:
    """Write the .ohm file and the decoded image beside it; no file for no channels."""
    if channels:
        data = codec.compress(pixels, channels=channels, layers=1, max_pixels=pixels.size)
        write_atomically(target.with_suffix(".ohm"), data, force=True)
        image = codec.decompress(data)
    else:
        symbols = Symbols(codec.windowed.symbols_batch(pixels[None])[0], pixels.shape[1], pixels.shape[0])
        image = codec.synthesise(symbols, 0)
    save_image(target.with_suffix(".png"), image, force=True)
