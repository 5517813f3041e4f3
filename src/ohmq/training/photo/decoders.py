"""Training of the decoder ladder on the symbols that the encoder sends."""

import dataclasses
import logging
import math
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmq.errors import ConfigError
from ohmq.model_files.checkpoint import read_checkpoint
from ohmq.model_files.frozen_model import (
    FrozenModel,
    save_model,
    with_decoder,
    with_decoder_filters,
    with_post_filter,
    with_synthesis,
)
from ohmq.model_files.resolve import resolve_model
from ohmq.models import PhotoConfig
from ohmq.models.config import GREY_LEVELS
from ohmq.models.decoders import DecoderConfig, LadderDecoder
from ohmq.models.photo import PhotoModel, PhotoSynthesis
from ohmq.training.fit import ResumeState, Stage, fit, is_first_process
from ohmq.training.module import TrainingModule
from ohmq.training.options import TrainOptions
from ohmq.training.photo.fit_postfilter import fit_filter_to_crops, fitted_at
from ohmq.training.photo.latent_crops import CROP, CropEncoder, LatentBatch, LatentCrops, LatentLoader, encode_crops
from ohmq.training.photo.module import has_bfloat16
from ohmq.training.photo.perceptual import ssimulacra2
from ohmq.training.sources import PhotoSource
from ohmq.utils.provenance import command_line

__all__ = ["RECIPES", "DecoderModule", "DecoderRecipe", "train_decoders"]

logger = logging.getLogger(__name__)

CROPS_OF_A_PHOTO = 3
"""Training crops of each photo."""
VALIDATION_CROPS = 6
"""Validation crops at each cut point."""
EFFORT = 1
"""Refinement passes of the encoder whose symbols decoders are trained on: the default of the encoder."""
BLOCK_RATE = 0.05
"""Learning rate of the block transform, relative to the others': it starts almost where it ends."""
PERCEPTUAL_SHARE = 0.15
"""Share of the steps, the last ones, in whose loss the perceptual term takes part: it costs more time than a small decoder."""
PERCEPTUAL_WEIGHT = 3.0
"""Weight of the perceptual term, (100 - SSIMULACRA2) / 100, beside the mean of the logarithms of squared errors."""
PERCEPTUAL_CROPS = 4
"""Crops of a batch that the perceptual term is computed for."""
CONTINUED_RATE = 0.5
"""Learning rate of a decoder that the model has already, relative to that of a new one."""
STAGE = "decoder_"
"""Prefix of the names of stages."""


@dataclasses.dataclass(frozen=True)
class DecoderRecipe:
    """Size and training of a decoder.

    Attributes:
        config: its size; None: the model's own synthesis transform, trained on.
        learning_rate: peak of the learning rate.
        from_synthesis: whether it starts from the model's synthesis transform.
        epochs: epochs of training for each epoch of the run: small decoders learn longer in the same time.
    """

    config: DecoderConfig | None
    learning_rate: float
    from_synthesis: bool = True
    epochs: int = 1


RECIPES = {
    "fast": DecoderRecipe(DecoderConfig((128, 64, 0), (4, 4, 0)), 1.5e-3, from_synthesis=False, epochs=8),
    "standard": DecoderRecipe(None, 2e-4),
    "best": DecoderRecipe(DecoderConfig((320, 160, 96), (4, 7, 7), up_kernel=4), 6e-4),
}
"""The decoders of the ladder, in the order of training."""


class _OwnSynthesis(nn.Module):
    """A model's own synthesis transform, which does not depend on the number of channels."""

    def __init__(self, synthesis: PhotoSynthesis) -> None:
        super().__init__()
        self.synthesis = synthesis

    def forward(self, y: Tensor, channels: Tensor) -> Tensor:
        out: Tensor = self.synthesis(y)
        return out


