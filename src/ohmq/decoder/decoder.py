"""The decoder: from the bytes of an ``.ohm`` file to symbols."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from ohmq.bitstream.format import HeaderInfo, OhmFile
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.entropy.kernels import Kernels
from ohmq.entropy.latent_coder import LatentCoder, LatentDecoder
from ohmq.entropy.layers import IntegerPrior
from ohmq.errors import BitstreamError, ModelMismatchError
from ohmq.models.config import ModelConfig
from ohmq.runtime.latents import Symbols

__all__ = ["Decoder", "leading_layers"]


class Decoder:
    """Decodes the files of one model.

    Args:
        config: the model's configuration.
        prior: its integer prior.
        model_id: its bitstream id, 4 bytes.
        name: its name, for messages.
        kernels: inner loops.
        pretrained: gives the names of the pretrained models by id, for messages.
        threads: gives the number of threads that decode tiles; called for each file.
    """

    def __init__(
        self,
        config: ModelConfig,
        prior: IntegerPrior,
        *,
        model_id: bytes,
        name: str,
        kernels: Kernels,
        pretrained: Callable[[], Mapping[bytes, str]],
        threads: Callable[[], int] = lambda: 1,
    ) -> None:
        self.config, self.prior, self.model_id, self.name, self.kernels = config, prior, model_id, name, kernels
        self._pretrained, self._threads = pretrained, threads

    def decode(
        self,
        data: bytes,
        *,
        channels: int | None,
        allow_truncated: bool,
        max_pixels: int,
        enough: int | None = None,
    ) -> tuple[OhmFile, Symbols]:
        """Decode the symbols of a file.

        Args:
            data: the file.
            channels: decode the layers that hold at most this number of channels; None: all.
            allow_truncated: decode the leading whole layers of a file that ends early.
            max_pixels: limit on width × height; larger images are refused before anything is allocated.
            enough: stop after this number of channels, where a group ends, even within a layer. Default: no limit.

        Returns:
            The file with the layers that were decoded, at least in part, and their symbols.

        Raises:
            BitstreamError: a damaged file.
            ModelMismatchError: the file was made with another model.
            ValueError: the first layer alone holds more channels.
        """
        header = read_header(data)
        self.check_header(header, max_pixels)
        kept = leading_layers(header, channels)
        file = read_ohm(data, allow_truncated=allow_truncated)
        ends = np.cumsum([layer.channels for layer in file.layers[:kept]]).tolist()
        if enough is not None and not header.fixed_rate:
            kept = min(kept, 1 + int(np.searchsorted(ends, enough)))
            ends = np.minimum(ends[:kept], enough).tolist()
        file = dataclasses.replace(file, layers=file.layers[:kept])
        latent = self.start(header, ends[-1])
        latent.decode([layer.payload for layer in file.layers], ends)
        return file, Symbols(latent.values, header.width, header.height, file.tile)

    def start(self, header: HeaderInfo, channels: int) -> LatentDecoder:
        """Start decoding ``channels`` channels of a file with this header.

        Args:
            header: header of the file.
            channels: the number of channels that will be decoded.

        Returns:
            A decoder that takes the payloads of layers.
        """
        coder = LatentCoder(
            self.prior,
            np.repeat(self.config.group_symbols, self.config.group_sizes),
            kernels=self.kernels,
            tile=header.tile,
            fixed_rate=header.fixed_rate,
            threads=self._threads(),
        )
        return coder.decoder(self.config.latent_grid(header.width, header.height), channels)

    def check_header(self, header: HeaderInfo, max_pixels: int) -> None:
        """Check that the model decodes a file.

        Args:
            header: header of the file.
            max_pixels: limit on width × height.

        Raises:
            ModelMismatchError: the file was made with another model.
            BitstreamError: an image that the model does not code, or of more than ``max_pixels`` pixels.
        """
        if header.model_id != self.model_id:
            name = self._pretrained().get(header.model_id)
            hint = f"use --model {name}" if name else "use the model that made it"
            raise ModelMismatchError(
                f"the file was made with model {header.model_id.hex()}, this is {self.name} ({self.model_id.hex()}); {hint}"
            )
        if header.width * header.height > max_pixels:
            raise BitstreamError(
                f"the image has {header.width}x{header.height} pixels, more than the limit of {max_pixels}; "
                "raise it with --max-pixels or max_pixels if you trust the file"
            )
        if header.grey != (self.config.image_channels == 1):
            kind = "grey" if header.grey else "colour"
            raise BitstreamError(f"the file holds a {kind} image, which {self.name} does not code")
        if header.tile and not self.config.supports_tiles:
            raise BitstreamError(
                f"the file is coded in tiles of {header.tile} positions, which {self.name} does not do"
            )
        if sum(layer.channels for layer in header.layers) > self.config.channels_max:
            raise BitstreamError(f"the file has more channels than the {self.config.channels_max} of {self.name}")


def leading_layers(header: HeaderInfo, channels: int | None) -> int:
    """Count the leading layers of a file that hold at most ``channels`` channels; None: all layers.

    Args:
        header: header of the file.
        channels: limit on the number of channels; None: no limit.

    Returns:
        The number of layers.

    Raises:
        ValueError: the first layer alone holds more channels.
    """
    if channels is None:
        return len(header.layers)
    first = header.layers[0].channels
    if channels < first:
        raise ValueError(f"channels is {channels}; the first layer alone holds {first}: at least {first} is needed")
    ends = np.cumsum([layer.channels for layer in header.layers])
    return int((ends <= channels).sum())
