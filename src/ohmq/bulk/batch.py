"""Batches of images for other pipelines: Ray Data's map_batches and torch's DataLoader. Bytes in, bytes out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ohmq.bulk.operations import Compress, Decompress, Operation
from ohmq.encoder.options import DEFAULT_MAX_PIXELS, EncodeOptions
from ohmq.imaging.files import check_extension

__all__ = ["CompressBatch", "DecompressBatch"]


class _Batch(ABC):
    """Applies an operation to the images of a batch; the model is loaded at the first batch, and stays out of pickles."""

    def __init__(self, column: str, output: str, names: str) -> None:
        self.column, self.output, self.names = column, output, names
        self._operation: Operation | None = None

    @abstractmethod
    def _make_operation(self) -> Operation:
        """Load the model."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_operation": None}

    def __call__(self, batch: Any) -> Any:
        """Process a batch.

        Args:
            batch: columns by name (arrays or lists), a table of pyarrow, or a list of samples: the bytes of images, or
                dictionaries.

        Returns:
            The batch without the images, with the columns of outputs (bytes; None: failed) and "error" (text; None: done):
            arrays of objects by name, a table, or, for samples, lists by name.

        Raises:
            KeyError: the batch has no such column.
            TypeError: a batch of another kind.
            OhmqError: a model or options that cannot be used. An image that fails is a row with an error.
        """
        if hasattr(batch, "to_pydict"):
            return self._table(batch)
        if isinstance(batch, Mapping):
            import numpy as np

            outputs, errors = self._process(batch[self.column], batch.get(self.names))
            kept = {name: values for name, values in batch.items() if name != self.column}
            arrays = [np.fromiter(values, object, len(values)) for values in (outputs, errors)]
            return {**kept, self.output: arrays[0], "error": arrays[1]}
        if not isinstance(batch, Sequence) or isinstance(batch, bytes | str):
            raise TypeError(
                f"a batch is a dictionary of columns, a pyarrow table or a list, not {type(batch).__name__}"
            )
        if all(isinstance(sample, Mapping) for sample in batch):
            names = [sample.get(self.names) for sample in batch]
            outputs, errors = self._process([sample[self.column] for sample in batch], names)
            kept = {name: [sample[name] for sample in batch] for name in (batch[0] if batch else ())}
            kept.pop(self.column, None)
            return {**kept, self.output: outputs, "error": errors}
        outputs, errors = self._process(batch, None)
        return {self.output: outputs, "error": errors}

    def _table(self, table: Any) -> Any:
        import pyarrow as pa

        names = table.column(self.names).to_pylist() if self.names in table.column_names else None
        outputs, errors = self._process(table.column(self.column).to_pylist(), names)
        table = table.drop_columns([self.column])
        # Offsets of 64 bits: a block of images may be larger than 2 GB.
        table = table.append_column(self.output, pa.array(outputs, pa.large_binary()))
        return table.append_column("error", pa.array(errors, pa.string()))

    def _process(self, images: Any, names: Any) -> tuple[list[bytes | None], list[str | None]]:
        if self._operation is None:
            operation = self._make_operation()
            operation.model_id  # noqa: B018  loads the model: without it, no image can be processed
            self._operation = operation
        outputs: list[bytes | None] = []
        errors: list[str | None] = []
        for number, data in enumerate(images):
            name = f"image {number}" if names is None or names[number] is None else str(names[number])
            output, error = None, None
            try:
                if not isinstance(data, bytes | bytearray | memoryview):
                    raise TypeError(f"{type(data).__name__} in place of the bytes of a file")
                output = self._operation(name, bytes(data)).data
            except Exception as exception:  # whatever it is, the other images of the batch go on
                text = str(exception) or type(exception).__name__
                error = text if name in text else f"{name}: {text}"
            outputs.append(output)
            errors.append(error)
        return outputs, errors


class CompressBatch(_Batch):
    """Compresses batches of image files into ``.ohm`` files; for pipelines that exist already.

    Ray Data makes one for each actor, which loads the model once:
    ``ds.map_batches(CompressBatch, fn_constructor_kwargs={"bpp": 0.4}, compute=ray.data.ActorPoolStrategy(size=8),
    batch_size=16, num_cpus=1)``. In a DataLoader it is the ``collate_fn`` of a data set of bytes. For whole folders and
    buckets, `ohmq.bulk.run` needs less memory, and resumes.

    Args:
        model: shipped name, model file or checkpoint.
        options: options of the encoder; default: `EncodeOptions`'s defaults.
        column: column of the image files, bytes.
        output: column of the ``.ohm`` files, bytes.
        names: column that names the images in errors, if the batch has it.
        device: device of the transforms, as for `ohmq.Codec`.
        compiled: whether numba compiles the inner loops; default: if numba is installed.
        arguments: single options by name, as for `ohmq.Codec.compress`.

    Raises:
        ValueError: an option out of range.
        TypeError: an option that does not exist.

    Example:
        >>> batch = CompressBatch("photo", bpp=0.4)([b"no image"])
        >>> batch["ohm"], batch["error"]
        ([None], ['image 0: not an image, or of a format that Pillow cannot read'])
    """

    def __init__(
        self,
        model: str = "photo",
        options: EncodeOptions | None = None,
        *,
        column: str = "bytes",
        output: str = "ohm",
        names: str = "path",
        device: str = "cpu",
        compiled: bool | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(column, output, names)
        self.model, self.options = str(model), EncodeOptions.merge(options, arguments)
        self.device, self.compiled = device, compiled

    def _make_operation(self) -> Operation:
        return Compress(model=self.model, options=self.options, device=self.device, compiled=self.compiled)


class DecompressBatch(_Batch):
    """Decompresses batches of ``.ohm`` files into image files; used like `CompressBatch`.

    Args:
        model: shipped name, model file or checkpoint; default: the shipped model that each file names.
        image_format: format of the images: an extension without its dot.
        column: column of the ``.ohm`` files, bytes.
        output: column of the image files, bytes.
        names: column that names the images in errors, if the batch has it.
        device: device of the transforms, as for `ohmq.Codec`.
        compiled: whether numba compiles the inner loops; default: if numba is installed.
        max_pixels: limit on width × height.

    Raises:
        UnsupportedImageError: a format that is not written.
    """

    def __init__(
        self,
        model: str = "",
        *,
        image_format: str = "png",
        column: str = "ohm",
        output: str = "bytes",
        names: str = "path",
        device: str = "cpu",
        compiled: bool | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        super().__init__(column, output, names)
        check_extension(f"image.{image_format}")
        self.model, self.image_format, self.max_pixels = str(model), image_format, max_pixels
        self.device, self.compiled = device, compiled

    def _make_operation(self) -> Operation:
        return Decompress(
            model=self.model,
            extension=f".{self.image_format}",
            max_pixels=self.max_pixels,
            device=self.device,
            compiled=self.compiled,
        )
