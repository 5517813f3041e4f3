"""A short run of tools/fuzz.py, and a check that it finds errors."""

import json
import sys
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from support.processes import run_python

from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.codec import Codec
from ohmq.errors import BitstreamError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    """Load the tool as a module."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    sys.path.insert(0, str(ROOT / "tools"))
    import fuzz

    return fuzz


@pytest.fixture(scope="module")
def readers(fuzz: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    made: list[object] = fuzz.make_readers(tmp_path_factory.mktemp("fuzz"))
    return made


def test_only_the_errors_that_readers_document(fuzz: ModuleType, readers: list[object]) -> None:
    outcomes = list(fuzz.run_cases(readers, 20, range(1500)))
    assert [outcome.report for outcome in outcomes if outcome.report] == []
    seen = {(outcome.reader, outcome.outcome) for outcome in outcomes}
    for reader in ("container", "decode", "progressive"):
        for error in ("BitstreamError", "ChecksumError", "NotOhmFileError", "TruncatedFileError"):
            assert (reader, error) in seen
    for good in ("container read", "info shown", "decode decoded", "extras with mask", "extras without mask"):
        reader, outcome = good.split(" ", 1)
        assert (reader, outcome) in seen  # damage under right checksums reaches what lies behind
    for reader in ("model file", "ONNX folder"):
        assert {(reader, "ModelFileError"), (reader, "decoded")} <= seen
    assert {reader for reader, _ in seen} == {
        *("container", "info", "decode", "allow truncated", "progressive", "extras", "image metadata", "model file"),
        "ONNX folder",
    }


def test_a_case_is_made_from_the_seed_and_its_number(readers: list[object]) -> None:
    for reader in readers:
        first, again, other = (reader.make(Random(seed)) for seed in ("1:5", "1:5", "1:6"))  # type: ignore[attr-defined]
        assert first == again != other


def test_parts_fit_together(fuzz: ModuleType) -> None:
    """Files with recomputed checksums read, unless the damage itself is an error."""
    from fuzzing import container

    files = [seed.data for seed in container.seeds(shipped=False)]
    mutator = container.Mutator(files)
    for data in files:
        assert container.build_file(container.parse_fields(data)) == data
        with pytest.raises(BitstreamError, match="shortest form"):
            read_ohm(container.build_file(container.parse_fields(data), extra=1))
        changed = [mutator.payload_noise(Random(number), data) for number in range(5)]
        assert any(payloads(other) != payloads(data) for other in changed)


def payloads(data: bytes) -> list[bytes]:
    return [layer.payload for layer in read_ohm(data).layers]


@pytest.mark.parametrize("error", [IndexError, ValueError, MemoryError])
def test_it_finds_other_errors(
    fuzz: ModuleType, readers: list[object], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise error("broken")

    monkeypatch.setattr(Codec, "synthesise", broken)
    found = [outcome for outcome in fuzz.run_cases(readers, 1, range(150)) if outcome.report]
    assert found
    assert {outcome.outcome for outcome in found} == {f"WRONG: {error.__name__}"}
    ((_, data),) = next(outcome.files for outcome in found if outcome.reader == "decode").items()
    assert read_header(data).layers  # the file reached synthesis


def test_a_run_goes_on_where_it_stopped(fuzz: ModuleType, tmp_path: Path) -> None:
    def run(count: int, state: str) -> dict[str, object]:
        arguments = ["--count", str(count), "--seed", "3", "--state", str(tmp_path / state)]
        run_python(
            f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import fuzz; sys.exit(fuzz.main({arguments}))"
        )
        values = json.loads((tmp_path / state / "state.json").read_text())
        return {key: values[key] for key in ("done", "outcomes", "findings")}

    assert run(40, "parts")["done"] == 40
    assert run(100, "parts") == run(100, "whole")


def test_a_case_that_ends_the_process_is_a_finding(fuzz: ModuleType, tmp_path: Path) -> None:
    state = fuzz.State(tmp_path, 3)
    fuzz._keep_crash(state, 7, -11)
    again = fuzz.State(tmp_path, 3)
    assert again.skipped == [7]
    assert again.findings == [{"case": 7, "reader": "?", "outcome": "WRONG: ended the process (-11)"}]
    with pytest.raises(SystemExit, match="of seed 3"):
        fuzz.State(tmp_path, 4)
