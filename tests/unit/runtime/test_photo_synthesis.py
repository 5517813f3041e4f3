"""Synthesis in windows: the same as of the whole image, in bfloat16 nearly so, in threads that leave torch's settings alone."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.small_models import make_photo_model, random_filters

from ohmq.codec import Codec
from ohmq.errors import ModelFileError
from ohmq.geometry import Window
from ohmq.models.decoders import DecoderConfig, LadderDecoder
from ohmq.models.photo import PhotoModel, PhotoSynthesis
from ohmq.runtime import photo_synthesis
from ohmq.runtime.devices import has_bfloat16
from ohmq.runtime.photo_synthesis import PhotoWindows
from ohmq.runtime.workers import map_windows

CHANNELS = 9
GRID = (11, 13)
DECODERS = {
    "standard": None,
    "fast": DecoderConfig((8, 6, 0), (1, 2, 0)),
    "best": DecoderConfig((12, 8, 6), (1, 1, 1), up_kernel=4),
}


@pytest.fixture(scope="module")
def model() -> PhotoModel:
    return make_photo_model()


def transform(model: PhotoModel, name: str) -> PhotoSynthesis | LadderDecoder:
    config = DECODERS[name]
    if config is None:
        return model.synthesis_transform
    torch.manual_seed(2)
    decoder = LadderDecoder(model.config.latent_channels, config).eval()
    for parameter in decoder.path.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return decoder


def latent(model: PhotoModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    depth = model.synthesis_transform.block.shape[0]
    return (3 * torch.randn(1, depth, *GRID, generator=generator)).to(memory_format=torch.channels_last)


def pixels(
    windows: PhotoWindows, y: torch.Tensor, inside: Window | None = None, filters: bool = False
) -> NDArray[np.int64]:
    def part(window: Window) -> torch.Tensor:
        return y[:, :, window.rows, window.columns]

    whole = inside or Window(0, 0, *GRID)
    return windows.pixels(part, GRID, whole, CHANNELS, random_filters() if filters else None).astype(int)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("filters", [False, True])
def test_windows_are_parts_of_the_whole(
    model: PhotoModel, monkeypatch: pytest.MonkeyPatch, name: str, filters: bool
) -> None:
    y, module = latent(model), transform(model, name)
    with torch.no_grad():
        normalised = module(y) if isinstance(module, PhotoSynthesis) else module(y, torch.tensor([CHANNELS]))
        image = (model.denormalise(normalised)[0].clamp(0, 1) * 255).numpy()
    expected = (random_filters().apply(image, CHANNELS) if filters else image).round().clip(0, 255).astype(int)
    monkeypatch.setattr(photo_synthesis, "WINDOW_ROWS", 3)
    monkeypatch.setattr(photo_synthesis, "WINDOW_COLUMNS", 5)
    seen: list[Window] = []
    divided = photo_synthesis.divided
    monkeypatch.setattr(photo_synthesis, "divided", lambda inside: [seen.append(w) or w for w in divided(inside)])
    windows = PhotoWindows(module, 0.5, model.std, bfloat16=False)  # type: ignore[arg-type]
    found = pixels(windows, y, filters=filters)
    assert len(seen) == 12 and np.ptp(expected) > 100 and float(module.path[-2].weight.detach().abs().max()) > 0.01  # type: ignore[union-attr,arg-type]
    assert np.abs(found - expected).max() <= 1
    inside = Window(2, 3, 9, 8)
    part = pixels(windows, y, inside, filters)
    assert np.abs(part - expected[:, 32:144, 48:128]).max() <= 1


def test_one_thread_and_several_give_the_same(model: PhotoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_synthesis, "WINDOW_ROWS", 4)
    windows, before = PhotoWindows(transform(model, "fast"), 0.5, 0.1, bfloat16=has_bfloat16(cpu=True)), []
    y = latent(model)
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            before.append(pixels(windows, y))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*before)


def test_threads_of_windows_have_one_thread_each_and_others_keep_theirs() -> None:
    threads = torch.get_num_threads()
    seen: list[tuple[str, int]] = []
    try:
        torch.set_num_threads(3)
        map_windows(lambda _: seen.append((threading.current_thread().name, torch.get_num_threads())), range(9))
        assert {number for _, number in seen} == {1} and all(name.startswith("ohmq-window") for name, _ in seen)
        assert torch.get_num_threads() == 3
        other = threading.Thread(target=lambda: seen.append(("new", torch.get_num_threads())))
        other.start()
        other.join()
        assert seen[-1] == ("new", 3)
        with pytest.raises(KeyError):
            map_windows(lambda number: {}[number], [1, 2])
        torch.set_num_threads(1)
        map_windows(lambda _: seen.append((threading.current_thread().name, 0)), [1])
        assert seen[-1][0] == threading.current_thread().name
    finally:
        torch.set_num_threads(threads)


def test_bfloat16_stays_within_one_of_float32_before_the_filter(photo_codec: Codec) -> None:
    """On a real picture, at few and at many channels."""
    with Image.open(Path(__file__).parents[3] / "examples" / "photos" / "chelsea.png") as photo:
        image = photo.convert("RGB").crop((64, 64, 320, 256))
    symbols = photo_codec.decode(photo_codec.compress(image, channels=402, effort=0))[1].values
    model = photo_codec.transforms.model  # type: ignore[attr-defined]
    for channels in (64, 402):

        def part(window: Window, channels: int = channels) -> torch.Tensor:
            values = torch.from_numpy(symbols[:, window.rows, window.columns])
            return torch.as_tensor(model.dequantize(values, channels))

        grid: tuple[int, int] = symbols.shape[1:3]
        one, two = (
            PhotoWindows(model.synthesis_transform, model.mean, model.std, bfloat16=low).pixels(
                part, grid, Window(0, 0, *grid), channels, None
            )
            for low in (False, True)
        )
        difference = np.abs(one.astype(int) - two)
        assert difference.max() == 1 and 0.001 < difference.mean() < 0.2


def test_weights_that_are_no_numbers_are_an_error(model: PhotoModel) -> None:
    module = transform(model, "fast")
    torch.nn.init.constant_(module.path[0].weight, float("nan"))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="no numbers"):
        pixels(PhotoWindows(module, 0.5, 0.1, bfloat16=False), latent(model))
