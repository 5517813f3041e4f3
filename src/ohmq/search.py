"""The encoder's search: a latent near the one that analysis gives, whose symbols cost less."""

import math

import torch
from torch import Tensor

from ohmq.models.photo import GREY_LEVELS, PhotoModel

__all__ = ["search_latent"]


def search_latent(model: PhotoModel, images: Tensor, channels: int, slope: float, steps: int, size: float) -> Tensor:
    """Move the latent of one picture to where its first ``channels`` channels cost less R + slope * D.

    The estimates of training are made small by Adam: gradients pass the quantizer as they do in training, and the networks
    stay as they are. The best latent seen is kept, so the estimate is never worse than that of analysis.

    Args:
        model: as `thaw` gives it, without gradients of its own. images: one normalised picture, (1, 3, H, W).
        channels: of a prefix. slope: bits a pixel that one squared grey level is worth. steps: of Adam. size: of the first
            step, in units of the latent; it falls to zero by a cosine.

    Shape:
        Returns: the latent, (1, D, H / 16, W / 16).

    References: Campos et al., Content adaptive optimization for neural image compression (arXiv:1906.01223).
    """
    pixels = images.shape[2] * images.shape[3]
    with torch.no_grad():
        start = model.analysis_transform(images)
    latent = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([latent], size, betas=(0.9, 0.9))
    best, least = start, math.inf
    active = torch.tensor([channels])
    for step in range(steps + 1):
        with torch.enable_grad():
            output = model.reconstructed(latent, active)
            error = (output.reconstruction - images).square().mean() * GREY_LEVELS**2
            cost = output.bits.sum() / pixels + slope * error
        if float(cost.detach()) < least:
            best, least = latent.detach().clone(), float(cost.detach())
        if step == steps:
            break
        (latent.grad,) = torch.autograd.grad(cost, latent)
        for group in optimizer.param_groups:
            group["lr"] = size * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimizer.step()
    return best
