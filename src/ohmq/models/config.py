"""Model configurations: frozen dataclasses, written into every checkpoint and model file."""

import dataclasses
import math
import operator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ohmq.errors import ConfigError

__all__ = [
    "BLOCK",
    "FAMILIES",
    "GREY_LEVELS",
    "MnistConfig",
    "ModelConfig",
    "OpenImagesConfig",
    "PhotoConfig",
    "active_channels",
    "config_from_dict",
]

BLOCK = 16
"""Pixels of a block of a photograph, each side: the stride of the latent."""
GREY_LEVELS = 32.0
"""Grey levels (of 255) that are 1 in the space of photo models and, as their block transform is orthonormal, in the latent."""

DISK_NAMES = {
    "residual_quantization": "refinement",
    "checkerboard_groups": "interlaced_groups",
    "distilled_channels": "analysis_patches",
    "supports_rdoq": "priced",
}
"""Names that configuration fields have in model files, checkpoints and experiment files, where these differ from ours.

Model ids are hashes over the names on disk, so these never change.
"""

UNSTATED: dict[str, Any] = {
    "distilled_channels": 0,
    "analysis_blocks": (2, 3),
    "synthesis_blocks": (2, 3),
    "neighbour_hidden": 0,
    "supports_rdoq": False,
}
"""Values of photo configuration fields that a model file leaves out: older models had no such choice."""

QuantizerName = Literal["ohm", "integer", "none"]
PriorName = Literal["static", "context"]


