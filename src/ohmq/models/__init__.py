"""Model families: each a configuration class and a model class under one name.

Importing this package needs no torch; the model classes are imported when they are first used.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ohmq.models.config import FAMILIES, MnistConfig, ModelConfig, OpenImagesConfig, PhotoConfig, config_from_dict

if TYPE_CHECKING:
    from ohmq.models.base import CompressionModel, ModelOutput
    from ohmq.models.mnist import MnistModel
    from ohmq.models.openimages import OpenImagesModel
    from ohmq.models.photo import PhotoIntegerModel, PhotoModel

__all__ = [
    "CompressionModel",
    "MnistConfig",
    "MnistModel",
    "ModelConfig",
    "ModelOutput",
    "OpenImagesConfig",
    "OpenImagesModel",
    "PhotoConfig",
    "PhotoIntegerModel",
    "PhotoModel",
    "build_model",
    "config_from_dict",
    "register_family",
]

_MODULES = {
    "CompressionModel": "base",
    "ModelOutput": "base",
    "MnistModel": "mnist",
    "OpenImagesModel": "openimages",
    "PhotoIntegerModel": "photo",
    "PhotoModel": "photo",
}
"""Modules of the names that are imported on first use."""

Config = TypeVar("Config", bound=ModelConfig)


def __getattr__(name: str) -> Any:
    """Import a model class on first use: configurations need no torch."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"ohmq.models.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'ohmq.models' has no attribute {name!r}")


def _build_mnist(config: MnistConfig) -> "CompressionModel":
    from ohmq.models.mnist import MnistModel

    return MnistModel(config)


def _build_openimages(config: OpenImagesConfig) -> "CompressionModel":
    from ohmq.models.openimages import OpenImagesModel

    return OpenImagesModel(config)


def _build_photo(config: PhotoConfig) -> "CompressionModel":
    from ohmq.models.photo import PhotoIntegerModel, PhotoModel

    return PhotoModel(config) if config.quantizer == "ohm" else PhotoIntegerModel(config)


_BUILDERS: dict[str, Callable[[Any], "CompressionModel"]] = {
    "mnist": _build_mnist,
    "openimages": _build_openimages,
    "photo": _build_photo,
}
"""The function, or class, that makes the model of a configuration, by family."""
_OWN_FAMILIES = frozenset(_BUILDERS)


def register_family(name: str, config_class: type[Config], model_class: Callable[[Config], "CompressionModel"]) -> None:
    """Make a family of models known, so that it can be built, frozen, exported, loaded and coded.

    Call it where the classes are defined, and import that module before a model file of the family is loaded. A second
    call with the same name replaces the first.

    Args:
        name: of the family, as model files have it; not that of a family of ohmq.
        config_class: subclass of `ModelConfig`, a frozen dataclass; all its fields JSON-ready, with defaults.
        model_class: subclass of `CompressionModel`, or a function; called with a configuration.

    Raises:
        ValueError: the name is empty or that of a family of ohmq.
        TypeError: config_class is not such a class, or is registered under another name.

    Example:
        >>> register_family("mnist", MnistConfig, lambda config: None)
        Traceback (most recent call last):
        ValueError: 'mnist' is a family of ohmq: choose another name
    """
    if not name or name in _OWN_FAMILIES:
        raise ValueError(f"{name!r} is a family of ohmq: choose another name" if name else "a family needs a name")
    if not (isinstance(config_class, type) and issubclass(config_class, ModelConfig)):
        raise TypeError(f"{config_class!r} is no subclass of ModelConfig")
    if "__dataclass_params__" not in vars(config_class) or not dataclasses.is_dataclass(config_class):
        raise TypeError(
            f"{config_class.__name__} is no dataclass: decorate it with @dataclass(frozen=True, kw_only=True)"
        )
    if other := next((key for key, known in FAMILIES.items() if known is config_class and key != name), None):
        raise TypeError(f"{config_class.__name__} is registered as {other!r}")
    FAMILIES[name], _BUILDERS[name] = config_class, model_class


def build_model(config: ModelConfig) -> "CompressionModel":
    """Build the model of a configuration, with fresh weights.

    Args:
        config: of a registered family.

    Raises:
        ConfigError: the class of the configuration is no registered family.

    Example:
        >>> sum(p.numel() for p in build_model(MnistConfig()).parameters())
        416777
    """
    return _BUILDERS[config.family](config)
