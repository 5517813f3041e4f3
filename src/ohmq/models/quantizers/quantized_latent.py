"""The result that every quantizer layer returns, and the number of active channels of each image."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "ActiveImages",
    "QuantizedLatent",
    "active_mask",
    "active_per_image",
    "check_active_channels",
    "check_alphabet",
    "groups_of",
    "images_by_active",
]


class QuantizedLatent(NamedTuple):
    """A quantized latent, its symbols and its rate.

    Attributes:
        latent_hat: quantized latent, (batch, D, h, w); gradients pass.
        symbols: symbols in [0, S), (batch, h, w, C), int64; 0 in channels that are not active.
        bits: ideal code length of each image's active symbols, (batch,), in bits; gradients pass.
    """

    latent_hat: Tensor
    symbols: Tensor
    bits: Tensor


class ActiveImages(NamedTuple):
    """A batch in descending order of active channels.

    With this order, channel c works on a leading block of the batch.

    Attributes:
        active: active channels of each image, (batch,), int64, descending.
        counts: the same numbers, in memory of the CPU: reading ``active`` there would wait for an accelerator.
        order: image that stands at each place of this order, (batch,); None: the batch was in this order already.
    """

    active: Tensor
    counts: tuple[int, ...]
    order: Tensor | None

    def reaching(self, channel: int) -> int:
        """Count the images, all at the front, in which a channel is active.

        Args:
            channel: index of the channel.
        """
        return sum(count > channel for count in self.counts)

    def sort(self, x: Tensor, dim: int = 0) -> Tensor:
        """Bring the images along an axis of a tensor into this order.

        Args:
            x: a tensor.
            dim: axis of the images; default: 0.
        """
        return x if self.order is None else x.index_select(dim, self.order)

    def restore(self, x: Tensor, dim: int = 0) -> Tensor:
        """Bring the images along an axis of a tensor back into the order of the batch; the inverse of `sort`.

        Args:
            x: a tensor.
            dim: axis of the images; default: 0.
        """
        return x if self.order is None else x.index_select(dim, self.order.argsort())


def active_per_image(active: int | Tensor | None, latent: Tensor, num_channels: int) -> Tensor:
    """Return the number of active channels of each image of a batch, on the device of the latent.

    Args:
        active: one number for all images, or a tensor (batch,) of integers, or None for all channels.
        latent: (batch, ...), for the size of the batch and the device.
        num_channels: C, all channels.

    Returns:
        (batch,), int64.

    Raises:
        ValueError: another shape, or a number outside [0, C].
    """
    return _counts(active, latent.shape[0], num_channels).to(latent.device, non_blocking=True)


def _counts(active: int | Tensor | None, batch: int, num_channels: int) -> Tensor:
    """Check active channels and return them on the CPU; waits for an accelerator only if they are there."""
    if active is None:
        active = num_channels
    if isinstance(active, int):
        active = torch.full((batch,), active)
    if active.shape != (batch,):
        raise ValueError(f"active channels of shape {tuple(active.shape)}; expected ({batch},), one number an image")
    active = active.to("cpu", torch.int64)
    for count in {int(active.min()), int(active.max())} if batch else ():
        check_active_channels(count, num_channels)
    return active


def images_by_active(active: int | Tensor | None, latent: Tensor, num_channels: int) -> ActiveImages:
    """Order the images of a batch by their active channels, most first; arguments as `active_per_image`."""
    each, order = _counts(active, latent.shape[0], num_channels), None
    if (each.diff() > 0).any():
        each, order = each.sort(descending=True, stable=True)
        order = order.to(latent.device, non_blocking=True)
    return ActiveImages(each.to(latent.device, non_blocking=True), tuple(each.tolist()), order)


def active_mask(active: Tensor, channels: range) -> Tensor:
    """Return which channels of a run are active in each image.

    Args:
        active: active channels of each image, (batch,), int64.
        channels: the run of channels.

    Returns:
        (batch, channels), bool.
    """
    return torch.arange(channels.start, channels.stop, device=active.device) < active[:, None]


def check_active_channels(num_active: int, num_channels: int) -> None:
    """Check a number of active channels.

    Args:
        num_active: number of active channels.
        num_channels: C.

    Raises:
        ValueError: num_active outside [0, num_channels].
    """
    if not 0 <= num_active <= num_channels:
        raise ValueError(f"active channels: {num_active}; this quantizer has {num_channels}")


def check_alphabet(num_channels: int, num_symbols: int) -> None:
    """Check the size of a quantizer.

    Args:
        num_channels: C.
        num_symbols: S.

    Raises:
        ValueError: num_symbols < 2 or num_channels < 1.
    """
    if num_symbols < 2:
        raise ValueError(f"num_symbols is {num_symbols}; an alphabet has at least 2 symbols")
    if num_channels < 1:
        raise ValueError(f"num_channels is {num_channels}; at least 1 is needed")


def groups_of(
    num_channels: int, own_groups: tuple[int, ...] | None, prior_groups: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the channel-conditional groups that a quantizer and its prior agree on.

    Args:
        num_channels: C, all channels.
        own_groups: channels of each group of the quantizer; None: it has no choice of its own.
        prior_groups: channels of each group of the prior; None: it takes any.

    Returns:
        Channels of each group, sum C.

    Raises:
        ValueError: the two differ, or do not sum to C.
    """
    if own_groups is not None and prior_groups is not None and own_groups != prior_groups:
        raise ValueError(f"the quantizer has groups of {own_groups} channels and its prior of {prior_groups}")
    groups = own_groups or prior_groups or (num_channels,)
    if sum(groups) != num_channels or min(groups) < 1:
        raise ValueError(f"group_sizes {list(groups)} must be positive and sum to {num_channels} channels")
    return groups
