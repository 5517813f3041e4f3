"""Use of a codec: batches, threads, and settings of the program that stay as they are."""

import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from ohmq.codec import Codec
from ohmq.imaging.convert import ImageConversionWarning
from ohmq.loading import load


def test_batches(context_codec: Codec, digits: list[Image.Image]) -> None:
    some = digits[:3]
    expected = [context_codec.compress(image, channels=3) for image in some]
    array = np.stack([np.asarray(image) for image in some])
    for batch in (some, array, torch.from_numpy(array)[:, None], torch.from_numpy(array)[:, None] / 255):
        assert context_codec.compress_batch(batch, channels=3) == expected
    with pytest.raises(ValueError, match="compress_batch"):
        context_codec.compress(torch.from_numpy(array)[:, None])


def test_no_setting_of_the_program_is_touched(context_codec: Codec, digit: Image.Image) -> None:
    import random

    def settings() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.random.get_rng_state().tolist(),
            random.getstate(),
            repr(np.random.get_state()),
            repr(np.geterr()),
            Image.MAX_IMAGE_PIXELS,
            list(warnings.filters),
        )

    before = settings()
    data = context_codec.compress(digit, psnr=1)
    assert settings() == before
    for _ in context_codec.decompress_progressive(data):
        assert settings() == before  # also between two images
    context_codec.decompress(data)
    load("photo")
    assert settings() == before
    with torch.no_grad():
        context_codec.decompress(data)
        assert not torch.is_grad_enabled()


def test_threads_compress_and_decompress_at_once(photo_codec: Codec, crop: Image.Image) -> None:
    codec = load("photo")  # nothing cached yet
    expected = photo_codec.compress(crop, bpp=1)
    shown = photo_codec.decompress(expected).tobytes()
    found: list[tuple[bytes, bytes]] = []

    def work() -> None:
        data = codec.compress(crop, bpp=1)
        found.append((data, codec.decompress(data).tobytes()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(expected, shown)] * 4


def test_losses_are_warnings(photo_codec: Codec) -> None:
    with pytest.warns(ImageConversionWarning, match="alpha channel flattened onto white") as caught:
        data = photo_codec.compress(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), channels=6, flatten=True)
    assert caught[0].filename == __file__
    assert np.asarray(photo_codec.decompress(data)).mean() > 200
