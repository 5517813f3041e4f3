"""Lightning modules around the plain models."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ohmq.losses import rate_distortion_loss
from ohmq.models import CompressionModel
from ohmq.models.config import active_channels
from ohmq.models.priors.context import ContextPrior
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.training.options import TrainOptions
from ohmq.training.warm_start import ScalarBottleneck, VectorBottleneck

__all__ = ["VALIDATION_FRACTIONS", "CodecModule", "TrainingModule", "WarmStartModule"]

VALIDATION_FRACTIONS = (0.33, 0.66, 1.0)
"""``val_loss`` is the mean of the loss over these fractions of the adaptive range."""


class TrainingModule(LightningModule):
    """What all stages share: schedule, seeds for each step, weight averaging, active channels of a batch."""

    def __init__(self, options: TrainOptions, total_steps: int, learning_rate: float, schedule: str) -> None:
        super().__init__()
        self.options, self.total_steps = options, total_steps
        self.learning_rate, self.schedule = learning_rate, schedule
        self.averaged: AveragedModel | None = None  # on the instance: a class attribute would hide the module

    def keep_average(self, model: CompressionModel) -> None:
        """Keep a running mean of the weights, if the options ask for it."""
        if self.options.ema_decay > 0:
            self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.options.ema_decay))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        # Here and not at the end of the batch: a checkpoint written there must hold this step's average.
        super().optimizer_step(*args, **kwargs)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)  # type: ignore[arg-type]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Random numbers depend on the step alone: a resumed run goes on as if it had not been stopped.
        torch.manual_seed(self._step_seed() + self.global_rank)

    def _step_seed(self) -> int:
        return (self.options.seed * 1_000_003 + self.global_step) * 4096

    def draw_uniform(self, images: int) -> Tensor:
        """Random numbers in [0, 1) of the images of the whole batch, the same in all processes; shape (images,).

        Those of this process are ``[self.share]``, so that each image gets what it would in one process.
        """
        torch.manual_seed(self._step_seed())
        drawn = torch.rand(images)
        if self.global_rank:
            torch.manual_seed(self._step_seed() + self.global_rank)  # noise of its own
        return drawn

    @property
    def share(self) -> slice:
        """This process's images of the whole batch."""
        return slice(self.global_rank, None, self.trainer.world_size)

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """Active channels and lambda of each of this process's images; shapes (batch,)."""
        fraction = self.draw_uniform(batch * self.trainer.world_size)[self.share] ** self.options.fraction_power
        config = self.options.model
        spread = config.channels_max - config.channels_min
        active = config.channels_min + torch.ceil(fraction * spread).long()
        low, high = self.options.lambdas
        return active.to(self.device), (low + (high - low) * fraction).to(self.device)

    def scheduled(self, optimizer: torch.optim.Optimizer) -> Any:
        """An optimizer with the learning rate's schedule, stepped every batch."""
        if self.schedule == "constant":
            return optimizer

        def factor(step: int) -> float:
            progress = min(1.0, step / self.total_steps)
            fall = 1.0 if progress < 0.5 else 0.5 * (1 + math.cos(math.pi * (2 * progress - 1)))
            return min(1.0, (step + 1) / 100) * max(fall, 0.003)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        if self.options.clip_norm > 0:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.options.clip_norm)
            if not torch.isfinite(norm):  # one bad batch must not ruin hours: leave it out, and say so
                self.print(f"step {self.global_step}: gradient is not finite; step left out")
                optimizer.zero_grad(set_to_none=True)


