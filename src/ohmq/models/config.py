"""Model configurations: frozen dataclasses, written into every checkpoint and model file.

A family is a configuration class and a model class under one name, see `ohmq.models.register_family`. The capabilities
of a family are attributes of its configuration (`ModelConfig.supports_tiles` and others); the codec asks for these,
never for a class.
"""

import dataclasses
import math
import operator
from collections.abc import Mapping
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
"""Stride of the latent of photographs, in pixels: the side of a block."""
GREY_LEVELS = 32.0
"""Unit of the normalised images of photo models, in grey levels of 255; also of their latents.

The block transform is orthonormal.
"""

DISK_NAMES = {
    "residual_quantization": "refinement",
    "checkerboard_groups": "interlaced_groups",
    "distilled_channels": "analysis_patches",
    "supports_rdoq": "priced",
}
"""Names of configuration fields in model files, checkpoints and experiment files, where they differ from those here.

Model ids are hashes over the names on disk, so the names on disk never change.
"""

UNSTATED: dict[str, Any] = {
    "distilled_channels": 0,
    "analysis_blocks": (2, 3),
    "synthesis_blocks": (2, 3),
    "neighbour_hidden": 0,
    "supports_rdoq": False,
}
"""Values of photo configuration fields that a model file leaves out, because the first models had no such fields."""

MAX_FIELD = 2**16
"""Largest number in a configuration field: a model file must not make the reader allocate without limit."""
MAX_GROUPS = 1024
"""Largest number of groups: each has networks of its own."""
MAX_BLOCKS = 64
"""Largest number of residual blocks in a row."""
MAX_TABLE_ENTRIES = 2**22
"""Largest number of symbols of all channels together."""

GEOMETRY_PROBES = ((1, 1), (100, 300))
"""Height and width, in pixels, of the images whose patches stand for a family's geometry in `bitstream_fields`."""

QuantizerName = Literal["ohm", "integer", "none"]
PriorName = Literal["static", "context"]


