"""Write results as CSV tables."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ohmq.evaluation.results import ImageRow, RatePoint
from ohmq.utils.atomic_write import write_atomically

__all__ = ["average_row", "write_fraction_csv", "write_rate_distortion_csv", "write_rows_csv"]


def average_row(rows: Sequence[ImageRow]) -> ImageRow:
    """Compute the row "avg": the mean of each column. A NaN makes its column's mean NaN.

    Args:
        rows: rows of single images.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("no rows to average")
    columns = [sum(column) / len(rows) for column in list(zip(*rows, strict=True))[1:]]
    return ImageRow("avg", *columns)


def write_fraction_csv(path: Path | str, rows: Sequence[ImageRow], *, force: bool = False) -> None:
    """Write one row an image, and the row "avg" at the end.

    Args:
        path: the file.
        rows: rows of single images.
        force: whether to replace an existing file.

    Raises:
        ValueError: no rows.
        OutputExistsError: the file exists and force is not set.
    """
    _write_csv(path, ImageRow._fields, [*rows, average_row(rows)], force)


def write_rate_distortion_csv(path: Path | str, points: Sequence[RatePoint], *, force: bool = False) -> None:
    """Write one row a rate.

    Args:
        path: the file.
        points: means over the images, one a rate.
        force: whether to replace an existing file.

    Raises:
        OutputExistsError: the file exists and force is not set.
    """
    _write_csv(path, RatePoint._fields, points, force)


def write_rows_csv(path: Path | str, rows: Sequence[Any], *, force: bool = False) -> None:
    """Write named tuples of one class, a row each, below their field names.

    Args:
        path: the file.
        rows: the named tuples.
        force: whether to replace an existing file.

    Raises:
        ValueError: no rows.
        OutputExistsError: the file exists and force is not set.
    """
    if not rows:
        raise ValueError("no rows to write")
    _write_csv(path, rows[0]._fields, rows, force)


def _write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Sequence[Any]], force: bool) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
    write_atomically(Path(path), text.getvalue().encode(), force=force)
