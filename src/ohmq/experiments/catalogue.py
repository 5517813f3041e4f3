"""src/ohmq/experiments/catalogue.py."""

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
from ohmq.models import MnistConfig, config_from_dict
from ohmq.models.config import FAMILIES, memory_name
from ohmq.training.options import TrainOptions, preset

__all__ = ["GROUPS", "Experiment", "experiment_names", "find_experiments", "load_experiment"]

GROUPS = {
    "mnist-grid": "adaptive bitrate on MNIST: the published grid",
    "mnist-fixed": "fixed bitrate on MNIST",
    "mnist-variable": "variable bitrate on MNIST",
    "photos": "photographs",
}
"""Kinds of experiments, and what they are."""

_TOP = ("group", "description", "test", "fixed_rate", "published", "model", "train")
_OF_THE_MACHINE = ("output_dir", "data_base_path", "devices", "num_nodes", "num_workers", "cpu", "test_sets")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run: what is trained and on what it is tested.

    Attributes:
        name: of its file. group: one of `GROUPS`. description: one line.
        test: "mnist" (the 10,000 test digits) or "photos" (a folder of pictures).
        options: of the training, without what belongs to a machine.
        fixed_rate: tested as fixed-rate files. published: name of the curve to compare with; "": none.
    """

    name: str
    group: str
    description: str
    test: Literal["mnist", "photos"]
    options: TrainOptions
    fixed_rate: bool = False
    published: str = ""

    def scaled(self, epochs: int | None) -> TrainOptions:
        """The options with another number of epochs; warm start, growth and quick analysis shrink or grow in proportion.

        Args:
            epochs: passes with the quantizer in place; None: as the file says.

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
        grow = min(epochs - 1, max(1, round(options.grow_epochs * share))) if options.grow_epochs else 0
        return dataclasses.replace(
            options,
            epochs=epochs,
            # One epoch is too short to grow in: then the alphabet is whole from the start.
            grow_epochs=grow,
            warm_start_epochs=max(1, round(options.warm_start_epochs * share)) if options.warm_start_epochs else 0,
            quick_epochs=max(1, round(options.quick_epochs * share)) if options.quick_epochs else 0,
            val_every=min(options.val_every, max(1, epochs - grow)),
        )


def experiment_names() -> tuple[str, ...]:
    """Names of all experiments that come with the package, numbers in them in order of size.

    Example:
        >>> "mnist-none-c32" in experiment_names()
        True
    """
    names = [file.name.removesuffix(".toml") for file in files("ohmq.experiments").iterdir() if ".toml" in file.name]
    return tuple(sorted(names, key=lambda name: [(text, int(n or 0)) for text, n in re.findall(r"(\D+)(\d*)", name)]))


def find_experiments(patterns: Sequence[str]) -> list[Experiment]:
    """Experiments by name, by pattern (``mnist-ohm-*``) or by a TOML file of one's own; in order, each once.

    One that others start from (``start_from``) comes before them, also if it is not asked for.

    Raises:
        ConfigError: a name or pattern that fits nothing, a file that cannot be used, or runs that start from one another.
    """
    found: dict[str, Experiment] = {}
    for pattern in patterns:
        if pattern.endswith(".toml"):
            names = [pattern]
        elif not (names := fnmatch.filter(experiment_names(), pattern)):
            raise ConfigError(f"no experiment {pattern!r}; `ohmq experiments list` shows all")
        for name in names:
            line = [load_experiment(name)]
            while start := line[0].options.start_from:
                if start in (experiment.name for experiment in line):
                    raise ConfigError(f"experiment {start} starts from itself; give one of its line another start_from")
                line.insert(0, load_experiment(start))
            for experiment in line:
                found.setdefault(experiment.name, experiment)
    return list(found.values())


def load_experiment(source: str | Path) -> Experiment:
    """An experiment from its name, or from a TOML file.

    Raises:
        ConfigError: no such experiment; or a file that is no TOML, has unknown keys or lacks some, or values that
            cannot work.
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


def _check_kinds(place: str, found: dict[str, Any], defaults: Any) -> None:
    """Each value must be of the kind of its default; where that is None, an integer."""
    for key, value in found.items():
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
            raise ConfigError(f"{key} in {place} is {value!r}; expected a value of the kind: {kind}")


def _check_keys(place: str, found: Any, known: Iterable[str]) -> None:
    if not isinstance(found, dict):
        raise ConfigError(f"{place} must be a table of keys and values, not {found!r}")
    if unknown := sorted(set(found) - set(known)):
        raise ConfigError(f"unknown keys in {place}: {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def _parse(name: str, content: dict[str, Any]) -> Experiment:
    _check_keys("the file", content, _TOP)
    train = content.get("train", {})
    fields = {field.name for field in dataclasses.fields(TrainOptions)} - {"model", "description", *_OF_THE_MACHINE}
    _check_keys("[train]", train, [*fields, "preset"])
    train = dict(train)
    settings = preset(train.pop("preset")) if "preset" in train else {}
    _check_kinds("[train]", train, TrainOptions())
    if "model" in content:
        model = content["model"]
        _check_keys("[model]", model, model if isinstance(model, dict) else ())  # which are known: config_from_dict
        _check_kinds("[model]", model, FAMILIES.get(model.get("family"), MnistConfig)())
        defaults = FAMILIES[model["family"]]().to_dict() if model.get("family") in FAMILIES else {}
        settings["model"] = config_from_dict(defaults | model)
    if "model" not in settings:
        raise ConfigError("a [model] table with at least its family is missing, or a preset in [train]")
    for key, value in train.items():
        settings[key] = tuple(value) if isinstance(value, list) else value
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
        published=published,
    )
