"""The choice between the numpy kernel of the post-filter and the one that numba compiles."""

from ohmq.postfilter.filters import FilterKernel, apply_kernel
from ohmq.utils.numba_cache import select_implementation

__all__ = ["select_kernel"]


def select_kernel(compiled: bool | None = None) -> FilterKernel:
    """Return the kernel of the post-filter; compile it at the first call of a process that wants it.

    Args:
        compiled: whether to compile with numba; None: if numba is installed and usable.

    Returns:
        `ohmq.postfilter.filters.apply_kernel`, or the compiled one, which gives the same up to rounding. If numba is
        installed but unusable and ``compiled`` is None: the former, with a `RuntimeWarning`.

    Raises:
        ConfigError: ``compiled`` is True and numba is missing or unusable.
    """

    def compile() -> FilterKernel:
        from ohmq.postfilter.kernels_numba import compile_kernel

        return compile_kernel()

    plain: FilterKernel = apply_kernel
    return select_implementation(compiled, plain, compile, stacklevel=3)
