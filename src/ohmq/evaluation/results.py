"""Results as data: rate–distortion points, curves, and the JSON and CSV files that keep them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ohmq.errors import ConfigError
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.provenance import software_versions

__all__ = ["DEFINITIONS", "Curve", "ImageRow", "RateName", "RatePoint", "ResultFile"]

RESULT_FORMAT = 1

RateName = Literal["estimated_bpp", "payload_bpp", "file_bpp"]

DEFINITIONS: dict[str, str] = {
    "channels": "active quantization channels",
    "fraction": "share of the channels between the model's minimum and maximum that is active; below 0: fewer than that",
    "estimated_bpp": "-log2 of the probabilities of the symbols, bits per pixel, mean over images",
    "payload_bpp": "bytes of the entropy coder alone, bits per pixel, mean over images",
    "file_bpp": "all bytes of the file, bits per pixel, mean over images",
    "psnr_db": "PSNR of 8-bit pixels in dB, mean over images",
    "ssim": "SSIM (11x11 Gaussian window, sigma 1.5, windows inside the image only), mean over images",
    "ms_ssim": "MS-SSIM of five scales, mean over images; nan below 176 pixels a side",
    "encode_s": "seconds to compress one image, mean over images",
    "decode_s": "seconds to decompress one image, mean over images",
}
"""What each column of a result means; written into every result file."""


class RatePoint(NamedTuple):
    """One rate of one model: means over the images of a set.

    `DEFINITIONS` says what each value is. What was not measured is NaN.
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


class ImageRow(NamedTuple):
    """The same of one image at one rate.

    Attributes:
        image: its name; "avg" for the mean. Others: see `DEFINITIONS`, of this image alone.
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


@dataclass(frozen=True)
class Curve:
    """Rate–distortion points to compare or draw.

    Attributes:
        name: short, for reference. label: for people. rates_bpp, psnr_db: of the points, as measured, in any order.
        rate: which rate it is. source: where the figures come from.

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
    """What an evaluation gives, with all that is needed to read and repeat it.

    Attributes:
        command: the command line, as typed. model: name. model_id: 8 hex digits. data: which images, and how many.
        points: in order of rate. versions: of the software. definitions: of the columns. extra: anything else that is
        JSON, such as the name of the model's training command.
    """

    command: str
    model: str
    model_id: str
    data: str
    points: tuple[RatePoint, ...]
    versions: Mapping[str, str] = field(default_factory=software_versions)
    definitions: Mapping[str, str] = field(default_factory=lambda: dict(DEFINITIONS))
    extra: Mapping[str, Any] = field(default_factory=dict)

    def curve(self, rate: RateName = "payload_bpp", label: str | None = None) -> Curve:
        """The points as a curve over one of the three rates."""
        return Curve(
            name=self.model,
            label=self.model if label is None else label,
            rates_bpp=tuple(getattr(point, rate) for point in self.points),
            psnr_db=tuple(point.psnr_db for point in self.points),
            rate=rate,
            source=self.command,
        )

    def to_json(self) -> str:
        """As strict JSON: NaN is null, an infinite PSNR the string "inf"."""
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

        Raises:
            OutputExistsError: the file exists and force is not set.
        """
        write_atomically(Path(path), self.to_json().encode(), force=force)

    @classmethod
    def read(cls, path: Path | str) -> "ResultFile":
        """Read what `write` wrote.

        Raises:
            ConfigError: missing, or not a result file of this format.
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
