"""Warm start of the photo codec: passes over transform coefficients, ordered by rate–distortion slope.

Each channel of the codec starts as one pass over one coefficient of the block transform: a uniform quantizer with a
dead zone of what earlier passes left, its codewords the conditional means, its table the counted symbols. Channels are
ordered by the distortion they save a bit, so that every prefix is near optimal before the first training step.
"""

import dataclasses
import heapq
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ohmq.errors import ConfigError
from ohmq.models import build_model
from ohmq.models.config import PhotoConfig
from ohmq.models.photo import (
    BLOCK,
    GREY_LEVELS,
    LATENT_SCALE,
    ChannelGain,
    PhotoIntegerModel,
    PhotoModel,
    ResidualBlock,
    block_filters,
)
from ohmq.models.priors.factorized import FactorizedPrior

__all__ = [
    "DEAD_ZONE",
    "PASSES",
    "PhotoDesign",
    "design_photo_codec",
    "extend_photo_model",
    "start_integer_model",
    "start_photo_model",
]

PASSES = (120.0, 56.0, 26.0, 12.0)
"""Quantizer steps of the passes over a coefficient, in grey levels."""
INTEGER_STEP = 56.0
"""The one step of the twin with integer rounding, in grey levels, before its gains are trained."""
DEAD_ZONE = 0.62
"""Half the width of the zero bin, in steps."""
GROUP_LIMITS = (1, 3, 6, 12, 20, 32, 48, 72, 96)
"""Most channels of each group, the last for all further ones: what comes early is context for much."""
ALPHABETS = (3, 5, 7, 9)
"""Sizes of a group's alphabet below the largest."""
CLIPPED_SHARE = 3e-4
"""Largest share of a channel's symbols that a smaller alphabet may clip."""
INTERLACED_GROUPS = 7
NUM_CUTS = 16
LOWEST_RATE_BPP = 0.05
"""Estimated rate of the first cut point."""
PRICED_SHARE = 0.6
"""Of what a bit is worth, what the choice of a symbol pays for it: the thresholds that are trained know of bits, too."""
DENSITY_STEPS = 400
"""Steps of Adam that fit the twin's densities to the untrained latents."""
_BLOCKS, _TRANSFORMS = ("analysis_blocks", "synthesis_blocks"), ("analysis_transform", "synthesis_transform")
SHARPNESS = 6.0
"""Inverse temperature times step: softer ones train faster at first and ruin the codec later."""


class _Pass(NamedTuple):
    """One pass over one coefficient; rate in bits and distortion saved in squared grey levels, a position."""

    coefficient: int
    step: float
    centroids: Tensor
    probabilities: Tensor
    rate: float
    saved: float


@dataclasses.dataclass(frozen=True)
class PhotoDesign:
    """What the warm start found.

    Attributes:
        config: the configuration with groups and cuts.
        passes: of each channel.
        rates_bpp: estimated rate of each prefix, shape (C,).
        lambdas: bits a pixel that a squared grey level (of 255) of mean squared error is worth at each prefix, (C,).
    """

    config: PhotoConfig
    passes: tuple[_Pass, ...]
    rates_bpp: Tensor
    lambdas: Tensor


@torch.no_grad()
def design_photo_codec(photos: Tensor, config: PhotoConfig) -> PhotoDesign:
    """Choose and order the passes.

    Args:
        photos: sample pictures in [0, 1], (N, 3, H, W), H and W multiples of 16. config: sizes; groups and cuts are
            found here.
    """
    filters, _ = block_filters(config.latent_channels)
    rows = [functional.conv2d((photo[None] - 0.5) * 255, filters, stride=BLOCK) for photo in photos]
    latent = torch.cat([z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]) for z in rows])
    integer = config.quantizer == "integer"
    steps, dead_zone = ((INTEGER_STEP,), 0.5) if integer else (PASSES, DEAD_ZONE)
    candidates = [_passes(d, latent[:, d], config.num_symbols, steps, dead_zone) for d in range(config.latent_channels)]
    order, slopes = _order(candidates, config.channels_max)
    rates = torch.tensor([p.rate for p in order]).cumsum(0) / BLOCK**2
    # Pixels have three values each: a bit saves slope squared grey levels of their sum.
    lambdas = torch.cummax(3 / torch.tensor(slopes), 0).values
    if integer:
        return PhotoDesign(dataclasses.replace(config, cuts=_cuts(rates)), tuple(order), rates, lambdas)
    groups = _groups([p.coefficient for p in order])
    config = dataclasses.replace(
        config,
        channels_max=len(order),
        groups=groups,
        alphabets=_alphabets(order, groups, config.num_symbols),
        checkerboard_groups=min(INTERLACED_GROUPS, len(groups)),
        cuts=_cuts(rates),
    )
    return PhotoDesign(config, tuple(order), rates, lambdas)


