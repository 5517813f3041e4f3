"""Codecs in processes that were forked after use."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

FORK = """
import multiprocessing, threading
import numpy as np, torch
from ohmq.loading import load

torch.set_num_threads(3)
image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
codec = load("photo", compiled=COMPILED)
file = codec.compress(image, channels=60)
pixels = codec.decompress(file).tobytes()

def work(_):
    found = []
    def code():
        symbols = codec.decode(codec.compress(image, channels=60))[1]
        difference = np.asarray(codec.decompress(file), int) - np.frombuffer(pixels, np.uint8).reshape(image.shape)
        found.append(symbols.values.shape == (1, 8, 8, 60) and int(abs(difference).max()) <= 1)
    code()
    threads = [threading.Thread(target=code) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return found, torch.get_num_threads()

with multiprocessing.get_context("fork").Pool(2) as pool:
    for found, threads in pool.map(work, range(3)):
        assert (found, threads) == ([True] * 3, 1), (found, threads)
assert torch.get_num_threads() == 3
assert codec.decompress(file).tobytes() == pixels
print("done")
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_a_pool_of_forked_processes(compiled: bool) -> None:
    if compiled:
        pytest.importorskip("numba")
    script = FORK.replace("COMPILED", str(compiled))
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, env=environment)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


ONNX = """
import multiprocessing, sys
import numpy as np
from pathlib import Path
from ohmq.loading import load

image = np.random.default_rng(0).integers(0, 255, (28, 28), dtype=np.uint8)
codec = load(Path(sys.argv[1]), runtime="onnx", compiled=False)
file = codec.compress(image)
pixels = codec.decompress(file).tobytes()

def work(_):
    global codec
    found = codec.decompress(file).tobytes() == pixels and codec.compress(image) == file
    codec = load(Path(sys.argv[1]), runtime="onnx", compiled=False)  # the old sessions must not be waited for
    return found and codec.decompress(file).tobytes() == pixels

with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(2)) == [True, True]
print("done")
"""


def test_onnx_runtime_in_forked_processes(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from support.small_models import make_model

    from ohmq.model_files.export_onnx import export_onnx
    from ohmq.model_files.freeze import freeze

    export_onnx(freeze(make_model("context")), tmp_path / "folder")
    command = [sys.executable, "-c", ONNX, str(tmp_path / "folder")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
