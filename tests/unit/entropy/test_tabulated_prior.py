"""Crafted tensors of a prior."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_models import make_codec

from ohmq.encoder.rdoq import Rdoq
from ohmq.entropy import tabulated_prior
from ohmq.entropy.context_prior import IntegerContextPrior
from ohmq.entropy.layers import KnownSymbols, LayerDecoder, decode_layers, encode_layers
from ohmq.entropy.select_kernels import select_kernels
from ohmq.entropy.tabulated_prior import HELPED_ABOVE, IntegerTabulatedPrior
from ohmq.errors import BitstreamError

Array = NDArray[Any]


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("shape", [(1, 24, 23), (3, 16, 12), (2, 1, 400)])
def test_a_helper_changes_nothing(shape: tuple[int, int, int], compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = make_codec("photo").prior
    assert isinstance(prior, IntegerTabulatedPrior) and np.prod(shape) >= HELPED_ABOVE
    monkeypatch.setattr(tabulated_prior, "CHUNK_ROWS", 100)  # several chunks for each thread
    symbols = np.random.default_rng(0).integers(0, prior.alphabets, (1, *shape, prior.num_channels))
    ends, kernels = [prior.num_channels], select_kernels(compiled)
    payloads = encode_layers(prior, KnownSymbols(symbols), [ends], kernels=kernels).payloads[0][0]
    with ThreadPoolExecutor(1) as helper:
        decoded = LayerDecoder(prior, shape, kernels=kernels, helper=helper).decode(payloads, ends)
    assert np.array_equal(decoded.T.reshape(symbols.shape), symbols)
    assert len(prior.networks) > 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (1, 5, 1), (3, 2, 2), (2, 6, 9)])
def test_runs_that_a_kernel_decodes_equal_their_steps(shape: tuple[int, int, int]) -> None:
    prior, compiled = make_codec("photo").prior, select_kernels(True)
    assert isinstance(prior, IntegerTabulatedPrior) and prior.checkerboard_groups and compiled.decode_run is not None
    symbols = np.random.default_rng(1).integers(0, prior.alphabets, (1, *shape, prior.num_channels))
    ends = np.cumsum(prior.group_sizes).tolist()
    payloads = encode_layers(prior, KnownSymbols(symbols), [ends], kernels=compiled).payloads[0][0]
    for kernels in (compiled, compiled._replace(decode_run=None)):
        decoded = decode_layers(prior, payloads, ends, shape, kernels=kernels)
        assert np.array_equal(decoded[None], symbols)
        with pytest.raises(BitstreamError):
            decode_layers(prior, [b"\xff" * 400], ends[-1:], shape, kernels=kernels)


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
