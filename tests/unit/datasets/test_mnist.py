"""MNIST's IDX files: finding, downloading, reading and splitting them; folders of digits."""

import gzip
import hashlib
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ohmq.datasets import mnist as datasets
from ohmq.datasets.mnist import find_mnist, load_mnist, load_mnist_images, load_png_folder, resolve_test_set
from ohmq.errors import ConfigError, UnsupportedImageError

TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"


def digits(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.RandomState(seed).randint(0, 256, (count, 28, 28)).astype(np.uint8)


def idx(images: NDArray[np.uint8]) -> bytes:
    return struct.pack(">4I", 0x803, *images.shape) + images.tobytes()


def make_mnist(folder: Path, *, gz: bool = False, train: int = 40, test: int = 5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, images in ((TRAIN, digits(train, 1)), (TEST, digits(test, 2))):
        if gz:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(images)))
        else:
            (folder / name).write_bytes(idx(images))
    return folder


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide all MNIST files but those that a test makes, and the network."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("OHMQ_DATA", raising=False)
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", ("http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("below", ["", "mnist", "MNIST", "MNIST/raw", "mnist/MNIST/raw", "raw"])
def test_mnist_is_found_in_every_usual_folder(tmp_path: Path, below: str, gz: bool) -> None:
    make_mnist(tmp_path / "base" / below, gz=gz)
    folder = find_mnist(tmp_path / "base", download=False)
    assert folder == tmp_path / "base" / below
    assert np.array_equal(load_mnist_images(folder, train=True), digits(40, 1))
    assert np.array_equal(load_mnist_images(folder, train=False), digits(5, 2))


def test_folders_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_mnist(Path("data/mnist"))
    assert find_mnist() == Path("data/mnist")
    monkeypatch.setenv("OHMQ_DATA", str(make_mnist(tmp_path / "env")))
    assert find_mnist() == tmp_path / "env"
    assert find_mnist(str(make_mnist(tmp_path / "named"))) == tmp_path / "named"


def test_a_named_folder_without_mnist_causes_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_mnist(Path("data"))
    with caplog.at_level(logging.INFO, "ohmq.datasets.mnist"):
        assert find_mnist(tmp_path / "empty") == Path("data")
        assert find_mnist() == Path("data")
    warning, info = caplog.records
    assert warning.levelno == logging.WARNING
    assert str(tmp_path / "empty") in warning.getMessage()
    assert "data" in warning.getMessage()
    assert info.levelno == logging.INFO
    assert info.getMessage() == "using MNIST from data"


def test_a_folder_without_the_test_file_is_not_used(tmp_path: Path) -> None:
    (make_mnist(tmp_path / "half") / TEST).unlink()
    with pytest.raises(ConfigError):
        find_mnist(tmp_path / "half", download=False)


def test_failure_names_every_folder_and_mirror_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OHMQ_DATA", "/nowhere/env")
    with pytest.raises(ConfigError) as caught:
        find_mnist(tmp_path / "named")
    message = str(caught.value)
    for part in (str(tmp_path / "named"), "/nowhere/env", "data", "MNIST/raw", "127.0.0.1:9/a", "127.0.0.1:9/b"):
        assert part in message
    assert "--data_base_path" in message
    assert "OHMQ_DATA" in message
    assert "\n" not in message


def test_download_checks_hashes_and_tries_the_next_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import pooch

    source = make_mnist(tmp_path / "source", gz=True)
    requested = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        requested.append(url)
        data = b"wrong" if "/a/" in url else (source / fname).read_bytes()
        if known_hash != f"md5:{hashlib.md5(data).hexdigest()}":
            raise ValueError("hash differs")
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(data)
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    sums = {name: hashlib.md5((source / f"{name}.gz").read_bytes()).hexdigest() for name in (TRAIN, TEST)}
    monkeypatch.setattr(datasets, "MNIST_MD5", sums)
    with caplog.at_level(logging.INFO, "ohmq.datasets.mnist"):
        folder = find_mnist()
    assert tmp_path / "cache" in folder.parents
    assert np.array_equal(load_mnist_images(folder, train=False), digits(5, 2))
    assert len(requested) == 4
    assert "downloaded" in caplog.text


def test_the_published_hashes_are_used() -> None:
    assert datasets.MNIST_MD5 == {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    }


def damage(data: bytes, kind: str) -> bytes:
    header = list(struct.unpack(">4I", data[:16]))
    if kind == "magic":
        header[0] = 0x801
    elif kind == "dims":
        header[3] = 29
    elif kind == "empty":
        return struct.pack(">4I", 0x803, 0, 28, 28)
    elif kind == "huge":
        header[1] = 2**32 - 1
    elif kind == "cut":
        return data[:-1]
    elif kind == "long":
        return data + b"\0"
    elif kind == "header":
        return data[:15]
    return struct.pack(">4I", *header) + data[16:]


@pytest.mark.parametrize("kind", ["magic", "dims", "empty", "huge", "cut", "long", "header"])
@pytest.mark.parametrize("gz", [False, True])
def test_damaged_idx_files_are_refused(tmp_path: Path, kind: str, gz: bool) -> None:
    data = damage(idx(digits(3)), kind)
    file = tmp_path / (f"{TEST}.gz" if gz else TEST)
    file.write_bytes(gzip.compress(data) if gz else data)
    with pytest.raises(ConfigError, match=TEST):
        load_mnist_images(tmp_path, train=False)


