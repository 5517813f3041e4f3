"""The choice of kernels, with and without numba."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from support.processes import run_python
from support.small_models import make_codec, photo_picture

from ohmq import load
from ohmq.cli.jobs import Job, compiled_for
from ohmq.codec import Codec
from ohmq.entropy.kernels import NUMPY
from ohmq.entropy.kernels_numba import COMPILED
from ohmq.entropy.select_kernels import select_kernels
from ohmq.utils import numba_cache


def test_numba_is_used_if_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = make_codec("photo").frozen
    assert Codec(frozen).compiled
    assert load("photo", compiled=False).compiled is False
    monkeypatch.setattr(numba_cache, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)))
    assert not Codec(frozen).compiled


def test_selected_kernels() -> None:
    assert select_kernels(False) is NUMPY
    assert select_kernels() is select_kernels(True) is COMPILED


@pytest.mark.parametrize("codec_name", ["photo", "static"])
def test_a_prior_is_given_its_kernels(codec_name: str) -> None:
    prior = make_codec(codec_name).frozen.prior
    assert prior is not None
    assert prior.begin(1, 3, 4).kernels is NUMPY
    assert prior.begin(1, 3, 4, kernels=COMPILED).kernels is COMPILED


def test_importing_compiles_nothing() -> None:
    script = "import sys, ohmq.entropy.kernels_numba, ohmq.postfilter.kernels_numba; print('numba' in sys.modules)"
    assert run_python(script) == "False"


def test_without_constriction_the_compiled_kernels_code() -> None:
    """There is no wheel of constriction for Linux on ARM."""
    script = (
        "import sys; sys.modules['constriction'] = None\n"
        "import hashlib, ohmq; from PIL import Image\n"
        "codec = ohmq.load('mnist-ohm', compiled=False)\n"
        "data = codec.compress(Image.linear_gradient('L').resize((28, 28)))\n"
        "print(codec.compiled, hashlib.sha256(data).hexdigest())"
    )
    image = Image.linear_gradient("L").resize((28, 28))
    expected = hashlib.sha256(load("mnist-ohm", compiled=False).compress(image)).hexdigest()
    assert run_python(script) == f"True {expected}"


WITHOUT_NUMBA = """
import builtins, sys, warnings
original = builtins.__import__
def without(name, *arguments, **more):
    if name == "numba":
        raise {error}
    return original(name, *arguments, **more)
builtins.__import__ = without
import ohmq
from ohmq.errors import ConfigError
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(ohmq.load("photo").compiled, [str(warning.message) for warning in caught])
try:
    ohmq.load("photo", compiled=True)
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ('ImportError("Numba needs NumPy 2.4 or less")', "numba cannot be used: Numba needs NumPy 2.4 or less"),
        ('OSError("Could not find/load shared object file")', "numba cannot be used: Could not find/load shared object file"),
        ('ModuleNotFoundError("No module", name="numba")', "numba is not installed; it comes with: pip install 'ohmq[compiled]'"),
    ],
)  # fmt: skip
def test_numba_that_cannot_be_imported(error: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NUMBA.format(error=error)], capture_output=True, text=True, check=True
    )
    auto, asked = done.stdout.splitlines()
    assert auto.startswith("False [") and f"{message}; coding goes on without it, slower" in auto
    assert asked.startswith(message)


def test_numba_that_may_not_compile() -> None:
    script = "from ohmq.entropy.select_kernels import select_kernels; select_kernels(True)"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.endswith("ConfigError: numba compiles nothing: NUMBA_DISABLE_JIT is set\n")


@pytest.mark.parametrize("name", ["static", "filters"])
def test_a_codec_is_pickled(name: str) -> None:
    codec = make_codec(name)
    image = photo_picture(48, 40, 1).convert("L" if codec.grey else "RGB")
    again = pickle.loads(pickle.dumps(codec))
    assert again.compiled
    assert again.compress(image) == codec.compress(image)


def test_many_files_are_worth_compiling(tmp_path: Path) -> None:
    jobs = [Job(tmp_path, tmp_path)] * 12
    assert [compiled_for(None, jobs[:count], 1) for count in (1, 5, 6)] == [False, False, None]
    assert [compiled_for(None, jobs[:count], 2) for count in (10, 11)] == [False, None]
    assert [compiled_for(wanted, jobs[:1], 1) for wanted in (True, False)] == [True, False]
