"""Experiment files: those of the package are complete, wrong ones are refused."""

import dataclasses
from importlib.resources import files
from math import log2
from pathlib import Path

import pytest
import torch

from ohmq.errors import ConfigError
from ohmq.evaluation.published import published_names
from ohmq.experiments.catalogue import GROUPS, experiment_names, find_experiments, load_experiment
from ohmq.models import MnistConfig
from ohmq.training.fit import ResumeState
from ohmq.training.options import TrainOptions, preset

GRID = [(low, high, c, 16) for low, high in ((0.95, 0.999), (0.9, 0.999), (0.85, 0.9)) for c in (0, 8)]
GRID += [(0.95, 0.999, 0, 8), (0.95, 0.999, 0, 32)]
BASE = "mnist-ohm-c0-16-lambda0.95-0.999"
MINIMAL = 'group = "mnist-grid"\ndescription = "mine"\ntest = "mnist"\n[model]\nfamily = "mnist"\n'


@pytest.mark.parametrize("name", experiment_names())
def test_each_file_is_complete_and_explained(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    assert experiment.group in GROUPS
    text = (files("ohmq.experiments") / f"{name}.toml").read_text()
    assert text.startswith("# ")
    values = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    commented = [line for line in values if "  # " in line]
    assert len(commented) >= len(values) - 4  # group, description and the obvious need no reason
    short = experiment.scaled(1)
    assert (short.epochs, short.grow_epochs, short.val_every) == (1, 0, 1)
    assert short.quick_epochs == min(experiment.options.quick_epochs, 1)
    assert experiment.scaled(None) == experiment.options


@pytest.mark.parametrize("quantizer", ["ohm", "integer"])
@pytest.mark.parametrize(("low", "high", "least", "most"), GRID)
def test_the_published_grid(quantizer: str, low: float, high: float, least: int, most: int) -> None:
    experiment = load_experiment(f"mnist-{quantizer[:3]}-c{least}-{most}-lambda{low}-{high}")
    options = experiment.options
    assert options.lambdas == (low, high)
    model = options.model
    assert (model.quantizer, model.channels_min, model.channels_max) == (quantizer, least, most)
    assert model.num_symbols == 256
    has_curve = quantizer == "ohm" and most == 16
    assert experiment.published == (experiment.name if has_curve else "")
    recipe = TrainOptions(**preset(f"mnist-{quantizer[:3]}"))
    assert options.schedule == recipe.schedule
    assert options.batch_size == 256
    assert options.learning_rate == (2e-3 if (quantizer, least) == ("ohm", 8) else recipe.learning_rate)
    start = {BASE: "", BASE.replace("c0", "c8"): BASE}.get(experiment.name, BASE.replace("c0", f"c{least}"))
    if quantizer == "ohm" and start:
        epochs = 66 if start == BASE and least == 8 else 24 if least == 8 else 12
        assert (options.start_from, options.epochs) == (start, epochs)
    else:
        assert (options.start_from, options.epochs) == ("", 66)


@pytest.mark.parametrize("channels", [8, 16, 32])
def test_the_published_training_is_that_of_train_py(channels: int) -> None:
    """A checkpoint that train.py wrote is one of this experiment, of any number of epochs."""
    experiment = load_experiment(f"mnist-published-c0-{channels}-lambda0.95-0.999")
    model = MnistConfig(channels_min=0, channels_max=channels, quantizer="ohm", prior="static")
    recorded = TrainOptions(
        model=model,
        lambdas=(0.95, 0.999),
        epochs=1000,
        batch_size=512,
        learning_rate=1e-3,
        weight_decay=1e-5,
        initialisation="published",
        log_interval=1000,
        description=experiment.name,
    ).to_dict()
    assert experiment.options.to_dict() | {"log_interval": 1000, "description": experiment.name} == recorded
    for epochs in (1, 300, 1200):
        scaled = experiment.scaled(epochs)
        assert scaled.to_dict() == experiment.options.to_dict() | {"epochs": epochs}
    assert experiment.group == "mnist-published"


def test_a_checkpoint_of_a_thousand_epochs_is_resumed_as_one_of_three_hundred(tmp_path: Path) -> None:
    experiment = load_experiment("mnist-published-c0-16-lambda0.95-0.999")
    options = experiment.options
    record = {"format": 1, "stage": "train", "options": options.to_dict() | {"warm_start_epochs": 7}, "seconds": 5.0}
    torch.save(
        {"ohmq": record}, tmp_path / "last.ckpt"
    )  # the options of a warm start that did not happen do not matter
    assert ResumeState.read(tmp_path / "last.ckpt", experiment.scaled(300)).seconds == 5.0
    with pytest.raises(ConfigError, match="batch_size was 512, now 256"):
        ResumeState.read(tmp_path / "last.ckpt", dataclasses.replace(experiment.scaled(300), batch_size=256))
    record["options"] |= {"initialisation": "scalar"}
    torch.save({"ohmq": record}, tmp_path / "last.ckpt")
    warm = dataclasses.replace(options, initialisation="scalar", warm_start_epochs=2)
    with pytest.raises(ConfigError, match="warm_start_epochs was 7, now 2"):
        ResumeState.read(tmp_path / "last.ckpt", warm)


@pytest.mark.parametrize("channels", [8, 16, 32])
def test_twins_have_equal_budgets(channels: int) -> None:
    """OHM with either prior and integer rounding: as many epochs in all, a warm start of the same batches."""
    ohm, static, twin = (
        load_experiment(f"mnist-{kind}-c0-{channels}-lambda0.95-0.999").options
        for kind in ("ohm", "ohm-static", "int-warm")
    )
    assert (ohm.model.prior, static.model.prior, twin.model.quantizer) == ("context", "static", "integer")
    base = load_experiment(BASE).options

    def budget(options: TrainOptions) -> tuple[int, int]:
        first = base if options.start_from else options
        before = base.epochs - base.grow_epochs if options.start_from else 0
        return first.warm_start_epochs, before + options.epochs

    assert budget(ohm) == budget(static) == budget(twin) == (25, 66 if channels == 16 else 72)
    assert twin.warm_starts
    assert not twin.starts_as_codec
    assert (twin.warm_start_batch_size, twin.warm_start_learning_rate) == (128, 3e-3)
    assert (twin.batch_size, twin.lambdas, twin.fraction_power) == (ohm.batch_size, ohm.lambdas, ohm.fraction_power)


def test_presets_of_shipped_models_are_experiments() -> None:
    assert load_experiment("mnist-ohm-c0-16-lambda0.95-0.999").options == TrainOptions(**preset("mnist-ohm"))
    assert load_experiment("mnist-int-c0-16-lambda0.95-0.999").options == TrainOptions(**preset("mnist-int"))
    assert load_experiment("photo").options == TrainOptions(**preset("photo"))


def test_fixed_rate_experiments_span_the_range_of_rates() -> None:
    fixed = find_experiments(["mnist-fixed-*"])
    rates = []
    for experiment in fixed:
        model = experiment.options.model
        assert experiment.fixed_rate
        assert model.channels_min == model.channels_max
        assert {model.channels_max} <= {2, 4, 8, 16}
        assert {model.num_symbols} <= {4, 16, 64, 256}
        rates.append(9 * model.channels_max * log2(model.num_symbols) / 784)
        assert f"{rates[-1]:.3f} bpp" in experiment.description
    assert rates == sorted(rates)
    assert rates[0] < 0.05
    assert rates[-1] > 1.4
    variable = find_experiments(["mnist-variable-*"])
    assert all(e.options.lambdas[0] == e.options.lambdas[1] and not e.fixed_rate for e in variable)
    assert all(e.options.model.channels_min == e.options.model.channels_max for e in variable)


def test_openimages_runs_are_as_published() -> None:
    for quantizer, channels in (("ohm", 480), ("integer", 480), ("integer", 960)):
        options = load_experiment(f"openimages-{quantizer[:3]}-c0-{channels}").options
        assert (options.model.quantizer, options.model.channels_max) == (quantizer, channels)
        assert (options.epochs, options.batch_size, options.learning_rate, options.crop_size) == (10, 32, 1e-4, 256)
        assert (options.lambdas, options.initialisation, options.weight_decay) == ((0.95, 0.999), "published", 1e-5)


def test_scaling_keeps_proportions() -> None:
    experiment = load_experiment(BASE)
    half = experiment.scaled(33)
    assert (half.epochs, half.grow_epochs, half.warm_start_epochs, half.val_every) == (33, 3, 12, 5)
    assert experiment.scaled(2).grow_epochs == 1
    for name in ("mnist-int-c0-16-lambda0.95-0.999", "mnist-ohm-c0-8-lambda0.95-0.999"):  # no warm start of their own
        unused = load_experiment(name)
        assert unused.scaled(1).warm_start_epochs == unused.options.warm_start_epochs
    with pytest.raises(ConfigError, match="at least 1"):
        experiment.scaled(0)


def test_names_patterns_and_files(tmp_path: Path) -> None:
    assert [e.name for e in find_experiments(["photo", "mnist-none-*", "photo"])] == ["photo", "mnist-none-c32"]
    assert len(find_experiments(["*"])) == len(experiment_names())
    others = ["mnist-ohm-c0-8-lambda0.95-0.999", "mnist-ohm-c8-16-lambda0.85-0.9"]
    middle = "mnist-ohm-c8-16-lambda0.95-0.999"
    assert [e.name for e in find_experiments(others)] == [BASE, others[0], middle, others[1]]  # predecessors come first
    (tmp_path / "own.toml").write_text(MINIMAL)
    (own,) = find_experiments([str(tmp_path / "own.toml")])
    assert (own.name, own.options) == ("own", TrainOptions())
    again = (files("ohmq.experiments") / f"{middle}.toml").read_text().replace(BASE, middle)
    (tmp_path / f"{middle}.toml").write_text(again)
    with pytest.raises(ConfigError, match="starts from itself"):
        find_experiments([str(tmp_path / f"{middle}.toml")])
    for name in ("nothing", "nothing-*"):
        with pytest.raises(ConfigError, match="experiments list"):
            find_experiments([name])
    with pytest.raises(ConfigError, match="cannot be read"):
        find_experiments([str(tmp_path / "missing.toml")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lamda = 1\n" + MINIMAL, r"unknown keys in the file: lamda; known: .*published"),
        (MINIMAL + "channels = 4\n", r"unknown keys in the mnist configuration: channels; known: .*channels_max"),
        (MINIMAL + "[train]\nlr = 0.1\n", r"unknown keys in \[train\]: lr; known: .*learning_rate"),
        (MINIMAL + "[train]\noutput_dir = 'x'\n", r"unknown keys in \[train\]: output_dir"),
        (MINIMAL + "[train]\nepochs = 'many'\n", r"epochs in \[train\] is 'many'; expected .* whole number"),
        (MINIMAL + "[train]\nlambdas = 0.9\n", "expected .* list of numbers"),
        (MINIMAL + "[train]\nlambdas = [0.9]\n", "lambdas .* needs two"),
        (MINIMAL + "refinement = 1\n", r"refinement in \[model\] is 1; expected .* true or false"),
        (MINIMAL + "channels_max = 2.5\n", "expected .* whole number"),
        (MINIMAL + "[train]\nepochs = 0\n", "epochs is 0; it must be at least 1"),
        (MINIMAL + "[train]\npreset = 'best'\n", "no preset 'best'; choose one of mnist-ohm"),
        (MINIMAL.replace("mnist-grid", "grid"), "group is 'grid'; choose one of mnist-grid"),
        (MINIMAL.replace('test = "mnist"', 'test = "kodak"'), "test is 'kodak'; choose 'mnist' or 'photos'"),
        (MINIMAL.replace('test = "mnist"\n', ""), "keys missing: test"),
        (MINIMAL.replace('family = "mnist"', 'family = "mnst"'), "unknown model family 'mnst'"),
        ("published = 'kodak-hevc'\n" + MINIMAL, f"known curves: {published_names()[0]}"),
        ("fixed_rate = true\n" + MINIMAL + "quantizer = 'integer'\n", "fixed_rate needs quantizer 'ohm'"),
        ("fixed_rate = 'yes'\n" + MINIMAL, "choose true or false"),
        (MINIMAL.partition("[model]")[0], r"a \[model\] table"),
        (MINIMAL.replace("[model]", "[model"), "experiment own: "),
        (
            MINIMAL + "refinement = true\n[train]\ninitialisation = 'vector'\nstart_from = 'mine'\n",
            "start_from is 'mine'",
        ),
        (MINIMAL + "[train]\nstart_from = 'photo'\n", "for digits with OHM and residual quantization"),
        ("model = 3\n", r"\[model\] must be a table"),
    ],
)
def test_a_wrong_file_is_refused_with_a_remedy(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_experiment(tmp_path / "own.toml")
