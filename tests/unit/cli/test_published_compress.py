"""The published compression line: tables, output folders, models without a quantizer."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_models import make_model

from ohmq.cli.published_compress import run
from ohmq.encoder.encoder import Encoder
from ohmq.loading import load
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import save_model
from ohmq.models import MnistConfig, build_model
from ohmq.runtime.windowed import WindowedTransforms


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three digits of noise in the folder ``images`` of the current folder, and a small model."""
    monkeypatch.chdir(tmp_path)
    save_model(freeze(make_model("static"), "small"), Path("small.safetensors"))
    (tmp_path / "images").mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_without_an_output_folder_the_table_is_printed(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--image_path", "images", "--checkpoint", "small.safetensors", "--channel_fractions", "0.2", "1"]
    assert run(line) == 0
    name, header, *rows = capsys.readouterr().out.splitlines()
    assert name == "images, 3 images"
    assert ("estimated bpp" in header, "payload bpp" in header, "file bpp" in header) == (True, True, True)
    assert [row.split()[0] for row in rows] == ["1", "5"]
    assert names(images.parent) == ["images/0.png", "images/1.png", "images/2.png", "small.safetensors"]


def test_files_without_an_output_folder_go_to_a_new_one(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--image_path", "images", "--checkpoint", "small.safetensors", "--do_save", "--limit", "2"]
    for folder in ("inference_results/small", "inference_results/small_2"):
        assert run([*line, "--channel_fractions", "1"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"results: {folder}"
        saved = [name for name in names(Path(folder)) if name.startswith("fraction_1.0000/")]
        assert saved == [f"fraction_1.0000/{number}.{end}" for number in range(2) for end in ("ohm", "png")]
        rows = list(csv.DictReader((Path(folder) / "fraction_1.0000.csv").read_text().splitlines()))
        assert [row["image"] for row in rows] == ["0.png", "1.png", "avg"]
        for row in rows[:2]:
            data = (Path(folder) / "fraction_1.0000" / row["image"]).with_suffix(".ohm").read_bytes()
            assert float(row["file_bpp"]) == pytest.approx(8 * len(data) / 784, rel=1e-5)
            assert data == load("small.safetensors").compress(Image.open(images / row["image"]), layers=1)
    with pytest.raises(SystemExit):
        run([*line, "--limit", "0"])


def test_each_image_is_analysed_once_and_coded_once_for_each_rate(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysed: list[int] = []
    symbols = WindowedTransforms.symbols_batch
    monkeypatch.setattr(
        WindowedTransforms,
        "symbols_batch",
        lambda self, batch: (analysed.append(len(batch)), symbols(self, batch))[1],
    )
    monkeypatch.setattr(Encoder, "encode", lambda *arguments, **named: pytest.fail("coded again to be saved"))
    line = "--image_path images --checkpoint small.safetensors --output_dir out --do_save --channel_fractions 0 0.5 1"
    assert run(line.split()) == 0
    assert analysed == [3]
    saved = [name for name in names(Path("out")) if name.endswith(".ohm")]
    assert saved == [f"fraction_{fraction}/{number}.ohm" for fraction in ("0.6000", "1.0000") for number in range(3)]
    assert "fraction_0.0000/0.png" in names(Path("out"))  # what the model decodes from no bits


def test_a_model_without_a_quantizer(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = build_model(MnistConfig(quantizer="none", channels_min=4, channels_max=4))
    save_model(freeze(model, "free"), Path("free.safetensors"))
    line = "--image_path images --checkpoint free.safetensors --output_dir out --do_save --do_plot"
    assert run(line.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "images, 3 images"
    assert lines[2].split()[:4] == ["4", "-", "-", "-"]
    assert lines[3] == "no quantizer, no rate"
    pictures = [f"fraction_1.0000/{number}.png" for number in range(3)]
    assert names(Path("out")) == ["fraction_1.0000.csv", *pictures, "rate_distortion.csv", "rate_distortion.json"]
