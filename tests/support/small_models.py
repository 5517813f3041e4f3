"""Small models with random weights."""

import dataclasses

import numpy as np
import torch
from PIL import Image

from ohmq.codec import Codec
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import with_post_filter
from ohmq.models import CompressionModel, MnistConfig, PhotoConfig, PhotoModel, build_model
from ohmq.postfilter.classes import CLASSES, FEATURES
from ohmq.postfilter.filters import PostFilter
from ohmq.training.photo.initialise import PhotoDesign, design_photo_codec, initialise_photo_model

CONFIGS = {
    "static": MnistConfig(channels_max=5, num_symbols=7),
    "context": MnistConfig(
        channels_max=6, num_symbols=19, prior="context", residual_quantization=True, context_group=2
    ),
    "integer": MnistConfig(channels_max=4, num_symbols=16, quantizer="integer"),
}


def make_model(name: str) -> CompressionModel:
    """Make a model with random weights whose context networks and priors are far from flat."""
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
    """Make the codec of a model of `CONFIGS`, of the small photo model ("photo"), or of that with a post-filter ("filters")."""
    if name == "filters":
        return Codec(with_post_filter(freeze(make_photo_model(), name), random_filters(), {}))
    return Codec(freeze(make_photo_model() if name == "photo" else make_model(name), name))


def random_filters(size: float = 0.01) -> PostFilter:
    """Make a post-filter of random weights for 4 and for 12 channels."""
    weight = np.random.default_rng(5).normal(0, size, (2, CLASSES, 3, FEATURES))
    return PostFilter.rounded([4, 12], weight)


PHOTO = PhotoConfig(
    channels_max=24, latent_channels=12, num_symbols=9, wide=8, wider=12, context_projection=3, context_hidden=5,
    neighbour_hidden=3,
)  # fmt: skip


def photo_picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Make an image of smooth shapes and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 40
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
    pixels = 128 + 60 * np.stack(waves, -1) + 30 * np.sign(waves[0])[..., None] + rng.normal(0, 4, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def photo_design() -> PhotoDesign:
    """Design a codec with checkerboard groups and others, and alphabets of different sizes."""
    photos = [torch.from_numpy(np.asarray(photo_picture(128, 128, seed)).copy()) for seed in range(8)]
    design = design_photo_codec(torch.stack(photos).permute(0, 3, 1, 2) / 255, PHOTO)
    return dataclasses.replace(design, config=dataclasses.replace(design.config, checkerboard_groups=2))


def make_photo_model() -> PhotoModel:
    """Make an initialised photo model whose context networks and convolutions are far from zero."""
    design = photo_design()
    torch.manual_seed(3)
    built = build_model(design.config)
    assert isinstance(built, PhotoModel)
    initialise_photo_model(built, design)
    assert built.prior is not None
    with torch.no_grad():
        for network in built.prior.networks:
            network[4].weight.normal_(std=0.6)  # type: ignore[index]
            network[4].bias.normal_(std=0.5)  # type: ignore[index]
        built.prior.own.normal_(std=0.5)
        built.prior.spatial.normal_(std=0.2)
        assert built.prior.neighbours is not None
        built.prior.neighbours.bias.normal_(std=0.5)
        built.prior.neighbours.out.normal_(std=0.3)
        built.synthesis_transform.path[-2].weight.normal_(std=0.01)  # type: ignore[index]
    return built
