"""ohmq: a learned image codec on one-hot max (OHM) quantization.

Example:
    >>> import ohmq
    >>> codec = ohmq.load("mnist-ohm")                    # doctest: +SKIP
    >>> data = codec.compress(image, fraction=0.5)        # doctest: +SKIP
    >>> image = codec.decompress(data)                    # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

from ohmq._version import __version__

if TYPE_CHECKING:
    from ohmq.codec import Codec
    from ohmq.errors import (
        BitstreamError,
        ChecksumError,
        ConfigError,
        ModelFileError,
        ModelMismatchError,
        NotOhmFileError,
        OhmqError,
        OutputExistsError,
        OutputWriteError,
        TruncatedFileError,
        UnreachableTargetError,
        UnsupportedImageError,
        UnsupportedVersionError,
    )
    from ohmq.imaging.convert import ImageConversionWarning
    from ohmq.loading import load, load_for


__all__ = [
    "BitstreamError",
    "ChecksumError",
    "Codec",
    "ConfigError",
    "ImageConversionWarning",
    "ModelFileError",
    "ModelMismatchError",
    "NotOhmFileError",
    "OhmqError",
    "OutputExistsError",
    "OutputWriteError",
    "TruncatedFileError",
    "UnreachableTargetError",
    "UnsupportedImageError",
    "UnsupportedVersionError",
    "__version__",
    "load",
    "load_for",
]


_MODULES = {"Codec": "codec", "ImageConversionWarning": "imaging.convert", "load": "loading", "load_for": "loading"}
"""Modules of the names that are not errors."""


def __getattr__(name: str) -> Any:
    """Import on first use: ``import ohmq`` alone loads neither torch nor numpy."""
    if name not in __all__:
        raise AttributeError(f"module 'ohmq' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ohmq.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
