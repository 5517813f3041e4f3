"""``.ohm`` files in Pillow: ``import ohmq.pillow_plugin``, then ``Image.open("x.ohm")`` and ``image.save("x.ohm")``.

Opening reads the header alone; torch and the model are loaded when pixels are needed. Pillow has no entry points for
plugins: a program imports this module.

Example:
    >>> import ohmq.pillow_plugin
    >>> from PIL import Image
    >>> Image.open("photo.png").save("photo.ohm", bpp=0.3)                      # doctest: +SKIP
    >>> Image.open("photo.ohm").size                                            # doctest: +SKIP
    (768, 512)
"""

import os
import threading
import warnings
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from ohmq.bitstream.format import MAGIC, MAX_SIDE
from ohmq.bitstream.reader import read_extra, read_header, read_ohm
from ohmq.errors import BitstreamError, OhmqError, TruncatedFileError
from ohmq.imaging.extras import METADATA, decode_extras
from ohmq.loading import load_for, named_codec, register_model
from ohmq.utils.atomic_write import write_atomically

__all__ = ["OhmImageFile", "register_model", "save_atomically"]

FORMAT, DEFAULT_MODEL = "OHM", "photo"
DRAFT_SCALES, DRAFT_DECODER = (16, 8), "fast"
"""Scales of `OhmImageFile.draft`, from the smallest image, and its decoder where neither fits; see `ohmq.Codec`."""
HEADER_STEP = 4096
"""More than nearly every header has; the longest possible one has about 3.5 KB."""


