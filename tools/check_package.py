"""Build the wheel and the source distribution, check them, and use the wheel in an empty environment.

    python tools/check_package.py             # into dist/; the empty environment links the dependencies installed here
    python tools/check_package.py --download  # the empty environment installs the dependencies, from the package index

The wheel is built from the source distribution. Linking only what the wheel asks for shows, without a network, that its
list of requirements is complete.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from list_dependencies import closure, project

ROOT = Path(__file__).parents[1]
LARGEST_WHEEL = 20 * 2**20
"""Limit on the size of the wheel, in bytes: the shipped models are nearly all of it."""
LICENCES = ("LICENSE", "THIRD_PARTY.md")
PROGRAM = """
import ohmq, ohmq.pillow_plugin, sys
from pathlib import Path
from PIL import Image

assert Path(ohmq.__file__).is_relative_to(sys.prefix), ohmq.__file__
image = Image.open("image.ohm")
assert image.size == (451, 300), image.size
image.load()
try:
    import pytest
except ImportError:
    pass
else:
    sys.exit("the environment is not empty")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return its output; end this program if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """Build both distributions into an empty folder; return the wheel and the source distribution."""
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
    return wheel, source


def check_contents(wheel: Path, source: Path) -> None:
    """Check that every tracked file of the package and the licences are in both distributions, and the wheel's size."""
    assert wheel.stat().st_size <= LARGEST_WHEEL, f"{wheel} has {wheel.stat().st_size / 2**20:.1f} MiB"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        version = re.search(r"^Version: (\S+)$", archive.read(metadata).decode(), re.MULTILINE)
        assert version and f"\nversion: {version[1]}\n" in citation, "CITATION.cff states another version"
    tree = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "ohmq").rglob("*") if path.is_file()}
    missing = {name for name in tree if "__pycache__" not in name} - names
    licences = {f"{metadata.removesuffix('METADATA')}licenses/{name}" for name in LICENCES}
    assert not missing and licences <= names, f"{wheel} lacks {sorted(missing | (licences - names))}"
    assert all(name.startswith(("ohmq/", metadata.removesuffix("METADATA"))) for name in names), "stray files"
    with tarfile.open(source) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {f"src/{name}" for name in tree if "__pycache__" not in name} | {
        "README.md",
        "tests/conftest.py",
        *LICENCES,
    }
    assert wanted <= members, f"{source} lacks {sorted(wanted - members)}"


def install(wheel: Path, folder: Path, *, download: bool) -> Path:
    """Install the wheel in a new environment; return the environment's folder of programs."""
    venv.create(folder, with_pip=True, symlinks=True)
    programs = folder / "bin"
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if download:
        run(*pip, "-c", ROOT / "constraints.txt", wheel)
        return programs
    (packages,) = (folder / "lib").glob("python3*/site-packages")
    for package in closure(project()).values():
        for top in {file.parts[0] for file in package.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link = packages / top
            if not link.exists():
                link.symlink_to(Path(str(package.locate_file(top))))
    run(*pip, "--no-index", "--no-deps", wheel)
    run(programs / "python", "-m", "pip", "check")
    return programs


def use(programs: Path, work: Path) -> None:
    """Run the installed commands, with shipped models, and the Pillow plugin."""
    shutil.copy(ROOT / "examples" / "photos" / "chelsea.png", work / "image.png")
    shutil.copy(ROOT / "examples" / "digits" / "digit_0_a.png", work / "digit.png")
    ohmq = programs / "ohmq"
    run(ohmq, "--version", cwd=work)
    models = run(ohmq, "models", cwd=work)
    for path in (ROOT / "src" / "ohmq" / "pretrained").glob("*.safetensors"):
        assert path.stem in models, f"ohmq models does not list {path.stem}"
    run(ohmq, "compress", "image.png", "-o", "image.ohm", "--bpp", "0.2", cwd=work)
    run(ohmq, "compress", "digit.png", "-o", "digit.ohm", "--model", "mnist-ohm", cwd=work)
    run(ohmq, "decompress", "digit.ohm", "-o", "decoded.png", cwd=work)
    run(programs / "python", "-c", PROGRAM, cwd=work)


def main() -> None:
    """Do all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--download", action="store_true", help="install the dependencies from the package index")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder of the distributions, emptied first")
    options = parser.parse_args()
    wheel, source = build(options.dist)
    check_contents(wheel, source)
    with tempfile.TemporaryDirectory() as folder:
        use(install(wheel, Path(folder) / "environment", download=options.download), Path(folder))
    for path in (wheel, source):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
