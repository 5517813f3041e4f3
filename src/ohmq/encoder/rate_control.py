"""src/ohmq/encoder/rate_control.py."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from ohmq.runtime.latents import Source

__all__ = ["LAMBDA_SCALES", "Fitting", "Quality"]
LAMBDA_SCALES = tuple(2 ** (-step / 4) for step in range(-4, 5))
"""For a target, what a bit may cost, by what it costs in the model: from few bits to many."""


class Quality(NamedTuple):
    """A number of channels, the PSNR of the picture they decode to, in dB, and what they are chosen from, with its price."""

    channels: int
    psnr_db: float
    source: Source


class Fitting(NamedTuple):
    """What `Codec.encode_within` gives: a file, how many channels it has, and what it was coded from, with its price."""

    file: bytes
    channels: int
    source: Source


_Result = TypeVar("_Result", Fitting, Quality)
_Attempt = Callable[[int, Source], tuple[bool, _Result]]
"""Takes a number of channels and what to code them from; says whether that is too much, and what it gave."""


def _bisect(settings: Sequence[tuple[int, Source]], attempt: _Attempt[_Result]) -> list[tuple[bool, _Result]]:
    """What attempts gave on the way to the place where it becomes too much, among settings from few bits to many."""
    tried = []
    low, high = 0, len(settings)
    while low < high:
        place = (low + high) // 2
        tried.append(attempt(*settings[place]))
        low, high = (low, place) if tried[-1][0] else (place + 1, high)
    return tried
