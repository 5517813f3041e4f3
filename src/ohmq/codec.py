"""Images to ``.ohm`` files and back."""

import copy
import dataclasses
import itertools
import math
import operator
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ohmq.bitstream.format import MAX_TILE, Extra, HeaderInfo, Layer, OhmFile, bytes_of_rate
from ohmq.bitstream.psnr_table import psnr_extra
from ohmq.bitstream.reader import read_extra, read_header, read_ohm, split_tiles
from ohmq.bitstream.stream import ByteSource, StreamBuffer
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import join_tiles, write_ohm
from ohmq.encoder.encoder import DEFAULT_EFFORT
from ohmq.encoder.quality import _visible
from ohmq.encoder.rate_control import LAMBDA_SCALES, Fitting, Quality, _Attempt, _bisect, _Result
from ohmq.encoder.rdoq import Rdoq
from ohmq.encoder.refine import STEPS, block_coefficients, fed_back
from ohmq.entropy import decode_fixed_rate, encode_fixed_rate, fixed_rate_bytes
from ohmq.entropy.kernels import NUMPY
from ohmq.entropy.layers import decode_layers, encode_layers
from ohmq.entropy.select_kernels import select_kernels
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.errors import (
    BitstreamError,
    ChecksumError,
    ConfigError,
    ModelMismatchError,
    TruncatedFileError,
    UnreachableTargetError,
    UnsupportedImageError,
)
from ohmq.geometry import WINDOW, Window, windows
from ohmq.imaging.arrays import as_image
from ohmq.imaging.convert import DEFAULT_MAX_PIXELS, ImageConversionWarning, check_size, load_pixels, prepare_image
from ohmq.imaging.extras import decode_extras, split_extras
from ohmq.metrics import psnr_db
from ohmq.model_files.pretrained import pretrained_model_ids
from ohmq.models.config import BLOCK, PhotoConfig, active_channels
from ohmq.postfilter.select_kernel import select_kernel
from ohmq.runtime.latents import Array, Latent, Source, Symbols
from ohmq.runtime.protocols import CodingModel
from ohmq.runtime.windowed import DEFAULT_TILE, TILE_ABOVE, _box, _tiles
from ohmq.utils.progress import steps

__all__ = ["Codec", "Coded"]


class Coded(NamedTuple):
    """What `Codec.compress_picture` gives.

    Attributes:
        data: the file. channels: how many it has. psnr_db: of the decoded picture; None if it was not needed.
    """

    data: bytes
    channels: int
    psnr_db: float | None


