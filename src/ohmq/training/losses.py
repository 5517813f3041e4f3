"""The rate–distortion loss."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["RateDistortion", "rate_distortion_loss"]


class RateDistortion(NamedTuple):
    """A loss and its parts, means over the images of a batch.

    Attributes:
        loss: scalar. distortion: mean squared error in the normalised space. rate_bpp: bits a pixel.
    """

    loss: Tensor
    distortion: Tensor
    rate_bpp: Tensor


def rate_distortion_loss(reference: Tensor, reconstruction: Tensor, bits: Tensor, lagrangian: Tensor) -> RateDistortion:
    r"""The published loss, convex in lambda.

    $$ \mathrm{loss} = \mathrm{mean}\bigl(\lambda D + (1 - \lambda) R\bigr) $$

    Args:
        reference: normalised images. reconstruction: of the same shape.
        bits: estimated bits of each image. lagrangian: lambda of each image, in [0, 1].

    Shape:
        reference: (batch, channels, height, width). bits, lagrangian: (batch,).

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.
    """
    distortion = (reference - reconstruction).square().flatten(1).mean(1)
    rate = bits / (reference.shape[-2] * reference.shape[-1])
    loss = (lagrangian * distortion + (1 - lagrangian) * rate).mean()
    return RateDistortion(loss, distortion.mean(), rate.mean())
