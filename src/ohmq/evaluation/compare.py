"""A model beside classic codecs on the same images: rates of whole files, distortion, time, BD-rates.

Every codec codes one picture at a time, in memory, on one thread, after one picture that does not count.
"""

import contextlib
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import features

from ohmq.codec import Codec
from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.classic import CLASSIC_CODECS, EXACT_DB, Coded, check_classic, code_classic
from ohmq.evaluation.evaluate import evaluate_images
from ohmq.evaluation.results import Curve
from ohmq.metrics import MS_SSIM_MIN_SIDE, ms_ssim, psnr_db
from ohmq.utils.provenance import software_versions

__all__ = [
    "COMPARE_DEFINITIONS",
    "MODEL",
    "CodecResult",
    "CodedPoint",
    "CodedRow",
    "Comparison",
    "Difference",
    "Matched",
    "Quality",
    "compare_codecs",
    "differences",
    "library_versions",
    "match_rates",
    "one_thread",
    "spread",
    "suited_images",
]

MODEL = "model"
"""Name of the model among the codecs."""

Pixels = NDArray[np.uint8]
Images = Sequence[tuple[str, Pixels]]
Quality = Literal["psnr_db", "ms_ssim_db"]

MATCH_TOLERANCE = 0.25
"""Files are shown side by side if their sizes differ by no more."""

COMPARE_DEFINITIONS: dict[str, str] = {
    "codec": f"'{MODEL}' or a classic codec through Pillow",
    "setting": "active channels of the model; quality or rate in bits per pixel asked of a classic codec",
    "file_bytes": "all bytes of the file",
    "file_bpp": "all bytes of the file, bits per pixel; of several images the mean",
    "psnr_db": f"PSNR of 8-bit pixels (RGB, or grey), dB; an exact copy counts as {EXACT_DB:g}; of several images the mean",
    "ms_ssim": f"MS-SSIM of five scales, mean over the channels; none below {MS_SSIM_MIN_SIDE} pixels a side; "
    "of several images the mean",
    "ms_ssim_db": f"-10 log10(1 - ms_ssim), of the mean over images; at most {EXACT_DB:g}",
    "encode_s": "seconds from pixels to file, in memory, one thread, model loaded; JPEG: both kinds of file that are tried",
    "decode_s": "seconds from file to pixels, likewise",
    "encode_s_per_mpixel": "encode_s for a million pixels; the median over images",
    "decode_s_per_mpixel": "decode_s for a million pixels; the median over images",
    "bd_rate_percent": "Bjøntegaard's mean difference of rate at equal quality to the anchor, over the common range, from mean "
    "rates and qualities; negative: less rate",
}
"""What each column means; written into the result."""


class CodedRow(NamedTuple):
    """One image, one codec, one setting. Attributes: see `COMPARE_DEFINITIONS`."""

    codec: str
    setting: str
    image: str
    file_bytes: int
    file_bpp: float
    psnr_db: float
    ms_ssim: float
    encode_s: float
    decode_s: float


class CodedPoint(NamedTuple):
    """One codec at one setting, over all images. Attributes: see `COMPARE_DEFINITIONS`."""

    codec: str
    setting: str
    file_bpp: float
    psnr_db: float
    ms_ssim: float
    ms_ssim_db: float
    encode_s_per_mpixel: float
    decode_s_per_mpixel: float


@dataclass(frozen=True)
class CodecResult:
    """All that was measured of one codec.

    Attributes:
        name, label, settings: of the codec. values: of its settings, such as numbers of channels.
        rows: for each value, a row an image. points: for each value, over all images.
    """

    name: str
    label: str
    settings: str
    values: tuple[float, ...]
    rows: tuple[tuple[CodedRow, ...], ...]
    points: tuple[CodedPoint, ...]

    def curve(self, quality: Quality = "psnr_db") -> Curve:
        """Rate and quality in dB, PSNR or MS-SSIM.

        Raises:
            ConfigError: MS-SSIM of images too small for it.
        """
        values = tuple(getattr(point, quality) for point in self.points)
        if any(math.isnan(value) for value in values):
            raise ConfigError(
                f"MS-SSIM needs images of at least {MS_SSIM_MIN_SIDE} pixels a side; leave smaller ones out"
            )
        return Curve(self.name, self.label, tuple(p.file_bpp for p in self.points), values, "file_bpp", self.settings)

    def seconds_per_mpixel(self) -> tuple[float, float]:
        """Median over all settings of the time to encode and to decode a million pixels."""
        encode, decode = zip(*[point[-2:] for point in self.points], strict=True)
        return statistics.median(encode), statistics.median(decode)


