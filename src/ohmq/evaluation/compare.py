"""Measure a model beside classic codecs on the same images: rates of whole files, distortion, time.

Every codec codes one image at a time, in memory, on one thread, after one image that does not count.
"""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ohmq.codec import Codec
from ohmq.encoder.options import EncodeOptions
from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.evaluation.classic import CLASSIC_CODECS, Coded, check_classic, code_classic
from ohmq.evaluation.comparison import MODEL, CodecResult, CodedPoint, CodedRow
from ohmq.evaluation.qualities import METRICS, Metric, measure_image, ms_ssim_to_db
from ohmq.evaluation.report import channel_counts
from ohmq.utils.counting import counted

__all__ = [
    "Images",
    "ModelSetting",
    "Pixels",
    "code_named_image",
    "compare_codecs",
    "default_settings",
    "one_thread",
    "spread",
    "suited_images",
]

POOR_RANGE_SCALES = (8.0, 4.0, 2.0)
"""Factors on λ at the end of a poor range, in `default_settings`."""
Pixels = NDArray[np.uint8]
"""Pixels (H, W) or (H, W, 3)."""

Images = Sequence[tuple[str, Pixels]]
"""Names and pixels of images; a sequence such as `ohmq.evaluation.report.ImageFiles` reads each when it is asked for."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let the model and Pillow's AVIF decoder use one thread, as the other codecs do."""
    from PIL import AvifImagePlugin

    threads, avif = torch.get_num_threads(), AvifImagePlugin.DEFAULT_MAX_THREADS
    torch.set_num_threads(1)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        AvifImagePlugin.DEFAULT_MAX_THREADS = avif


