"""What bulk coding does to one image: compress, decompress, transcode, truncate. Bytes in, bytes and facts out."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ohmq.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

    from ohmq.bulk.job import BulkJob
    from ohmq.codec import Codec
    from ohmq.encoder.options import EncodeOptions

__all__ = ["Compress", "Decompress", "ImageResult", "Operation", "Transcode", "Truncate", "make_operation"]


class ImageResult(NamedTuple):
    """Output of one image, and facts about it.

    Attributes:
        data: content of the output file.
        width: width of the image in pixels.
        height: height of the image in pixels.
        symbols_sha256: hash of the symbols, see `ohmq.runtime.latents.Symbols.sha256`; None: no model coded or decoded them.
        psnr_db: PSNR of the decoded image against the source, in dB; infinite if they are equal; None: not measured.
        notes: one phrase for each loss of a conversion.
    """

    data: bytes
    width: int
    height: int
    symbols_sha256: str | None = None
    psnr_db: float | None = None
    notes: tuple[str, ...] = ()


class Operation(Protocol):
    """Turns the content of one file into another one's. The model is loaded at the first use.

    Attributes:
        extension: extension of the outputs, with its dot.
        model_id: hexadecimal id of the model; empty: there is none, or each file names its own.
    """

    @property
    def extension(self) -> str:
        """Extension of the outputs, with its dot."""

    @property
    def model_id(self) -> str:
        """Hexadecimal id of the model; empty: there is none, or each file names its own."""

    def __call__(self, name: str, data: bytes) -> ImageResult:
        """Process one image; ``name`` is for errors. Raise `OhmqError` if it cannot be processed."""


@dataclass(frozen=True, kw_only=True)
class Compress:
    """Compresses images into ``.ohm`` files.

    Attributes:
        model: shipped name, model file or checkpoint.
        options: options of the encoder.
        measure: decode each file and measure its PSNR.
        device: device of the transforms.
        compiled: whether numba compiles the inner loops; None: if it is installed.
    """

    model: str
    options: "EncodeOptions"
    measure: bool = False
    device: str = "cpu"
    compiled: bool | None = None
    extension: str = field(default=".ohm", init=False)

    @cached_property
    def codec(self) -> "Codec":
        """The model's codec."""
        codec = _load(self.model, self.device, self.compiled)
        try:
            codec.check_options(self.options)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return codec

    @property
    def model_id(self) -> str:
        """Hexadecimal id of the model."""
        return self.codec.model_id.hex()

    def __call__(self, name: str, data: bytes) -> ImageResult:
        """Compress an image file; errors as `ohmq.Codec.compress`.

        Args:
            name: name of the file, for errors.
            data: content of the file.
        """
        from ohmq.imaging.files import open_image

        loaded = open_image(name, max_pixels=self.options.max_pixels, data=data)
        return self.compress_image(loaded.image, loaded.notes)

    def compress_image(self, image: "Image.Image", notes: tuple[str, ...] = ()) -> ImageResult:
        """Compress an image; errors as `ohmq.Codec.compress`.

        Args:
            image: Pillow image, upright.
            notes: phrases about losses so far.
        """
        from ohmq.imaging.convert import prepare_image

        options = self.options
        prepared, more_notes = prepare_image(
            image, grey=self.codec.grey, flatten=options.flatten, keep_metadata=options.keep_metadata
        )
        coded = self.codec.compress_prepared(prepared, options, hash_symbols=True)
        psnr_db = None
        if self.measure:
            file, symbols = self.codec.decode(coded.data, max_pixels=options.max_pixels)
            psnr_db = self.codec.encoder.psnr_db(prepared, symbols, file.num_channels)
        return ImageResult(
            coded.data, prepared.width, prepared.height, coded.symbols_sha256, psnr_db, (*notes, *more_notes)
        )