def _passes(
    coefficient: int, values: Tensor, num_symbols: int, steps: Sequence[float], dead_zone: float
) -> list[_Pass]:
    found, rest = [], values.clone()
    half = num_symbols // 2
    for smallest in steps:
        step = max(smallest, float(rest.abs().quantile(0.9998)) / ((num_symbols - 1) / 2))
        level = rest.sign() * torch.floor(rest.abs() / step + 1 - dead_zone).clamp_min(0)
        symbols = level.clamp(-half, num_symbols - 1 - half).long() + half
        count = torch.bincount(symbols, minlength=num_symbols).float()
        sums = torch.zeros(num_symbols).index_add_(0, symbols, rest)
        grid = (torch.arange(num_symbols) - half) * step
        centroids = torch.where(count > 5, sums / count.clamp_min(1), grid)
        probabilities = (count + 0.05) / (count + 0.05).sum()
        left = rest - centroids[symbols]
        saved = float(rest.square().mean() - left.square().mean())
        rate = float(-probabilities.log2()[symbols].mean())
        found.append(_Pass(coefficient, step, centroids, probabilities, rate, saved))
        rest = left
    return found


def _order(candidates: list[list[_Pass]], count: int) -> tuple[list[_Pass], list[float]]:
    """Passes by falling slope, those of a coefficient in order (along the convex hull of its curve)."""

    def best(passes: list[_Pass], first: int) -> tuple[float, int]:
        rate = saved = 0.0
        found = (-1.0, first)
        for last in range(first, len(passes)):
            rate, saved = rate + passes[last].rate, saved + passes[last].saved
            found = max(found, (saved / (rate + 1e-3), last), key=lambda item: item[0])
        return found

    heap: list[tuple[float, int, int, int]] = []
    for index, passes in enumerate(candidates):
        slope, last = best(passes, 0)
        heapq.heappush(heap, (-slope, index, 0, last))
    order: list[_Pass] = []
    slopes: list[float] = []
    while heap and len(order) < count:
        negative, index, first, last = heapq.heappop(heap)
        order += candidates[index][first : last + 1]
        slopes += [max(-negative, 1e-6)] * (last + 1 - first)
        if last + 1 < len(candidates[index]):
            slope, end = best(candidates[index], last + 1)
            heapq.heappush(heap, (-slope, index, last + 1, end))
    return order[:count], slopes[:count]


def _groups(coefficients: list[int], before: int = 0) -> tuple[int, ...]:
    """Sizes of groups after so many: they grow, and no coefficient is in a group twice, as its second pass needs the first."""
    sizes: list[int] = []
    current: set[int] = set()
    for coefficient in coefficients:
        limit = GROUP_LIMITS[min(before + len(sizes), len(GROUP_LIMITS) - 1)]
        if coefficient in current or len(current) >= limit:
            sizes.append(len(current))
            current = set()
        current.add(coefficient)
    return (*sizes, len(current))


def _alphabets(passes: Sequence[_Pass], groups: tuple[int, ...], largest: int) -> tuple[int, ...]:
    """The alphabet of each group: the smallest that clips next to nothing of its channels."""
    probabilities = torch.stack([p.probabilities for p in passes]).split(groups)

    def clipped(group: Tensor, size: int) -> float:
        return float(1 - _middle(group, size).sum(1).min())

    return tuple(
        next((size for size in ALPHABETS if size < largest and clipped(group, size) < CLIPPED_SHARE), largest)
        for group in probabilities
    )


def _middle(rows: Tensor, size: int) -> Tensor:
    """The middle columns."""
    first = rows.shape[-1] // 2 - size // 2
    return rows[..., first : first + size]


