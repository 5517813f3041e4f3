"""Images to ``.ohm`` files and back: the facade over encoder and decoder.

image -> analysis -> latent -> symbols (RDOQ, rate control) -> entropy coder -> file
file -> entropy decoder -> symbols -> synthesis, post-filter -> image
"""

import warnings
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image

from ohmq.bitstream.format import STEPS_A_LEVEL, Extra, OhmFile
from ohmq.bitstream.stream import ByteSource
from ohmq.decoder.decoder import Decoder
from ohmq.decoder.files import decoded_alone, file_header
from ohmq.decoder.progressive import decode_progressive
from ohmq.encoder.encoder import Encoder, FileSettings, ResidualBase
from ohmq.encoder.options import DEFAULT_MAX_PIXELS, EncodeOptions
from ohmq.encoder.quality_scale import QualityScale, measure_probe
from ohmq.encoder.rate_control import search_psnr, search_size, search_ssimulacra2
from ohmq.encoder.residual import ResidualSource
from ohmq.encoder.tuning import without_poor_ends
from ohmq.entropy.kernels import NUMPY
from ohmq.entropy.select_kernels import select_kernels
from ohmq.errors import ConfigError, ModelFileError
from ohmq.imaging.arrays import as_image
from ohmq.imaging.convert import (
    ImageConversionWarning,
    check_size,
    errors_name_file,
    file_name,
    load_pixels,
    prepare_image,
)
from ohmq.imaging.extras import DecodedExtras, decode_extras, split_extras
from ohmq.model_files.pretrained import pretrained_model_ids, quality_table
from ohmq.postfilter.select_kernel import select_kernel
from ohmq.runtime.latents import Latent, Source, Symbols
from ohmq.runtime.protocols import CodingModel
from ohmq.runtime.thumbnails import check_scale, thumbnail_channels
from ohmq.runtime.windowed import WindowedTransforms
from ohmq.utils.ordered import map_in_order

__all__ = ["DECODERS", "STANDARD", "Codec", "CompressedImage"]

STANDARD = "standard"
"""Name of a model's own synthesis transform among its decoders."""
DECODERS = ("fast", STANDARD, "best")
"""Names of the decoders that models may have, from the fastest to the best."""
RESIDUAL_DECODERS = ("fast", STANDARD)
"""Names of the decoders that residuals correct, in the order of preference: the fast one decodes large files sooner, and takes
least room in a model that must keep it."""


def _by_quality(decoder: str) -> tuple[int, str]:
    return (DECODERS.index(decoder) if decoder in DECODERS else len(DECODERS)), decoder


class CompressedImage(NamedTuple):
    """A compressed image.

    Attributes:
        data: the file.
        channels: the number of the model's channels in it.
        psnr_db: PSNR of the decoded image in dB; None if it was no target.
        quality: the quality that was aimed at, 0 to 100; None if something else was.
        symbols_sha256: hash of the symbols, see `ohmq.runtime.latents.Symbols.sha256`; None if it was not asked for.
        ssimulacra2: SSIMULACRA2 score of the decoded image; None if it was no target.
        residual: quantization step of its residual, in grey levels; None if it has none.
    """

    data: bytes
    channels: int
    psnr_db: float | None = None
    quality: float | None = None
    symbols_sha256: str | None = None
    ssimulacra2: float | None = None
    residual: float | None = None


