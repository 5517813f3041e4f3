"""Training of the photo codec."""

import math
from collections import deque
from typing import Any

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
from ohmq.training.module import TrainingModule
from ohmq.training.options import TrainOptions

__all__ = ["PhotoModule", "rate_distortion"]

RATE_FACTORS = {  # learning rates relative to the networks': what the warm start set well takes small steps
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
TYPICAL_DISTORTION, TYPICAL_GROWTH, LEAST_DISTORTION = 0.45, 4.6, 0.01
"""Of the loss, in bits a pixel: the largest m, what the root of lambda is multiplied by to give m, and epsilon."""
WATCHED_STEPS, DIVERGED = 40, 3.0
"""Training stops when the mean loss of so many steps is so many times its least; a resumed run starts to watch anew."""
VALIDATION_CUTS = 6
ALL_CHANNELS_EVERY = 4
"""One image in so many trains all channels; the others a prefix whose log rate is drawn uniformly."""


def rate_distortion(rate: Tensor, error: Tensor, value: Tensor) -> Tensor:
    """What training makes small, see `PhotoModule`: of bits a pixel, squared grey levels and lambda of each image."""
    typical = (TYPICAL_GROWTH * value.sqrt()).clamp(max=TYPICAL_DISTORTION)
    distortion = 2 * (typical * (value * error + LEAST_DISTORTION)).sqrt()
    return (rate + distortion) * (0.15 * value**-0.35)


def has_bfloat16(cpu: bool) -> bool:
    """Whether training, on the processor alone or where it would run, gets bfloat16 products in hardware."""
    if torch.cuda.is_available() and not cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not in every torch that we support
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


class PhotoModule(TrainingModule):
    """Rate–distortion training of the photo codec: each image one prefix of the channels, with its own lambda.

    $$ \\mathrm{loss} = \\left(R + 2 \\sqrt{m_k (\\lambda_k D + \\epsilon)}\\right) \\cdot 0.15\\, \\lambda_k^{-0.35},
       \\qquad m_k = \\min(0.45, 4.6 \\sqrt{\\lambda_k}) $$

    with R in bits a pixel, D in squared grey levels, and lambda_k the slope at which prefix k is optimal (of the warm start).
    m is what lambda D usually is in a trained model, where the gradient is that of R + lambda D; smooth pictures, whose D is
    smaller, weigh more, half-way to the mean PSNR by which codecs are compared.

    Args:
        options: the run. model: what to train. total_steps: of the run.
        rates_bpp, lambdas: of each prefix, shape (C,).
        anchor: JPEG's curve on the validation photos.
    """

    def __init__(
        self,
        options: TrainOptions,
        model: PhotoModel | PhotoIntegerModel,
        total_steps: int,
        rates_bpp: Tensor,
        lambdas: Tensor,
        anchor: Curve,
    ) -> None:
        super().__init__(options, total_steps, options.learning_rate, options.schedule)
        self.model, self.anchor = model, anchor
        self.register_buffer("rates_bpp", rates_bpp)
        self.register_buffer("lambdas", lambdas)
        self.rates_bpp: Tensor
        self.lambdas: Tensor
        self.recent: deque[float] = deque(maxlen=WATCHED_STEPS)
        self.least = math.inf
        self._choose_parameters()
        self.keep_average(model)
        if options.precision == "bfloat16" or (options.precision == "auto" and has_bfloat16(options.cpu)):
            for part in model.modules():
                if isinstance(part, PhotoAnalysis | PhotoSynthesis):
                    part.low_precision = True

    def _choose_parameters(self) -> None:
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
        """What is validated and exported: the averaged weights where there are any."""
        module = self.model if self.averaged is None else self.averaged.module
        assert isinstance(module, PhotoModel | PhotoIntegerModel)
        return module

    def configure_optimizers(self) -> Any:
        """Adam with a factor of the learning rate for what the warm start set."""
        groups: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(RATE_FACTORS.get(name, 1.0), []).append(parameter)
        self.factors = sorted(groups)
        parameters = [{"params": p, "lr": self.learning_rate * factor} for factor, p in sorted(groups.items())]
        return self.scheduled(torch.optim.Adam(parameters, weight_decay=self.options.weight_decay, fused=True))

    def draw_channels(self, batch: int) -> Tensor:
        """How many channels each of this process's images trains: one in `ALL_CHANNELS_EVERY` all, the others spread evenly.

        Shape:
            Returns: (batch,), int64, in descending order.
        """
        config = self.options.model
        low, high = self.rates_bpp[config.cut_points[0] - 1].log(), self.rates_bpp[-1].log()
        images = batch * self.trainer.world_size
        place = (torch.arange(images, 0, -1) - self.draw_uniform(images)) / images * (1 + 1 / (ALL_CHANNELS_EVERY - 1))
        wanted = (low + place[self.share].to(low) * (high - low)).exp()
        return (torch.searchsorted(self.rates_bpp, wanted) + 1).clamp(max=config.channels_max)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss of a batch of crops in [0, 1]."""
        images = self.model.normalise(batch).contiguous(memory_format=torch.channels_last)
        loss, rate, error = self._loss(self.model, images, self.draw_channels(len(images)))
        self._watch(float(loss.detach()))
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log_dict({"train_loss": loss, "train_mse": error, "train_rate_bpp": rate}, on_step=True, sync_dist=True)
        return loss

    def _watch(self, loss: float) -> None:
        self.recent.append(loss)
        if len(self.recent) < WATCHED_STEPS:
            return
        mean = sum(self.recent) / WATCHED_STEPS
        self.least = min(self.least, mean)
        if not mean < DIVERGED * self.least:
            raise ConfigError(
                f"training diverged at step {self.global_step}: the mean loss of {WATCHED_STEPS} steps rose from "
                f"{self.least:.3g} to {mean:.3g}; resume from the last checkpoint with a smaller learning rate"
            )

    def on_train_start(self) -> None:
        """A resumed run takes the learning rate of its options, not that of the checkpoint."""
        for optimizer in self.trainer.optimizers:
            for group, factor in zip(optimizer.param_groups, self.factors, strict=True):
                before = group.get("initial_lr", group["lr"])
                group["lr"] *= self.learning_rate * factor / before
                group["initial_lr"] = self.learning_rate * factor
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler.base_lrs = [self.learning_rate * factor for factor in self.factors]

    def _loss(self, model: CompressionModel, images: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = model(images, active)
        error = (output.reconstruction - images).square().flatten(1).mean(1) * GREY_LEVELS**2
        rate = output.bits / (images.shape[2] * images.shape[3])
        return rate_distortion(rate, error, self.lambdas[active - 1]).mean(), rate.mean(), error.mean()

    def validation_cuts(self) -> list[int]:
        """Numbers of channels that are validated."""
        cuts = self.options.model.cut_points
        places = np.linspace(0, len(cuts) - 1, min(VALIDATION_CUTS, len(cuts))).round().astype(int)
        return [cuts[place] for place in places]

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Rate, PSNR and loss of one whole photo at some cuts."""
        model = self.final_model
        images = model.normalise(batch.float() / 255).contiguous(memory_format=torch.channels_last)
        mean = images.new_zeros(())
        cuts = self.validation_cuts()
        for count in cuts:
            output = model(images, torch.tensor([count]))
            decoded = model.denormalise(output.reconstruction).clamp(0, 1).mul(255).round()
            error = (decoded - batch).square().mean()
            rate = output.bits.sum() / batch[0, 0].numel()
            mean = mean + rate_distortion(rate, error, self.lambdas[count - 1]) / len(cuts)
            values = {f"val_bpp_{count}": rate, f"val_psnr_{count}": 10 * torch.log10(255**2 / error)}
            self.log_dict(values, batch_size=1, sync_dist=True)
            if batch_idx == 0 and count == cuts[len(cuts) // 2]:
                self._show(torch.cat([batch, decoded.to(torch.uint8)], 3)[0])
        self.log("val_loss", mean, prog_bar=True, batch_size=1, sync_dist=True)

    def _show(self, picture: Tensor) -> None:
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("original and decoded", picture, self.global_step)

    def on_validation_epoch_end(self) -> None:
        """BD-rate against JPEG on the validation photos."""
        values = self.trainer.callback_metrics
        cuts = self.validation_cuts()
        try:
            rates, psnr = ([float(values[f"val_{kind}_{count}"]) for count in cuts] for kind in ("bpp", "psnr"))
            difference = bd_rate(self.anchor.rates_bpp, self.anchor.psnr_db, rates, psnr).percent
        except (ConfigError, KeyError, ValueError):  # a curve too short or not monotone yet
            difference = math.nan
        self.log("val_bd_rate_jpeg", difference, prog_bar=True, sync_dist=True)
