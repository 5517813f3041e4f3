"""src/ohmq/entropy/select_kernels.py."""

import importlib.util
import warnings

from ohmq.entropy.kernels import Kernels
from ohmq.errors import ConfigError


def _compiled_kernels(compiled: bool | None) -> Kernels | None:
    """The compiled kernels, if they are wanted; None as for `Codec`."""
    if compiled is False or (compiled is None and importlib.util.find_spec("numba") is None):
        return None
    try:
        from ohmq.entropy.kernels_numba import COMPILED
    except ConfigError as error:
        if compiled:
            raise
        warnings.warn(f"{error}; coding goes on without it, slower", RuntimeWarning, stacklevel=3)
        return None
    return COMPILED
