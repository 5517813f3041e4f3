"""A short run of tools/fuzz.py, and a check that it finds errors."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.codec import Codec
from ohmq.errors import BitstreamError


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    """Load the tool as a module."""
    spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).parents[2] / "tools" / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


def test_nothing_but_bitstream_errors(fuzz: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = fuzz.main(["--count", "800", "--seed", "20", "--keep", str(tmp_path / "found")])
    output = capsys.readouterr().out
    assert code == 0, output
    assert not (tmp_path / "found").exists()
    outcomes = {tuple(line.rsplit(maxsplit=1)[0].split(maxsplit=1)) for line in output.splitlines()[:-1]}
    for operation in ("container", "truncate", "decode", "progressive"):
        for error in ("BitstreamError", "ChecksumError", "NotOhmFileError", "TruncatedFileError"):
            assert (operation, error) in outcomes
        assert (operation, "UnsupportedVersionError") in outcomes
    assert ("decode", "ModelMismatchError") in outcomes
    for good in (("container", "read"), ("info", "shown"), ("truncate", "cut"), ("decode", "decoded")):
        assert good in outcomes  # damage under right checksums reaches the decoder


def test_the_same_seed_gives_the_same_files(fuzz: ModuleType) -> None:
    files = [seed.data for seed in fuzz.seeds(shipped=False)]
    first, second, other = (
        [mutator.change(files[number % len(files)]) for number in range(300)]
        for mutator in (fuzz.Mutator(files, 1), fuzz.Mutator(files, 1), fuzz.Mutator(files, 2))
    )
    assert first == second != other
    assert sum(data not in files for data in first) > 250


def test_parts_fit_together(fuzz: ModuleType) -> None:
    """Files with recomputed checksums read, unless the damage itself is an error."""
    files = [seed.data for seed in fuzz.seeds(shipped=False)]
    basic = [data for data in files if fuzz.parse_fields(data)]
    assert len(basic) >= 20
    for data in basic:
        assert fuzz.build_file(fuzz.parse_fields(data)) == data
        with pytest.raises(BitstreamError, match="shortest form"):
            read_ohm(fuzz.build_file(fuzz.parse_fields(data), extra=1))
    mutator = fuzz.Mutator(files, 5)
    for data in basic:
        changed = [mutator.payload_noise(data) for _ in range(5)]
        assert any(payloads(other) != payloads(data) for other in changed)


def payloads(data: bytes) -> list[bytes]:
    return [layer.payload for layer in read_ohm(data).layers]


@pytest.mark.parametrize("error", [IndexError, ValueError])
def test_it_finds_other_errors(
    fuzz: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[Exception],
) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise error("broken")

    monkeypatch.setattr(Codec, "synthesise", broken)
    assert fuzz.main(["--count", "40", "--seed", "1", "--keep", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert f"WRONG: {error.__name__}" in output
    kept = sorted(tmp_path.glob("seed1-*.ohm"))
    assert kept
    assert read_header(kept[0].read_bytes()).layers  # the file reached synthesis
