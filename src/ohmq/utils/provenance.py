"""src/ohmq/utils/provenance.py."""

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ohmq._version import __version__

__all__ = ["command_line", "software_versions"]


def software_versions() -> dict[str, str]:
    """Versions that a result depends on: ohmq, its libraries, Python and the platform. Imports none of them."""

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
    """The command of this process; the program and absolute paths by their names, as a result says nothing about a machine.

    Example:
        >>> command_line(["/usr/bin/ohmq", "evaluate", "/home/me/digits"])
        'ohmq evaluate digits'
        >>> command_line(["/usr/lib/ohmq/__main__.py", "info"])
        'python -m ohmq info'
    """
    parts = sys.argv if argv is None else argv
    names = [Path(part).name if number == 0 or Path(part).is_absolute() else part for number, part in enumerate(parts)]
    if names[0] == "__main__.py":
        names[0] = "python -m ohmq"
    return " ".join(names)
