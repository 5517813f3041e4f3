"""Evaluate a model on a set of images: read them, measure rates and quality, write the results."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ohmq.codec import Codec
from ohmq.encoder.options import EncodeOptions
from ohmq.errors import ConfigError, OhmqError
from ohmq.evaluation.evaluate import (
    Images,
    NamedPixels,
    OnCoded,
    evaluate_images,
    evaluate_unquantized,
    ignore_coded,
    rate_points,
)
from ohmq.evaluation.plots import plot_rate_distortion
from ohmq.evaluation.qualities import Metric
from ohmq.evaluation.results import Curve, ImageRow, ResultFile
from ohmq.evaluation.tables import write_fraction_csv, write_rate_distortion_csv
from ohmq.imaging.convert import DEFAULT_MAX_PIXELS, prepare_image
from ohmq.imaging.files import open_image
from ohmq.imaging.listing import IMAGE_EXTENSIONS, ListedFile, find_files
from ohmq.model_files.frozen_model import FrozenModel
from ohmq.utils.counting import counted
from ohmq.utils.provenance import command_line
from ohmq.utils.streams import is_stream, read_stream

__all__ = [
    "NO_RATE",
    "Evaluation",
    "EvaluationOptions",
    "ImageFiles",
    "ImageReader",
    "channel_counts",
    "evaluate_set",
    "read_images",
    "write_evaluation",
]

NO_RATE = "no quantizer, no rate"
"""Value of "rate" in the result file of a model without a quantizer."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Rates to measure, and how the files are made.

    Attributes:
        fractions: fractions of the adaptive range of channels, 0 to 1; -1: every number of channels.
        channels: numbers of channels in place of fractions, also fewer than the model's minimum.
        fixed_rate: whether to measure fixed-rate files.
        cut: whether to code each image once, with all layers, and to cut that file.
        effort: refinement passes of the encoder, 0 to 2; None: the model's default.
        tune: tuning of the encoder, "psnr" or "visual"; None: the model's default.
        device: where the transforms run, as for `ohmq.Codec`.
        decoder: decoder of the model, as for `ohmq.Codec`.
        metrics: metrics to measure beside PSNR; None: `ohmq.evaluation.qualities.default_metrics`.
    """

    fractions: Sequence[float] = (-1,)
    channels: Sequence[int] = ()
    fixed_rate: bool = False
    cut: bool = False
    effort: int | None = None
    tune: Literal["psnr", "visual"] | None = None
    device: str = "cpu"
    decoder: str | None = None
    metrics: Sequence[Metric] | None = None


class Evaluation(NamedTuple):
    """Results of a model on a set of images.

    Attributes:
        result: means over the images at each rate, with all that is needed to repeat them.
        rows: for each number of channels, a row an image.
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
    on_coded: OnCoded = ignore_coded,
) -> Evaluation:
    """Code and decode a set of images with a model.

    A model without a quantizer has no files: its only point has PSNR and SSIM, its rates are NaN, and the result file
    says so ("rate" is `NO_RATE`).

    Args:
        frozen: the model.
        images: names and pixels; they are read as they are coded, so that a generator never holds them all in memory.
        options: rates and kind of files.
        data: name of the set.
        extra: further content of the result file, as JSON; default: none.
        progress: function called with the number of images done since its last call.
        on_coded: function called with each measured file and its decoded image.

    Returns:
        Results for each rate and each image; nothing is written or printed.

    Raises:
        ConfigError: no images; or fractions, channels, an effort or kinds of files that the model does not have.
    """
    rows: Mapping[int, Sequence[ImageRow]]
    settings: dict[str, Any] = {}
    if frozen.config.quantizer == "none":
        _check_unquantized(frozen.name, options)
        settings["rate"] = NO_RATE
        rows = evaluate_unquantized(
            frozen.model,
            images,
            progress=progress,
            on_coded=on_coded,
            metrics=options.metrics,
            device=options.device,
        )
    else:
        codec = Codec(frozen, device=options.device, decoder=options.decoder)
        if options.decoder is not None:
            settings["decoder"] = codec.decoder_name
        if codec.device != "cpu":
            settings["device"] = codec.device
        if codec.config.supports_rdoq:
            encode_options = EncodeOptions(effort=options.effort, tune=options.tune, fixed_rate=options.fixed_rate)
            settings["effort"] = encode_options.effort_for(codec.config, codec.name)
            settings["tune"] = encode_options.tune_for(codec.config, codec.name)
        counts = sorted(set(options.channels)) or channel_counts(codec, options.fractions)
        if counts[-1] > codec.num_channels:
            raise ConfigError(f"channels is {counts[-1]}; {codec.name} has {codec.num_channels}")
        rows = evaluate_images(
            codec,
            images,
            counts,
            progress=progress,
            on_coded=on_coded,
            metrics=options.metrics,
            fixed_rate=options.fixed_rate,
            cut=options.cut,
            effort=options.effort,
            tune=options.tune,
        )
    if not (count := len(next(iter(rows.values())))):
        raise ConfigError(f"no images to evaluate in {data}")
    title = f"{data}, {counted(count, 'image')}"
    result = ResultFile(
        command=command_line(),
        model=frozen.name,
        model_id=frozen.model_id.hex(),
        data=title,
        points=tuple(rate_points(frozen.config, rows)),
        extra={
            "training": frozen.provenance,
            "transforms_id": frozen.transforms_id.hex(),
            **settings,
            **(extra or {}),
        },
    )
    return Evaluation(result, rows, title)


