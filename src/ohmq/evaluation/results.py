"""Results as data: rate–distortion points, curves, and the JSON and CSV files that keep them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ohmq.errors import ConfigError
from ohmq.evaluation.qualities import QUALITIES, Quality, ms_ssim_to_db
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.provenance import software_versions

__all__ = ["DEFINITIONS", "Curve", "ImageRow", "RateName", "RatePoint", "ResultFile"]

RESULT_FORMAT = 1
"""Version of the result file that this release writes and reads."""

RateName = Literal["estimated_bpp", "payload_bpp", "file_bpp"]
"""Name of one of the three rates."""

DEFINITIONS: dict[str, str] = {
    "channels": "active quantization channels",
    "fraction": "share of the channels between the model's minimum and maximum that is active; below 0: fewer than that",
    "estimated_bpp": "-log2 of the probabilities of the symbols, bits per pixel, mean over images",
    "payload_bpp": "bytes of the entropy coder alone, bits per pixel, mean over images",
    "file_bpp": "all bytes of the file, bits per pixel, mean over images",
    "psnr_db": "PSNR of 8-bit pixels in dB, mean over images",
    "ssim": "SSIM (11x11 Gaussian window, sigma 1.5, windows inside the image only), mean over images",
    "ms_ssim": "MS-SSIM of five scales, mean over images; nan below 176 pixels a side",
    "ssimulacra2": "SSIMULACRA2 score as of libjxl's tool, at most 100, mean over images; nan below 8 pixels a side",
    "psnr_hvs_m_db": "PSNR-HVS-M of luma in dB, mean over images; nan below 8 pixels a side",
    "encode_s": "seconds to compress one image, mean over images",
    "decode_s": "seconds to decompress one image, mean over images",
}
"""Definitions of the columns, by name; written into every result file."""


class RatePoint(NamedTuple):
    """Means over the images of a set, for one model at one rate.

    `DEFINITIONS` defines the values; those that were not measured are NaN.
    """

    channels: int
    fraction: float
    estimated_bpp: float
    payload_bpp: float
    file_bpp: float
    psnr_db: float
    ssim: float = math.nan
    ms_ssim: float = math.nan
    encode_s: float = math.nan
    decode_s: float = math.nan
    ssimulacra2: float = math.nan
    psnr_hvs_m_db: float = math.nan


class ImageRow(NamedTuple):
    """Measures of one image at one rate.

    `DEFINITIONS` defines the values, here of this image alone. The field `image` is its name, or "avg" for the mean.
    """

    image: str
    psnr_db: float
    ssim: float
    ms_ssim: float
    estimated_bpp: float
    payload_bpp: float
    file_bpp: float
    encode_s: float = math.nan
    decode_s: float = math.nan
    ssimulacra2: float = math.nan
    psnr_hvs_m_db: float = math.nan


@dataclass(frozen=True)
class Curve:
    """A rate–distortion curve to compare or draw.

    Attributes:
        name: short name for reference.
        label: name for people.
        rates_bpp: rates of the points in bits per pixel, in any order.
        psnr_db: PSNR of the points in dB, or another quality, one a rate.
        rate: name of the rate.
        source: source of the figures.

    Raises:
        ValueError: no points, or not as many rates as PSNRs.
    """

    name: str
    label: str
    rates_bpp: tuple[float, ...]
    psnr_db: tuple[float, ...]
    rate: RateName = "payload_bpp"
    source: str = ""

    def __post_init__(self) -> None:
        if len(self.rates_bpp) != len(self.psnr_db) or not self.rates_bpp:
            raise ValueError(
                f"curve {self.name}: {len(self.rates_bpp)} rates and {len(self.psnr_db)} PSNRs; "
                "expected as many of each, at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """Results of an evaluation, with all that is needed to read and repeat it.

    Attributes:
        command: the command line, as typed.
        model: name of the model.
        model_id: id of the model, 8 hex digits.
        data: name of the set of images, and their number.
        points: points in order of rate.
        versions: versions of the software, by name.
        definitions: definitions of the columns, by name.
        extra: further content, as JSON, such as the model's training options.
    """

    command: str
    model: str
    model_id: str
    data: str
    points: tuple[RatePoint, ...]
    versions: Mapping[str, str] = field(default_factory=software_versions)
    definitions: Mapping[str, str] = field(default_factory=lambda: dict(DEFINITIONS))
    extra: Mapping[str, Any] = field(default_factory=dict)

    def curve(self, rate: RateName = "payload_bpp", label: str | None = None, quality: Quality = "psnr_db") -> Curve:
        """Build the curve of a quality over one of the three rates.

        Args:
            rate: name of the rate.
            label: name for people; default: the model's name.
            quality: name of the quality.

        Raises:
            ConfigError: the quality was not measured.
        """
        values = tuple(
            ms_ssim_to_db(point.ms_ssim) if quality == "ms_ssim_db" else getattr(point, quality)
            for point in self.points
        )
        if any(map(math.isnan, values)):
            metric = QUALITIES[quality].metric
            raise ConfigError(
                f"{self.model} on {self.data} has no {QUALITIES[quality].name}; measure it with ohmq evaluate --metrics {metric}"
            )
        return Curve(
            name=self.model,
            label=self.model if label is None else label,
            rates_bpp=tuple(getattr(point, rate) for point in self.points),
            psnr_db=values,
            rate=rate,
            source=self.command,
        )

    def to_json(self) -> str:
        """Convert to strict JSON: NaN is null, an infinite PSNR the string "inf"."""
        content = {
            "format": RESULT_FORMAT,
            "command": self.command,
            "model": self.model,
            "model_id": self.model_id,
            "data": self.data,
            "versions": dict(self.versions),
            "definitions": dict(self.definitions),
            "extra": dict(self.extra),
            "points": [{key: _plain(value) for key, value in point._asdict().items()} for point in self.points],
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """Write as JSON; `read` is the inverse.

        Args:
            path: the file.
            force: whether to replace an existing file.

        Raises:
            OutputExistsError: the file exists and force is not set.
        """
        write_atomically(Path(path), self.to_json().encode(), force=force)

    @classmethod
    def read(cls, path: Path | str) -> "ResultFile":
        """Read a result file; `write` is the inverse.

        Args:
            path: the file.

        Raises:
            ConfigError: the file is missing, or is not a result file of this format.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content.pop("format") != RESULT_FORMAT:
                raise ConfigError(f"{path} has another result format; this release reads format {RESULT_FORMAT}")
            points = tuple(
                RatePoint(**{key: _number(value) for key, value in point.items()}) for point in content.pop("points")
            )
            return cls(points=points, **content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} is not a result file of ohmq ({type(error).__name__}: {error})") from error


def _plain(value: float) -> float | str | None:
    return None if math.isnan(value) else value if math.isfinite(value) else str(float(value))


def _number(value: float | str | None) -> Any:
    return math.nan if value is None else float(value) if isinstance(value, str) else value
