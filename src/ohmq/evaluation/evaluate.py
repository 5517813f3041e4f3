"""Measure a codec on images: every rate belongs to bytes that were decoded and compared."""

import copy
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ohmq.bitstream.format import Layer, OhmFile
from ohmq.bitstream.writer import write_ohm
from ohmq.codec import Codec
from ohmq.encoder.options import EncodeOptions
from ohmq.encoder.rdoq import Rdoq
from ohmq.encoder.tuning import Tuning
from ohmq.entropy.layers import KnownSymbols, SymbolSource, encode_layers
from ohmq.errors import BitstreamError, ConfigError
from ohmq.evaluation.qualities import Metric, default_metrics
from ohmq.evaluation.results import ImageRow, RatePoint
from ohmq.evaluation.tables import average_row
from ohmq.evaluation.verify import verify_layers
from ohmq.metrics import ms_ssim, psnr_db_batch, psnr_hvs_m, ssim, ssimulacra2
from ohmq.models import CompressionModel
from ohmq.models.config import ModelConfig
from ohmq.runtime.devices import coding_state, find_device
from ohmq.runtime.latents import Latent, PerceptualWeights, Symbols
from ohmq.runtime.windowed import from_patches, to_patches

__all__ = [
    "CodedImage",
    "Images",
    "NamedPixels",
    "OnCoded",
    "channel_fraction",
    "evaluate_images",
    "evaluate_unquantized",
    "ignore_coded",
    "rate_points",
]

BATCH_SYMBOLS = 4608
"""Latent positions coded together: small images are coded in batches."""

NamedPixels = tuple[str, NDArray[np.uint8]]
"""Name and pixels, (H, W) or (H, W, 3), of an image."""

Images = Iterable[NamedPixels]
"""Names and pixels of images, as the model codes them; read one batch at a time."""


class CodedImage(NamedTuple):
    """An image coded at one number of channels.

    Attributes:
        name: name of the image.
        channels: active channels.
        data: the measured file; empty for no channels, and for a model without a quantizer.
        pixels: decoded pixels, (H, W) or (H, W, 3).
    """

    name: str
    channels: int
    data: bytes
    pixels: NDArray[np.uint8]


OnCoded = Callable[[CodedImage], Any]
"""Function called with each image that was coded, for each number of channels."""


def ignore_coded(coded: CodedImage) -> None:
    """Do nothing with an image that was coded.

    Args:
        coded: the image.
    """


def evaluate_images(
    codec: Codec,
    images: Images,
    channels: Sequence[int],
    *,
    progress: Callable[[int], Any] = lambda count: None,
    on_coded: OnCoded = ignore_coded,
    metrics: Collection[Metric] | None = None,
    fixed_rate: bool = False,
    cut: bool = False,
    effort: int | None = None,
    tune: Literal["psnr", "visual"] | None = None,
) -> dict[int, list[ImageRow]]:
    """Code and decode images at several numbers of channels.

    Args:
        codec: the codec.
        images: names and pixels, (H, W) or (H, W, 3) as the model codes them. They are read as they are coded: neighbours
            of one size are coded together if they are small.
        channels: numbers of active channels; 0 shows the image that the model decodes from no bits.
        progress: called with the number of images done since the last call.
        on_coded: called with the file and the decoded image of each image and number of channels.
        metrics: metrics to measure beside PSNR; None: `default_metrics` of the model.
        fixed_rate: pack symbols without entropy coding; the estimated rate is then log2(S) a symbol.
        cut: code each image once, with all channels and layers, and cut that file, which includes the cost of its layers. By
            default each number of channels has a file of its own, in one layer, for which RDOQ chooses symbols anew.
        effort: as in `ohmq.encoder.options.EncodeOptions`.
        tune: as in `ohmq.encoder.options.EncodeOptions`.

    Returns:
        For each number of channels a row an image. Seconds of small images are the mean over a batch coded together.

    Raises:
        BitstreamError: bytes that do not decode to their symbols.
        ConfigError: with cut, a number of channels at which no layer ends; or an effort or the tuning "visual",
            and a model without RDOQ.
        ValueError: an effort out of range, or with fixed_rate.
    """
    if metrics is None:
        metrics = default_metrics(grey=codec.grey)
    options = EncodeOptions(effort=effort, tune=tune, fixed_rate=fixed_rate)
    effort, tuning = options.effort_for(codec.config, codec.name), options.tuning_for(codec.config, codec.name)
    settings = _Settings(metrics, fixed_rate, cut, effort, tuning)
    if cut and (wrong := set(channels) - {0, *codec.cut_points}):
        raise ConfigError(
            f"a file cannot be cut at {min(wrong)} channels; {codec.name} has the cuts {codec.cut_points}"
        )
    rows: dict[int, list[ImageRow]] = {n: [] for n in channels}
    for batch in _batches(images, codec.config):
        for n, part in _evaluate_batch(codec, batch, channels, settings, on_coded).items():
            rows[n].extend(part)
        progress(len(batch.names))
    return rows


