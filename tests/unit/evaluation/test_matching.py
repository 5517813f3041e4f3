"""Files of several codecs at nearly equal sizes."""

import math

import numpy as np
import pytest
from support.small_models import make_codec

from ohmq.evaluation.classic import code_classic
from ohmq.evaluation.compare import ModelSetting, compare_codecs
from ohmq.evaluation.matching import match_rates


def test_the_nearest_file_is_found() -> None:
    codec = make_codec("static")
    pixels = np.random.default_rng(0).integers(0, 256, (28, 56), np.uint8)  # the model's file is within WebP's reach
    results = compare_codecs(codec, [("x", pixels)], [ModelSetting(channels=5)], ["webp", "jpeg2000"], rates=2)
    ((model, *others),) = match_rates(codec, [("x", pixels)], results, 0, [1])
    sizes = {quality: len(code_classic("webp", pixels, quality).data) for quality in range(101)}
    wanted = model.file_bpp * pixels.size / 8
    best = min(abs(math.log(size / wanted)) for size in sizes.values())
    assert abs(math.log(others[0].file_bpp / model.file_bpp)) == pytest.approx(best, abs=0.05)