class OhmImageFile(ImageFile.ImageFile):
    """An ``.ohm`` file that Pillow opened.

    ``size`` and ``mode`` ("L", "LA", "RGB" or "RGBA") come from the header. ``info`` has "model_id" (8 hexadecimal digits),
    "channels", "layers", "fixed_rate" and "tile" (0: one piece), and "exif", "icc_profile", "xmp" and "dpi" if the file
    has them. Several threads may use an image that is not decoded yet. A file that ends early is an `OSError` when its
    pixels are loaded, or, with ``ImageFile.LOAD_TRUNCATED_IMAGES``, the image of its whole layers.
    """

    format = FORMAT
    format_description = "ohmq one-hot max image"
    _pending = False  # header read, pixels not decoded
    _draft_scale: int | None = None  # of the draft that was asked for

    def _open(self) -> None:
        assert self.fp is not None
        data = self.fp.read(HEADER_STEP)
        try:
            header = read_header(data)
        except BitstreamError as error:
            raise UnidentifiedImageError(self._named(f"damaged .ohm file: {error}")) from error
        self._size = header.width, header.height
        self._mode = ("L" if header.grey else "RGB") + "A" * header.alpha
        self.info = {
            "model_id": header.model_id.hex(),
            "channels": sum(layer.channels for layer in header.layers),
            "layers": len(header.layers),
            "fixed_rate": header.fixed_rate,
            "tile": header.tile,
        }
        self.fp.seek(header.header_bytes)
        for extra in header.extras:
            if extra.type not in METADATA:
                self.fp.seek(extra.length, 1)
                continue
            try:
                found = decode_extras([read_extra(extra, self.fp.read(extra.length))], *self.size)
            except BitstreamError:  # loading says what is wrong
                break
            self.info.update(found.info.items())
        self.tile = []
        self._lock = threading.Lock()
        self._pending = True

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Ask for a smaller image, or a faster decoder, before the pixels are loaded; `thumbnail` does so.

        The image becomes an eighth or a sixteenth of its size if that is at least the size asked for. Else it keeps its size,
        and is decoded by the decoder "fast" if its model has one.

        Args:
            mode: ignored: images keep their mode.
            size: least width and height, in pixels; None: no draft.

        Returns:
            The mode, and the box of the whole image in the coordinates of the smaller one; None: nothing changes, as for an
            image that is loaded, or is a draft.
        """
        if not self._pending or self._draft_scale is not None or size is None:
            return None
        width, height = self.size
        most = min(width // max(1, size[0]), height // max(1, size[1]))
        scale = next((scale for scale in DRAFT_SCALES if scale <= most), 1)
        self._draft_scale = scale
        self._size = -(-width // scale), -(-height // scale)
        return self.mode, (0, 0, width / scale, height / scale)

    def load(self) -> Any:
        """Decode the image, the first time.

        Raises:
            OSError: a damaged file, or one whose model is not at hand.
            ValueError: the file was closed, or verified, before.
        """
        if self._pending:
            with self._lock:
                if self._pending:  # another thread may have decoded it meanwhile
                    self._decode()
        return super().load()

    def _decode(self) -> None:
        if self.fp is None:
            raise ValueError("the image is closed: open it again, or load it before it is closed or verified")
        self.fp.seek(0)
        data = self.fp.read()
        try:
            codec = load_for(data)
            decoded = codec.decompress(
                data,
                allow_truncated=ImageFile.LOAD_TRUNCATED_IMAGES,
                max_pixels=MAX_SIDE**2,
                decoder=DRAFT_DECODER if self._draft_scale and DRAFT_DECODER in codec.decoders else None,
                scale=self._draft_scale or 1,
            )
        except TruncatedFileError as error:
            raise OSError(self._named(f"image file is truncated: {error}")) from error
        except OhmqError as error:
            raise OSError(self._named(str(error))) from error
        self.im, self.readonly = decoded.im, 0
        if self._exclusive_fp:
            self.fp.close()
        self.fp = None
        self._pending = False  # last, since other threads look at it without the lock

    def _named(self, message: str) -> str:
        """Put the name of the file, if it has one, before a message."""
        name = os.fsdecode(self.filename)
        return f"{name}: {message}" if name else message

    def verify(self) -> None:
        """Check that the file is whole and undamaged, without decoding it.

        Raises:
            OSError: it is not.
            RuntimeError: it was closed, verified or loaded before.
        """
        if self.fp is None:
            raise RuntimeError("verify must be called directly after open")
        self.fp.seek(0)
        try:
            read_ohm(self.fp.read())
        except BitstreamError as error:
            raise OSError(self._named(str(error))) from error
        super().verify()


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def save_atomically(image: Image.Image, path: Path | str, **options: Any) -> None:
    """Save an image as an ``.ohm`` file; an existing file is replaced only once the new one is complete.

    `PIL.Image.Image.save` empties an existing file before this plugin is asked for the new one, so that a target out of
    reach leaves an empty file.

    Args:
        image: Pillow image.
        path: the target; missing folders are made.
        options: as ``image.save``.

    Raises:
        OSError: an image that cannot be coded, a target out of reach, or a model that is not at hand.
        ValueError: an option out of range.
        OutputWriteError: disk full, no permission, and the like.
    """
    write_atomically(Path(path), _encode(image, options, stacklevel=3), force=True)


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    file.write(_encode(image, image.encoderinfo, stacklevel=4))  # type: ignore[attr-defined]


def _save_all(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    others = list(image.encoderinfo.get("append_images") or ())  # type: ignore[attr-defined]
    count = getattr(image, "n_frames", 1) + sum(getattr(other, "n_frames", 1) for other in others)
    if count > 1:
        raise OSError(f"an .ohm file holds one image, not {count}: save each to its own file, without save_all")
    _save(image, file, filename)


def _encode(image: Image.Image, arguments: dict[str, Any], *, stacklevel: int) -> bytes:
    """Compress an image with the arguments of ``save``.

    Args:
        image: the image.
        arguments: model, metadata as for Pillow's own formats, and the options of `EncodeOptions`.
        stacklevel: of warnings, for `warnings.warn`.
    """
    from ohmq.encoder.options import EncodeOptions
    from ohmq.imaging.metadata import replace_metadata

    given = {name: value for name, value in arguments.items() if value is not None or name in METADATA.values()}
    given.pop("append_images", None)  # empty, as `_save_all` says
    model = given.pop("model", DEFAULT_MODEL)
    metadata = {name: given.pop(name) for name in (*METADATA.values(), "dpi") if name in given}
    chosen = {name: given.pop(name) for name in EncodeOptions.names() if name in given and name != "max_pixels"}
    if given:
        warnings.warn(
            f".ohm files have no option {', '.join(sorted(given))}: ignored", UserWarning, stacklevel=stacklevel
        )
    try:
        codec = named_codec(model)
        options = EncodeOptions(max_pixels=MAX_SIDE**2, **chosen)
        if not metadata:
            return codec.compress(image, options)
        options.channel_count(codec.config)  # before the image is read
        image.load()  # a copy does not know its file
        replaced = replace_metadata(image, metadata, keep_others=options.keep_metadata)
        prepared = codec.prepare(replaced, flatten=options.flatten, keep_metadata=True, max_pixels=options.max_pixels)
        if not options.keep_metadata:  # a profile that was not given served to convert the colours alone
            kept = {*metadata, "exif"} if "dpi" in metadata else {*metadata}
            prepared.info = {name: value for name, value in prepared.info.items() if name in kept}
        return codec.compress_prepared(prepared, options).data
    except OhmqError as error:
        raise OSError(str(error)) from error


Image.register_open(FORMAT, OhmImageFile, _accept)  # type: ignore[arg-type]
Image.register_save(FORMAT, _save)
Image.register_save_all(FORMAT, _save_all)
Image.register_extension(FORMAT, ".ohm")
Image.register_mime(FORMAT, "image/x-ohm")
