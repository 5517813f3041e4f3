"""The version of this package."""

__all__ = ["__version__"]

__version__ = "1.0.0rc1"
