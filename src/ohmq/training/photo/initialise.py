"""Initialisation of photo models: passes over transform coefficients, ordered by rate–distortion slope.

Each channel of the codec starts as one pass over one coefficient of the block transform: a uniform dead-zone
quantizer of the residual of earlier passes, its codewords the conditional means, its table the counted symbols.
Channels are ordered by the distortion that they save per bit, as the coding passes of embedded image coders are
(Taubman, High performance scalable image compression with EBCOT, 2000), so that every prefix is near optimal before
the first training step.
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
    "ALPHABETS",
    "CHECKERBOARD_GROUPS",
    "CLIPPED_SHARE",
    "DEAD_ZONE",
    "PASSES",
    "CoefficientPass",
    "PhotoDesign",
    "design_photo_codec",
    "extend_photo_model",
    "group_sizes",
    "initialise_integer_model",
    "initialise_photo_model",
    "set_lagrange_multipliers",
]

PASSES = (120.0, 56.0, 26.0, 12.0)
"""Quantizer steps of the passes over a coefficient, in grey levels."""
INTEGER_STEP = 56.0
"""Quantizer step of the twin with integer rounding, in grey levels, before its gains are trained."""
DEAD_ZONE = 0.62
"""Half the width of the zero bin, in steps."""
GROUP_LIMITS = (1, 3, 6, 12, 20, 32, 48, 72, 96)
"""Largest sizes of the channel-conditional groups, the last for all further ones: early groups are context for many."""
ALPHABETS = (3, 5, 7, 9)
"""Sizes of a group's alphabet below the largest."""
CLIPPED_SHARE = 3e-4
"""Largest share of a channel's symbols that a smaller alphabet may clip."""
CHECKERBOARD_GROUPS = 7
"""Groups that are coded with the three-pass checkerboard context."""
NUM_CUTS = 16
"""Cut points of the design, before equal ones are merged."""
LOWEST_RATE_BPP = 0.05
"""Estimated rate of the first cut point."""
RDOQ_SHARE = 0.6
"""Fraction of the optimal Lagrange multiplier used by RDOQ: the trained thresholds account for bits as well."""
DENSITY_STEPS = 400
"""Steps of Adam that fit the twin's factorized prior to the untrained latents."""
DENSITY_BATCH = 8
"""Crops of such a step."""
SHARPNESS = 6.0
"""Inverse temperature times step: softer quantizers train faster at first and ruin the codec later."""
_BLOCKS, _TRANSFORMS = ("analysis_blocks", "synthesis_blocks"), ("analysis_transform", "synthesis_transform")


class CoefficientPass(NamedTuple):
    """One pass of a quantizer over one coefficient of the block transform.

    Attributes:
        coefficient: index of the coefficient.
        step: quantizer step, in grey levels.
        centroids: codewords, (S,), in grey levels.
        probabilities: of the symbols, (S,).
        rate: bits per position.
        saved: distortion that the pass removes, squared grey levels per position.
    """

    coefficient: int
    step: float
    centroids: Tensor
    probabilities: Tensor
    rate: float
    saved: float


@dataclasses.dataclass(frozen=True)
class PhotoDesign:
    """Order, quantizers and rates of the channels of a photo codec.

    Attributes:
        config: the configuration, with groups, alphabets and cuts.
        passes: the pass that each channel starts as, C of them.
        rates_bpp: estimated rate of each prefix of the channels, (C,).
        lambdas: Lagrange multiplier of each prefix, (C,): bits per pixel that one squared grey level (of 255) of mean
            squared error is worth.
    """

    config: PhotoConfig
    passes: tuple[CoefficientPass, ...]
    rates_bpp: Tensor
    lambdas: Tensor


