"""numpy's products on one thread, and the number before at the end."""

import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from ohmq.utils.blas_threads import one_blas_thread

CONTROLLER = ThreadpoolController().select(user_api="blas")


def numbers() -> set[int]:
    return {library["num_threads"] for library in CONTROLLER.info()}


@pytest.mark.skipif(not CONTROLLER.info(), reason="numpy's BLAS cannot be asked for its threads here")
def test_one_thread_from_the_first_that_enters_to_the_last_that_leaves() -> None:
    with CONTROLLER.limit(limits=3):
        before = numbers()
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with one_blas_thread():
                held.set()
                go_on.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(10)
        with one_blas_thread(), one_blas_thread():
            assert numbers() == {1}
            assert np.array_equal(np.eye(200) @ np.ones(200), np.ones(200))
        assert numbers() == {1}  # the other thread still codes
        go_on.set()
        thread.join()
        assert numbers() == before
        with pytest.raises(KeyError), one_blas_thread():
            raise KeyError
        assert numbers() == before
