"""What a training run is made of, and presets."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ohmq.errors import ConfigError
from ohmq.models import MnistConfig, ModelConfig, PhotoConfig

__all__ = ["PRESETS", "TrainOptions", "preset", "recorded_options"]


@dataclass(kw_only=True)
class TrainOptions:
    """One training run.

    Attributes:
        model: the model's configuration.
        lambdas: (lambda_min, lambda_max) of the loss lambda * D + (1 - lambda) * R; lambda grows with the fraction.
        epochs: passes over the training images with the quantizer in place; 0 where there are quick_epochs alone.
        batch_size: images of a step, over all devices.
        learning_rate: Adam's.
        weight_decay: Adam's L2 penalty.
        schedule: "constant" (as published) or "cosine": constant for the first half, then a cosine to zero.
        fraction_power: each image draws fraction = U(0, 1) ** power; 0.5 as published.
        ema_decay: of the weights that are validated and exported; 0: none.
        clip_norm: largest gradient norm; 0: no limit.
        initialisation: "published" (PyTorch's default), "scalar" or "vector" (warm starts; OHM only; an integer or
            unquantized model then starts with variance-preserving weights).
        warm_start_epochs: passes of the warm start. warm_start_learning_rate, warm_start_batch_size: of it.
        grow_epochs: the last epochs, in which the alphabet has all its symbols; before, it has initial_symbols. 0: all.
        initial_symbols: alphabet size before growing.
        data_base_path: where the data are; None: look in the usual places.
        crop_size: side of the random crops of photos, in pixels; MNIST is not cropped.
        num_train_samples, num_val_samples: use only so many images; None: all.
        val_every: validate every so many epochs.
        log_interval: steps between log rows.
        num_workers: processes that load images (folders of photos; MNIST stays in memory).
        devices, num_nodes: as Lightning's Trainer takes them.
        cpu: never use an accelerator.
        precision: of the photo networks' convolutions while they train: "float32", "bfloat16", or "auto", the latter where
            the hardware multiplies it. All else, validation and the exported weights are float32.
        seed: of everything random.
        output_dir: where logs and checkpoints go.
        description: free text, kept in the checkpoint.
        test_sets: image folders evaluated after training.
        start_from: what training starts from in place of the warm start: a photo model (shipped name, model file or
            checkpoint) of as many channels or fewer, or a checkpoint of an OHM model for digits with refinement, of any
            number of channels. "": nothing.
        quick_epochs: of a photo model with OHM, the last passes, in which a quick analysis learns to do for the encoder what
            the deep one does, and takes its place. 0, or with ``only``: the deep one stays.
        only: of a photo model, train only the parameters whose names begin with this. "": all.
    """

    model: ModelConfig = field(default_factory=MnistConfig)
    lambdas: tuple[float, float] = (0.95, 0.999)
    epochs: int = 1000
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    fraction_power: float = 0.5
    ema_decay: float = 0.0
    clip_norm: float = 0.0
    initialisation: Literal["published", "scalar", "vector"] = "scalar"
    warm_start_epochs: int = 20
    warm_start_learning_rate: float = 2e-3
    warm_start_batch_size: int = 256
    grow_epochs: int = 0
    initial_symbols: int = 32
    data_base_path: Path | None = None
    crop_size: int = 256
    num_train_samples: int | None = None
    num_val_samples: int | None = None
    val_every: int = 1
    log_interval: int = 50
    num_workers: int = 0
    devices: int | str = "auto"
    num_nodes: int = 1
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
        if len(self.lambdas) != 2:
            raise ConfigError(f"lambdas {self.lambdas}: needs two values, lambda_min and lambda_max")
        if not all(0 <= value <= 1 for value in self.lambdas) or self.lambdas[0] > self.lambdas[1]:
            raise ConfigError(f"lambda_rd {self.lambdas}: needs 0 <= lambda_min <= lambda_max <= 1")
        if self.quick_epochs < 0:
            raise ConfigError(f"quick_epochs is {self.quick_epochs}; it must be at least 0")
        if self.quick_epochs and not (isinstance(self.model, PhotoConfig) and self.model.quantizer == "ohm"):
            raise ConfigError("a quick analysis is for photo models with the OHM quantizer; set --quick-epochs 0")
        if self.epochs < 1 and not (self.epochs == 0 and self.start_from and self.quick_epochs):
            raise ConfigError(
                f"epochs is {self.epochs}; it must be at least 1, or 0 where training starts from another model and "
                "only makes a quick analysis for it"
            )
        for name in ("batch_size", "val_every", "log_interval", "num_nodes", "warm_start_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "warm_start_learning_rate", "fraction_power"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be greater than 0")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if self.initialisation not in ("published", "scalar", "vector"):
            raise ConfigError(f"initialisation is {self.initialisation!r}; choose 'published', 'scalar' or 'vector'")
        if self.schedule not in ("constant", "cosine"):
            raise ConfigError(f"schedule is {self.schedule!r}; choose 'constant' or 'cosine'")
        if self.only and not isinstance(self.model, PhotoConfig):
            raise ConfigError(f"only is {self.only!r}; it is for photo models")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"precision is {self.precision!r}; choose 'auto', 'float32' or 'bfloat16'")
        digits = (
            isinstance(self.model, MnistConfig) and self.model.quantizer == "ohm" and self.model.residual_quantization
        )
        if self.start_from and not (digits or isinstance(self.model, PhotoConfig)):
            raise ConfigError(
                "training starts from another model for the photo family, and for digits with OHM and refinement; use "
                "--ckpt to resume a run"
            )
        if isinstance(self.model, PhotoConfig):
            if self.crop_size < 32 or self.crop_size % 16:
                raise ConfigError(f"crop_size is {self.crop_size}; the photo model needs a multiple of 16 from 32 on")
            return
        if self.initialisation == "vector" and self.model.quantizer == "ohm" and not self.model.residual_quantization:
            raise ConfigError("the vector warm start needs a model with refinement; add --refinement")
        if self.initialisation == "scalar" and self.model.residual_quantization:
            raise ConfigError("the scalar warm start needs a model without refinement; choose --initialisation vector")
        if not 0 <= self.grow_epochs <= self.epochs:
            raise ConfigError(f"grow_epochs is {self.grow_epochs}; it must lie in 0 to epochs = {self.epochs}")
        if self.grow_epochs and not (self.model.quantizer == "ohm" and self.model.residual_quantization):
            raise ConfigError("growing the alphabet needs an OHM model with refinement; set --grow-epochs 0")
        if self.grow_epochs and not 2 <= self.initial_symbols <= self.model.num_symbols:
            raise ConfigError(
                f"initial_symbols is {self.initial_symbols}; it must lie in 2 to num_symbols = {self.model.num_symbols}"
            )

    @property
    def starts_as_codec(self) -> bool:
        """Whether OHM works already when it is first trained."""
        return self.warm_starts or bool(self.start_from)

    @property
    def warm_starts(self) -> bool:
        """Whether a warm start comes first."""
        if isinstance(self.model, PhotoConfig):
            return False  # its warm start takes no training
        if self.start_from:
            return False
        return self.model.quantizer == "ohm" and self.initialisation != "published" and self.warm_start_epochs > 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for provenance: everything but local paths."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("data_base_path", "output_dir", "test_sets"):
            del values[name]
        return {**values, "model": self.model.to_dict(), "lambdas": list(self.lambdas)}


def recorded_options(values: dict[str, Any]) -> dict[str, Any]:
    """What `TrainOptions.to_dict` gave, with the defaults of options that the release which wrote it did not have."""
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
"""Settings of the shipped models, by name; what they leave out has its default."""


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset.

    Raises:
        ConfigError: no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return dict(PRESETS[name])
