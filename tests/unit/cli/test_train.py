"""The command `ohmq train`: help, defaults, what is trained, and errors of one line."""

import re
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image
from support.photo_folders import draw_photo, make_photo_folder

from ohmq.cli import main, train
from ohmq.cli.published_train import build_parser, options_from
from ohmq.errors import ConfigError
from ohmq.training.options import PRESETS, TrainOptions
from ohmq.training.sources import DigitSource

MODEL_DEFAULTS = {"quantizer": "ohm", "channels_min": 0, "channels_max": 16, "num_symbols": 256, "prior": "static"}


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, without data but those of the test, outside of any job."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for name in ("OHMQ_DATA", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[TrainOptions]:
    """Collect the options of runs that are not run."""
    runs: list[TrainOptions] = []

    def stand_in(options: TrainOptions, **_: Any) -> Path:
        runs.append(options)
        return Path("last.ckpt")

    monkeypatch.setattr("ohmq.training.run.train", stand_in)
    return runs


def run(*arguments: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", *map(str, arguments)])
    assert (stop.value.code or 0) == code


def test_the_help_shows_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    run("--help")
    shown = " ".join(capsys.readouterr().out.split())
    defaults = {**vars(TrainOptions()), **MODEL_DEFAULTS}
    count = 0
    for option in train.command.params:
        assert isinstance(option, click.Option)
        assert option.help, option.name
        assert option.help[:40] in shown.replace("- ", "-") or option.help[:20] in shown
        found = re.search(r"\[default: (.*)\]", option.help)
        if found and type(defaults.get(option.name or "")) in (int, float, str):
            value = defaults[option.name or ""]
            assert type(value)(found[1]) == value, option.name
            count += 1
        elif option.name in defaults and not found and not option.required:
            assert not defaults[option.name], option.name  # nothing: no text, no limit
    assert count >= 20
    for name in PRESETS:
        assert name in shown.replace("- ", "-")


@pytest.mark.parametrize(
    ("words", "lambdas"),
    [
        ("--lambda-rd 0.99", (0.99, 0.99)),
        ("--lambda-rd=0.99", (0.99, 0.99)),
        ("--lambda-rd 0.95 0.999", (0.95, 0.999)),
        ("--lambda-rd 0.9 --lambda-rd 0.95 --epochs 3", (0.9, 0.95)),
        ("--epochs 3", (0.95, 0.999)),
    ],
)
def test_one_lambda_or_two(
    mnist_folder: Path, options: list[TrainOptions], words: str, lambdas: tuple[float, float]
) -> None:
    run("--data", mnist_folder, *words.split(), "-o", "out")
    assert options[0].lambdas == lambdas


def test_the_data_tell_what_is_trained(
    tmp_path: Path, options: list[TrainOptions], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photo_folder(tmp_path)
    run("--data", photos, "-o", "out", "--epochs", 3)
    assert options[-1] == TrainOptions(
        **{**PRESETS["photo"], "epochs": 3, "data_base_path": photos, "output_dir": Path("out")}
    )
    assert f"photos in {photos / 'openimages'}: training with --preset photo" in capsys.readouterr().err
    monkeypatch.setenv("OHMQ_DATA", str(photos))
    run("-o", "out")
    assert options[-1].model == PRESETS["photo"]["model"]
    run("--preset", "mnist-ohm", "-o", "out")  # a preset has the last word
    assert options[-1].model.family == "mnist"
    monkeypatch.delenv("OHMQ_DATA")
    capsys.readouterr()
    run("-o", "out")  # MNIST can be downloaded
    assert options[-1] == TrainOptions(output_dir=Path("out"))
    assert "digits (MNIST)" in capsys.readouterr().err


def test_photos_may_lie_in_object_storage_and_shards(
    tmp_path: Path, options: list[TrainOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    url = "s3://lake/raw-{000..999}.tar"
    more = ["--data-cache", tmp_path, "--data-cache-bytes", 10**9, "--image-column", "photo"]
    run("--data", url, "-o", "out", *more)
    assert f"photos in {url}: training with --preset photo" in capsys.readouterr().err
    place = {"data_base_path": url, "data_cache": tmp_path, "data_cache_bytes": 10**9, "image_column": "photo"}
    assert options[-1] == TrainOptions(**{**PRESETS["photo"], **place, "output_dir": Path("out")})
    words = ["-data_base_path", url, "-data_cache", tmp_path, "-data_cache_bytes", 10**9, "-image_column", "photo"]
    published = options_from(build_parser().parse_args(list(map(str, words))))
    assert {name: getattr(published, name) for name in place} == place
    assert not place.keys() & options[-1].to_dict().keys()  # places are nobody else's
    run("--data", tmp_path / "*.parquet", "-o", "out")
    assert options[-1].data_base_path == tmp_path / "*.parquet"
    with pytest.raises(ConfigError, match=r"raw-{000..999}\.tar: digits \(MNIST\) are read from a folder"):
        DigitSource(TrainOptions(data_base_path=url))
    run("--data", url, "-o", "out", "--data-cache-bytes", 0, code=1)
    assert "data_cache_bytes is 0; it must be at least 1" in capsys.readouterr().err


def test_digits_and_photos_or_neither_ask_for_a_preset(
    tmp_path: Path, mnist_folder: Path, options: list[TrainOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    run("--data", mnist_folder, "-o", "out")
    assert options[-1].model.family == "mnist"
    draw_photo(mnist_folder / "photos" / "train" / "0.png", 64, 64, 1)
    run("--data", mnist_folder, "-o", "out", code=1)
    error = capsys.readouterr().err
    assert "photos" in error and "digits" in error and "--preset" in error
    assert all(name in error for name in PRESETS)
    (tmp_path / "empty").mkdir()
    run("--data", tmp_path / "empty", "-o", "out", code=1)
    assert "neither photos" in capsys.readouterr().err
    assert len(options) == 1


BAD = {
    "--num-val-samples 0": "num_val_samples is 0; it must be at least 1",
    "--num-train-samples -3": "num_train_samples is -3",
    "--learning-rate nan": "learning_rate is nan",
    "--learning-rate -1": "learning_rate is -1.0",
    "--learning-rate inf": "learning_rate is inf",
    "--learning-rate 1e38": "learning_rate is 1e+38",
    "--clip-norm -1": "clip_norm is -1.0",
    "--clip-norm nan": "clip_norm is nan",
    "--weight-decay -1": "weight_decay is -1.0",
    "--ema-decay nan": "ema_decay is nan",
    "--fraction-power nan": "fraction_power is nan",
    "--lambda-rd nan": "lambda_rd",
    "--lambda-rd 0.9 0.95 0.99": "one or two values, not 3",
    "--batch-size -4": "batch_size is -4",
    "--num-workers -1": "num_workers is -1",
    "--warm-start-epochs -1": "warm_start_epochs is -1",
    "--seed -1": "seed is -1",
    "--seed 4294967296": "seed is 4294967296",
    "--devices foo": "devices is 'foo'",
    "--devices 0": "devices is 0",
    "--devices 99999": "devices is 99999; this machine has",
    "--devices 0,1": "devices is '0,1'",
    "-o file": "file: no folder can be made there",
    "-o file/below": "file/below: no folder can be made there",
    "--ckpt nothing": "no checkpoint nothing",
    "--ckpt file": "file is not a checkpoint",
    "--start-from nothing --refinement --initialisation vector --prior context": "nothing",
    "--test-set nothing": "nothing is no folder",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_options_are_errors_of_one_line(mnist_folder: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    Path("file").write_text("")
    run("--data", mnist_folder, "-o", "out", "--cpu", "--epochs", 1, "--channels-max", 2, *words.split(), code=1)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ohmq: ")]
    assert len(lines) == 1
    assert BAD[words] in lines[0]
    assert not Path("out").exists()  # nothing is left of a run that did not begin


def test_test_sets_are_evaluated_after_training(mnist_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = mnist_folder.parent / "own"
    folder.mkdir()
    for number in range(3):
        Image.new("L", (28, 28), 60 * number).save(folder / f"{number}.png")
    arguments = ["--data", mnist_folder, "-o", "out", "--cpu", "--epochs", 1, "--warm-start-epochs", 1]
    arguments += ["--channels-max", 2, "--num-symbols", 4, "--num-train-samples", 64, "--batch-size", 64]
    run(*arguments, "--test-set", folder, "--test-set", "data/mnist_png/testing", "--test-limit", 2)
    assert "last checkpoint: out/last.ckpt" in capsys.readouterr().out
    for name in ("own", "testing"):
        assert Path(f"out/test_{name}/fraction_1.0000.csv").read_text().count("\n") == 4  # header, two images, the mean
    run(*arguments, "--resume", "--epochs", 3)
    run(*arguments, "--resume", "--epochs", 2, code=1)
    assert "out/last.ckpt has done 3 epochs of the stage train, more than its 2" in capsys.readouterr().err


def test_minutes_take_the_place_of_epochs(
    tmp_path: Path, options: list[TrainOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    photos = ("--preset", "photo", "--data", make_photo_folder(tmp_path), "-o", tmp_path / "run", "--minutes", 3)
    run(*photos)
    run(*photos, "--quick-epochs", 2)
    assert [(o.minutes, o.epochs, o.quick_epochs) for o in options] == [(3.0, 0, 0), (3.0, 0, 2)]
    run(*photos, "--epochs", 4, code=2)
    assert "give one of --epochs and --minutes" in capsys.readouterr().err
    run("--preset", "mnist-ohm", "-o", tmp_path / "run", "--minutes", 3, code=1)
    assert "minutes is for photo models" in capsys.readouterr().err
