"""The decoder: from the bytes of an ``.ohm`` file to symbols."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ohmq.bitstream.format import RESIDUAL_CHANNELS, HeaderInfo, OhmFile
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.entropy.kernels import Kernels
from ohmq.entropy.latent_coder import LatentCoder, LatentDecoder
from ohmq.entropy.layers import IntegerPrior
from ohmq.entropy.residual_coder import ResidualDecoder
from ohmq.errors import BitstreamError, ModelMismatchError
from ohmq.models.config import ModelConfig
from ohmq.runtime.latents import Symbols
from ohmq.runtime.residual import Residual

__all__ = ["Decoder", "SymbolsDecoder", "leading_layers"]


class SymbolsDecoder:
    """Decodes the layers of one file one after the other: those of the model, then those of a residual.

    Args:
        header: header of the file.
        latent: decodes the model's layers.
        channels: the number of channels of the model.
        residual: decodes the residual's layers; None: none will be decoded.

    Attributes:
        channel: the number of channels decoded so far.
    """

    def __init__(
        self, header: HeaderInfo, latent: LatentDecoder, channels: int, residual: ResidualDecoder | None
    ) -> None:
        self._header, self._latent, self._model_channels, self._residual = header, latent, channels, residual
        self.channel = 0

    @property
    def symbols(self) -> Symbols:
        """The symbols; those of channels that are not decoded yet are undefined."""
        header, residual = self._header, None
        if self._residual and header.residual:
            residual = Residual(header.residual, self._residual.levels)
        return Symbols(self._latent.values, header.width, header.height, header.tile, residual)

    def decode(self, payloads: Sequence[bytes], ends: Sequence[int]) -> None:
        """Decode the next layers.

        Args:
            payloads: one for each layer.
            ends: the channels at which these layers end, ascending.

        Raises:
            BitstreamError: a payload that cannot be decoded.
        """
        count = sum(end <= self._model_channels for end in ends)
        if count:
            self._latent.decode(payloads[:count], ends[:count])
        for payload, end in zip(payloads[count:], ends[count:], strict=True):
            assert self._residual is not None
            self._residual.decode(payload, end - self._model_channels)
        self.channel = ends[-1]


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
        decoder_ids: ids of the model's decoders by name, for residuals.
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
        decoder_ids: Mapping[str, bytes] | None = None,
    ) -> None:
        self.decoder_ids = dict(decoder_ids or {})
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
        decoder = self.start(header, ends[-1])
        decoder.decode([layer.payload for layer in file.layers], ends)
        return file, decoder.symbols

    def start(self, header: HeaderInfo, channels: int) -> SymbolsDecoder:
        """Start decoding ``channels`` channels of a file with this header.

        Args:
            header: header of the file.
            channels: the number of channels that will be decoded.

        Returns:
            A decoder that takes the payloads of layers.

        Raises:
            ModelMismatchError: channels of a residual, and the model does not have the decoder that it corrects.
        """
        model_channels = min(channels, self.config.channels_max)
        coder = LatentCoder(
            self.prior,
            np.repeat(self.config.group_symbols, self.config.group_sizes),
            kernels=self.kernels,
            tile=header.tile,
            fixed_rate=header.fixed_rate,
            threads=self._threads(),
        )
        grid = self.config.latent_grid(header.width, header.height)
        residual = None
        if channels > model_channels:
            self._check_decoder_id(header)
            residual = ResidualDecoder(coder, grid, channels - model_channels, self.kernels)
        return SymbolsDecoder(header, coder.decoder(grid, model_channels), self.config.channels_max, residual)

    def _check_decoder_id(self, header: HeaderInfo) -> None:
        """Raise ModelMismatchError if the model does not have the decoder that a file's residual corrects."""
        assert header.residual is not None
        if header.residual.decoder_id not in self.decoder_ids.values():
            raise ModelMismatchError(
                f"the file's residual corrects the decoder {header.residual.decoder_id.hex()}, which this {self.name} does not "
                f"have: update ohmq, or decode {self.config.channels_max} channels, without the residual"
            )

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
        ends = np.cumsum([layer.channels for layer in header.layers])
        largest = self.config.channels_max + (RESIDUAL_CHANNELS if header.residual else 0)
        if ends[-1] > largest:
            raise BitstreamError(f"the file has more channels than the {largest} of {self.name}")
        if header.residual and not self.config.supports_tiles:
            raise BitstreamError(f"the file has a residual, which {self.name} does not do")
        if ends[-1] > self.config.channels_max and self.config.channels_max not in ends:
            raise BitstreamError(f"a layer of the file has channels of {self.name} and of a residual: it is damaged")


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
