"""Training of the photo codec, run as a user would, on pictures that the test draws."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohmq.cli import main
from ohmq.datasets.photos import CropLoader, photo_files, photo_folder
from ohmq.errors import ConfigError
from ohmq.loading import load
from ohmq.metrics import psnr_db
from ohmq.models import PhotoConfig
from ohmq.training.options import TrainOptions, preset
from ohmq.training.photo import module as photo
from ohmq.training.photo.distill_analysis import DISTILLED_CHANNELS
from ohmq.training.run import train


def draw(path: Path, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 30
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
    pixels = 128 + 60 * np.stack(waves, -1) + 40 * np.sign(waves[1])[..., None]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of drawn photos: 6 to train on, 2 to validate, and what a real folder also holds."""
    for number in range(6):
        draw(tmp_path / "data" / "openimages" / "train" / f"{number}.png", 90, 110, number)
    for number in range(2):
        draw(tmp_path / "data" / "openimages" / "validation" / f"{number}.png", 80, 64, 20 + number)
    draw(tmp_path / "data" / "openimages" / "train" / "small.png", 20, 200, 9)
    (tmp_path / "data" / "openimages" / "train" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "data" / "openimages" / "train" / "notes.txt").write_text("no photo")
    return tmp_path / "data"


def test_from_photos_to_a_file_and_back(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ohmq", "train", "--preset", "photo", "--data", str(photos), "-o", "run", "--cpu"]
    command += ["--epochs", "2", "--batch-size", "3", "--crop-size", "64", "--val-every", "1", "--log-interval", "1"]
    command += ["--quick-epochs", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "small.png" in done.stderr
    assert "broken.jpg" in done.stderr
    assert "notes.txt" not in done.stderr
    header = (tmp_path / "run" / "logs_train" / "metrics.csv").read_text().splitlines()[0]
    assert {"train_loss", "val_loss", "val_bd_rate_jpeg"} <= set(header.split(","))
    again = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stderr
    other = subprocess.run([*command, "--resume", "--seed", "4"], cwd=tmp_path, capture_output=True, text=True)
    assert other.returncode == 1
    assert "seed was 0, now 4" in other.stderr

    source = tmp_path / "picture.png"
    draw(source, 100, 77, 40)
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


def test_the_order_of_crops_depends_on_the_step_alone(photos: Path) -> None:
    files = photo_files(photo_folder(photos, "train"), 64)
    assert [path.name for path in files] == [f"{number}.png" for number in range(6)]
    whole = list(CropLoader(files, 2, 64, seed=3, scale=(0.75, 0.95)))
    assert [tuple(batch.shape) for batch in whole] == [(2, 3, 64, 64)] * 3
    rest = list(CropLoader(files, 2, 64, seed=3, scale=(0.75, 0.95), step=lambda: 1))
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[1:], strict=True))
    other = next(iter(CropLoader(files, 2, 64, seed=3, step=lambda: 3)))
    assert not torch.equal(other, whole[0])
    halves = [next(iter(CropLoader(files, 2, 64, seed=3, scale=(0.75, 0.95), rank=r, world_size=2))) for r in (0, 1)]
    assert torch.equal(torch.cat(halves), whole[0])


def test_a_photo_that_breaks_later_is_replaced(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = photo_files(photo_folder(photos, "train"), 64)
    files[2].write_bytes(files[2].read_bytes()[:400])
    batches = list(CropLoader(files, 3, 64))
    assert len(batches) == 2
    assert "2.png" in caplog.text
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match="not one photo"):
        list(CropLoader(files, 3, 64))


def test_folders_that_cannot_be_trained_on(tmp_path: Path) -> None:
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
    draw(folder / "small.png", 63, 300, 0)
    with pytest.raises(ConfigError, match="at least 64 pixels"):
        train(TrainOptions(**options, data_base_path=tmp_path))
    for crop in (100, 16):
        with pytest.raises(ConfigError, match="multiple of 16"):
            TrainOptions(**{**options, "crop_size": crop})


def test_two_processes_have_the_loss_of_one(photos: Path, tmp_path: Path) -> None:
    losses = {}
    for name, more in (("one", []), ("two", ["--devices", "2"])):
        command = [sys.executable, "-m", "ohmq", "train", "--preset", "photo", "--data", str(photos), "-o", name]
        command += ["--cpu", "--epochs", "1", "--batch-size", "2", "--crop-size", "64", "--log-interval", "1", *more]
        command += ["--precision", "float32", "--quick-epochs", "1"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        with (tmp_path / name / "logs_train" / "metrics.csv").open() as file:
            losses[name] = [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]
        losses[name] += logged(tmp_path / name, "train_mse", "quick_analysis")
    assert len(losses["one"]) == 6
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-4)


