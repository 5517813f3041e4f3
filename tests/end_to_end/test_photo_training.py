"""Training of photo models through the command line and the Python interface, on drawn photos."""

import csv
import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.photo_folders import draw_photo, make_photo_folder
from support.photo_shards import photo_bytes, write_tar

import ohmq.training.clock
from ohmq.cli import main
from ohmq.errors import ConfigError
from ohmq.loading import load
from ohmq.metrics import psnr_db
from ohmq.models import PhotoConfig
from ohmq.training import module
from ohmq.training.options import TrainOptions, preset
from ohmq.training.photo.distill_analysis import DISTILLED_CHANNELS
from ohmq.training.photo.module import PhotoModule
from ohmq.training.run import train


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data folder of drawn photos."""
    return make_photo_folder(tmp_path)


def test_train_export_compress_and_decompress(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ohmq", "train", "--preset", "photo", "--data", str(photos), "-o", "run", "--cpu"]
    command += ["--epochs", "2", "--batch-size", "3", "--crop-size", "64", "--val-every", "1", "--log-interval", "1"]
    command += ["--quick-epochs", "1"]
    completed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert completed.returncode == 0, completed.stderr
    assert "small.png" in completed.stderr
    assert "broken.jpg" in completed.stderr
    assert "notes.txt" not in completed.stderr
    header = (tmp_path / "run" / "logs_train" / "metrics.csv").read_text().splitlines()[0]
    assert {"train_loss", "val_loss", "val_bd_rate_jpeg"} <= set(header.split(","))
    again = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stderr
    other = subprocess.run([*command, "--resume", "--seed", "4"], cwd=tmp_path, capture_output=True, text=True)
    assert other.returncode == 1
    assert "seed was 0, now 4" in other.stderr

    source = tmp_path / "image.png"
    draw_photo(source, 100, 77, 40)
    model, coded, decoded = (tmp_path / name for name in ("photo.safetensors", "p.ohm", "p.png"))
    for arguments in (
        ["export", tmp_path / "run" / "last.ckpt", "-o", model],
        ["compress", source, "-o", coded, "-m", model],
        ["decompress", coded, "-o", decoded, "-m", model],
        ["evaluate", source, "-m", model, "--against", "jpeg"],
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        assert stop.value.code == 0, arguments
    codec = load(model)
    assert len(codec.cut_points) >= 12
    with Image.open(source) as original, Image.open(decoded) as back:
        assert back.size == original.size
        error = np.square(np.asarray(back, float) - np.asarray(original, float)).mean()
    assert 10 * np.log10(255**2 / error) > 26


def test_folders_without_usable_photos_are_refused(tmp_path: Path) -> None:
    options = {**preset("photo"), "output_dir": tmp_path / "run", "cpu": True, "crop_size": 64}
    with pytest.raises(ConfigError, match="openimages/train"):
        train(TrainOptions(**options, data_base_path=tmp_path))
    folder = tmp_path / "photos" / "train"
    folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match="no images"):
        train(TrainOptions(**options, data_base_path=tmp_path))
    (folder / "broken.png").write_bytes(b"no")
    with pytest.raises(ConfigError, match="no usable photo"):
        train(TrainOptions(**options, data_base_path=tmp_path))
    draw_photo(folder / "small.png", 63, 300, 0)
    with pytest.raises(ConfigError, match="at least 64 pixels"):
        train(TrainOptions(**options, data_base_path=tmp_path))
    for crop in (100, 16):
        with pytest.raises(ConfigError, match="multiple of 16"):
            TrainOptions(**{**options, "crop_size": crop})


def test_two_processes_have_the_same_loss_as_one(photos: Path, tmp_path: Path) -> None:
    losses = {}
    for name, more in (("one", []), ("two", ["--devices", "2"])):
        command = [sys.executable, "-m", "ohmq", "train", "--preset", "photo", "--data", str(photos), "-o", name]
        command += ["--cpu", "--epochs", "1", "--batch-size", "2", "--crop-size", "64", "--log-interval", "1", *more]
        command += ["--precision", "float32", "--quick-epochs", "1"]
        completed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
        assert completed.returncode == 0, completed.stderr
        with (tmp_path / name / "logs_train" / "metrics.csv").open() as file:
            losses[name] = [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]
        losses[name] += logged(tmp_path / name, "train_mse", "quick_analysis")
    assert len(losses["one"]) == 6
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-4)


def children(process: int) -> set[int]:
    listed = Path(f"/proc/{process}/task/{process}/children")
    return set(map(int, listed.read_text().split())) if listed.exists() else set()


def is_running(process: int) -> bool:
    """Tell whether a process has not ended; one that ended stays in /proc until its new parent asks for its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_processes_that_read_photos_end_with_the_run(photos: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "ohmq", "train", "--data", str(photos), "-o", "run", "--cpu", "--num-workers", "2"]
    command += [
        "--epochs",
        "500",
        "--batch-size",
        "2",
        "--crop-size",
        "64",
        "--quick-epochs",
        "0",
        "--val-every",
        "500",
    ]
    command += ["--channels-max", "40"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = children(process.pid)
    assert len(workers) == 2, (tmp_path / "log").read_text()
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)  # as a terminal and a scheduler do: all processes of the run
    code = process.wait(100)
    output = (tmp_path / "log").read_text()
    assert code == (-number if number == signal.SIGKILL else 128 + number), output
    assert "Traceback" not in output
    if number != signal.SIGKILL:
        assert f"{number.name}: checkpoint written" in output
    deadline = time.monotonic() + 60
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, workers))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning warns about processes and folders
def test_weights_do_not_depend_on_the_processes_that_read_photos(photos: Path, tmp_path: Path) -> None:
    (photos / "openimages" / "validation" / "cut.png").write_bytes(
        (photos / "openimages" / "validation" / "0.png").read_bytes()[:300]
    )
    alone = torch.load(train(small_run(photos, tmp_path / "alone", num_workers=0)), weights_only=False)
    shared = torch.load(train(small_run(photos, tmp_path / "shared", num_workers=2)), weights_only=False)
    assert all(torch.equal(value, shared["state_dict"][key]) for key, value in alone["state_dict"].items())


