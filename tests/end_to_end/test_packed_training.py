"""Training by the clock with looks in the loss, on packed photos in the memory of the device: as on a large GPU, but small."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner
from support.photo_folders import draw_photo

from ohmq.loading import load
from ohmq.models import PhotoConfig
from ohmq.training import clock
from ohmq.training.options import TrainOptions, preset
from ohmq.training.photo.module import PhotoModule
from ohmq.training.run import train

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name: str) -> ModuleType:
    """Import a script of the tools folder."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packed photos: 6 to train on and 2 to validate."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, count in (("train", 6), ("validation", 3)):
        for number in range(count):
            draw_photo(tmp_path / "photos" / part / f"{number}.png", 240, 300, 10 * count + number)
    arguments = [tmp_path / "photos", "-o", tmp_path / "pack", "--megabytes", 0.5, "--validation", 2, "--workers", 1]
    done = CliRunner().invoke(tool("pack_photos").main, [*map(str, arguments), "--smallest-side", "128"])
    assert done.exit_code == 0, done.output
    assert "6 photos at quality" in done.output
    return tmp_path / "pack"


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning warns about processes and folders
def test_ten_steps_and_ten_more(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(path.stat().st_size for path in pack.iterdir()) < 2**19
    monkeypatch.setattr(clock, "time", clock_of_steps := StepClock())
    monkeypatch.setattr(PhotoModule, "on_before_zero_grad", lambda *_: clock_of_steps.tick())
    model = PhotoConfig(
        channels_max=40, latent_channels=24, wide=8, wider=12, context_hidden=8, context_projection=4,
        analysis_blocks=(1, 2), synthesis_blocks=(0, 1), neighbour_hidden=0,
    )  # fmt: skip

    def options(seconds: int) -> TrainOptions:
        settings = {"crop_size": 128, "batch_size": 2, "epochs": 0, "quick_epochs": 0, "minutes": seconds / 60}
        settings |= {"model": model, "data_base_path": pack, "output_dir": tmp_path / "run", "cpu": True}
        return TrainOptions(**{**preset("photo"), **settings, "perceptual": 0.6, "data_on_device": True})

    last = train(options(10))
    assert torch.load(last, weights_only=False)["global_step"] == 10
    first = load(tmp_path / "run" / "model.safetensors")
    train(options(20), resume=last)
    contents = torch.load(last, weights_only=False)
    assert contents["global_step"] == 20
    assert contents["ohmq"]["options"]["perceptual"] == 0.6
    assert load(tmp_path / "run" / "model.safetensors").model_id != first.model_id
    header = (tmp_path / "run" / "logs_train" / "metrics.csv").read_text().splitlines()[0]
    assert "val_ssimulacra2_40" in header


class StepClock:
    """A clock on which a training step takes a second, and all else nothing."""

    now = 0.0

    def tick(self) -> None:
        self.now += 1

    def monotonic(self) -> float:
        return self.now


def test_photos_that_do_not_fit_into_a_pack_are_refused(tmp_path: Path) -> None:
    for part in ("train", "validation"):
        draw_photo(tmp_path / part / "a.png", 300, 300, 1)
    arguments = [str(tmp_path), "-o", str(tmp_path / "pack"), "--megabytes", "0.01", "--workers", "1"]
    done = CliRunner().invoke(tool("pack_photos").main, arguments)
    assert done.exit_code == 1
    assert "1 photos do not fit into 0.01 MiB at quality 75" in done.output
    assert not (tmp_path / "pack").exists()
