"""Load codecs, and find the codec that decodes a file: the one registry of models.

Importing this module loads neither numpy nor torch, so that the Pillow plugin stays light.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ohmq.bitstream.reader import read_header
from ohmq.errors import ConfigError, ModelMismatchError

if TYPE_CHECKING:
    from ohmq.codec import Codec

__all__ = ["ModelRegistry", "load", "load_for", "named_codec", "register_model"]

RUNTIMES = ("torch", "onnx")


def load(source: str | Path, *, runtime: str = "torch", compiled: bool | None = None, device: str = "cpu") -> "Codec":
    """Load a codec from a pretrained model's name, a model file or a training checkpoint.

    Args:
        source: name of a pretrained model, or path of a model file, a checkpoint or, for ONNX, a folder.
        runtime: "torch", or "onnx" for a folder that ``ohmq export --onnx`` wrote; torch need not be installed then.
        compiled: whether numba compiles the inner loops, as for `ohmq.Codec`; default: if numba is installed.
        device: where transforms and quantizer run, as for `ohmq.Codec`: "cpu", "cuda", "cuda:1", "mps" or "auto".

    Returns:
        A new codec.

    Raises:
        ModelFileError: no such model, or one that cannot compress.
        ValueError: unknown runtime.
        ConfigError: a package that the runtime needs is not installed; or no such device here.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime is {runtime!r}; choose 'torch' or 'onnx'")
    from ohmq.codec import Codec

    if runtime == "onnx":
        from ohmq.model_files.onnx_folder import load_onnx

        return Codec(load_onnx(Path(source)), compiled=compiled, device=device)
    try:
        from ohmq.model_files.resolve import resolve_model
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError("torch is not installed; without it, models run as ONNX folders: --runtime onnx") from error
    return Codec(resolve_model(source), compiled=compiled, device=device)


class ModelRegistry:
    """Codecs by bitstream id and by name, each loaded once; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._registered: dict[bytes, Codec] = {}
        self._loaded: dict[tuple[str, bool | None, str], Codec] = {}

    def register(self, codec: "Codec") -> None:
        """Decode files of this codec's model from now on.

        Args:
            codec: the codec.
        """
        with self._lock:
            self._registered[codec.model_id] = codec

    def named(self, source: str | Path, compiled: bool | None = None, device: str = "cpu") -> "Codec":
        """Load a model once and keep it; arguments and errors as `load`.

        Args:
            source: name of a pretrained model, a model file or a checkpoint.
            compiled: as for `load`.
            device: as for `load`.
        """
        key = str(source), compiled, device
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load(source, compiled=compiled, device=device)
            return self._loaded[key]

    def for_file(self, data: bytes, compiled: bool | None = None, device: str = "cpu") -> "Codec":
        """Find the registered or pretrained model of a file; arguments and errors as `load_for`.

        Args:
            data: the file, or at least its header.
            compiled: as for `load`; a registered codec stays as it is.
            device: as for `load`; a registered codec stays where it is.
        """
        from ohmq.model_files.pretrained import pretrained_model_ids

        model_id = read_header(data).model_id
        with self._lock:
            if registered := self._registered.get(model_id):
                return registered
        names = pretrained_model_ids()
        if model_id not in names:
            known = ", ".join(f"{name} {key.hex()}" for key, name in names.items()) or "none"
            raise ModelMismatchError(
                f"made with model {model_id.hex()}, which is not a shipped one ({known}): give it with --model"
            )
        return self.named(names[model_id], compiled, device)


_REGISTRY = ModelRegistry()


def load_for(data: bytes, *, compiled: bool | None = None, device: str = "cpu") -> "Codec":
    """Load the codec of the model that made an ``.ohm`` file; each model is loaded once.

    Args:
        data: the file, or at least its header.
        compiled: as for `load`; a registered model stays as it was registered.
        device: as for `load`; a registered model stays where it is.

    Returns:
        The codec; threads may share it.

    Raises:
        ModelMismatchError: the model is neither registered (`register_model`) nor a pretrained one.
        BitstreamError: no valid header.
        ConfigError: no such device here.
    """
    return _REGISTRY.for_file(data, compiled, device)


def register_model(model: "str | Path | Codec") -> "Codec":
    """Let `load_for` and `PIL.Image.open` decode files of a model that is not a pretrained one.

    Args:
        model: a model file, a checkpoint, or a codec.

    Returns:
        The codec; pass it to ``PIL.Image.Image.save`` as ``model``.

    Raises:
        ModelFileError: no such model.
    """
    codec = load(model) if isinstance(model, str | Path) else model
    _REGISTRY.register(codec)
    return codec


def named_codec(model: "str | Path | Codec", *, compiled: bool | None = None, device: str = "cpu") -> "Codec":
    """Load a model once and keep it, or pass a codec through.

    Args:
        model: name of a pretrained model, a model file, a checkpoint, or a codec.
        compiled: as for `load`; a codec stays as it is.
        device: as for `load`; a codec stays where it is.

    Raises:
        ModelFileError: no such model.
        ConfigError: no such device here.
    """
    return _REGISTRY.named(model, compiled, device) if isinstance(model, str | Path) else model