class _Batch(NamedTuple):
    """Names and pixels, (N, H, W) or (N, H, W, 3), of images of one size."""

    names: list[str]
    pixels: NDArray[np.uint8]


def _batches(images: Images, config: ModelConfig) -> Iterator[_Batch]:
    """Group neighbours of one size; images that are not small come alone, before the next one is read."""
    names: list[str] = []
    pixels: list[NDArray[np.uint8]] = []
    limit = 1
    for name, image in images:
        if pixels and image.shape != pixels[0].shape:
            yield _Batch(names, np.stack(pixels))
            names, pixels = [], []
        if not pixels:
            height, width = image.shape[:2]
            limit = max(1, BATCH_SYMBOLS // math.prod(config.latent_grid(width, height)))
        names.append(name)
        pixels.append(image)
        if len(pixels) == limit:
            yield _Batch(names, np.stack(pixels))
            names, pixels = [], []
    if pixels:
        yield _Batch(names, np.stack(pixels))


class _Settings(NamedTuple):
    """Settings of an evaluation; see `evaluate_images`."""

    metrics: Collection[Metric]
    fixed_rate: bool
    cut: bool
    effort: int
    tuning: Tuning


class _CodedBatch(NamedTuple):
    """Images coded at one number of channels.

    Attributes:
        ideal_bits: -log2 p of each image's symbols, in bits.
        payload_bytes: of each image.
        files: the file of each image; empty for no channels.
        encode_s: seconds to encode one image.
        decode_s: seconds to decode one image.
        symbols: (images, patches, h, w, C).
    """

    ideal_bits: Sequence[float]
    payload_bytes: Sequence[int]
    files: Sequence[bytes]
    encode_s: float
    decode_s: float
    symbols: NDArray[np.int64]


def _rdoq_source(
    codec: Codec, latent: NDArray[np.float32], images: NDArray[np.uint8], channels: int, settings: _Settings
) -> Rdoq:
    """Choose symbols of latents (N, 1, h, w, D) as compressing each image does."""
    refiner, project = codec.encoder.refiner, codec.transforms.quantizer["project"]
    assert refiner is not None
    sources = []
    for values, pixels in zip(latent, images, strict=True):
        image = Image.fromarray(pixels)
        source = Latent(values, *image.size, image=image, effort=settings.effort)
        sources.append(settings.tuning.apply(source, project))
    refined = np.stack([refiner.refine(source, channels) for source in sources])
    weights = [source.weights for source in sources if source.weights is not None]
    return refiner.rdoq(refined, channels, weights=PerceptualWeights.stack(weights) if weights else None)


def _entropy_coded(
    codec: Codec, source: SymbolSource, layouts: Sequence[tuple[int, ...]], width: int, height: int
) -> dict[int, _CodedBatch]:
    """Encode and verify files with several layouts, by the number of channels of each."""
    kernels = codec.encoder.kernels
    encoded = encode_layers(codec.prior, source, layouts, kernels=kernels, measure=True)
    symbols = source.values()
    count = len(symbols)
    decode_s = verify_layers(codec.prior, symbols, layouts, encoded.payloads, kernels=kernels) / count
    encode_s = encoded.seconds / count
    ideal_bits = np.cumsum(encoded.ideal_bits, 1)
    table = {}
    for number, ends in enumerate(layouts):
        payloads, channels = encoded.payloads[number], np.diff(ends, prepend=0).tolist()
        files = [
            OhmFile(codec.model_id, width, height, codec.grey, False, tuple(map(Layer, channels, layers)))
            for layers in payloads
        ]
        table[ends[-1]] = _CodedBatch(
            ideal_bits=ideal_bits[:, ends[-1] - 1].tolist(),
            payload_bytes=[sum(map(len, layers)) for layers in payloads],
            files=[write_ohm(file) for file in files],
            encode_s=encode_s[number],
            decode_s=decode_s[number],
            symbols=symbols,
        )
    return table


def _rdoq_coded(
    codec: Codec,
    latent: NDArray[np.float32],
    images: NDArray[np.uint8],
    channels: Sequence[int],
    settings: _Settings,
) -> dict[int, _CodedBatch]:
    """Encode latents; RDOQ chooses symbols anew for each number of channels."""
    height, width = images.shape[1:3]
    table = {}
    for n in channels:
        clock = time.perf_counter()
        source = _rdoq_source(codec, latent, images, n, settings)
        refine_s = (time.perf_counter() - clock) / len(latent)
        coded = _entropy_coded(codec, source, [(n,)], width, height)[n]
        table[n] = coded._replace(encode_s=coded.encode_s + refine_s)
    return table


def _fixed_rate_coded(
    codec: Codec, symbols: NDArray[np.int64], channels: Sequence[int], width: int, height: int
) -> dict[int, _CodedBatch]:
    """Encode symbols at a fixed rate, and verify them."""
    alphabets = np.repeat(codec.config.group_symbols, codec.config.group_sizes)
    positions = math.prod(symbols.shape[1:-1])
    table = {}
    for n in channels:
        clock = time.perf_counter()
        files = [codec.encode(Symbols(s, width, height), n, layers=1, fixed_rate=True) for s in symbols]
        encode_s = (time.perf_counter() - clock) / len(symbols)
        clock = time.perf_counter()
        decoded = [codec.decode(data, max_pixels=width * height) for data in files]
        decode_s = (time.perf_counter() - clock) / len(symbols)
        for number, (_, decoded_symbols) in enumerate(decoded):
            if not np.array_equal(decoded_symbols.values, symbols[number, ..., :n]):
                raise BitstreamError(f"image {number} of a batch: a fixed-rate file does not decode to its symbols")
        table[n] = _CodedBatch(
            ideal_bits=[float(np.log2(alphabets[:n]).sum()) * positions] * len(symbols),
            payload_bytes=[file.payload_bytes for file, _ in decoded],
            files=files,
            encode_s=encode_s,
            decode_s=decode_s,
            symbols=symbols,
        )
    return table


def _code_batch(
    codec: Codec, images: NDArray[np.uint8], channels: Sequence[int], settings: _Settings
) -> dict[int, _CodedBatch]:
    """Encode and verify images of one size, (N, H, W) or (N, H, W, 3), by the number of channels."""
    height, width = images.shape[1:3]
    use_rdoq = codec.config.supports_rdoq and not settings.fixed_rate
    clock = time.perf_counter()
    analysed = (codec.windowed.latent_batch if use_rdoq else codec.windowed.symbols_batch)(images)
    analysis_s = (time.perf_counter() - clock) / len(images)
    zeros = [0] * len(images)
    no_symbols = np.zeros((*analysed.shape[:-1], 0), np.int64)
    coded = dict.fromkeys(channels, _CodedBatch(zeros, zeros, [b""] * len(images), 0.0, 0.0, no_symbols))
    if positive := [n for n in channels if n > 0]:
        if settings.fixed_rate:
            coded |= _fixed_rate_coded(codec, analysed, positive, width, height)
        elif use_rdoq and not settings.cut:
            coded |= _rdoq_coded(codec, analysed, images, positive, settings)
        else:
            layouts: list[tuple[int, ...]] = [(n,) for n in positive]
            source: SymbolSource = KnownSymbols(analysed)
            if settings.cut:
                ends = codec.config.layer_ends(codec.num_channels)
                layouts = [ends[: ends.index(n) + 1] for n in positive]
                if use_rdoq:
                    source = _rdoq_source(codec, analysed, images, codec.num_channels, settings)
            coded |= _entropy_coded(codec, source, layouts, width, height)
    return {n: batch._replace(encode_s=analysis_s + batch.encode_s) for n, batch in coded.items()}


def _evaluate_batch(
    codec: Codec, batch: _Batch, channels: Sequence[int], settings: _Settings, on_coded: OnCoded
) -> dict[int, list[ImageRow]]:
    """Measure images of one size."""
    count, (height, width) = len(batch.names), batch.pixels.shape[1:3]
    pixels = width * height
    coded = _code_batch(codec, batch.pixels, channels, settings)
    table: dict[int, list[ImageRow]] = {}
    for n in channels:
        clock = time.perf_counter()
        decoded = np.stack([np.asarray(codec.synthesise(Symbols(s, width, height), n)) for s in coded[n].symbols])
        synthesis_s = (time.perf_counter() - clock) / count
        table[n] = [
            row._replace(
                estimated_bpp=float(coded[n].ideal_bits[i]) / pixels,
                payload_bpp=8 * coded[n].payload_bytes[i] / pixels,
                file_bpp=8 * len(coded[n].files[i]) / pixels,
                encode_s=float(coded[n].encode_s),
                decode_s=float(synthesis_s + coded[n].decode_s),
            )
            for i, row in enumerate(_quality_rows(batch, decoded, settings.metrics))
        ]
        for name, data, image in zip(batch.names, coded[n].files, decoded, strict=True):
            on_coded(CodedImage(name, n, data, image))
    return table


def _quality_rows(batch: _Batch, decoded: NDArray[np.uint8], metrics: Collection[Metric]) -> list[ImageRow]:
    """Measure the quality of decoded images; rates and times are NaN."""
    nan = [math.nan] * len(decoded)
    planes = _planes(batch.pixels, decoded)
    psnr = psnr_db_batch(batch.pixels, decoded).tolist()
    structure = ssim(*planes).tolist() if "ssim" in metrics else nan
    multi_scale = ms_ssim(*planes).tolist() if "ms-ssim" in metrics else nan
    pairs = list(zip(batch.pixels, decoded, strict=True))
    scores = [ssimulacra2(*pair) for pair in pairs] if "ssimulacra2" in metrics else nan
    masked = [psnr_hvs_m(*pair) for pair in pairs] if "psnr-hvs-m" in metrics else nan
    columns = zip(batch.names, psnr, structure, multi_scale, nan, nan, nan, nan, nan, scores, masked, strict=True)
    return [ImageRow(*values) for values in columns]


def evaluate_unquantized(
    model: CompressionModel,
    images: Images,
    *,
    progress: Callable[[int], Any] = lambda count: None,
    on_coded: OnCoded = ignore_coded,
    metrics: Collection[Metric] | None = None,
    device: str = "cpu",
) -> dict[int, list[ImageRow]]:
    """Measure what a model without a quantizer reconstructs: there is no file and no rate.

    Args:
        model: model with quantizer "none".
        images: names and pixels, (H, W) or (H, W, 3) as the model codes them.
        progress: called with the number of images done since the last call.
        on_coded: called with each reconstructed image; its file is empty.
        metrics: metrics to measure beside PSNR; None: `default_metrics` of the model.
        device: where the model runs, as for `ohmq.Codec`.

    Raises:
        ConfigError: no such device.

    Returns:
        For all channels a row an image; rates and times are NaN.
    """
    if metrics is None:
        metrics = default_metrics(grey=model.config.image_channels == 1)
    channels = model.config.channels_max
    place = find_device(device)
    if place.type != "cpu":
        model = copy.deepcopy(model).to(place)  # the caller's model stays where it is
    rows = []
    for batch in _batches(images, model.config):
        with coding_state(place):
            decoded = _reconstruct(model, batch.pixels, place)
        rows += _quality_rows(batch, decoded, metrics)
        for name, image in zip(batch.names, decoded, strict=True):
            on_coded(CodedImage(name, channels, b"", image))
        progress(len(batch.names))
    return {channels: rows}


def _reconstruct(model: CompressionModel, images: NDArray[np.uint8], device: torch.device) -> NDArray[np.uint8]:
    """Pass images (N, H, W) or (N, H, W, 3) through a model without a quantizer."""
    shape = model.config.patch_shape(*images.shape[1:3])
    patches = torch.from_numpy(np.concatenate([to_patches(image, shape) for image in images])).to(device).float() / 255
    active = torch.full((len(patches),), model.config.channels_max, device=device)
    output = model(model.normalise(patches), active)
    decoded = model.denormalise(output.reconstruction).clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    parts = decoded.reshape(len(images), -1, *decoded.shape[1:])
    return np.stack([from_patches(part, *images.shape[1:3]) for part in parts])


def _planes(*batches: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """(N, H, W) or (N, H, W, 3) as (N, C, H, W)."""
    return [b[:, None] if b.ndim == 3 else np.ascontiguousarray(np.moveaxis(b, -1, 1)) for b in batches]


def rate_points(config: ModelConfig, rows: Mapping[int, Sequence[ImageRow]]) -> list[RatePoint]:
    """Average the rows of all images for each number of channels.

    Args:
        config: configuration of the model.
        rows: for each number of channels, a row an image, from `evaluate_images` or `evaluate_unquantized`.

    Returns:
        One point for each number of channels, ascending.
    """
    points = []
    for n in sorted(rows):
        mean = average_row(rows[n])._asdict()
        del mean["image"]
        points.append(RatePoint(channels=n, fraction=channel_fraction(config, n), **mean))
    return points


def channel_fraction(config: ModelConfig, channels: int) -> float:
    """Return the fraction of the adaptive range that a number of channels stands for; below 0: fewer than the minimum.

    Args:
        config: configuration of the model.
        channels: active channels.

    Example:
        >>> from ohmq.models import MnistConfig
        >>> channel_fraction(MnistConfig(channels_min=8), 10)
        0.25
    """
    low, high = config.channels_min, config.channels_max
    return (channels - low) / (high - low) if high > low else 1.0
