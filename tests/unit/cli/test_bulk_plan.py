import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ohmq import __version__
from ohmq.bulk.plan import read_plan
from ohmq.bulk.shard_work import do_shard
from ohmq.bulk.tasks import ShardTask
from ohmq.cli.bulk import command
from ohmq.errors import ConfigError
from ohmq.storage.local import LocalStore

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a few digits in ``in``."""
    (tmp_path / "in").mkdir()
    for path in sorted(DIGITS.glob("*.png"))[:6]:
        shutil.copy(path, tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == code, result.output
    return result


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_plan_is_written_into_the_target_and_taken_up(folder):
    places = ("plan", "in", "out", "-m", "mnist-ohm", "--images-per-shard", "4")
    assert "6 single files" in run(*places).output
    assert "out: complete before, nothing added" in run(*places).output
    status = json.loads(run("status", "out", "--json").output)
    assert (status["shards"], status["done"], status["left"], status["model"]) == (2, 0, 2, "mnist-ohm")
    assert "shards    0 done, 2 left of 2" in run("status", "out").output
    with pytest.raises(ConfigError, match="the model is mnist-ohm"):
        raise run(*places[:3], "-m", "mnist-int", "--images-per-shard", "4", code=1).exception


def test_update_says_what_it_added(folder):
    places = ("plan", "in", "out", "--operation", "truncate", "--layers", "1", "--update")
    (folder / "in" / "a.ohm").write_bytes(b"a")
    run(*places)
    assert "nothing added" in run(*places).output
    (folder / "in" / "a.ohm").write_bytes(b"aa")
    (folder / "in" / "b.ohm").write_bytes(b"b")
    assert "2 sources added by this update, 1 of them changed" in run(*places).output
    assert "1 updates" in run("status", "out").output


@pytest.mark.parametrize("target", [(), ("out",)])
def test_sample_estimates_and_writes_nothing(folder, target):
    before = files(folder)
    places = ("plan", "in", *target, "-m", "mnist-ohm", "--sample", "4")
    text = run(*places).output
    assert "sample    4 of 6 images" in text
    assert "nothing was written" in text
    estimate = json.loads(run(*places, "--json", "--quiet").output)["estimate"]
    assert estimate["bytes_out"]["low"] <= estimate["bytes_out"]["value"] <= estimate["bytes_out"]["high"]
    assert estimate["core_hours"]["value"] > 0
    assert estimate["target_requests"] == {"gets": 0, "heads": 0, "puts": 0, "lists": 0}
    assert files(folder) == before


def test_sample_uses_the_plan_of_the_target(folder, monkeypatch):
    run("plan", "in", "out", "-m", "mnist-ohm")
    (folder / "in" / sorted(path.name for path in (folder / "in").iterdir())[0]).rename(folder / "in" / "new.png")
    text = run("plan", "in", "out", "-m", "mnist-ohm", "--sample", "6").output
    assert "6 of 6 images, 1 failed" in text  # the file that was planned is gone


def test_plan_without_a_target_loads_no_model(folder):
    assert "6 single files" in run("plan", "in", "-m", "no such model").output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "at least one source"),
        (("in", "--operation", "decompress", "--bpp", "1"), "--bpp does not go with --operation decompress"),
        (("in", "--operation", "truncate", "-m", "photo"), "--model does not go with --operation truncate"),
        (("in", "--operation", "truncate"), "exactly one of --layers"),
        (("in", "--operation", "truncate", "--layers", "all"), "--layers all cuts nothing"),
        (("in", "--format", "webp"), "--format does not go with --operation compress"),
        (("in", "--sample", "0"), "0 is not in the range"),
        (("in", "--bpp", "1", "--psnr", "30"), "at most one of"),
    ],
)
def test_wrong_usage(folder, options, message):
    assert message in run("plan", *options, code=2).output


def test_status_lists_failures(folder):
    (folder / "in" / "a.ohm").write_bytes(b"bad")
    run("plan", "in", "out", "--operation", "truncate", "--layers", "1")
    job = read_plan(LocalStore("out")).job
    (planned,) = read_plan(LocalStore("out")).shards()
    outcome = do_shard(ShardTask(job, planned, (str(folder / "in"),), job.options_hash(None), None, __version__))
    assert outcome.kind == "done"
    text = run("status", "out", "--failures", "failures.csv").output
    assert "images    0 done, 1 failed" in text
    assert "failed    1: " in text
    assert len((folder / "failures.csv").read_text().splitlines()) == 2
