"""Every error that ohmq raises on purpose.

```
OhmqError
├── ConfigError               a configuration, command line or training set that cannot work
├── ModelFileError            a model file or checkpoint that cannot be used
│   └── ModelMismatchError    an image file made with another model
├── BitstreamError            an .ohm file that cannot be decoded
│   ├── NotOhmFileError       it does not begin like an .ohm file
│   ├── UnsupportedVersionError   it needs a newer ohmq
│   ├── TruncatedFileError    it ends too early
│   └── ChecksumError         it was damaged
├── UnsupportedImageError     an image that cannot be read or coded
├── UnreachableTargetError    a size or quality that no file of an image can have
├── OutputExistsError         an output file exists already
└── OutputWriteError          an output file cannot be written: disk full, no permission
```

A message says what was found, what was expected and what to do. Wrong arguments to library functions are
``ValueError`` or ``TypeError``. The command line prints an ``OhmqError`` as one line and exits with code 1.
"""

__all__ = [
    "BitstreamError",
    "ChecksumError",
    "ConfigError",
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
]


class OhmqError(Exception):
    """Base class of every error that ohmq raises on purpose."""


class ConfigError(OhmqError):
    """A configuration, command line or training set that cannot work."""


class ModelFileError(OhmqError):
    """A model file or checkpoint that is missing, damaged or of an unknown kind."""


class ModelMismatchError(ModelFileError):
    """An image file was made with another model than the one at hand."""


class BitstreamError(OhmqError):
    """An ``.ohm`` file that cannot be decoded."""


class NotOhmFileError(BitstreamError):
    """The data do not begin with the signature of an ``.ohm`` file."""


class UnsupportedVersionError(BitstreamError):
    """The file uses a format version or feature that this release does not know."""


class TruncatedFileError(BitstreamError):
    """The file ends before all the bytes that its header announces."""


class ChecksumError(BitstreamError):
    """A checksum does not match: the file was damaged."""


class UnsupportedImageError(OhmqError):
    """An image that cannot be read, or that the model cannot code."""


class UnreachableTargetError(OhmqError):
    """A file size that nothing fits, or a quality that the model does not reach on an image."""


class OutputExistsError(OhmqError):
    """An output file exists already and overwriting was not asked for."""


class OutputWriteError(OhmqError):
    """An output file cannot be written, such as on a full disk or without permission; nothing is left of it."""
