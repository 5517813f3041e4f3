"""Model families."""

from ohmq.models.base import CompressionModel, ModelOutput
from ohmq.models.config import MnistConfig, ModelConfig, OpenImagesConfig, PhotoConfig, config_from_dict
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


def build_model(config: ModelConfig) -> CompressionModel:
    """The model of a configuration, with fresh weights as published.

    Example:
        >>> sum(p.numel() for p in build_model(MnistConfig()).parameters())
        416777
    """
    if isinstance(config, MnistConfig):
        return MnistModel(config)
    if isinstance(config, OpenImagesConfig):
        return OpenImagesModel(config)
    if isinstance(config, PhotoConfig):
        return PhotoModel(config) if config.quantizer == "ohm" else PhotoIntegerModel(config)
    raise TypeError(f"no model for {type(config).__name__}")
