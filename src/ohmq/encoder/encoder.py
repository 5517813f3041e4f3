"""The encoder: from symbols or a latent to the bytes of an ``.ohm`` file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from ohmq.bitstream.format import RESIDUAL_CHANNELS, Extra, Layer, OhmFile
from ohmq.bitstream.psnr_table import psnr_extra
from ohmq.bitstream.writer import write_ohm
from ohmq.encoder.quality import decoded_psnr_db
from ohmq.encoder.refine import LatentRefiner
from ohmq.entropy.kernels import Kernels
from ohmq.entropy.latent_coder import LatentCoder
from ohmq.entropy.layers import IntegerPrior, KnownSymbols, SymbolSource
from ohmq.entropy.residual_coder import CUTS, encode_residual
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.geometry import Window
from ohmq.runtime.latents import Latent, Source, Symbols
from ohmq.runtime.windowed import WindowedTransforms
from ohmq.utils.progress import phase

__all__ = ["EncodedImage", "Encoder", "FileSettings", "ResidualBase"]


class ResidualBase(NamedTuple):
    """The decoder whose images residuals correct.

    Attributes:
        windowed: the transforms with that decoder.
        decoder_id: its id, 4 bytes.
    """

    windowed: WindowedTransforms
    decoder_id: bytes


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """Settings of the files of one image.

    Attributes:
        layers: limit on the number of layers; None: one for each cut point.
        fixed_rate: pack symbols without entropy coding.
        extras: mask and metadata, by ascending type.
        original: the image with its mask, for a PSNR table; None: no table.
    """

    layers: int | None = None
    fixed_rate: bool = False
    extras: tuple[Extra, ...] = ()
    original: Image.Image | None = None


class EncodedImage(NamedTuple):
    """Files of one image and the symbols that they hold.

    Attributes:
        files: one for each layer layout.
        symbols: the symbols; None if they were not kept.
    """

    files: list[bytes]
    symbols: Symbols | None


class Encoder:
    """Encodes symbols and latents with one model.

    Args:
        windowed: the model's transforms.
        prior: its integer prior.
        model_id: bitstream id of the model, 4 bytes.
        kernels: inner loops.
        residual_base: the decoder that residuals are for; None: the model has none.

    Attributes:
        refiner: refines latents; None for models without RDOQ.
        stops: numbers of channels that a search tries: cut points and, above the first, ends of groups.
    """

    def __init__(
        self,
        windowed: WindowedTransforms,
        prior: IntegerPrior,
        model_id: bytes,
        kernels: Kernels,
        residual_base: ResidualBase | None = None,
    ) -> None:
        config = windowed.config
        self.residual_base = residual_base
        self.windowed, self.config, self.name = windowed, config, windowed.name
        self.prior, self.model_id, self.kernels = prior, model_id, kernels
        self.refiner: LatentRefiner | None = None
        if config.supports_rdoq:
            assert isinstance(prior, IntegerTabulatedPrior)
            self.refiner = LatentRefiner(prior, windowed.transforms.quantizer, windowed, kernels)
        ends = np.cumsum(config.group_sizes).tolist()
        self.stops = sorted({*config.cut_points, *(end for end in ends if end > config.cut_points[0])})

    def encode(self, source: Source, channels: int, settings: FileSettings) -> bytes:
        """Encode the first ``channels`` channels of symbols, or RDOQ's choice for them from a latent, into a file.

        Args:
            source: symbols of at least ``channels`` channels, or a latent.
            channels: the number of channels.
            settings: settings of the file.

        Returns:
            The file.

        Raises:
            ValueError: channels out of range, or a latent at a fixed rate.
        """
        return self.encode_layouts(source, [self.layer_ends(channels, settings.layers)], settings).files[0]

    def layer_ends(self, channels: int, limit: int | None) -> tuple[int, ...]:
        """Return the channels at which the layers of a file end.

        Args:
            channels: the number of channels; those after the model's are of a residual.
            limit: on the number of the model's layers; a residual adds one. None: one for each cut point.
        """
        last = self.config.channels_max
        if channels <= last:
            return self.config.layer_ends(channels, limit)
        cuts = (RESIDUAL_CHANNELS,) if limit is not None else CUTS
        return (*self.config.layer_ends(last, limit), *(last + cut for cut in cuts))

    def encode_hashed(self, source: Source, channels: int, settings: FileSettings) -> tuple[bytes, str]:
        """Encode like `encode`, and hash the symbols of the file.

        Args:
            source: as for `encode`.
            channels: as for `encode`.
            settings: as for `encode`.

        Returns:
            The file, and the hash of its symbols; see `ohmq.runtime.latents.Symbols.sha256`.

        Raises:
            ValueError: as `encode`.
        """
        layout = self.layer_ends(channels, settings.layers)
        coded = self.encode_layouts(source, [layout], settings, keep=True)
        assert coded.symbols is not None
        return coded.files[0], coded.symbols.sha256(channels)

    def encode_layouts(
        self, source: Source, layouts: Sequence[tuple[int, ...]], settings: FileSettings, *, keep: bool = False
    ) -> EncodedImage:
        """Encode one image with several layer layouts in one pass.

        Args:
            source: its symbols, or its latent with layouts of one number of channels.
            layouts: for each file, the channels at which its layers end, ascending.
            settings: settings of the files.
            keep: return the symbols; those of a large image take a gigabyte. Default: no.

        Raises:
            ValueError: a latent at a fixed rate.
        """
        coder = LatentCoder(
            self.prior,
            np.repeat(self.config.group_symbols, self.config.group_sizes),
            kernels=self.kernels,
            tile=source.tile,
            fixed_rate=settings.fixed_rate,
            threads=self.windowed.transforms.threads,
        )
        grid = self.config.latent_grid(source.width, source.height)
        keep = keep or settings.original is not None
        last = self.config.channels_max
        own_layouts = [tuple(end for end in ends if end <= last) for ends in layouts]
        choose = self._symbol_sources(source, own_layouts[0][-1], settings.fixed_rate)
        payloads, values = coder.encode(choose, grid, own_layouts, keep=keep and isinstance(source, Latent))
        if isinstance(source, Symbols) and source.residual:
            for ends, parts in zip(layouts, payloads, strict=True):
                further = [end - last for end in ends if end > last]
                parts += encode_residual(source.residual.levels, further, grid, coder, self.kernels) if further else []
        symbols = source if isinstance(source, Symbols) else None
        if values is not None:
            symbols = Symbols(values, source.width, source.height, source.tile)
        psnr_db = {}
        if settings.original is not None:
            assert symbols is not None
            layer_ends = sorted({end for ends in layouts for end in ends})
            with phase("PSNR of the layers", len(layer_ends)) as advance:
                for end in layer_ends:
                    psnr_db[end] = self.psnr_db(settings.original, symbols, end)
                    advance()
        files = []
        for ends, parts in zip(layouts, payloads, strict=True):
            table = (psnr_extra([psnr_db[end] for end in ends]),) if psnr_db else ()
            files.append(self._file(source, ends, parts, settings, table))
        return EncodedImage(files, symbols)

    def _symbol_sources(self, source: Source, channels: int, fixed_rate: bool) -> Callable[[Window], SymbolSource]:
        """Return a function that gives the symbols of a window: known ones, or chosen by RDOQ."""
        if isinstance(source, Symbols):
            values = source.values
            return lambda window: KnownSymbols(values[None, :, window.rows, window.columns])
        if fixed_rate:
            raise ValueError("a fixed rate has no use for RDOQ: encode the symbols that analyse gives, not a latent")
        refiner, latent = self.refiner, source
        assert refiner is not None

        def choose(window: Window) -> SymbolSource:
            weights = None if latent.weights is None else latent.weights.inside(window)
            refined = refiner.refine(latent, channels, window)[None]
            return refiner.rdoq(refined, channels, latent.lambda_scale, weights)

        return choose

    def _file(
        self,
        source: Source,
        ends: Sequence[int],
        payloads: Sequence[bytes],
        settings: FileSettings,
        table: tuple[Extra, ...],
    ) -> bytes:
        sizes = np.diff(ends, prepend=0).tolist()
        file = OhmFile(
            model_id=self.model_id,
            width=source.width,
            height=source.height,
            grey=self.config.image_channels == 1,
            fixed_rate=settings.fixed_rate,
            layers=tuple(Layer(size, payload) for size, payload in zip(sizes, payloads, strict=True)),
            extras=(*settings.extras, *table),
            tile=source.tile,
            residual=source.residual.info if isinstance(source, Symbols) and source.residual else None,
        )
        return write_ohm(file)

    def symbols(self, source: Source, channels: int) -> Symbols:
        """Return the symbols that are coded of the first ``channels`` channels.

        Args:
            source: symbols, which are returned as they are, or a latent.
            channels: the number of channels.
        """
        if isinstance(source, Symbols):
            return source
        symbols = self.encode_layouts(source, [(channels,)], FileSettings(), keep=True).symbols
        assert symbols is not None
        return symbols

    def psnr_db(self, original: Image.Image, symbols: Symbols, channels: int) -> float:
        """Measure the PSNR in dB that the first ``channels`` channels decode to; see `decoded_psnr_db`.

        Args:
            original: the image, with its mask.
            symbols: its symbols.
            channels: the number of leading channels that are decoded.
        """
        return decoded_psnr_db(self.windowed_for(symbols, channels), original, symbols, channels)

    def windowed_for(self, symbols: Symbols, channels: int) -> WindowedTransforms:
        """Return the transforms that decode channels: those that a residual among them corrects, or those of the encoder.

        Args:
            symbols: symbols of an image.
            channels: the number of leading channels that are decoded.
        """
        if symbols.residual_channels(channels):
            assert self.residual_base is not None
            return self.residual_base.windowed
        return self.windowed
