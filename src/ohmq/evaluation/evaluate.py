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
from ohmq.encoder.rdoq import Rdoq
from ohmq.entropy.layers import encode_layers
from ohmq.errors import BitstreamError, ConfigError, UnsupportedImageError
from ohmq.evaluation.results import ImageRow, RatePoint
from ohmq.evaluation.tables import average_row
from ohmq.evaluation.verify import verify_layers
from ohmq.metrics import ms_ssim, psnr_db_batch, ssim
from ohmq.models import CompressionModel
from ohmq.runtime.latents import Latent, Symbols

__all__ = ["evaluate_images", "evaluate_unquantized", "rate_points"]

BATCH_SYMBOLS = 4608
"""Positions coded together: small pictures are coded in batches."""


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
        codec: the model. images: names and pixels, (H, W) or (H, W, 3) as the model codes them.
        channels: numbers of active channels; 0 shows what the model answers for no bits at all.
        progress: called with the number of images done since the last call. similarity: also SSIM and MS-SSIM.
        fixed_rate: pack without an entropy coder; the estimated rate is then log2(S) a symbol.
        cut: code each image once, with all channels and all layers, and cut that file, which costs what its layers cost; else
            each number of channels has a file of its own, in one layer, for which a model that prices its bits chooses symbols
            anew, as `Codec.compress` does.
        effort: as `Codec.compress`.

    Returns:
        For each number of channels a row an image. Seconds of small images are the mean over a batch coded together.

    Raises:
        BitstreamError: bytes that do not decode to the symbols they came from.
        ConfigError: with cut, a number of channels at which no layer ends; an effort, and a model that cannot make it.
        ValueError: an effort out of range, or with fixed_rate.
    """
    effort = codec.effort_for(effort, fixed_rate)
    if cut and (wrong := set(channels) - {0, *codec.cut_points}):
        raise ConfigError(
            f"a file cannot be cut at {min(wrong)} channels; {codec.name} has the cuts {codec.cut_points}"
        )
    rows: dict[int, list[ImageRow]] = {n: [] for n in channels}
    start = 0
    while start < len(images):
        shape = images[start][1].shape
        positions = codec.grid(shape[1], shape[0])
        limit = max(1, BATCH_SYMBOLS // int(np.prod(positions)))
        stop = start + 1
        while stop < len(images) and stop - start < limit and images[stop][1].shape == shape:
            stop += 1
        for n, part in _evaluate_batch(
            codec, images[start:stop], channels, similarity, fixed_rate, cut, effort
        ).items():
            rows[n].extend(part)
        progress(stop - start)
        start = stop
    return rows


class _Coded(NamedTuple):
    """Images coded at one number of channels: bits and bytes of each, seconds of one, and all symbols."""

    ideal_bits: Sequence[float]
    payload_bytes: Sequence[int]
    file_bytes: Sequence[int]
    encode_s: float
    decode_s: float
    symbols: NDArray[np.int64]


def _priced(
    codec: Codec, latent: NDArray[np.float32], images: NDArray[np.uint8], channels: Sequence[int], effort: int
) -> dict[int, _Coded]:
    """Of a latent, symbols are chosen anew for each number of channels."""
    height, width = images.shape[1:3]
    table = {}
    for n in channels:
        clock = time.perf_counter()
        source = _choice(codec, latent, images, n, effort)
        choice_s = (time.perf_counter() - clock) / len(latent)
        coded = _entropy_coded(codec, source, [(n,)], width, height)[n]
        table[n] = coded._replace(encode_s=coded.encode_s + choice_s)
    return table


def _choice(codec: Codec, latent: NDArray[np.float32], images: NDArray[np.uint8], channels: int, effort: int) -> Rdoq:
    """What chooses the symbols of latents (N, 1, h, w, D) of images for so many channels, as compressing each does."""
    if not effort:
        return codec.rdoq(latent, channels)
    moved = []
    for values, image in zip(latent, images, strict=True):
        picture = Image.fromarray(image)
        source = Latent(values, *picture.size, picture=picture, effort=effort)
        moved.append(codec.chosen_from(source, channels))
    return codec.rdoq(np.stack(moved), channels)


def _entropy_coded(
    codec: Codec,
    source: NDArray[np.int64] | Rdoq,
    plans: Sequence[tuple[int, ...]],
    width: int,
    height: int,
) -> dict[int, _Coded]:
    """Files whose layers end as each plan says, by the number of channels that they have."""
    encoded = encode_layers(codec.prior, source, plans, measure=True)
    symbols = source.values() if isinstance(source, Rdoq) else source
    count = len(symbols)
    decode_s = verify_layers(codec.prior, symbols, plans, encoded.payloads) / count
    encode_s = encoded.seconds / count
    ideal = np.cumsum(encoded.ideal_bits, 1)
    table = {}
    for number, ends in enumerate(plans):
        payloads, channels = encoded.payloads[number], np.diff(ends, prepend=0).tolist()
        layers = [tuple(map(Layer, channels, parts)) for parts in payloads]
        sizes = [len(write_ohm(OhmFile(codec.model_id, width, height, codec.grey, False, of_one))) for of_one in layers]
        bits, seconds = ideal[:, ends[-1] - 1].tolist(), (encode_s[number], decode_s[number])
        table[ends[-1]] = _Coded(bits, [sum(map(len, parts)) for parts in payloads], sizes, *seconds, symbols)
    return table


def _fixed_rate(
    codec: Codec, symbols: NDArray[np.int64], channels: Sequence[int], width: int, height: int
) -> dict[int, _Coded]:
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
        for number, (_, found) in enumerate(decoded):
            if not np.array_equal(found.values, symbols[number, ..., :n]):
                raise BitstreamError(f"image {number} of a batch: a fixed-rate file does not decode to its symbols")
        ideal = [float(np.log2(alphabets[:n]).sum()) * positions] * len(symbols)
        payloads = [sum(len(layer.payload) for layer in file.layers) for file, _ in decoded]
        table[n] = _Coded(ideal, payloads, [len(data) for data in files], encode_s, decode_s, symbols)
    return table


def _evaluate_batch(
    codec: Codec,
    images: Sequence[tuple[str, NDArray[np.uint8]]],
    channels: Sequence[int],
    similarity: bool,
    fixed_rate: bool,
    cut: bool,
    effort: int,
) -> dict[int, list[ImageRow]]:
    count = len(images)
    height, width = images[0][1].shape[:2]
    pixels = width * height
    clock = time.perf_counter()
    reference = np.stack([image for _, image in images])
    use_rdoq = codec.supports_rdoq and not fixed_rate
    source = (codec.latent_batch if use_rdoq else codec.analyse_batch)(reference)
    analysis_s = (time.perf_counter() - clock) / count
    nothing = np.zeros((*source.shape[:-1], 0), np.int64)
    coded = dict.fromkeys(channels, _Coded([0.0] * count, [0] * count, [0] * count, 0.0, 0.0, nothing))
    if some := [n for n in channels if n > 0]:
        if fixed_rate:
            coded |= _fixed_rate(codec, source, some, width, height)
        elif cut:
            whole = _choice(codec, source, reference, codec.num_channels, effort) if use_rdoq else source
            ends = codec.layer_ends(codec.num_channels)
            coded |= _entropy_coded(codec, whole, [ends[: ends.index(n) + 1] for n in some], width, height)
        elif use_rdoq:
            coded |= _priced(codec, source, reference, some, effort)
        else:
            coded |= _entropy_coded(codec, source, [(n,) for n in some], width, height)
    table: dict[int, list[ImageRow]] = {n: [] for n in channels}
    for n in channels:
        clock = time.perf_counter()
        decoded = np.stack([np.asarray(codec.synthesise(Symbols(s, width, height), n)) for s in coded[n].symbols])
        synthesis_s = (time.perf_counter() - clock) / count
        psnr = psnr_db_batch(reference, decoded).tolist()
        unknown = [float("nan")] * count
        structure = ssim(*_planes(reference, decoded)).tolist() if similarity else unknown
        multi = ms_ssim(*_planes(reference, decoded)).tolist() if similarity else unknown
        for i, (name, _) in enumerate(images):
            table[n].append(
                ImageRow(
                    image=name,
                    estimated_bpp=float(coded[n].ideal_bits[i]) / pixels,
                    payload_bpp=8 * coded[n].payload_bytes[i] / pixels,
                    file_bpp=8 * coded[n].file_bytes[i] / pixels,
                    psnr_db=psnr[i],
                    ssim=structure[i],
                    ms_ssim=multi[i],
                    encode_s=float(analysis_s + coded[n].encode_s),
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
    """What a model without a quantizer reconstructs: mean PSNR and SSIM at no rate (NaN).

    Args:
        model: with quantizer "none". images: names and pixels, as the model codes them, all of one size.
        progress: called with the number of images done since the last call.

    Raises:
        UnsupportedImageError: pictures that are not whole tiles.
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
    """The mean over images for each number of channels, ascending."""
    low, high = codec.config.channels_min, codec.num_channels
    points = []
    for n in sorted(rows):
        mean = average_row(rows[n])._asdict()
        del mean["image"]
        points.append(RatePoint(channels=n, fraction=(n - low) / (high - low) if high > low else 1.0, **mean))
    return points
