"""Evaluate a model on a set of images: read them, measure rates and quality, write the results."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.codec import Codec
from ohmq.errors import ConfigError, OhmqError
from ohmq.evaluation.evaluate import evaluate_images, evaluate_unquantized, rate_points
from ohmq.evaluation.plots import plot_rate_distortion
from ohmq.evaluation.results import Curve, ImageRow, ResultFile
from ohmq.evaluation.tables import write_fraction_csv, write_rate_distortion_csv
from ohmq.imaging.convert import prepare_image
from ohmq.imaging.files import open_image
from ohmq.imaging.listing import IMAGE_EXTENSIONS, find_files
from ohmq.model_files.frozen_model import FrozenModel
from ohmq.utils.provenance import command_line
from ohmq.utils.streams import is_stream, read_stream

__all__ = [
    "Evaluation",
    "EvaluationOptions",
    "Images",
    "channel_counts",
    "evaluate_set",
    "read_images",
    "write_evaluation",
]

Images = Sequence[tuple[str, NDArray[np.uint8]]]
"""Names and pixels, (H, W) or (H, W, 3), as the model codes them."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Rates to measure, and how the files are made.

    Attributes:
        fractions: fractions of the adaptive range of channels, 0 to 1; -1: every number of channels.
        channels: numbers of channels in place of fractions, also fewer than the model's minimum.
        fixed_rate: whether to measure fixed-rate files.
        cut: whether to code each image once, with all layers, and to cut that file.
        effort: refinement passes of the encoder, 0 to 2; None: the model's default.
    """

    fractions: Sequence[float] = (-1,)
    channels: Sequence[int] = ()
    fixed_rate: bool = False
    cut: bool = False
    effort: int | None = None


class Evaluation(NamedTuple):
    """Results of a model on a set of images.

    Attributes:
        result: means over the images at each rate, with all that is needed to repeat them.
        rows: for each number of channels, a row an image; empty for a model without a quantizer.
        title: the set and its number of images, for plots.
    """

    result: ResultFile
    rows: Mapping[int, Sequence[ImageRow]]
    title: str


def evaluate_set(
    frozen: FrozenModel,
    images: Images,
    options: EvaluationOptions,
    *,
    data: str,
    extra: Mapping[str, Any] | None = None,
    progress: Callable[[int], Any] = lambda count: None,
) -> Evaluation:
    """Code and decode a set of images with a model.

    Args:
        frozen: the model.
        images: names and pixels.
        options: rates and kind of files.
        data: name of the set.
        extra: further content of the result file, as JSON; default: none.
        progress: function called with the number of images done since its last call.

    Returns:
        Results for each rate and each image; nothing is written or printed.

    Raises:
        ConfigError: fractions, channels or an effort that the model does not have.
    """
    rows: Mapping[int, Sequence[ImageRow]] = {}
    settings: dict[str, Any] = {}
    if frozen.config.quantizer == "none":
        if options.effort:
            raise ConfigError(
                f"{frozen.name} has no quantizer, so its encoder has no refinement passes; leave the effort out"
            )
        points = [evaluate_unquantized(frozen.model, images, progress=progress)]
    else:
        codec = Codec(frozen)
        if codec.config.supports_rdoq:
            settings["effort"] = codec.effort_for(options.effort, options.fixed_rate)
        counts = sorted(set(options.channels)) or channel_counts(codec, options.fractions)
        if counts[-1] > codec.num_channels:
            raise ConfigError(f"channels is {counts[-1]}; {codec.name} has {codec.num_channels}")
        rows = evaluate_images(
            codec,
            images,
            counts,
            progress=progress,
            fixed_rate=options.fixed_rate,
            cut=options.cut,
            effort=options.effort,
        )
        points = rate_points(codec, rows)
    title = f"{data}, {len(images)} images"
    result = ResultFile(
        command=command_line(),
        model=frozen.name,
        model_id=frozen.model_id.hex(),
        data=title,
        points=tuple(points),
        extra={
            "training": frozen.provenance,
            "transforms_id": frozen.transforms_id.hex(),
            **settings,
            **(extra or {}),
        },
    )
    return Evaluation(result, rows, title)


def write_evaluation(
    evaluation: Evaluation,
    output_dir: Path,
    *,
    plot: bool = True,
    per_image: bool = True,
    published: Sequence[Curve] = (),
) -> None:
    """Write an evaluation into a folder; earlier results are replaced.

    The files are fraction_F.csv for each rate (a row an image and one "avg"), rate_distortion.csv, rate_distortion.png
    and, when all others are there, rate_distortion.json.

    Args:
        evaluation: results of `evaluate_set`.
        output_dir: the folder; it is made if it is not there.
        plot: whether to draw rate_distortion.png; a model without a quantizer has no curve to draw.
        per_image: whether to write fraction_F.csv.
        published: curves to draw dotted beside the model's.
    """
    points = evaluation.result.points
    if per_image and evaluation.rows:
        for point in points:
            path = output_dir / f"fraction_{point.fraction:.4f}.csv"
            write_fraction_csv(path, evaluation.rows[point.channels], force=True)
    write_rate_distortion_csv(output_dir / "rate_distortion.csv", points, force=True)
    if plot and evaluation.rows:
        dotted = [dataclasses.replace(curve, name=f"published {curve.name}") for curve in published]
        plot_rate_distortion(
            [evaluation.result.curve(), *dotted],
            output_dir / "rate_distortion.png",
            title=evaluation.title,
            dotted=[curve.name for curve in dotted],
            force=True,
        )
    evaluation.result.write(output_dir / "rate_distortion.json", force=True)


def channel_counts(codec: Codec, fractions: Sequence[float]) -> list[int]:
    """Convert fractions of the adaptive range to numbers of channels.

    Args:
        codec: the model.
        fractions: 0 to 1; -1: all cut points, and the smallest number.

    Returns:
        Numbers of channels, ascending, each once.

    Raises:
        ConfigError: a fraction outside [0, 1] that is not -1.
    """
    counts: set[int] = set()
    for fraction in fractions:
        if fraction == -1:
            low = codec.config.channels_min
            counts |= {n for n in (low, *codec.cut_points) if n >= max(low, 1)}
        elif 0 <= fraction <= 1:
            counts.add(codec.config.channels_for(fraction))
        else:
            raise ConfigError(f"channel fraction {fraction}: it must lie in 0 to 1, or be -1 for all")
    return sorted(counts)


def read_images(
    inputs: Sequence[str], *, grey: bool, report: Callable[[str], None]
) -> tuple[list[tuple[str, NDArray[np.uint8]]], int]:
    """Read images as the model codes them.

    Args:
        inputs: files, folders (searched recursively), glob patterns and streams; ``-`` is standard input.
        grey: whether the model codes grey images.
        report: function called with a line of text for each file that is skipped and each conversion that loses something.

    Returns:
        Names and pixels of the images, and the number of files that could not be read.

    Raises:
        ConfigError: no file found, or none that can be read.
    """
    images, failed = [], 0
    for file in find_files(inputs, IMAGE_EXTENSIONS):
        try:
            if file.error:
                raise ConfigError(f"{file.path}: {file.error}")
            loaded = open_image(file.path, data=read_stream(file.path) if is_stream(file.path) else None)
            prepared = prepare_image(loaded.image, grey=grey)
        except OhmqError as error:
            report(f"skipped: {error}")
            failed += 1
            continue
        for note in (*loaded.notes, *prepared.notes):
            report(f"{file.path}: {note}")
        images.append((str(file.relative), np.asarray(prepared.image)))
    if not images:
        raise ConfigError(f"no readable image in {', '.join(inputs)}")
    return images, failed
