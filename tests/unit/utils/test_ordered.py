"""Work in threads whose results come in order."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ohmq.utils.ordered import AHEAD, Workers, map_in_order


@pytest.fixture
def workers() -> Iterator[Workers]:
    with ThreadPoolExecutor(2) as pool:
        yield Workers(pool, 2)


def test_results_come_in_the_order_of_the_items(workers: Workers) -> None:
    second = threading.Event()

    def slow_first(item: int) -> int:
        if item == 0:
            assert second.wait(60)  # the next item is under way at the same time
        if item == 1:
            second.set()
        return item * item

    assert list(map_in_order(slow_first, range(9), workers)) == [item * item for item in range(9)]
    assert list(map_in_order(lambda item: item * item, range(3), None)) == [0, 1, 4]


def test_few_items_are_under_way(workers: Workers) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    results = map_in_order(lambda item: item, items(), workers)
    for number in range(20):
        assert next(results) == number
        assert len(taken) <= number + 1 + AHEAD * workers.threads
    assert next(results, None) is None


def test_errors_come_in_the_place_of_results(workers: Workers) -> None:
    done = []

    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        done.append(item)
        return item

    results = map_in_order(work, range(100), workers)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert max(done) < 10  # no others are started
    assert next(results, None) is None


def test_some_items_are_done_alone(workers: Workers) -> None:
    lock, under_way, most, threads = threading.Lock(), set[int](), {}, {}

    def work(item: int) -> int:
        with lock:
            under_way.add(item)
            most[item] = len(under_way)
        threads[item] = threading.current_thread()
        with lock:
            under_way.discard(item)
        return item

    assert list(map_in_order(work, range(12), workers, lambda item: item % 4 == 3)) == list(range(12))
    for item in (3, 7, 11):
        assert most[item] == 1 and threads[item] is threading.current_thread()
    assert threads[0] is not threading.current_thread()


def test_closing_early_waits_for_the_calls_under_way(workers: Workers) -> None:
    started, release, done = threading.Event(), threading.Event(), []

    def work(item: int) -> int:
        if item == 1:
            started.set()
            assert release.wait(60)
            done.append(item)
        return item

    results = map_in_order(work, range(50), workers)
    assert next(results) == 0
    assert started.wait(60)
    threading.Timer(0.05, release.set).start()
    results.close()
    assert done == [1]
