"""The scripts of slurm/: the commands of all, and a run of one."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.photo_folders import draw_photo, make_photo_folder

from ohmq.cli.published_compress import build_parser as compress_parser
from ohmq.cli.published_train import build_parser, options_from
from ohmq.cli.test_sets import read_test_sets
from ohmq.experiments.catalogue import experiment_names, find_experiments
from ohmq.training.sources import PhotoSource

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "slurm").glob("*.sh") if path.name != "common.sh")
ARRAYS = {"mnist_ohm_16ch.sh": 6, "mnist_int_16ch.sh": 6, "experiments.sh": 13}


def start(script: str, *arguments: str, code: int = 0, cwd: Path = ROOT, **environment: str) -> str:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "OHMQ"))}
    done = subprocess.run(
        ["bash", str(ROOT / "slurm" / script), *arguments],
        cwd=cwd,
        env={**inherited, "OHMQ_PYTHON": "python", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


def commands(script: str, *arguments: str, cwd: Path = ROOT, **environment: str) -> list[list[str]]:
    lines = start(script, *arguments, cwd=cwd, OHMQ_DRY_RUN="1", **environment).splitlines()
    return [shlex.split(line) for line in lines]


def test_every_published_job_has_a_script() -> None:
    published = [f"mnist_{q}_{c}ch.sh" for q in ("ohm", "int") for c in (8, 16, 32)]
    published += ["openimages_ohm_480ch.sh", "openimages_int_480ch.sh", "openimages_int_960ch.sh", "mnist_no_quant.sh"]
    assert sorted([*published, "compress.sh", "compress_adaptive.sh", "experiments.sh"]) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_names_no_cluster(script: str) -> None:
    text = (ROOT / "slurm" / script).read_text()
    assert "#SBATCH --time=" in text
    assert "#SBATCH --job-name=" in text
    for line in text.splitlines():
        if line.startswith("#SBATCH"):
            assert not any(word in line for word in ("partition", "account", "exclude", "/", "nodelist"))
    assert ("#SBATCH --array=" in text) == (script in ARRAYS)
    if script in ARRAYS:
        assert f"#SBATCH --array=0-{ARRAYS[script] - 1}\n" in text


@pytest.mark.parametrize(
    ("script", "quantizer", "channels", "family"),
    [(f"mnist_{q[:3]}_{c}ch.sh", q, c, "mnist") for q in ("ohm", "integer") for c in (8, 16, 32)]
    + [("openimages_ohm_480ch.sh", "ohm", 480, "openimages")]
    + [(f"openimages_int_{c}ch.sh", "integer", c, "openimages") for c in (480, 960)]
    + [("mnist_no_quant.sh", "none", 32, "mnist")],
)
def test_training_options_are_as_published(script: str, quantizer: str, channels: int, family: str) -> None:
    runs = []
    for line in commands(script):
        assert line[:2] == ["python", str(ROOT / "train.py")]
        options = options_from(build_parser().parse_args(line[2:]))  # also checks -encoder_channels
        assert options.model.to_dict()["family"] == family
        assert (options.model.quantizer, options.model.channels_max) == (quantizer, channels)
        digits = family == "mnist"
        assert (options.epochs, options.batch_size) == ((1000, 512) if digits else (10, 32))
        assert options.learning_rate == (1e-3 if digits and quantizer != "none" else 1e-4)
        assert (options.weight_decay, options.schedule, options.fraction_power) == (1e-5, "constant", 0.5)
        assert (options.initialisation, options.warm_starts) == ("published", False)
        if quantizer != "none":
            assert options.model.num_symbols == (256 if digits else 32)
        assert options.test_sets
        runs.append((options.lambdas, options.model.channels_min, str(options.output_dir)))
    wide = [((low, high), c) for low, high in ((0.95, 0.999), (0.9, 0.999), (0.85, 0.9)) for c in (0, 8)]
    expected = wide if channels == 16 else [((1.0, 1.0), 32)] if quantizer == "none" else [((0.95, 0.999), 0)]
    assert [run[:2] for run in runs] == expected
    assert len({run[2] for run in runs}) == len(runs)  # none writes into the folder of another


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name.startswith("openimages")])
def test_photos_are_found_in_data_without_further_options(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make_photo_folder(tmp_path) / "openimages" / "validation").rename(tmp_path / "data" / "kodak")
    draw_photo(tmp_path / "data" / "openimages" / "validation" / "0.png", 80, 64, 1)
    (line,) = commands(script, "-crop_size", "32", cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OHMQ_DATA", raising=False)
    options = options_from(build_parser().parse_args(line[2:]))
    source = PhotoSource(options)
    assert (source.count, len(source.held_out)) == (6, 1)
    assert [len(images) for _, images in read_test_sets(options)] == [2]


@pytest.mark.parametrize("script", sorted(ARRAYS))
def test_array_tasks_equal_the_loop(script: str) -> None:
    loop = commands(script, "-n_epochs", "2")
    tasks = [
        commands(script, "-n_epochs", "2", SLURM_JOB_ID="9", SLURM_ARRAY_TASK_ID=str(n), SLURM_SUBMIT_DIR=str(ROOT))
        for n in range(ARRAYS[script])
    ]
    assert [[["srun", "--unbuffered", *line]] for line in loop] == tasks
    assert len({tuple(line) for line in loop}) == ARRAYS[script]


def test_the_experiments_of_the_script_exist() -> None:
    lines = commands("experiments.sh", "--epochs", "3")
    assert all(line[:5] == ["python", "-m", "ohmq", "experiments", "run"] for line in lines)
    assert all(line[6:] == ["--epochs", "3"] for line in lines)
    grid = {name for name in experiment_names() if name.startswith(("mnist-ohm", "mnist-int", "mnist-none"))}
    names = [experiment.name for line in lines for experiment in find_experiments([line[5]])]
    assert sorted(names) == sorted(grid)  # each in one task: none starts from a run of another task


@pytest.mark.parametrize(("script", "fraction"), [("compress.sh", 1.0), ("compress_adaptive.sh", -1.0)])
def test_compress_scripts(script: str, fraction: float) -> None:
    (line,) = commands(script, "mnist-ohm", "my images", "out", "--do_save")
    assert line[:2] == ["python", str(ROOT / "compress.py")]
    arguments = compress_parser().parse_args(line[2:])
    assert (arguments.checkpoint, arguments.image_path, str(arguments.output_dir)) == ("mnist-ohm", "my images", "out")
    assert arguments.channel_fractions == [fraction]
    assert arguments.do_save
    assert "usage:" in start(script, "mnist-ohm", code=2)


def test_two_training_steps_by_plain_bash(mnist_folder: Path, tmp_path: Path) -> None:
    more = ["-n_epochs", "1", "-batch_size", "135", "-log_interval", "1", "-cpu"]  # 270 digits: two steps
    more += ["--data_base_path", str(mnist_folder)]
    start("mnist_int_8ch.sh", *more, cwd=tmp_path, OHMQ_PYTHON=sys.executable)
    folder = tmp_path / "runs" / "mnist_int_8ch"
    steps = [line for line in (folder / "logs_train" / "metrics.csv").read_text().splitlines()[1:] if line]
    assert len(steps) == 3  # two steps and the validation
    assert (folder / "last.ckpt").stat().st_size > 0
    assert (folder / "test_testing" / "rate_distortion.csv").read_text().count("\n") == 9
