"""Lightning module of the photo family: rate–distortion training of all numbers of channels at once."""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from ohmq.errors import ConfigError
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.results import Curve
from ohmq.models import CompressionModel, PhotoIntegerModel, PhotoModel
from ohmq.models.config import GREY_LEVELS
from ohmq.models.photo import PhotoAnalysis, PhotoSynthesis
from ohmq.runtime.devices import has_bfloat16 as has_bfloat16
from ohmq.training.module import TrainingModule
from ohmq.training.options import TrainOptions
from ohmq.training.photo.perceptual import ssimulacra2

__all__ = ["RATE_FACTORS", "PhotoModule", "PhotoTargets", "rate_distortion"]

RATE_FACTORS = {
    "prior.logits": 2.0,
    "prior.features": 1.0,
    "prior.own": 2.0,
    "prior.spatial": 5.0,
    "quantizer.centres": 0.1,
    "quantizer.values": 0.1,
    "quantizer.project": 0.02,
    "quantizer.directions": 0.02,
    "quantizer.output_bias": 0.2,
    "analysis_transform.block": 0.02,
    "synthesis_transform.block": 0.02,
    "analysis_transform.0.block": 0.02,
    "synthesis_transform.1.block": 0.02,
}
"""Learning rates of parameters relative to the others': well initialised parameters take small steps."""
TYPICAL_DISTORTION = 0.45
"""Largest m of the loss, in bits per pixel."""
TYPICAL_GROWTH = 4.6
"""Ratio of m to the square root of lambda, below that."""
LEAST_DISTORTION = 0.01
"""Epsilon of the loss, in bits per pixel."""
PERCEPTUAL_SCALE = 0.0056
"""Bits that a point of SSIMULACRA2 is worth at weight 1, as a share of a prefix's rate: then the gradients of both terms by the
decoded image have the same norm, within 30 % from 21 to 1,000 channels, measured with model 6059bc1d."""
VALIDATION_CUTS = 6
"""Cut points that are validated."""
ALL_CHANNELS_EVERY = 4
"""One image in this many trains all channels; the others train a prefix whose log rate is drawn uniformly."""


def rate_distortion(rate: Tensor, error: Tensor, lambdas: Tensor, perceptual: Tensor | float = 0.0) -> Tensor:
    """Compute the loss of each image, see `PhotoModule`.

    Args:
        rate: bits per pixel.
        error: mean squared error in squared grey levels (of 255).
        lambdas: Lagrange multiplier, bits per pixel for one squared grey level.
        perceptual: the perceptual term, in bits per pixel.

    Shape:
        rate, error, lambdas, perceptual: (batch,), or scalars. Returns the same.
    """
    typical = (TYPICAL_GROWTH * lambdas.sqrt()).clamp(max=TYPICAL_DISTORTION)
    distortion = 2 * (typical * (lambdas * error + LEAST_DISTORTION)).sqrt()
    return (rate + distortion + perceptual) * (0.15 * lambdas**-0.35)


@dataclasses.dataclass(frozen=True)
class PhotoTargets:
    """Rates and lambdas that channels are trained at, and the curve that validation compares with.

    Attributes:
        rates_bpp: estimated rate of each prefix of the channels, (C,), of the design.
        lambdas: slope at which each prefix is optimal, (C,), bits per pixel for one squared grey level.
        anchor: JPEG's curve on the validation photos.
    """

    rates_bpp: Tensor
    lambdas: Tensor
    anchor: Curve


