import pytest

from ohmq.errors import ConfigError
from ohmq.storage import backoff
from ohmq.storage.backoff import PATIENCE_VARIABLE, Backoff, default_backoff
from ohmq.storage.errors import AccessError, TransientStorageError


class Clock:
    """Time that passes only while one sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(backoff, "time", clock)
    return clock


def failing(times: int, error: Exception):
    """Make a function that fails some times."""
    failures = [error] * times

    def function() -> str:
        if failures:
            raise failures.pop()
        return "done"

    return function


def test_waits_grow_and_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = []
    monkeypatch.setattr(backoff.random, "uniform", lambda low, high: bounds.append((low, high)) or high)
    with pytest.raises(TransientStorageError, match=r"^SlowDown \(tried 6 times in 25 s\)$"):
        Backoff(first_s=1, longest_s=10, patience_s=30).call(failing(99, TransientStorageError("SlowDown")))
    assert bounds == [(0, 1), (0, 2), (0, 4), (0, 8), (0, 10), (0, 10)]
    assert clock.waits == [1, 2, 4, 8, 10]


def test_waits_are_random(clock: Clock) -> None:
    for _ in range(3):
        assert Backoff(patience_s=1e9).call(failing(6, TransientStorageError("x"))) == "done"
    assert len(set(clock.waits)) == 18 and max(clock.waits) <= 0.5 * 2**5


def test_lasting_failures_are_not_repeated(clock: Clock) -> None:
    with pytest.raises(AccessError):
        Backoff().call(failing(1, AccessError("no")))
    assert clock.waits == []


def test_no_patience(clock: Clock) -> None:
    with pytest.raises(TransientStorageError, match=r"^x \(tried once\)$"):
        Backoff(patience_s=0).call(failing(1, TransientStorageError("x")))
    assert clock.waits == []


def test_patience_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PATIENCE_VARIABLE, raising=False)
    assert default_backoff().patience_s == 300
    monkeypatch.setenv(PATIENCE_VARIABLE, "2.5")
    assert default_backoff().patience_s == 2.5
    for text in ("", "soon", "-1", "inf", "nan"):
        monkeypatch.setenv(PATIENCE_VARIABLE, text)
        with pytest.raises(ConfigError, match="must be a number of seconds"):
            default_backoff()
