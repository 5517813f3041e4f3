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
    from ohmq.codec import Codec, load
    from ohmq.errors import (
        BitstreamError,
        ChecksumError,
        ConfigError,
        ModelFileError,
        ModelMismatchError,
        NotOhmFileError,
        OhmqError,
        OutputExistsError,
        TruncatedFileError,
        UnsupportedImageError,
        UnsupportedVersionError,
    )

__version__ = "0.1.0.dev0"

__all__ = [
    "BitstreamError",
    "ChecksumError",
    "Codec",
    "ConfigError",
    "ModelFileError",
    "ModelMismatchError",
    "NotOhmFileError",
    "OhmqError",
    "OutputExistsError",
    "TruncatedFileError",
    "UnsupportedImageError",
    "UnsupportedVersionError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import on first use: ``import ohmq`` alone loads neither torch nor numpy."""
    if name in ("Codec", "load"):
        return getattr(importlib.import_module("ohmq.codec"), name)
    if name in __all__:
        return getattr(importlib.import_module("ohmq.errors"), name)
    raise AttributeError(f"module 'ohmq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
