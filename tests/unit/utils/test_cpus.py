"""Processors of threads."""

import os
import threading
from collections.abc import Callable

import pytest

from ohmq.utils.cpus import other_cpus, shares_of_cpus, use_cpus

linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")


def in_thread(function: Callable[[], set[int]]) -> set[int]:
    """Call a function in a thread of its own."""
    results: list[set[int]] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


@linux
def test_a_thread_is_kept_on_its_processors() -> None:
    allowed = os.sched_getaffinity(0)

    def moved() -> set[int]:
        use_cpus({max(allowed)})
        assert other_cpus() == set()
        return os.sched_getaffinity(0)

    assert in_thread(moved) == {max(allowed)}
    assert os.sched_getaffinity(0) == allowed
    assert len(other_cpus()) == len(allowed) - 1 and other_cpus() < allowed
    use_cpus(set())
    use_cpus({10**4})  # no processor of this machine
    assert os.sched_getaffinity(0) == allowed


@linux
def test_processors_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7, 1, 2, 4, 5})
    assert shares_of_cpus(2) == [{1, 4, 7}, {2, 5}]
    assert shares_of_cpus(6) == [set()] * 6


def test_elsewhere_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert other_cpus() == set()
    assert shares_of_cpus(3) == [set(), set(), set()]
