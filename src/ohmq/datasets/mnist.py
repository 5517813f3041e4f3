"""MNIST: its IDX files, found in the usual folders or downloaded with hashes; and folders of digits as image files."""

import functools
import gzip
import logging
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.bitstream.format import DEFAULT_MAX_PIXELS
from ohmq.datasets.folders import DATA_HINT, data_folders, find_data
from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.imaging.listing import list_images

__all__ = [
    "MNIST_FOLDERS",
    "MNIST_MIRRORS",
    "DigitSet",
    "Split",
    "find_mnist",
    "holds_mnist",
    "load_mnist",
    "load_mnist_images",
    "load_png_folder",
    "resolve_test_set",
]

log = logging.getLogger(__name__)

Split = Literal["train", "validation", "test"]

TRAIN_FILE, TEST_FILE = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_MD5 = {TRAIN_FILE: "f68b3c2dcbeaaa9fbdd348bbdeb94873", TEST_FILE: "9fb629c4189551a2d022fa330f9573f3"}
MNIST_FOLDERS = ("", "mnist", "MNIST", "MNIST/raw", "mnist/MNIST/raw", "raw")
"""Folders below that of the data that are searched for MNIST."""
IDX_MAGIC = 0x00000803  # unsigned bytes, three dimensions
SIDE = 28
"""Width and height of a digit, in pixels."""

MNIST_PNG_SPLITS: dict[str, Split] = {
    "training": "train",
    "validation": "validation",
    "testing": "test",
    "test": "test",
}
"""Folders below mnist_png/, and the split of the IDX files that replaces each."""


def _idx_file(folder: Path, name: str) -> Path | None:
    """Find the IDX file `name` in a folder, plain or gzipped."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def find_mnist(data_base_path: Path | str | None = None, *, download: bool = True) -> Path:
    """Find the folder of MNIST's images; download them when no folder has them.

    The search goes below `data_base_path`, below `$OHMQ_DATA` and below `./data`, in this order; in each the folder
    itself, then `mnist/`, `MNIST/`, `MNIST/raw/`, `mnist/MNIST/raw/` and `raw/`. A folder must have both image files,
    named as published (`train-images-idx3-ubyte`, `t10k-images-idx3-ubyte`), plain or with `.gz`; labels are not
    needed. A log line names the folder, as a warning when `data_base_path` holds no MNIST.

    Args:
        data_base_path: folder to search first; None: none.
        download: fetch the files into the user's cache as a last resort (11 MB, MD5 checked).

    Raises:
        ConfigError: no folder has MNIST, and it was not downloaded; the message names every folder.

    References: LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, 1998.
    """
    bases = data_folders(data_base_path)
    if (found := find_data(bases, MNIST_FOLDERS, holds_mnist)) is not None:
        if data_base_path and find_data(bases[:1], MNIST_FOLDERS, holds_mnist) is None:
            _log_once(logging.WARNING, f"no MNIST below {data_base_path}; using MNIST from {found}")
        else:
            _log_once(logging.INFO, f"using MNIST from {found}")
        return found
    failure, searched = "downloading was not allowed", ", ".join(map(str, bases))
    if download:
        try:
            folder = _download_mnist()
        except ConfigError as error:
            failure = str(error)
        else:
            level = logging.WARNING if data_base_path else logging.INFO
            _log_once(level, f"no MNIST below {searched}; using the downloaded copy in {folder}")
            return folder
    raise ConfigError(
        f"MNIST not found below {searched} (there in any of: ., {', '.join(MNIST_FOLDERS[1:])}), "
        f"and {failure}. Put {TRAIN_FILE}[.gz] and {TEST_FILE}[.gz] into one folder and name it with "
        f"{DATA_HINT}"
    )


def holds_mnist(folder: Path) -> bool:
    """Tell whether a folder has both files of MNIST's images.

    Args:
        folder: the folder itself; see `MNIST_FOLDERS` for those below another that are searched.
    """
    return bool(_idx_file(folder, TRAIN_FILE) and _idx_file(folder, TEST_FILE))


@functools.cache
def _log_once(level: int, message: str) -> None:
    """Log a message that several parts of a run would repeat."""
    log.log(level, message)


def _download_mnist() -> Path:
    """Fetch both image files, each from the first mirror that answers with the right bytes."""
    import pooch

    folder = Path(pooch.os_cache("ohmq"))
    for name, md5 in MNIST_MD5.items():
        failures = []
        for mirror in MNIST_MIRRORS:
            try:
                pooch.retrieve(f"{mirror}{name}.gz", known_hash=f"md5:{md5}", fname=f"{name}.gz", path=folder)
                break
            except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
                failures.append(f"{mirror} ({type(error).__name__})")
        else:
            raise ConfigError(f"downloading {name}.gz failed from {' and '.join(failures)}")
    return folder


def load_mnist_images(path: Path | str, train: bool) -> NDArray[np.uint8]:
    """Read the images of one IDX file, in the file's order.

    Args:
        path: folder of MNIST, see `find_mnist`.
        train: read the training file; False: the test file.

    Shape:
        Returns: (N, 28, 28), uint8, 0 is black.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    name = TRAIN_FILE if train else TEST_FILE
    file = _idx_file(Path(path), name)
    if file is None:
        raise ConfigError(f"no {name} or {name}.gz in {path}")
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{file} cannot be read ({error}); fetch it again") from error
    if len(data) < 16:
        raise ConfigError(f"{file} has {len(data)} bytes, too few for an IDX header; fetch it again")
    magic, count, height, width = (int.from_bytes(data[i : i + 4], "big") for i in range(0, 16, 4))
    if magic != IDX_MAGIC:
        raise ConfigError(f"{file} begins with {magic:#010x}; an IDX file of images begins with {IDX_MAGIC:#010x}")
    if (height, width) != (SIDE, SIDE) or count == 0:
        raise ConfigError(f"{file} announces {count} images of {height}x{width}; expected images of {SIDE}x{SIDE}")
    if len(data) != (expected := 16 + count * SIDE * SIDE):
        raise ConfigError(f"{file} holds {len(data)} bytes; {count} images need {expected}; fetch it again")
    return np.frombuffer(data, np.uint8, offset=16).reshape(count, SIDE, SIDE).copy()


