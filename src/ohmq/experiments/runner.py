"""src/ohmq/experiments/runner.py."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmq.errors import ConfigError

if TYPE_CHECKING:
    from ohmq.evaluation.report import Images
    from ohmq.evaluation.results import ResultFile
    from ohmq.experiments.catalogue import Experiment
    from ohmq.training.options import TrainOptions
DEFINITIONS = {
    "epochs": "passes over the training images with the quantizer in place; a warm start comes before them",
    "epochs_of_the_file": "the same, as the experiment's file says",
    "seconds": "wall-clock seconds of training: warm start, validation and checkpoints included, stops left out",
}
_FREE = ("description", "num_workers", "devices", "num_nodes", "cpu", "log_interval")
"""Options that do not change what a run gives, or do so only by rounding."""


def _run(
    experiment: "Experiment",
    options: "TrainOptions",
    output_dir: Path,
    machine: dict[str, Any],
    test_set: Callable[[str], tuple[str, "Images"]],
) -> str:
    """One experiment; what to say about it. Training goes on in all processes, tests in the first alone."""
    from ohmq.cli.output import progress_bar
    from ohmq.evaluation.published import published_curve
    from ohmq.evaluation.report import EvaluationOptions, evaluate_set, write_evaluation
    from ohmq.model_files.frozen_model import load_model, save_model
    from ohmq.model_files.resolve import resolve_model
    from ohmq.models.config import PhotoConfig
    from ohmq.training.fit import is_first_process
    from ohmq.training.photo.fit_postfilter import filter_photos, fit_filters
    from ohmq.training.run import train

    done = _result(experiment, options, output_dir)
    if done is not None:
        return f"done before; {_summary(experiment, done)}"
    data, images = test_set(experiment.test)  # what cannot be read fails before the training
    folder = output_dir / "runs" / experiment.name
    last, model_path = folder / "last.ckpt", folder / f"{experiment.name}.safetensors"
    options = dataclasses.replace(options, **machine, output_dir=folder, description=experiment.name)
    start = None
    if options.start_from and not last.exists():
        # What its transforms learned with the small alphabet; this run's alphabet grows again.
        start = output_dir / "runs" / options.start_from / ("train.ckpt" if options.grow_epochs else "last.ckpt")
        if not start.exists():
            raise ConfigError(f"it starts from {options.start_from}, which is not trained: there is no {start}")
    with contextlib.redirect_stdout(sys.stderr):  # progress bars: standard output is for one line an experiment
        checkpoint = train(options, resume=last if last.exists() else None, start=start)
    if not is_first_process():
        return ""
    frozen = resolve_model(checkpoint)
    if isinstance(frozen.config, PhotoConfig):
        photos = filter_photos(options.data_base_path or Path(os.environ["OHMQ_DATA"]))
        with progress_bar(len(photos), "fitting filters") as progress:
            frozen = fit_filters(frozen, photos, progress)
    save_model(frozen, model_path, force=True)
    frozen = load_model(model_path, experiment.name)
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
    evaluation_options = EvaluationOptions(fixed_rate=experiment.fixed_rate)
    with progress_bar(len(images), "evaluate") as progress:
        evaluation = evaluate_set(
            frozen, images, evaluation_options, data=data, extra={"experiment": record}, progress=progress
        )
    published = [published_curve(experiment.published)] if experiment.published else []
    write_evaluation(evaluation, output_dir / "results" / experiment.name, per_image=False, published=published)
    return f"trained {options.epochs} epochs in {record['seconds']:.0f} s; {_summary(experiment, evaluation.result)}"


def _result(experiment: "Experiment", options: "TrainOptions", output_dir: Path) -> "ResultFile | None":
    """The result of this run, if it is there.

    Raises:
        ConfigError: a result of other settings under the same name.
    """
    from ohmq.evaluation.results import ResultFile
    from ohmq.training.options import recorded_options

    path = output_dir / "results" / experiment.name / "rate_distortion.json"
    if not path.exists():
        return None
    result = ResultFile.read(path)
    record = result.extra.get("experiment")
    if not isinstance(record, dict) or not isinstance(record.get("options"), dict):
        raise ConfigError(f"{path} was not written by `ohmq experiments run`; choose another -o")
    found = {**recorded_options(record["options"]), "fixed_rate": record.get("fixed_rate")}
    wanted = json.loads(json.dumps({**options.to_dict(), "fixed_rate": experiment.fixed_rate}))
    changed = [
        f"{key} was {found.get(key)!r}, now {wanted.get(key)!r}"
        for key in sorted({*found, *wanted} - set(_FREE))
        if found.get(key) != wanted.get(key)
    ]
    if changed:
        raise ConfigError(f"{path} holds another run ({'; '.join(changed)}); choose another -o, or remove it")
    return result


def _status(experiment: "Experiment", options: "TrainOptions", output_dir: Path) -> str:
    try:
        if _result(experiment, options, output_dir) is not None:
            return "done"
    except ConfigError:
        return "done with other settings"
    return "begun" if (output_dir / "runs" / experiment.name / "last.ckpt").exists() else "-"


def _summary(experiment: "Experiment", result: "ResultFile") -> str:
    """Rates, PSNR and the BD-rate against the published curve."""
    from ohmq.evaluation.bd_rate import bd_rate
    from ohmq.evaluation.published import published_curve

    first, last = result.points[0], result.points[-1]
    if experiment.options.model.quantizer == "none":
        return f"{last.psnr_db:.2f} dB without a quantizer on {result.data}"
    several = len(result.points) > 1
    rates = f"{first.payload_bpp:.4f} to {last.payload_bpp:.4f}" if several else f"{last.payload_bpp:.4f}"
    quality = f"{first.psnr_db:.2f} to {last.psnr_db:.2f}" if several else f"{last.psnr_db:.2f}"
    text = f"payload {rates} bpp, {quality} dB on {result.data}"
    if not experiment.published:
        return text
    curve, anchor = result.curve(), published_curve(experiment.published)
    try:
        difference = bd_rate(anchor.rates_bpp, anchor.psnr_db, curve.rates_bpp, curve.psnr_db)
    except ConfigError as error:
        return f"{text}; no BD-rate against the published curve: {error}"
    return f"{text}; BD-rate {difference.percent:+.1f} % against the published curve"


def _test_sets(
    data_base_path: Path | None, folder: Path | None, report: Callable[[str], None]
) -> Callable[[str], tuple[str, "Images"]]:
    """Test sets by name, each read once: what it is, and its images."""

    @cache
    def test_set(name: str) -> tuple[str, "Images"]:
        from ohmq.datasets.mnist import load_mnist
        from ohmq.evaluation.report import read_images

        if name == "mnist":
            return "MNIST test", [(f"{n:05d}", image) for n, image in enumerate(load_mnist(data_base_path, "test"))]
        base = data_base_path or (Path(os.environ["OHMQ_DATA"]) if "OHMQ_DATA" in os.environ else None)
        pictures = folder or (base and base / "kodak")
        if pictures is None or not pictures.exists():
            raise ConfigError(f"no pictures to test on{f' in {pictures}' if pictures else ''}: name them with --images")
        return pictures.name, read_images([str(pictures)], grey=False, report=report)[0]

    return test_set
