"""Bulk coding: millions of images in shards, by processes of one machine or by a Ray cluster.

Importing this package loads no codec: its names are looked up when they are used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ohmq.bulk.batch import CompressBatch
    from ohmq.bulk.driver import BulkProgress, BulkSummary, run
    from ohmq.bulk.job import BulkJob

__all__ = ["BulkJob", "BulkProgress", "BulkSummary", "CompressBatch", "run"]

_MODULES = {
    "BulkJob": "job",
    "BulkProgress": "driver",
    "BulkSummary": "driver",
    "CompressBatch": "batch",
    "run": "driver",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
