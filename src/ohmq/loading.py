"""src/ohmq/loading.py."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ohmq.bitstream.reader import read_header
from ohmq.codec import Codec
from ohmq.errors import ConfigError, ModelMismatchError
from ohmq.model_files.pretrained import shipped_model_ids

if TYPE_CHECKING:
    from ohmq.codec import Codec

__all__ = ["load", "load_for", "register_model"]


def load(source: str | Path, *, runtime: str = "torch", compiled: bool | None = None) -> Codec:
    """A codec from a shipped model's name, a model file or a training checkpoint.

    Args:
        source: which. runtime: "torch", or "onnx": source is then a folder that ``ohmq export --onnx`` wrote, and torch
            need not be installed. compiled: as `Codec`.

    Raises:
        ModelFileError: nothing of the kind. ValueError: another runtime. ConfigError: what these need is not installed.
    """
    if runtime not in ("torch", "onnx"):
        raise ValueError(f"runtime is {runtime!r}; choose 'torch' or 'onnx'")
    if runtime == "onnx":
        from ohmq.model_files.onnx_folder import load_onnx

        return Codec(load_onnx(Path(source)), compiled=compiled)
    try:
        from ohmq.model_files.resolve import resolve_model
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError("torch is not installed; without it, models run as ONNX folders: --runtime onnx") from error

    return Codec(resolve_model(source), compiled=compiled)


_shipped: dict[tuple[bytes, bool | None], Codec] = {}
_shipped_lock = threading.Lock()


def load_for(data: bytes, *, compiled: bool | None = None) -> Codec:
    """The codec of the shipped model that made an ``.ohm`` file; each model is loaded once and kept.

    Args:
        data: the file, or at least its header. compiled: as `Codec`.

    Raises:
        ModelMismatchError: the file was made with a model that is not a shipped one.
        BitstreamError: as `ohmq.bitstream.reader.read_header`.
    """
    model_id = read_header(data).model_id
    with _shipped_lock:
        if (model_id, compiled) not in _shipped:
            shipped = shipped_model_ids()
            if model_id not in shipped:
                known = ", ".join(f"{name} {key.hex()}" for key, name in shipped.items()) or "none"
                raise ModelMismatchError(
                    f"made with model {model_id.hex()}, which is not a shipped one ({known}): give it with --model"
                )
            _shipped[model_id, compiled] = load(shipped[model_id], compiled=compiled)
        return _shipped[model_id, compiled]


_lock = threading.Lock()
_models: "dict[str, Codec]" = {}
_registered: "dict[bytes, Codec]" = {}


def register_model(model: "str | Path | Codec") -> "Codec":
    """Let `Image.open` decode files of a model that is not a shipped one.

    Args:
        model: a model file, a checkpoint, or a codec.

    Returns:
        The codec; pass it to ``save`` as ``model``.

    Raises:
        ModelFileError: no such model.
    """
    codec = load(model) if isinstance(model, str | Path) else model
    with _lock:
        _registered[codec.model_id] = codec
    return codec


def _codec_named(model: "str | Path | Codec") -> "Codec":
    """A codec from what ``save`` was given; each name is loaded once."""
    if not isinstance(model, str | Path):
        return model
    with _lock:
        key = str(model)
        if key not in _models:
            _models[key] = load(model)
        return _models[key]


def _codec_for(data: bytes) -> "Codec":
    """The registered or shipped model that made a file."""
    with _lock:
        registered = _registered.get(read_header(data).model_id)
    return registered or load_for(data)
