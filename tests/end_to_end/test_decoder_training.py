"""Training of the decoder ladder through the command line, with a small model on drawn photos."""

from pathlib import Path

import numpy as np
import pytest
from support.photo_folders import draw_photo

from ohmq.cli import main
from ohmq.datasets.photos import PhotoFiles
from ohmq.errors import ConfigError
from ohmq.loading import load
from ohmq.metrics import psnr_db
from ohmq.model_files.resolve import resolve_model
from ohmq.models.decoders import DecoderConfig
from ohmq.training.photo import decoders
from ohmq.training.photo.decoders import DecoderRecipe
from ohmq.training.photo.latent_crops import CropEncoder, LatentCrops, encode_crops

MODEL = Path(__file__).parents[1] / "golden" / "filters.safetensors"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("validation", 1)):
        for number in range(count):
            draw_photo(tmp_path / "data" / split / f"{number}.png", 270, 300, number)
    return tmp_path / "data"


def test_decoders_are_trained_and_decode(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = {
        "fast": DecoderRecipe(DecoderConfig((8, 6, 0), (1, 1, 0)), 3e-3, from_synthesis=False),
        "standard": DecoderRecipe(None, 1e-3),
        "best": DecoderRecipe(DecoderConfig((12, 12, 8), (2, 4, 5), up_kernel=4), 1e-3),
    }
    monkeypatch.setattr(decoders, "RECIPES", recipes)
    monkeypatch.setattr(decoders, "VALIDATION_CROPS", 1)
    monkeypatch.setattr("ohmq.training.module.WARM_UP_STEPS", 1)
    out = tmp_path / "out"
    arguments = ["train", "--preset", "photo", "--start-from", str(MODEL), "--only", "decoders", "--data", str(photos),
                 "-o", str(out), "--cpu", "--batch-size", "3", "--epochs", "4", "--log-interval", "1", "--num-workers", "0",
                 "--val-every", "2"]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0, capsys.readouterr().err
    codec, old = load(out / "model.safetensors"), load(MODEL)
    assert codec.decoders == ("fast", "standard", "best") and codec.model_id == old.model_id
    frozen = resolve_model(out / "model.safetensors")
    for prefix in ("", "decoders.fast.", "decoders.best."):
        assert frozen.tensors[f"{prefix}filters.weight"].any()
    crop = LatentCrops(out / "crops" / "train")
    pixels = crop.pixels[8].transpose(1, 2, 0)
    data = old.compress(np.ascontiguousarray(pixels), channels=24)
    before = psnr_db(np.asarray(old.decompress(data)), pixels)
    standard, best = (
        psnr_db(np.asarray(codec.decompress(data, decoder=name)), pixels) for name in ("standard", "best")
    )
    assert standard > before + 0.01
    assert best > before + 0.01
    again = arguments.copy()
    again[again.index(str(MODEL))], again[again.index(str(out))] = (
        str(out / "model.safetensors"),
        str(tmp_path / "again"),
    )
    again[again.index("--epochs") + 1] = "1"
    again[again.index("decoders")] = "decoders.best"
    with pytest.raises(SystemExit) as stopped:
        main(again)
    assert stopped.value.code == 0, capsys.readouterr().err
    further = load(tmp_path / "again" / "model.safetensors")
    assert psnr_db(np.asarray(further.decompress(data, decoder="best")), pixels) > best - 0.2  # it did not start anew


def test_encoding_goes_on_where_it_stopped(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = PhotoFiles(sorted((photos / "train").glob("*.png")))
    whole = encode_crops(tmp_path / "whole", CropEncoder(MODEL, files, seed=1, effort=0), 5)
    monkeypatch.setattr("ohmq.training.photo.latent_crops.CROPS_A_TASK", 2)
    calls: list[int] = []
    stop = True

    class Counting(CropEncoder):
        def __call__(self, numbers):  # type: ignore[no-untyped-def]
            calls.extend(numbers)
            if stop and 2 in numbers:
                raise KeyboardInterrupt
            return super().__call__(numbers)

    encoder = Counting(MODEL, files, seed=1, effort=0)
    with pytest.raises(KeyboardInterrupt):
        encode_crops(tmp_path / "parts", encoder, 5)
    stop = False
    calls.clear()
    parts = encode_crops(tmp_path / "parts", encoder, 5)
    assert calls == [0, 2, 3, 4]  # the first gives the shapes
    for name in ("latents", "channels", "pixels"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
    assert len({whole.pixels[index].tobytes() for index in range(5)}) == 5
    with pytest.raises(ConfigError, match="crops of another job"):
        encode_crops(tmp_path / "parts", CropEncoder(MODEL, files, seed=2, effort=0), 5)


def test_decoders_need_a_photo_model_to_start_from(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, message in (
        ([], "--start-from"),
        (["--start-from", "mnist-ohm"], "no photo model"),
        (["--start-from", str(MODEL), "--minutes", "1"], "give epochs"),
        (["--start-from", str(MODEL), "--only", "decoders.slow"], "there are the decoders fast, standard, best"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(
                [
                    "train",
                    "--preset",
                    "photo",
                    "--only",
                    "decoders",
                    "--data",
                    str(photos),
                    "-o",
                    str(tmp_path / "o"),
                    *more,
                ]
            )
        assert stopped.value.code == 1
        assert message in capsys.readouterr().err
