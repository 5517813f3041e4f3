"""Measure a codec on images: every rate belongs to bytes that were decoded and compared."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.codec import Codec, Symbols
from ohmq.container import Layer, OhmFile, write_ohm
from ohmq.entropy.layers import encode_layers, verify_layers
from ohmq.evaluation.results import ImageRow, RatePoint, average_row
from ohmq.metrics import ms_ssim, psnr_db_batch, ssim

__all__ = ["evaluate_images", "rate_points"]

BATCH_SYMBOLS = 4608
"""Positions coded together: small pictures are coded in batches."""


def evaluate_images(
    codec: Codec,
    images: Sequence[tuple[str, NDArray[np.uint8]]],
    channels: Sequence[int],
    *,
    progress: Callable[[int], Any] = lambda count: None,
    similarity: bool = True,
) -> dict[int, list[ImageRow]]:
    """Code and decode images at several numbers of channels.

    Args:
        codec: the model. images: names and pixels, (H, W) or (H, W, 3) as the model codes them.
        channels: numbers of active channels; 0 shows what the model answers for no bits at all.
        progress: called with the number of images done since the last call. similarity: also SSIM and MS-SSIM.

    Returns:
        For each number of channels a row an image. Seconds of small images are the mean over a batch coded together.

    Raises:
        BitstreamError: bytes that do not decode to the symbols they came from.
    """
    rows: dict[int, list[ImageRow]] = {n: [] for n in channels}
    start = 0
    while start < len(images):
        shape = images[start][1].shape
        positions = codec.grid(shape[1], shape[0])
        limit = max(1, BATCH_SYMBOLS // int(np.prod(positions)))
        stop = start + 1
        while stop < len(images) and stop - start < limit and images[stop][1].shape == shape:
            stop += 1
        for n, part in _evaluate_batch(codec, images[start:stop], channels, similarity).items():
            rows[n].extend(part)
        progress(stop - start)
        start = stop
    return rows


def _evaluate_batch(
    codec: Codec, images: Sequence[tuple[str, NDArray[np.uint8]]], channels: Sequence[int], similarity: bool
) -> dict[int, list[ImageRow]]:
    count = len(images)
    height, width = images[0][1].shape[:2]
    pixels = width * height
    clock = time.perf_counter()
    symbols = codec.analyse_batch(np.stack([image for _, image in images]))
    analysis_s = (time.perf_counter() - clock) / count
    plans = [(n,) for n in channels if n > 0]
    if plans:
        encoded = encode_layers(codec.prior, symbols, plans, measure=True)
        decode_s = verify_layers(codec.prior, symbols, plans, encoded.payloads) / count
        encode_s = encoded.seconds / count
        ideal = np.concatenate([np.zeros((count, 1)), np.cumsum(encoded.ideal_bits, 1)], 1)
    reference = np.stack([image for _, image in images])
    table: dict[int, list[ImageRow]] = {n: [] for n in channels}
    for n in channels:
        clock = time.perf_counter()
        decoded = np.stack([np.asarray(codec.synthesise(Symbols(s, width, height), n)) for s in symbols])
        synthesis_s = (time.perf_counter() - clock) / count
        psnr = psnr_db_batch(reference, decoded).tolist()
        nothing = [float("nan")] * count
        structure = ssim(*_planes(reference, decoded)).tolist() if similarity else nothing
        multi = ms_ssim(*_planes(reference, decoded)).tolist() if similarity else nothing
        plan = plans.index((n,)) if n else -1
        for i, (name, _) in enumerate(images):
            payload = encoded.payloads[plan][i][0] if n else b""
            file_bytes = 0
            if n:
                file = OhmFile(codec.model_id, width, height, codec.grey, False, (Layer(n, payload),))
                file_bytes = len(write_ohm(file))
            table[n].append(
                ImageRow(
                    image=name,
                    estimated_bpp=float(ideal[i, n]) / pixels if n else 0.0,
                    payload_bpp=8 * len(payload) / pixels,
                    file_bpp=8 * file_bytes / pixels,
                    psnr_db=psnr[i],
                    ssim=structure[i],
                    ms_ssim=multi[i],
                    encode_s=float(analysis_s + (encode_s[plan] if n else 0.0)),
                    decode_s=float(synthesis_s + (decode_s[plan] if n else 0.0)),
                )
            )
    return table


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