@dataclass(frozen=True, kw_only=True)
class Decompress:
    """Decompresses ``.ohm`` files into image files.

    Attributes:
        model: shipped name, model file or checkpoint; empty: the shipped model that each file names.
        extension: extension of the image files, with its dot.
        max_pixels: limit on width × height.
        device: device of the transforms.
        compiled: whether numba compiles the inner loops; None: if it is installed.
    """

    model: str = ""
    extension: str = ".png"
    max_pixels: int = 2**27
    device: str = "cpu"
    compiled: bool | None = None

    @property
    def model_id(self) -> str:
        """Hexadecimal id of the model; empty: each file names its own."""
        return _load(self.model, self.device, self.compiled).model_id.hex() if self.model else ""

    def decode(self, data: bytes) -> tuple["Image.Image", str]:
        """Decode a file: the image, and the hash of its symbols; errors as `ohmq.Codec.decompress`.

        Args:
            data: content of the file.
        """
        from ohmq.imaging.extras import decode_extras
        from ohmq.loading import load_for

        if self.model:
            codec = _load(self.model, self.device, self.compiled)
        else:
            codec = load_for(data, compiled=self.compiled, device=self.device)
        file, symbols = codec.decode(data, max_pixels=self.max_pixels)
        extras = decode_extras(file.extras, file.width, file.height)
        return extras.onto(codec.synthesise(symbols, file.num_channels)), symbols.sha256(file.num_channels)

    def __call__(self, name: str, data: bytes) -> ImageResult:
        """Decompress a file; errors as `ohmq.Codec.decompress`.

        Args:
            name: name of the file, for errors.
            data: content of the file.
        """
        from ohmq.imaging.files import encode_image

        image, symbols_sha256 = self.decode(data)
        content, notes = encode_image(image, self.extension, name=name)
        return ImageResult(content, image.width, image.height, symbols_sha256, None, notes)


@dataclass(frozen=True, kw_only=True)
class Transcode:
    """Decodes ``.ohm`` files and compresses the images again, with another model or other options.

    Attributes:
        decoder: how files are decoded.
        encoder: how images are compressed.
    """

    decoder: Decompress
    encoder: Compress
    extension: str = field(default=".ohm", init=False)

    @property
    def model_id(self) -> str:
        """Hexadecimal id of the model that compresses."""
        return self.encoder.model_id

    def __call__(self, name: str, data: bytes) -> ImageResult:
        """Transcode a file; errors as `ohmq.Codec.decompress` and `ohmq.Codec.compress`.

        Args:
            name: name of the file, for errors.
            data: content of the file.
        """
        image, _ = self.decoder.decode(data)
        return self.encoder.compress_image(image)


@dataclass(frozen=True, kw_only=True)
class Truncate:
    """Cuts ``.ohm`` files to a lower rate, without a model and without torch.

    Attributes:
        cut: exactly one limit, by the argument's name of `ohmq.bitstream.truncate.truncate_ohm`.
        max_pixels: limit on width × height.
    """

    cut: dict[str, Any]
    max_pixels: int = 2**27
    extension: str = field(default=".ohm", init=False)
    model_id: str = field(default="", init=False)

    def __call__(self, name: str, data: bytes) -> ImageResult:
        """Cut a file; errors as `ohmq.bitstream.truncate.truncate_ohm`.

        Args:
            name: name of the file, for errors.
            data: content of the file.
        """
        from ohmq.bitstream.reader import read_header
        from ohmq.bitstream.truncate import truncate_ohm

        try:
            cut = truncate_ohm(data, **self.cut)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        header = read_header(cut)
        return ImageResult(cut, header.width, header.height)


def make_operation(job: "BulkJob") -> Operation:
    """Return the operation of a job; no model is loaded yet.

    Args:
        job: the job.
    """
    common: dict[str, Any] = {"device": job.device, "compiled": job.compiled}
    if job.operation == "truncate":
        return Truncate(cut=dict(job.cut), max_pixels=job.options.max_pixels)
    decoder = Decompress(
        model=job.decode_model,
        extension="." + job.image_format.lstrip("."),
        max_pixels=job.options.max_pixels,
        **common,
    )
    if job.operation == "decompress":
        return decoder
    encoder = Compress(model=job.model, options=job.options, measure=job.measure, **common)
    return encoder if job.operation == "compress" else Transcode(decoder=decoder, encoder=encoder)


def _load(model: str, device: str, compiled: bool | None) -> "Codec":
    """Load a model once in this process."""
    from ohmq.loading import named_codec

    return named_codec(model, compiled=compiled, device=device)
