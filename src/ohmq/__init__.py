"""ohmq: a learned image codec on one-hot max (OHM) quantization.

Example:
    >>> import ohmq
    >>> codec = ohmq.load("mnist-ohm")                    # doctest: +SKIP
    >>> data = codec.compress(image, fraction=0.5)        # doctest: +SKIP
    >>> picture = codec.decompress(data)                  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

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

__version__ = "0.1.0.dev0"

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


def __getattr__(name: str) -> Any:
    """Import on first use: ``import ohmq`` alone loads neither torch nor numpy."""
    if name in ("Codec", "load", "load_for"):
        return getattr(importlib.import_module("ohmq.codec"), name)
    if name == "ImageConversionWarning":
        return importlib.import_module("ohmq.imaging.convert").ImageConversionWarning
    if name in __all__:
        return getattr(importlib.import_module("ohmq.errors"), name)
    raise AttributeError(f"module 'ohmq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
