"""Model families."""

import importlib
from typing import TYPE_CHECKING, Any

from ohmq.models.config import MnistConfig, ModelConfig, OpenImagesConfig, PhotoConfig, config_from_dict

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
]


_NETWORKS = {
    "CompressionModel": "base",
    "ModelOutput": "base",
    "MnistModel": "mnist",
    "OpenImagesModel": "openimages",
    "PhotoIntegerModel": "photo",
    "PhotoModel": "photo",
}


def __getattr__(name: str) -> Any:
    """Import on first use: configurations need no torch."""
    if name in _NETWORKS:
        return getattr(importlib.import_module(f"ohmq.models.{_NETWORKS[name]}"), name)
    raise AttributeError(f"module 'ohmq.models' has no attribute {name!r}")


def build_model(config: ModelConfig) -> "CompressionModel":
    """The model of a configuration, with fresh weights as published.

    Example:
        >>> sum(p.numel() for p in build_model(MnistConfig()).parameters())
        416777
    """
    from ohmq.models.mnist import MnistModel
    from ohmq.models.openimages import OpenImagesModel
    from ohmq.models.photo import PhotoIntegerModel, PhotoModel

    if isinstance(config, MnistConfig):
        return MnistModel(config)
    if isinstance(config, OpenImagesConfig):
        return OpenImagesModel(config)
    if isinstance(config, PhotoConfig):
        return PhotoModel(config) if config.quantizer == "ohm" else PhotoIntegerModel(config)
    raise TypeError(f"no model for {type(config).__name__}")
