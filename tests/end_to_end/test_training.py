"""Training of the published networks through both command lines."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from ohmq.cli.published_train import build_parser, options_from
from ohmq.errors import ConfigError
from ohmq.loading import load
from ohmq.models import MnistConfig, OpenImagesConfig

ROOT = Path(__file__).parents[2]


def start(arguments: list[str], cwd: Path) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def run(arguments: list[str], cwd: Path, code: int = 0) -> str:
    process = start(arguments, cwd)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True)["state_dict"])


def assert_same_run(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    first_step, second_step = (torch.load(path, weights_only=True)["global_step"] for path in (first, second))
    assert first_step == second_step


def test_the_published_command_line_trains_and_tests(mnist_folder: Path, tmp_path: Path) -> None:
    line = (
        "--mnist -batch_size 512 -n_epochs 2 -learning_rate 1e-3 -lambda_rd 0.95 0.999 -encoder_channels 8192 "
        "-bottleneck_channels 0 32 -no_quant_symbols 256 "
        "--test_sets data/mnist_png/validation data/mnist_png/testing"
    )
    more = ["--data_base_path", str(mnist_folder), "--output_dir", "out", "--warm_start_epochs", "2", "-cpu"]
    output = run([str(ROOT / "train.py"), *line.split(), *more], tmp_path)
    assert "data/mnist_png/testing does not exist" in output
    assert output.count("using MNIST from") == 1
    assert "2 epochs of a warm start (-initialisation scalar) come before the 2 of the published training" in output
    for noise in ("litlogger", "Tip:", "weights_only", "pin_memory", "v_num", "TPU", "Warning", "\r"):
        assert noise not in output
    assert "stage train: 2 epochs of 1 step," in output
    assert re.search(r"^train: epoch 2/2, loss [\d.]+, val_loss [\d.]+, .*, took \d+ s$", output, re.M)
    for name in ("last.ckpt", "best.ckpt", "test_validation/rate_distortion.csv", "test_testing/rate_distortion.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    log = (tmp_path / "out" / "logs_train" / "metrics.csv").read_text()
    assert "val_loss" in log.splitlines()[0]
    assert list((tmp_path / "out" / "logs_train").glob("events.out.tfevents*"))
    codec = load(tmp_path / "out" / "last.ckpt")
    assert (codec.num_channels, codec.config.num_symbols) == (32, 256)
    assert codec.frozen.provenance["options"]["seed"] == 0
    assert len(codec.cut_points) >= 8


SHORT = (
    "train --quantizer ohm --channels-max 4 --num-symbols 12 --prior context --refinement --initialisation vector "
    "--warm-start-epochs 2 --epochs 25 --grow-epochs 5 --initial-symbols 6 --batch-size 32 --ema-decay 0.9 "
    "--schedule cosine --clip-norm 1 --val-every 5 --log-interval 4 --cpu"
).split()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_resumed_run_equals_an_uninterrupted_one(mnist_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = ["-m", "ohmq", *SHORT, "--data", str(mnist_folder)]
    run([*command, "-o", "whole"], tmp_path)
    process = start([*command, "-o", "parts"], tmp_path)
    checkpoint = tmp_path / "parts" / "best.ckpt"  # written by the second stage
    deadline = time.monotonic() + 200
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=100)
    if number == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM, output
        assert "SIGTERM: checkpoint written" in output
    else:
        assert process.returncode == -signal.SIGKILL
    refused = run([*command, "-o", "parts"], tmp_path, code=1)
    assert "--resume" in refused
    run([*command, "-o", "parts", "--resume"], tmp_path)
    assert_same_run(tmp_path / "whole" / "last.ckpt", tmp_path / "parts" / "last.ckpt")
    logs = {path.parent.name for path in (tmp_path / "parts").glob("logs_*/metrics.csv")}
    assert "logs_train" in logs  # the logs from before the stop stay
    assert any(name.endswith("_2") for name in logs)
    final = weights(tmp_path / "whole" / "last.ckpt")
    assert int(final["averaged.n_averaged"]) > 20  # the running mean is kept, and is the model of a checkpoint
    name = "synthesis_transform.0.weight"
    raw, average = final[f"model.{name}"], final[f"averaged.module.{name}"]
    assert not torch.equal(raw, average)
    assert (raw - average).abs().max() < 0.1
    codec = load(tmp_path / "whole" / "last.ckpt")
    assert torch.equal(codec.transforms.model.state_dict()[name], average)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("-encoder_channels 100", "this model needs 8192 = 32 channels \\* 256 symbols"),
        ("-integer_quant -encoder_channels 8192", "this model needs 32"),
        ("-no_quant -integer_quant", "exclude"),
        ("-lambda_rd 0.9 0.8", "lambda_min <= lambda_max"),
        ("-lambda_rd 0.9 0.95 1", "one or two values"),
        ("-bottleneck_channels 9 8", "min <= max"),
        ("-bottleneck_channels 1 2 3", "one or two values"),
        ("-no_quant_symbols 1", "2 to 65536"),
        ("-n_epochs 0", "at least 1"),
    ],
)
def test_an_inconsistent_command_line_is_refused(extra: str, message: str) -> None:
    arguments = build_parser().parse_args(["--mnist", "-bottleneck_channels", "0", "32", *extra.split()])
    with pytest.raises(ConfigError, match=message):
        options_from(arguments)


def test_one_dash_equals_two_and_one_value_equals_two_of_it() -> None:
    one = options_from(build_parser().parse_args("-mnist -lambda_rd 0.9 -bottleneck_channels 8 -seed 3".split()))
    two = options_from(build_parser().parse_args("--mnist --lambda_rd 0.9 --bottleneck_channels 8 --seed 3".split()))
    assert one == two
    assert one.lambdas == (0.9, 0.9)
    assert (one.model.channels_min, one.model.channels_max, one.seed) == (8, 8, 3)
    photos = options_from(build_parser().parse_args("-bottleneck_channels 0 480 -no_quant_symbols 32".split()))
    assert photos.model == OpenImagesConfig()


def test_published_is_exactly_the_published_training() -> None:
    base = "--mnist -batch_size 512 -n_epochs 1000 -learning_rate 1e-3 -lambda_rd 0.95 0.999 -bottleneck_channels 0 32"
    options = options_from(build_parser().parse_args([*base.split(), "-published"]))
    assert options == options_from(build_parser().parse_args([*base.split(), "-initialisation", "published"]))
    short = options_from(build_parser().parse_args("-mnist -published -bottleneck_channels 0 32".split()))
    assert short == options  # its settings are the defaults
    assert (options.initialisation, options.warm_starts, options.schedule) == ("published", False, "constant")
    assert (options.weight_decay, options.ema_decay, options.clip_norm, options.fraction_power) == (1e-5, 0, 0, 0.5)
    assert isinstance(options.model, MnistConfig)
    assert (options.model.prior, options.model.residual_quantization) == ("static", False)
    photos = options_from(
        build_parser().parse_args("-published -bottleneck_channels 0 480 -no_quant_symbols 32".split())
    )
    assert (photos.epochs, photos.batch_size, photos.learning_rate, photos.crop_size) == (10, 32, 1e-4, 256)
    unquantized = options_from(build_parser().parse_args("-mnist -published -no_quant -bottleneck_channels 32".split()))
    assert (unquantized.epochs, unquantized.batch_size, unquantized.learning_rate) == (1000, 512, 1e-4)
    for conflict in ("-initialisation scalar", "-warm_start_epochs 5"):
        with pytest.raises(ConfigError, match="-published .*leave"):
            options_from(build_parser().parse_args(["-mnist", "-published", *conflict.split()]))


@pytest.mark.parametrize("flags", ["--quantizer integer", "--quantizer none", "--initialisation published"])
def test_other_quantizers_train(mnist_folder: Path, tmp_path: Path, flags: str) -> None:
    command = ["-m", "ohmq", "train", *flags.split(), "--channels-max", "4", "--num-symbols", "16", "--epochs", "1"]
    run([*command, "--data", str(mnist_folder), "-o", "out", "--cpu"], tmp_path)
    if "none" in flags:
        Image.new("L", (28, 28)).save(tmp_path / "digit.png")
        failed = run(["-m", "ohmq", "compress", "digit.png", "-m", "out/last.ckpt"], tmp_path, code=1)
        assert "without a quantizer" in failed
    else:
        assert load(tmp_path / "out" / "last.ckpt").num_channels == 4


def test_a_checkpoint_of_another_run_is_refused(mnist_folder: Path, tmp_path: Path) -> None:
    command = ["-m", "ohmq", "train", "--quantizer", "integer", "--channels-max", "4", "--epochs", "1", "--cpu"]
    command += ["--data", str(mnist_folder), "-o", "out"]
    run(command, tmp_path)
    failed = run([*command, "--resume", "--seed", "5"], tmp_path, code=1)
    assert "seed was 0, now 5" in failed
    missing = run([*command, "--ckpt", "nothing.ckpt"], tmp_path, code=1)
    assert "no checkpoint nothing.ckpt" in missing


@pytest.mark.parametrize("flags", ["", "--quantizer integer --learning-rate 1e20", "--learning-rate 1e20"])
def test_a_run_that_diverges_fails_and_keeps_the_last_good_checkpoint(
    mnist_folder: Path, tmp_path: Path, flags: str
) -> None:
    options = ["--warm-start-epochs", "1", "--epochs", "3", "--batch-size", "90", *flags.split()]
    if not flags:
        options += ["--ckpt", "ruined.ckpt"]
    base = ["-m", "ohmq", "train", "--channels-max", "2", "--num-symbols", "4", "--cpu", "--data", str(mnist_folder)]
    if not flags:  # weights that are not finite on the way, in the warm start
        run([*base, "-o", "first", "--warm-start-epochs", "1", "--epochs", "3", "--batch-size", "90"], tmp_path)
        contents = torch.load(tmp_path / "first" / "warm_start.ckpt", weights_only=False)
        contents["state_dict"]["bottleneck.project.weight"].fill_(float("nan"))
        for name in ("processed", "completed", "started", "ready"):
            contents["loops"]["fit_loop"]["epoch_progress"]["current"][name] = 0
        torch.save(contents, tmp_path / "ruined.ckpt")
    output = run([*base, *options, "-o", "out"], tmp_path, code=1)
    assert "ohmq: training diverged at step" in output and "Traceback" not in output
    for path in (tmp_path / "out").glob("*.ckpt"):
        assert all(value.isfinite().all() for value in weights(path).values())
