"""The published compression command line, and what it shares with ``ohmq evaluate``."""

import argparse
from pathlib import Path

from ohmq.codec import Codec
from ohmq.errors import ConfigError
from ohmq.evaluation.report import evaluate_set, read_images
from ohmq.imaging.files import save_image
from ohmq.model_files.resolve import resolve_model
from ohmq.runtime.latents import Symbols
from ohmq.utils.atomic_write import write_atomically

__all__ = ["build_parser", "run"]


def build_parser() -> argparse.ArgumentParser:
    """The published options."""
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
    parser.add_argument("--cpu", action="store_true", help="accepted; coding runs on the CPU")
    return parser


def run(argv: list[str] | None = None) -> int:
    """Evaluate; with --do_save also write files and pictures."""
    arguments = build_parser().parse_args(argv)
    frozen = resolve_model(arguments.checkpoint)
    codec = Codec(frozen)
    images, failed = read_images([arguments.image_path], grey=codec.grey)
    if arguments.do_save:
        taken: dict[Path, str] = {}
        for name, _ in images:
            rival = taken.setdefault(Path(name).with_suffix(""), name)
            if rival != name:
                raise ConfigError(f"{rival} and {name} would be saved under one name; rename one of them")
    result = evaluate_set(
        frozen,
        images,
        arguments.channel_fractions,
        arguments.output_dir,
        data=arguments.image_path,
        plot=arguments.do_plot,
    )
    if arguments.do_save:
        for point in result.points:
            for name, pixels in images:
                target = arguments.output_dir / f"fraction_{point.fraction:.4f}" / name
                if point.channels:
                    data = codec.compress(pixels, channels=point.channels, layers=1, max_pixels=pixels.size)
                    write_atomically(target.with_suffix(".ohm"), data, force=True)
                    picture = codec.decompress(data)
                else:
                    nothing = Symbols(codec.windowed.symbols_batch(pixels[None])[0], pixels.shape[1], pixels.shape[0])
                    picture = codec.synthesise(nothing, 0)
                save_image(target.with_suffix(".png"), picture, force=True)
    return 1 if failed else 0
