"""Options of the encoder, validated once; the Python call, the command line and the Pillow plugin all build this object."""

import dataclasses
import math
import operator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from ohmq.bitstream.format import DEFAULT_MAX_PIXELS, MAX_STEP, MIN_STEP, STEPS_A_LEVEL, bytes_of_rate
from ohmq.encoder.tuning import TUNINGS, Tuning
from ohmq.errors import ConfigError
from ohmq.models.config import ModelConfig

__all__ = ["DEFAULT_EFFORT", "DEFAULT_MAX_PIXELS", "DEFAULT_QUALITY", "MAX_EFFORT", "TARGETS", "EncodeOptions"]

DEFAULT_EFFORT = 1
"""Refinement passes of the encoder by default, for models that support RDOQ."""
MAX_EFFORT = 2
DEFAULT_QUALITY = 80.0
"""Quality by default, 0 to 100, for models that have a quality scale; `docs/choose-a-bitrate.md` gives the reason."""
TARGETS = ("quality", "fraction", "channels", "bpp", "max_bytes", "psnr", "ssimulacra2", "residual")
"""Options that say how large or how good a file is, of which one at most is given."""


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """Options of `ohmq.Codec.compress`.

    At most one of the first eight is a target for size or quality. Without any, quality is `DEFAULT_QUALITY`; models without a
    quality scale, and files at a fixed rate, get all channels.

    Attributes:
        quality: number of channels that makes the image look so good, 0 to 100 (all channels), on the model's
            `ohmq.encoder.quality_scale.QualityScale`. The shipped model "photo" has one.
        fraction: fraction of the adaptive range of channels, in [0, 1].
        channels: number of channels.
        bpp: write the largest file of at most this rate, in bits per pixel of the whole file.
        max_bytes: write the largest file of at most this size, in bytes.
        psnr: write the smallest file whose decoded image has at least this PSNR, in dB, over the colours of all pixels
            that are not fully transparent.
        ssimulacra2: write the smallest file whose decoded image has at least this SSIMULACRA2 score, 0 to 100: about 90 looks
            like the original, 70 is high, 50 medium and 30 low quality. bpp, max_bytes, psnr and ssimulacra2 end at one of the
            model's cut points; with RDOQ they also end at group boundaries, and λ is scaled by up to 2 to come near the target.
            What all channels do not reach, they reach with a residual.
        residual: all channels, and a residual, which is what the decoded image lacks of the original, with this quantization
            step in grey levels, 1 to 255. 4 is about 41 dB. Photo models only.
        layers: limit on the number of layers, the places where a file can be cut; "all": one for each cut point. Default: 1,
            the smallest file.
        fixed_rate: pack symbols without entropy coding, so that the size is known before.
        flatten: flatten transparency onto white.
        keep_metadata: keep EXIF (orientation 1, since the image is stored upright), XMP, an sRGB profile and, in the EXIF
            data, the resolution.
        psnr_table: store the PSNR after each layer, so that a file can be cut to a PSNR without a model. The encoder
            then decodes the image once for each layer.
        max_pixels: limit on width × height; larger images are refused.
        tile: side of tiles in latent positions (16 pixels), 1 to 256; 0: one piece. Photo models only; default: 128 for
            images of more than 2^23 pixels, which bounds memory, else 0.
        effort: full refinement passes of the encoder (analysis by synthesis), 0 to 2; decoding time stays the same. Needs RDOQ;
            default: `DEFAULT_EFFORT` where it is supported, else 0.
        tune: "visual" spends bits where eyes see errors, "psnr" for the least squared error; decoding stays the same. "visual"
            needs RDOQ; default: "visual" where it is supported, "psnr" else and for a target of PSNR.

    Raises:
        ValueError: an option out of range, more than one target, an unknown tuning, or an effort, a quality or the tuning
            "visual" at a fixed rate.
        TypeError: a target that is no number.
    """

    quality: float | None = None
    fraction: float | None = None
    channels: int | None = None
    bpp: float | None = None
    max_bytes: int | None = None
    psnr: float | None = None
    ssimulacra2: float | None = None
    residual: float | None = None
    layers: int | Literal["all"] = 1
    fixed_rate: bool = False
    flatten: bool = False
    keep_metadata: bool = False
    psnr_table: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    tile: int | None = None
    effort: int | None = None
    tune: Literal["psnr", "visual"] | None = None

    def __post_init__(self) -> None:
        if sum(getattr(self, target) is not None for target in TARGETS) > 1:
            raise ValueError(f"give at most one of {', '.join(TARGETS[:-1])} and {TARGETS[-1]}")
        for name in TARGETS:
            if not isinstance(value := getattr(self, name), Real | None):
                raise TypeError(f"{name} is {value!r}; it must be a number")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}; it must be 0 to 100")
        if self.quality is not None and self.fixed_rate:
            raise ValueError(
                f"quality is {self.quality:g}: its scale does not hold at a fixed rate; give channels or fraction"
            )
        self.layer_limit()
        for name in ("bpp", "max_bytes", "psnr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be positive")
        if self.ssimulacra2 is not None and not 0 < self.ssimulacra2 <= 100:
            raise ValueError(f"ssimulacra2 is {self.ssimulacra2}; it must be above 0 and at most 100")
        if self.residual is not None and not MIN_STEP <= self.residual * STEPS_A_LEVEL <= MAX_STEP:
            raise ValueError(
                f"residual is {self.residual}; its step must be {MIN_STEP // STEPS_A_LEVEL} to {MAX_STEP // STEPS_A_LEVEL}"
            )
        if self.residual is not None and self.fixed_rate:
            raise ValueError(f"residual is {self.residual:g}: there is none at a fixed rate; leave it out")
        if self.effort is not None and self.effort not in range(MAX_EFFORT + 1):
            raise ValueError(f"effort is {self.effort}; it must be 0 to {MAX_EFFORT}")
        if self.effort and self.fixed_rate:
            raise ValueError(
                f"effort is {self.effort}: with a fixed rate, symbols cost the same whatever they are; leave it out"
            )
        if self.tune is not None and self.tune not in TUNINGS:
            raise ValueError(f"tune is {self.tune!r}; it must be {' or '.join(TUNINGS)}")
        if self.tune == "visual" and self.fixed_rate:
            raise ValueError("tune is visual: with a fixed rate, symbols cost the same whatever they are; leave it out")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all options."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def merge(cls, options: "EncodeOptions | None", changes: dict[str, Any]) -> "EncodeOptions":
        """Return options with some of them changed.

        Args:
            options: options to start from; None: the defaults.
            changes: options by name.

        Raises:
            TypeError: an option that does not exist.
            ValueError: as the class.
        """
        if unknown := sorted(set(changes) - set(cls.names())):
            raise TypeError(f"no option {unknown[0]!r}; choose from {', '.join(cls.names())}")
        return dataclasses.replace(options or cls(), **changes)

    @property
    def has_target(self) -> bool:
        """Whether a target for size or quality is given."""
        return any(getattr(self, target) is not None for target in TARGETS)

    def layer_limit(self) -> int | None:
        """Return the limit on the number of layers; None: one for each cut point.

        Raises:
            ValueError: a number below 1, or a word other than "all".
            TypeError: neither a whole number nor a word.
        """
        if self.layers == "all":
            return None
        if isinstance(self.layers, str) or operator.index(self.layers) < 1:
            raise ValueError(f"layers is {self.layers!r}; it must be a number from 1, or 'all'")
        return operator.index(self.layers)

    def quality_for(self, has_scale: bool, name: str) -> float | None:
        """Return the quality at which compressing aims; None: another target, or all channels.

        Args:
            has_scale: whether the model has a quality scale.
            name: of the model, for messages.

        Raises:
            ConfigError: a quality, and a model without a scale; ``name`` is its name.
        """
        if self.quality is not None and not has_scale:
            raise ConfigError(
                f"quality is {self.quality:g}: {name} has no quality scale; give channels, fraction, bpp, max_bytes, psnr or "
                "ssimulacra2"
            )
        if not self.has_target and has_scale and not self.fixed_rate:
            return DEFAULT_QUALITY
        return self.quality

    def residual_step(self, has_residuals: bool, name: str) -> int | None:
        """Return the step of the residual, as in `ohmq.bitstream.format.ResidualInfo`; None: none is asked for.

        Args:
            has_residuals: whether the model has residuals.
            name: of the model, for messages.

        Raises:
            ConfigError: a residual, and a model without; ``name`` is its name.
        """
        if self.residual is None:
            return None
        if not has_residuals:
            raise ConfigError(f"residual is {self.residual:g}: {name} is no photo model; leave it out")
        return round(self.residual * STEPS_A_LEVEL)

    def uses_rdoq(self, config: ModelConfig) -> bool:
        """Whether a model chooses symbols by RDOQ with these options.

        Args:
            config: configuration of the model.
        """
        return config.supports_rdoq and not self.fixed_rate

    def effort_for(self, config: ModelConfig, name: str) -> int:
        """Return the number of full refinement passes with a model.

        Args:
            config: configuration of the model.
            name: of the model, for messages.

        Raises:
            ConfigError: an effort, and a model without RDOQ; ``name`` is its name.
        """
        if self.effort is None:
            return DEFAULT_EFFORT if self.uses_rdoq(config) else 0
        if self.effort and not config.supports_rdoq:
            raise ConfigError(f"effort is {self.effort}: {name} is no photo model with RDOQ; leave it out")
        return self.effort

    def tune_for(self, config: ModelConfig, name: str) -> str:
        """Return the name of the tuning with a model, one of `ohmq.encoder.tuning.TUNINGS`.

        Args:
            config: configuration of the model.
            name: of the model, for messages.

        Raises:
            ConfigError: the tuning "visual", and a model without RDOQ; ``name`` is its name.
        """
        if self.tune is None:
            return "visual" if self.uses_rdoq(config) and self.psnr is None else "psnr"
        if self.tune == "visual" and not config.supports_rdoq:
            raise ConfigError(f"tune is visual: {name} is no photo model with RDOQ; leave it out")
        return self.tune

    def tuning_for(self, config: ModelConfig, name: str) -> Tuning:
        """Return the tuning with a model; errors as `tune_for`.

        Args:
            config: configuration of the model.
            name: of the model, for messages.
        """
        return TUNINGS[self.tune_for(config, name)]

    def channel_count(self, config: ModelConfig) -> int:
        """Return the number of channels that fraction or channels ask of a model; all of them if neither is given.

        Args:
            config: configuration of the model.

        Raises:
            ValueError: a number that the model does not have.
        """
        return config.channel_count(self.fraction, self.channels)

    def byte_limit(self, width: int, height: int) -> int | None:
        """Return the largest size in bytes that bpp or max_bytes allow for an image; None: no limit.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.
        """
        return bytes_of_rate(self.bpp, width, height) if self.bpp is not None else self.max_bytes
