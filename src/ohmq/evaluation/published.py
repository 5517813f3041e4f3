"""Published rate–distortion curves: the OHM paper, other codecs on Kodak, and Pillow's codecs, measured."""

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from ohmq.evaluation.results import Curve

__all__ = ["PublishedTable", "published_curve", "published_names", "published_table"]


class PublishedTable(NamedTuple):
    """A published table with all its columns.

    Attributes:
        label: name for people.
        data: name of the set of images.
        source: source of the figures.
        columns: values of each column, by name.
        definitions: definitions of the columns, by name.
    """

    label: str
    data: str
    source: str
    columns: dict[str, tuple[float, ...]]
    definitions: dict[str, str]


@cache
def _content() -> dict[str, Any]:
    text = (files("ohmq.evaluation") / "published_data" / "curves.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def published_names() -> tuple[str, ...]:
    """List the names of all published curves.

    They are `mnist-ohm-c<min>-<max>-lambda<min>-<max>`, `kodak-ohm`, `kodak-int`; other codecs `kodak-<codec>`, those measured
    with Pillow `kodak-<codec>-pillow`.

    Example:
        >>> published_names()[2]
        'mnist-ohm-c0-16-lambda0.95-0.999'
    """
    return tuple(_content()["curves"])


def published_table(name: str) -> PublishedTable:
    """Look up a published table with all its columns.

    Args:
        name: name of the curve.

    Raises:
        ValueError: unknown name.

    Example:
        >>> published_table("kodak-ohm").columns["channels"][-1]
        480
    """
    content = _content()
    if name not in content["curves"]:
        raise ValueError(f"unknown published curve {name!r}; known: {', '.join(published_names())}")
    table = content["curves"][name]
    columns = {column: tuple(values) for column, values in table["columns"].items()}
    definitions = {column: content["definitions"][column] for column in columns}
    return PublishedTable(table["label"], table["data"], table["source"], columns, definitions)


def published_curve(name: str) -> Curve:
    """Look up a published curve of PSNR over rate.

    The rate is the payload's for the OHM paper (its "real" rate), and the file's for other codecs.

    Args:
        name: name of the curve.

    Raises:
        ValueError: unknown name.

    Example:
        >>> curve = published_curve("kodak-vtm")
        >>> curve.rates_bpp[0], curve.psnr_db[0], curve.rate
        (0.048, 26.14, 'file_bpp')
    """
    table = published_table(name)
    rate: Any = "payload_bpp" if "payload_bpp" in table.columns else "file_bpp"
    return Curve(name, table.label, table.columns[rate], table.columns["psnr_db"], rate, table.source)
