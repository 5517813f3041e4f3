"""`ohmq experiments` through the command line."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ohmq.evaluation.results import ResultFile
from ohmq.experiments.catalogue import experiment_names
from ohmq.loading import load

ROOT = Path(__file__).parents[2]
EXPERIMENT = """
group = "mnist-grid"
description = "small"
test = "mnist"
published = "mnist-ohm-c0-16-lambda0.95-0.999"
{top}
[model]
family = "mnist"
{model}
[train]
batch_size = 64
{train}
"""
SMALL = 'channels_max = 4\nnum_symbols = 12\nprior = "context"\nrefinement = true'
VECTOR = 'initialisation = "vector"\nwarm_start_epochs = 4\nepochs = 12\ngrow_epochs = 3\ninitial_symbols = 6'


def run(arguments: list[str], cwd: Path, code: int = 0) -> tuple[str, str]:
    command = [sys.executable, "-m", "ohmq", "experiments", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def test_list_shows_all_experiments(tmp_path: Path) -> None:
    output, _ = run(["list"], tmp_path)
    assert [line.split()[0] for line in output.splitlines() if line.startswith("  ")].sort() == (
        list(experiment_names()).sort()
    )
    rows = json.loads(run(["list", "--json", "--epochs", "2"], tmp_path)[0])
    assert {row["name"] for row in rows} == set(experiment_names())
    assert {row["epochs"] for row in rows} == {2}


def test_run_trains_exports_and_tests_and_skips_finished_experiments(mnist_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(EXPERIMENT.format(top="", model=SMALL, train=VECTOR))
    fixed = "channels_min = 4\nchannels_max = 4\nnum_symbols = 16\nrefinement = true"
    lines = 'lambdas = [1.0, 1.0]\ninitialisation = "vector"\nepochs = 3'
    (tmp_path / "fixed.toml").write_text(EXPERIMENT.format(top="fixed_rate = true", model=fixed, train=lines))
    (tmp_path / "none.toml").write_text(EXPERIMENT.format(top="", model='quantizer = "none"', train="epochs = 3"))
    command = ["run", "small.toml", "fixed.toml", "none.toml", "--epochs", "2", "--data", str(mnist_folder)]
    command += ["-o", "out", "--cpu"]
    output, _ = run(command, tmp_path)
    output_lines = output.splitlines()
    assert [line.split()[:2] for line in output_lines] == [["[1/3]", "small:"], ["[2/3]", "fixed:"], ["[3/3]", "none:"]]
    assert "trained 2 epochs in" in output_lines[0]
    assert "dB without a quantizer on MNIST test, 40 images" in output_lines[2]

    result = ResultFile.read(tmp_path / "out/results/small/rate_distortion.json")
    record = result.extra["experiment"]
    assert (record["epochs"], record["epochs_of_the_file"], record["options"]["warm_start_epochs"]) == (2, 12, 1)
    assert record["seconds"] > 0
    assert result.data == "MNIST test, 40 images"
    assert [point.channels for point in result.points] == [1, 2, 3, 4]
    codec = load(tmp_path / "out/runs/small/small.safetensors")
    assert result.model_id == codec.model_id.hex()
    names = {path.name for path in (tmp_path / "out/results/small").iterdir()}
    assert names == {"rate_distortion.json", "rate_distortion.csv", "rate_distortion.png"}

    (point,) = ResultFile.read(tmp_path / "out/results/fixed/rate_distortion.json").points
    assert point.estimated_bpp == point.payload_bpp == pytest.approx(9 * 4 * 4 / 784)
    assert point.file_bpp > point.payload_bpp

    path = tmp_path / "out/results/small/rate_distortion.json"
    contents = json.loads(path.read_text())
    del contents["extra"]["experiment"]["options"]["only"]  # as written by a release without this option
    path.write_text(json.dumps(contents))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    again, _ = run(command, tmp_path)
    assert all("done before" in line for line in again.splitlines())
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    _, error = run([*command, "--epochs", "1"], tmp_path, code=1)
    assert "small: failed: out/results/small/rate_distortion.json holds another run" in error
    assert "epochs was 2, now 1" in error


def test_an_experiment_runs_after_the_one_that_it_starts_from(mnist_folder: Path, tmp_path: Path) -> None:
    base, few = "mnist-ohm-c0-16-lambda0.95-0.999", "mnist-ohm-c0-8-lambda0.95-0.999"
    command = ["run", few, "--epochs", "2", "--data", str(mnist_folder), "-o", "out", "--cpu"]
    output, _ = run(command, tmp_path)
    assert [line.split()[1] for line in output.splitlines()] == [f"{base}:", f"{few}:"]
    folder = tmp_path / "out" / "runs" / few
    assert (tmp_path / "out" / "runs" / base / "warm_start.ckpt").exists()
    assert not (folder / "warm_start.ckpt").exists()
    result = ResultFile.read(tmp_path / "out" / "results" / few / "rate_distortion.json")
    assert result.extra["experiment"]["options"]["start_from"] == base
    assert [point.channels for point in result.points] == list(range(1, 9))

    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "out" / "results" / few)
    (tmp_path / "out" / "runs" / base / "train.ckpt").unlink()
    output, error = run(command, tmp_path, code=1)
    assert f"{base}: done before" in output
    assert f"{few}: failed: it starts from {base}, which is not trained" in error


def test_an_interrupted_run_is_resumed(mnist_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(EXPERIMENT.format(top="", model=SMALL, train=VECTOR))
    command = ["run", "small.toml", "--data", str(mnist_folder), "--cpu", "-o"]
    run([*command, "whole"], tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "ohmq", "experiments", *command, "parts"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "parts/runs/small/last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=100) == 128 + signal.SIGTERM
    assert not (tmp_path / "parts/results").exists()
    output, _ = run([*command, "parts"], tmp_path)
    assert "trained 12 epochs" in output
    whole, parts = (
        ResultFile.read(tmp_path / f"{part}/results/small/rate_distortion.json") for part in ("whole", "parts")
    )
    assert whole.model_id == parts.model_id  # as if it had not been stopped
    assert whole.curve().rates_bpp == parts.curve().rates_bpp


def test_a_published_run_of_train_py_is_exported_and_tested(mnist_folder: Path, tmp_path: Path) -> None:
    name = "mnist-published-c0-8-lambda0.95-0.999"
    line = "--mnist -n_epochs 1 -initialisation published -bottleneck_channels 0 8 -output_dir out/runs/" + name
    command = [sys.executable, ROOT / "train.py", *line.split(), "-data_base_path", str(mnist_folder), "-cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    arguments = ["run", name, "--data", str(mnist_folder), "-o", "out", "--cpu"]
    output, _ = run([*arguments, "--epochs", "1"], tmp_path)  # nothing is left to train
    assert "trained 1 epoch in" in output
    (tmp_path / "out" / "results" / name / "rate_distortion.json").unlink()
    output, _ = run([*arguments, "--epochs", "2"], tmp_path)  # a longer run goes on from there
    assert "trained 2 epochs" in output
    assert (tmp_path / "out" / "runs" / name / "logs_train_2").exists()
    assert load(tmp_path / f"out/runs/{name}/{name}.safetensors").config.prior == "static"


def test_integer_rounding_warms_up(mnist_folder: Path, tmp_path: Path) -> None:
    line = 'initialisation = "rounding"\nwarm_start_epochs = 2\nwarm_start_batch_size = 90\nepochs = 1'
    model = 'channels_max = 4\nquantizer = "integer"'
    (tmp_path / "twin.toml").write_text(EXPERIMENT.format(top="", model=model, train=line))
    output, _ = run(["run", "twin.toml", "--data", str(mnist_folder), "-o", "out", "--cpu"], tmp_path)
    assert "trained 1 epoch in" in output
    warm, final = (
        torch.load(tmp_path / f"out/runs/twin/{part}.ckpt", weights_only=True) for part in ("warm_start", "last")
    )
    assert (warm["ohmq"]["stage"], final["ohmq"]["stage"]) == ("warm_start", "train")
    assert warm["global_step"] == 2 * 3  # 270 digits in batches of 90
    assert warm["optimizer_states"][0]["param_groups"][0]["initial_lr"] == pytest.approx(2e-3)
    different = [key for key, value in warm["state_dict"].items() if not torch.equal(value, final["state_dict"][key])]
    assert any(key.startswith("model.prior") for key in different)


def test_a_failing_experiment_does_not_stop_the_others(mnist_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(EXPERIMENT.format(top="", model='quantizer = "integer"', train="epochs = 1"))
    arguments = ["run", "openimages-int-c0-480", "small.toml", "--data", str(mnist_folder), "-o", "out", "--cpu"]
    output, error = run(arguments, tmp_path, code=1)
    assert "[2/2] small: trained 1 epoch in" in output
    assert "[1/2] openimages-int-c0-480: failed: no images to test on" in error
    assert "--images" in error


def test_wrong_usage_is_refused(tmp_path: Path) -> None:
    assert "or --all" in run(["run"], tmp_path, code=2)[1]
    assert "or --all" in run(["run", "photo", "--all"], tmp_path, code=2)[1]
    assert "no experiment 'phto'" in run(["run", "phto"], tmp_path, code=1)[1]
