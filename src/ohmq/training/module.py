"""Lightning modules around the plain models."""

import math
from collections import deque
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ohmq.errors import ConfigError
from ohmq.models import CompressionModel
from ohmq.training.clock import TrainingClock
from ohmq.training.options import TrainOptions

__all__ = ["TrainingModule"]

WARM_UP_STEPS = 100
"""Steps in which the learning rate of the cosine schedule rises to its full value."""
CONSTANT_UNTIL = 0.5
"""Share of the steps after which the learning rate of the cosine schedule falls."""
LEAST_RATE_FACTOR = 0.003
"""Lower bound of the cosine schedule, relative to the full learning rate."""

CLOCK_WARM_UP, CLOCK_CONSTANT_UNTIL, CLOCK_END = 0.05, 0.35, 0.95
"""The same for a stage that is paced by the clock, in shares of its time: end of the warm-up, beginning and end of the fall."""

READ_EVERY = 20
"""Steps between two readings of the losses from an accelerator."""
WATCHED_STEPS = 40
"""Steps whose mean loss is watched for divergence; a resumed run starts to watch anew."""


class _RunningMean(AveragedModel):
    """Running mean of weights, updated without waiting for the device."""

    begun = False

    @torch.no_grad()
    def update_parameters(self, model: torch.nn.Module) -> None:
        """Add the weights of a step to the mean."""
        means: list[Tensor] = [*self.module.parameters()]
        values: list[Tensor] = [*model.parameters()]
        self.begun = self.begun or bool(self.n_averaged > 0)  # a resumed run has begun; reading waits once
        if self.begun:
            assert self.multi_avg_fn is not None
            self.multi_avg_fn(means, values, self.n_averaged)
        else:
            torch._foreach_copy_(means, values)
        self.begun = True
        for kept, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)
        self.n_averaged += 1


