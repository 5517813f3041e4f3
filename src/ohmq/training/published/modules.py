"""Lightning modules of the published networks: rate–distortion training, and the warm start."""

from typing import Any

import torch
from torch import Tensor

from ohmq.models import CompressionModel
from ohmq.models.config import active_channels
from ohmq.models.priors.context import ContextPrior
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.training.losses import rate_distortion_loss
from ohmq.training.module import TrainingModule
from ohmq.training.options import TrainOptions
from ohmq.training.published.warm_start import ScalarBottleneck, VectorBottleneck

__all__ = ["VALIDATION_FRACTIONS", "CodecModule", "WarmStartModule"]

VALIDATION_FRACTIONS = (0.33, 0.66, 1.0)
"""``val_loss`` is the mean of the loss over these fractions of the adaptive range."""


class CodecModule(TrainingModule):
    """Rate–distortion training of a compression model.

    Args:
        options: the run; its model is that of the stage.
        model: the model to train, in place.
        total_steps: steps of the stage.

    Attributes:
        model: the model being trained.
        averaged: running mean of its weights (EMA), or None.
    """

    def __init__(self, options: TrainOptions, model: CompressionModel, total_steps: int) -> None:
        super().__init__(options, total_steps, options.learning_rate, options.schedule)
        self.model = model
        self.keep_average(model)

    @property
    def final_model(self) -> CompressionModel:
        """The model that is validated and exported: with averaged weights where there are any."""
        module = self.model if self.averaged is None else self.averaged.module
        assert isinstance(module, CompressionModel)
        return module

    def finish(self) -> CompressionModel:
        """Return the trained model, `final_model`."""
        return self.final_model

    def configure_optimizers(self) -> Any:
        """Build Adam; from a working codec, OHM's rows and codewords take smaller steps, priors larger ones."""
        quantizer, prior = self.model.quantizer, self.model.prior
        factors = {id(p): 1.0 for p in self.model.parameters()}
        if self.options.starts_as_codec:
            # All codewords of a position share one gradient: with Adam they would step together, C times too far.
            assert isinstance(quantizer, OneHotMax)
            factors |= {id(p): 0.1 for p in quantizer.parameters()}
            quantizer.inverse_temperature.requires_grad_(False)
            if prior is not None:
                factors |= {id(p): 3.0 for p in prior.parameters()}
            if isinstance(prior, ContextPrior):
                factors |= {id(p): 1.0 for p in prior.networks.parameters()}
        groups = [
            {
                "params": [p for p in self.model.parameters() if factors[id(p)] == factor and p.requires_grad],
                "lr": self.learning_rate * factor,
            }
            for factor in sorted(set(factors.values()))
        ]
        return self.scheduled(torch.optim.Adam(groups, weight_decay=self.options.weight_decay))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Compute the rate–distortion loss of images (batch, channels, H, W) in [0, 1]."""
        images = self.model.normalise(batch)
        active, lagrangian = self.draw(len(images))
        output = self.model(images, active)
        result = rate_distortion_loss(images, output.reconstruction, output.bits, lagrangian)
        values = {"train_loss": result.loss, "train_distortion": result.distortion, "train_rate_bpp": result.rate_bpp}
        self.watch_loss(result.loss)
        self.log("loss", result.loss, prog_bar=True, logger=False)
        self.log_dict(values, on_step=True, sync_dist=True)  # the mean over all processes
        return result.loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log loss, rate and PSNR at `VALIDATION_FRACTIONS`; ``val_loss`` is the mean loss."""
        config, (low, high) = self.options.model, self.options.lambdas
        model = self.final_model
        images = model.normalise(batch)
        mean_loss = images.new_zeros(())
        for fraction in VALIDATION_FRACTIONS:
            active = torch.full(
                (len(images),),
                active_channels(fraction, config.channels_min, config.channels_max),
                device=images.device,
            )
            lagrangian = torch.full((len(images),), low + (high - low) * fraction, device=images.device)
            output = model(images, active)
            result = rate_distortion_loss(images, output.reconstruction, output.bits, lagrangian)
            mean_loss = mean_loss + result.loss / len(VALIDATION_FRACTIONS)
            decoded = model.denormalise(output.reconstruction).clamp(0, 1).mul(255).round().div(255)
            psnr = -10 * torch.log10((decoded - batch).square().flatten(1).mean(1)).mean()
            name = f"{fraction:.2f}"
            values = {f"val_loss_{name}": result.loss, f"val_bpp_{name}": result.rate_bpp, f"val_psnr_{name}": psnr}
            self.log_dict(values, batch_size=len(images), sync_dist=True)
        self.log("val_loss", mean_loss, prog_bar=True, batch_size=len(images), sync_dist=True)


class WarmStartModule(TrainingModule):
    """Training of the transforms around a scalar or vector quantizer, before OHM takes over.

    Args:
        options: the run; its model is that of the stage.
        model: an OHM model with a prior, trained in place.
        total_steps: steps of the stage.
        sample: images that set codebooks and counts, (N, channels, H, W), in [0, 1].
    """

    VECTOR_FREE_EPOCHS = 2
    """Epochs without a quantizer before the codebooks are set from the latents."""

    def __init__(self, options: TrainOptions, model: CompressionModel, total_steps: int, sample: Tensor) -> None:
        super().__init__(options, total_steps, options.warm_start_learning_rate, "cosine")
        bottleneck = VectorBottleneck if options.initialisation == "vector" else ScalarBottleneck
        self.bottleneck: VectorBottleneck | ScalarBottleneck = bottleneck(model)
        self.sample = sample

    def configure_optimizers(self) -> Any:
        """Build Adam on the transforms and the bottleneck, without OHM and its prior."""
        model = self.bottleneck.model
        assert model.prior is not None
        untrained = {id(p) for module in (model.quantizer, model.prior) for p in module.parameters()}
        parameters = [p for p in self.bottleneck.parameters() if id(p) not in untrained]
        return self.scheduled(torch.optim.Adam(parameters, lr=self.learning_rate))

    def on_train_epoch_start(self) -> None:
        bottleneck = self.bottleneck
        first = min(self.VECTOR_FREE_EPOCHS, self.options.warm_start_epochs - 1)
        if isinstance(bottleneck, VectorBottleneck) and not bottleneck.started and self.current_epoch >= first:
            torch.manual_seed(self.options.seed)
            bottleneck.start(bottleneck.model.normalise(self.sample.to(self.device)))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Compute the distortion (vector) or rate–distortion loss (scalar) of images in [0, 1]."""
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
        self.watch_loss(loss)
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log_dict({"warm_loss": loss, "warm_distortion": distortion})
        return loss

    def finish(self) -> CompressionModel:
        """Set the model's OHM quantizer and prior to the bottleneck, and return the model."""
        torch.manual_seed(self.options.seed)
        model = self.bottleneck.model
        self.bottleneck.eval()
        self.bottleneck.transfer(model.normalise(self.sample.to(self.device)))
        return model
