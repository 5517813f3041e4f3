"""Packages that measuring needs and coding does not."""

import importlib

from ohmq.errors import ConfigError

__all__ = ["require"]


def require(*packages: str) -> None:
    """Check before any work that packages can be imported.

    Raises:
        ConfigError: one cannot; the message names the fix.

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
            raise ConfigError(f"{package} is not installed; it comes with: pip install 'ohmq[evaluate]'") from error
