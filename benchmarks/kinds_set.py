"""The test set by kind of picture: fetched from packages or drawn, then checked; `kinds.toml` lists it."""

import contextlib
import hashlib
import importlib
import io
import shutil
import subprocess
import sys
import tarfile
import tomllib
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from kinds_pages import PAGES, contour_map, page_html
from PIL import Image, ImageOps

from ohmq.errors import ConfigError
from ohmq.utils.atomic_write import write_atomically

__all__ = ["TABLE", "draw_picture", "make_set", "pixel_hash", "read_table"]

TABLE = Path(__file__).with_suffix(".toml").with_name("kinds.toml")
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SVG_MARGIN = 16
"""Pixels of white around a line drawing."""
WHITE_MARGIN = 32
"""Least number of white pixels around a product."""
BILEVEL = {"typewriter"}
"""Pages whose pixels are made black or white, as a fax or a scan in two levels has them."""


def read_table() -> dict[str, Any]:
    """Read the table of packages and pictures."""
    return tomllib.loads(TABLE.read_text("utf-8"))


def pixel_hash(image: Image.Image) -> str:
    """Return the SHA-256 of the RGB pixels of an image, row by row."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


class Packages:
    """Files of the packages that the table names.

    Args:
        table: content of the table.
        cache: folder in which downloaded packages are kept.
    """

    def __init__(self, table: dict[str, Any], cache: Path) -> None:
        self.table, self.cache = table["packages"], cache
        self.paths: dict[str, set[str]] = {}
        for picture in table["pictures"]:
            if "path" in picture:
                self.paths.setdefault(picture["package"], set()).add(picture["path"])
        self.paths["vlgothic"] = {"VL-Gothic-Regular.ttf"}
        self._files: dict[str, dict[str, bytes]] = {}

    def read(self, package: str, path: str) -> bytes:
        """Read a file of a package.

        Raises:
            ConfigError: the package cannot be had, or is another one than the table says.
        """
        entry = self.table[package]
        if "module" in entry:
            try:
                module = importlib.import_module(entry["module"])
            except ImportError as error:
                raise ConfigError(f"{package} is not installed: pip install 'ohmq[dev,evaluate]'") from error
            return (Path(str(module.__file__)).parent / entry["folder"] / path).read_bytes()
        if package not in self._files:
            self._files[package] = self._unpack(package)
        return self._files[package][path]

    def _unpack(self, package: str) -> dict[str, bytes]:
        """Read the files of a downloaded package that the table names."""
        entry, found = self.table[package], {}
        with _open_tar(self._download(package)) as tar:
            for member in tar:
                path = member.name.removeprefix("./").removeprefix(f"{entry['folder']}/")
                if path in self.paths[package] and (file := tar.extractfile(member)):
                    found[path] = file.read()
        if missing := self.paths[package] - found.keys():
            raise ConfigError(f"no {', '.join(sorted(missing))} in the package {package}")
        return found

    def _download(self, package: str) -> Path:
        """Download a package unless the cache has it."""
        import pooch

        entry = self.table[package]
        if "url" in entry:
            return Path(pooch.retrieve(entry["url"], f"sha256:{entry['sha256']}", path=self.cache))
        file = self.cache / (entry["pip"].replace("==", "-") + ".tar.gz")
        if not file.exists():
            pip = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                ":all:",
                entry["pip"],
            ]
            subprocess.run([*pip, "-d", str(self.cache)], check=True)
        if hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            raise ConfigError(f"{file} is not the file that the table names; remove it")
        return file


@contextlib.contextmanager
def _open_tar(package: Path) -> Iterator[tarfile.TarFile]:
    """Open the files of a Debian package or of a source distribution as a stream."""
    if package.suffix != ".deb":
        with tarfile.open(package) as tar:
            yield tar
        return
    if not shutil.which("dpkg-deb"):
        raise ConfigError("Debian packages need the command dpkg-deb (apt install dpkg, brew install dpkg)")
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            yield tar


@cache
def _chromium() -> str:
    for name in CHROMIUM:
        if path := shutil.which(name):
            return path
    raise ConfigError(f"screens, text and line art are drawn by Chromium; none of {', '.join(CHROMIUM)} is installed")


def _render(text: str, size: tuple[int, int], folder: Path) -> Image.Image:
    """Draw an HTML page with Chromium."""
    page, picture = folder / "page.html", folder / "page.png"
    page.write_text(text, "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-lcd-text"]
    options += ["--force-device-scale-factor=1", "--font-render-hinting=none", "--allow-file-access-from-files"]
    # The window is taller than the page: some versions keep part of it for themselves.
    window = f"--window-size={size[0]},{size[1] + 160}"
    command = [
        _chromium(),
        *options,
        f"--user-data-dir={folder / 'profile'}",
        window,
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(picture) as image:
        return image.convert("RGB").crop((0, 0, *size))


def _on_white(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Place an RGBA image at the centre of a white one."""
    canvas = Image.new("RGBA", size, "white")
    canvas.alpha_composite(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas.convert("RGB")


def draw_picture(picture: dict[str, Any], packages: Packages, work: Path) -> Image.Image:
    """Draw one picture of the table, or cut it from its package's file.

    Args:
        picture: its entry.
        packages: the packages.
        work: folder for files in between, which holds the fonts.
    """
    width, height = picture["size"]
    if picture["name"] == "contours":
        return Image.open(io.BytesIO(contour_map())).convert("RGB")
    if picture["package"] == "page":
        image = _render(page_html(picture["name"]), PAGES[picture["name"]][1], work)
        return (
            image.convert("L").point(lambda value: 255 * (value > 127)).convert("RGB")
            if picture["name"] in BILEVEL
            else image
        )
    data = packages.read(picture["package"], picture["path"])
    if picture["path"].endswith(".svg"):
        (work / "drawing.svg").write_bytes(data)
        style = (
            f"body{{margin:0;background:#fff}}img{{width:{width}px;height:{height}px;"
            f"padding:{SVG_MARGIN}px;object-fit:contain;box-sizing:border-box}}"
        )
        return _render(f"<!doctype html><style>{style}</style><img src=drawing.svg>", (width, height), work)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Palette images with Transparency")
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    if picture.get("white"):
        cut_out = image
        cut_out.thumbnail((width - 2 * WHITE_MARGIN, height - 2 * WHITE_MARGIN), Image.Resampling.LANCZOS)
        return _on_white(cut_out, (width, height))
    image = _on_white(image, image.size)
    if "box" in picture:
        image = image.crop(picture["box"])
    if picture.get("native"):
        left, top = (max(0, (side - wanted) // 2) for side, wanted in zip(image.size, (width, height), strict=True))
        return image.crop((left, top, min(left + width, image.width), min(top + height, image.height)))
    if image.width < width or image.height < height:
        raise ConfigError(f"{picture['name']} is {image.width}x{image.height}, too small for {width}x{height}")
    return ImageOps.fit(
        image, (width, height), Image.Resampling.LANCZOS, centering=(0.5, 0.0 if picture.get("top") else 0.5)
    )


def make_set(folder: Path, cache: Path) -> list[str]:
    """Make all pictures, as ``KIND/NAME.png`` in a folder; pictures that are there and match are kept.

    Args:
        folder: where to put them.
        cache: folder for downloaded packages.

    Returns:
        A line for each picture whose pixels are not those of the table.

    Raises:
        ConfigError: a package or a program is missing.
    """
    table = read_table()
    cache.mkdir(parents=True, exist_ok=True)
    packages = Packages(table, cache)
    work = cache / "work"
    work.mkdir(exist_ok=True)
    (work / "VL-Gothic-Regular.ttf").write_bytes(packages.read("vlgothic", "VL-Gothic-Regular.ttf"))
    for font in FONTS:
        (work / f"{font}.ttf").write_bytes(packages.read("matplotlib", f"fonts/ttf/{font}.ttf"))
    different = []
    for picture in table["pictures"]:
        path = folder / picture["kind"] / f"{picture['name']}.png"
        if path.exists() and pixel_hash(Image.open(path)) == picture["sha256"]:
            continue
        image = draw_picture(picture, packages, work)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", optimize=True)
        write_atomically(path, buffer.getvalue(), force=True)
        if (found := pixel_hash(image)) != picture["sha256"]:
            different.append(f"{picture['kind']}/{picture['name']}: pixels {found}")
    return different
