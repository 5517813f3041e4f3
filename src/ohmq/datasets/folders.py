"""The folders in which data are looked for: one rule for digits and photos."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ohmq.storage.urls import is_url

__all__ = ["DATA_HINT", "data_folders", "data_place", "find_data"]

DATA_HINT = "--data (train.py: --data_base_path) or the environment variable OHMQ_DATA"
"""The ways to name the folder of the data, for messages."""


def data_place(text: str) -> Path | str:
    """Return the path that a text names, or the URL as it is.

    Args:
        text: value of an option.

    Example:
        >>> data_place("s3://lake/photos/")
        's3://lake/photos/'
    """
    return text if is_url(text) else Path(text)


def data_folders(data_base_path: Path | str | None = None) -> list[Path]:
    """List the folders to search: ``data_base_path``, ``$OHMQ_DATA`` and ``./data``, in this order.

    Args:
        data_base_path: folder to search first; None: none.

    Example:
        >>> data_folders("mine")[0].name, data_folders("mine")[-1].name
        ('mine', 'data')
    """
    return [Path(folder) for folder in (data_base_path, os.environ.get("OHMQ_DATA"), "data") if folder]


def find_data(folders: Sequence[Path], below: Sequence[str], holds: Callable[[Path], bool]) -> Path | None:
    """Find the first folder that holds data.

    Args:
        folders: folders to search, see `data_folders`.
        below: folders in each of them, in order; "" for itself.
        holds: tells whether a folder holds the data.

    Returns:
        The folder; None: none of them does.
    """
    return next((path for base in folders for name in below if holds(path := base / name)), None)