@pytest.mark.parametrize("change", [lambda d: d[:-9], lambda d: b"\0" + d[1:], lambda d: d[:40] + b"\xff" * 9 + d[49:]])
def test_damaged_gzip_is_refused(tmp_path: Path, change: object) -> None:
    assert callable(change)
    (tmp_path / f"{TRAIN}.gz").write_bytes(change(gzip.compress(idx(digits(3)))))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_mnist_images(tmp_path, train=True)


def test_missing_idx_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no train-images"):
        load_mnist_images(tmp_path, train=True)


def test_splits_are_disjoint_complete_and_repeatable(tmp_path: Path) -> None:
    make_mnist(tmp_path, train=45)
    train, validation = load_mnist(tmp_path, "train"), load_mnist(tmp_path, "validation")
    assert train.shape == (41, 28, 28)
    assert validation.shape == (4, 28, 28)
    whole = {image.tobytes() for image in digits(45, 1)}
    parts = [{image.tobytes() for image in part} for part in (train, validation)]
    assert parts[0] | parts[1] == whole
    assert not parts[0] & parts[1]
    assert np.array_equal(load_mnist(tmp_path, "validation"), validation)
    assert not np.array_equal(load_mnist(tmp_path, "validation", seed=1), validation)
    assert np.array_equal(load_mnist(tmp_path, "test"), digits(5, 2))
    train[0] = 0  # writable, as torch.from_numpy wants


def test_the_split_never_changes(tmp_path: Path) -> None:
    """Models and results name a seed: the images it stands for must never change."""
    make_mnist(tmp_path, train=40)
    assert np.array_equal(load_mnist(tmp_path, "validation", seed=0), digits(40, 1)[SPLIT_OF_40])


SPLIT_OF_40 = [0, 3, 9, 38]


def test_the_published_sizes(tmp_path: Path) -> None:
    images = np.zeros((60000, 28, 28), np.uint8)
    (tmp_path / TRAIN).write_bytes(idx(images))
    (tmp_path / TEST).write_bytes(idx(digits(1)))
    assert len(load_mnist(tmp_path, "train")) == 54000
    assert len(load_mnist(tmp_path, "validation")) == 6000


def test_unusable_splits(tmp_path: Path) -> None:
    make_mnist(tmp_path, train=1)
    with pytest.raises(ConfigError, match="1 image"):
        load_mnist(tmp_path, "train")
    with pytest.raises(ValueError, match="split is"):
        load_mnist(tmp_path, "testing")  # type: ignore[arg-type]


def save_pngs(folder: Path, images: NDArray[np.uint8], mode: str = "L") -> None:
    for number, image in enumerate(images):
        path = folder / str(number % 2) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(path)


def test_png_folder(tmp_path: Path) -> None:
    save_pngs(tmp_path / "grey", digits(5))
    assert np.array_equal(load_png_folder(tmp_path / "grey"), digits(5)[[0, 2, 4, 1, 3]])
    save_pngs(tmp_path / "rgb", digits(2), "RGB")
    assert np.array_equal(load_png_folder(tmp_path / "rgb"), digits(2))


def test_png_folder_with_other_images(tmp_path: Path) -> None:
    for folder, image in (("large", Image.new("L", (29, 28))), ("alpha", Image.new("LA", (28, 28)))):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / "0.png")
        with pytest.raises(ConfigError, match="expected 28x28"):
            load_png_folder(tmp_path / folder)
    (tmp_path / "large" / "0.png").write_bytes(b"no image")
    with pytest.raises(UnsupportedImageError, match="cannot be read"):
        load_png_folder(tmp_path / "large")


def test_missing_mnist_png_folders_stand_for_splits_of_the_idx_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_mnist(tmp_path / "base" / "mnist")
    with caplog.at_level(logging.INFO, "ohmq.datasets.mnist"):
        testing = resolve_test_set("data/mnist_png/testing", tmp_path / "base")
    assert testing.name == "testing"
    assert np.array_equal(testing.images, digits(5, 2))
    assert "data/mnist_png/testing does not exist; using the test split" in caplog.text
    assert np.array_equal(resolve_test_set("mnist_png/test", tmp_path / "base").images, digits(5, 2))
    validation = resolve_test_set(Path("data/mnist_png/validation"), tmp_path / "base", seed=3)
    assert np.array_equal(validation.images, load_mnist(tmp_path / "base", "validation", seed=3))


def test_a_test_set_folder_that_exists_is_read(tmp_path: Path) -> None:
    make_mnist(tmp_path / "base")
    save_pngs(tmp_path / "mnist_png" / "testing", digits(3, 9))
    assert sorted(
        i.tobytes() for i in resolve_test_set(tmp_path / "mnist_png/testing", tmp_path / "base").images
    ) == sorted(i.tobytes() for i in digits(3, 9))


@pytest.mark.parametrize("name", ["data/other/testing", "mnist_png/nothing", "testing", "file.txt"])
def test_unknown_test_sets(tmp_path: Path, name: str) -> None:
    make_mnist(tmp_path)
    Path("file.txt").touch()
    with pytest.raises(ConfigError, match="is no folder"):
        resolve_test_set(name, tmp_path)
