"""Transforms of whole images: cut into patches, or window by window where an image is large.

A window is transformed with as many true neighbours as the transform sees, so that its inside equals that of the whole image.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ohmq.bitstream.format import MAX_TILE
from ohmq.geometry import WINDOW, Window, windows
from ohmq.models.config import BLOCK, ModelConfig
from ohmq.runtime.latents import Array, Latent, Symbols
from ohmq.runtime.protocols import TransformRuntime
from ohmq.runtime.thumbnails import Thumbnails, reduced
from ohmq.utils.ordered import map_in_order
from ohmq.utils.progress import phase, steps

__all__ = ["DEFAULT_TILE", "TILE_ABOVE", "ImagePart", "WindowedTransforms", "from_patches", "pixel_box", "to_patches"]

TILE_ABOVE = 2**23
"""Images of more pixels are coded in tiles: compressing 2^23 pixels in one piece takes 1.7 GiB."""
DEFAULT_TILE = 128
"""Side of a tile in latent positions (2048 pixels)."""


class ImagePart(NamedTuple):
    """A synthesised part of an image.

    Attributes:
        box: left, upper, right and lower edge, in pixels.
        pixels: (height, width, 3), uint8.
    """

    box: tuple[int, int, int, int]
    pixels: NDArray[np.uint8]


class WindowedTransforms:
    """Analysis and synthesis of whole images.

    Args:
        transforms: the transforms of a model.
        config: its configuration.
        name: of the model, for messages.
    """

    def __init__(self, transforms: TransformRuntime, config: ModelConfig, name: str) -> None:
        self.transforms, self.config, self.name = transforms, config, name

    def tile_side(self, width: int, height: int, tile: int | None) -> int:
        """Return the side of the tiles of an image, in latent positions; 0: one piece.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.
            tile: the side asked for; None: `DEFAULT_TILE` for images of more than `TILE_ABOVE` pixels, else 0.

        Raises:
            ValueError: a side out of range, or a model that codes patches.
        """
        if tile is None:
            return DEFAULT_TILE if self.config.supports_tiles and width * height > TILE_ABOVE else 0
        if not 0 <= tile <= MAX_TILE:
            raise ValueError(f"tile is {tile}; it must be 1 to {MAX_TILE}, or 0 for one piece")
        if tile and not self.config.supports_tiles:
            raise ValueError(f"tile is {tile}; {self.name} codes patches of its own size: leave it out")
        return tile

    def symbols(self, image: Image.Image, tile: int | None = None) -> Symbols:
        """Analyse an image and quantize it to the nearest symbols of all channels.

        Args:
            image: mode "L" or "RGB", as the model codes it.
            tile: as `tile_side`.
        """
        side = self.tile_side(*image.size, tile)
        kind = np.min_scalar_type(self.config.num_symbols - 1) if side else np.dtype(np.int64)
        values = self._analysed(image, side, self.transforms.symbols, self.config.channels_max, kind)
        return Symbols(values, *image.size, side)

    def latent(self, image: Image.Image, tile: int | None = None) -> Latent:
        """Analyse an image with a model that supports RDOQ; arguments as `symbols`.

        Args:
            image: mode "RGB".
            tile: as `tile_side`.
        """
        side = self.tile_side(*image.size, tile)
        depth = self.transforms.quantizer["project"].shape[1]
        values = self._analysed(image, side, self.transforms.latent, depth, np.dtype(np.float32))
        return Latent(values, *image.size, side, image=image)

    def _analysed(
        self, image: Image.Image, side: int, analyse: Callable[[Array], Array], depth: int, kind: np.dtype[Any]
    ) -> Array:
        """Return the analysed image, (patches, h, w, depth); if it is coded in tiles: window by window, in threads."""
        width, height = image.size
        if not side:
            return analyse(to_patches(np.asarray(image), self.config.patch_shape(height, width)))
        _, rows, columns = self.config.latent_grid(width, height)
        values = np.empty((1, rows, columns, depth), kind)
        halo = self.transforms.analysis_halo
        image.load()

        def analyse_window(window: Window) -> None:
            outer = window.widened(halo, rows, columns)
            inner = window.within(outer)
            pixels = np.asarray(image.crop(pixel_box(outer, width, height)))
            analysed = analyse(to_patches(pixels, (outer.shape[0] * BLOCK, outer.shape[1] * BLOCK)))
            values[:, window.rows, window.columns] = analysed[:, inner.rows, inner.columns]

        parts = windows(rows, columns, WINDOW)
        with phase("analysis", len(parts)) as advance:
            for _ in map_in_order(analyse_window, parts, self.transforms.file_workers()):
                advance()
        return values

    def symbols_batch(self, images: Array) -> Array:
        """Return the nearest symbols of uint8 images of one size: (N, H, W) or (N, H, W, 3) to (N, patches, h, w, C).

        Args:
            images: (N, H, W) or (N, H, W, 3), uint8.

        Returns:
            (N, patches, h, w, C), int64.
        """
        return self._analysed_batch(images, self.transforms.symbols)

    def latent_batch(self, images: Array) -> Array:
        """Return the latents of uint8 images of one size, for a model that supports RDOQ: (N, H, W, 3) to (N, 1, h, w, D).

        Args:
            images: (N, H, W, 3), uint8.

        Returns:
            (N, 1, h, w, D), float32.
        """
        return self._analysed_batch(images, self.transforms.latent)

    def _analysed_batch(self, images: Array, analyse: Callable[[Array], Array]) -> Array:
        patches = [to_patches(image, self.config.patch_shape(*image.shape[:2])) for image in images]
        analysed = analyse(np.concatenate(patches))
        return analysed.reshape(len(images), -1, *analysed.shape[1:])

    def synthesise(self, symbols: Symbols, channels: int) -> Image.Image:
        """Synthesise the image that the first ``channels`` channels of its symbols stand for.

        Args:
            symbols: symbols of at least ``channels`` channels.
            channels: the number of leading channels.

        Returns:
            Mode "L" or "RGB".
        """
        if self.needs_windows(symbols):
            image = Image.new("RGB", (symbols.width, symbols.height))
            for box, pixels in self.synthesised_parts(symbols, channels):
                image.paste(Image.fromarray(pixels), box)
            return image
        patches = self.transforms.pixels(symbols.values, self._model_channels(symbols, channels))
        pixels = from_patches(patches, symbols.height, symbols.width)
        return Image.fromarray(self._corrected(symbols, channels, pixels, Window(0, 0, *symbols.values.shape[1:3])))

    def _model_channels(self, symbols: Symbols, channels: int) -> int:
        """Return how many of the first ``channels`` channels are the model's."""
        return channels - symbols.residual_channels(channels)

    def _corrected(self, symbols: Symbols, channels: int, pixels: Array, place: Window) -> Array:
        """Add the residual to decoded pixels of a window, as far as it is among the first ``channels`` channels."""
        count = symbols.residual_channels(channels)
        return symbols.residual.added_to(pixels, place, count) if symbols.residual and count else pixels

    def needs_windows(self, symbols: Symbols | Latent) -> bool:
        """Whether an image is synthesised window by window.

        Args:
            symbols: symbols or latent of the image.
        """
        return bool(symbols.tile) or (self.config.supports_tiles and symbols.width * symbols.height > TILE_ABOVE)

    def synthesised_parts(self, symbols: Symbols, channels: int) -> Iterator[ImagePart]:
        """Synthesise an image of mode "RGB" window by window.

        Args:
            symbols: symbols of at least ``channels`` channels.
            channels: the number of leading channels.
        """
        rows, columns = symbols.values.shape[1:3]
        halo, count = self.transforms.synthesis_halo, self._model_channels(symbols, channels)
        for window in steps(windows(rows, columns, WINDOW), f"image of {channels} channels"):
            outer = window.widened(halo, rows, columns)
            left, upper, right, lower = box = pixel_box(window, symbols.width, symbols.height)
            part = symbols.values[:, outer.rows, outer.columns, :count]
            decoded = self.transforms.pixels(part, count, window.within(outer))[0]
            inside = decoded[:, : lower - upper, : right - left]
            pixels = np.ascontiguousarray(inside.transpose(1, 2, 0))
            yield ImagePart(box, self._corrected(symbols, channels, pixels, window))

    def thumbnail(self, symbols: Symbols, channels: int, scale: int, thumbnails: Thumbnails | None) -> Image.Image:
        """Return the image at a scale, window by window.

        Args:
            symbols: symbols of at least ``channels`` channels.
            channels: the number of leading channels.
            scale: one of `ohmq.runtime.thumbnails.SCALES`.
            thumbnails: maps of the model; None: the decoded image is reduced.

        Returns:
            Mode "L" or "RGB", width and height divided by the scale and rounded up.
        """
        if thumbnails is None and not self.needs_windows(symbols):
            return self.synthesise(symbols, channels).reduce(scale)
        image = Image.new("RGB", (reduced(symbols.width, scale), reduced(symbols.height, scale)))
        if thumbnails is None:
            for box, pixels in self.synthesised_parts(symbols, channels):
                image.paste(Image.fromarray(pixels).reduce(scale), (box[0] // scale, box[1] // scale))
            return image
        rows, columns = symbols.values.shape[1:3]
        count = self._model_channels(symbols, channels)  # a block's mean changes little by a residual
        for window in windows(rows, columns, WINDOW):
            part = symbols.values[:, window.rows, window.columns, :count].astype(np.int64)
            pixels = thumbnails.maps[scale].apply(self.transforms.dequantized(part, count)[0])
            image.paste(Image.fromarray(pixels), (window.left * BLOCK // scale, window.top * BLOCK // scale))
        return image

    def subdivide(self, place: Window, whole: bool) -> list[Window]:
        """Divide a window of the latent into windows that are transformed at once: one if the image is ``whole``.

        Args:
            place: window of the latent.
            whole: whether to transform it at once.
        """
        return [
            Window(part.top + place.top, part.left + place.left, part.bottom + place.top, part.right + place.left)
            for part in windows(*place.shape, max(place.shape) if whole else WINDOW)
        ]


def pixel_box(window: Window, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the pixels of a latent window of an image of this size: left, upper, right, lower.

    Args:
        window: window of the latent, in positions.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    right, lower = min(width, window.right * BLOCK), min(height, window.bottom * BLOCK)
    return window.left * BLOCK, window.top * BLOCK, right, lower


def to_patches(pixels: Array, shape: tuple[int, int]) -> Array:
    """Cut an image into patches; its edge is repeated to fill the last ones.

    Args:
        pixels: (H, W) or (H, W, 3).
        shape: height and width of a patch.

    Returns:
        (patches, channels, height, width), in raster order.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    height, width, channels = pixels.shape
    padded = np.pad(pixels, ((0, -height % shape[0]), (0, -width % shape[1]), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // shape[0], padded.shape[1] // shape[1]
    blocks = padded.reshape(rows, shape[0], columns, shape[1], channels).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(blocks).reshape(rows * columns, channels, *shape)


def from_patches(patches: Array, height: int, width: int) -> Array:
    """Put the patches of an image together; the inverse of `to_patches`.

    Args:
        patches: (patches, channels, patch height, patch width), in raster order.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        (height, width) for one channel, else (height, width, channels).
    """
    channels, *shape = patches.shape[1:]
    rows, columns = -(-height // shape[0]), -(-width // shape[1])
    blocks = patches.reshape(rows, columns, channels, *shape).transpose(0, 3, 1, 4, 2)
    image = blocks.reshape(rows * shape[0], columns * shape[1], channels)[:height, :width]
    return np.ascontiguousarray(image[..., 0] if channels == 1 else image)