def spread(values: Sequence[Any], count: int | None) -> list[Any]:
    """Choose at most `count` values, evenly spread, with both ends; one value is the middle one.

    Args:
        values: the values.
        count: number of values to choose; None: all.

    Example:
        >>> spread([1, 2, 3, 4, 5], 3), spread([1, 2, 3], 1), spread([1, 2], 9)
        ([1, 3, 5], [2], [1, 2])
    """
    if count is None or count >= len(values):
        return list(values)
    if count == 1:
        return [values[len(values) // 2]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


class _GreyImages(Sequence[tuple[str, Pixels]]):
    """Images of equal colour channels, each as (H, W) when it is asked for."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: Any) -> Any:
        name, pixels = self._images[number]
        return name, np.ascontiguousarray(pixels[..., 0])


def suited_images(codec: Codec, images: Images) -> Images:
    """Convert colour images to images as the model codes them.

    Args:
        codec: the model.
        images: names and pixels (H, W, 3).

    Returns:
        The same for a model of colour images; for a model of grey images, pixels (H, W).

    Raises:
        ConfigError: an image in colour for a model of grey images.
    """
    if not codec.grey:
        return images
    for name, pixels in images:
        if (pixels != pixels[..., :1]).any():
            raise ConfigError(
                f"{codec.name} (family {codec.config.family}) codes grey images and {name} is in colour; compare with a model of "
                "colour images, such as --model photo, or give grey images"
            )
    return _GreyImages(images)


class ModelSetting(NamedTuple):
    """How a file of the model is coded: at a quality, with a number of channels, or with all and a residual.

    Attributes:
        quality: as for `Codec.compress`; None: ``channels`` counts.
        channels: number of channels.
        lambda_scale: factor on the Lagrange multiplier of RDOQ, with ``channels``.
        residual: as for `Codec.compress`; None: no residual.
    """

    quality: float | None = None
    channels: int = 0
    lambda_scale: float = 1.0
    residual: float | None = None

    def __str__(self) -> str:
        """The setting, for people."""
        if self.quality is not None:
            return f"quality {self.quality:g}"
        if self.residual is not None:
            return f"residual, step {self.residual:g}"
        scale = "" if self.lambda_scale == 1 else f", λ × {self.lambda_scale:g}"
        return counted(self.channels, "channel") + scale

    def code(self, codec: Codec, pixels: Pixels, options: EncodeOptions) -> Coded:
        """Code and decode an image.

        Args:
            codec: the model.
            pixels: the image, (H, W) or (H, W, 3).
            options: effort and tuning.

        Raises:
            ConfigError: a quality, and a model without a quality scale; or a factor or a residual, and a model without RDOQ.
        """
        area = pixels.shape[0] * pixels.shape[1]
        clock = time.perf_counter()
        if self.quality is not None:
            data = codec.compress(pixels, replace(options, quality=self.quality), max_pixels=area)
        elif self.residual is not None:
            data = codec.compress(pixels, replace(options, residual=self.residual), max_pixels=area)
        elif self.lambda_scale == 1:
            data = codec.compress(pixels, replace(options, channels=self.channels, layers=1), max_pixels=area)
        elif codec.config.supports_rdoq:
            prepared = codec.prepare(pixels, max_pixels=area)
            latent = codec.latent(prepared, effort=options.effort, tune=options.tune)
            data = codec.encode(latent._replace(lambda_scale=self.lambda_scale), self.channels, layers=1)
        else:
            raise ConfigError(f"{codec.name} has no RDOQ, so there is no factor on λ: give numbers of channels alone")
        encode_s = time.perf_counter() - clock
        clock = time.perf_counter()
        decoded = np.asarray(codec.decompress(data, max_pixels=area))
        return Coded(data, decoded, encode_s, time.perf_counter() - clock)


def default_settings(codec: Codec, options: EncodeOptions) -> list[ModelSetting]:
    """Return the settings that span a model's rates as targets do.

    These are the cut points, without numbers of channels that targets avoid (`ohmq.encoder.tuning.PoorRange`). Where such numbers
    end, larger factors on λ stand for them.

    Args:
        codec: the model.
        options: the tuning of its encoder.
    """
    settings = []
    ranges = options.tuning_for(codec.config, codec.name).poor_ranges(codec.model_id)
    for count in channel_counts(codec, [-1]):
        if any(poor.start < count < poor.end for poor in ranges):
            continue
        for poor in ranges:
            if poor.end == count:
                scales = [scale for scale in POOR_RANGE_SCALES if scale <= poor.largest]
                settings += [ModelSetting(channels=count, lambda_scale=scale) for scale in scales]
        settings.append(ModelSetting(channels=count))
    return settings


def compare_codecs(
    codec: Codec,
    images: Images,
    settings: Sequence[ModelSetting],
    classic: Sequence[str],
    *,
    rates: int | None = None,
    effort: int | None = None,
    metrics: Collection[Metric] = METRICS,
    tune: Literal["psnr", "visual"] | None = None,
    progress: Callable[[int], Any] = lambda count: None,
) -> tuple[CodecResult, ...]:
    """Code and decode every image with a model at several settings and with classic codecs at their qualities.

    Args:
        codec: the model.
        images: names and pixels, (H, W) or (H, W, 3) as the model codes them; sizes may differ.
        settings: settings of the model.
        classic: names of `CLASSIC_CODECS`.
        rates: largest number of qualities of a classic codec, evenly spread; None: all.
        effort: refinement passes of the model's encoder, as for `Codec.compress`.
        metrics: metrics to measure beside PSNR; SSIM is never measured.
        tune: tuning of the model's encoder, as for `Codec.compress`.
        progress: function called with 1 for each image and codec that is done.

    Returns:
        Measures of each codec, the model first.

    Raises:
        UnsupportedImageError: an image that a codec cannot code.
        ConfigError: Pillow was built without a codec; or a setting that the model does not have.
        ValueError: no images, no settings, a number of channels out of range, or no such codec.
    """
    if not images or not settings:
        raise ValueError(
            f"{counted(len(images), 'image')} and {counted(len(settings), 'setting')}; expected at least one of each"
        )
    check_classic(classic)
    with one_thread():
        results = [_measure_model(codec, images, settings, EncodeOptions(effort=effort, tune=tune), metrics, progress)]
        for name in classic:
            qualities = spread(CLASSIC_CODECS[name].qualities, rates)
            results.append(_measure_classic(name, images, qualities, metrics, progress))
    return tuple(results)


def _measure_model(
    codec: Codec,
    images: Images,
    settings: Sequence[ModelSetting],
    options: EncodeOptions,
    metrics: Collection[Metric],
    progress: Callable[[int], Any],
) -> CodecResult:
    """Measure the model; the first image is coded once more before, without being counted."""
    settings[0].code(codec, images[0][1], options)
    image_rows, mpixels = [], []
    for name, pixels in images:
        rows = []
        for setting in settings:
            coded = setting.code(codec, pixels, options)
            rows.append(_coded_row(MODEL, str(setting), name, pixels, coded, metrics))
        image_rows.append(rows)
        mpixels.append(pixels.shape[0] * pixels.shape[1] / 1e6)
        progress(1)
    fixed = f"{codec.config.family} family, id {codec.model_id.hex()}"
    if codec.config.supports_rdoq:
        effort, tune = codec.effort_for(options.effort), options.tune_for(codec.config, codec.name)
        fixed += f", effort {effort}, tuned for {tune}"
    fixed += f", device {codec.device}" if codec.device != "cpu" else ""
    value_rows = tuple(zip(*image_rows, strict=True))
    return CodecResult(
        name=MODEL,
        label=f"ohmq {codec.name}",
        settings=fixed,
        values=tuple(settings),
        rows=value_rows,
        points=tuple(_mean_point(rows, mpixels) for rows in value_rows),
    )


def _measure_classic(
    name: str,
    images: Images,
    qualities: Sequence[float],
    metrics: Collection[Metric],
    progress: Callable[[int], Any],
) -> CodecResult:
    """Measure a classic codec; the first image is coded once more before, without being counted."""
    code_named_image(name, *images[0], qualities[0])
    image_rows, mpixels = [], []
    for image, pixels in images:
        image_rows.append([_classic_row(name, image, pixels, quality, metrics) for quality in qualities])
        mpixels.append(pixels.shape[0] * pixels.shape[1] / 1e6)
        progress(1)
    value_rows = tuple(zip(*image_rows, strict=True))
    return CodecResult(
        name=name,
        label=CLASSIC_CODECS[name].label,
        settings=CLASSIC_CODECS[name].settings,
        values=tuple(qualities),
        rows=value_rows,
        points=tuple(_mean_point(rows, mpixels) for rows in value_rows),
    )


def _classic_row(name: str, image: str, pixels: Pixels, quality: float, metrics: Collection[Metric]) -> CodedRow:
    coded = code_named_image(name, image, pixels, quality)
    return _coded_row(name, CLASSIC_CODECS[name].setting(quality), image, pixels, coded, metrics)


def _coded_row(
    codec: str, setting: str, image: str, pixels: Pixels, coded: Coded, metrics: Collection[Metric]
) -> CodedRow:
    return CodedRow(
        codec=codec,
        setting=setting,
        image=image,
        file_bytes=len(coded.data),
        file_bpp=8 * len(coded.data) / (pixels.shape[0] * pixels.shape[1]),
        encode_s=coded.encode_s,
        decode_s=coded.decode_s,
        **measure_image(pixels, coded.pixels, metrics)._asdict(),
    )


def code_named_image(name: str, image: str, pixels: Pixels, quality: float) -> Coded:
    """Code and decode one image with a classic codec; an error names the image.

    Args:
        name: name of the codec, in `CLASSIC_CODECS`.
        image: name of the image.
        pixels: its pixels.
        quality: see `ClassicCodec`.

    Raises:
        UnsupportedImageError: the codec cannot code the image.
    """
    try:
        return code_classic(name, pixels, quality)
    except UnsupportedImageError as error:
        raise UnsupportedImageError(f"{image}: {error}; leave the image or {name} out") from error


def _mean_point(rows: Sequence[CodedRow], mpixels: Sequence[float]) -> CodedPoint:
    """Summarise one setting over all images: means of rate and quality, medians of the times for a million pixels."""

    def mean(column: str) -> float:
        return math.fsum(getattr(row, column) for row in rows) / len(rows)

    def median(column: str) -> float:
        return float(statistics.median(getattr(row, column) / size for row, size in zip(rows, mpixels, strict=True)))

    similarity = mean("ms_ssim")
    return CodedPoint(
        codec=rows[0].codec,
        setting=rows[0].setting,
        file_bpp=mean("file_bpp"),
        psnr_db=mean("psnr_db"),
        ms_ssim=similarity,
        ms_ssim_db=ms_ssim_to_db(similarity),
        ssimulacra2=mean("ssimulacra2"),
        psnr_hvs_m_db=mean("psnr_hvs_m_db"),
        encode_s_per_mpixel=median("encode_s"),
        decode_s_per_mpixel=median("decode_s"),
    )