@torch.no_grad()
def design_photo_codec(photos: Tensor, config: PhotoConfig) -> PhotoDesign:
    """Choose the passes of the channels, their order, groups, alphabets and cut points.

    Args:
        photos: sample images in [0, 1], (N, 3, H, W), H and W multiples of 16.
        config: sizes of the model; its groups, alphabets and cuts are replaced.

    Returns:
        The design; for integer rounding, with one pass per coefficient and without groups.
    """
    filters, _ = block_filters(config.latent_channels)
    latents = [functional.conv2d((photo[None] - 0.5) * 255, filters, stride=BLOCK) for photo in photos]
    rows = torch.cat([latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1]) for latent in latents])
    integer = config.quantizer == "integer"
    steps, dead_zone = ((INTEGER_STEP,), 0.5) if integer else (PASSES, DEAD_ZONE)
    candidates = [
        _coefficient_passes(d, rows[:, d], num_symbols=config.num_symbols, steps=steps, dead_zone=dead_zone)
        for d in range(config.latent_channels)
    ]
    order, slopes = _order_by_slope(candidates, config.channels_max)
    rates = torch.tensor([p.rate for p in order]).cumsum(0) / BLOCK**2
    # The slope counts the squared error of a pixel's three values together, the mean squared error a third of that.
    lambdas = torch.cummax(3 / torch.tensor(slopes), 0).values
    if integer:
        return PhotoDesign(dataclasses.replace(config, cuts=_cuts(rates)), tuple(order), rates, lambdas)
    groups = group_sizes([p.coefficient for p in order])
    config = dataclasses.replace(
        config,
        channels_max=len(order),
        groups=groups,
        alphabets=_alphabets(order, groups, config.num_symbols),
        checkerboard_groups=min(CHECKERBOARD_GROUPS, len(groups)),
        cuts=_cuts(rates),
    )
    return PhotoDesign(config, tuple(order), rates, lambdas)


def _coefficient_passes(
    coefficient: int, values: Tensor, *, num_symbols: int, steps: Sequence[float], dead_zone: float
) -> list[CoefficientPass]:
    """Quantize a coefficient's values (rows,) in successive passes, each with the residual of the one before."""
    passes, residual = [], values.clone()
    half = num_symbols // 2
    for smallest_step in steps:
        step = max(smallest_step, float(residual.abs().quantile(0.9998)) / ((num_symbols - 1) / 2))
        level = residual.sign() * torch.floor(residual.abs() / step + 1 - dead_zone).clamp_min(0)
        symbols = level.clamp(-half, num_symbols - 1 - half).long() + half
        count = torch.bincount(symbols, minlength=num_symbols).float()
        sums = torch.zeros(num_symbols).index_add_(0, symbols, residual)
        grid = (torch.arange(num_symbols) - half) * step
        centroids = torch.where(count > 5, sums / count.clamp_min(1), grid)
        probabilities = (count + 0.05) / (count + 0.05).sum()
        next_residual = residual - centroids[symbols]
        passes.append(
            CoefficientPass(
                coefficient,
                step,
                centroids,
                probabilities,
                rate=float(-probabilities.log2()[symbols].mean()),
                saved=float(residual.square().mean() - next_residual.square().mean()),
            )
        )
        residual = next_residual
    return passes


def _order_by_slope(candidates: list[list[CoefficientPass]], count: int) -> tuple[list[CoefficientPass], list[float]]:
    """Order passes by falling slope, those of a coefficient in sequence (along the convex hull of its curve).

    Returns the first ``count`` passes, and the slope of each.
    """

    def steepest(passes: list[CoefficientPass], first: int) -> tuple[float, int]:
        """Find the steepest run of passes from ``first`` on: its slope and its last pass."""
        rate = saved = 0.0
        steepest = (-1.0, first)
        for last in range(first, len(passes)):
            rate, saved = rate + passes[last].rate, saved + passes[last].saved
            steepest = max(steepest, (saved / (rate + 1e-3), last), key=lambda run: run[0])
        return steepest

    heap: list[tuple[float, int, int, int]] = []
    for index, passes in enumerate(candidates):
        slope, last = steepest(passes, 0)
        heapq.heappush(heap, (-slope, index, 0, last))
    order: list[CoefficientPass] = []
    slopes: list[float] = []
    while heap and len(order) < count:
        negative, index, first, last = heapq.heappop(heap)
        order += candidates[index][first : last + 1]
        slopes += [max(-negative, 1e-6)] * (last + 1 - first)
        if last + 1 < len(candidates[index]):
            slope, end = steepest(candidates[index], last + 1)
            heapq.heappush(heap, (-slope, index, last + 1, end))
    return order[:count], slopes[:count]


def group_sizes(coefficients: list[int], earlier_groups: int = 0) -> tuple[int, ...]:
    """Divide channels into groups of growing size that hold no coefficient twice: its second pass needs the first.

    Args:
        coefficients: coefficient of each channel.
        earlier_groups: groups before them.

    Example:
        >>> group_sizes([0, 1, 2, 1, 3])
        (1, 2, 2)
    """
    sizes: list[int] = []
    current: set[int] = set()
    for coefficient in coefficients:
        limit = GROUP_LIMITS[min(earlier_groups + len(sizes), len(GROUP_LIMITS) - 1)]
        if coefficient in current or len(current) >= limit:
            sizes.append(len(current))
            current = set()
        current.add(coefficient)
    return (*sizes, len(current))