class CodecModule(TrainingModule):
    """Rate–distortion training of a compression model.

    Args:
        options: the run. model: what to train. total_steps: of this stage.

    Attributes:
        model: the model being trained. averaged: its running mean (EMA), or None.
    """

    def __init__(self, options: TrainOptions, model: CompressionModel, total_steps: int) -> None:
        super().__init__(options, total_steps, options.learning_rate, options.schedule)
        self.model = model
        self.keep_average(model)

    @property
    def final_model(self) -> CompressionModel:
        """What is validated and exported: the averaged weights where there are any."""
        module = self.model if self.averaged is None else self.averaged.module
        assert isinstance(module, CompressionModel)
        return module

    def configure_optimizers(self) -> Any:
        """Adam; after a warm start or another model, OHM's rows and codewords take smaller steps, priors larger ones."""
        quantizer, prior = self.model.quantizer, self.model.prior
        scale = {id(p): 1.0 for p in self.model.parameters()}
        if self.options.starts_as_codec:
            # All codewords of a position share one gradient: with Adam they would step together, C times too far.
            assert isinstance(quantizer, OneHotMax)
            scale |= {id(p): 0.1 for p in quantizer.parameters()}
            quantizer.inverse_temperature.requires_grad_(False)
            if prior is not None:
                scale |= {id(p): 3.0 for p in prior.parameters()}
            if isinstance(prior, ContextPrior):
                scale |= {id(p): 1.0 for p in prior.networks.parameters()}
        groups = [
            {
                "params": [p for p in self.model.parameters() if scale[id(p)] == factor and p.requires_grad],
                "lr": self.learning_rate * factor,
            }
            for factor in sorted(set(scale.values()))
        ]
        return self.scheduled(torch.optim.Adam(groups, weight_decay=self.options.weight_decay))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The rate–distortion loss of a batch of images in [0, 1]."""
        images = self.model.normalise(batch)
        active, lagrangian = self.draw(len(images))
        output = self.model(images, active)
        result = rate_distortion_loss(images, output.reconstruction, output.bits, lagrangian)
        values = {"train_loss": result.loss, "train_distortion": result.distortion, "train_rate_bpp": result.rate_bpp}
        self.log("loss", result.loss, prog_bar=True, logger=False)
        self.log_dict(values, on_step=True, sync_dist=True)  # the mean over all processes
        return result.loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Loss and PSNR at three fractions; ``val_loss`` is the mean loss."""
        config, (low, high) = self.options.model, self.options.lambdas
        model = self.final_model
        images = model.normalise(batch)
        mean = images.new_zeros(())
        for fraction in VALIDATION_FRACTIONS:
            active = torch.full(
                (len(images),),
                active_channels(fraction, config.channels_min, config.channels_max),
                device=images.device,
            )
            lagrangian = torch.full((len(images),), low + (high - low) * fraction, device=images.device)
            output = model(images, active)
            result = rate_distortion_loss(images, output.reconstruction, output.bits, lagrangian)
            mean = mean + result.loss / len(VALIDATION_FRACTIONS)
            decoded = model.denormalise(output.reconstruction).clamp(0, 1).mul(255).round().div(255)
            psnr = -10 * torch.log10((decoded - batch).square().flatten(1).mean(1)).mean()
            name = f"{fraction:.2f}"
            values = {f"val_loss_{name}": result.loss, f"val_bpp_{name}": result.rate_bpp, f"val_psnr_{name}": psnr}
            self.log_dict(values, batch_size=len(images), sync_dist=True)
        self.log("val_loss", mean, prog_bar=True, batch_size=len(images), sync_dist=True)


class WarmStartModule(TrainingModule):
    """Training of the transforms around a scalar or vector quantizer, before OHM takes over."""

    VECTOR_FREE_EPOCHS = 2
    """Epochs without a quantizer before the codebooks are set from the latents."""

    def __init__(self, options: TrainOptions, model: CompressionModel, total_steps: int, sample: Tensor) -> None:
        super().__init__(options, total_steps, options.warm_start_learning_rate, "cosine")
        bottleneck = VectorBottleneck if options.initialisation == "vector" else ScalarBottleneck
        self.bottleneck: VectorBottleneck | ScalarBottleneck = bottleneck(model)
        self.sample = sample  # images that set codebooks and counts, in [0, 1]

    def configure_optimizers(self) -> Any:
        """Adam on the transforms and the bottleneck, not on OHM and its prior."""
        model = self.bottleneck.model
        assert model.prior is not None
        left_out = {id(p) for part in (model.quantizer, model.prior) for p in part.parameters()}
        parameters = [p for p in self.bottleneck.parameters() if id(p) not in left_out]
        return self.scheduled(torch.optim.Adam(parameters, lr=self.learning_rate))

    def on_train_epoch_start(self) -> None:
        bottleneck = self.bottleneck
        first = min(self.VECTOR_FREE_EPOCHS, self.options.warm_start_epochs - 1)
        if isinstance(bottleneck, VectorBottleneck) and not bottleneck.started and self.current_epoch >= first:
            torch.manual_seed(self.options.seed)
            bottleneck.start(bottleneck.model.normalise(self.sample))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Distortion (vector) or rate–distortion (scalar) of a batch of images in [0, 1]."""
        images = self.bottleneck.model.normalise(batch)
        active, lagrangian = self.draw(len(images))
        if isinstance(self.bottleneck, VectorBottleneck):
            reconstruction, commitment = self.bottleneck(images, active)
            distortion = (reconstruction - images).square().mean()
            loss = distortion + commitment
        else:
            output = self.bottleneck(images, active)
            result = rate_distortion_loss(images, output.reconstruction, output.bits, lagrangian)
            loss, distortion = result.loss, result.distortion
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log_dict({"warm_loss": loss, "warm_distortion": distortion})
        return loss

    def transfer(self) -> CompressionModel:
        """The model, its OHM quantizer and prior set to the bottleneck."""
        torch.manual_seed(self.options.seed)
        model = self.bottleneck.model
        self.bottleneck.eval()
        self.bottleneck.transfer(model.normalise(self.sample))
        return model
