"""The experiments: TOML files of the package or of one's own, read and checked."""

import dataclasses
import fnmatch
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from ohmq.errors import ConfigError
from ohmq.evaluation.published import published_names
from ohmq.models import MnistConfig, ModelConfig, config_from_dict
from ohmq.models.config import FAMILIES, memory_name
from ohmq.training.options import TrainOptions, preset

__all__ = ["GROUPS", "Experiment", "experiment_names", "find_experiments", "load_experiment"]

GROUPS = {
    "mnist-grid": "adaptive bitrate on MNIST: the published grid",
    "mnist-published": "adaptive bitrate on MNIST: the published training, unchanged",
    "mnist-fixed": "fixed bitrate on MNIST",
    "mnist-variable": "variable bitrate on MNIST",
    "photos": "photographs",
}
"""Groups of experiments, and their titles."""

_FILE_KEYS = ("group", "description", "test", "fixed_rate", "published", "model", "train")
_MACHINE_OPTIONS = (
    "output_dir",
    "data_base_path",
    "data_cache",
    "data_cache_bytes",
    "image_column",
    "devices",
    "num_nodes",
    "num_workers",
    "accelerator",
    "cpu",
    "test_sets",
)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A training run and the test of its model.

    Attributes:
        name: name of its file, without the ending.
        group: key of `GROUPS`.
        description: one line.
        test: "mnist" (the 10,000 test digits) or "photos" (a folder of images).
        options: options of the training, without those that belong to a machine.
        fixed_rate: tested as fixed-rate files.
        published: name of the published curve to compare with; "": none.
    """

    name: str
    group: str
    description: str
    test: Literal["mnist", "photos"]
    options: TrainOptions
    fixed_rate: bool = False
    published: str = ""

    def scaled(self, epochs: int | None) -> TrainOptions:
        """Return the options with another number of epochs.

        Epochs of the warm start, of growing and of distillation change in proportion. What a run does not use stays as it
        is, so that its checkpoint can be resumed with another number of epochs.

        Args:
            epochs: passes with the quantizer in place; None: as in the file.

        Raises:
            ConfigError: epochs < 1.

        Example:
            >>> options = load_experiment("mnist-ohm-c0-16-lambda0.95-0.999").scaled(11)
            >>> options.epochs, options.grow_epochs, options.warm_start_epochs
            (11, 1, 4)
        """
        if epochs is None:
            return self.options
        if epochs < 1:
            raise ConfigError(f"epochs is {epochs}; it must be at least 1")
        options, share = self.options, epochs / self.options.epochs
        # One epoch is too short to grow in: then the alphabet is whole from the start.
        grow_epochs = min(epochs - 1, max(1, round(options.grow_epochs * share))) if options.grow_epochs else 0
        warm_start_epochs = options.warm_start_epochs
        return dataclasses.replace(
            options,
            epochs=epochs,
            grow_epochs=grow_epochs,
            warm_start_epochs=max(1, round(warm_start_epochs * share)) if options.warm_starts else warm_start_epochs,
            quick_epochs=max(1, round(options.quick_epochs * share)) if options.quick_epochs else 0,
            val_every=min(options.val_every, max(1, epochs - grow_epochs)),
        )


def experiment_names() -> tuple[str, ...]:
    """List the names of the package's experiments; numbers in names sort by value.

    Example:
        >>> "mnist-none-c32" in experiment_names()
        True
    """
    names = [file.name.removesuffix(".toml") for file in files("ohmq.experiments").iterdir() if ".toml" in file.name]
    return tuple(sorted(names, key=lambda name: [(text, int(n or 0)) for text, n in re.findall(r"(\D+)(\d*)", name)]))


def find_experiments(patterns: Sequence[str]) -> list[Experiment]:
    """Find experiments by name, pattern or file; in order, each once.

    An experiment that others start from (``start_from``) is added before them.

    Args:
        patterns: names, patterns (``mnist-ohm-*``), or paths of TOML files.

    Raises:
        ConfigError: a name or pattern without an experiment, a file that cannot be used, or runs that start from one
            another.
    """
    experiments: dict[str, Experiment] = {}
    for pattern in patterns:
        if pattern.endswith(".toml"):
            names = [pattern]
        elif not (names := fnmatch.filter(experiment_names(), pattern)):
            raise ConfigError(f"no experiment {pattern!r}; `ohmq experiments list` shows all")
        for name in names:
            for experiment in _with_predecessors(load_experiment(name)):
                experiments.setdefault(experiment.name, experiment)
    return list(experiments.values())


def _with_predecessors(experiment: Experiment) -> list[Experiment]:
    """List the experiments that one starts from, the first one first, then itself."""
    chain = [experiment]
    while start := chain[0].options.start_from:
        if start in (successor.name for successor in chain):
            raise ConfigError(f"experiment {start} starts from itself; give one of its line another start_from")
        chain.insert(0, load_experiment(start))
    return chain


def load_experiment(source: str | Path) -> Experiment:
    """Load an experiment by its name, or from a TOML file.

    Args:
        source: name of an experiment of the package, or path of a file that ends in ".toml".

    Raises:
        ConfigError: no such experiment; or a file that is no TOML, has unknown or missing keys, or values that do not
            work.
    """
    if str(source).endswith(".toml"):
        path, name = Path(source), Path(source).stem
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"experiment file {path} cannot be read: {error}") from error
    elif str(source) in experiment_names():
        name = str(source)
        text = (files("ohmq.experiments") / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise ConfigError(f"no experiment {str(source)!r}; `ohmq experiments list` shows all")
    try:
        return _parse(name, tomllib.loads(text))
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise ConfigError(f"experiment {name}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"experiment {name}: {error}") from error


def _check_types(table: str, values: dict[str, Any], defaults: Any) -> None:
    """Refuse values whose type is not that of their default; a default of None stands for integers."""
    for key, value in values.items():
        name = memory_name(key)
        default = getattr(defaults, name, "")
        if isinstance(default, tuple):
            kind, fits = "list of numbers", isinstance(value, list) and all(type(v) in (int, float) for v in value)
        elif isinstance(default, float):
            kind, fits = "number", type(value) in (int, float)
        else:
            expected = int if default is None else type(default)
            kind, fits = {int: "whole number", str: "text", bool: "true or false"}[expected], type(value) is expected
        if not fits and hasattr(defaults, name):
            raise ConfigError(f"{key} in {table} is {value!r}; expected a value of the kind: {kind}")


def _check_keys(table: str, values: Any, known: Iterable[str]) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{table} must be a table of keys and values, not {values!r}")
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"unknown keys in {table}: {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def _parse(name: str, content: dict[str, Any]) -> Experiment:
    """Build an experiment from the content of its file.

    Raises:
        ConfigError: unknown or missing keys, or values that do not work.
    """
    _check_keys("the file", content, _FILE_KEYS)
    settings = _train_settings(content.get("train", {}))
    if "model" in content:
        settings["model"] = _model_config(content["model"])
    if "model" not in settings:
        raise ConfigError("a [model] table with at least its family is missing, or a preset in [train]")
    _check_file_values(content)
    options = TrainOptions(**settings)
    if options.start_from and options.start_from not in experiment_names():
        raise ConfigError(f"start_from is {options.start_from!r}; name an experiment (`ohmq experiments list`)")
    fixed_rate = content.get("fixed_rate", False)
    if not isinstance(fixed_rate, bool):
        raise ConfigError(f"fixed_rate is {fixed_rate!r}; choose true or false")
    if fixed_rate and options.model.quantizer != "ohm":
        raise ConfigError("fixed_rate needs quantizer 'ohm': its symbols have an alphabet of known size")
    return Experiment(
        name=name,
        group=content["group"],
        description=str(content["description"]),
        test=content["test"],
        options=options,
        fixed_rate=fixed_rate,
        published=content.get("published", ""),
    )


def _train_settings(train: Any) -> dict[str, Any]:
    """Turn the table [train] into keyword arguments of `TrainOptions`: those of its preset, then its own."""
    options = {field.name for field in dataclasses.fields(TrainOptions)} - {"model", "description", *_MACHINE_OPTIONS}
    _check_keys("[train]", train, [*options, "preset"])
    values = dict(train)
    settings = preset(values.pop("preset")) if "preset" in values else {}
    _check_types("[train]", values, TrainOptions())
    return settings | {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _model_config(model: Any) -> ModelConfig:
    """Turn the table [model] into a configuration; missing keys have the defaults of the family."""
    _check_keys("[model]", model, model if isinstance(model, dict) else ())  # config_from_dict checks the keys
    family = FAMILIES.get(model.get("family"))
    _check_types("[model]", model, (family or MnistConfig)())
    defaults = family().to_dict() if family else {}
    return config_from_dict(defaults | model)


def _check_file_values(content: dict[str, Any]) -> None:
    """Refuse missing keys, and unknown groups, test sets and published curves."""
    missing = [key for key in ("group", "description", "test") if key not in content]
    if missing:
        raise ConfigError(f"keys missing: {', '.join(missing)}")
    if content["group"] not in GROUPS:
        raise ConfigError(f"group is {content['group']!r}; choose one of {', '.join(GROUPS)}")
    if content["test"] not in ("mnist", "photos"):
        raise ConfigError(f"test is {content['test']!r}; choose 'mnist' or 'photos'")
    published = content.get("published", "")
    if published and published not in published_names():
        raise ConfigError(f"published is {published!r}; known curves: {', '.join(published_names())}")
