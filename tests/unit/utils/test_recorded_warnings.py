"""Recording of warnings."""

import subprocess
import sys
import threading
import warnings

import pytest

from ohmq.utils.recorded_warnings import recorded_warnings


def test_each_text_once_and_nested() -> None:
    with recorded_warnings() as outer:
        for text in ("b", "a", "b"):
            warnings.warn(text, UserWarning, stacklevel=1)
        with recorded_warnings() as inner:
            warnings.warn("c", DeprecationWarning, stacklevel=1)
        assert inner == ["c"]
    assert outer == ["b", "a"]
    with pytest.warns(UserWarning, match="later"):
        warnings.warn("later", UserWarning, stacklevel=1)


def test_warnings_are_kept_when_the_block_fails() -> None:
    def fail() -> None:
        with recorded_warnings() as texts:
            told.append(texts)
            warnings.warn("a", UserWarning, stacklevel=1)
            raise ValueError("bad")

    told: list[list[str]] = []
    with pytest.raises(ValueError, match="bad"):
        fail()
    assert told == [["a"]]


def test_threads_do_not_mix_warnings() -> None:
    found: dict[str, list[str]] = {}
    gate, filters = threading.Barrier(4), list(warnings.filters)

    def record(name: str) -> None:
        gate.wait()
        for _ in range(200):
            with recorded_warnings() as texts:
                warnings.warn(name, UserWarning, stacklevel=1)
            found.setdefault(name, []).extend(texts)

    threads = [threading.Thread(target=record, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {str(number): [str(number)] * 200 for number in range(4)}
    assert list(warnings.filters) == filters


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_process_does_not_wait_for_a_thread_of_its_parent() -> None:
    program = """
import os, threading
from ohmq.utils.recorded_warnings import recorded_warnings
inside, done = threading.Event(), threading.Event()
def hold():
    with recorded_warnings():
        inside.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
child = os.fork()
if not child:
    with recorded_warnings():
        os._exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
thread.join()
raise SystemExit(status)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=30).returncode == 7