class PhotoModule(TrainingModule):
    """Rate–distortion training of the photo codec: each image one prefix of the channels, with its own lambda.

    $$ \\mathrm{loss} = \\left(R + 2 \\sqrt{m_k (\\lambda_k D + \\epsilon)}\\right) \\cdot 0.15\\, \\lambda_k^{-0.35},
       \\qquad m_k = \\min(0.45, 4.6 \\sqrt{\\lambda_k}) $$

    with R in bits per pixel, D in squared grey levels, and lambda_k the slope at which prefix k is optimal (by the
    design). m is the usual value of lambda D in a trained model; there the gradient is that of R + lambda D. Smooth
    images, whose D is smaller, weigh more: half-way to the mean PSNR by which codecs are compared.

    With ``options.perceptual`` the sum in brackets has a further term w s r_k (100 - SSIMULACRA2): w is the weight, r_k the rate
    of the prefix, and s is `PERCEPTUAL_SCALE`, so that at w = 1 both measures of distortion pull alike.

    Args:
        options: the run; its model is ``model.config``.
        model: the model to train, in place.
        total_steps: steps of the stage.
        targets: rates and lambdas of the channels, and the anchor of validation.

    Raises:
        ConfigError: ``options.only`` leaves no parameter to train.
    """

    DIVERGED: ClassVar[float] = 3.0
    ADVICE: ClassVar[str] = "resume from the last checkpoint with a smaller learning rate"

    def __init__(
        self,
        options: TrainOptions,
        model: PhotoModel | PhotoIntegerModel,
        total_steps: int,
        targets: PhotoTargets,
    ) -> None:
        super().__init__(options, total_steps, options.learning_rate, options.schedule)
        self.model, self.anchor = model, targets.anchor
        self.rates = targets.rates_bpp.cpu()  # drawing numbers of channels must not wait for an accelerator
        self.register_buffer("rates_bpp", targets.rates_bpp)
        self.register_buffer("lambdas", targets.lambdas)
        self.rates_bpp: Tensor
        self.lambdas: Tensor
        self._choose_parameters()
        self.keep_average(model)
        if options.precision == "bfloat16" or (options.precision == "auto" and has_bfloat16(options.cpu)):
            for layer in model.modules():
                if isinstance(layer, PhotoAnalysis | PhotoSynthesis):
                    layer.low_precision = True

    def _choose_parameters(self) -> None:
        """Freeze the temperatures, and all parameters that ``options.only`` leaves out."""
        if isinstance(self.model, PhotoModel):
            self.model.quantizer.log_temperature.requires_grad_(False)
        for name, parameter in self.model.named_parameters():
            if not name.startswith(self.options.only):
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            parts = ", ".join(name for name, _ in self.model.named_children())
            raise ConfigError(
                f"only is {self.options.only!r}: no parameter that is trained begins so; the parts are {parts}"
            )

    @property
    def final_model(self) -> PhotoModel | PhotoIntegerModel:
        """The model that is validated and exported: with averaged weights where there are any."""
        module = self.model if self.averaged is None else self.averaged.module
        assert isinstance(module, PhotoModel | PhotoIntegerModel)
        return module

    def configure_optimizers(self) -> Any:
        """Build Adam with the learning rates of `RATE_FACTORS`."""
        groups: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(RATE_FACTORS.get(name, 1.0), []).append(parameter)
        self.factors = sorted(groups)
        parameters = [{"params": p, "lr": self.learning_rate * factor} for factor, p in sorted(groups.items())]
        return self.scheduled(torch.optim.Adam(parameters, weight_decay=self.options.weight_decay, fused=True))

    def draw_channels(self, batch: int) -> Tensor:
        """Draw the number of channels that each of this process's images trains.

        One image in `ALL_CHANNELS_EVERY` trains all channels; the others are spread evenly over the log rates.

        Args:
            batch: images of this process.

        Shape:
            Returns: (batch,), int64, in descending order, on the CPU.
        """
        config = self.options.model
        low, high = self.rates[config.cut_points[0] - 1].log(), self.rates[-1].log()
        images = batch * self.trainer.world_size
        strata = (torch.arange(images, 0, -1) - self.draw_uniform(images)) / images
        fractions = strata * (1 + 1 / (ALL_CHANNELS_EVERY - 1))  # of the range of log rates; from 1 on: all channels
        rates = (low + fractions[self.share] * (high - low)).exp()
        return (torch.searchsorted(self.rates, rates) + 1).clamp(max=config.channels_max)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Compute the loss of crops (batch, 3, H, W) in [0, 1]."""
        images = self.model.normalise(batch).contiguous(memory_format=torch.channels_last)
        loss, rate, error = self._loss(self.model, images, self.draw_channels(len(images)))
        self.watch_loss(loss)
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log_dict({"train_loss": loss, "train_mse": error, "train_rate_bpp": rate}, on_step=True, sync_dist=True)
        return loss

    def on_train_start(self) -> None:
        """Set the learning rate of the options, which a resumed run may have changed since the checkpoint."""
        for optimizer in self.trainer.optimizers:
            for group, factor in zip(optimizer.param_groups, self.factors, strict=True):
                recorded = group.get("initial_lr", group["lr"])
                group["lr"] *= self.learning_rate * factor / recorded
                group["initial_lr"] = self.learning_rate * factor
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler.base_lrs = [self.learning_rate * factor for factor in self.factors]

    def _loss(self, model: CompressionModel, images: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = model(images, active)
        error = (output.reconstruction - images).square().flatten(1).mean(1) * GREY_LEVELS**2
        rate = output.bits / (images.shape[2] * images.shape[3])
        lambdas = self.lambdas[(active - 1).to(self.lambdas.device, non_blocking=True)]
        term: Tensor | float = 0.0
        if self.options.perceptual:
            score = ssimulacra2(model.denormalise(images), model.denormalise(output.reconstruction))
            term = self.perceptual_term(score, active)
        return rate_distortion(rate, error, lambdas, term).mean(), rate.mean(), error.mean()

    def perceptual_term(self, score: Tensor, active: Tensor) -> Tensor:
        """Compute the perceptual term of the loss, in bits per pixel.

        Args:
            score: SSIMULACRA2 of each image, (batch,).
            active: number of channels of each image, (batch,), int64.
        """
        rates = self.rates_bpp[(active - 1).to(self.rates_bpp.device, non_blocking=True)]
        return self.options.perceptual * PERCEPTUAL_SCALE * rates * (100 - score)

    def validation_cuts(self) -> list[int]:
        """List the numbers of channels that are validated, evenly spread over the cut points."""
        cuts = self.options.model.cut_points
        indexes = np.linspace(0, len(cuts) - 1, min(VALIDATION_CUTS, len(cuts))).round().astype(int)
        return [cuts[index] for index in indexes]

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log rate, PSNR and loss of one whole photo, (1, 3, H, W), uint8, at `validation_cuts`."""
        model = self.final_model
        images = model.normalise(batch.float() / 255).contiguous(memory_format=torch.channels_last)
        mean_loss = images.new_zeros(())
        cuts = self.validation_cuts()
        for count in cuts:
            output = model(images, torch.tensor([count], device=images.device))
            decoded = model.denormalise(output.reconstruction).clamp(0, 1).mul(255).round()
            error = (decoded - batch).square().mean()
            rate = output.bits.sum() / batch[0, 0].numel()
            values = {f"val_bpp_{count}": rate, f"val_psnr_{count}": 10 * torch.log10(255**2 / error)}
            term: Tensor | float = 0.0
            if self.options.perceptual:
                score = ssimulacra2(batch.float() / 255, decoded / 255)
                values[f"val_ssimulacra2_{count}"] = score.mean()
                term = self.perceptual_term(score, torch.tensor([count])).mean()
            mean_loss = mean_loss + rate_distortion(rate, error, self.lambdas[count - 1], term) / len(cuts)
            self.log_dict(values, batch_size=1, sync_dist=True)
            if batch_idx == 0 and count == cuts[len(cuts) // 2]:
                self._log_image(torch.cat([batch, decoded.to(torch.uint8)], 3)[0])
        self.log("val_loss", mean_loss, prog_bar=True, batch_size=1, sync_dist=True)

    def _log_image(self, image: Tensor) -> None:
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("original and decoded", image, self.global_step)

    def on_validation_epoch_end(self) -> None:
        """Log the BD-rate against JPEG on the validation photos; NaN where there is none."""
        super().on_validation_epoch_end()
        values = self.trainer.callback_metrics
        cuts = self.validation_cuts()
        try:
            rates, psnr = ([float(values[f"val_{kind}_{count}"]) for count in cuts] for kind in ("bpp", "psnr"))
            difference = bd_rate(self.anchor.rates_bpp, self.anchor.psnr_db, rates, psnr).percent
        except (ConfigError, KeyError, ValueError):  # the curve is too short, or not monotone yet
            difference = math.nan
        self.log("val_bd_rate_jpeg", difference, prog_bar=True, sync_dist=True)