def small_run(photos: Path, output: Path, **changes: object) -> TrainOptions:
    model = PhotoConfig(
        channels_max=40, latent_channels=24, wide=8, wider=12, context_hidden=8, context_projection=4,
        analysis_blocks=(1, 2), synthesis_blocks=(0, 1), neighbour_hidden=0,
    )  # fmt: skip
    settings = {"crop_size": 64, "batch_size": 2, "epochs": 2, "val_every": 1, "log_interval": 1, "cpu": True}
    settings |= {"data_base_path": photos, "output_dir": output, "model": model, "quick_epochs": 0, **changes}
    return TrainOptions(**{**preset("photo"), **settings})  # type: ignore[arg-type]


def logged(folder: Path, column: str, stage: str = "train") -> list[float]:
    with (folder / f"logs_{stage}" / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


@pytest.mark.filterwarnings("ignore::UserWarning")  # the trainer tells of its processes and folders
def test_training_in_bfloat16(photos: Path, tmp_path: Path) -> None:
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


@pytest.mark.filterwarnings("ignore::UserWarning")  # the trainer tells of its processes and folders
def test_a_run_that_diverges_stops_and_goes_on_with_a_smaller_rate(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo, "WATCHED_STEPS", 4)  # an epoch has 3
    monkeypatch.setattr(photo, "DIVERGED", 1.0)  # every mean that is not a new least
    with pytest.raises(
        ConfigError, match=r"diverged at step \d+: the mean loss of 4 steps rose.*smaller learning rate"
    ):
        train(small_run(photos, tmp_path / "run", epochs=30, learning_rate=0.5))
    monkeypatch.undo()
    last = tmp_path / "run" / "last.ckpt"
    contents = torch.load(last, weights_only=False)
    epochs = contents["epoch"] + 2
    del contents["ohmq"]["options"]["only"]  # as of a release that did not have it
    torch.save(contents, last)
    resumed = train(small_run(photos, tmp_path / "run", epochs=epochs, learning_rate=1e-3), resume=last)
    saved = torch.load(resumed, weights_only=False)
    assert max(saved["lr_schedulers"][0]["base_lrs"]) == pytest.approx(5e-3)
    assert max(group["lr"] for group in saved["optimizer_states"][0]["param_groups"]) <= 5e-3


@pytest.mark.filterwarnings("ignore::UserWarning")  # the trainer tells of its processes and folders
def test_training_goes_on_with_a_larger_model(photos: Path, tmp_path: Path) -> None:
    first = small_run(photos, tmp_path / "first")
    last = train(first)
    before = load(last)
    more = dataclasses.replace(
        first.model, channels_max=52, analysis_blocks=(2, 2), synthesis_blocks=(1, 3), neighbour_hidden=3
    )
    options = dataclasses.replace(first, model=more, start_from=str(last), learning_rate=1e-12)
    after = load(train(dataclasses.replace(options, output_dir=tmp_path / "second")))
    config, held = after.config, before.config
    assert isinstance(config, PhotoConfig)
    assert config.group_sizes[: len(held.group_sizes)] == held.group_sizes
    assert (sum(config.group_sizes), sum(config.group_sizes[len(held.group_sizes) :])) == (52, 12)
    assert config.cut_points == (*held.cut_points, 52)
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
    assert moved <= {  # with whose weights others are rounded
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


@pytest.mark.filterwarnings("ignore::UserWarning")  # the trainer tells of its processes and folders
def test_training_goes_on_with_other_photos(photos: Path, tmp_path: Path) -> None:
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


@pytest.mark.filterwarnings("ignore::UserWarning")  # the trainer tells of its processes and folders
def test_a_distilled_analysis_learns_the_latents_of_the_full_one(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = small_run(
        photos, tmp_path / "run", epochs=1, quick_epochs=12, val_every=13, learning_rate=4e-3, ema_decay=0.5
    )
    last = train(options)
    deep, quick = load(tmp_path / "run" / "train.ckpt"), load(last)
    assert isinstance(deep.config, PhotoConfig)
    assert quick.config == dataclasses.replace(
        deep.config, distilled_channels=DISTILLED_CHANNELS, analysis_blocks=(0, 2)
    )
    assert quick.frozen.provenance["stage"] == "quick_analysis"
    tensors = quick.frozen.tensors
    changed = [name for name, value in deep.frozen.tensors.items() if not np.array_equal(value, tensors.get(name))]
    assert changed and all(name.startswith("analysis_transform.path") for name in changed)
    errors = logged(tmp_path / "run", "train_mse", "quick_analysis")
    assert sum(errors[-4:]) < 0.7 * sum(errors[:4])
    with Image.open(photos / "openimages" / "train" / "0.png") as image:
        assert quick.decompress(quick.compress(image)).size == image.size

    # The same in two parts, from the model that the first stage left; then a run that goes on.
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

    # What was trained before stays, whatever the run goes on from, and is not passed over in silence.
    first, held = tmp_path / "run" / "train.ckpt", (tmp_path / "run" / "train.ckpt").read_bytes()
    shorter = load(train(dataclasses.replace(options, quick_epochs=1), resume=first))
    assert isinstance(shorter.config, PhotoConfig) and shorter.config.distilled_channels == DISTILLED_CHANNELS
    assert first.read_bytes() == held
    for longer, message in (
        (
            dataclasses.replace(options, epochs=2),
            r"after the 1 epochs of the first stage: to make these 2, name .*train.ckpt",
        ),
        (
            dataclasses.replace(options, quick_epochs=0),
            r"has a distilled analysis: to go on without one, name .*train.ckpt",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            train(longer, resume=last)
    partly = dataclasses.replace(options, only="prior", output_dir=tmp_path / "prior")
    assert load(train(partly)).config == deep.config
    with pytest.raises(ConfigError, match="no analysis is distilled then"):
        train(TrainOptions(**{**alone, "only": "prior"}))
    onward = dataclasses.replace(options, quick_epochs=1, start_from=str(first), output_dir=tmp_path / "onward")
    train(onward)
    with pytest.raises(ConfigError, match="before the analysis was distilled: with 0 epochs"):
        train(dataclasses.replace(onward, epochs=0), resume=tmp_path / "onward" / "train.ckpt")

    with caplog.at_level("INFO"):
        trained = load(train(dataclasses.replace(options, start_from=str(last), output_dir=tmp_path / "third")))
    assert "has a distilled analysis already" in caplog.text
    assert trained.config == quick.config
    with pytest.raises(ConfigError, match="distilled analysis already: with 0 epochs"):
        train(TrainOptions(**{**alone, "start_from": str(last), "output_dir": tmp_path / "fourth"}))
    for changes, message in (
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"quick_epochs": -1}, "quick_epochs is -1"),
        ({"model": preset("photo-int")["model"]}, "photo models with the OHM quantizer; set --quick-epochs 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(options, **changes)


def test_filters_are_fitted_when_a_model_is_exported(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return int(stop.value.code or 0)

    model = Path(__file__).parents[1] / "golden" / "photo.safetensors"
    made = tmp_path / "made.safetensors"
    folder = photos / "openimages"
    assert run("export", model, "-o", made, "--filters", folder, "--filter-photos", 4) == 0
    assert "broken.jpg" in caplog.text
    shown = capsys.readouterr()
    assert "fitting filters: 4 of 4" in shown.err or shown.err == ""  # a line every half minute
    plain, codec = load(model), load(made)
    assert codec.model_id.hex() in shown.out and codec.model_id != plain.model_id
    assert codec.frozen.provenance["filters"]["photos"] == 4
    picture = Image.open(folder / "train" / "2.png")
    before, after = (
        psnr_db(np.asarray(picture), np.asarray(c.decompress(c.compress(picture)))) for c in (plain, codec)
    )
    assert after > before + 0.05

    taken = tmp_path / "taken.safetensors"  # from a model that decodes alike
    assert run("export", model, "-o", taken, "--filters", made) == 0
    assert load(taken).model_id == codec.model_id
    assert load(taken).frozen.provenance["filters"] == codec.frozen.provenance["filters"]

    kept = made.read_bytes()
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    digits = Path(__file__).parents[1] / "golden" / "static.safetensors"
    for arguments, code, words in (
        ((model, "-o", made, "--filters", folder), 1, "exists"),
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
    assert made.read_bytes() == kept
    assert not (tmp_path / "n.safetensors").exists() and not (tmp_path / "onnx").exists()


@pytest.mark.filterwarnings("ignore:.*exists and is not empty")
def test_an_experiment_has_filters(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    pictures = photos / "openimages" / "validation"
    arguments = [tmp_path / "tiny.toml", "--data", photos, "--images", pictures, "-o", tmp_path / "out", "--cpu"]
    with pytest.raises(SystemExit) as stop:
        main(["experiments", "run", *map(str, arguments)])
    assert stop.value.code == 0, capsys.readouterr().err
    frozen = load(tmp_path / "out" / "runs" / "tiny" / "tiny.safetensors").frozen
    assert frozen.provenance["filters"]["photos"] == 7  # the small one too
    result = (tmp_path / "out" / "results" / "tiny" / "rate_distortion.json").read_text()
    assert f'"model_id": "{frozen.model_id.hex()}"' in result