def small_run(photos: Path, output: Path, **changes: object) -> TrainOptions:
    model = PhotoConfig(
        channels_max=40, latent_channels=24, wide=8, wider=12, context_hidden=8, context_projection=4,
        analysis_blocks=(1, 2), synthesis_blocks=(0, 1), neighbour_hidden=0,
    )  # fmt: skip
    settings = {"crop_size": 64, "batch_size": 2, "epochs": 2, "val_every": 1, "log_interval": 1, "cpu": True}
    settings |= {"data_base_path": photos, "output_dir": output, "model": model, "quick_epochs": 0, **changes}
    return TrainOptions(**{**preset("photo"), **settings})  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning warns about processes and folders
def test_a_run_on_shards_resumes_exactly_with_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caplog.set_level("INFO")

    def shard(number: int, first: int) -> None:
        photos = [(f"{place}.png", photo_bytes(first + place, 80, 70)) for place in range(3)]
        write_tar(tmp_path / "lake" / f"raw-{number}.tar", photos)

    for number in range(3):
        shard(number, 10 * number)
    source = tmp_path / "lake" / "raw-{0..2}.tar"
    whole = train(small_run(source, tmp_path / "whole", schedule="constant", num_workers=2))
    assert f"8 photos from {source}, 1 from its held-out part, read by 2 processes" in caplog.text
    half = train(small_run(source, tmp_path / "half", schedule="constant", num_workers=1, epochs=1))
    resumed = train(small_run(source, tmp_path / "half", schedule="constant", num_workers=0), resume=half)
    expected, weights = (torch.load(path, weights_only=False)["state_dict"] for path in (whole, resumed))
    assert all(torch.equal(value, weights[key]) for key, value in expected.items())
    shard(1, 50)
    with pytest.raises(
        ConfigError, match=r"was trained on other data \(8 photos, index .*resume with the data as they were"
    ):
        train(small_run(source, tmp_path / "half", schedule="constant", epochs=3), resume=resumed)


