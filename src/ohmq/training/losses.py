"""The rate–distortion loss."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["RateDistortion", "rate_distortion_loss"]


class RateDistortion(NamedTuple):
    """Loss, distortion and rate: means over the images of a batch.

    Attributes:
        loss: scalar.
        distortion: scalar, mean squared error in the normalised space.
        rate_bpp: scalar, bits per pixel.
    """

    loss: Tensor
    distortion: Tensor
    rate_bpp: Tensor


def rate_distortion_loss(reference: Tensor, reconstruction: Tensor, bits: Tensor, lagrangian: Tensor) -> RateDistortion:
    r"""Compute the published rate–distortion loss, a convex combination of distortion and rate.

    $$ \mathrm{loss} = \mathrm{mean}\bigl(\lambda D + (1 - \lambda) R\bigr) $$

    Args:
        reference: normalised images.
        reconstruction: normalised reconstructions.
        bits: estimated bits of each image.
        lagrangian: lambda of each image, in [0, 1].

    Shape:
        reference, reconstruction: (batch, channels, height, width).
        bits, lagrangian: (batch,).

    Returns:
        The loss and its two terms.

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.
    """
    distortion = (reference - reconstruction).square().flatten(1).mean(1)
    rate = bits / (reference.shape[-2] * reference.shape[-1])
    loss = (lagrangian * distortion + (1 - lagrangian) * rate).mean()
    return RateDistortion(loss, distortion.mean(), rate.mean())
