"""Measure a codec on images: every rate belongs to bytes that were decoded and compared."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ohmq.bitstream.format import Layer, OhmFile
from ohmq.bitstream.writer import write_ohm
from ohmq.codec import Codec
from ohmq.encoder.options import EncodeOptions
from ohmq.encoder.rdoq import Rdoq
from ohmq.entropy.layers import KnownSymbols, SymbolSource, encode_layers
from ohmq.errors import BitstreamError, ConfigError, UnsupportedImageError
from ohmq.evaluation.results import ImageRow, RatePoint
from ohmq.evaluation.tables import average_row
from ohmq.evaluation.verify import verify_layers
from ohmq.metrics import ms_ssim, psnr_db_batch, ssim
from ohmq.models import CompressionModel
from ohmq.runtime.latents import Latent, Symbols

__all__ = ["evaluate_images", "evaluate_unquantized", "rate_points"]

BATCH_SYMBOLS = 4608
"""Latent positions coded together: small images are coded in batches."""


def evaluate_images(
    codec: Codec,
    images: Sequence[tuple[str, NDArray[np.uint8]]],
    channels: Sequence[int],
    *,
    progress: Callable[[int], Any] = lambda count: None,
    similarity: bool = True,
    fixed_rate: bool = False,
    cut: bool = False,
    effort: int | None = None,
) -> dict[int, list[ImageRow]]:
    """Code and decode images at several numbers of channels.

    Args:
        codec: the codec.
        images: names and pixels, (H, W) or (H, W, 3) as the model codes them.
        channels: numbers of active channels; 0 shows the image that the model decodes from no bits.
        progress: called with the number of images done since the last call.
        similarity: whether to measure SSIM and MS-SSIM; default: yes.
        fixed_rate: pack symbols without entropy coding; the estimated rate is then log2(S) a symbol.
        cut: code each image once, with all channels and layers, and cut that file, which includes the cost of its layers. By
            default each number of channels has a file of its own, in one layer, for which RDOQ chooses symbols anew.
        effort: as in `ohmq.encoder.options.EncodeOptions`.

    Returns:
        For each number of channels a row an image. Seconds of small images are the mean over a batch coded together.

    Raises:
        BitstreamError: bytes that do not decode to their symbols.
        ConfigError: with cut, a number of channels at which no layer ends; or an effort, and a model without RDOQ.
        ValueError: an effort out of range, or with fixed_rate.
    """
    options = EncodeOptions(effort=effort, fixed_rate=fixed_rate)
    settings = _Settings(similarity, fixed_rate, cut, options.effort_for(codec.config, codec.name))
    if cut and (wrong := set(channels) - {0, *codec.cut_points}):
        raise ConfigError(
            f"a file cannot be cut at {min(wrong)} channels; {codec.name} has the cuts {codec.cut_points}"
        )
    rows: dict[int, list[ImageRow]] = {n: [] for n in channels}
    start = 0
    while start < len(images):
        shape = images[start][1].shape
        positions = codec.config.latent_grid(shape[1], shape[0])
        limit = max(1, BATCH_SYMBOLS // int(np.prod(positions)))
        stop = start + 1
        while stop < len(images) and stop - start < limit and images[stop][1].shape == shape:
            stop += 1
        for n, part in _evaluate_batch(codec, images[start:stop], channels, settings).items():
            rows[n].extend(part)
        progress(stop - start)
        start = stop
    return rows


class _Settings(NamedTuple):
    """Settings of an evaluation; see `evaluate_images`."""

    similarity: bool
    fixed_rate: bool
    cut: bool
    effort: int


class _CodedBatch(NamedTuple):
    """Images coded at one number of channels.

    Attributes:
        ideal_bits: -log2 p of each image's symbols, in bits.
        payload_bytes: of each image.
        file_bytes: of each image.
        encode_s: seconds to encode one image.
        decode_s: seconds to decode one image.
        symbols: (images, patches, h, w, C).
    """

    ideal_bits: Sequence[float]
    payload_bytes: Sequence[int]
    file_bytes: Sequence[int]
    encode_s: float
    decode_s: float
    symbols: NDArray[np.int64]


def _rdoq_source(
    codec: Codec, latent: NDArray[np.float32], images: NDArray[np.uint8], channels: int, effort: int
) -> Rdoq:
    """Choose symbols of latents (N, 1, h, w, D) as compressing each image does."""
    refiner = codec.encoder.refiner
    assert refiner is not None
    if effort:
        refined = []
        for values, pixels in zip(latent, images, strict=True):
            image = Image.fromarray(pixels)
            refined.append(refiner.refine(Latent(values, *image.size, image=image, effort=effort), channels))
        latent = np.stack(refined)
    return refiner.rdoq(latent, channels)


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
            file_bytes=[len(write_ohm(file)) for file in files],
            encode_s=encode_s[number],
            decode_s=decode_s[number],
            symbols=symbols,
        )
    return table


def _rdoq_coded(
    codec: Codec, latent: NDArray[np.float32], images: NDArray[np.uint8], channels: Sequence[int], effort: int
) -> dict[int, _CodedBatch]:
    """Encode latents; RDOQ chooses symbols anew for each number of channels."""
    height, width = images.shape[1:3]
    table = {}
    for n in channels:
        clock = time.perf_counter()
        source = _rdoq_source(codec, latent, images, n, effort)
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
        decoded = [codec.decode(data) for data in files]
        decode_s = (time.perf_counter() - clock) / len(symbols)
        for number, (_, decoded_symbols) in enumerate(decoded):
            if not np.array_equal(decoded_symbols.values, symbols[number, ..., :n]):
                raise BitstreamError(f"image {number} of a batch: a fixed-rate file does not decode to its symbols")
        table[n] = _CodedBatch(
            ideal_bits=[float(np.log2(alphabets[:n]).sum()) * positions] * len(symbols),
            payload_bytes=[file.payload_bytes for file, _ in decoded],
            file_bytes=[len(data) for data in files],
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
    coded = dict.fromkeys(channels, _CodedBatch(zeros, zeros, zeros, 0.0, 0.0, no_symbols))
    if positive := [n for n in channels if n > 0]:
        if settings.fixed_rate:
            coded |= _fixed_rate_coded(codec, analysed, positive, width, height)
        elif use_rdoq and not settings.cut:
            coded |= _rdoq_coded(codec, analysed, images, positive, settings.effort)
        else:
            layouts: list[tuple[int, ...]] = [(n,) for n in positive]
            source: SymbolSource = KnownSymbols(analysed)
            if settings.cut:
                ends = codec.config.layer_ends(codec.num_channels)
                layouts = [ends[: ends.index(n) + 1] for n in positive]
                if use_rdoq:
                    source = _rdoq_source(codec, analysed, images, codec.num_channels, settings.effort)
            coded |= _entropy_coded(codec, source, layouts, width, height)
    return {n: batch._replace(encode_s=analysis_s + batch.encode_s) for n, batch in coded.items()}


def _evaluate_batch(
    codec: Codec, images: Sequence[tuple[str, NDArray[np.uint8]]], channels: Sequence[int], settings: _Settings
) -> dict[int, list[ImageRow]]:
    """Measure images of one size."""
    count = len(images)
    reference = np.stack([image for _, image in images])
    height, width = reference.shape[1:3]
    pixels = width * height
    coded = _code_batch(codec, reference, channels, settings)
    table: dict[int, list[ImageRow]] = {n: [] for n in channels}
    for n in channels:
        clock = time.perf_counter()
        decoded = np.stack([np.asarray(codec.synthesise(Symbols(s, width, height), n)) for s in coded[n].symbols])
        synthesis_s = (time.perf_counter() - clock) / count
        psnr = psnr_db_batch(reference, decoded).tolist()
        unknown = [float("nan")] * count
        structure = ssim(*_planes(reference, decoded)).tolist() if settings.similarity else unknown
        multi_scale = ms_ssim(*_planes(reference, decoded)).tolist() if settings.similarity else unknown
        for i, (name, _) in enumerate(images):
            table[n].append(
                ImageRow(
                    image=name,
                    estimated_bpp=float(coded[n].ideal_bits[i]) / pixels,
                    payload_bpp=8 * coded[n].payload_bytes[i] / pixels,
                    file_bpp=8 * coded[n].file_bytes[i] / pixels,
                    psnr_db=psnr[i],
                    ssim=structure[i],
                    ms_ssim=multi_scale[i],
                    encode_s=float(coded[n].encode_s),
                    decode_s=float(synthesis_s + coded[n].decode_s),
                )
            )
    return table


@torch.no_grad()
def evaluate_unquantized(
    model: CompressionModel,
    images: Sequence[tuple[str, NDArray[np.uint8]]],
    *,
    progress: Callable[[int], Any] = lambda count: None,
) -> RatePoint:
    """Measure what a model without a quantizer reconstructs: mean PSNR and SSIM at no rate (NaN).

    Args:
        model: model with quantizer "none".
        images: names and pixels, (H, W) or (H, W, 3) as the model codes them, all of one size.
        progress: called with the number of images done since the last call.

    Returns:
        One point, its rates NaN.

    Raises:
        UnsupportedImageError: images that are not whole patches.
    """
    height, width = images[0][1].shape[:2]
    if model.config.patch_shape(height, width) != (height, width):
        raise UnsupportedImageError(f"images of {width}x{height} pixels: this model takes whole tiles only")
    psnr, structure = [], []
    for start in range(0, len(images), 256):
        reference = _planes(np.stack([image for _, image in images[start : start + 256]]))[0]
        active = torch.full((len(reference),), model.config.channels_max)
        output = model(model.normalise(torch.from_numpy(reference).float() / 255), active)
        decoded = model.denormalise(output.reconstruction).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
        psnr += psnr_db_batch(reference, decoded).tolist()
        structure += ssim(reference, decoded).tolist()
        progress(len(reference))
    nan, count = math.nan, len(images)
    return RatePoint(model.config.channels_max, 1.0, nan, nan, nan, sum(psnr) / count, sum(structure) / count)


def _planes(*batches: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """(N, H, W) or (N, H, W, 3) as (N, C, H, W)."""
    return [b[:, None] if b.ndim == 3 else np.ascontiguousarray(np.moveaxis(b, -1, 1)) for b in batches]


def rate_points(codec: Codec, rows: Mapping[int, Sequence[ImageRow]]) -> list[RatePoint]:
    """Average the rows of all images for each number of channels.

    Args:
        codec: the codec.
        rows: for each number of channels, a row an image, from `evaluate_images`.

    Returns:
        One point for each number of channels, ascending.
    """
    low, high = codec.config.channels_min, codec.num_channels
    points = []
    for n in sorted(rows):
        mean = average_row(rows[n])._asdict()
        del mean["image"]
        points.append(RatePoint(channels=n, fraction=(n - low) / (high - low) if high > low else 1.0, **mean))
    return points
