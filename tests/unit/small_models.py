"""Small models with random weights."""

import torch

from ohmq.codec import Codec
from ohmq.model_file import freeze
from ohmq.models import CompressionModel, MnistConfig, build_model

CONFIGS = {
    "static": MnistConfig(channels_max=5, num_symbols=7),
    "context": MnistConfig(channels_max=6, num_symbols=19, prior="context", refinement=True, context_group=2),
    "integer": MnistConfig(channels_max=4, num_symbols=16, quantizer="integer"),
}


def make_model(name: str) -> CompressionModel:
    """A model with random weights; its context networks and priors are far from flat."""
    torch.manual_seed(7)
    model = build_model(CONFIGS[name])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.startswith("prior.networks"):
                parameter.normal_(std=0.08)
            if key == "quantizer.codewords":
                parameter.mul_(5)
            if key.startswith(("analysis_transform", "prior.static.network.2")):
                parameter.mul_(4)
    return model


def make_codec(name: str) -> Codec:
    """A codec of it."""
    return Codec(freeze(make_model(name), name))
