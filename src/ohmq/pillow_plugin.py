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

import warnings
from typing import IO, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from ohmq.bitstream.format import MAGIC, MAX_SIDE
from ohmq.bitstream.reader import read_extra, read_header, read_ohm
from ohmq.errors import BitstreamError, OhmqError, TruncatedFileError
from ohmq.imaging.extras import METADATA, decode_extras
from ohmq.loading import load_for, named_codec, register_model

__all__ = ["OhmImageFile", "register_model"]

FORMAT, DEFAULT_MODEL = "OHM", "photo"
HEADER_STEP = 4096
"""More than nearly every header has; the longest possible one has about 3.5 KB."""


class OhmImageFile(ImageFile.ImageFile):
    """An ``.ohm`` file that Pillow opened.

    ``size`` and ``mode`` ("L", "LA", "RGB" or "RGBA") come from the header. ``info`` has "model_id" (8 hexadecimal digits),
    "channels", "layers", "fixed_rate" and "tile" (0: one piece), and "exif", "icc_profile" and "xmp" if the file has them.
    A file that ends early is an `OSError` when its pixels are loaded, or, with ``ImageFile.LOAD_TRUNCATED_IMAGES``, the
    image of its whole layers.
    """

    format = FORMAT
    format_description = "ohmq one-hot max image"
    _pending = False  # header read, pixels not decoded

    def _open(self) -> None:
        assert self.fp is not None
        data = self.fp.read(HEADER_STEP)
        try:
            header = read_header(data)
        except BitstreamError as error:
            raise UnidentifiedImageError(f"damaged .ohm file: {error}") from error
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
        self._pending = True

    def _whole(self) -> bytes:
        assert self.fp is not None
        self.fp.seek(0)
        return self.fp.read()

    def load(self) -> Any:
        """Decode the image, the first time.

        Raises:
            OSError: a damaged file, or one whose model is not at hand.
        """
        if self._pending:
            data = self._whole()
            try:
                decoded = load_for(data).decompress(
                    data, allow_truncated=ImageFile.LOAD_TRUNCATED_IMAGES, max_pixels=MAX_SIDE**2
                )
            except TruncatedFileError as error:
                raise OSError(f"image file is truncated: {error}") from error
            except OhmqError as error:
                raise OSError(str(error)) from error
            self.im, self.readonly, self._pending = decoded.im, 0, False
            if self._exclusive_fp and self.fp is not None:
                self.fp.close()
            self.fp = None
        return super().load()

    def verify(self) -> None:
        """Check that the file is whole and undamaged, without decoding it.

        Raises:
            OSError: it is not.
        """
        try:
            read_ohm(self._whole())
        except BitstreamError as error:
            raise OSError(str(error)) from error
        super().verify()


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """``image.save("x.ohm", model="photo", ...)``: the other options are those of `EncodeOptions`."""
    from ohmq.encoder.options import EncodeOptions

    given = {name: value for name, value in image.encoderinfo.items() if value is not None}  # type: ignore[attr-defined]
    model = given.pop("model", DEFAULT_MODEL)
    arguments = {name: given.pop(name) for name in EncodeOptions.names() if name in given and name != "max_pixels"}
    if given:
        warnings.warn(f".ohm files have no option {', '.join(sorted(given))}: ignored", UserWarning, stacklevel=3)
    try:
        data = named_codec(model).compress(image, EncodeOptions(max_pixels=MAX_SIDE**2, **arguments))
    except OhmqError as error:
        raise OSError(str(error)) from error
    file.write(data)


Image.register_open(FORMAT, OhmImageFile, _accept)  # type: ignore[arg-type]
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".ohm")
Image.register_mime(FORMAT, "image/x-ohm")