class Difference(NamedTuple):
    """A BD-rate, or why there is none.

    Attributes:
        percent: see `COMPARE_DEFINITIONS`; None if refused. low_db, high_db: the common range.
        refusal: what forbids it and what to do; empty if nothing.
    """

    percent: float | None
    low_db: float | None = None
    high_db: float | None = None
    refusal: str = ""


class Matched(NamedTuple):
    """A file of one image whose size is near a wanted one.

    Attributes:
        codec, setting, file_bpp, psnr_db, ms_ssim: see `COMPARE_DEFINITIONS`. pixels: decoded.
        close: whether the size is within a quarter of what was wanted.
    """

    codec: str
    setting: str
    file_bpp: float
    psnr_db: float
    ms_ssim: float
    pixels: Pixels
    close: bool


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison, with all that is needed to read and repeat it.

    Attributes:
        command: as typed. model: its name. model_id: 8 hex digits. data: which images. sizes: name, width and height of
        each. codecs: the model first. anchor: name of the codec that BD-rates refer to. versions: of the software.
        references: curves measured elsewhere, for the plots. extra: anything else that is JSON.
    """

    command: str
    model: str
    model_id: str
    data: str
    sizes: tuple[tuple[str, int, int], ...]
    codecs: tuple[CodecResult, ...]
    anchor: str
    references: tuple[Curve, ...] = ()
    versions: Mapping[str, str] = field(default_factory=lambda: {**software_versions(), **library_versions()})
    extra: Mapping[str, Any] = field(default_factory=dict)

    def differences(self) -> dict[Quality, dict[str, Difference]]:
        """BD-rates against the anchor, by quality and codec."""
        return {quality: differences(self.codecs, self.anchor, quality) for quality in ("psnr_db", "ms_ssim_db")}

    def refusals(self) -> list[str]:
        """A sentence for each reason why BD-rates are missing."""
        found: dict[tuple[str, str], list[str]] = {}
        for quality, by_codec in self.differences().items():
            name = "PSNR" if quality == "psnr_db" else "MS-SSIM"
            for codec in self.codecs:
                if refusal := by_codec[codec.name].refusal:
                    found.setdefault((name, refusal), []).append(codec.label)
        return [f"no BD-rate by {name} of {', '.join(labels)}: {why}" for (name, why), labels in found.items()]

    def highest_rate(self) -> float:
        """Rates up to which a plot is worth reading: half as much again as the model's, and where every codec begins."""
        rates = [[point.file_bpp for point in codec.points] for codec in self.codecs]
        return max(1.5 * max(rates[0]), 1.2 * max(map(min, rates)))

    def to_dict(self) -> dict[str, Any]:
        """As plain data; what is not defined is None."""
        bd = self.differences()
        codecs = []
        for codec in self.codecs:
            encode, decode = codec.seconds_per_mpixel()
            codecs.append(
                {
                    "name": codec.name,
                    "label": codec.label,
                    "settings": codec.settings,
                    "encode_s_per_mpixel": encode,
                    "decode_s_per_mpixel": decode,
                    "bd_rate": {quality: bd[quality][codec.name]._asdict() for quality in bd},
                    "points": [_plain(point) for point in codec.points],
                }
            )
        return {
            "format": 1,
            "command": self.command,
            "model": self.model,
            "model_id": self.model_id,
            "data": self.data,
            "images": [{"name": name, "width": width, "height": height} for name, width, height in self.sizes],
            "threads": 1,
            "versions": dict(self.versions),
            "definitions": COMPARE_DEFINITIONS,
            "anchor": self.anchor,
            "codecs": codecs,
            "references": [
                {"name": c.name, "label": c.label, "rate": c.rate, "source": c.source, "bpp": c.rates_bpp, "psnr_db": c.psnr_db}
                for c in self.references
            ],
            "extra": dict(self.extra),
        }  # fmt: skip

    def to_json(self) -> str:
        """As strict JSON."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(row: Any) -> dict[str, Any]:
    return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in row._asdict().items()}


def library_versions() -> dict[str, str]:
    """Versions of the codecs inside Pillow."""
    names = {"libjpeg-turbo": "libjpeg_turbo", "libwebp": "webp", "openjpeg": "jpg_2000", "libavif": "avif"}
    return {name: features.version(feature) or "not there" for name, feature in names.items()}


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
    """At most so many of a sequence, evenly spread, with both ends; of one the middle.

    Example:
        >>> spread([1, 2, 3, 4, 5], 3), spread([1, 2, 3], 1), spread([1, 2], 9)
        ([1, 3, 5], [2], [1, 2])
    """
    if count is None or count >= len(values):
        return list(values)
    if count == 1:
        return [values[len(values) // 2]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def suited_images(codec: Codec, images: Images) -> Images:
    """Colour images as the model codes them.

    Args:
        codec: the model. images: names and pixels (H, W, 3).

    Raises:
        ConfigError: a picture in colour for a model of grey ones.
    """
    if not codec.grey:
        return images
    for name, pixels in images:
        if (pixels != pixels[..., :1]).any():
            family = codec.config.to_dict()["family"]
            raise ConfigError(
                f"{codec.name} (family {family}) codes grey pictures and {name} is in colour; compare with a model of "
                "colour pictures, such as --model photo, or give grey images"
            )
    return [(name, np.ascontiguousarray(pixels[..., 0])) for name, pixels in images]


def compare_codecs(
    codec: Codec,
    images: Images,
    channels: Sequence[int],
    classic: Sequence[str],
    *,
    rates: int | None = None,
    effort: int | None = None,
    progress: Callable[[int], Any] = lambda count: None,
) -> tuple[CodecResult, ...]:
    """Code and decode every image with a model at several numbers of channels and with classic codecs at their qualities.

    Args:
        codec: the model. images: names and pixels, (H, W) or (H, W, 3) as the model codes them; sizes may differ.
        channels: numbers of active channels, at least 1 each. classic: names of `CLASSIC_CODECS`.
        rates: at most so many qualities of each of these, evenly spread. effort: the model's encoder, as `Codec.compress`.
        progress: called with 1 for each image and codec that is done.

    Raises:
        BitstreamError: bytes of the model that do not decode to the symbols they came from.
        UnsupportedImageError: a picture that a codec cannot code. ConfigError: Pillow was built without a codec.
        ValueError: no images, no channels, or no such codec.
    """
    if not images or not channels or min(channels) < 1:
        raise ValueError(f"{len(images)} images at {list(channels)} channels; expected at least one of each")
    check_classic(classic)
    results = []
    with one_thread():
        evaluate_images(codec, images[:1], channels[:1], similarity=False, effort=effort)
        table = []
        for name, pixels in images:
            rows = evaluate_images(codec, [(name, pixels)], channels, effort=effort)
            table.append([_model_row(rows[n][0], n, pixels) for n in channels])
            progress(1)
        settings = f"{codec.config.to_dict()['family']} family, id {codec.model_id.hex()}"
        settings += f", effort {codec.effort_for(effort)}" if codec.config.supports_rdoq else ""
        results.append(_result(MODEL, f"ohmq {codec.name}", settings, channels, table, images))
        for name in classic:
            design = CLASSIC_CODECS[name]
            qualities = spread(design.qualities, rates)
            _code(name, *images[0], qualities[0])
            table = []
            for image, pixels in images:
                table.append([_classic_row(name, image, pixels, quality) for quality in qualities])
                progress(1)
            results.append(_result(name, design.label, design.settings, qualities, table, images))
    return tuple(results)


def _model_row(row: Any, channels: int, pixels: Pixels) -> CodedRow:
    size = round(row.file_bpp * pixels.shape[0] * pixels.shape[1] / 8)
    psnr = min(row.psnr_db, EXACT_DB)
    return CodedRow(MODEL, f"{channels} channels", row.image, size, row.file_bpp, psnr, row.ms_ssim, *row[-2:])


def _classic_row(name: str, image: str, pixels: Pixels, quality: float) -> CodedRow:
    coded = _code(name, image, pixels, quality)
    size = len(coded.data)
    bpp, psnr, similarity = _figures(pixels, coded.pixels, size)
    setting = CLASSIC_CODECS[name].setting(quality)
    return CodedRow(name, setting, image, size, bpp, psnr, similarity, coded.encode_s, coded.decode_s)


def _code(name: str, image: str, pixels: Pixels, quality: float) -> Coded:
    try:
        return code_classic(name, pixels, quality)
    except UnsupportedImageError as error:
        raise UnsupportedImageError(f"{image}: {error}; leave the image or {name} out") from error


def _figures(pixels: Pixels, decoded: Pixels, size: int) -> tuple[float, float, float]:
    """Bits per pixel, PSNR, MS-SSIM."""
    planes = [np.moveaxis(np.atleast_3d(array), -1, 0)[None] for array in (pixels, decoded)]
    bpp = 8 * size / (pixels.shape[0] * pixels.shape[1])
    return bpp, min(psnr_db(pixels, decoded), EXACT_DB), float(ms_ssim(*planes)[0])


def _result(
    name: str, label: str, settings: str, values: Sequence[float], table: Sequence[Sequence[CodedRow]], images: Images
) -> CodecResult:
    mpixels = [pixels.shape[0] * pixels.shape[1] / 1e6 for _, pixels in images]
    rows = tuple(zip(*table, strict=True))  # by value
    points = []
    for of_value in rows:
        bpp, psnr, similarity = (
            math.fsum(getattr(row, column) for row in of_value) / len(of_value)
            for column in ("file_bpp", "psnr_db", "ms_ssim")
        )
        encode, decode = (
            statistics.median(getattr(row, column) / size for row, size in zip(of_value, mpixels, strict=True))
            for column in ("encode_s", "decode_s")
        )
        points.append(
            CodedPoint(name, of_value[0].setting, bpp, psnr, similarity, _db(similarity), float(encode), float(decode))
        )
    return CodecResult(name, label, settings, tuple(values), rows, tuple(points))


def _db(similarity: float) -> float:
    return similarity if math.isnan(similarity) else -10 * math.log10(max(1 - similarity, 10 ** (-EXACT_DB / 10)))


def differences(codecs: Sequence[CodecResult], anchor: str, quality: Quality) -> dict[str, Difference]:
    """BD-rate of each codec against one of them; where curves do not allow it, why.

    Raises:
        ValueError: the anchor is none of the codecs.
    """
    by_name = {codec.name: codec for codec in codecs}
    if anchor not in by_name:
        raise ValueError(f"anchor {anchor!r} is none of {', '.join(by_name)}")
    out = {}
    for name, codec in by_name.items():
        try:
            base, test = by_name[anchor].curve(quality), codec.curve(quality)
        except ConfigError as error:
            out[name] = Difference(None, refusal=str(error))
            continue
        try:
            out[name] = Difference(*bd_rate(base.rates_bpp, base.psnr_db, test.rates_bpp, test.psnr_db))
        except ConfigError as error:
            out[name] = Difference(None, refusal=f"{error}; code more rates, or choose another anchor")
    return out


def match_rates(
    codec: Codec, images: Images, results: Sequence[CodecResult], number: int, wanted_bpp: Sequence[float]
) -> list[list[Matched]]:
    """Files of one image at (nearly) equal size: the model's nearest to each wanted rate, and the others' nearest to that.

    Args:
        codec: the model. images, results: of `compare_codecs`. number: of the image. wanted_bpp: rates.

    Returns:
        For each different file of the model that the wanted rates lead to: one `Matched` a codec, the model first.
    """
    name, pixels = images[number]
    area = pixels.shape[0] * pixels.shape[1]
    model = results[0]
    sizes = {int(n): rows[number].file_bytes for n, rows in zip(model.values, model.rows, strict=True)}
    chosen = {
        min(sizes, key=lambda n, bpp=bpp: abs(math.log(sizes[n] * 8 / area / bpp))): bpp  # type: ignore[misc]
        for bpp in wanted_bpp
    }
    matches = []
    for channels in sorted(chosen):
        data = codec.compress(pixels, channels=channels, layers=1)
        decoded = np.asarray(codec.decompress(data))
        figures = _figures(pixels, decoded, len(data))
        group = [Matched(MODEL, f"{channels} channels", *figures, decoded, True)]
        for result in results[1:]:
            quality, coded = _nearest(result.name, name, pixels, len(data))
            figures = _figures(pixels, coded.pixels, len(coded.data))
            close = abs(len(coded.data) / len(data) - 1) <= MATCH_TOLERANCE
            setting = CLASSIC_CODECS[result.name].setting(quality)
            group.append(Matched(result.name, setting, *figures, coded.pixels, close))
        matches.append(group)
    return matches


def _nearest(name: str, image: str, pixels: Pixels, size: int) -> tuple[float, Coded]:
    """The file of a classic codec whose size is nearest, by bisection of its quality."""
    if CLASSIC_CODECS[name].by_rate:
        quality = 8 * size / (pixels.shape[0] * pixels.shape[1])
        return quality, _code(name, image, pixels, quality)
    low, high = 0, 100
    tried = {}
    while low <= high:
        middle = (low + high) // 2
        tried[middle] = _code(name, image, pixels, middle)
        if len(tried[middle].data) < size:
            low = middle + 1
        else:
            high = middle - 1
    best = min(tried, key=lambda quality: abs(math.log(len(tried[quality].data) / size)))
    return best, tried[best]
