"""The choice between the numpy kernels and those that numba compiles."""

from ohmq.entropy.kernels import NUMPY, Kernels
from ohmq.entropy.range_coder import HAS_CONSTRICTION
from ohmq.utils.numba_cache import select_implementation

__all__ = ["select_kernels"]


def select_kernels(compiled: bool | None = None) -> Kernels:
    """Return the kernels of entropy coding; compile them at the first call of a process that wants them.

    Args:
        compiled: whether to compile with numba; None: if numba is installed and usable.

    Returns:
        `ohmq.entropy.kernels.NUMPY`, or the compiled kernels, which give the same symbols and bytes. If numba is
        installed but unusable and ``compiled`` is None: `NUMPY`, with a `RuntimeWarning`. Where constriction is missing:
        the compiled kernels in any case.

    Raises:
        ConfigError: ``compiled`` is True, or constriction is missing, and numba is missing or unusable.
    """

    def compile() -> Kernels:
        from ohmq.entropy.kernels_numba import compile_kernels

        return compile_kernels()

    if not HAS_CONSTRICTION:
        compiled = True
    return select_implementation(compiled, NUMPY, compile, stacklevel=3)
