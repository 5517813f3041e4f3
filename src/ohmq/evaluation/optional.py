"""Optional packages, which measuring needs and coding does not."""

import importlib

from ohmq.errors import ConfigError

__all__ = ["require"]


def require(*packages: str, extra: str = "evaluate") -> None:
    """Check that packages can be imported, before any work.

    Args:
        packages: names of packages.
        extra: extra of `ohmq` that they come with.

    Raises:
        ConfigError: a package cannot be imported; the message says how to install it.

    Example:
        >>> require("no_such_package")
        Traceback (most recent call last):
        ...
        ohmq.errors.ConfigError: no_such_package is not installed; it comes with: pip install 'ohmq[evaluate]'
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise ConfigError(f"{package} is not installed; it comes with: pip install 'ohmq[{extra}]'") from error