def _cuts(rates: Tensor) -> tuple[int, ...]:
    """Numbers of channels whose rates are evenly spread on a logarithmic scale."""
    last = rates[-1].log()
    wanted = torch.linspace(min(float(torch.tensor(LOWEST_RATE_BPP).log()), float(last)), float(last), NUM_CUTS).exp()
    found = (torch.searchsorted(rates, wanted) + 1).clamp(1, len(rates)).tolist()
    return tuple(sorted({*found, len(rates)}))


def start_integer_model(model: PhotoIntegerModel, design: PhotoDesign, photos: Tensor) -> None:
    """Order the block transform of a fresh twin as designed, set its gains, and fit its densities to photos in [0, 1]."""
    analysis, gain = model.analysis_transform.children()
    inverse, synthesis = model.synthesis_transform.children()
    assert isinstance(gain, ChannelGain)
    assert isinstance(inverse, ChannelGain)
    assert isinstance(model.prior, FactorizedPrior)
    order = torch.tensor([p.coefficient for p in design.passes])
    ratio = GREY_LEVELS / torch.tensor([p.step for p in design.passes])
    with torch.no_grad():
        for transform in (analysis, synthesis):
            transform.block.copy_(block_filters(len(order))[0][order])  # type: ignore[operator, union-attr]
        gain.log_gain.copy_(ratio.log())
        inverse.log_gain.copy_(-ratio.log())
        latent = torch.cat([model.analysis_transform(model.normalise(part)) for part in photos.split(8)])
    optimizer = torch.optim.Adam(model.prior.parameters(), 0.02)
    for step in range(DENSITY_STEPS):
        part = latent[step * 8 % len(latent) :][:8]
        optimizer.zero_grad()
        model.prior.bits(model.quantizer(part).latent_hat).mean().backward()
        optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def start_photo_model(model: PhotoModel, design: PhotoDesign) -> None:
    """Set the quantizer and the prior of a fresh model to a design."""
    quantizer, prior = model.quantizer, model.prior
    assert prior is not None
    coefficients = torch.tensor([p.coefficient for p in design.passes])
    steps = torch.tensor([p.step for p in design.passes]) / GREY_LEVELS
    directions = torch.eye(quantizer.latent_channels)[coefficients]
    quantizer.project.copy_(directions)
    quantizer.directions.copy_(directions)
    start = 0
    for size, alphabet in zip(design.config.group_sizes, design.config.group_symbols, strict=True):
        for c in range(start, start + size):
            found = design.passes[c]
            quantizer.centres[c, :alphabet] = _centres(alphabet) * steps[c]
            quantizer.values[c, :alphabet] = _middle(found.centroids, alphabet) / GREY_LEVELS
            prior.logits[c, :alphabet] = _middle(found.probabilities, alphabet).log()
        start += size
    quantizer.log_temperature.copy_((SHARPNESS / steps).log())
    prior.own_scale.copy_(1 / steps)
    prior.input_scale.fill_(LATENT_SCALE)
    set_bit_price(model, design.lambdas)


def set_bit_price(model: PhotoModel, lambdas: Tensor) -> None:
    """Let a bit cost `PRICED_SHARE` of what it is worth at each number of channels, if the model prices its bits."""
    if model.quantizer.supports_rdoq:
        latent = 3 * BLOCK**2 / GREY_LEVELS**2  # squared units of the latent in one squared grey level
        model.quantizer.bit_price.copy_(PRICED_SHARE * latent / BLOCK**2 / lambdas)


