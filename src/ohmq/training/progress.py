"""Progress of a training run on standard error: a bar on a terminal, else a line now and then."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from ohmq.utils.progress import watch

if TYPE_CHECKING:
    from ohmq.training.clock import TrainingClock

__all__ = ["SECONDS_BETWEEN_LINES", "StageProgress", "duration", "show_phases"]

SECONDS_BETWEEN_LINES = 10.0
"""Least time between two lines of progress where standard error is no terminal."""
SECONDS_UNTIL_SHOWN = 2.0
"""Time that a phase of the preparation takes before it is shown."""
SECONDS_BETWEEN_UPDATES = 0.2
"""Least time between two updates of a bar."""


def duration(seconds: float) -> str:
    """Format a time.

    Args:
        seconds: the time.

    Example:
        >>> duration(50), duration(3 * 60 + 5), duration(7500), duration(200000)
        ('50 s', '3 min', '2 h 05 min', '2 d 7 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


@contextlib.contextmanager
def show_phases() -> Iterator[None]:
    """Show phases of the preparation of a run that take more than two seconds, such as reading sizes of photos."""
    started: dict[str, float] = {}
    bars: dict[str, Any] = {}
    last_line = 0.0

    def show(phase: str, done: int, total: int) -> None:
        nonlocal last_line
        now = time.monotonic()
        if done == 0:
            started[phase] = now
        elif sys.stderr.isatty():
            if phase not in bars and now - started[phase] >= SECONDS_UNTIL_SHOWN and done < total:
                bars[phase] = _bar(total, desc=phase, leave=False)
            if phase in bars:
                bars[phase].update(done - bars[phase].n)
        elif done < total and now - max(started[phase] + SECONDS_UNTIL_SHOWN - SECONDS_BETWEEN_LINES, last_line) >= (
            SECONDS_BETWEEN_LINES
        ):
            last_line = now
            left = (now - started[phase]) / done * (total - done)
            print(f"{phase}: {done} of {total}, {duration(left)} left", file=sys.stderr, flush=True)
        if done == total and phase in bars:
            bars.pop(phase).close()

    with watch(show):
        try:
            yield
        finally:
            for bar in bars.values():
                bar.close()


def _bar(total: int, **settings: Any) -> Any:
    """Make a bar on standard error."""
    # Both sizes are given: tqdm shows nothing on a terminal that says it has none, as those without a window do.
    return tqdm(total=total, file=sys.stderr, ncols=_columns(), nrows=20, **settings)


def _columns() -> int:
    """Return the width of the terminal of standard error, without the last column; 79 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
    return 79


class StageProgress(Callback):
    """Epoch, steps a second, losses and the time left, of one stage of a run.

    Args:
        name: name of the stage.
        epochs: epochs of the stage.
        further_steps: steps of the stages after it.
        clock: paces the stage; None: its epochs do.
    """

    def __init__(self, name: str, epochs: int, further_steps: int = 0, clock: "TrainingClock | None" = None) -> None:
        self.name, self.epochs, self.further_steps, self.clock = name, epochs, further_steps, clock
        self.bar: Any = None
        self.started_at = self.last_shown = 0.0
        self.first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started_at = self.last_shown = time.monotonic()
        self.first_step = trainer.global_step
        if trainer.is_global_zero and sys.stderr.isatty():
            unit = "steps" if self.clock is None else "s"
            self.bar = _bar(
                self._total(trainer),
                initial=self._done(trainer),
                bar_format=f"{{desc}} |{{bar}}| {{n_fmt}}/{{total_fmt}} {unit}{{postfix}}",
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        interval = SECONDS_BETWEEN_LINES if self.bar is None else SECONDS_BETWEEN_UPDATES
        ends = trainer.is_last_batch or (self.clock is not None and self.clock.progress >= 1)
        if not ends and time.monotonic() - self.last_shown >= interval:
            self._show(trainer, trainer.current_epoch + 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        interval = SECONDS_BETWEEN_LINES if self.bar is None else 0.0
        last = trainer.current_epoch + 1 == self.epochs if self.clock is None else self.clock.progress >= 1
        if last or time.monotonic() - self.last_shown >= interval:
            self._show(trainer, trainer.current_epoch + 1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "")

    def write(self, trainer: Trainer, text: str) -> None:
        """Write a line above the bar, in the first process only.

        Args:
            trainer: the trainer.
            text: the line.
        """
        if trainer.is_global_zero:
            tqdm.write(text, file=sys.stderr)

    def _total(self, trainer: Trainer) -> int:
        """Length of the stage: in steps, or in seconds where the clock paces it."""
        if self.clock is not None:
            return round(self.clock.limit_s)
        return self.epochs * int(trainer.num_training_batches)

    def _done(self, trainer: Trainer) -> int:
        """What is done of it."""
        return trainer.global_step if self.clock is None else min(int(self.clock.elapsed_s), self._total(trainer))

    def _show(self, trainer: Trainer, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        self.last_shown = time.monotonic()
        losses, pace = list(self._values(trainer)), []
        done = trainer.global_step - self.first_step
        elapsed = self.last_shown - self.started_at
        if done and elapsed:
            rate = done / elapsed
            pace = [f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step"]
            pace.append(self._time_left(trainer, rate, elapsed))
        title = f"{self.name}: epoch {epoch}" + (f"/{self.epochs}" if self.clock is None else "")
        if self.bar is None:
            print(", ".join([title, *losses, *pace]), file=sys.stderr, flush=True)
            return
        self.bar.set_description_str(title, refresh=False)
        # The time left first: the end does not fit into a narrow terminal.
        self.bar.set_postfix_str(", ".join([*reversed(pace), *losses]), refresh=False)
        self.bar.n, self.bar.ncols = self._done(trainer), _columns()
        self.bar.refresh()

    def _time_left(self, trainer: Trainer, rate: float, elapsed: float) -> str:
        """Format the time left at a rate in steps a second, or at the end the time that the stage took."""
        steps = self._total(trainer) - self._done(trainer)
        if steps <= 0:
            return f"took {duration(elapsed)}"
        if self.clock is not None:
            return f"{duration(steps)} left"
        if self.further_steps:  # of another kind, so that their time is a guess
            rest = (steps + self.further_steps) / rate
            return f"{duration(steps / rate)} left of this stage, about {duration(rest)} of the run"
        return f"{duration(steps / rate)} left"

    def _values(self, trainer: Trainer) -> Iterator[str]:
        """Format the losses that the module shows."""
        for name, value in trainer.progress_bar_metrics.items():
            yield f"{name} {float(value):.4g}"
