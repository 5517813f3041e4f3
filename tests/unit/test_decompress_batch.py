"""Several files decompressed in threads."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_models import make_codec, photo_picture

from ohmq.cli import main
from ohmq.codec import Codec
from ohmq.decoder import files as decoder_files
from ohmq.decoder.files import file_header
from ohmq.errors import BitstreamError, ConfigError
from ohmq.model_files.frozen_model import save_model
from ohmq.utils.ordered import Workers


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_codec("filters")


@pytest.fixture(scope="module")
def files(codec: Codec) -> list[bytes]:
    pictures = [photo_picture(20 + 9 * seed, 60 - 5 * seed, seed) for seed in range(6)]
    return [codec.compress(picture, tile=number % 2, layers="all") for number, picture in enumerate(pictures)]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_batch_is_what_a_loop_gives(codec: Codec, files: list[bytes], tmp_path: Path) -> None:
    expected = [codec.decompress(data) for data in files]
    assert list(codec.decompress_batch(files)) == expected
    paths = [tmp_path / f"{number}.ohm" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    assert list(codec.decompress_batch([paths[0], str(paths[1]), *files[2:]])) == expected
    assert list(codec.decompress_batch(iter(files), channels=12)) == [codec.decompress(f, channels=12) for f in files]
    assert [image.size for image in codec.decompress_batch(files, scale=8)] == [
        image.reduce(8).size for image in expected
    ]
    assert list(codec.decompress_batch([])) == []
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert list(codec.decompress_batch(files)) == expected


def test_files_are_decoded_in_threads(codec: Codec, files: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    decompress, threads = Codec.decompress, []

    def recorded(self: Codec, data: bytes, **options: object) -> Image.Image:
        threads.append((threading.current_thread(), torch.get_num_threads()))
        return decompress(self, data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Codec, "decompress", recorded)
    list(codec.decompress_batch(files))
    assert threading.current_thread() not in {thread for thread, _ in threads}
    assert {count for _, count in threads} == {1}
    threads.clear()
    monkeypatch.setattr(decoder_files, "PIXELS_AT_ONCE", 2 * 20 * 60)
    list(codec.decompress_batch(files))
    header = [file_header(data) for data in files]
    large = sum(one.width * one.height > 20 * 60 for one in header if one)
    assert 0 < large < len(files)
    assert threads.count((threading.current_thread(), 2)) == large


def test_a_bad_file_raises_in_its_place(codec: Codec, files: list[bytes], tmp_path: Path) -> None:
    images = codec.decompress_batch([files[0], files[1][:-5], *files[2:]])
    assert next(images) == codec.decompress(files[0])
    with pytest.raises(BitstreamError):
        next(images)
    images = codec.decompress_batch([files[0], tmp_path / "missing.ohm"])
    next(images)
    with pytest.raises(FileNotFoundError):
        next(images)
    with pytest.raises(ConfigError, match="has no decoder 'fast'"):
        codec.decompress_batch(files, decoder="fast")  # at once
    with pytest.raises(ValueError, match="scale is 3"):
        codec.decompress_batch(files, scale=3)


def test_a_folder_goes_through_a_pipeline(
    codec: Codec,
    files: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(codec.frozen, tmp_path / "m.safetensors")  # type: ignore[arg-type]
    folder = tmp_path / "coded"
    folder.mkdir()
    for number, data in enumerate(files):
        (folder / f"{number}.ohm").write_bytes(data[:-9] if number == 2 else data)
    (folder / "4.ohm").write_bytes(b"")
    decompress, threads = Codec.decompress, set()

    def recorded(self: Codec, data: bytes, **options: object) -> Image.Image:
        threads.add(threading.current_thread())
        return decompress(self, data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Codec, "decompress", recorded)
    arguments = ["decompress", str(folder), "-m", str(tmp_path / "m.safetensors"), "-o", f"{tmp_path}/images"]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    shown = capsys.readouterr()
    assert stopped.value.code == 1 and threading.current_thread() not in threads
    good = [0, 1, 3, 5]
    lines = [line.split(" -> ")[0] for line in shown.out.splitlines() if " -> " in line]
    assert lines == [str(folder / f"{number}.ohm") for number in good]
    errors = [line for line in shown.err.splitlines() if line.startswith("ohmq: ")]
    assert len(errors) == 2 and "2.ohm: " in errors[0] and "4.ohm: " in errors[1]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [f"{number}.png" for number in good]
    for number in good:
        with Image.open(tmp_path / "images" / f"{number}.png") as image:
            assert np.array_equal(np.asarray(image), np.asarray(codec.decompress(files[number])))


def test_headers_of_files(files: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "a.ohm").write_bytes(files[1])
    assert file_header(tmp_path / "a.ohm") == file_header(files[1])
    assert file_header(b"no") is None and file_header(tmp_path / "b.ohm") is None
    assert not decoder_files.decoded_alone(None, Workers(None, 2))  # type: ignore[arg-type]
    assert not decoder_files.decoded_alone(file_header(files[1]), None)
