"""``ohmq evaluate`` on models without a quantizer, and on folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohmq.cli import main
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import save_model
from ohmq.models import OpenImagesConfig, build_model


def test_a_model_without_a_quantizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_model(
        freeze(build_model(OpenImagesConfig(quantizer="none", channels_max=4)), "free"), Path("free.safetensors")
    )
    Path("photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", "photos", "-m", "free.safetensors", *arguments])
        streams = capsys.readouterr()
        return int(stop.value.code or 0), streams.out, streams.err

    code, output, error = call("--limit", "2", "-o", "out")
    name, _, row, note = output.splitlines()
    assert (code, name, note, error) == (0, "photos, 2 images", "no quantizer, no rate", "")
    assert row.split()[:4] == ["4", "-", "-", "-"]
    result = json.loads(Path("out/rate_distortion.json").read_text())
    assert result["extra"]["rate"] == "no quantizer, no rate"
    assert result["points"][0]["file_bpp"] is None
    assert float(row.split()[4]) == pytest.approx(result["points"][0]["psnr_db"], abs=1e-3)
    code, _, error = call("--against", "jpeg")
    assert (code, "free.safetensors has no quantizer, so it has no rate to compare" in error) == (1, True)
    code, _, error = call("--channels", "2")
    assert (code, "has no numbers of channels" in error) == (1, True)
