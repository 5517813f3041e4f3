"""Test sets of the commands that train: read before the training, evaluated after it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ohmq.cli.output import echo_error, print_rate_points, progress_bar
from ohmq.errors import ConfigError

if TYPE_CHECKING:
    from ohmq.training.options import TrainOptions

__all__ = ["EvaluationSet", "evaluate_test_sets", "read_test_sets"]


class EvaluationSet(NamedTuple):
    """Images to evaluate a trained model on.

    Attributes:
        name: for folders and tables.
        images: names and pixels.
    """

    name: str
    images: Sequence[tuple[str, Any]]


def read_test_sets(options: "TrainOptions", limit: int | None = None) -> list[EvaluationSet]:
    """Read the test sets of a run, so that images that cannot be read fail before the training.

    Args:
        options: the run; its ``test_sets`` are folders of images, for digits also ``mnist_png/testing`` and the like.
        limit: images of each set, the first ones; None: all.

    Raises:
        ConfigError: no such images, or a limit below 1.
    """
    from ohmq.datasets.mnist import resolve_test_set
    from ohmq.evaluation.report import ImageFiles, ImageReader

    if limit is not None and limit < 1:
        raise ConfigError(f"the limit on test images is {limit}; it must be at least 1")
    test_sets: list[EvaluationSet] = []
    for path in options.test_sets:
        if options.model.family == "mnist":
            name, digits = resolve_test_set(path, options.data_base_path)
            test_sets.append(EvaluationSet(name, [(f"{n:05d}", image) for n, image in enumerate(digits[:limit])]))
        else:
            photos = ImageFiles(ImageReader([path], grey=False, report=echo_error, limit=limit))
            test_sets.append(EvaluationSet(Path(path).resolve().name, photos))
    return test_sets


def evaluate_test_sets(options: "TrainOptions", checkpoint: Path, test_sets: Sequence[EvaluationSet]) -> None:
    """Evaluate a trained model; results go into a folder ``test_NAME`` of the run for each set.

    Args:
        options: the run.
        checkpoint: its last checkpoint.
        test_sets: the images.
    """
    from ohmq.evaluation.report import EvaluationOptions, evaluate_set, write_evaluation
    from ohmq.model_files.resolve import resolve_model

    if not test_sets:
        return
    frozen = resolve_model(checkpoint)
    names = [test_set.name for test_set in test_sets]
    for number, (name, images) in enumerate(test_sets):
        folder = options.output_dir / (f"test_{name}_{number}" if name in names[:number] else f"test_{name}")
        with progress_bar(len(images), f"evaluate on {name}") as update:
            evaluation = evaluate_set(frozen, images, EvaluationOptions(), data=name, progress=update)
        write_evaluation(evaluation, folder)
        print_rate_points(evaluation.result.points, evaluation.result.data)