class Codec:
    """Compresses images with one model, and decompresses them.

    A codec is not changed by use: threads may share it.

    Args:
        frozen: the model.
        compiled: entropy coding and the filters after synthesis are compiled by numba, which takes half a second in each
            process and some seconds the first time. A file decodes to the same symbols, and to pixels that are the same up
            to rounding. None: if numba is installed.

    Attributes:
        compiled: whether they are.

    Raises:
        UnsupportedImageError: the model has no quantizer, so it cannot code. ConfigError: compiled, without numba.

    Example:
        >>> codec = load("mnist-ohm")                                           # doctest: +SKIP
        >>> data = codec.compress(Image.open("digit.png"), fraction=0.5)        # doctest: +SKIP
        >>> picture = codec.decompress(data)                                    # doctest: +SKIP
    """

    def __init__(self, frozen: CodingModel, *, compiled: bool | None = None) -> None:
        if frozen.prior is None:
            raise UnsupportedImageError(f"{frozen.name} was trained without a quantizer: it cannot compress")
        self.frozen, self.transforms, self.prior = frozen, frozen.transforms, frozen.prior
        kernels = select_kernels(compiled)
        self.compiled = kernels is not NUMPY
        if self.compiled:
            self.transforms, self.prior = copy.copy(frozen.transforms), copy.copy(frozen.prior)
            self.prior.kernels = kernels
            if self.transforms.filters is not None:
                self.transforms.filters = self.transforms.filters.with_kernel(select_kernel(True))
        self.name, self.config, self.model_id = frozen.name, frozen.config, frozen.model_id
        self.num_channels = self.config.channels_max
        self.cut_points = self.config.cut_points
        ends = itertools.accumulate(self.config.group_sizes)
        self._stops = sorted({*self.cut_points, *(end for end in ends if end > self.cut_points[0])})
        self.grey = self.config.image_channels == 1
        self.supports_tiles = isinstance(self.config, PhotoConfig)
        self.supports_rdoq = isinstance(self.config, PhotoConfig) and self.config.supports_rdoq

    def channels_for(self, fraction: float) -> int:
        """Channels that a fraction of the adaptive range stands for."""
        return active_channels(fraction, self.config.channels_min, self.num_channels)

    def prepare(
        self,
        image: Any,
        *,
        flatten: bool = False,
        keep_metadata: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Image.Image:
        """The picture that is coded of an image: 8 bits, grey or RGB, upright, in sRGB, with its mask and metadata.

        A loss on the way is an `ImageConversionWarning`. `split_extras` gives the colours, which the model codes.

        Args:
            image, max_pixels: as `compress`. flatten: lay what is transparent onto white. keep_metadata: see `compress`.

        Returns:
            Mode "L" or "RGB", "LA" or "RGBA" if not opaque everywhere; metadata in ``info``.

        Raises:
            UnsupportedImageError: an image that cannot be coded.
        """
        whole = as_image(image)
        check_size(whole.width, whole.height, max_pixels)
        notes: list[str] = []
        whole = load_pixels(whole, notes)
        picture, more = prepare_image(whole, grey=self.grey, flatten=flatten, keep_metadata=keep_metadata)
        for note in (*notes, *more):
            warnings.warn(note, ImageConversionWarning, stacklevel=3)
        return picture

    def analyse(self, image: Any, *, max_pixels: int = DEFAULT_MAX_PIXELS, tile: int | None = None) -> Symbols:
        """The symbols of an image (Pillow image, numpy array or torch tensor) laid onto white, all channels.

        Args:
            image: what it is. max_pixels: larger images are refused. tile: as `compress`.

        Raises:
            UnsupportedImageError: an image that cannot be coded. ValueError: a tile that cannot be.
        """
        return self._analyse(self.prepare(image, flatten=True, max_pixels=max_pixels), tile)

    def latent(
        self, image: Any, *, max_pixels: int = DEFAULT_MAX_PIXELS, tile: int | None = None, effort: int | None = None
    ) -> Latent:
        """What the symbols of an image laid onto white are chosen from, once it is known how many channels are coded.

        `encode` takes it in place of symbols; `analyse` gives symbols whose bits have no price. Arguments and errors as
        there; effort as `compress`.

        Raises:
            ConfigError: a model that does not price its bits.
        """
        if not self.supports_rdoq:
            raise ConfigError(f"{self.name} does not price its bits: use analyse")
        effort = self.effort_for(effort)
        return self._latent(self.prepare(image, flatten=True, max_pixels=max_pixels), tile)._replace(effort=effort)

    def _analyse(self, picture: Image.Image, tile: int | None) -> Symbols:
        side = self._tile_side(*picture.size, tile)
        values = self._transformed(picture, side, self.transforms.symbols, self.num_channels, self._symbol_type(side))
        return Symbols(values, *picture.size, side)

    def _latent(self, picture: Image.Image, tile: int | None) -> Latent:
        assert isinstance(self.config, PhotoConfig)
        side = self._tile_side(*picture.size, tile)
        depth = self.config.latent_channels
        values = self._transformed(picture, side, self.transforms.latent, depth, np.dtype(np.float32))
        return Latent(values, *picture.size, side, picture=picture)

    def fed_back(self, latent: Array, picture: Array, channels: int, effort: int, price: float = 1.0) -> Array:
        """The latent of a picture, moved to where the symbols that are chosen decode to something nearer to the picture.

        A quick choice of symbols, as if tables did not depend on what was coded before, is decoded; what the picture misses
        then moves the latent, see `ohmq.encoder.refine.fed_back`. Decoding knows nothing of it.

        Args:
            latent: (h, w, D), that of analysis. picture: uint8, (H, W, 3), the latent's or up to a block smaller.
            channels: that will be coded. effort: how often. price: as in `Latent`.

        Shape:
            Returns: (h, w, D), as the latent in units of `ohmq.models.config.GREY_LEVELS`.
        """
        assert isinstance(self.prior, IntegerTabulatedPrior)
        (pixels,) = _tiles(picture, (latent.shape[0] * BLOCK, latent.shape[1] * BLOCK))
        for step in STEPS[:effort]:
            quick = self.rdoq(latent[None, None], channels, price)
            left = quick.choose_without_context()[0, 0]
            missed = pixels.astype(np.float32) - self.transforms.picture((latent - left)[None], channels)
            left -= self.transforms.quantizer["output_bias"]
            latent = fed_back(latent, left, block_coefficients(missed, self.transforms.block)[0], step)
        return latent

    def chosen_from(self, source: Latent, channels: int, place: Window | None = None) -> Array:
        """What symbols of so many channels are chosen from: the values of a latent, or where feedback moves them.

        Args:
            source: the latent. channels: that will be coded. place: a part of it; None: all.

        Shape:
            Returns: (1, rows, columns, D).

        Raises:
            ValueError: a latent with an effort and without its picture.
        """
        rows, columns = source.values.shape[1:3]
        place = place or Window(0, 0, rows, columns)
        if not source.effort:
            return source.values[:, place.rows, place.columns]
        if source.picture is None:
            raise ValueError(f"effort is {source.effort}: feedback needs the picture of the latent")
        whole = not source.tile and source.width * source.height <= TILE_ABOVE
        halo = 0 if whole else source.effort * self.transforms.synthesis_halo
        out = np.empty((1, *place.shape, source.values.shape[3]), np.float32)
        for part in windows(*place.shape, max(place.shape) if whole else WINDOW):
            top, left = place.top, place.left
            window = Window(part.top + top, part.left + left, part.bottom + top, part.right + left)
            outer = window.widened(halo, rows, columns)
            inner = window.within(outer)
            pixels = np.asarray(source.picture.crop(_box(outer, source.width, source.height)))
            values = source.values[0, outer.rows, outer.columns]
            found = self.fed_back(values, pixels, channels, source.effort, source.price)
            out[0, part.rows, part.columns] = found[inner.rows, inner.columns]
        return out

    def _transformed(
        self, picture: Image.Image, side: int, run: Callable[[Array], Array], depth: int, kind: np.dtype[Any]
    ) -> Array:
        """What networks make of a picture, (tiles, h, w, depth); window by window if it is coded in tiles."""
        width, height = picture.size
        if not side:
            return run(_tiles(np.asarray(picture), self.config.patch_shape(height, width)))
        _, rows, columns = self.grid(width, height)
        values = np.empty((1, rows, columns, depth), kind)
        halo = self.transforms.analysis_halo
        for window in steps(windows(rows, columns, WINDOW), "analysis"):
            outer = window.widened(halo, rows, columns)
            inner = window.within(outer)
            pixels = np.asarray(picture.crop(_box(outer, width, height)))
            found = run(_tiles(pixels, (outer.shape[0] * BLOCK, outer.shape[1] * BLOCK)))
            values[:, window.rows, window.columns] = found[:, inner.rows, inner.columns]
        return values

    def _tile_side(self, width: int, height: int, tile: int | None) -> int:
        """The side of the tiles of a picture, in positions; 0: none."""
        if tile is None:
            return DEFAULT_TILE if self.supports_tiles and width * height > TILE_ABOVE else 0
        if not 0 <= tile <= MAX_TILE:
            raise ValueError(f"tile is {tile}; it must be 1 to {MAX_TILE}, or 0 for one piece")
        if tile and not self.supports_tiles:
            raise ValueError(f"tile is {tile}; {self.name} has tiles of its own: leave it out")
        return tile

    def _symbol_type(self, tile: int) -> np.dtype[Any]:
        return np.min_scalar_type(self.config.num_symbols - 1) if tile else np.dtype(np.int64)

    def analyse_batch(self, images: Array) -> Array:
        """The symbols of uint8 images of one size.

        Shape:
            images: (N, H, W) or (N, H, W, 3), as the model codes them. Returns: (N, tiles, h, w, C), int64.
        """
        return self._batch(images, self.transforms.symbols)

    def latent_batch(self, images: Array) -> Array:
        """The latents of uint8 images of one size, of a model that prices its bits: (N, H, W, 3) to (N, 1, h, w, D)."""
        return self._batch(images, self.transforms.latent)

    def _batch(self, images: Array, run: Callable[[Array], Array]) -> Array:
        tiles = [_tiles(image, self.config.patch_shape(*image.shape[:2])) for image in images]
        found = run(np.concatenate(tiles))
        return found.reshape(len(images), -1, *found.shape[1:])

    def rdoq(self, latent: Array, channels: int, price: float = 1.0) -> Rdoq:
        """What chooses the symbols of latents (pictures, 1, h, w, D) while so many channels are coded; price as in `Latent`."""
        assert isinstance(self.prior, IntegerTabulatedPrior)
        return Rdoq(self.prior, self.transforms.quantizer, latent, channels, price)

    def compress(
        self,
        image: Any,
        *,
        fraction: float | None = None,
        channels: int | None = None,
        bpp: float | None = None,
        max_bytes: int | None = None,
        psnr: float | None = None,
        layers: int | None = None,
        fixed_rate: bool = False,
        flatten: bool = False,
        keep_metadata: bool = False,
        psnr_table: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        tile: int | None = None,
        effort: int | None = None,
    ) -> bytes:
        """Compress an image into the bytes of an ``.ohm`` file.

        Transparency is kept exactly, as a mask of 8 bits; the colours of pixels that are fully transparent are not.
        At most one of the first five arguments says how large or how good it becomes; none of them: all channels.

        Args:
            image: Pillow image of any mode, numpy array (H, W) or (H, W, C) of uint8, C from 1 (grey) to 4 (RGBA), or
                torch tensor.
            fraction: of the adaptive range, in [0, 1]. channels: or how many channels.
            bpp: the largest file of at most so many bits per pixel, all its bytes counted.
            max_bytes: the largest file of at most so many bytes.
            psnr: the smallest file whose decoded picture has at least so many dB, over the colours of all pixels that
                are not fully transparent. The last three end at one of the model's cut points; with a model that prices its
                bits also at the end of a group of channels, and bits become dearer or cheaper, up to twice, to come near.
            layers: at most so many layers, each a place where the file may be cut; default: all cut points.
            fixed_rate: do not entropy code: the size is then known before.
            flatten: lay the image onto white; its transparency is lost.
            keep_metadata: keep EXIF (orientation 1, as the picture is upright) and XMP, and a profile if it is an sRGB
                one; other profiles would be wrong, since colours are converted to sRGB.
            psnr_table: keep the PSNR after each layer in the file, so that it can be cut to a PSNR without a model; takes
                decoding the picture once for each layer.
            max_pixels: larger images are refused.
            tile: for photo models, code in tiles of so many latent positions (of 16 pixels) each side, 1 to 256, or in
                one piece (0); default: tiles of 128 for pictures of more than 2^23 pixels, which bounds the memory.
            effort: 0, 1 or 2: how often to decode what is chosen and choose again, see `fed_back`; decoding takes the same
                time. For photo models that price their bits, without fixed_rate; there `DEFAULT_EFFORT` is the default.

        Returns:
            The file.

        Raises:
            ValueError: arguments out of range, or more than one target.
            ConfigError: an effort, and a model that does not price its bits.
            UnreachableTargetError: the smallest file is larger than bpp or max_bytes allow, or psnr is out of reach.
            UnsupportedImageError: an image that cannot be coded.

        Warns:
            ImageConversionWarning: what the conversion to the picture that is coded loses; see `prepare`.
        """
        given = [value for value in (fraction, channels, bpp, max_bytes, psnr) if value is not None]
        if len(given) > 1:
            raise ValueError("give at most one of fraction, channels, bpp, max_bytes and psnr")
        for name, value in (("max_bytes", max_bytes), ("psnr", psnr)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be positive")
        count = self._count(fraction, channels)
        picture = self.prepare(image, flatten=flatten, keep_metadata=keep_metadata, max_pixels=max_pixels)
        if bpp is not None:
            max_bytes = bytes_of_rate(bpp, picture.width, picture.height)
        given_to: dict[str, Any] = {"layers": layers, "fixed_rate": fixed_rate, "psnr_table": psnr_table}
        return self.compress_picture(
            picture, count, max_bytes=max_bytes, psnr=psnr, tile=tile, effort=effort, **given_to
        ).data

    def compress_picture(
        self,
        picture: Image.Image,
        channels: int | None = None,
        *,
        max_bytes: int | None = None,
        psnr: float | None = None,
        layers: int | None = None,
        fixed_rate: bool = False,
        psnr_table: bool = False,
        tile: int | None = None,
        effort: int | None = None,
    ) -> Coded:
        """Compress what `prepare` gave; arguments and errors as `compress`, where the last target that is given counts."""
        effort = self.effort_for(effort, fixed_rate)
        colours, extras = split_extras(picture)
        given_to: dict[str, Any] = {"layers": layers, "fixed_rate": fixed_rate, "extras": extras}
        source: Symbols | Latent
        if self.supports_rdoq and not fixed_rate:
            source = self._latent(colours, tile)._replace(effort=effort)
        else:
            source = self._analyse(colours, tile)
        given_to["original"] = picture if psnr_table else None
        reached: float | None = None
        if psnr is not None:
            channels, reached, source = self.reach_psnr(picture, source, psnr)
        elif max_bytes is not None:
            file, channels, _ = self.encode_within(source, max_bytes, **given_to)
            return Coded(file, channels, None)
        else:
            channels = self._count(None, channels)
        return Coded(self.encode(source, channels, **given_to), channels, reached)

    def effort_for(self, wanted: int | None, fixed_rate: bool = False) -> int:
        """How often `fed_back` moves a latent: as often as is wanted; None: `DEFAULT_EFFORT` where that can be.

        Raises:
            ValueError: an effort out of range, or with a fixed rate. ConfigError: a model that does not price its bits.
        """
        if wanted is None:
            return DEFAULT_EFFORT if self.supports_rdoq and not fixed_rate else 0
        if wanted not in range(len(STEPS) + 1):
            raise ValueError(f"effort is {wanted}; it must be 0 to {len(STEPS)}")
        if wanted and fixed_rate:
            raise ValueError(
                f"effort is {wanted}: with a fixed rate, symbols cost the same whatever they are; leave it out"
            )
        if wanted and not self.supports_rdoq:
            raise ConfigError(
                f"{self.name} is no photo model that prices its bits: only these can make an effort; leave it out"
            )
        return wanted

    def compress_batch(self, images: Any, **arguments: Any) -> list[bytes]:
        """The ``.ohm`` files of several images, which may differ in size.

        Args:
            images: a sequence of what `compress` takes, a torch tensor (N, C, H, W), or a numpy array (N, H, W) or
                (N, H, W, 3). arguments: as `compress`, for each image.

        Raises:
            OhmqError: as `compress`.
        """
        return [self.compress(image, **arguments) for image in images]

    def encode(
        self,
        source: Source,
        channels: int,
        *,
        layers: int | None = None,
        fixed_rate: bool = False,
        extras: tuple[Extra, ...] = (),
        original: Image.Image | None = None,
    ) -> bytes:
        """The ``.ohm`` file of the first ``channels`` channels of symbols, or of those that are chosen from a latent for them.

        Args:
            source: what `analyse` or `latent` gave. channels, layers, fixed_rate: as `compress`. extras: as they are.
            original: what `prepare` gave, for a PSNR table; None: no table.
        """
        return self._encode(source, [self.layer_ends(channels, layers)], fixed_rate, extras, original)[0][0]

    def encode_within(
        self,
        source: Source,
        max_bytes: int,
        *,
        layers: int | None = None,
        fixed_rate: bool = False,
        extras: tuple[Extra, ...] = (),
        original: Image.Image | None = None,
    ) -> Fitting:
        """The largest ``.ohm`` file of at most ``max_bytes`` bytes.

        Symbols are coded for all cut points in one pass: a file with all layers is coded once and cut. From a latent they are
        chosen and coded for some numbers of channels and some of `LAMBDA_SCALES`, by bisection.

        Raises:
            UnreachableTargetError: not even the first cut point gives so small a file.
        """
        files: Iterable[bytes]
        if isinstance(source, Latent):

            def coded(channels: int, priced: Source) -> tuple[bool, Fitting]:
                table = () if original is None else (psnr_extra([0.0] * len(self.layer_ends(channels, layers))),)
                file = self.encode(priced, channels, layers=layers, fixed_rate=fixed_rate, extras=(*extras, *table))
                return len(file) > max_bytes, Fitting(file, channels, priced)

            tried = self._approach(source, coded)
            fits = [found for too_large, found in tried if not too_large]
            if fits:
                largest = max(fits, key=lambda found: len(found.file))
                if original is None:
                    return largest
                channels = largest.channels  # and now the table that takes so much room
                file = self.encode(largest.source, channels, layers=layers, extras=extras, original=original)
                return largest._replace(file=file)
            if source.effort:  # feedback spends more bits than without: perhaps too many
                plain = source._replace(effort=0)
                return self.encode_within(
                    plain, max_bytes, layers=layers, fixed_rate=fixed_rate, extras=extras, original=original
                )
            file = min((found.file for _, found in tried), key=len)
        else:
            if layers is None:
                whole = self.encode(source, self.num_channels, fixed_rate=fixed_rate, extras=extras, original=original)
                files = (truncate_ohm(whole, num_layers=n) for n in range(len(self.cut_points), 0, -1))
            else:
                plans = [self.layer_ends(point, layers) for point in self.cut_points]
                files = reversed(self._encode(source, plans, fixed_rate, extras, original)[0])
            for channels, file in zip(reversed(self.cut_points), files, strict=True):
                if len(file) <= max_bytes:
                    return Fitting(file, channels, source)
        pixels = source.width * source.height
        beside = sum(len(extra.body) for extra in extras)
        raise UnreachableTargetError(
            f"the smallest file of this {source.width}x{source.height} picture at a cut point ({self.cut_points[0]} channels) "
            f"has {len(file)} bytes ({8 * len(file) / pixels:.4g} bpp), more than the {max_bytes} allowed"
            + (f"; {beside} of them are its mask of transparency and metadata" if beside else "")
        )

    def _approach(self, source: Latent, attempt: _Attempt[_Result]) -> list[tuple[bool, _Result]]:
        """What attempts gave: at cut points and ends of groups, and at other prices between the two that are nearest.

        The price that the latent has, as one that was searched for a target may, is not where that starts from. Feedback moves
        the latent once, for about as many channels as will do: for others and at other prices it would end up near there.
        """
        source = source._replace(price=1.0)
        if source.effort:
            plain = source._replace(effort=0)
            fitting = [
                found.channels
                for much, found in _bisect([(channels, plain) for channels in self._stops], attempt)
                if not much
            ]
            about = fitting[-1] if fitting else self._stops[0]
            source = plain._replace(values=self.chosen_from(source, about))
        tried = _bisect([(channels, source) for channels in self._stops], attempt)
        between: list[tuple[int, Source]] = []
        below, above = ([found.channels for much, found in tried if much == side] for side in (False, True))
        if below:
            between += [(below[-1], source._replace(price=price)) for price in LAMBDA_SCALES if price < 1]
        if above:
            between += [(above[-1], source._replace(price=price)) for price in LAMBDA_SCALES if price > 1]
        return tried + _bisect(between, attempt)

    def reach_psnr(self, image: Any, source: Source, psnr: float) -> Quality:
        """The first cut point whose decoded picture reaches a PSNR.

        The cut points are tried in order, each by decoding its symbols to a picture. From a latent it is what is nearest to
        the PSNR of some numbers of channels and some of `LAMBDA_SCALES`, by bisection; if that finds nothing, as above.

        Args:
            image: what `prepare` gave; pixels that its mask makes fully transparent do not count.
            source: the symbols of its colours, all channels, or its latent. psnr: in dB.

        Raises:
            UnreachableTargetError: nothing reaches it.
        """

        def quality(channels: int, priced: Source) -> tuple[bool, Quality]:
            reached = self._psnr_db(image, self._symbols(priced, channels), channels)
            return reached >= psnr, Quality(channels, reached, priced)

        tried = self._approach(source, quality) if isinstance(source, Latent) else []
        enough = [found for reached, found in tried if reached]
        if enough:
            return min(enough, key=lambda found: (found.psnr_db, found.channels, -cast(Latent, found.source).price))
        for channels in self._stops if isinstance(source, Latent) else self.cut_points:
            tried.append(quality(channels, source))
            if tried[-1][0]:
                return tried[-1][1]
        best = max((found for _, found in tried), key=lambda found: found.psnr_db)
        raise UnreachableTargetError(
            f"{self.name} reaches {best.psnr_db:.2f} dB on this picture, with {best.channels} channels; "
            f"{psnr:g} dB are out of its reach"
        )

    def _psnr_db(self, picture: Image.Image, symbols: Symbols, channels: int) -> float:
        """PSNR of the picture that the first channels decode to, over the pixels that are not fully transparent."""
        if picture.mode in ("LA", "RGBA") and not picture.getchannel("A").getbbox():
            return math.inf
        if not self._in_windows(symbols):
            return psnr_db(*_visible(picture, np.asarray(self.synthesise(symbols, channels))))
        total = count = 0
        for box, pixels in self._synthesised_windows(symbols, channels):
            original, decoded = _visible(picture.crop(box), pixels)
            total += int(np.square(original.astype(np.int32) - decoded).sum(dtype=np.int64))
            count += decoded.size
        return 10 * math.log10(255**2 * count / total) if total else math.inf

    def _symbols(self, source: Source, channels: int) -> Symbols:
        """The symbols that are coded of so many channels."""
        if isinstance(source, Symbols):
            return source
        return self._encode(source, [(channels,)], False, (), None, keep=True)[1]

    def _encode(
        self,
        source: Source,
        plans: Sequence[tuple[int, ...]],
        fixed_rate: bool,
        extras: tuple[Extra, ...],
        original: Image.Image | None,
        *,
        keep: bool = False,
    ) -> tuple[list[bytes], Symbols]:
        """Files of several ways to divide channels into layers, coded in one pass, and their symbols.

        From a latent, symbols are chosen for the number of channels of one plan; they are kept for ``keep`` or an original
        only: a large picture's take a gigabyte.
        """
        price = source.price if isinstance(source, Latent) else None
        if price is not None and fixed_rate:
            raise ValueError("with a fixed rate bits have no price: encode what analyse gives, not a latent")
        rows, columns = source.values.shape[1:3]

        def of(place: Window) -> Array:
            if isinstance(source, Latent):
                return self.chosen_from(source, plans[0][-1], place)
            return source.values[:, place.rows, place.columns]

        if not source.tile:
            payloads, values = self._payloads(of(Window(0, 0, rows, columns)), plans, fixed_rate, price)
        else:
            places = windows(rows, columns, source.tile)
            values = source.values
            keep = keep or original is not None
            if price is not None:
                values = np.empty((1, rows, columns, plans[0][-1] if keep else 0), self._symbol_type(source.tile))
            coded = []
            for place in steps(places, "entropy coding"):
                part, chosen = self._payloads(of(place), plans, fixed_rate, price)
                coded.append(part)
                if price is not None and keep:
                    values[:, place.rows, place.columns] = chosen
            payloads = [[join_tiles(layer) for layer in zip(*plan, strict=True)] for plan in zip(*coded, strict=True)]
        symbols = Symbols(values, source.width, source.height, source.tile)
        reached = {}
        if original is not None:
            reached = {
                end: self._psnr_db(original, symbols, end) for end in sorted({end for ends in plans for end in ends})
            }
        files = []
        for ends, parts in zip(plans, payloads, strict=True):
            sizes = [end - first for first, end in zip((0, *ends), ends, strict=False)]
            file = OhmFile(
                model_id=self.model_id,
                width=symbols.width,
                height=symbols.height,
                grey=self.grey,
                fixed_rate=fixed_rate,
                layers=tuple(Layer(size, payload) for size, payload in zip(sizes, parts, strict=True)),
                extras=(*extras, psnr_extra([reached[end] for end in ends])) if reached else extras,
                tile=symbols.tile,
            )
            files.append(write_ohm(file))
        return files, symbols

    def _payloads(
        self, values: Array, plans: Sequence[tuple[int, ...]], fixed_rate: bool, price: float | None
    ) -> tuple[list[list[bytes]], Array]:
        """Payloads, indexed [plan][layer], of symbols (tiles, h, w, C), or with a price of a latent (1, h, w, D); the symbols."""
        if price is not None:
            (ends,) = plans
            source = self.rdoq(values[None], ends[-1], price)
            payloads = encode_layers(self.prior, source, plans).payloads
            return [coded[0] for coded in payloads], source.values()[0]
        if fixed_rate:
            return [self._encode_fixed(values, ends) for ends in plans], values
        return [coded[0] for coded in encode_layers(self.prior, values[None], plans).payloads], values

    def _encode_fixed(self, symbols: Array, ends: tuple[int, ...]) -> list[bytes]:
        payloads = []
        for first, end in zip((0, *ends), ends, strict=False):
            values = np.moveaxis(symbols[..., first:end], -1, 0).reshape(-1)
            payloads.append(encode_fixed_rate(values, self._alphabets(first, end, values.size)))
        return payloads

    def layer_ends(self, channels: int, layers: int | None = None) -> tuple[int, ...]:
        """The channels at which layers end: the cut points below ``channels``, thinned to ``layers``, and itself."""
        channels = operator.index(channels)
        layers = None if layers is None else operator.index(layers)
        if not 1 <= channels <= self.num_channels:
            raise ValueError(f"channels is {channels}; this model codes 1 to {self.num_channels}")
        if layers is not None and layers < 1:
            raise ValueError(f"layers is {layers}; a file has at least 1")
        ends = [point for point in self.cut_points if point < channels] + [channels]
        if layers is not None and layers < len(ends):
            ends = [ends[math.ceil(len(ends) * (i + 1) / layers) - 1] for i in range(layers)]
        return tuple(ends)

    def _count(self, fraction: float | None, channels: int | None) -> int:
        if channels is None:
            channels = self.channels_for(1.0 if fraction is None else fraction)
            if channels == 0:
                raise ValueError(
                    f"fraction {fraction} stands for 0 channels; the smallest that codes is {1 / self.num_channels:.4g}"
                )
        self.layer_ends(channels)
        return operator.index(channels)

    def decode(
        self,
        data: bytes,
        *,
        channels: int | None = None,
        allow_truncated: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> tuple[OhmFile, Symbols]:
        """The symbols in an ``.ohm`` file; arguments and errors as `decompress`."""
        header = read_header(data)
        self._check_header(header, max_pixels)
        kept = _layers_within(header, channels)
        file = read_ohm(data, allow_truncated=allow_truncated)
        file = dataclasses.replace(file, layers=file.layers[:kept])
        shape = self.grid(header.width, header.height)
        ends = list(np.cumsum([layer.channels for layer in file.layers]).tolist())
        payloads = [layer.payload for layer in file.layers]
        if file.tile:
            values = np.empty((*shape, file.num_channels), self._symbol_type(file.tile))
            self._decode_tiles(values, file.tile, payloads, ends, file.fixed_rate)
        elif file.fixed_rate:
            values = self._decode_fixed(payloads, ends, shape)
        else:
            values = decode_layers(self.prior, payloads, ends, shape)
        return file, Symbols(values, header.width, header.height, file.tile)

    def _decode_tiles(
        self, values: Array, tile: int, payloads: Sequence[bytes], ends: Sequence[int], fixed_rate: bool, start: int = 0
    ) -> None:
        """Decode the layers of a file in tiles from channel ``start`` on, into the symbols of the whole latent."""
        rows, columns = values.shape[1:3]
        places = windows(rows, columns, tile)
        parts = [split_tiles(payload, len(places)) for payload in payloads]
        for place, *own in steps(list(zip(places, *parts, strict=True)), "entropy decoding"):
            block = values[:, place.rows, place.columns]
            shape = (1, *place.shape)
            if fixed_rate:
                block[..., start : ends[-1]] = self._decode_fixed(own, ends, shape, start)
            else:
                known = block[..., :start] if start else None
                block[..., start : ends[-1]] = decode_layers(self.prior, own, ends, shape, known)

    def _check_header(self, header: HeaderInfo, max_pixels: int) -> None:
        if header.model_id != self.model_id:
            raise ModelMismatchError(
                f"the file was made with model {header.model_id.hex()}, this is {self.name} ({self.model_id.hex()}); "
                f"{_hint(header.model_id)}"
            )
        if header.width * header.height > max_pixels:
            raise BitstreamError(
                f"the picture has {header.width}x{header.height} pixels, more than the limit of {max_pixels}; "
                "raise max_pixels if you trust the file"
            )
        if header.grey != self.grey:
            raise BitstreamError(
                f"the file says {'grey' if header.grey else 'colour'}, which {self.name} does not code"
            )
        if header.tile and not self.supports_tiles:
            raise BitstreamError(
                f"the file is coded in tiles of {header.tile} positions, which {self.name} does not do"
            )
        if sum(layer.channels for layer in header.layers) > self.num_channels:
            raise BitstreamError(f"the file has more channels than the {self.num_channels} of {self.name}")

    def _decode_fixed(
        self, payloads: Sequence[bytes], ends: Sequence[int], shape: tuple[int, int, int], start: int = 0
    ) -> Array:
        parts = []
        for payload, first, end in zip(payloads, (start, *ends), ends, strict=False):
            sizes = self._alphabets(first, end, (end - first) * math.prod(shape))
            if len(payload) != fixed_rate_bytes(sizes):
                raise BitstreamError(f"a fixed-rate layer has {len(payload)} bytes, expected {fixed_rate_bytes(sizes)}")
            parts.append(np.moveaxis(decode_fixed_rate(payload, sizes).reshape(end - first, *shape), 0, -1))
        return np.concatenate(parts, -1).astype(np.int64)

    def _alphabets(self, first: int, end: int, count: int) -> NDArray[np.int64]:
        """The alphabet sizes of all symbols of some channels, channel by channel."""
        sizes = np.repeat(self.config.group_symbols, self.config.group_sizes)[first:end]
        return np.repeat(sizes, count // (end - first))

    def grid(self, width: int, height: int) -> tuple[int, int, int]:
        """(tiles, h, w) of the symbols of a picture."""
        tile = self.config.patch_shape(height, width)
        return -(-width // tile[1]) * -(-height // tile[0]), *self.config.latent_shape(*tile)

    def decompress(
        self,
        data: bytes,
        *,
        channels: int | None = None,
        allow_truncated: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Image.Image:
        """The picture in an ``.ohm`` file.

        Args:
            data: the file. channels: use the layers that hold at most so many channels. allow_truncated: decode the
                leading whole layers of a file that ends early. max_pixels: larger pictures are refused before anything
                is allocated.

        Returns:
            A Pillow image, mode "L" or "RGB", with transparency "LA" or "RGBA"; its ``info`` has the metadata of the file,
            as "exif", "icc_profile" and "xmp".

        Raises:
            BitstreamError: a damaged file (`TruncatedFileError`, `ChecksumError`, ...).
            ModelMismatchError: the file was made with another model.
            ValueError: the first layer alone holds more channels.
        """
        file, symbols = self.decode(data, channels=channels, allow_truncated=allow_truncated, max_pixels=max_pixels)
        extras = decode_extras(file.extras, file.width, file.height)
        return extras.onto(self.synthesise(symbols, file.num_channels))

    def decompress_progressive(
        self,
        stream: bytes | ByteSource | Iterable[bytes],
        *,
        channels: int | None = None,
        allow_truncated: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Iterator[Image.Image]:
        """The pictures in an ``.ohm`` file, better and better, one as soon as each layer has arrived.

        Every layer is decoded once. No more is read of a ``ByteSource`` than the file's own bytes.

        Args:
            stream: the file: bytes, an object with ``read``, or an iterable of pieces as a download gives them.
            channels: stop after the layers that hold at most so many channels; nothing is read of the others.
            allow_truncated: end quietly after the last whole, undamaged layer; there must be one.
            max_pixels: larger pictures are refused before anything is allocated.

        Yields:
            A Pillow image for each layer; the last is what `decompress` gives.

        Raises:
            OhmqError: as `decompress`, when the place in question is reached.

        Example:
            >>> with open("photo.ohm", "rb") as file:                           # doctest: +SKIP
            ...     for picture in codec.decompress_progressive(file):
            ...         picture.save("latest.png")
        """
        source = StreamBuffer(stream)
        header = source.header()
        self._check_header(header, max_pixels)
        kept = _layers_within(header, channels)
        extras = decode_extras(
            [read_extra(info, source.take(info.length)) for info in header.extras], header.width, header.height
        )
        shape = self.grid(header.width, header.height)
        count = sum(layer.channels for layer in header.layers[:kept])
        values = np.empty((*shape, count), self._symbol_type(header.tile))
        # In tiles what is known is told anew for each layer: the states of all tiles at once would not be bounded.
        state, start = None if header.tile else self.prior.begin(*shape), 0
        for number, layer in enumerate(header.layers[:kept], start=1):
            payload, end = source.take(layer.length), start + layer.channels
            error: BitstreamError | None = None
            if len(payload) < layer.length:
                error = TruncatedFileError(f"the file ends inside layer {number}")
            elif zlib.crc32(payload) != layer.crc32:
                error = ChecksumError(f"layer {number} is damaged: its checksum does not match")
            if error is not None:
                if allow_truncated and number > 1:
                    return
                raise error
            if header.tile:
                self._decode_tiles(values, header.tile, [payload], [end], header.fixed_rate, start)
            elif header.fixed_rate:
                values[..., start:end] = self._decode_fixed([payload], [end], shape, start)
            else:
                values[..., start:end] = decode_layers(_Resumed(state), [payload], [end], shape)[..., start:]  # type: ignore[arg-type]
            start = end
            if number == len(header.layers) and source.rest:
                raise BitstreamError(f"{len(source.rest)} bytes follow the end of the file")
            picture = self.synthesise(Symbols(values, header.width, header.height, header.tile), end)
            yield extras.onto(picture)

    def synthesise(self, symbols: Symbols, channels: int) -> Image.Image:
        """The picture that the first ``channels`` channels of symbols stand for."""
        if self._in_windows(symbols):
            large = Image.new("RGB", (symbols.width, symbols.height))
            for box, pixels in self._synthesised_windows(symbols, channels):
                large.paste(Image.fromarray(pixels), box)
            return large
        tile_height, tile_width = self.config.patch_shape(symbols.height, symbols.width)
        columns, rows = -(-symbols.width // tile_width), -(-symbols.height // tile_height)
        picture = self.transforms.pixels(symbols.values, channels).reshape(rows, columns, -1, tile_height, tile_width)
        whole = picture.transpose(0, 3, 1, 4, 2).reshape(rows * tile_height, columns * tile_width, -1)
        whole = whole[: symbols.height, : symbols.width]
        return Image.fromarray(np.ascontiguousarray(whole[..., 0] if self.grey else whole))

    def _in_windows(self, symbols: Symbols) -> bool:
        """Whether a picture is synthesised window by window."""
        return bool(symbols.tile) or (self.supports_tiles and symbols.width * symbols.height > TILE_ABOVE)

    def _synthesised_windows(
        self, symbols: Symbols, channels: int
    ) -> Iterator[tuple[tuple[int, int, int, int], NDArray[np.uint8]]]:
        """The picture in parts: where each lies (left, upper, right, lower), and its pixels (height, width, 3)."""
        rows, columns = symbols.values.shape[1:3]
        halo = self.transforms.synthesis_halo
        for window in steps(windows(rows, columns, WINDOW), f"picture of {channels} channels"):
            outer = window.widened(halo, rows, columns)
            left, upper, right, lower = box = _box(window, symbols.width, symbols.height)
            part = symbols.values[:, outer.rows, outer.columns, :channels].astype(np.int64)
            decoded = self.transforms.pixels(part, channels)[0]
            y, x = upper - outer.top * BLOCK, left - outer.left * BLOCK
            inside = decoded[:, y : y + lower - upper, x : x + right - left]
            pixels = np.ascontiguousarray(inside.transpose(1, 2, 0))
            yield box, pixels


class _Resumed:
    """Stands for a prior in `decode_layers`: goes on from the state that earlier layers left."""

    def __init__(self, state: Any) -> None:
        self._state, self.kernels = state, state.prior.kernels

    def begin(self, tiles: int, height: int, width: int) -> Any:
        return self._state


def _layers_within(header: HeaderInfo, channels: int | None) -> int:
    """How many leading layers hold at most so many channels."""
    if channels is None:
        return len(header.layers)
    first = header.layers[0].channels
    if channels < first:
        raise ValueError(f"channels is {channels}; the first layer alone holds {first}: at least {first} is needed")
    ends = np.cumsum([layer.channels for layer in header.layers])
    return int((ends <= channels).sum())


def _hint(model_id: bytes) -> str:
    name = pretrained_model_ids().get(model_id)
    return f"use --model {name}" if name else "use the model that made it"
