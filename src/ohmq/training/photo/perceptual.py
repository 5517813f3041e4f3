"""SSIMULACRA2 as a differentiable training loss.

The score follows the reference implementation (Sneyers, SSIMULACRA 2, https://github.com/cloudinary/ssimulacra2): SSIM, ringing
and blurring maps of an XYB image at several scales, two norms of each. Weights below 0.2 are left out, and borders are
those of the Python package ssimulacra2; scores differ from its scores by less than 1.
"""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["MIN_SIDE", "ssimulacra2"]

SCALES = 5
"""Scales of the score, each half as large as the one before; the sixth of the reference has no weight above 0.002."""
MIN_SIDE = 8 * 2 ** (SCALES - 1)
"""Least side of an image, in pixels: all scales take part."""
C2 = 0.0009
"""Constant that stabilises the SSIM map."""
OPSIN = (
    (0.30, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 0.5518098665095536),
)
"""Linear RGB to the responses of the three kinds of cones."""
OPSIN_BIAS = 0.0037930732552754493
RADIUS, SIGMA = 5, 1.5
"""Radius and standard deviation of the Gaussian window, in pixels."""
SSIM, RINGING, BLURRING = range(3)
X, Y, B = range(3)
MEAN, FOURTH = range(2)
"""Norms of a map: its mean, and the fourth root of the mean of fourth powers."""
WEIGHTS = {
    (0, Y): {(SSIM, FOURTH): 7.466890328078848, (BLURRING, FOURTH): 17.445833984131262},
    (1, X): {(SSIM, FOURTH): 1.1041726426657346},
    (1, Y): {(SSIM, FOURTH): 6.683678146179332, (BLURRING, FOURTH): 1.027889937768264},
    (2, X): {(SSIM, FOURTH): 1.8422455520539298, (RINGING, FOURTH): 11.441172603757666},
    (2, Y): {(SSIM, MEAN): 225.20515300849274, (SSIM, FOURTH): 19.213238186143016},
    (3, X): {(SSIM, FOURTH): 1.8787594979546387, (RINGING, FOURTH): 10.94906990605142},
    (3, Y): {
        (SSIM, MEAN): 176.39317598450694,
        (SSIM, FOURTH): 24.43300999870476,
        (RINGING, FOURTH): 0.28520802612117757,
    },
    (3, B): {(SSIM, FOURTH): 8.826982764996862, (RINGING, FOURTH): 23.19243343998926},
    (4, X): {(RINGING, MEAN): 0.9677937080626833, (RINGING, FOURTH): 0.9981766977854967},
    (4, Y): {(SSIM, FOURTH): 34.77906344483772, (RINGING, FOURTH): 44.835625328877896},
    (4, B): {
        (SSIM, MEAN): 95.1080498811086,
        (RINGING, MEAN): 0.9863978034400682,
        (RINGING, FOURTH): 171.2667255897307,
        (BLURRING, MEAN): 0.9834382792465353,
        (BLURRING, FOURTH): 0.9807858872435379,
    },
}
"""Weights of the norms of the maps, by scale and channel."""


def ssimulacra2(reference: Tensor, decoded: Tensor) -> Tensor:
    """Return the SSIMULACRA2 score of each image: 100 for equal images, 90 for no visible difference, 30 for low quality.

    Args:
        reference: originals, (batch, 3, H, W), sRGB, 0 to 1; each side at least `MIN_SIDE`.
        decoded: decoded images of the same shape; values outside of 0 to 1 are clipped.

    Returns:
        (batch,), differentiable by ``decoded``.

    Raises:
        ValueError: images that are too small.
    """
    if min(reference.shape[-2:]) < MIN_SIDE:
        raise ValueError(
            f"images are {tuple(reference.shape[-2:])}; SSIMULACRA2 in training needs {MIN_SIDE} pixels a side"
        )
    linear = _linear(torch.stack([reference, decoded]))
    total = linear.new_zeros(linear.shape[1])
    for scale in range(SCALES):
        if scale:
            linear = functional.avg_pool2d(linear.flatten(0, 1), 2).unflatten(0, (2, -1))
        channels = [channel for channel in (X, Y, B) if (scale, channel) in WEIGHTS]
        a, b = _xyb(linear, channels)  # each (batch, channels, h, w)
        means = _blur(torch.cat([a, b, a * a, b * b, a * b], 1))
        mean_a, mean_b, square_a, square_b, product = means.chunk(5, 1)
        covariance = 2 * (product - mean_a * mean_b) + C2
        variances = (square_a - mean_a * mean_a) + (square_b - mean_b * mean_b) + C2
        ssim = (1 - (1 - (mean_a - mean_b) ** 2) * covariance / variances).clamp(min=0)
        edges = (1 + (b - mean_b).abs()) / (1 + (a - mean_a).abs()) - 1
        maps = {SSIM: ssim, RINGING: edges.clamp(min=0), BLURRING: (-edges).clamp(min=0)}
        for position, channel in enumerate(channels):
            for (kind, norm), weight in WEIGHTS[scale, channel].items():
                total = total + weight * _norm(maps[kind][:, position], norm)
    total = 0.9562382616834844 * total
    total = 2.326765642916932 * total - 0.020884521182843837 * total**2 + 6.248496625763138e-05 * total**3
    return 100 - 10 * total.clamp(min=1e-4) ** 0.6276336467831387


def _linear(srgb: Tensor) -> Tensor:
    """Convert sRGB, 0 to 1, to linear RGB."""
    srgb = srgb.clamp(0, 1)
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def _xyb(linear: Tensor, channels: list[int]) -> Tensor:
    """Convert linear RGB (..., 3, h, w) to some channels of XYB in the scales of SSIMULACRA2."""
    opsin = torch.tensor(OPSIN, dtype=linear.dtype).to(linear.device, non_blocking=True)
    rows = opsin if B in channels else opsin[:2]
    mixed = torch.einsum("ij,...jhw->...ihw", rows, linear) + OPSIN_BIAS
    cones = mixed.clamp(min=1e-6) ** (1 / 3) - OPSIN_BIAS ** (1 / 3)
    long, medium = cones[..., 0, :, :], cones[..., 1, :, :]
    y = 0.5 * (long + medium)
    parts = {X: lambda: 7.0 * (long - medium) + 0.42, Y: lambda: y + 0.01, B: lambda: cones[..., 2, :, :] - y + 0.55}
    return torch.stack([parts[channel]() for channel in channels], -3)


def _blur(maps: Tensor) -> Tensor:
    """Blur maps (batch, channels, h, w): left and right borders are repeated, above and below are zeros."""
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=maps.dtype, device=maps.device)
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window = window / window.sum()
    count = maps.shape[1]
    maps = functional.pad(maps, (RADIUS, RADIUS, 0, 0), mode="replicate")
    maps = functional.conv2d(maps, window.view(1, 1, 1, -1).repeat(count, 1, 1, 1), groups=count)
    maps = functional.conv2d(maps, window.view(1, 1, -1, 1).repeat(count, 1, 1, 1), padding=(RADIUS, 0), groups=count)
    return maps


def _norm(values: Tensor, norm: int) -> Tensor:
    """Return a norm of each map (batch, h, w)."""
    if norm == MEAN:
        return values.mean((1, 2))
    return ((values**2) ** 2).mean((1, 2)).add(1e-20) ** 0.25