def logged(folder: Path, column: str, stage: str = "train") -> list[float]:
    with (folder / f"logs_{stage}" / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning warns about processes and folders
def test_training_in_bfloat16_is_close_to_float32(photos: Path, tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        last = train(small_run(photos, tmp_path / precision, precision=precision))
        losses[precision] = logged(tmp_path / precision, "train_loss")
        weights = torch.load(last, weights_only=False)["state_dict"]
        assert {value.dtype for key, value in weights.items() if "transform" in key} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    with pytest.raises(ConfigError, match="precision is 'half'"):
        small_run(photos, tmp_path, precision="half")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning warns about processes and folders
def test_a_diverging_run_stops_and_resumes_with_a_smaller_learning_rate(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCHED_STEPS", 4)  # an epoch has 3
    monkeypatch.setattr(PhotoModule, "DIVERGED", 1.0)  # every mean that is not a new least
    with pytest.raises(
        ConfigError, match=r"diverged at step \d+: the mean loss of 4 steps rose.*smaller learning rate"
    ):
        train(small_run(photos, tmp_path / "run", epochs=30, learning_rate=0.5))
    monkeypatch.undo()
    last = tmp_path / "run" / "last.ckpt"
    contents = torch.load(last, weights_only=False)
    epochs = contents["epoch"] + 2
    del contents["ohmq"]["options"]["only"]  # as written by a release without this option
    torch.save(contents, last)
    resumed = train(small_run(photos, tmp_path / "run", epochs=epochs, learning_rate=1e-3), resume=last)
    saved = torch.load(resumed, weights_only=False)
    assert max(saved["lr_schedulers"][0]["base_lrs"]) == pytest.approx(5e-3)
    assert max(group["lr"] for group in saved["optimizer_states"][0]["param_groups"]) <= 5e-3


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning warns about processes and folders
def test_training_from_a_smaller_model_keeps_its_channels(photos: Path, tmp_path: Path) -> None:
    first = small_run(photos, tmp_path / "first")
    last = train(first)
    before = load(last)
    more = dataclasses.replace(
        first.model, channels_max=52, analysis_blocks=(2, 2), synthesis_blocks=(1, 3), neighbour_hidden=3
    )
    options = dataclasses.replace(first, model=more, start_from=str(last), learning_rate=1e-12)
    after = load(train(dataclasses.replace(options, output_dir=tmp_path / "second")))
    config, old_config = after.config, before.config
    assert isinstance(config, PhotoConfig)
    assert config.group_sizes[: len(old_config.group_sizes)] == old_config.group_sizes
    assert (sum(config.group_sizes), sum(config.group_sizes[len(old_config.group_sizes) :])) == (52, 12)
    assert config.cut_points == (*old_config.cut_points, 52)
    assert (config.analysis_blocks, config.synthesis_blocks, config.neighbour_hidden) == ((2, 2), (1, 3), 3)
    with Image.open(photos / "openimages" / "train" / "0.png") as image:
        files = [codec.compress(image, channels=40) for codec in (before, after)]
        old, new = (codec.decompress(file) for codec, file in zip((before, after), files, strict=True))
        assert psnr_db(np.asarray(old), np.asarray(new)) > 50  # the first channels are as they were
        assert len(files[0]) == pytest.approx(len(files[1]), abs=8)
        best = after.decompress(after.compress(image, channels=52))
        assert psnr_db(np.asarray(best), np.asarray(image)) > psnr_db(np.asarray(new), np.asarray(image))
    only = dataclasses.replace(options, only="prior.neighbours", ema_decay=0.0)
    trained, still = (
        load(train(dataclasses.replace(only, output_dir=tmp_path / str(rate), learning_rate=rate))).frozen.tensors
        for rate in (0.5, 1e-12)
    )
    moved = {name for name in trained if not np.array_equal(trained[name], still[name])}
    assert moved >= {"prior.neighbour.weight", "prior.neighbour.out"}
    assert moved <= {  # rounded together with those weights
        f"prior.{name}" for name in ("neighbour.weight", "neighbour.bias", "neighbour.out", "own", "spatial")
    }
    for changed, message in (
        ({"only": "priors"}, "no parameter that is trained begins so; the parts are analysis_transform"),
        ({"model": dataclasses.replace(more, wide=12)}, "another configuration: wide is 8, not 12"),
        ({"model": dataclasses.replace(more, channels_max=39)}, "--channels-max 40 keeps them all"),
        (
            {"model": dataclasses.replace(more, analysis_blocks=(0, 9))},
            r"analysis_blocks is \(1, 2\), more than \(0, 9\)",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            train(dataclasses.replace(options, output_dir=tmp_path / "third", **changed))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning warns about processes and folders
def test_training_from_a_model_of_other_photos(photos: Path, tmp_path: Path) -> None:
    last = train(small_run(photos, tmp_path / "first"))
    rng = np.random.default_rng(8)
    for path in (photos / "openimages").rglob("*.png"):
        noise = rng.integers(0, 256, (80, 96, 3), np.uint8)  # its coefficients come in another order
        (tmp_path / "noise" / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "noise" / path.parent.name / path.name)
    options = small_run(tmp_path / "noise", tmp_path / "second", start_from=str(last))
    assert load(train(options)).config == load(last).config
    assert load(train(small_run(tmp_path / "noise", tmp_path / "third"))).config != load(last).config
    more = dataclasses.replace(options.model, channels_max=52)
    with pytest.raises(ConfigError, match="give the photos that it was trained on"):
        train(dataclasses.replace(options, model=more, output_dir=tmp_path / "fourth"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning warns about processes and folders
def test_a_distilled_analysis_learns_the_latents_of_the_full_one(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = small_run(
        photos, tmp_path / "run", epochs=1, quick_epochs=12, val_every=13, learning_rate=4e-3, ema_decay=0.5
    )
    last = train(options)
    full, distilled = load(tmp_path / "run" / "train.ckpt"), load(last)
    assert isinstance(full.config, PhotoConfig)
    assert distilled.config == dataclasses.replace(
        full.config, distilled_channels=DISTILLED_CHANNELS, analysis_blocks=(0, 2)
    )
    assert distilled.frozen.provenance["stage"] == "quick_analysis"
    tensors = distilled.frozen.tensors
    changed = [name for name, value in full.frozen.tensors.items() if not np.array_equal(value, tensors.get(name))]
    assert changed and all(name.startswith("analysis_transform.path") for name in changed)
    errors = logged(tmp_path / "run", "train_mse", "quick_analysis")
    assert sum(errors[-4:]) < 0.7 * sum(errors[:4])
    with Image.open(photos / "openimages" / "train" / "0.png") as image:
        assert distilled.decompress(distilled.compress(image)).size == image.size

    # The same in two runs, the second from the checkpoint of the first stage; then a resumed run.
    alone = {**dataclasses.asdict(options), "model": options.model, "start_from": str(tmp_path / "run" / "train.ckpt")}
    alone |= {"epochs": 0, "output_dir": tmp_path / "alone"}
    again = load(train(TrainOptions(**alone))).frozen.tensors
    path = [name for name in tensors if name.startswith("analysis_transform.path")]
    assert path and all(
        np.allclose(again[name], tensors[name], atol=2e-3) for name in path
    )  # it was rounded in between
    contents = torch.load(last, weights_only=False)
    resumed = dataclasses.replace(options, quick_epochs=13)
    more = torch.load(train(resumed, resume=last), weights_only=False)
    assert more["epoch"] == contents["epoch"] + 1
    kept = [name for name in contents["state_dict"] if name.startswith("deep.")]
    assert kept and all(torch.equal(more["state_dict"][name], contents["state_dict"][name]) for name in kept)

    # The checkpoint of the first stage stays; options that contradict the checkpoint are refused.
    first, contents_before = tmp_path / "run" / "train.ckpt", (tmp_path / "run" / "train.ckpt").read_bytes()
    shorter = load(train(dataclasses.replace(options, quick_epochs=1), resume=first))
    assert isinstance(shorter.config, PhotoConfig) and shorter.config.distilled_channels == DISTILLED_CHANNELS
    assert first.read_bytes() == contents_before
    for longer, message in (
        (
            dataclasses.replace(options, epochs=2),
            r"after the 1 epoch of the first stage: to make these 2, name .*train.ckpt",
        ),
        (
            dataclasses.replace(options, quick_epochs=0),
            r"has a distilled analysis: to go on without one, name .*train.ckpt",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            train(longer, resume=last)
    partly = dataclasses.replace(options, only="prior", output_dir=tmp_path / "prior")
    assert load(train(partly)).config == full.config
    with pytest.raises(ConfigError, match="no analysis is distilled then"):
        train(TrainOptions(**{**alone, "only": "prior"}))
    onward = dataclasses.replace(options, quick_epochs=1, start_from=str(first), output_dir=tmp_path / "onward")
    train(onward)
    with pytest.raises(ConfigError, match="before the analysis was distilled: with 0 epochs"):
        train(dataclasses.replace(onward, epochs=0), resume=tmp_path / "onward" / "train.ckpt")

    with caplog.at_level("INFO"):
        trained = load(train(dataclasses.replace(options, start_from=str(last), output_dir=tmp_path / "third")))
    assert "has a distilled analysis already" in caplog.text
    assert trained.config == distilled.config
    with pytest.raises(ConfigError, match="distilled analysis already: with 0 epochs"):
        train(TrainOptions(**{**alone, "start_from": str(last), "output_dir": tmp_path / "fourth"}))
    for changes, message in (
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"quick_epochs": -1}, "quick_epochs is -1"),
        ({"model": preset("photo-int")["model"]}, "photo models with the OHM quantizer; set --quick-epochs 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(options, **changes)


def test_export_fits_or_copies_a_post_filter(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return int(stop.value.code or 0)

    model = Path(__file__).parents[1] / "golden" / "photo.safetensors"
    fitted = tmp_path / "fitted.safetensors"
    folder = photos / "openimages"
    assert run("export", model, "-o", fitted, "--filters", folder, "--filter-photos", 4) == 0
    assert "broken.jpg" in caplog.text
    shown = capsys.readouterr()
    assert "fitting filters: 4 of 4" in shown.err or shown.err == ""  # a line every half minute
    plain, codec = load(model), load(fitted)
    assert codec.model_id.hex() in shown.out and codec.model_id == plain.model_id  # filters change no symbol
    assert codec.frozen.transforms_id.hex() in shown.out
    assert codec.frozen.transforms_id != plain.frozen.transforms_id
    assert codec.frozen.provenance["filters"]["photos"] == 4
    image = Image.open(folder / "train" / "2.png")
    before, after = (psnr_db(np.asarray(image), np.asarray(c.decompress(c.compress(image)))) for c in (plain, codec))
    assert after > before + 0.05

    copied = tmp_path / "copied.safetensors"  # from a model with the same transforms
    assert run("export", model, "-o", copied, "--filters", fitted) == 0
    assert load(copied).frozen.transforms_id == codec.frozen.transforms_id
    assert load(copied).frozen.provenance["filters"] == codec.frozen.provenance["filters"]

    kept = fitted.read_bytes()
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    digits = Path(__file__).parents[1] / "golden" / "static.safetensors"
    for arguments, code, words in (
        ((model, "-o", fitted, "--filters", folder), 1, "exists"),
        ((model, "--onnx", tmp_path / "onnx", "--filters", folder), 2, "give -o"),
        ((model, "-o", tmp_path / "n.safetensors", "--filters", tmp_path / "nothing"), 1, "nothing"),
        ((model, "-o", tmp_path / "n.safetensors", "--filters", model), 1, "has no filters"),
        ((model, "-o", tmp_path / "n.safetensors", "--filters", "photo"), 1, "photo decodes in another way"),
        ((model, "-o", tmp_path / "n.safetensors", "--filters", tmp_path / "empty"), 1, "empty"),
        ((model, "-o", tmp_path / "n.safetensors", "--filters", folder, "--filter-photos", 0), 2, "filter-photos"),
        ((digits, "-o", tmp_path / "n.safetensors", "--filters", folder), 1, "no photo model"),
    ):
        assert run("export", *arguments) == code, arguments
        assert words in capsys.readouterr().err, arguments
    assert fitted.read_bytes() == kept
    assert not (tmp_path / "n.safetensors").exists() and not (tmp_path / "onnx").exists()


@pytest.mark.filterwarnings("ignore:.*exists and is not empty")
def test_an_experiment_fits_a_post_filter(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.toml").write_text(
        """group = "photos"
description = "tiny"
test = "photos"
[model]
family = "photo"
channels_max = 24
latent_channels = 12
num_symbols = 9
wide = 8
wider = 12
context_projection = 3
context_hidden = 5
prior = "context"
refinement = true
[train]
epochs = 1
batch_size = 3
crop_size = 64
warm_start_epochs = 0
"""
    )
    images = photos / "openimages" / "validation"
    arguments = [tmp_path / "tiny.toml", "--data", photos, "--images", images, "-o", tmp_path / "out", "--cpu"]
    with pytest.raises(SystemExit) as stop:
        main(["experiments", "run", *map(str, arguments)])
    assert stop.value.code == 0, capsys.readouterr().err
    frozen = load(tmp_path / "out" / "runs" / "tiny" / "tiny.safetensors").frozen
    assert frozen.provenance["filters"]["photos"] == 7  # the small one too
    result = (tmp_path / "out" / "results" / "tiny" / "rate_distortion.json").read_text()
    assert f'"model_id": "{frozen.model_id.hex()}"' in result


class FakeTime:
    """A clock on which each training step takes a second, and all else next to nothing."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1e-9
        return self.now

    def tick(self, step: Callable[..., None]) -> Callable[..., None]:
        def timed(*args: Any, **kwargs: Any) -> None:
            step(*args, **kwargs)
            self.now += 1

        return timed


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(ohmq.training.clock, "time", clock)
    monkeypatch.setattr(PhotoModule, "optimizer_step", clock.tick(PhotoModule.optimizer_step))
    return clock


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning warns about processes and folders
def test_training_by_the_clock_equals_training_by_steps(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_time: FakeTime
) -> None:
    rate_factor = module._rate_factor  # both with the same shape and without a warm-up
    monkeypatch.setattr(module, "_rate_factor", lambda progress, *_: rate_factor(progress, 1.0, 0.5, 1.0))
    by_steps = train(small_run(photos, tmp_path / "steps", epochs=4, val_every=4))  # 4 epochs of 3 steps
    timed = {"epochs": 0, "minutes": 0.2}
    by_clock = train(small_run(photos, tmp_path / "clock", **timed))
    expected, found = (torch.load(path, weights_only=False) for path in (by_steps, by_clock))
    assert found["global_step"] == expected["global_step"] == 12
    assert found["ohmq"]["trained_seconds"] == pytest.approx(12, abs=1e-3)
    for name, value in expected["state_dict"].items():
        assert torch.allclose(found["state_dict"][name], value, rtol=1e-4, atol=1e-6), name
    exported = load(tmp_path / "clock" / "model.safetensors")
    assert exported.model_id == load(by_clock).model_id
    assert len(logged(tmp_path / "clock", "val_loss")) == 4

    # A run that is stopped in the middle of an epoch goes on at the learning rate of its time.
    steps, stop_at = 0, 5
    monkeypatch.setattr(ohmq.training.clock, "SECONDS_BETWEEN_CHECKPOINTS", 0.5)

    def interrupt(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(PhotoModule, "on_before_optimizer_step", interrupt)
    with pytest.raises(SystemExit):
        train(small_run(photos, tmp_path / "stopped", **timed))
    last = tmp_path / "stopped" / "last.ckpt"
    assert torch.load(last, weights_only=False)["ohmq"]["trained_seconds"] == pytest.approx(5, abs=1e-3)
    resumed = torch.load(train(small_run(photos, tmp_path / "stopped", **timed), resume=last), weights_only=False)
    assert resumed["global_step"] == 12 and steps == 12
    for name, value in expected["state_dict"].items():
        assert torch.allclose(resumed["state_dict"][name], value, rtol=1e-4, atol=1e-6), name
    train(small_run(photos, tmp_path / "stopped", **timed), resume=last)  # it has ended: nothing is left to do
    assert steps == 12
    with pytest.raises(ConfigError, match=r"minutes was 0.2, now 0.0"):
        train(small_run(photos, tmp_path / "stopped"), resume=last)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 3.0}, "epochs is 2 and minutes 3: one of them must be 0"),
        ({"minutes": -1.0}, "minutes is -1.0"),
        ({"minutes": math.inf, "epochs": 0}, "minutes is inf"),
        ({"minutes": 3.0, "epochs": 0, "only": "decoders", "start_from": "photo"}, "not for their decoders"),
        ({"minutes": 3.0, "epochs": 0, "model": preset("mnist-ohm")["model"]}, "minutes is for photo models"),
    ],
)
def test_minutes_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_run(tmp_path, tmp_path, **changes)
