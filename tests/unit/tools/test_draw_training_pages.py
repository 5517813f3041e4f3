"""Screens, text and line art drawn by tools/draw_training_pages.py, to train on."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ohmq.datasets.photos import CropLoader, photo_files, photo_folder
from ohmq.errors import ConfigError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_training_pages", ROOT / "tools" / "draw_training_pages.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fonts(tool: ModuleType) -> list[Path]:
    return tool.find_fonts([])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_picture_depends_on_seed_and_number_alone(tool: ModuleType, fonts: list[Path], number: int) -> None:
    kind, first = tool.draw_picture(5, number, fonts)
    assert kind == tool.KINDS[number]
    assert tool.draw_picture(5, number, fonts)[1].tobytes() == first.tobytes()
    assert tool.draw_picture(6, number, fonts)[1].tobytes() != first.tobytes()
    assert min(first.size) >= tool.SIDES[0] and max(first.size) <= tool.SIDES[1]
    pixels = np.asarray(first)
    assert (pixels == pixels[0, 0]).all(-1).mean() < 0.99  # something is drawn


def test_a_run_is_continued(tool: ModuleType, fonts: list[Path], tmp_path: Path) -> None:
    whole = tool.draw_all(tmp_path / "whole", 3, seed=1, fonts=fonts)
    rest = tool.draw_all(tmp_path / "rest", 1, seed=1, first=2, fonts=fonts)
    assert [path.name for path in whole][2:] == [path.name for path in rest]
    assert whole[2].read_bytes() == rest[0].read_bytes()


def test_letters_are_smoothed_in_three_ways(tool: ModuleType, fonts: list[Path]) -> None:
    levels = {}
    for seed in range(14):
        page = tool.Page(np.random.default_rng(seed), (64, 32), fonts)
        page.image.paste((255, 255, 255), (0, 0, *page.image.size))
        page.write((2, 2), "WOVEN", page.font(16, "latin"), (0, 0, 0))
        pixels = np.asarray(page.finish())
        levels[page.smoothing] = len(np.unique(pixels)), bool(np.ptp(pixels, -1).any())
    assert levels["none"] == (2, False)
    assert levels["grey"][0] > 2 and not levels["grey"][1]
    assert levels["subpixels"][1]


def test_training_reads_them(tool: ModuleType, fonts: list[Path], tmp_path: Path) -> None:
    files = tool.draw_all(tmp_path / "photos" / "train", 2, seed=3, fonts=fonts)
    assert photo_files(photo_folder(tmp_path, "train"), 512) == files
    (batch,) = CropLoader(files, 2, 256)
    assert batch.shape == (2, 3, 256, 256)


def test_missing_fonts_are_named(tool: ModuleType, fonts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.ttf, \.otf or \.ttc file in"):
        tool.find_fonts([tmp_path])
    symbols = list(fonts[0].parent.glob("STIXSizThreeSymReg.ttf"))
    page = tool.Page(np.random.default_rng(0), (64, 64), symbols)
    with pytest.raises(ConfigError, match="none of 1 fonts has the letters of greek"):
        page.font(12, "greek")
