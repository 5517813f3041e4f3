"""Results of a comparison of codecs as data: rows, points, BD-rates, and the JSON that keeps them."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ohmq.errors import ConfigError
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.classic import library_versions
from ohmq.evaluation.qualities import EXACT_DB, QUALITIES, Quality
from ohmq.evaluation.results import Curve
from ohmq.metrics import MS_SSIM_MIN_SIDE
from ohmq.utils.provenance import software_versions

__all__ = [
    "COMPARE_DEFINITIONS",
    "MODEL",
    "CodecResult",
    "CodedPoint",
    "CodedRow",
    "Comparison",
    "Difference",
    "differences",
]

MODEL = "model"
"""Name of the model among the codecs."""

COMPARE_DEFINITIONS: dict[str, str] = {
    "codec": f"'{MODEL}' or a classic codec",
    "setting": "quality or active channels of the model; quality or rate in bits per pixel asked of a classic codec",
    "file_bytes": "all bytes of the file",
    "file_bpp": "all bytes of the file, bits per pixel; mean over several images",
    "psnr_db": f"PSNR of 8-bit pixels (RGB, or grey), dB; an exact copy counts as {EXACT_DB:g}; mean over several images",
    "ms_ssim": f"MS-SSIM of five scales, mean over the channels; none below {MS_SSIM_MIN_SIDE} pixels a side; "
    "mean over several images",
    "ms_ssim_db": f"-10 log10(1 - ms_ssim), of the mean over images; at most {EXACT_DB:g}",
    "ssimulacra2": "SSIMULACRA2 score as of libjxl's tool, at most 100; mean over several images",
    "psnr_hvs_m_db": f"PSNR-HVS-M of luma, dB; an exact copy counts as {EXACT_DB:g}; mean over several images",
    "encode_s": "seconds from pixels to file, in memory, one thread, model loaded; JPEG: both kinds of file that are tried",
    "decode_s": "seconds from file to pixels, likewise",
    "encode_s_per_mpixel": "encode_s for a million pixels; the median over images",
    "decode_s_per_mpixel": "decode_s for a million pixels; the median over images",
    "bd_rate_percent": "Bjøntegaard's mean difference of rate at equal quality to the anchor, over the common range, from mean "
    "rates and qualities; negative: less rate",
}
"""Definitions of the columns, by name; written into the result."""


class CodedRow(NamedTuple):
    """Measures of one image, coded by one codec at one setting. `COMPARE_DEFINITIONS` defines the columns."""

    codec: str
    setting: str
    image: str
    file_bytes: int
    file_bpp: float
    psnr_db: float
    ms_ssim: float
    encode_s: float
    decode_s: float
    ssimulacra2: float = math.nan
    psnr_hvs_m_db: float = math.nan


class CodedPoint(NamedTuple):
    """Measures of one codec at one setting over all images. `COMPARE_DEFINITIONS` defines the columns."""

    codec: str
    setting: str
    file_bpp: float
    psnr_db: float
    ms_ssim: float
    ms_ssim_db: float
    encode_s_per_mpixel: float
    decode_s_per_mpixel: float
    ssimulacra2: float = math.nan
    psnr_hvs_m_db: float = math.nan


@dataclass(frozen=True)
class CodecResult:
    """All measures of one codec.

    Attributes:
        name: name of the codec.
        label: its name for people.
        settings: its fixed settings, for people.
        values: values of the setting that varies, such as qualities or numbers of channels.
        rows: for each value, a row an image.
        points: for each value, the measures over all images.
    """

    name: str
    label: str
    settings: str
    values: tuple[float, ...]
    rows: tuple[tuple[CodedRow, ...], ...]
    points: tuple[CodedPoint, ...]

    def curve(self, quality: Quality = "psnr_db") -> Curve:
        """Build the curve of quality over rate.

        Args:
            quality: name of the quality.

        Raises:
            ConfigError: images too small for it, or it was not measured.
        """
        values = tuple(getattr(point, quality) for point in self.points)
        if any(math.isnan(value) for value in values):
            raise ConfigError(
                f"{QUALITIES[quality].name} needs images of at least {QUALITIES[quality].min_side} pixels a side; leave "
                "smaller ones out"
            )
        return Curve(self.name, self.label, tuple(p.file_bpp for p in self.points), values, "file_bpp", self.settings)

    def seconds_per_mpixel(self) -> tuple[float, float]:
        """Compute the medians over all settings of the seconds to encode and to decode a million pixels."""
        encode = statistics.median(point.encode_s_per_mpixel for point in self.points)
        return encode, statistics.median(point.decode_s_per_mpixel for point in self.points)


class Difference(NamedTuple):
    """A BD-rate, or the reason why there is none.

    Attributes:
        percent: see `COMPARE_DEFINITIONS`; None if refused.
        low: lower end of the range of quality that both curves cover.
        high: upper end of that range.
        refusal: the reason and the remedy; empty if there is a BD-rate.
    """

    percent: float | None
    low: float | None = None
    high: float | None = None
    refusal: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison, with all that is needed to read and repeat it.

    Attributes:
        command: the command line, as typed.
        model: name of the model.
        model_id: id of the model, 8 hex digits.
        data: name of the set of images.
        sizes: name, width and height in pixels of each image.
        codecs: the codecs, the model first.
        anchor: name of the codec that BD-rates refer to.
        references: curves of PSNR measured elsewhere, for the plots.
        qualities: qualities that were measured, PSNR first.
        versions: versions of the software, by name.
        extra: further content, as JSON.
    """

    command: str
    model: str
    model_id: str
    data: str
    sizes: tuple[tuple[str, int, int], ...]
    codecs: tuple[CodecResult, ...]
    anchor: str
    references: tuple[Curve, ...] = ()
    qualities: tuple[Quality, ...] = tuple(QUALITIES)
    versions: Mapping[str, str] = field(default_factory=lambda: {**software_versions(), **library_versions()})
    extra: Mapping[str, Any] = field(default_factory=dict)

    def differences(self) -> dict[Quality, dict[str, Difference]]:
        """Compute the BD-rates against the anchor, by quality and codec."""
        return {quality: differences(self.codecs, self.anchor, quality) for quality in self.qualities}

    def drawn_qualities(self) -> tuple[Quality, ...]:
        """List the qualities that every point has, for plots."""
        points = [point for codec in self.codecs for point in codec.points]
        return tuple(q for q in self.qualities if not any(math.isnan(getattr(point, q)) for point in points))

    def refusals(self) -> list[str]:
        """Give a sentence for each reason why BD-rates are missing."""
        labels: dict[tuple[str, str], list[str]] = {}
        for quality, by_codec in self.differences().items():
            for codec in self.codecs:
                if refusal := by_codec[codec.name].refusal:
                    labels.setdefault((QUALITIES[quality].name, refusal), []).append(codec.label)
        return [f"no BD-rate by {name} of {', '.join(codecs)}: {refusal}" for (name, refusal), codecs in labels.items()]

    def highest_rate(self) -> float:
        """Choose the highest rate of a plot, in bits per pixel: 1.5 times the model's, and where every codec has begun."""
        rates = [[point.file_bpp for point in codec.points] for codec in self.codecs]
        return max(1.5 * max(rates[0]), 1.2 * max(map(min, rates)))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data; undefined values are None."""
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
            "qualities": self.qualities,
            "anchor": self.anchor,
            "codecs": codecs,
            "references": [
                {"name": c.name, "label": c.label, "rate": c.rate, "source": c.source, "bpp": c.rates_bpp, "psnr_db": c.psnr_db}
                for c in self.references
            ],
            "extra": dict(self.extra),
        }  # fmt: skip

    def to_json(self) -> str:
        """Convert to strict JSON."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(row: Any) -> dict[str, Any]:
    return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in row._asdict().items()}


def differences(codecs: Sequence[CodecResult], anchor: str, quality: Quality) -> dict[str, Difference]:
    """Compute the BD-rate of each codec against one of them, or the reason why there is none.

    Args:
        codecs: the codecs.
        anchor: name of the one that BD-rates refer to.
        quality: name of the quality.

    Returns:
        A difference for each codec, by name.

    Raises:
        ValueError: the anchor is none of the codecs.
    """
    by_name = {codec.name: codec for codec in codecs}
    if anchor not in by_name:
        raise ValueError(f"anchor {anchor!r} is none of {', '.join(by_name)}")
    by_codec = {}
    for name, codec in by_name.items():
        try:
            base, test = by_name[anchor].curve(quality), codec.curve(quality)
        except ConfigError as error:
            by_codec[name] = Difference(None, refusal=str(error))
            continue
        points = base.rates_bpp, base.psnr_db, test.rates_bpp, test.psnr_db
        try:
            by_codec[name] = Difference(*bd_rate(*points, unit=QUALITIES[quality].unit))
        except ConfigError as error:
            by_codec[name] = Difference(None, refusal=f"{error}; code more rates, or choose another anchor")
    return by_codec
