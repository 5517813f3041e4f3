"""Freezing: the same weights give the same model, and bad ones none."""

import pytest
import torch
from support.small_models import make_codec, make_model

from ohmq.errors import ModelFileError
from ohmq.model_files.freeze import freeze, prior_tables


def test_freezing_twice_gives_the_same_model() -> None:
    assert make_codec("context").model_id == make_codec("context").model_id
    model = make_model("context")
    before = freeze(model).model_id
    with torch.no_grad():
        model.quantizer.output_bias[0] += 1  # type: ignore[union-attr, operator]
    assert freeze(model).model_id != before


def test_diverged_weights_are_not_frozen() -> None:
    model = make_model("static")
    with torch.no_grad():
        model.quantizer.codewords[0, 0, 0] = float("nan")  # type: ignore[union-attr, index, operator]
    with pytest.raises(ModelFileError, match="not finite"):
        freeze(model)


def test_an_unknown_prior_has_no_tables() -> None:
    with pytest.raises(TypeError, match="no integer tables of Linear"):
        prior_tables(torch.nn.Linear(1, 1), torch.nn.Identity())
