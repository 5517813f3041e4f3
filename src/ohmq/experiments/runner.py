"""Experiments run one by one: train, export, test, and compare with the published curve."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ohmq.errors import ConfigError
from ohmq.utils.counting import counted

if TYPE_CHECKING:
    from ohmq.evaluation.evaluate import NamedPixels
    from ohmq.evaluation.report import Evaluation
    from ohmq.evaluation.results import ResultFile
    from ohmq.experiments.catalogue import Experiment
    from ohmq.model_files.frozen_model import FrozenModel
    from ohmq.training.options import TrainOptions

__all__ = ["DEFINITIONS", "NamedImages", "experiment_status", "image_sets", "run_experiment"]

DEFINITIONS = {
    "epochs": "passes over the training images with the quantizer in place; a warm start comes before them",
    "epochs_of_the_file": "the same, as the experiment's file says",
    "seconds": "wall-clock seconds of training: warm start, validation and checkpoints included, stops left out",
}
"""Meanings of the figures that a result file keeps of its experiment."""
_FREE_OPTIONS = ("description", "num_workers", "devices", "num_nodes", "cpu", "log_interval")
"""Options that change the result of a run by rounding at most."""
_WARM_START_OPTIONS = ("warm_start_epochs", "warm_start_learning_rate", "warm_start_batch_size")
"""Options that change nothing in a run without a warm start."""

ShowProgress = Callable[[int, str], AbstractContextManager[Callable[[int], Any]]]
"""Called with the number of steps and a label; yields a function to call with the steps done since its last call."""


class NamedImages(NamedTuple):
    """Images to test on.

    Attributes:
        name: for result files and tables.
        images: names and pixels.
    """

    name: str
    images: "Sequence[NamedPixels]"


@contextlib.contextmanager
def _no_progress(length: int, label: str) -> Iterator[Callable[[int], Any]]:
    yield lambda count: None


def run_experiment(
    experiment: "Experiment",
    options: "TrainOptions",
    output_dir: Path,
    *,
    machine: dict[str, Any],
    test_images: Callable[[str], NamedImages],
    show_progress: ShowProgress = _no_progress,
) -> str:
    """Train, export and test one experiment; one that is done is not run again.

    Training resumes from the last checkpoint. All processes train; the first alone exports and tests.

    Args:
        experiment: the experiment.
        options: its options, with the number of epochs to train (`Experiment.scaled`).
        output_dir: gets ``runs/NAME`` (checkpoints, logs, model file) and ``results/NAME`` (curve).
        machine: options of `TrainOptions` that belong to the machine: devices, data path.
        test_images: returns the images of a test set by its name; see `image_sets`.
        show_progress: shows the progress of fitting a post-filter and of evaluating.

    Returns:
        One line that summarises the outcome; "" in all processes but the first.

    Raises:
        ConfigError: a result of other settings in output_dir, images that are missing, or a run that cannot start.
        SystemExit: stopped by SIGTERM or SIGINT; a checkpoint is written.
    """
    # Imported here: Lightning takes seconds, and listing experiments does not need it.
    from ohmq.evaluation.published import published_curve
    from ohmq.evaluation.report import write_evaluation
    from ohmq.training.fit import is_first_process
    from ohmq.training.run import train

    result = _read_result(experiment, options, output_dir)
    if result is not None:
        return f"done before; {_summary(experiment, result)}"
    test_set = test_images(experiment.test)  # before the training: images that cannot be read fail at once
    folder = output_dir / "runs" / experiment.name
    last = folder / "last.ckpt"
    options = dataclasses.replace(options, **machine, output_dir=folder, description=experiment.name)
    start = None if last.exists() else _start_checkpoint(options, output_dir)
    with contextlib.redirect_stdout(sys.stderr):  # progress bars: standard output has one line an experiment
        checkpoint = train(options, resume=last if last.exists() else None, start=start)
    if not is_first_process():
        return ""
    frozen = _export(checkpoint, folder / f"{experiment.name}.safetensors", options, show_progress)
    record = {
        "name": experiment.name,
        "group": experiment.group,
        "test": experiment.test,
        "fixed_rate": experiment.fixed_rate,
        "epochs": options.epochs,
        "epochs_of_the_file": experiment.options.epochs,
        "seconds": frozen.provenance["seconds"],
        "definitions": DEFINITIONS,
        "options": options.to_dict(),
    }
    evaluation = _evaluate(frozen, experiment, test_set, record, show_progress)
    published = [published_curve(experiment.published)] if experiment.published else []
    write_evaluation(evaluation, output_dir / "results" / experiment.name, per_image=False, published=published)
    return f"trained {counted(options.epochs, 'epoch')} in {record['seconds']:.0f} s; {_summary(experiment, evaluation.result)}"


def _evaluate(
    frozen: "FrozenModel",
    experiment: "Experiment",
    test_set: NamedImages,
    record: dict[str, Any],
    show_progress: ShowProgress,
) -> "Evaluation":
    """Evaluate a model at every number of channels."""
    from ohmq.evaluation.report import EvaluationOptions, evaluate_set

    options = EvaluationOptions(fixed_rate=experiment.fixed_rate)
    extra = {"experiment": record}
    with show_progress(len(test_set.images), "evaluate") as progress:
        return evaluate_set(frozen, test_set.images, options, data=test_set.name, extra=extra, progress=progress)


def _start_checkpoint(options: "TrainOptions", output_dir: Path) -> Path | None:
    """Find the checkpoint of the experiment that this one starts from; None: it starts from none.

    Raises:
        ConfigError: that experiment is not trained.
    """
    if not options.start_from:
        return None
    # A run that grows its alphabet starts from the transforms that were trained with the small one.
    name = "train.ckpt" if options.grow_epochs else "last.ckpt"
    checkpoint = output_dir / "runs" / options.start_from / name
    if not checkpoint.exists():
        raise ConfigError(f"it starts from {options.start_from}, which is not trained: there is no {checkpoint}")
    return checkpoint


def _export(checkpoint: Path, model_path: Path, options: "TrainOptions", show_progress: ShowProgress) -> "FrozenModel":
    """Write the model file of a checkpoint, for a photo model with its post-filter, and load it."""
    from ohmq.model_files.frozen_model import load_model, save_model
    from ohmq.model_files.resolve import resolve_model
    from ohmq.models.config import PhotoConfig
    from ohmq.training.photo.fit_postfilter import filter_photos, fit_filters

    frozen = resolve_model(checkpoint)
    if isinstance(frozen.config, PhotoConfig):
        photos = filter_photos(options.data_base_path)
        with show_progress(len(photos), "fitting filters") as progress:
            frozen = fit_filters(frozen, photos, progress)
    save_model(frozen, model_path, force=True)
    return load_model(model_path, model_path.stem)


def _read_result(experiment: "Experiment", options: "TrainOptions", output_dir: Path) -> "ResultFile | None":
    """Read the result of this run; None: there is none yet.

    Raises:
        ConfigError: a result of other settings under the same name.
    """
    from ohmq.evaluation.results import ResultFile
    from ohmq.training.options import recorded_options

    unused = set() if options.warm_starts else set(_WARM_START_OPTIONS)
    path = output_dir / "results" / experiment.name / "rate_distortion.json"
    if not path.exists():
        return None
    result = ResultFile.read(path)
    record = result.extra.get("experiment")
    if not isinstance(record, dict) or not isinstance(record.get("options"), dict):
        raise ConfigError(f"{path} was not written by `ohmq experiments run`; choose another -o")
    recorded = {**recorded_options(record["options"]), "fixed_rate": record.get("fixed_rate")}
    current = json.loads(json.dumps({**options.to_dict(), "fixed_rate": experiment.fixed_rate}))
    changed = [
        f"{key} was {recorded.get(key)!r}, now {current.get(key)!r}"
        for key in sorted({*recorded, *current} - set(_FREE_OPTIONS) - unused)
        if recorded.get(key) != current.get(key)
    ]
    if changed:
        raise ConfigError(f"{path} holds another run ({'; '.join(changed)}); choose another -o, or remove it")
    return result


def experiment_status(experiment: "Experiment", options: "TrainOptions", output_dir: Path) -> str:
    """Tell how far an experiment is.

    Args:
        experiment: the experiment.
        options: its options, with the number of epochs to train.
        output_dir: folder of runs and results.

    Returns:
        "done", "done with other settings", "begun", or "-" if it is not begun.
    """
    try:
        if _read_result(experiment, options, output_dir) is not None:
            return "done"
    except ConfigError:
        return "done with other settings"
    return "begun" if (output_dir / "runs" / experiment.name / "last.ckpt").exists() else "-"


def _summary(experiment: "Experiment", result: "ResultFile") -> str:
    """Summarise rates, PSNR and the BD-rate against the published curve."""
    from ohmq.evaluation.bd_rate import bd_rate
    from ohmq.evaluation.published import published_curve

    first, last = result.points[0], result.points[-1]
    if experiment.options.model.quantizer == "none":
        return f"{last.psnr_db:.2f} dB without a quantizer on {result.data}"
    if len(result.points) > 1:
        rates = f"{first.payload_bpp:.4f} to {last.payload_bpp:.4f}"
        quality = f"{first.psnr_db:.2f} to {last.psnr_db:.2f}"
    else:
        rates, quality = f"{last.payload_bpp:.4f}", f"{last.psnr_db:.2f}"
    text = f"payload {rates} bpp, {quality} dB on {result.data}"
    if not experiment.published:
        return text
    curve, anchor = result.curve(), published_curve(experiment.published)
    try:
        difference = bd_rate(anchor.rates_bpp, anchor.psnr_db, curve.rates_bpp, curve.psnr_db)
    except ConfigError as error:
        return f"{text}; no BD-rate against the published curve: {error}"
    return f"{text}; BD-rate of the payload {difference.percent:+.1f} % against the published curve"


def image_sets(
    data_base_path: Path | None, folder: Path | None, *, report: Callable[[str], None]
) -> Callable[[str], NamedImages]:
    """Build a reader of the test sets that experiments name; each is read once.

    Args:
        data_base_path: folder of MNIST and of ``kodak``; None: the usual places.
        folder: images of the test set "photos"; None: the folder ``kodak`` below data_base_path.
        report: called with a line of text for each image that is skipped or loses something when it is read.

    Returns:
        A function from the name of a test set ("mnist" or "photos") to its images; it raises a ConfigError where there
        are none.
    """

    @cache
    def read(name: str) -> NamedImages:
        from ohmq.datasets.folders import data_folders, find_data
        from ohmq.datasets.mnist import load_mnist
        from ohmq.evaluation.report import read_images

        if name == "mnist":
            digits = load_mnist(data_base_path, "test")
            return NamedImages("MNIST test", [(f"{number:05d}", image) for number, image in enumerate(digits)])
        folders = [data_base_path] if data_base_path else data_folders()
        photos = folder or find_data(folders, ["kodak"], Path.is_dir) or folders[0] / "kodak"
        if not photos.exists():
            raise ConfigError(f"no images to test on in {photos}: name them with --images")
        return NamedImages(photos.name, read_images([str(photos)], grey=False, report=report)[0])

    return read