class TrainingModule(LightningModule):
    """Base of all stages' modules: schedule, seeds of each step, weight averaging, active channels, divergence.

    Training stops with a `ConfigError` when it diverges: when a loss is not finite and would ruin the weights, when the
    mean loss of `WATCHED_STEPS` steps is `DIVERGED` times its least, or when weights or ``val_loss`` are not finite at
    the end of an epoch, before a checkpoint is written.

    Args:
        options: the run; its model is that of the stage.
        total_steps: steps of the stage; not used where it is paced by the clock.
        learning_rate: of the stage.
        schedule: "constant" or "cosine", see `TrainOptions`.

    Attributes:
        clock: paces the stage; None: its steps do.
        averaged: running mean of the weights; None: there is none.
    """

    DIVERGED: ClassVar[float] = 10.0
    """Training stops when the watched mean loss exceeds its least value by this factor."""
    ADVICE: ClassVar[str] = "start again with a smaller learning rate, or with ohmq train --clip-norm 1"
    """Way out of a run that diverged."""

    def __init__(self, options: TrainOptions, total_steps: int, learning_rate: float, schedule: str) -> None:
        super().__init__()
        self.options, self.total_steps = options, total_steps
        self.learning_rate, self.schedule = learning_rate, schedule
        self.clock: TrainingClock | None = None
        self.averaged: AveragedModel | None = None  # on the instance: a class attribute would hide the module
        self._unread: list[Tensor] = []  # losses of the last steps, on the device
        self._left_out: Tensor | None = None  # steps left out since the losses were read, on the device
        self.recent_losses: deque[float] = deque(maxlen=WATCHED_STEPS)
        self.least_loss = math.inf

    def keep_average(self, model: CompressionModel) -> None:
        """Keep a running mean of the weights, if the options ask for it.

        Args:
            model: the model being trained.
        """
        if self.options.ema_decay > 0:
            self.averaged = _RunningMean(model, multi_avg_fn=get_ema_multi_avg_fn(self.options.ema_decay))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        # Here and not at the end of the batch: a checkpoint written there must hold this step's average.
        super().optimizer_step(*args, **kwargs)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)  # type: ignore[arg-type]

    def watch_loss(self, loss: Tensor) -> None:
        """Stop a run that diverges; every training step calls it.

        Args:
            loss: of this process's images, scalar.

        Raises:
            ConfigError: training diverged.
        """
        self._unread.append(loss.detach())
        if loss.device.type != "cpu" and len(self._unread) < READ_EVERY:  # reading waits for the device
            return
        losses = torch.stack(self._unread).tolist()
        self._unread.clear()
        for step, value in enumerate(losses, start=self.global_step - len(losses) + 1):
            self._watch(value, step)
        if self._left_out is not None:
            if count := int(self._left_out):
                self.print(f"step {self.global_step}: gradient was not finite in the last steps; {count} left out")
            self._left_out = None

    def _watch(self, loss: float, step: int) -> None:
        """Stop a run whose loss diverges; every loss in turn."""
        if not math.isfinite(loss) and self.options.clip_norm == 0:  # else the step is left out
            raise ConfigError(f"training diverged at step {step}: the loss is {loss}; {self.ADVICE}")
        self.recent_losses.append(loss)
        if len(self.recent_losses) < WATCHED_STEPS:
            return
        mean = sum(self.recent_losses) / WATCHED_STEPS
        self.least_loss = min(self.least_loss, mean)
        if not mean < self.DIVERGED * self.least_loss:
            raise ConfigError(
                f"training diverged at step {step}: the mean loss of {WATCHED_STEPS} steps rose from "
                f"{self.least_loss:.3g} to {mean:.3g}; {self.ADVICE}"
            )

    def on_validation_epoch_end(self) -> None:
        """Stop a run whose ``val_loss`` is not finite, before the checkpoint is written."""
        value = float(self.trainer.callback_metrics.get("val_loss", 0.0))
        if not math.isfinite(value):
            raise ConfigError(f"training diverged at step {self.global_step}: val_loss is {value}; {self.ADVICE}")

    def on_train_epoch_end(self) -> None:
        """Stop a run whose weights are not finite, before the checkpoint is written."""
        self._check_finite()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stop a run whose weights are not finite: the checkpoint before stays."""
        self._check_finite()

    def _check_finite(self) -> None:
        names, parameters = zip(*self.named_parameters(), strict=True)
        finite = torch.stack([torch.isfinite(parameter).all() for parameter in parameters]).tolist()
        for name, is_finite in zip(names, finite, strict=True):
            if not is_finite:
                raise ConfigError(f"training diverged at step {self.global_step}: {name} is not finite; {self.ADVICE}")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Random numbers depend on the step alone, so that a resumed run equals an uninterrupted one.
        torch.manual_seed(self._step_seed() + self.global_rank)

    def _step_seed(self) -> int:
        return (self.options.seed * 1_000_003 + self.global_step) * 4096

    def draw_uniform(self, images: int) -> Tensor:
        """Draw a random number in [0, 1) for each image of the whole batch, the same in all processes.

        A process uses ``[self.share]`` of them, so that each image gets the same number however many processes train.

        Args:
            images: images of the whole batch.

        Shape:
            Returns: (images,), float32.
        """
        torch.manual_seed(self._step_seed())
        numbers = torch.rand(images)
        if self.global_rank:
            torch.manual_seed(self._step_seed() + self.global_rank)  # different quantization noise in each process
        return numbers

    @property
    def share(self) -> slice:
        """This process's share of the images of the whole batch."""
        return slice(self.global_rank, None, self.trainer.world_size)

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """Draw active channels and lambda of each of this process's images.

        Args:
            batch: images of this process.

        Returns:
            Numbers of channels, (batch,), int64, and lambdas, (batch,), float32.
        """
        fraction = self.draw_uniform(batch * self.trainer.world_size)[self.share] ** self.options.fraction_power
        config = self.options.model
        adaptive = config.channels_max - config.channels_min
        active = config.channels_min + torch.ceil(fraction * adaptive).long()
        low, high = self.options.lambdas
        return active.to(self.device), (low + (high - low) * fraction).to(self.device)

    def scheduled(self, optimizer: torch.optim.Optimizer) -> Any:
        """Attach the learning rate's schedule to an optimizer; it is stepped every batch.

        Args:
            optimizer: the optimizer.

        Returns:
            The value of Lightning's ``configure_optimizers``.
        """
        if self.schedule == "constant":
            return optimizer

        def factor(step: int) -> float:
            if self.clock is None:
                return _rate_factor(step / self.total_steps, (step + 1) / WARM_UP_STEPS, CONSTANT_UNTIL, 1.0)
            self.clock.read()
            progress = self.clock.progress
            return _rate_factor(progress, progress / CLOCK_WARM_UP, CLOCK_CONSTANT_UNTIL, CLOCK_END)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        if self.options.clip_norm > 0:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.options.clip_norm)
            # One bad batch must not ruin hours of training: leave its step out, and say so.
            if norm.device.type != "cpu" and optimizer.defaults.get("fused"):
                self.leave_out(optimizer, ~torch.isfinite(norm))
            elif not torch.isfinite(norm):
                self.print(f"step {self.global_step}: gradient is not finite; step left out")
                optimizer.zero_grad(set_to_none=True)

    def leave_out(self, optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
        """Tell a fused optimizer on its device whether to leave the next step out, without waiting for the device.

        Args:
            optimizer: the optimizer.
            bad: whether to leave it out, bool, scalar, on the device.
        """
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # as torch.amp.GradScaler does
        self._left_out = bad.float() if self._left_out is None else self._left_out + bad


def _rate_factor(progress: float, warm_up: float, constant_until: float, end: float) -> float:
    """Compute the learning rate of the cosine schedule, relative to its peak.

    Args:
        progress: share of the stage that is done, 0 to 1.
        warm_up: share of the warm-up that is done; from 1 on it is over.
        constant_until: progress at which the fall begins.
        end: progress at which it ends.
    """
    fallen = min(1.0, max(0.0, (progress - constant_until) / (end - constant_until)))
    decay = 0.5 * (1 + math.cos(math.pi * fallen))
    return max(min(1.0, warm_up), LEAST_RATE_FACTOR) * max(decay, LEAST_RATE_FACTOR)
