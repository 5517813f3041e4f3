"""The origin of a result: software versions and the command line."""

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ohmq._version import __version__

__all__ = ["command_line", "software_versions"]


def software_versions() -> dict[str, str]:
    """Return the versions that a result depends on: ohmq, its libraries, Python, the platform. Imports none of them."""

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    return {
        "ohmq": __version__,
        **{package: installed(package) for package in ("torch", "numpy", "numba", "pillow")},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def command_line(argv: Sequence[str] | None = None) -> str:
    """Return the command line of this process, with the program and absolute paths shortened to their last names.

    A result should not reveal the folders of a machine.

    Args:
        argv: program and arguments; None: those of this process.

    Example:
        >>> command_line(["/usr/bin/ohmq", "evaluate", "/home/me/digits"])
        'ohmq evaluate digits'
        >>> command_line(["/usr/lib/ohmq/__main__.py", "info"])
        'python -m ohmq info'
    """
    words = sys.argv if argv is None else argv
    names = [Path(word).name if number == 0 or Path(word).is_absolute() else word for number, word in enumerate(words)]
    if names[0] == "__main__.py":
        names[0] = "python -m ohmq"
    return " ".join(names)
