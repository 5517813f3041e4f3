"""The registry of models: the codec of a file."""

import pytest
from PIL import Image

import ohmq
from ohmq import loading
from ohmq.bitstream.reader import read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.codec import Codec
from ohmq.errors import NotOhmFileError
from ohmq.loading import load_for


def test_the_codec_of_a_file(
    photo_codec: Codec,
    context_codec: Codec,
    crop: Image.Image,
    digit: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "_REGISTRY", loading.ModelRegistry())  # other tests register models
    data = photo_codec.compress(crop, channels=6)
    assert load_for(data).model_id == photo_codec.model_id
    assert load_for(data[:200]) is load_for(data)
    with pytest.raises(ohmq.ModelMismatchError, match="not a shipped one"):
        load_for(context_codec.compress(digit))
    with pytest.raises(NotOhmFileError):
        load_for(b"GIF89a")
    assert read_ohm(truncate_ohm(data, num_layers=1)).num_channels == 6