def _alphabets(passes: Sequence[CoefficientPass], groups: tuple[int, ...], largest: int) -> tuple[int, ...]:
    """Choose the alphabet of each group: the smallest that clips at most `CLIPPED_SHARE` of each channel's symbols."""
    probabilities = torch.stack([p.probabilities for p in passes]).split(groups)

    def clipped(group: Tensor, size: int) -> float:
        return float(1 - _middle(group, size).sum(1).min())

    return tuple(
        next((size for size in ALPHABETS if size < largest and clipped(group, size) < CLIPPED_SHARE), largest)
        for group in probabilities
    )


def _middle(rows: Tensor, size: int) -> Tensor:
    """The ``size`` middle columns."""
    first = rows.shape[-1] // 2 - size // 2
    return rows[..., first : first + size]


def _cuts(rates: Tensor) -> tuple[int, ...]:
    """Choose numbers of channels whose rates are evenly spread on a logarithmic scale."""
    highest = float(rates[-1].log())
    lowest = min(float(torch.tensor(LOWEST_RATE_BPP).log()), highest)
    cut_rates = torch.linspace(lowest, highest, NUM_CUTS).exp()
    cuts = (torch.searchsorted(rates, cut_rates) + 1).clamp(1, len(rates)).tolist()
    return tuple(sorted({*cuts, len(rates)}))


def initialise_integer_model(model: PhotoIntegerModel, design: PhotoDesign, photos: Tensor) -> None:
    """Initialise the twin with integer rounding: order of the block transform, gains, and factorized prior.

    Args:
        model: a model with fresh weights, changed in place.
        design: the design.
        photos: images that the prior is fitted to, (N, 3, H, W), in [0, 1].
    """
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
        batches = photos.split(DENSITY_BATCH)
        latent = torch.cat([model.analysis_transform(model.normalise(batch)) for batch in batches])
    optimizer = torch.optim.Adam(model.prior.parameters(), 0.02)
    for step in range(DENSITY_STEPS):
        batch = latent[step * DENSITY_BATCH % len(latent) :][:DENSITY_BATCH]
        optimizer.zero_grad()
        model.prior.bits(model.quantizer(batch).latent_hat).mean().backward()
        optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def initialise_photo_model(model: PhotoModel, design: PhotoDesign) -> None:
    """Set the quantizer and the prior of a model to a design.

    Args:
        model: a model of the design's configuration with fresh weights, changed in place.
        design: the design.
    """
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
            quantizer.centres[c, :alphabet] = _centres(alphabet) * steps[c]
            quantizer.values[c, :alphabet] = _middle(design.passes[c].centroids, alphabet) / GREY_LEVELS
            prior.logits[c, :alphabet] = _middle(design.passes[c].probabilities, alphabet).log()
        start += size
    quantizer.log_temperature.copy_((SHARPNESS / steps).log())
    prior.own_scale.copy_(1 / steps)
    prior.input_scale.fill_(LATENT_SCALE)
    set_lagrange_multipliers(model, design.lambdas)


def set_lagrange_multipliers(model: PhotoModel, lambdas: Tensor) -> None:
    """Set the Lagrange multiplier that RDOQ uses at each number of channels, if the model supports RDOQ.

    Args:
        model: the model, changed in place.
        lambdas: bits per pixel that one squared grey level is worth, (C,), see `PhotoDesign`.
    """
    if model.quantizer.supports_rdoq:
        latent_units = 3 * BLOCK**2 / GREY_LEVELS**2  # squared units of a block's latent in one squared grey level
        model.quantizer.bit_price.copy_(RDOQ_SHARE * latent_units / BLOCK**2 / lambdas)


@torch.no_grad()
def extend_photo_model(model: PhotoModel, design: PhotoDesign) -> tuple[PhotoModel, PhotoDesign]:
    """Extend a trained model to the size of a design, to train on from there.

    The trained weights stay. Further channels follow, as passes of the design in groups of their own; further residual
    blocks follow those of the same resolution and start at zero, as do networks of neighbours' symbols.

    Args:
        model: the trained model.
        design: design for the photos to train on; for more channels, these are the photos that the model was trained
            on.

    Returns:
        The model, and the design with the model's groups, alphabets and cut points. Rates and lambdas of the prefixes
        stay those of the design.

    Raises:
        ConfigError: a design of another configuration, of fewer channels or blocks, or of more channels that do not
            begin with the model's.
    """
    config, wanted = model.config, design.config
    assert isinstance(config, PhotoConfig)
    if config.distilled_channels:  # a distilled analysis transform keeps its size
        wanted = dataclasses.replace(
            wanted, distilled_channels=config.distilled_channels, analysis_blocks=config.analysis_blocks
        )
    _check_extendable(config, wanted)
    larger = dataclasses.replace(
        config, **{key: getattr(wanted, key) for key in ("neighbour_hidden", "supports_rdoq", *_BLOCKS)}
    )
    if config.channels_max == len(design.passes):
        model = _with_more_layers(model, larger)
        set_lagrange_multipliers(model, design.lambdas)
        return model, dataclasses.replace(design, config=larger)
    _check_channels(model, design)
    return _with_more_channels(_with_more_layers(model, larger), dataclasses.replace(design, config=wanted))