def active_channels(fraction: float, channels_min: int, channels_max: int) -> int:
    r"""How many channels a fraction of the adaptive range stands for.

    $$ n = c_{min} + \lceil f \, (c_{max} - c_{min}) \rceil $$

    Args:
        fraction: f in [0, 1].
        channels_min: c_min >= 0, channels that are always active.
        channels_max: c_max >= c_min, all channels.

    Returns:
        The number of active channels, in [channels_min, channels_max].

    Raises:
        ValueError: an argument is outside its range.

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.

    Example:
        >>> active_channels(0.33, 0, 16)
        6
        >>> active_channels(0.0, 8, 16)
        8
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction is {fraction}; it must lie in [0, 1]")
    if not 0 <= channels_min <= channels_max:
        raise ValueError(f"channels_min {channels_min} and channels_max {channels_max} must satisfy 0 <= min <= max")
    # The tiny slack keeps fractions such as k / C, which floats only approximate, from being rounded one up.
    return channels_min + math.ceil(fraction * (channels_max - channels_min) - 1e-9)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every family shares.

    Attributes:
        image_channels: 1 (grey) or 3 (RGB).
        quantizer: "ohm" (one-hot max), "integer" (rounding) or "none" (distortion only).
        channels_max: C, all quantization channels (for "ohm") or latent channels (for "integer", "none").
        channels_min: channels that are always active; equal to channels_max for a model of one bitrate.
        num_symbols: S, alphabet size of each channel.
        prior: of OHM symbols: "static" as published, or "context" (tables depend on the channels decoded before).
        refinement: the activations of a group see the latent minus the codewords of earlier groups, instead of all
            of it (as published). Decoding is the same.
        context_group: channels of a group of the context prior, or of refinement.
        context_hidden: width of the context prior's networks.
        context_features: learned features a symbol in the context prior.
    """

    image_channels: ClassVar[int] = 3
    supports_tiles: ClassVar[bool] = False
    supports_post_filter: ClassVar[bool] = False
    half_precision: ClassVar[bool] = False
    quantizer: QuantizerName = "ohm"
    channels_max: int = 16
    channels_min: int = 0
    num_symbols: int = 256
    prior: PriorName = "static"
    residual_quantization: bool = False
    context_group: int = 1
    context_hidden: int = 32
    context_features: int = 7

    def __post_init__(self) -> None:
        if self.quantizer not in ("ohm", "integer", "none"):
            raise ConfigError(f"quantizer is {self.quantizer!r}; choose 'ohm', 'integer' or 'none'")
        if self.prior not in ("static", "context"):
            raise ConfigError(f"prior is {self.prior!r}; choose 'static' or 'context'")
        if self.prior == "context" and self.quantizer != "ohm":
            raise ConfigError("the context prior works with the OHM quantizer only; choose prior 'static'")
        if not 0 <= self.channels_min <= self.channels_max or self.channels_max < 1:
            raise ConfigError(
                f"bottleneck channels {self.channels_min} {self.channels_max}: two values need 0 <= min <= max, max >= 1"
            )
        if not 2 <= self.num_symbols <= 65536:
            raise ConfigError(f"num_symbols is {self.num_symbols}; it must lie in 2 to 65536")
        for name in ("context_group", "context_hidden", "context_features"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def supports_rdoq(self) -> bool:
        """Whether the encoder chooses symbols by rate-distortion optimised quantization."""
        return False

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Channels of each group: coded together, given all groups before."""
        if self.prior == "static" and not self.residual_quantization:
            return (self.channels_max,)
        full, rest = divmod(self.channels_max, self.context_group)
        return (self.context_group,) * full + ((rest,) if rest else ())

    @property
    def group_symbols(self) -> tuple[int, ...]:
        """Alphabet size of each group's channels."""
        return (self.num_symbols,) * len(self.group_sizes)

    @property
    def cut_points(self) -> tuple[int, ...]:
        """Numbers of channels at which a file may be cut: all up to 16 channels, else 16 of them, evenly spread."""
        count = min(16, self.channels_max)
        return tuple(math.ceil(self.channels_max * (i + 1) / count) for i in range(count))

    def patch_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the tiles that a picture of this size is coded in: all of it, padded to whole blocks."""
        return -(-height // BLOCK) * BLOCK, -(-width // BLOCK) * BLOCK

    def latent_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latent of a tile: one position a block."""
        return height // BLOCK, width // BLOCK

    def latent_grid(self, width: int, height: int) -> tuple[int, int, int]:
        """Return the shape of an image's symbols, without channels.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.

        Returns:
            (patches, h, w): the number of patches, and the positions of the latent of one patch.
        """
        patch = self.patch_shape(height, width)
        return -(-width // patch[1]) * -(-height // patch[0]), *self.latent_shape(*patch)

    def num_patches(self, width: int, height: int) -> int:
        """Return the number of patches that an image of this size, in pixels, is coded in."""
        return self.latent_grid(width, height)[0]

    def channels_for(self, fraction: float) -> int:
        """Return the number of channels that a fraction of the adaptive range stands for.

        Args:
            fraction: of the range from channels_min to channels_max, in [0, 1].

        Raises:
            ValueError: fraction is outside [0, 1].
        """
        return active_channels(fraction, self.channels_min, self.channels_max)

    def layer_ends(self, channels: int, layers: int | None = None) -> tuple[int, ...]:
        """Return the channels at which layers end: the cut points below ``channels``, thinned to ``layers``, and itself.

        Args:
            channels: number of channels that are coded, 1 to channels_max.
            layers: largest number of layers, at least 1; None: one for each cut point.

        Raises:
            ValueError: channels or layers is outside its range.
        """
        channels = operator.index(channels)
        layers = None if layers is None else operator.index(layers)
        if not 1 <= channels <= self.channels_max:
            raise ValueError(f"channels is {channels}; this model codes 1 to {self.channels_max}")
        if layers is not None and layers < 1:
            raise ValueError(f"layers is {layers}; a file has at least 1")
        ends = [point for point in self.cut_points if point < channels] + [channels]
        if layers is not None and layers < len(ends):
            ends = [ends[math.ceil(len(ends) * (i + 1) / layers) - 1] for i in range(layers)]
        return tuple(ends)

    def channel_count(self, fraction: float | None, channels: int | None) -> int:
        """Return the number of channels to code from a fraction or a number; neither: all channels.

        Args:
            fraction: of the adaptive range, in [0, 1]; ignored if channels is given.
            channels: number of channels, 1 to channels_max.

        Raises:
            ValueError: a value outside its range, or a fraction that stands for no channel.
        """
        if channels is None:
            channels = self.channels_for(1.0 if fraction is None else fraction)
            if channels == 0:
                raise ValueError(
                    f"fraction {fraction} stands for 0 channels; the smallest that codes is {1 / self.channels_max:.4g}"
                )
        self.layer_ends(channels)
        return operator.index(channels)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready dictionary with the key "family"; the inverse of `config_from_dict`."""
        family = next(name for name, cls in FAMILIES.items() if cls is type(self))
        values = {DISK_NAMES.get(key, key): value for key, value in dataclasses.asdict(self).items()}
        return {"family": family, **values}


@dataclass(frozen=True, kw_only=True)
class MnistConfig(ModelConfig):
    """The published network for 28x28 digits; larger pictures are coded as tiles of that size.

    Attributes:
        latent_channels: D of the OHM latent; an integer or unquantized latent has channels_max.
    """

    image_channels: ClassVar[int] = 1
    latent_channels: int = 32

    def patch_shape(self, height: int, width: int) -> tuple[int, int]:
        """28x28, whatever the picture."""
        return 28, 28

    def latent_shape(self, height: int, width: int) -> tuple[int, int]:
        """3x3."""
        return 3, 3

    @property
    def transform_channels(self) -> int:
        """Channels that the analysis transform gives."""
        return self.latent_channels if self.quantizer == "ohm" else self.channels_max


@dataclass(frozen=True, kw_only=True)
class OpenImagesConfig(ModelConfig):
    """The published network for photographs; its latent has channels_max channels."""

    channels_max: int = 480
    num_symbols: int = 32


@dataclass(frozen=True, kw_only=True)
class PhotoConfig(ModelConfig):
    """The photo codec: a 16x16 block transform with convolutional paths; with "integer" its twin for comparison.

    Attributes:
        latent_channels: D, coefficients of the block transform that are kept.
        wide, wider: channels of the convolutions at a quarter and an eighth of the resolution.
        distilled_channels: channels that the quick analysis makes of patches of 8x8 pixels, all its convolutions being at an
            eighth of the resolution; 0: the deep analysis, with convolutions at a half and a quarter.
        analysis_blocks, synthesis_blocks: residual blocks of each transform at a quarter and an eighth.
        groups: channels of each group, sum channels_max; found by the warm start, as are
        alphabets: symbols of the channels of each group, odd, at most num_symbols; empty: num_symbols for all.
        cuts: numbers of channels at which a file may be cut.
        checkerboard_groups: leading groups whose channels are coded in three passes over the positions, the tables of the
            second and third also chosen from the channel's own symbols at neighbours.
        context_projection: channels of each neighbour that the context networks see.
        neighbour_hidden: hidden units of each interlaced channel's own network, which sees its symbols at four neighbours.
        supports_rdoq: the encoder chooses symbols also by the bits that they cost, more so the fewer channels are coded;
            OHM only.
    """

    supports_tiles: ClassVar[bool] = True
    supports_post_filter: ClassVar[bool] = True
    half_precision: ClassVar[bool] = True
    channels_max: int = 1000
    num_symbols: int = 17
    prior: PriorName = "context"
    residual_quantization: bool = True
    context_hidden: int = 64
    latent_channels: int = 320
    wide: int = 96
    wider: int = 160
    distilled_channels: int = 0
    analysis_blocks: tuple[int, int] = (2, 3)
    synthesis_blocks: tuple[int, int] = (4, 3)
    groups: tuple[int, ...] = ()
    alphabets: tuple[int, ...] = ()
    cuts: tuple[int, ...] = ()
    checkerboard_groups: int = 0
    context_projection: int = 32
    neighbour_hidden: int = 8
    supports_rdoq: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("groups", "alphabets", "cuts", "analysis_blocks", "synthesis_blocks"):
            object.__setattr__(self, name, tuple(int(value) for value in getattr(self, name)))
        if self.quantizer == "integer":
            object.__setattr__(self, "supports_rdoq", False)
        if self.quantizer == "none":
            raise ConfigError("the photo family has the quantizers 'ohm' and 'integer'")
        if self.quantizer == "ohm" and not (self.prior == "context" and self.residual_quantization):
            raise ConfigError("the photo family's OHM has prior 'context' and refinement; leave them as they are")
        if self.quantizer == "integer" and self.channels_max != self.latent_channels:
            raise ConfigError(f"an integer latent has channels_max = latent_channels; found {self.channels_max} and "
                              f"{self.latent_channels}")  # fmt: skip
        if self.groups and (min(self.groups) < 1 or sum(self.groups) != self.channels_max):
            raise ConfigError(f"groups {self.groups} must be positive and sum to channels_max = {self.channels_max}")
        if self.alphabets and len(self.alphabets) != len(self.groups):
            raise ConfigError(f"{len(self.alphabets)} alphabets do not fit {len(self.groups)} groups")
        if any(size % 2 == 0 or not 3 <= size <= self.num_symbols for size in self.alphabets):
            raise ConfigError(
                f"alphabets {self.alphabets}: each must be odd, from 3 to num_symbols = {self.num_symbols}"
            )
        if self.cuts and (list(self.cuts) != sorted(set(self.cuts)) or self.cuts[-1] != self.channels_max):
            raise ConfigError(f"cuts {self.cuts} must ascend to channels_max = {self.channels_max}")
        if not 0 <= self.checkerboard_groups <= len(self.group_sizes):
            raise ConfigError(
                f"checkerboard_groups is {self.checkerboard_groups}; there are {len(self.group_sizes)} groups"
            )
        for name in ("analysis_blocks", "synthesis_blocks"):
            blocks = getattr(self, name)
            if len(blocks) != 2 or min(blocks) < 0:
                raise ConfigError(f"{name} is {list(blocks)}; it must be two numbers of blocks, at least 0")
        if self.distilled_channels < 0:
            raise ConfigError(f"distilled_channels is {self.distilled_channels}; it must be at least 0")
        if self.distilled_channels and self.analysis_blocks[0]:
            raise ConfigError(
                f"analysis_blocks is {list(self.analysis_blocks)}; an analysis of patches has no blocks at a quarter"
            )
        if not 0 <= self.neighbour_hidden <= 64:
            raise ConfigError(f"neighbour_hidden is {self.neighbour_hidden}; it must lie in 0 to 64")
        if not 1 <= self.latent_channels <= 768:
            raise ConfigError(f"latent_channels is {self.latent_channels}; a 16x16 block of 3 colours has 1 to 768")

    def to_dict(self) -> dict[str, Any]:
        """As of every family, without what is as in `UNSTATED`: the ids of older models stay as they are."""
        unstated = {DISK_NAMES.get(key, key): value for key, value in UNSTATED.items()}
        return {key: value for key, value in super().to_dict().items() if key not in unstated or value != unstated[key]}

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Channels of each group."""
        return self.groups or (self.channels_max,)

    @property
    def group_symbols(self) -> tuple[int, ...]:
        """Alphabet size of each group's channels."""
        return self.alphabets or super().group_symbols

    @property
    def cut_points(self) -> tuple[int, ...]:
        """Numbers of channels at which a file may be cut."""
        return self.cuts or super().cut_points


FAMILIES: dict[str, type[ModelConfig]] = {
    "mnist": MnistConfig,
    "openimages": OpenImagesConfig,
    "photo": PhotoConfig,
}


def memory_name(disk_name: str) -> str:
    """Return the field that a configuration key on disk stands for; the inverse of `DISK_NAMES`."""
    return next((name for name, on_disk in DISK_NAMES.items() if on_disk == disk_name), disk_name)


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """A configuration from the dictionary that `ModelConfig.to_dict` gave.

    Raises:
        ConfigError: unknown family or unknown key.
    """
    values = dict(values)
    family = values.pop("family", None)
    if family not in FAMILIES:
        raise ConfigError(f"unknown model family {family!r}; this release knows {', '.join(FAMILIES)}")
    fields = [field.name for field in dataclasses.fields(FAMILIES[family])]
    memory_names = {DISK_NAMES.get(name, name): name for name in fields}
    if unknown := sorted(set(values) - set(memory_names)):
        known = sorted(memory_names)
        raise ConfigError(f"unknown keys in the {family} configuration: {', '.join(unknown)}; known: {known}")
    stated = {memory_names[name]: value for name, value in values.items()}
    return FAMILIES[family](**((UNSTATED | stated) if family == "photo" else stated))