class DecoderModule(TrainingModule):
    """Training of a decoder on frozen symbols; the loss is the mean of the logarithms of the images' squared errors.

    The mean PSNR of images is the negative of this loss, up to a factor. In the last steps a perceptual term is added, so that
    the decoder ends where images look better at nearly the same PSNR.

    Args:
        options: the run; its model is the photo model's configuration.
        decoder: the decoder, trained in place.
        photo: the photo model, for its normalisation.
        total_steps: steps of the stage.
        learning_rate: peak of the learning rate.
    """

    ADVICE: ClassVar[str] = "start again with a smaller learning rate"
    DIVERGED: ClassVar[float] = math.inf  # the loss is a logarithm, which may have any sign

    def __init__(
        self, options: TrainOptions, decoder: nn.Module, photo: PhotoModel, total_steps: int, learning_rate: float
    ) -> None:
        super().__init__(options, total_steps, learning_rate, "cosine")
        self.model = decoder
        self.photo = [photo]  # in a list: its weights are not part of checkpoints
        self.keep_average(decoder)  # type: ignore[arg-type]

    @property
    def final_model(self) -> nn.Module:
        """The decoder that is validated and kept: with averaged weights where there are any."""
        module = self.model if self.averaged is None else self.averaged.module
        assert isinstance(module, nn.Module)
        return module

    def configure_optimizers(self) -> Any:
        """Build Adam; the block transform has a rate of its own."""
        named = list(self.model.named_parameters())
        block = [parameter for name, parameter in named if name.endswith("block")]
        rest = [parameter for name, parameter in named if not name.endswith("block")]
        groups = [
            {"params": rest, "lr": self.learning_rate},
            {"params": block, "lr": self.learning_rate * BLOCK_RATE},
        ]
        return self.scheduled(torch.optim.Adam(groups, fused=True))

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch."""
        target = self.photo[0].normalise(batch.pixels.float() / 255)
        decoded = self.model(batch.latents, batch.channels)
        error = (decoded - target).square().flatten(1).mean(1)
        loss = (error * GREY_LEVELS**2).log().mean()
        if self.global_step >= (1 - PERCEPTUAL_SHARE) * self.total_steps:
            few = slice(PERCEPTUAL_CROPS)
            score = ssimulacra2(batch.pixels[few].float() / 255, self.photo[0].denormalise(decoded[few]))
            loss = loss + PERCEPTUAL_WEIGHT * (100 - score.mean()) / 100
        self.watch_loss(loss)
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log("train_loss", loss, on_step=True, sync_dist=True)
        return loss

    @torch.no_grad()
    def decode(self, batch: LatentBatch) -> NDArray[np.float32]:
        """Decode a batch by the decoder that is kept: unfiltered pixels in grey levels, (batch, 3, H, W).

        Args:
            batch: the batch.
        """
        photo, device = self.photo[0], self.device
        normalised = self.final_model(batch.latents.to(device), batch.channels.to(device)).float()
        pixels: NDArray[np.float32] = photo.denormalise(normalised).clamp(0, 1).mul(255).cpu().numpy()
        return pixels

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Log the PSNR of rounded images in dB and their SSIMULACRA2; ``val_loss`` is the negative PSNR."""
        decoded = torch.from_numpy(self.decode(batch)).to(self.device).round()
        score = ssimulacra2(batch.pixels.float() / 255, decoded / 255).mean()
        error = (decoded - batch.pixels).square().flatten(1).mean(1).clamp(min=1e-3)
        psnr_db = (10 * torch.log10(255**2 / error)).mean()
        size = len(batch.pixels)
        self.log("val_psnr", psnr_db, prog_bar=True, batch_size=size, sync_dist=True)
        self.log("val_ssimulacra2", score, prog_bar=True, batch_size=size, sync_dist=True)
        self.log("val_loss", -psnr_db, batch_size=size, sync_dist=True)