def active_channels(fraction: float, channels_min: int, channels_max: int) -> int:
    r"""Return the number of channels that a fraction of the adaptive range stands for.

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
    """Configuration fields and geometry that all families share.

    A family is a subclass that is a frozen dataclass too. It overrides `patch_shape` and `latent_shape` where its
    stride is not 16, and the capabilities that it has.

    Attributes:
        image_channels: 1 (grey) or 3 (RGB).
        supports_tiles: whether images are analysed window by window and coded in tiles; needs transforms with a bounded
            receptive field and a latent of any size.
        supports_post_filter: whether a model file may hold a post-filter; RGB only.
        half_precision: whether model files keep the weights of the transforms in half precision.
        channels_last: whether the transforms run in torch's channels-last memory format.
        unstated: values of fields that `to_dict` leaves out.
        quantizer: "ohm" (one-hot max), "integer" (rounding) or "none" (distortion only).
        channels_max: C, all quantization channels (for "ohm") or latent channels (for "integer", "none").
        channels_min: channels that are always active; equal to channels_max for a model of one bitrate.
        num_symbols: S, alphabet size of each channel.
        prior: of OHM symbols: "static" as published, or "context" (tables depend on the channels decoded before).
        residual_quantization: whether the activations of a group see the latent minus the codewords of earlier groups,
            instead of all of it (as published). Decoding is the same.
        context_group: channels of a group of the context prior, or of residual quantization.
        context_hidden: width of the context prior's networks.
        context_features: learned features a symbol in the context prior.

    Raises:
        ConfigError: a value outside its range, or values that do not go together.
    """

    image_channels: ClassVar[int] = 3
    supports_tiles: ClassVar[bool] = False
    supports_post_filter: ClassVar[bool] = False
    half_precision: ClassVar[bool] = False
    channels_last: ClassVar[bool] = False
    unstated: ClassVar[Mapping[str, Any]] = {}
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
        self._check_types()
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
        if self.channels_max * self.num_symbols > MAX_TABLE_ENTRIES:
            raise ConfigError(
                f"{self.channels_max} channels of {self.num_symbols} symbols; all channels have at most {MAX_TABLE_ENTRIES}"
            )
        for name in ("context_group", "context_hidden", "context_features"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if len(self.group_sizes) > MAX_GROUPS:
            raise ConfigError(f"{len(self.group_sizes)} groups of channels; there are at most {MAX_GROUPS}")

    def _check_types(self) -> None:
        """Check that each field has the type of its default, and that no number is beyond what a model can have."""
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if kind is int and (isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_FIELD):
                raise ConfigError(f"{field.name} is {value!r}; it must be a whole number of at most {MAX_FIELD}")
            if kind in (bool, str) and not isinstance(value, kind):
                raise ConfigError(
                    f"{field.name} is {value!r}; it must be {'a text' if kind is str else 'true or false'}"
                )
            if kind is tuple and not (
                isinstance(value, list | tuple)
                and all(isinstance(item, int) and abs(item) <= MAX_FIELD for item in value)
            ):
                raise ConfigError(f"{field.name} is {value!r}; it must be a list of whole numbers")

    @property
    def family(self) -> str:
        """Name of the family that this class is registered as; ConfigError if it is not."""
        name = next((name for name, cls in FAMILIES.items() if cls is type(self)), None)
        if name is None:
            raise ConfigError(f"{type(self).__name__} is no registered family: call ohmq.models.register_family")
        return name

    @property
    def supports_rdoq(self) -> bool:
        """Whether the encoder chooses symbols by rate-distortion optimised quantization."""
        return False

    @property
    def tabulated_prior(self) -> bool:
        """Whether the prior is the tabulated context prior."""
        return False

    @property
    def checkerboard_groups(self) -> int:
        """Leading groups of the tabulated context prior that are coded in three checkerboard passes."""
        return 0

    @property
    def neighbour_hidden(self) -> int:
        """Hidden units of the neighbour network of each checkerboard channel."""
        return 0

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
        """Return height and width, in pixels, of the patches of an image: all of it, padded to whole blocks.

        Args:
            height: of the image, in pixels.
            width: of the image, in pixels.
        """
        return -(-height // BLOCK) * BLOCK, -(-width // BLOCK) * BLOCK

    def latent_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the latent of a patch: one position a block.

        Args:
            height: of the patch, in pixels.
            width: of the patch, in pixels.
        """
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
        """Return the number of patches that an image of this size, in pixels, is coded in.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.
        """
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
        """Return the channels at which layers end: cut points below ``channels``, thinned to ``layers``, and itself.

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
        """Return a JSON-ready dictionary with the key "family", names as on disk; the inverse of `config_from_dict`."""
        values = {
            DISK_NAMES.get(field.name, field.name): getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in self.unstated or getattr(self, field.name) != self.unstated[field.name]
        }
        return {"family": self.family, **values}

    def bitstream_fields(self) -> dict[str, Any]:
        """Return the part of the configuration that the symbols in a file depend on, JSON-ready.

        Two configurations with the same fields here can decode the same files: their transforms may differ. A family
        that decodes symbols in a way of its own adds its fields. `docs/file-format.md` lists the keys; they never change.
        """
        patches = [self.patch_shape(*size) for size in GEOMETRY_PROBES]
        return {
            "image_channels": self.image_channels,
            "quantizer": self.quantizer,
            "prior": self.prior,
            "num_symbols": self.num_symbols,
            "groups": list(self.group_sizes),
            "alphabets": list(self.group_symbols),
            "cuts": list(self.cut_points),
            "interlaced_groups": self.checkerboard_groups,
            "neighbour_hidden": self.neighbour_hidden,
            "geometry": [[*patch, *self.latent_shape(*patch)] for patch in patches],
        }


@dataclass(frozen=True, kw_only=True)
class MnistConfig(ModelConfig):
    """Configuration of the published network for 28x28 digits; larger images are coded as patches of that size.

    Attributes:
        latent_channels: D, channels of the OHM latent; an integer or unquantized latent has channels_max.
    """

    image_channels: ClassVar[int] = 1
    latent_channels: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_channels < 1:
            raise ConfigError(f"latent_channels is {self.latent_channels}; it must be at least 1")

    def patch_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return 28x28 pixels, for any image."""
        return 28, 28

    def latent_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return 3x3 positions."""
        return 3, 3

    @property
    def transform_channels(self) -> int:
        """Channels of the latent that the analysis transform computes."""
        return self.latent_channels if self.quantizer == "ohm" else self.channels_max


@dataclass(frozen=True, kw_only=True)
class OpenImagesConfig(ModelConfig):
    """Configuration of the published network for photographs; its latent has channels_max channels."""

    channels_max: int = 480
    num_symbols: int = 32


@dataclass(frozen=True, kw_only=True)
class PhotoConfig(ModelConfig):
    """Configuration of the photo codec: a 16x16 block transform with convolutional paths.

    With the quantizer "integer" it is the photo codec's twin for comparison.

    Attributes:
        latent_channels: D, coefficients of the block transform that are kept.
        wide: channels of the convolutions at a quarter of the resolution.
        wider: channels of the convolutions at an eighth of the resolution.
        distilled_channels: channels that the distilled analysis transform computes from 8x8 pixels, with all its
            convolutions at an eighth of the resolution; 0: the full analysis transform, with convolutions at a half and
            a quarter.
        analysis_blocks: residual blocks of the analysis transform at a quarter and at an eighth.
        synthesis_blocks: residual blocks of the synthesis transform at a quarter and at an eighth.
        groups: channels of each group, sum channels_max; found by the warm start.
        alphabets: symbols of the channels of each group, odd, at most num_symbols; found by the warm start; empty:
            num_symbols for all.
        cuts: numbers of channels at which a file may be cut; found by the warm start.
        checkerboard_groups: leading groups with a three-pass checkerboard context: the tables of the second and third
            pass are also selected by the channel's own symbols at neighbours (He et al., 2021).
        context_projection: channels of each neighbour that the context networks see.
        neighbour_hidden: hidden units of each checkerboard channel's own network, which sees its symbols at four
            neighbours.
        supports_rdoq: whether the encoder chooses symbols by rate-distortion optimised quantization; OHM only.

    Raises:
        ConfigError: a value outside its range, or values that do not go together.
    """

    supports_tiles: ClassVar[bool] = True
    supports_post_filter: ClassVar[bool] = True
    half_precision: ClassVar[bool] = True
    channels_last: ClassVar[bool] = True
    unstated: ClassVar[Mapping[str, Any]] = UNSTATED
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
        self._check_quantizer()
        self._check_groups()
        self._check_transforms()

    def _check_quantizer(self) -> None:
        if self.quantizer == "none":
            raise ConfigError("the photo family has the quantizers 'ohm' and 'integer'")
        if self.quantizer == "ohm" and not (self.prior == "context" and self.residual_quantization):
            raise ConfigError("the photo family's OHM has prior 'context' and refinement; leave them as they are")
        if self.quantizer == "integer" and self.channels_max != self.latent_channels:
            raise ConfigError(f"an integer latent has channels_max = latent_channels; found {self.channels_max} and "
                              f"{self.latent_channels}")  # fmt: skip

    def _check_groups(self) -> None:
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
        if not 0 <= self.neighbour_hidden <= 64:
            raise ConfigError(f"neighbour_hidden is {self.neighbour_hidden}; it must lie in 0 to 64")

    def _check_transforms(self) -> None:
        for name in ("analysis_blocks", "synthesis_blocks"):
            blocks = getattr(self, name)
            if len(blocks) != 2 or min(blocks) < 0 or max(blocks) > MAX_BLOCKS:
                raise ConfigError(f"{name} is {list(blocks)}; it must be two numbers of blocks, 0 to {MAX_BLOCKS}")
        if self.distilled_channels < 0:
            raise ConfigError(f"distilled_channels is {self.distilled_channels}; it must be at least 0")
        if self.distilled_channels and self.analysis_blocks[0]:
            raise ConfigError(
                f"analysis_blocks is {list(self.analysis_blocks)}; an analysis of patches has no blocks at a quarter"
            )
        if not 1 <= self.latent_channels <= 768:
            raise ConfigError(f"latent_channels is {self.latent_channels}; a 16x16 block of 3 colours has 1 to 768")

    @property
    def tabulated_prior(self) -> bool:
        """Whether the prior is the tabulated context prior: that of OHM."""
        return self.quantizer == "ohm"

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


def config_from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """Build a configuration from the dictionary that `ModelConfig.to_dict` returned.

    A family that is not registered is looked for among the entry points of installed packages, group ``ohmq.families``.

    Args:
        values: the key "family", and fields by their names on disk.

    Raises:
        ConfigError: unknown family or unknown key.
    """
    values = dict(values)
    family = values.pop("family", None)
    if not isinstance(family, str):
        raise ConfigError(f"the model family is {family!r}; it must be a name")
    if family not in FAMILIES:
        _load_installed_family(str(family))
    if family not in FAMILIES:
        raise ConfigError(
            f"unknown model family {family!r}; this release knows {', '.join(FAMILIES)}: import the module that registers it"
        )
    config_class = FAMILIES[family]
    memory_names = {DISK_NAMES.get(field.name, field.name): field.name for field in dataclasses.fields(config_class)}
    if unknown := sorted(set(values) - set(memory_names)):
        known = sorted(memory_names)
        raise ConfigError(f"unknown keys in the {family} configuration: {', '.join(unknown)}; known: {known}")
    return config_class(**{**config_class.unstated, **{memory_names[name]: value for name, value in values.items()}})


def _load_installed_family(family: str) -> None:
    """Import the module that an installed package names for a family; importing it registers the family."""
    import importlib.metadata  # not at the top: it takes longer than the rest of this module

    for entry_point in importlib.metadata.entry_points(group="ohmq.families", name=family):
        entry_point.load()
