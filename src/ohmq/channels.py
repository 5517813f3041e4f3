"""Which channels a fraction of the adaptive range stands for."""

import math

__all__ = ["active_channels"]


def active_channels(fraction: float, channels_min: int, channels_max: int) -> int:
    r"""How many channels a fraction of the adaptive range stands for.

    $$ n = c_{min} + \lceil f \, (c_{max} - c_{min}) \rceil $$

    Args:
        fraction: f in [0, 1].
        channels_min: c_min >= 0, channels that are always active.
        channels_max: c_max >= c_min, all channels.

    Returns:
        The number of active channels, in [channels_min, channels_max].

    Raises:
        ValueError: an argument is outside its range.

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.

    Example:
        >>> active_channels(0.33, 0, 16)
        6
        >>> active_channels(0.0, 8, 16)
        8
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction is {fraction}; it must lie in [0, 1]")
    if not 0 <= channels_min <= channels_max:
        raise ValueError(f"channels_min {channels_min} and channels_max {channels_max} must satisfy 0 <= min <= max")
    # The tiny slack keeps fractions such as k / C, which floats only approximate, from being rounded one up.
    return channels_min + math.ceil(fraction * (channels_max - channels_min) - 1e-9)
