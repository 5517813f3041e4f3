"""The package as others import it."""

import subprocess
import sys

import pytest

import ohmq
from ohmq import errors


def test_every_exported_name_is_there() -> None:
    assert dir(ohmq) == ohmq.__all__ == sorted(ohmq.__all__)
    for name in ohmq.__all__:
        assert getattr(ohmq, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ohmq.no_such_name
    assert set(errors.__all__) <= set(ohmq.__all__)


def test_the_error_tree_is_the_one_in_the_documentation() -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if "── " in line or line == "OhmqError"]
    parents = ["OhmqError"]
    named = {"OhmqError"}
    for line in lines[1:]:
        depth = line.index("── ") // 4 + 1
        name = line.split("── ")[1].split()[0]
        named.add(name)
        error = getattr(errors, name)
        assert error.__bases__ == (getattr(errors, parents[depth - 1]),), name
        assert error.__doc__
        parents[depth:] = [name]
    assert named == set(errors.__all__)


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("ohmq", "torch numpy PIL"),
        ("ohmq.bitstream.format", "torch numpy PIL"),
        ("ohmq.entropy", "torch PIL"),
        ("ohmq.codec", "lightning matplotlib pandas tensorboard bjontegaard"),
    ],
)
def test_importing_stays_light(module: str, forbidden: str) -> None:
    program = f"import sys, {module}; sys.exit(' '.join(set({forbidden.split()}) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
