"""Crafted tensors of a prior."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_models import make_codec

from ohmq.encoder.rdoq import Rdoq
from ohmq.entropy.context_prior import IntegerContextPrior
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior

Array = NDArray[Any]


@pytest.mark.parametrize("codec_name", ["photo", "static"])
def test_crafted_tensors_are_refused(codec_name: str) -> None:
    """Compiled functions check no bounds: they would read beyond the ends of such tensors."""
    prior = make_codec(codec_name).prior
    assert prior is not None

    def altered(**tensors: Array) -> None:
        changed = {**prior.tensors, **{name.replace("_", "."): value for name, value in tensors.items()}}
        if isinstance(prior, IntegerContextPrior):
            IntegerContextPrior(changed, prior.group_sizes)
        else:
            IntegerTabulatedPrior(changed, prior.group_sizes, [9] * len(prior.group_sizes), prior.checkerboard_groups)

    if codec_name == "static":
        with pytest.raises(ValueError, match="frequencies is int64"):
            altered(frequencies=prior.tensors["frequencies"].astype(np.int64))
        return
    altered()
    for name in ("own", "places", "neighbour_bias"):
        with pytest.raises(ValueError, match="is float32; expected int16 or int32"):
            altered(**{name: np.full(prior.tensors[name.replace("_", ".")].shape, np.nan, np.float32)})
    for name in ("own", "values", "directions", "features"):
        with pytest.raises(ValueError, match=f"{name} has shape"):
            altered(**{name: prior.tensors[name][:-1]})
    with pytest.raises(ValueError, match="values has shape"):
        altered(values=prior.tensors["values"][:, :1])
    with pytest.raises(ValueError, match="exp2 has shape"):
        altered(exp2=prior.tensors["exp2"][:-1])
    quantizer = dict(make_codec("photo").transforms.quantizer)
    quantizer["centres"] = quantizer["centres"][:4]
    assert isinstance(prior, IntegerTabulatedPrior)
    with pytest.raises(ValueError, match="the quantizer's centres has shape"):
        Rdoq(prior, quantizer, np.zeros((1, 1, 2, 2, 12), np.float32), 24)
