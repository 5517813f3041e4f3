"""What several commands share: finding inputs, going on after one bad file, summaries."""

import math
from typing import Any

import click

from ohmq.cli.jobs import FEW_FILES

__all__ = ["COMPILED", "FRACTION", "NumberRange"]


class NumberRange(click.FloatRange):
    """As click's, which lets through what is not a number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, if it is one and in the range."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


FRACTION = NumberRange(0, 1)
COMPILED = click.option(
    "--compiled/--no-compiled",
    default=None,
    help=f"Code with numba, if it is installed; default: for more than {FEW_FILES} files in a process.",
)


IMAGE_EXTENSIONS = tuple(
    ".apng .avif .bmp .dib .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx "
    ".pbm .pcx .pgm .png .pnm .ppm .qoi .tga .tif .tiff .webp".split()
)
"""Endings that a folder of pictures is searched for."""
