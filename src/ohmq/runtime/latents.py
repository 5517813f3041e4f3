"""src/ohmq/runtime/latents.py."""

from typing import Any, NamedTuple

from numpy.typing import NDArray
from PIL import Image

__all__ = ["Latent", "Symbols"]

Array = NDArray[Any]


class Symbols(NamedTuple):
    """The symbols of a picture.

    Attributes:
        values: (tiles, h, w, C), int64, tiles in raster order. width, height: of the picture, in pixels.
        tile: 0, or: the latent of the whole picture, (1, h, w, C), of the smallest unsigned integers that hold a symbol, is
            entropy coded in tiles of so many positions each side.
    """

    values: Array
    width: int
    height: int
    tile: int = 0


class Latent(NamedTuple):
    """What the symbols of a picture are chosen from, by a photo model that prices its bits.

    Attributes:
        values: (1, h, w, D), float32. width, height: of the picture, in pixels. tile: as in `Symbols`.
        price: of a bit, times that of the model: above 1 files are smaller and pictures worse, below 1 the reverse.
        picture: what it is the latent of, mode "RGB". effort: how often it is moved by what its symbols decode to, before they
            are chosen, see `Codec.fed_back`.
    """

    values: Array
    width: int
    height: int
    tile: int = 0
    price: float = 1.0
    picture: Image.Image | None = None
    effort: int = 0


Source = Symbols | Latent
