"""Options of a training run, their validation, and presets."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ohmq.errors import ConfigError
from ohmq.models import MnistConfig, ModelConfig, OpenImagesConfig, PhotoConfig
from ohmq.training.photo.perceptual import MIN_SIDE

__all__ = ["PRESETS", "TrainOptions", "preset", "recorded_options"]


@dataclass(kw_only=True)
class TrainOptions:
    """Options of one training run.

    Attributes:
        model: the model's configuration.
        lambdas: (lambda_min, lambda_max) of the loss lambda * D + (1 - lambda) * R; lambda grows with the fraction.
        epochs: passes over the training images with the quantizer in place; 0 if only quick_epochs are trained.
        minutes: for photo models, training time in place of epochs, which is then 0: the learning rate follows the clock;
            0: by epochs. Preparation does not count, and stages that follow do not.
        batch_size: images of a step, over all devices.
        learning_rate: Adam's learning rate.
        weight_decay: Adam's L2 penalty.
        schedule: "constant" (as published) or "cosine": constant for the first half, then a cosine to zero; by the clock,
            a warm-up until 5 % of the time, constant until 35 %, then a cosine to zero until 95 %.
        fraction_power: each image draws fraction = U(0, 1) ** power; 0.5 as published.
        ema_decay: decay of the running mean of the weights that is validated and exported; 0: no mean.
        clip_norm: largest gradient norm; 0: no limit.
        perceptual: for photo models, weight of the perceptual term of the loss, (100 - SSIMULACRA2) scaled such that at weight 1
            it pulls as strongly as the squared error; 0: none.
        order_exponent: for photo models, power of the sensitivity of its frequency by which the slope of a channel is
            multiplied before channels are ordered; 0: the order of the squared error, or of the model to start from.
        initialisation: "published" (PyTorch's default), "scalar" or "vector" (warm starts; OHM only; an integer or
            unquantized model then starts with variance-preserving weights), or "rounding" (warm start of an integer
            model: the same loss at the rate and the batch size of the warm start).
        warm_start_epochs: passes of the warm start.
        warm_start_learning_rate: learning rate of the warm start.
        warm_start_batch_size: images of a warm-start step, over all devices.
        grow_epochs: the last epochs, in which the alphabet has all its symbols; before, it has initial_symbols. 0: the
            whole alphabet from the start.
        initial_symbols: alphabet size before growing.
        data_base_path: folder of the data; for photos also a URL, shards (tar, Parquet) or a pattern of these, see
            `ohmq.datasets.shard_index.find_shards`; None: look in the usual places.
        data_cache: folder for copies of shards; None: in the user's cache.
        data_cache_bytes: limit on the bytes of these copies, on each machine.
        image_column: column of images in Parquet shards; None: the only one that may hold images.
        crop_size: side of the random crops of photos, in pixels; MNIST is not cropped.
        data_on_device: for photo models, decode all photos once into the memory of the device, and cut crops there.
        num_train_samples: number of training images to use; None: all.
        num_val_samples: number of validation images to use; None: all.
        val_every: epochs between validations.
        log_interval: steps between log rows.
        num_workers: processes that read photos, for each device; 0: a thread; None: chosen by the machine, see
            `ohmq.training.processes.loader_processes`. MNIST stays in memory.
        devices: devices as Lightning's Trainer takes them.
        num_nodes: machines that train together, as Lightning's Trainer takes them.
        accelerator: kind of device to train on: "auto", "cuda" or "mps"; auto: the one that is there, else the CPU.
        cpu: never use an accelerator.
        precision: number format of the photo transforms' convolutions in training: "float32", "bfloat16", or "auto",
            bfloat16 where the hardware multiplies it. All else, validation and the exported weights are float32.
        seed: seed of all random numbers.
        output_dir: folder of logs and checkpoints.
        description: free text, kept in the checkpoint.
        test_sets: image folders evaluated after training.
        start_from: model that training starts from instead of the warm start: a photo model (shipped name, model file
            or checkpoint) of as many channels or fewer, or a checkpoint of an OHM model for digits with residual
            quantization, of any number of channels. "": none.
        quick_epochs: for a photo model with OHM, the last passes, in which a distilled analysis transform learns to
            replace the full one in the encoder. 0, or with ``only``: the full one stays.
        only: for a photo model, train only the parameters whose names begin with this; "decoders": the decoder ladder of
            ``start_from``, on the symbols of its encoder; "decoders.fast": one of them. "": all.

    Raises:
        ConfigError: values out of range, or that do not fit together.
    """

    model: ModelConfig = field(default_factory=MnistConfig)
    lambdas: tuple[float, float] = (0.95, 0.999)
    epochs: int = 1000
    minutes: float = 0.0
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    fraction_power: float = 0.5
    ema_decay: float = 0.0
    clip_norm: float = 0.0
    perceptual: float = 0.0
    order_exponent: float = 0.0
    initialisation: Literal["published", "scalar", "vector", "rounding"] = "scalar"
    warm_start_epochs: int = 20
    warm_start_learning_rate: float = 2e-3
    warm_start_batch_size: int = 256
    grow_epochs: int = 0
    initial_symbols: int = 32
    data_base_path: Path | str | None = None
    data_cache: Path | None = None
    data_cache_bytes: int = 32 * 2**30
    image_column: str | None = None
    crop_size: int = 256
    data_on_device: bool = False
    num_train_samples: int | None = None
    num_val_samples: int | None = None
    val_every: int = 1
    log_interval: int = 50
    num_workers: int | None = None
    devices: int | str = "auto"
    num_nodes: int = 1
    accelerator: str = "auto"
    cpu: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0
    output_dir: Path = Path("runs/ohmq")
    description: str = ""
    test_sets: tuple[str, ...] = ()
    start_from: str = ""
    quick_epochs: int = 0
    only: str = ""

    def __post_init__(self) -> None:
        check_family = _FAMILY_CHECKS.get(self.model.family, _check_openimages)
        for check in (_check_lambdas, _check_epochs, _check_ranges, _check_choices, check_family):
            check(self)

    @property
    def starts_as_codec(self) -> bool:
        """Whether OHM starts from a working codec: after a warm start, or from another model."""
        return (self.warm_starts and self.model.quantizer == "ohm") or bool(self.start_from)

    @property
    def trains_decoders(self) -> bool:
        """Whether decoders of a finished model are trained, and not the model."""
        return self.only == "decoders" or self.only.startswith("decoders.")

    @property
    def warm_starts(self) -> bool:
        """Whether a warm start comes first."""
        if isinstance(self.model, PhotoConfig):
            return False  # photo models are initialised without training
        if self.start_from:
            return False
        warm_starts = {"ohm": ("scalar", "vector"), "integer": ("rounding",), "none": ()}[self.model.quantizer]
        return self.initialisation in warm_starts and self.warm_start_epochs > 0

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a JSON-ready dictionary for provenance: all but local paths."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in _LOCAL_OPTIONS:
            del values[name]
        return {**values, "model": self.model.to_dict(), "lambdas": list(self.lambdas)}


def _check_lambdas(options: TrainOptions) -> None:
    lambdas = options.lambdas
    if len(lambdas) != 2:
        raise ConfigError(f"lambdas {lambdas}: needs two values, lambda_min and lambda_max")
    if not 0 <= lambdas[0] <= lambdas[1] <= 1:
        raise ConfigError(f"lambda_rd {lambdas}: needs 0 <= lambda_min <= lambda_max <= 1")


def _check_epochs(options: TrainOptions) -> None:
    if options.quick_epochs < 0:
        raise ConfigError(f"quick_epochs is {options.quick_epochs}; it must be at least 0")
    if not 0 <= options.minutes < math.inf:
        raise ConfigError(f"minutes is {options.minutes}; it must be a finite number of at least 0")
    if options.minutes:
        if options.epochs:
            raise ConfigError(f"epochs is {options.epochs} and minutes {options.minutes:g}: one of them must be 0")
        if not isinstance(options.model, PhotoConfig) or options.trains_decoders:
            raise ConfigError("minutes is for photo models, and not for their decoders; give epochs")
        return
    distills_only = options.epochs == 0 and options.start_from and options.quick_epochs
    if options.epochs < 1 and not distills_only:
        raise ConfigError(
            f"epochs is {options.epochs}; it must be at least 1, or 0 where training starts from another model and "
            "only distills its analysis transform"
        )


def _check_ranges(options: TrainOptions) -> None:
    for names, lowest in ((_COUNTS, 1), (_COUNTS_FROM_ZERO, 0)):
        for name in names:
            value = getattr(options, name)
            if value is not None and value < lowest:
                raise ConfigError(f"{name} is {value}; it must be at least {lowest}")
    for name in ("learning_rate", "warm_start_learning_rate", "fraction_power"):
        if not 0 < getattr(options, name) <= _LARGEST:
            raise ConfigError(f"{name} is {getattr(options, name)}; it must be greater than 0 and at most {_LARGEST:g}")
    for name in ("weight_decay", "clip_norm", "perceptual", "order_exponent"):
        if not 0 <= getattr(options, name) < math.inf:
            raise ConfigError(f"{name} is {getattr(options, name)}; it must be a finite number of at least 0")
    if not 0 <= options.ema_decay < 1:
        raise ConfigError(f"ema_decay is {options.ema_decay}; it must lie in [0, 1)")
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"seed is {options.seed}; it must lie in 0 to 2**32 - 1")


_LOCAL_OPTIONS = ("data_base_path", "data_cache", "data_cache_bytes", "image_column", "output_dir", "test_sets")
"""Options that name things of one machine; the index of the data has an identity of its own."""
_LARGEST = 1e30
"""Upper bound of rates: float32 holds their products in the optimizer."""
_COUNTS = (
    "batch_size",
    "val_every",
    "log_interval",
    "num_nodes",
    "warm_start_batch_size",
    "crop_size",
    "num_train_samples",
    "num_val_samples",
    "data_cache_bytes",
)
"""Options of at least 1."""
_COUNTS_FROM_ZERO = ("warm_start_epochs", "grow_epochs", "num_workers")
"""Options of at least 0."""


def _check_choices(options: TrainOptions) -> None:
    if options.initialisation not in ("published", "scalar", "vector", "rounding"):
        raise ConfigError(
            f"initialisation is {options.initialisation!r}; choose 'published', 'scalar', 'vector' or 'rounding'"
        )
    if options.initialisation == "rounding" and options.model.quantizer != "integer":
        raise ConfigError("the warm start 'rounding' is for integer models; choose 'scalar' or 'vector' for OHM")
    if options.schedule not in ("constant", "cosine"):
        raise ConfigError(f"schedule is {options.schedule!r}; choose 'constant' or 'cosine'")
    if options.accelerator not in ("auto", "cuda", "mps"):
        raise ConfigError(f"accelerator is {options.accelerator!r}; choose 'auto', 'cuda' or 'mps', or cpu=True")
    if options.precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"precision is {options.precision!r}; choose 'auto', 'float32' or 'bfloat16'")


def _check_photo(options: TrainOptions) -> None:
    """Check the options of a run of the photo family."""
    if options.quick_epochs and options.model.quantizer != "ohm":
        raise ConfigError(_DISTILL_NEEDS_OHM)
    if options.trains_decoders and not options.start_from:
        raise ConfigError(
            f"only is {options.only!r}: decoders are trained for a finished model; name it with --start-from"
        )
    if options.crop_size < 32 or options.crop_size % 16:
        raise ConfigError(f"crop_size is {options.crop_size}; the photo model needs a multiple of 16 from 32 on")
    if options.perceptual and options.crop_size < MIN_SIDE:
        raise ConfigError(
            f"crop_size is {options.crop_size}; the perceptual term needs crops of at least {MIN_SIDE} pixels"
        )
    if options.perceptual and options.trains_decoders:
        raise ConfigError("perceptual is for photo models as a whole: decoders have a perceptual term of their own")
    if options.order_exponent and (options.trains_decoders or options.model.quantizer != "ohm"):
        raise ConfigError(
            "order_exponent is for photo models with OHM as a whole: it changes the order of their channels"
        )


def _check_mnist(options: TrainOptions) -> None:
    """Check the options of a run of the published network for digits."""
    if options.start_from and not _quantizes_residuals(options.model):
        raise ConfigError(_START_FROM_NEEDS)
    _check_published(options)


def _check_openimages(options: TrainOptions) -> None:
    """Check the options of a run of the published network for photos, or of another registered family."""
    if options.start_from:
        raise ConfigError(_START_FROM_NEEDS)
    crop, blocks = options.crop_size, options.model.patch_shape(options.crop_size, options.crop_size)
    if blocks != (crop, crop):
        raise ConfigError(f"crop_size is {crop}; this model needs whole blocks: choose {blocks[0]}")
    _check_published(options)


def _check_published(options: TrainOptions) -> None:
    """Check the options that both published networks share: warm starts and growing."""
    model = options.model
    if options.quick_epochs:
        raise ConfigError(_DISTILL_NEEDS_OHM)
    if options.data_on_device:
        raise ConfigError("data_on_device is for photo models (--preset photo)")
    if options.perceptual:
        raise ConfigError("perceptual is for photo models (--preset photo)")
    if options.order_exponent:
        raise ConfigError("order_exponent is for photo models (--preset photo)")
    if options.only:
        raise ConfigError(f"only is {options.only!r}; it is for photo models")
    if options.initialisation == "vector" and model.quantizer == "ohm" and not model.residual_quantization:
        raise ConfigError("the vector warm start needs a model with residual quantization; add --refinement")
    if options.initialisation == "scalar" and model.residual_quantization:
        raise ConfigError(
            "the scalar warm start needs a model without residual quantization; choose --initialisation vector"
        )
    if not 0 <= options.grow_epochs <= options.epochs:
        raise ConfigError(f"grow_epochs is {options.grow_epochs}; it must lie in 0 to epochs = {options.epochs}")
    if options.grow_epochs and not _quantizes_residuals(model):
        raise ConfigError(
            "growing the alphabet needs an OHM model with residual quantization (--refinement); set --grow-epochs 0"
        )
    if options.grow_epochs and not 2 <= options.initial_symbols <= model.num_symbols:
        raise ConfigError(
            f"initial_symbols is {options.initial_symbols}; it must lie in 2 to num_symbols = {model.num_symbols}"
        )


def _quantizes_residuals(model: ModelConfig) -> bool:
    return model.quantizer == "ohm" and model.residual_quantization


_DISTILL_NEEDS_OHM = "a distilled analysis transform is for photo models with the OHM quantizer; set --quick-epochs 0"
_START_FROM_NEEDS = (
    "training starts from another model for the photo family, and for digits with OHM and residual quantization "
    "(--refinement); use --ckpt to resume a run"
)
_FAMILY_CHECKS: dict[str, Callable[[TrainOptions], None]] = {"mnist": _check_mnist, "photo": _check_photo}
"""The checks of families that differ from those of `_check_openimages`."""


def recorded_options(values: dict[str, Any]) -> dict[str, Any]:
    """Complete recorded options with the defaults of options that the release which wrote them did not have.

    Args:
        values: the dictionary that `TrainOptions.to_dict` gave.
    """
    return TrainOptions().to_dict() | values


PRESETS: dict[str, dict[str, Any]] = {
    "mnist-ohm": {
        "model": MnistConfig(prior="context", residual_quantization=True, context_hidden=32, context_features=7),
        "initialisation": "vector",
        "epochs": 66,
        "grow_epochs": 6,
        "batch_size": 256,
        "learning_rate": 1.5e-3,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "fraction_power": 1.0,
        "ema_decay": 0.998,
        "clip_norm": 1.0,
        "warm_start_epochs": 25,
        "warm_start_learning_rate": 3e-3,
        "warm_start_batch_size": 128,
        "val_every": 5,
    },
    "mnist-int": {
        "model": MnistConfig(quantizer="integer"),
        "epochs": 66,
        "batch_size": 256,
        "learning_rate": 2e-3,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "fraction_power": 1.0,
        "ema_decay": 0.998,
        "clip_norm": 1.0,
        "val_every": 5,
    },
    "photo": {
        "model": PhotoConfig(),
        "epochs": 86,
        "batch_size": 4,
        "crop_size": 160,
        "learning_rate": 1.2e-3,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "ema_decay": 0.999,
        "clip_norm": 1.0,
        "quick_epochs": 14,
        "num_val_samples": 10,
        "val_every": 5,
    },
}
PRESETS["mnist-published"] = {"model": MnistConfig(), "initialisation": "published"}
_OPENIMAGES: dict[str, Any] = {
    "initialisation": "published",
    "epochs": 10,
    "batch_size": 32,
    "crop_size": 256,
    "learning_rate": 1e-4,
}
PRESETS["openimages-ohm"] = {**_OPENIMAGES, "model": OpenImagesConfig()}
PRESETS["openimages-int"] = {**_OPENIMAGES, "model": OpenImagesConfig(quantizer="integer")}
PRESETS["photo-int"] = {
    **PRESETS["photo"],
    "quick_epochs": 0,
    "model": PhotoConfig(
        quantizer="integer",
        prior="static",
        residual_quantization=False,
        channels_max=320,
        latent_channels=320,
        num_symbols=256,
    ),
}
"""Settings of the shipped models and of the published training, by name; missing settings have their defaults."""


def preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset, keyword arguments of `TrainOptions`.

    Args:
        name: key of `PRESETS`.

    Raises:
        ConfigError: no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return dict(PRESETS[name])