def train_decoders(options: TrainOptions, *, resume: Path | None, start: Path | None) -> Path:
    """Train the decoder ladder of a photo model on the symbols of its encoder.

    Decoders of the same size that the model has already are trained on, at a lower learning rate.

    The model with its new decoders is written to ``output_dir/model.safetensors`` after each of them.

    Args:
        options: the run; ``start_from`` names the model.
        resume: checkpoint of the same run to resume from; None: start at the beginning.
        start: path of the model that ``options.start_from`` names; None: ``start_from`` is a path or a shipped name.

    Returns:
        The last checkpoint, ``output_dir/last.ckpt``.

    Raises:
        ConfigError: no photo model with RDOQ to start from, an unknown decoder, or data that cannot be trained on.
    """
    names = _names(options.only)
    source = start or options.start_from
    frozen = resolve_model(source)
    if not isinstance(frozen.config, PhotoConfig) or not frozen.config.supports_rdoq:
        raise ConfigError(f"{frozen.name} is no photo model with RDOQ: it has no decoder ladder")
    options = dataclasses.replace(options, model=frozen.config)
    state = ResumeState.read(resume, options) if resume else ResumeState()
    photos = PhotoSource(dataclasses.replace(options, crop_size=CROP), whole=False)
    folder = options.output_dir
    started_at = time.monotonic() - state.seconds
    sets = {}
    for name, part, seed in (("train", photos.photos, options.seed), ("validation", photos.held_out, 0)):
        count = CROPS_OF_A_PHOTO * len(part) if name == "train" else len(frozen.config.cut_points) * VALIDATION_CROPS
        encoder = CropEncoder(str(source), part, seed=seed, effort=EFFORT)
        sets[name] = encode_crops(folder / "crops" / name, encoder, count, num_workers=photos.num_workers)
    at = names.index(state.stage.removeprefix(STAGE)) if state.stage else 0
    model_file = folder / "model.safetensors"
    if at and model_file.is_file():
        frozen = resolve_model(model_file)
    for name in names[at:]:
        loader = LatentLoader(sets["train"], options.batch_size, seed=options.seed)
        validation = LatentLoader(sets["validation"], options.batch_size, seed=None)
        epochs = options.epochs * RECIPES[name].epochs
        module = _module(options, frozen, name, epochs * len(loader))
        checkpoint = state.path if name == names[at] else None
        further = sum(RECIPES[later].epochs for later in names[names.index(name) + 1 :])
        fit(
            module,
            Stage(STAGE + name, frozen.config, epochs),
            options,
            loader=loader,
            validation=validation,
            checkpoint=checkpoint,
            started_at=started_at,
            further_steps=further * options.epochs * len(loader),
        )
        if is_first_process():
            frozen = _with_trained(frozen, name, module, folder / "last.ckpt", sets["train"])
            save_model(frozen, model_file, force=True)
            logger.info("%s: model %s with the decoder %s", model_file, frozen.model_id.hex(), name)
    return folder / "last.ckpt"


def _names(only: str) -> list[str]:
    """Return the names of the decoders that ``TrainOptions.only`` asks for."""
    name = only.partition(".")[2]
    if name and name not in RECIPES:
        raise ConfigError(f"only is {only!r}; there are the decoders {', '.join(RECIPES)}")
    return [name] if name else list(RECIPES)


def _module(options: TrainOptions, frozen: FrozenModel, name: str, total_steps: int) -> DecoderModule:
    """Build the module of a decoder with its start weights."""
    recipe, photo = RECIPES[name], frozen.model
    assert isinstance(photo, PhotoModel) and isinstance(frozen.config, PhotoConfig)
    decoder: nn.Module
    learning_rate = recipe.learning_rate
    if recipe.config is None:
        synthesis = PhotoSynthesis(frozen.config)
        synthesis.load_state_dict(photo.synthesis_transform.state_dict())
        synthesis.low_precision = _low_precision(options)
        decoder = _OwnSynthesis(synthesis)
    else:
        ladder = LadderDecoder(frozen.config.latent_channels, recipe.config)
        if frozen.decoders.get(name) == recipe.config:
            ladder.load_state_dict(frozen.ladder[name].module.state_dict())
            learning_rate *= CONTINUED_RATE
        elif recipe.from_synthesis:
            ladder.start_from(photo.synthesis_transform)
        else:
            with torch.no_grad():
                ladder.block.copy_(photo.synthesis_transform.block)
        ladder.low_precision = _low_precision(options)
        decoder = ladder
    decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DecoderModule(options, decoder, photo, total_steps, learning_rate)


def _low_precision(options: TrainOptions) -> bool:
    return options.precision == "bfloat16" or (options.precision == "auto" and has_bfloat16(options.cpu))


def _with_trained(
    frozen: FrozenModel, name: str, module: DecoderModule, checkpoint: Path, crops: LatentCrops
) -> FrozenModel:
    """Return the model with a trained decoder and its post-filter in place."""
    contents = read_checkpoint(checkpoint)
    provenance = {
        "command": command_line(),
        "model": frozen.model_id.hex(),
        "epochs": contents["epoch"],
        "steps": contents["global_step"],
        "options": contents["ohmq"]["options"],
    }
    state = module.final_model.state_dict()
    arrays = {key.removeprefix("synthesis."): value.float().cpu().numpy() for key, value in state.items()}
    config = RECIPES[name].config
    counts = fitted_at(frozen.config.cut_points)
    filters = fit_filter_to_crops(module.decode, crops, counts)
    fitted = {"command": command_line(), "model": frozen.model_id.hex(), "crops": len(crops), "channels": counts}
    if config is None:
        return with_post_filter(with_synthesis(frozen, arrays, provenance), filters, fitted)
    with_it = with_decoder(frozen, name, config, arrays, provenance)
    return with_decoder_filters(with_it, name, filters, fitted)