def _check_extendable(config: PhotoConfig, wanted: PhotoConfig) -> None:
    """Refuse to extend a model to another configuration that differs in more than its size."""
    sizes = ("channels_max", "groups", "alphabets", "cuts", "checkerboard_groups", *_BLOCKS)
    absent = [("neighbour_hidden", 0), ("supports_rdoq", False)]  # parts that can be added
    changed = [
        f"{key} is {value!r}, not {getattr(wanted, key)!r}"
        for key, value in dataclasses.asdict(config).items()
        if key not in sizes and value != getattr(wanted, key) and (key, value) not in absent
    ]
    changed += [
        f"{key} is {getattr(config, key)!r}, more than {getattr(wanted, key)!r}"
        for key in _BLOCKS
        if any(a > b for a, b in zip(getattr(config, key), getattr(wanted, key), strict=True))
    ]
    if changed:
        raise ConfigError(f"the model that training starts from has another configuration: {'; '.join(changed)}")


def _check_channels(model: PhotoModel, design: PhotoDesign) -> None:
    """Refuse a design of fewer channels, or one whose channels do not begin with the model's."""
    count, coefficients = model.config.channels_max, [p.coefficient for p in design.passes]
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


def _with_more_channels(model: PhotoModel, design: PhotoDesign) -> tuple[PhotoModel, PhotoDesign]:
    """Add the channels of a design that the model does not have, in groups of their own."""
    config, count = model.config, model.config.channels_max
    assert isinstance(config, PhotoConfig)
    added = design.passes[count:]
    added_groups = group_sizes([p.coefficient for p in added], len(config.group_sizes))
    larger = dataclasses.replace(
        design.config,
        groups=config.group_sizes + added_groups,
        alphabets=config.group_symbols + _alphabets(added, added_groups, design.config.num_symbols),
        cuts=(*config.cut_points, len(design.passes)),
        checkerboard_groups=config.checkerboard_groups,
    )
    design = dataclasses.replace(design, config=larger)
    extended = build_model(larger)
    assert isinstance(extended, PhotoModel)
    initialise_photo_model(extended, design)
    state = extended.state_dict()
    for name, value in model.state_dict().items():
        if value.dim():
            state[name][: len(value)] = value  # axis 0 is the channels, or as long as before
        else:
            state[name].copy_(value)
    set_lagrange_multipliers(extended, design.lambdas)
    return extended, design


def _with_more_layers(model: PhotoModel, config: PhotoConfig) -> PhotoModel:
    """Add the residual blocks and the neighbours' networks of a configuration that is otherwise the model's."""
    if config == model.config:
        return model
    larger = build_model(config)
    assert isinstance(larger, PhotoModel)
    for name, child in model.named_children():
        if name not in _TRANSFORMS:
            larger_child = getattr(larger, name)
            larger_child.load_state_dict(larger_child.state_dict() | child.state_dict())
    for name in _TRANSFORMS:
        transform, larger_transform = getattr(model, name), getattr(larger, name)
        larger_transform.block.copy_(transform.block)
        larger_layers = iter(larger_transform.path)
        for layer in transform.path:
            larger_layer = next(larger_layers)
            while isinstance(larger_layer, ResidualBlock) and not isinstance(layer, ResidualBlock):
                larger_layer = next(larger_layers)  # skip the added blocks
            larger_layer.load_state_dict(layer.state_dict())
    return larger


def _centres(num_symbols: int) -> Tensor:
    """Place centres, in steps, such that the midpoints of neighbours are the thresholds of a dead-zone quantizer."""
    centres = [0.0]
    for level in range(num_symbols // 2):
        centres.append(2 * (DEAD_ZONE + level) - centres[-1])
    positive = torch.tensor(centres)
    both = torch.cat([-positive[1:].flip(0), positive])
    return both[:num_symbols]