class Codec:
    """Compresses images with one model, and decompresses them. Threads may share a codec: use does not change it.

    Args:
        frozen: the model.
        compiled: whether numba compiles the inner loops of entropy coding and the post-filter, which takes half a second in
            each process and some seconds the first time. Symbols and bytes are the same, pixels are the same up to rounding.
            Default: if numba is installed.
        device: where transforms and quantizer run: "cpu", "cuda", "cuda:1", "mps", or "auto" for the first accelerator, if
            there is one. The entropy coder stays on the CPU, in integers: every device decodes the same symbols.
        decoder: the decoder of images that name none, one of `decoders`; default: "standard". The encoder's own passes and
            its search for a PSNR use "standard".

    Attributes:
        name: of the model.
        config: of the model.
        model_id: bitstream id of the model, 4 bytes; its files carry it.
        compiled: whether the inner loops are compiled.
        device: where transforms and quantizer run, such as "cpu" or "cuda:0".
        decoder_name: the decoder of images that name none.
        num_channels: the number of channels of the model.
        cut_points: numbers of channels at which a file can be cut.
        grey: whether the model codes grey images; else RGB.
        quality_scale: what ``quality`` means with this model; None: it has no such scale.

    Raises:
        ModelFileError: the model has no quantizer, so it cannot compress.
        ConfigError: ``compiled``, and numba is missing; or no such device here, or no such decoder in the model.

    Example:
        >>> codec = load("mnist-ohm")                                           # doctest: +SKIP
        >>> data = codec.compress(Image.open("digit.png"), fraction=0.5)        # doctest: +SKIP
        >>> image = codec.decompress(data)                                      # doctest: +SKIP
    """

    def __init__(
        self,
        frozen: CodingModel,
        *,
        compiled: bool | None = None,
        device: str = "cpu",
        decoder: str | None = None,
    ) -> None:
        if frozen.prior is None:
            raise ModelFileError(f"{frozen.name} was trained without a quantizer: it cannot compress")
        kernels = select_kernels(compiled)
        self.compiled = kernels is not NUMPY
        self.frozen, self.prior = frozen, frozen.prior
        transforms = frozen.transforms.with_kernels(select_kernel(self.compiled), kernels if self.compiled else None)
        self.transforms = transforms.to(device)
        self.device = self.transforms.device
        self.name, self.config, self.model_id = frozen.name, frozen.config, frozen.model_id
        self.num_channels, self.cut_points = self.config.channels_max, self.config.cut_points
        self.grey = self.config.image_channels == 1
        table = quality_table(self.model_id)
        self.quality_scale = None if table is None else QualityScale.from_table(table)
        self.windowed = WindowedTransforms(self.transforms, self.config, self.name)
        self._ladder = {
            name: WindowedTransforms(self.transforms.with_decoder(name), self.config, self.name)
            for name in self.transforms.decoders
        }
        self.decoder_name = STANDARD
        self.windowed_for(decoder)
        self.decoder_name = decoder or STANDARD
        residual_base: ResidualBase | None = None
        if self.config.supports_tiles:
            base = next(
                (name for name in RESIDUAL_DECODERS if name in self.decoders and name in frozen.decoder_ids), None
            )
            residual_base = ResidualBase(self.windowed_for(base), frozen.decoder_ids[base]) if base else None
        self.encoder = Encoder(self.windowed, self.prior, self.model_id, kernels, residual_base)
        self.decoder = Decoder(
            self.config,
            self.prior,
            model_id=self.model_id,
            name=self.name,
            kernels=kernels,
            pretrained=pretrained_model_ids,
            threads=self._num_threads,
            decoder_ids=frozen.decoder_ids,
        )

    def _num_threads(self) -> int:
        return self.transforms.threads

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of the decoders of the model, from the fastest to the best."""
        return tuple(sorted({STANDARD, *self._ladder}, key=_by_quality))

    def windowed_for(self, decoder: str | None) -> WindowedTransforms:
        """Return the transforms with a decoder.

        Args:
            decoder: one of `decoders`; None: that of the codec.

        Raises:
            ConfigError: a decoder that the model does not have.
        """
        decoder = decoder or self.decoder_name
        if decoder == STANDARD:
            return self.windowed
        if decoder not in self._ladder:
            raise ConfigError(f"{self.name} has no decoder {decoder!r}; it has {', '.join(self.decoders)}")
        return self._ladder[decoder]

    def to(self, device: str) -> "Codec":
        """Return a codec of the same model on another device; this one stays where it is.

        Args:
            device: as for `Codec`.

        Raises:
            ConfigError: no such device here.
        """
        return Codec(self.frozen, compiled=self.compiled, device=device, decoder=self.decoder_name)

    def with_decoder(self, decoder: str) -> "Codec":
        """Return a codec of the same model that decodes images by another decoder; this one stays as it is.

        Args:
            decoder: one of `decoders`.

        Raises:
            ConfigError: a decoder that the model does not have.
        """
        return Codec(self.frozen, compiled=self.compiled, device=self.device, decoder=decoder)

    def compress(self, image: Any, options: EncodeOptions | None = None, **arguments: Any) -> bytes:
        """Compress an image into the bytes of an ``.ohm`` file.

        Transparency is kept exactly, as a mask of 8 bits; the colours of fully transparent pixels are not kept.

        Args:
            image: Pillow image of any mode, numpy array (H, W) or (H, W, C) of uint8, C from 1 (grey) to 4 (RGBA), or torch
                tensor.
            options: options of the encoder; default: `EncodeOptions`'s defaults.
            arguments: single options by name, such as ``quality=70``, ``bpp=0.5``, ``psnr=32.0``, ``ssimulacra2=70``,
                ``residual=4``, ``fraction=0.5``, ``channels=64``, ``max_bytes=10_000``, ``layers="all"``, ``effort=2``,
                ``tune="psnr"``, ``tile=0``, ``fixed_rate=True``, ``flatten=True``, ``keep_metadata=True``, ``psnr_table=True`` or
                ``max_pixels=2**27``; see `EncodeOptions`.

        Returns:
            The file.

        Raises:
            ValueError: an option out of range, or more than one target for size or quality.
            ConfigError: an effort or the tuning "visual", and a model without RDOQ; or a quality, and a model without a quality
                scale.
            UnreachableTargetError: the smallest file is larger than bpp or max_bytes allow, or psnr or ssimulacra2
                is out of reach.
            UnsupportedImageError: an image that cannot be coded.

        Warns:
            ImageConversionWarning: the conversion to the coded image loses information; see `prepare`.
        """
        options = EncodeOptions.merge(options, arguments)
        self.check_options(options)  # before the image is read
        prepared = self.prepare(
            image, flatten=options.flatten, keep_metadata=options.keep_metadata, max_pixels=options.max_pixels
        )
        return self.compress_prepared(prepared, options).data

    def check_options(self, options: EncodeOptions) -> None:
        """Check that this model has what the options ask for; an image is not needed.

        Args:
            options: options of the encoder.

        Raises:
            ValueError: a number of channels or a tile that the model does not have.
            ConfigError: an effort, a tuning or a quality that the model does not have.
        """
        options.effort_for(self.config, self.name)
        options.tune_for(self.config, self.name)
        options.quality_for(self.quality_scale is not None, self.name)
        options.residual_step(self.encoder.residual_base is not None, self.name)
        options.channel_count(self.config)
        self.windowed.tile_side(1, 1, options.tile)

    def compress_prepared(
        self, image: Image.Image, options: EncodeOptions, *, hash_symbols: bool = False
    ) -> CompressedImage:
        """Compress an image that `prepare` gave; errors as `compress`.

        Args:
            image: image from `prepare`.
            options: options of the encoder.
            hash_symbols: whether to hash the symbols that the file holds, without decoding it. Default: no.

        Returns:
            The file, its number of channels and, if it was measured, its PSNR.
        """
        effort, tuning = options.effort_for(self.config, self.name), options.tuning_for(self.config, self.name)
        colours, extras = split_extras(image)
        settings = FileSettings(
            layers=options.layer_limit(),
            fixed_rate=options.fixed_rate,
            extras=extras,
            original=image if options.psnr_table else None,
        )
        source: Source
        if options.uses_rdoq(self.config):
            latent = self.windowed.latent(colours, options.tile)._replace(effort=effort)
            source = tuning.apply(latent, self.transforms.quantizer["project"])
        else:
            source = self.windowed.symbols(colours, options.tile)
        poor_ranges = tuning.poor_ranges(self.model_id)
        max_bytes = options.byte_limit(image.width, image.height)
        if max_bytes is not None:
            found = search_size(
                self.encoder,
                source,
                max_bytes,
                settings,
                original=colours,
                poor_ranges=poor_ranges,
                hash_symbols=hash_symbols,
            )
            return self._compressed(found.file, found.channels, found.source, symbols_sha256=found.symbols_sha256)
        channels = options.channel_count(self.config)
        psnr_db: float | None = None
        score: float | None = None
        quality = options.quality_for(self.quality_scale is not None, self.name)
        if quality is not None:
            assert isinstance(source, Latent)
            channels, scale = without_poor_ends(self._channels_for_quality(source, quality), poor_ranges)
            source = source._replace(lambda_scale=scale)
        if options.psnr is not None:
            channels, psnr_db, source = search_psnr(self.encoder, image, source, options.psnr, poor_ranges=poor_ranges)
        if options.ssimulacra2 is not None:
            channels, score, source = search_ssimulacra2(
                self.encoder, image, source, options.ssimulacra2, poor_ranges=poor_ranges
            )
        step = options.residual_step(self.encoder.residual_base is not None, self.name)
        if step is not None:
            residual = ResidualSource.of(self.encoder, source, colours)
            channels, source = residual.channels, residual.quantized(step)
        symbols_sha256: str | None = None
        if hash_symbols:
            file, symbols_sha256 = self.encoder.encode_hashed(source, channels, settings)
        else:
            file = self.encoder.encode(source, channels, settings)
        return self._compressed(
            file,
            channels,
            source,
            psnr_db=psnr_db,
            quality=quality,
            symbols_sha256=symbols_sha256,
            ssimulacra2=score,
        )

    def _compressed(self, file: bytes, channels: int, source: Source, **known: Any) -> CompressedImage:
        """Describe a file of the first channels of a source."""
        residual = source.residual if isinstance(source, Symbols) else None
        step = residual.info.step / STEPS_A_LEVEL if residual else None
        return CompressedImage(file, min(channels, self.num_channels), residual=step, **known)

    def _channels_for_quality(self, source: Latent, quality: float) -> int:
        scale, refiner = self.quality_scale, self.encoder.refiner
        assert scale is not None and refiner is not None
        return scale.channel_count(quality, measure_probe(refiner.decoded_parts(source, scale.probe_channels)))

    def compress_batch(self, images: Any, options: EncodeOptions | None = None, **arguments: Any) -> list[bytes]:
        """Compress several images, which may differ in size.

        Args:
            images: a sequence of images as `compress` takes them, a torch tensor (N, C, H, W), or a numpy array (N, H, W) or
                (N, H, W, 3).
            options: as `compress`, for each image.
            arguments: as `compress`, for each image.

        Returns:
            The files.

        Raises:
            OhmqError: as `compress`.
        """
        return [self.compress(image, options, **arguments) for image in images]

    def prepare(
        self,
        image: Any,
        *,
        flatten: bool = False,
        keep_metadata: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Image.Image:
        """Convert an image to the image that is coded: 8 bits, grey or RGB, upright, in sRGB, with mask and metadata.

        Args:
            image: as `compress`.
            flatten: flatten transparency onto white.
            keep_metadata: keep metadata in ``info``; see `EncodeOptions`.
            max_pixels: limit on width × height.

        Returns:
            Mode "L" or "RGB"; "LA" or "RGBA" if it is not opaque everywhere.

        Raises:
            UnsupportedImageError: an image that cannot be coded.

        Warns:
            ImageConversionWarning: the conversion loses information.
        """
        loaded = as_image(image)
        notes: list[str] = []
        with errors_name_file(loaded):
            check_size(loaded.width, loaded.height, max_pixels)
            pixels = load_pixels(loaded, notes, max_pixels=max_pixels)
            prepared, more_notes = prepare_image(pixels, grey=self.grey, flatten=flatten, keep_metadata=keep_metadata)
        name = file_name(loaded)
        for note in (*notes, *more_notes):
            warnings.warn(f"{name}: {note}" if name else note, ImageConversionWarning, stacklevel=3)
        return prepared

    def effort_for(self, effort: int | None, fixed_rate: bool = False) -> int:
        """Return the number of full refinement passes that ``effort`` means with this model; options as in `EncodeOptions`.

        Args:
            effort: number asked for; None: the default of the model.
            fixed_rate: whether symbols are packed without entropy coding; default: no.

        Raises:
            ValueError: an effort out of range, or at a fixed rate.
            ConfigError: an effort, and a model without RDOQ.
        """
        return EncodeOptions(effort=effort, fixed_rate=fixed_rate).effort_for(self.config, self.name)

    def analyse(self, image: Any, *, max_pixels: int = DEFAULT_MAX_PIXELS, tile: int | None = None) -> Symbols:
        """Analyse an image, flattened onto white, and quantize it to the nearest symbols of all channels, without RDOQ.

        Args:
            image: Pillow image, array or tensor, as `compress`.
            max_pixels: limit on width × height.
            tile: as in `EncodeOptions`.

        Returns:
            The symbols.

        Raises:
            UnsupportedImageError: an image that cannot be coded.
            ValueError: a tile out of range.
        """
        return self.windowed.symbols(self.prepare(image, flatten=True, max_pixels=max_pixels), tile)

    def latent(
        self,
        image: Any,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        tile: int | None = None,
        effort: int | None = None,
        tune: Literal["psnr", "visual"] | None = None,
    ) -> Latent:
        """Analyse an image, flattened onto white: the input of RDOQ, which `encode` takes in place of symbols.

        Args:
            image: Pillow image, array or tensor, as `compress`.
            max_pixels: limit on width × height.
            tile: as in `EncodeOptions`.
            effort: as in `EncodeOptions`.
            tune: as in `EncodeOptions`.

        Returns:
            The latent.

        Raises:
            ConfigError: a model without RDOQ.
            UnsupportedImageError: an image that cannot be coded.
            ValueError: a tile or an effort out of range, or an unknown tuning.
        """
        if not self.config.supports_rdoq:
            raise ConfigError(f"{self.name} does not support RDOQ: use analyse")
        options = EncodeOptions(effort=effort, tune=tune)
        effort, tuning = options.effort_for(self.config, self.name), options.tuning_for(self.config, self.name)
        prepared = self.prepare(image, flatten=True, max_pixels=max_pixels)
        latent = self.windowed.latent(prepared, tile)._replace(effort=effort)
        return tuning.apply(latent, self.transforms.quantizer["project"])

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
        """Encode the first channels of symbols, or RDOQ's choice for them from a latent.

        Args:
            source: from `analyse` or `latent`.
            channels: the number of channels.
            layers: limit on the number of layers; default: one for each cut point.
            fixed_rate: as in `EncodeOptions`; for symbols only.
            extras: mask and metadata, by ascending type.
            original: the image from `prepare`, for a PSNR table; default: no table.

        Returns:
            The file.

        Raises:
            ValueError: an argument out of range.
        """
        settings = FileSettings(layers=layers, fixed_rate=fixed_rate, extras=extras, original=original)
        return self.encoder.encode(source, channels, settings)

    def decompress(
        self,
        data: bytes,
        *,
        channels: int | None = None,
        allow_truncated: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        decoder: str | None = None,
        scale: int = 1,
    ) -> Image.Image:
        """Decompress an ``.ohm`` file, whole or as a thumbnail.

        A thumbnail has the mean colours of blocks of the image. Photo models that have maps for it compute it straight from
        the latent of the first channels, without the synthesis transform and so without a decoder; those of other models
        are reduced from the decoded image.

        Args:
            data: the file.
            channels: decode the layers that hold at most this number of channels; default: all.
            allow_truncated: decode the leading whole layers of a file that ends early.
            max_pixels: limit on width × height; larger images are refused before anything is allocated.
            decoder: one of `decoders`: "fast", "standard" or "best"; default: that of the codec, "standard". A residual is
                added to the image of the decoder that it was made for, whatever is given here.
            scale: 8 or 16: width and height are divided by it and rounded up; default: 1.

        Returns:
            Mode "L" or "RGB", with transparency "LA" or "RGBA"; ``info`` has the metadata of the file, as "exif",
            "icc_profile", "xmp" and "dpi".

        Raises:
            BitstreamError: a damaged file (`TruncatedFileError`, `ChecksumError`, ...).
            ModelMismatchError: the file was made with another model.
            ConfigError: a decoder that the model does not have.
            ValueError: the first layer alone holds more channels, or another scale.
        """
        self.windowed_for(decoder)  # refused before anything is decoded
        check_scale(scale)
        enough = None if scale == 1 or self.frozen.thumbnails is None else thumbnail_channels(self.config, scale)
        file, symbols = self.decoder.decode(
            data, channels=channels, allow_truncated=allow_truncated, max_pixels=max_pixels, enough=enough
        )
        extras = decode_extras(file.extras, file.width, file.height)
        return self._decoded(extras, symbols, symbols.num_channels, decoder, scale)

    def _decoded(
        self, extras: DecodedExtras, symbols: Symbols, channels: int, decoder: str | None, scale: int
    ) -> Image.Image:
        """Return the image or thumbnail of symbols, with its mask and metadata."""
        if scale == 1:
            return extras.onto(self.synthesise(symbols, channels, decoder=decoder))
        image = self._windowed_of(symbols, channels, decoder).thumbnail(
            symbols, channels, scale, self.frozen.thumbnails
        )
        return extras.reduced(scale).onto(image)

    def decompress_batch(
        self,
        files: Iterable[bytes | str | PathLike[str]],
        *,
        channels: int | None = None,
        allow_truncated: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        decoder: str | None = None,
        scale: int = 1,
    ) -> Iterator[Image.Image]:
        """Decompress several files, which may differ in size, in as many threads as torch has (``torch.set_num_threads``).

        A file is read when its turn comes. At most two images for each thread are under way, or wait to be taken. An image of
        more than 2^25 pixels divided by the number of threads is decoded alone, by all threads.

        Args:
            files: content or path of each.
            channels: as `decompress`, for each file; the other arguments too.
            allow_truncated: see `decompress`.
            max_pixels: see `decompress`.
            decoder: see `decompress`.
            scale: see `decompress`.

        Returns:
            An iterator over the images, in the order of the files.

        Raises:
            OhmqError: as `decompress`, in the place of the image; there are no others after it.
            OSError: a file that cannot be read, likewise.

        Example:
            >>> for path, image in zip(paths, codec.decompress_batch(paths)):   # doctest: +SKIP
            ...     image.save(path.with_suffix(".png"))
        """
        self.windowed_for(decoder)
        check_scale(scale)

        def decompressed(file: bytes | str | PathLike[str]) -> Image.Image:
            return self.decompress(
                file if isinstance(file, bytes) else Path(file).read_bytes(),
                channels=channels,
                allow_truncated=allow_truncated,
                max_pixels=max_pixels,
                decoder=decoder,
                scale=scale,
            )

        workers = self.transforms.file_workers()
        return map_in_order(
            decompressed, files, workers, lambda file: scale == 1 and decoded_alone(file_header(file), workers)
        )

    def decompress_progressive(
        self,
        stream: bytes | ByteSource | Iterable[bytes],
        *,
        channels: int | None = None,
        allow_truncated: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        decoder: str | None = None,
        scale: int = 1,
    ) -> Iterator[Image.Image]:
        """Decompress an ``.ohm`` file layer by layer, as its bytes arrive.

        Each layer is decoded once. A `ByteSource` is read no further than the file's own bytes.

        Args:
            stream: the file: bytes, an object with ``read``, or an iterable of pieces as a download gives them.
            channels: stop after the layers that hold at most this number of channels, and read no others; default: all.
            allow_truncated: end quietly after the last whole, undamaged layer; there must be one.
            max_pixels: limit on width × height; larger images are refused before anything is allocated.
            decoder: as `decompress`.
            scale: as `decompress`; a thumbnail is made of all channels that have arrived.

        Yields:
            An image for each layer, better and better; the last is the image that `decompress` gives at scale 1.

        Raises:
            OhmqError: as `decompress`, when the place in question is reached.

        Example:
            >>> with open("photo.ohm", "rb") as file:                           # doctest: +SKIP
            ...     for image in codec.decompress_progressive(file):
            ...         image.save("latest.png")
        """
        self.windowed_for(decoder)
        check_scale(scale)
        for extras, symbols, count in decode_progressive(
            self.decoder, stream, channels=channels, allow_truncated=allow_truncated, max_pixels=max_pixels
        ):
            yield self._decoded(extras, symbols, count, decoder, scale)

    def decode(
        self,
        data: bytes,
        *,
        channels: int | None = None,
        allow_truncated: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> tuple[OhmFile, Symbols]:
        """Decode the symbols of an ``.ohm`` file; arguments and errors as `decompress`.

        Args:
            data: the file.
            channels: decode the layers that hold at most this number of channels; default: all.
            allow_truncated: decode the leading whole layers of a file that ends early; default: no.
            max_pixels: limit on width × height.

        Returns:
            The file with the layers that were decoded, and their symbols.
        """
        return self.decoder.decode(data, channels=channels, allow_truncated=allow_truncated, max_pixels=max_pixels)

    def synthesise(self, symbols: Symbols, channels: int, *, decoder: str | None = None) -> Image.Image:
        """Synthesise the image that the first ``channels`` channels of symbols stand for.

        Args:
            symbols: symbols of at least ``channels`` channels.
            channels: the number of channels.
            decoder: as `decompress`.

        Returns:
            An image of mode "L" or "RGB".

        Raises:
            ConfigError: a decoder that the model does not have.
        """
        return self._windowed_of(symbols, channels, decoder).synthesise(symbols, channels)

    def _windowed_of(self, symbols: Symbols, channels: int, decoder: str | None) -> WindowedTransforms:
        """Return the transforms with a decoder; for channels of a residual, with the one that it corrects."""
        if symbols.residual_channels(channels):
            assert symbols.residual is not None
            ids = self.frozen.decoder_ids
            decoder = next(name for name in ids if ids[name] == symbols.residual.info.decoder_id)
        return self.windowed_for(decoder)
