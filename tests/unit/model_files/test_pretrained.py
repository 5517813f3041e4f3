"""The models that come with the package."""

from ohmq.model_files.frozen_model import load_model
from ohmq.model_files.pretrained import pretrained_model_ids, pretrained_models


def test_pretrained_models_load_and_have_cards() -> None:
    pretrained = pretrained_models()
    assert set(pretrained) == {"mnist-int", "mnist-ohm", "photo"}
    for name, path in pretrained.items():
        frozen = load_model(path, name)
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        assert frozen.model_id.hex() in card
        assert frozen.provenance["command"] in card
        assert path.stat().st_size < 20e6


def test_recorded_bitstream_ids() -> None:
    ids = {name: model_id.hex() for model_id, name in pretrained_model_ids().items()}
    # Files of other people have these ids: a pretrained model may get better transforms, never another id.
    assert ids == {"mnist-int": "0edf701d", "mnist-ohm": "e8211fa2", "photo": "cf07d25e"}
