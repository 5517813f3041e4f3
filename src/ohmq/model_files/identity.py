"""Ids and digests of a model: of its bitstream part and of its transforms; no torch.

The *bitstream* part of a model is all that turns the bytes of a file into symbols, and symbols into a latent: the
prior's tables, the quantizer's codewords and some of the configuration. The *transforms* part is all else: analysis,
synthesis, post-filter and the tensors that the encoder alone needs. `docs/file-format.md` is normative.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.models.config import ModelConfig

__all__ = ["bitstream_digest", "content_digest", "content_id", "decoder_id", "is_bitstream_tensor", "transforms_digest"]

CODEWORD_TENSORS = frozenset(f"quantizer.{name}" for name in ("codewords", "values", "directions", "output_bias"))
"""Tensors of quantizers that turn symbols into a latent."""


def is_bitstream_tensor(name: str) -> bool:
    """Return whether a tensor of a model file belongs to the bitstream part.

    Args:
        name: full name of the tensor in the model file.
    """
    return name.startswith("prior.") or name in CODEWORD_TENSORS


def bitstream_digest(config: ModelConfig, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the SHA-256 of the bitstream part of a model.

    Args:
        config: its configuration.
        tensors: of the model file, with their full names; others are ignored.
    """
    return _digest(config.bitstream_fields(), {key: tensors[key] for key in tensors if is_bitstream_tensor(key)})


def transforms_digest(config: ModelConfig, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the SHA-256 of the transforms part of a model and of its whole configuration; arguments as above.

    Args:
        config: configuration of the model.
        tensors: of the model file, by full name; others are ignored.

    Returns:
        32 bytes.
    """
    return _digest(config.to_dict(), {key: tensors[key] for key in tensors if not is_bitstream_tensor(key)})


def content_digest(config: ModelConfig, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the SHA-256 of a whole configuration and all of some tensors; arguments as above.

    Args:
        config: configuration of the model.
        tensors: tensors by full name.

    Returns:
        32 bytes.
    """
    return _digest(config.to_dict(), tensors)


def content_id(config: ModelConfig, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the first 4 bytes of `content_digest` of a whole model: the id that freezing gives it.

    Args:
        config: configuration of the model.
        tensors: of the model file, by full name.

    Returns:
        4 bytes.
    """
    return content_digest(config, tensors)[:4]


def decoder_id(fields: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the id of a decoder, which files with a residual carry: the first 4 bytes of the SHA-256 of all that it holds.

    Args:
        fields: its configuration.
        tensors: its weights and those of its post-filter, names without those of the decoder.

    Returns:
        4 bytes.
    """
    return _digest(fields, tensors)[:4]


def _digest(fields: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> bytes:
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for key in sorted(tensors):
        value = np.ascontiguousarray(tensors[key])
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{key}:{value.dtype.name}:{value.shape}".encode() + little.tobytes())
    return digest.digest()