def load_mnist(data_base_path: Path | str | None, split: Split, seed: int = 0) -> NDArray[np.uint8]:
    """Load the images of one split of MNIST.

    "test" is the test file. "train" and "validation" divide the training file at random, into 54,000 and 6,000 images.
    Validation takes the last tenth (rounded down, at least 1) of `numpy.random.RandomState(seed).permutation(N)`, a
    stream that numpy guarantees to keep. Both splits keep the order of the file.

    Args:
        data_base_path: folder to search first, see `find_mnist`; None: the usual places.
        split: "train", "validation" or "test".
        seed: seed of the division into "train" and "validation", in [0, 2**32).

    Shape:
        Returns: (N, 28, 28), uint8.

    Raises:
        ConfigError: no MNIST, or a damaged file.
        ValueError: unknown split.
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f"split is {split!r}; choose 'train', 'validation' or 'test'")
    images = load_mnist_images(find_mnist(data_base_path), train=split != "test")
    if split == "test":
        return images
    count = len(images)
    if count < 2:
        raise ConfigError("the MNIST training file holds 1 image; a training and a validation part need 2")
    cut = count - max(1, count // 10)
    order = np.random.RandomState(seed).permutation(count)
    return images[np.sort(order[:cut] if split == "train" else order[cut:])]


def load_png_folder(path: Path | str) -> NDArray[np.uint8]:
    """Load digits from a folder of image files, such as `mnist_png/testing`, in the order of their paths.

    Args:
        path: folder, searched recursively (classes may be subfolders).

    Shape:
        Returns: (N, 28, 28), uint8.

    Raises:
        ConfigError: no images, or one that is not 28x28.
        UnsupportedImageError: a file that is no image, or damaged.
    """
    return np.stack([_read_digit(file) for file in list_images([path])])


def _read_digit(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    from ohmq.imaging.pixel_limit import pixel_limit

    try:
        with pixel_limit(DEFAULT_MAX_PIXELS), Image.open(path) as image:
            if image.size != (SIDE, SIDE) or image.mode not in ("1", "L", "P", "RGB"):
                size = f"{image.width}x{image.height}"
                raise ConfigError(f"{path} is {size}, mode {image.mode}; expected {SIDE}x{SIDE}, 8 bits, no alpha")
            return np.array(image.convert("L"))
    except (OSError, SyntaxError, ValueError, UnsupportedImageError) as error:
        raise UnsupportedImageError(f"{path} cannot be read as an image: {error}") from error


class DigitSet(NamedTuple):
    """A named set of digits.

    Attributes:
        name: name for files and logs.
        images: (N, 28, 28), uint8.
    """

    name: str
    images: NDArray[np.uint8]


def resolve_test_set(path: Path | str, data_base_path: Path | str | None = None, seed: int = 0) -> DigitSet:
    """Load the digits that a command line names, such as `data/mnist_png/testing`.

    An existing folder is read. A missing folder `training`, `validation`, `testing` or `test` directly below
    `mnist_png` stands for that split of the IDX files (see `load_mnist`), and a log line says so. The division into
    `training` and `validation` is this project's own.

    Args:
        path: folder of digits.
        data_base_path: folder to search for MNIST's IDX files, see `find_mnist`; None: the usual places.
        seed: seed of the division into splits.

    Raises:
        ConfigError: no folder and no such split, or no MNIST.
    """
    folder = Path(path)
    if folder.is_dir():
        return DigitSet(folder.resolve().name, load_png_folder(folder))
    if not folder.exists() and folder.parent.name == "mnist_png" and folder.name in MNIST_PNG_SPLITS:
        split = MNIST_PNG_SPLITS[folder.name]
        log.info("%s does not exist; using the %s split of the MNIST IDX files in its place", path, split)
        return DigitSet(folder.name, load_mnist(data_base_path, split, seed))
    raise ConfigError(
        f"test set {path} is no folder; name a folder of {SIDE}x{SIDE} images, or mnist_png/validation or "
        "mnist_png/testing for MNIST's own images"
    )
