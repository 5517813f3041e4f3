"""Work in threads whose results come in order, with a bounded number under way."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, wait
from typing import NamedTuple, TypeVar

__all__ = ["Workers", "map_in_order"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
AHEAD = 2
"""Items for each thread that are under way, or done and not taken yet."""


class Workers(NamedTuple):
    """Threads that share out whole files.

    Attributes:
        pool: the threads.
        threads: their number.
    """

    pool: Executor
    threads: int


def map_in_order(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    workers: Workers | None,
    alone: Callable[[_Item], bool] = lambda item: False,
) -> Generator[_Result, None, None]:
    """Call a function for each item; closing the iterator early waits for the calls under way and starts no others.

    Args:
        function: called once for each item.
        items: its arguments; taken as results are.
        workers: threads that call it; None: the calling thread, one item after the other.
        alone: whether an item is done in the calling thread, while no other is. Default: none is.

    Yields:
        The results, in the order of the items.

    Raises:
        Exception: the function's, in the place of the result.
    """
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            if workers is None or alone(item):
                while pending:
                    yield pending.popleft().result()
                yield function(item)
                continue
            if len(pending) == AHEAD * workers.threads:
                yield pending.popleft().result()
            pending.append(workers.pool.submit(function, item))
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        wait(pending)