def _check_unquantized(name: str, options: EvaluationOptions) -> None:
    """Refuse options that a model without a quantizer does not have; it has all channels at any fraction."""
    _check_fractions(options.fractions)
    given = {
        "refinement passes": bool(options.effort),
        "numbers of channels": bool(options.channels),
        "files to cut": options.cut,
        "fixed-rate files": options.fixed_rate,
    }
    if wrong := [what for what, is_given in given.items() if is_given]:
        raise ConfigError(f"{name} has no quantizer, so it has no {' and no '.join(wrong)}; leave the option out")


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
        plot: whether to draw rate_distortion.png, PSNR over the payload; a model without a quantizer has no curve to draw.
        per_image: whether to write fraction_F.csv.
        published: curves to draw dotted beside the model's.
    """
    points = evaluation.result.points
    if per_image:
        for point in points:
            path = output_dir / f"fraction_{point.fraction:.4f}.csv"
            write_fraction_csv(path, evaluation.rows[point.channels], force=True)
    write_rate_distortion_csv(output_dir / "rate_distortion.csv", points, force=True)
    if plot and evaluation.result.extra.get("rate") != NO_RATE:
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
    _check_fractions(fractions)
    for fraction in fractions:
        if fraction == -1:
            low = codec.config.channels_min
            counts |= {n for n in (low, *codec.cut_points) if n >= max(low, 1)}
        else:
            counts.add(codec.config.channels_for(fraction))
    return sorted(counts)


def _check_fractions(fractions: Sequence[float]) -> None:
    for fraction in fractions:
        if not (fraction == -1 or 0 <= fraction <= 1):
            raise ConfigError(f"channel fraction {fraction}: it must lie in 0 to 1, or be -1 for all")


class ImageReader:
    """Images of files as the model codes them, read one at a time each time they are iterated over.

    Args:
        inputs: files, folders (searched recursively), glob patterns and streams; ``-`` is standard input.
        grey: whether the model codes grey images.
        report: function called with a line of text for each file that is skipped and each conversion that loses something,
            once a file.
        limit: largest number of images; None: all.
        max_pixels: limit on width × height; larger images count as files that cannot be read.

    Attributes:
        names: names of all files, in order.
        failed: number of files that could not be read, of those that were tried.

    Raises:
        ConfigError: no file found; or, when iterated over, none that can be read.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        *,
        grey: bool,
        report: Callable[[str], None],
        limit: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        self._inputs, self._grey, self._report, self._limit = inputs, grey, report, limit
        self._max_pixels = max_pixels
        self._files = find_files(inputs, IMAGE_EXTENSIONS)
        self._is_read: dict[Path, bool] = {}
        self._streams: dict[Path, bytes] = {}  # a stream can be read once, images several times

    @property
    def names(self) -> list[str]:
        """Names of all files, in order."""
        return [str(file.relative) for file in self._files]

    @property
    def failed(self) -> int:
        """Number of files that could not be read, of those that were tried."""
        return list(self._is_read.values()).count(False)

    def __len__(self) -> int:
        """Return the largest number of images there can be: some of the files may not be readable."""
        return len(self._files[: self._limit])

    def __iter__(self) -> Iterator[NamedPixels]:
        return itertools.islice((image for _, image in self._readable()), self._limit)

    def readable(self) -> list[ListedFile]:
        """Read all images once, and list their files, without those that cannot be read.

        Raises:
            ConfigError: none can be read.
        """
        return [file for file, _ in itertools.islice(self._readable(), self._limit)]

    def read(self, file: ListedFile) -> NamedPixels:
        """Read one image.

        Args:
            file: file of the reader.

        Raises:
            OhmqError: it cannot be read.
        """
        report = self._report if file.path not in self._is_read else lambda line: None
        self._is_read[file.path] = False
        try:
            if file.error:
                raise ConfigError(f"{file.path}: {file.error}")
            if is_stream(file.path) and file.path not in self._streams:
                self._streams[file.path] = read_stream(file.path)
            loaded = open_image(file.path, max_pixels=self._max_pixels, data=self._streams.get(file.path))
            prepared = prepare_image(loaded.image, grey=self._grey)
        except OhmqError as error:
            report(f"skipped: {error}")
            raise
        self._is_read[file.path] = True
        for note in (*loaded.notes, *prepared.notes):
            report(f"{file.path}: {note}")
        return str(file.relative), np.asarray(prepared.image)

    def _readable(self) -> Iterator[tuple[ListedFile, NamedPixels]]:
        for file in self._files:
            try:
                image = self.read(file)
            except OhmqError:
                continue
            yield file, image
        if not any(self._is_read.values()):
            raise ConfigError(f"no readable image in {', '.join(self._inputs)}")


class ImageFiles(Sequence[NamedPixels]):
    """Images of files as a sequence: each is read when it is asked for, so that only one is in memory.

    All are read once at first, so that those that cannot be read are left out.

    Args:
        reader: reader of the files.

    Raises:
        ConfigError: none can be read.
    """

    def __init__(self, reader: ImageReader) -> None:
        self._reader, self._files = reader, reader.readable()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self._reader.read(file) for file in self._files[number]]
        return self._reader.read(self._files[number])


def read_images(inputs: Sequence[str], *, grey: bool, report: Callable[[str], None]) -> tuple[list[NamedPixels], int]:
    """Read all images as the model codes them; `ImageReader` reads them one at a time.

    Args:
        inputs: files, folders (searched recursively), glob patterns and streams; ``-`` is standard input.
        grey: whether the model codes grey images.
        report: function called with a line of text for each file that is skipped and each conversion that loses something.

    Returns:
        Names and pixels of the images, and the number of files that could not be read.

    Raises:
        ConfigError: no file found, or none that can be read.
    """
    reader = ImageReader(inputs, grey=grey, report=report)
    return list(reader), reader.failed
