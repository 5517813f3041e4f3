"""Devices and processes of a run: their number, the scheduler that started them, and Lightning's chatter."""

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment

from ohmq.errors import ConfigError
from ohmq.training.options import TrainOptions

__all__ = ["cluster_environment", "device_count", "loader_processes", "quiet_lightning"]

MOST_LOADER_PROCESSES = 8
"""Default limit on the processes that read photos for one device."""
_CHATTER = (
    ".*exists and is not empty",
    ".*`isinstance.treespec, LeafSpec.` is deprecated",
    ".*number of training batches .* is smaller than the logging interval",
    r"Found \d+ module.s. in eval mode",
    ".*does not have many workers",
    ".*weights_only",
    ".*pin_memory",
    ".*`srun` command is available",
    ".*GPU available but not used",
    ".*litlogger",
    ".*have no `val_dataloader`",  # a warm start is not validated
    ".*The dirpath has changed",  # of a checkpoint that was moved or named with --ckpt
    ".*resuming from a checkpoint that ended before the epoch ended",  # the loaders know the step
)
"""Warnings of libraries about what this project does on purpose."""


def _accelerators(options: TrainOptions) -> int:
    """Number of accelerators that a run may use."""
    if options.cpu:
        return 0
    return torch.cuda.device_count() or int(torch.backends.mps.is_available())


def device_count(options: TrainOptions) -> int:
    """Return the number of devices of this machine that a run trains on, one process each.

    Args:
        options: the run.

    Raises:
        ConfigError: ``options.devices`` is no number of devices, no list of them and not "auto", or more than there are.
    """
    text, accelerators = str(options.devices).strip(), _accelerators(options)
    if text in ("auto", "-1"):
        return max(1, accelerators)
    kind = "accelerators" if accelerators else "processors"
    if accelerators and re.fullmatch(r"\d+(,\d+)*,?", text) and "," in text:
        indexes = {int(index) for index in text.strip(",").split(",")}
        if max(indexes) >= accelerators:
            raise ConfigError(f"devices is {text!r}; this machine has the accelerators 0 to {accelerators - 1}")
        return len(indexes)
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ConfigError(f"devices is {text!r}; give their number, a list of GPUs such as 0,1, or auto")
    available = accelerators or max(2, os.cpu_count() or 1)  # two processes may share a processor, to try them out
    if not 1 <= int(text) <= available:
        raise ConfigError(f"devices is {text}; this machine has {available} {kind}: it must lie in 1 to {available}")
    return int(text)


def loader_processes(options: TrainOptions) -> int:
    """Return the number of processes that read photos for each device; 0: a thread.

    By default a run on accelerators takes the processors that it may use, up to 8 a device. A run on the CPU takes a
    thread: its steps need the processors, and are slower than reading.

    Args:
        options: the run.
    """
    if options.num_workers is not None:
        return options.num_workers
    if not _accelerators(options):
        return 0
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_LOADER_PROCESSES, processors // device_count(options)))


def cluster_environment(options: TrainOptions) -> ClusterEnvironment | None:
    """Choose who starts the processes of a run.

    Variables of Slurm alone, as a shell in a job or a copied environment has them, do not make a run part of a job
    step: only a step of several tasks does.

    Args:
        options: the run.

    Returns:
        The environment for Lightning's Trainer; None: Lightning finds it.

    Raises:
        ConfigError: a job step with another number of tasks than the run has processes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not SLURMEnvironment.detect():
            return None
    text = os.environ.get("SLURM_STEP_NUM_TASKS", "") if "SLURM_TASK_PID" in os.environ else ""  # srun sets both
    tasks, wanted = int(text) if text.isdigit() else 1, device_count(options) * options.num_nodes
    if tasks > 1 or options.num_nodes > 1:
        if tasks != wanted:
            raise ConfigError(
                f"srun started {tasks} tasks (SLURM_STEP_NUM_TASKS), but {wanted} processes train together: start as "
                "many with srun -n, or change devices and num_nodes"
            )
        return None
    environment = LightningEnvironment()
    environment.set_global_rank(environment.local_rank())  # not SLURM_PROCID, which another program may have been given
    return environment


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence advertisements, advice and deprecations of Lightning and its libraries."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _CHATTER:
                warnings.filterwarnings("ignore", message=message)
            for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
                warnings.filterwarnings("ignore", category=category, module=r"(lightning|torch|tensorboard)\b")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