@torch.no_grad()
def extend_photo_model(model: PhotoModel, design: PhotoDesign) -> tuple[PhotoModel, PhotoDesign]:
    """A trained model to train on from: as it is, or larger if the design is.

    What it has stays as it is. Further channels follow, as passes of the design in groups of their own; further residual
    blocks come after the others of their resolution and start at zero, as do networks of neighbours' symbols.

    Args:
        model: what is trained already. design: of the photos to train on; to get more channels, those that the model was
            trained on.

    Returns:
        The model, and the design with its groups, alphabets and cut points. Rates and lambdas of its prefixes stay those of
        the design.

    Raises:
        ConfigError: a design of another configuration, of fewer channels or blocks, or of more channels that do not begin
            with the model's.
    """
    held, wanted = model.config, design.config
    assert isinstance(held, PhotoConfig)
    if held.distilled_channels:  # a quick analysis is trained on as it is
        wanted = dataclasses.replace(
            wanted, distilled_channels=held.distilled_channels, analysis_blocks=held.analysis_blocks
        )
    found = ("channels_max", "groups", "alphabets", "cuts", "checkerboard_groups", *_BLOCKS)
    added = [("neighbour_hidden", 0), ("supports_rdoq", False)]
    changed = [f"{key} is {value!r}, not {getattr(wanted, key)!r}" for key, value in dataclasses.asdict(held).items()
               if key not in found and value != getattr(wanted, key) and (key, value) not in added]  # fmt: skip
    changed += [f"{key} is {getattr(held, key)!r}, more than {getattr(wanted, key)!r}" for key in _BLOCKS
                if any(a > b for a, b in zip(getattr(held, key), getattr(wanted, key), strict=True))]  # fmt: skip
    if changed:
        raise ConfigError(f"what training starts from has another configuration: {'; '.join(changed)}")
    coefficients = [p.coefficient for p in design.passes]
    count = held.channels_max
    larger = dataclasses.replace(
        held, **{key: getattr(wanted, key) for key in ("neighbour_hidden", "supports_rdoq", *_BLOCKS)}
    )
    if count == len(coefficients):
        model = _enlarged(model, larger)
        set_bit_price(model, design.lambdas)
        return model, dataclasses.replace(design, config=larger)
    if count > len(coefficients):
        raise ConfigError(
            f"the model that training starts from has {count} channels, more than {len(coefficients)}: "
            f"--channels-max {count} keeps them all"
        )
    if model.quantizer.project.abs().argmax(1).tolist() != coefficients[:count]:
        raise ConfigError(
            f"{len(coefficients)} channels for these photos do not begin with the {count} of the model that training "
            "starts from: for more channels give the photos that it was trained on"
        )
    model = _enlarged(model, larger)
    further = _groups(coefficients[count:], len(held.group_sizes))
    config = dataclasses.replace(
        wanted,
        groups=held.group_sizes + further,
        alphabets=held.group_symbols + _alphabets(design.passes[count:], further, wanted.num_symbols),
        cuts=(*held.cut_points, len(coefficients)),
        checkerboard_groups=held.checkerboard_groups,
    )
    design = dataclasses.replace(design, config=config)
    extended = build_model(config)
    assert isinstance(extended, PhotoModel)
    start_photo_model(extended, design)
    state = extended.state_dict()
    for name, value in model.state_dict().items():
        if value.dim():
            state[name][: len(value)] = value  # channel by channel; what has another first axis is as long as before
        else:
            state[name].copy_(value)
    set_bit_price(extended, design.lambdas)
    return extended, design


def _enlarged(model: PhotoModel, config: PhotoConfig) -> PhotoModel:
    """The model with the residual blocks and the neighbours' networks of a configuration that is otherwise its own."""
    if config == model.config:
        return model
    larger = build_model(config)
    assert isinstance(larger, PhotoModel)
    for name, part in model.named_children():
        if name not in _TRANSFORMS:
            place = getattr(larger, name)
            place.load_state_dict(place.state_dict() | part.state_dict())
    for name in _TRANSFORMS:
        before, after = getattr(model, name), getattr(larger, name)
        after.block.copy_(before.block)
        places = iter(after.path)
        for layer in before.path:
            place = next(places)
            while isinstance(place, ResidualBlock) and not isinstance(layer, ResidualBlock):
                place = next(places)  # past further blocks
            place.load_state_dict(layer.state_dict())
    return larger


def _centres(num_symbols: int) -> Tensor:
    """Centres in steps such that half-way between neighbours lies a dead-zone quantizer's threshold."""
    centres = [0.0]
    for level in range(num_symbols // 2):
        centres.append(2 * (DEAD_ZONE + level) - centres[-1])
    positive = torch.tensor(centres)
    both = torch.cat([-positive[1:].flip(0), positive])
    return both[:num_symbols]
