"""List the packages that ohmq needs, with version and licence, or check that `docs/dependencies.md` has them.

python tools/list_dependencies.py           # check: exit code 1 if the page is out of date or a licence is not allowed
python tools/list_dependencies.py --write   # write the page
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
BEGIN, END = "<!-- dependencies: written by tools/list_dependencies.py -->\n", "<!-- end of dependencies -->\n"
# Extras for users that `all` installs; development tools are not shipped.
EXTRAS = ("compiled", "evaluate", "rivals", "train", "onnx", "bulk", "s3", "cluster")
# Licences that let users of a program under the MIT licence do what that licence lets them do.
ALLOWED = re.compile(
    r"0BSD|Apache-2\.0|BSD-[23]-Clause|BSL-1\.0|CC0-1\.0|ISC|LLVM-exception|MIT|MIT-CMU|MPL-2\.0|PSF-2\.0|Zlib"
)
# Packages of the extra `rivals` alone, which measures other codecs; ohmq works without them, and the page says so.
MEASUREMENT_ONLY = {"pillow-jxl-plugin": "GPL-3.0-or-later"}
# Names that packages give to their licences, as SPDX identifiers.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# Licences of packages whose metadata does not name them, as their licence files do.
FROM_LICENCE_FILES = {"python-dateutil": "Apache-2.0 OR BSD-3-Clause", "torch": "BSD-3-Clause"}


def project(extras: frozenset[str] = frozenset()) -> list[str]:
    """Return the requirements that `pyproject.toml` states for ohmq and some of its extras.

    The metadata of an editable installation may be older than that file.
    """
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*table["dependencies"], *(line for extra in extras for line in table["optional-dependencies"][extra])]


def closure(lines: Iterable[str]) -> dict[str, Distribution]:
    """Collect the packages that requirements need on this platform, directly and indirectly.

    Args:
        lines: requirements as in `pyproject.toml`; ohmq with extras is allowed.

    Returns:
        Canonical names and installed packages, sorted by name, without ohmq.

    Raises:
        PackageNotFoundError: a package is not installed.
    """
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(Requirement(line), frozenset[str]()) for line in lines]
    while waiting:
        requirement, extras_of_parent = waiting.pop()
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in {"", *extras_of_parent}):
            continue
        name, extras = str(canonicalize_name(requirement.name)), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name == "ohmq":
            waiting += [(Requirement(line), frozenset[str]()) for line in project(extras)]
            continue
        found[name] = distribution(name)
        waiting += [(Requirement(line), extras) for line in found[name].requires or []]
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """Return a package's licence as an SPDX expression, or as the package names it."""
    metadata = package.metadata
    if known := FROM_LICENCE_FILES.get(canonicalize_name(metadata["Name"])):
        return known
    stated = metadata.get("License-Expression") or metadata.get("License") or ""
    if not stated or len(stated) > 60 or "\n" in stated or stated == "UNKNOWN":
        classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License :: OSI Approved :: ")]
        stated = " OR ".join(SPDX.get(name, name) for name in (c.split(" :: ")[-1] for c in classifiers))
    return SPDX.get(stated, stated)


def refused(expression: str) -> list[str]:
    """List the parts of a licence expression that are not in the list of allowed ones."""
    parts = re.split(r"\s+(?:AND|OR|WITH|and|or)\s+|[()]|\s*[;,]\s*", expression)
    return [part for part in parts if part and not ALLOWED.fullmatch(part)] if expression else ["no licence stated"]


def listing() -> tuple[str, list[str]]:
    """Return the table of the page, and complaints about licences."""
    core = closure(project())
    of_extra = {extra: closure(project(frozenset([extra]))) for extra in EXTRAS}
    packages = core | {name: package for found in of_extra.values() for name, package in found.items()}
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    lines = ["| package | version | licence | needed by |", "|---|---|---|---|"]
    complaints = []
    for name, package in sorted(packages.items()):
        if name not in pinned:  # it depends on the platform
            continue
        users = "ohmq" if name in core else ", ".join(f"`{e}`" for e in EXTRAS if name in of_extra[e])
        text = licence(package)
        lines.append(f"| {package.metadata['Name']} | {pinned[name]} | {text} | {users} |")
        if MEASUREMENT_ONLY.get(name) == text and users == "`rivals`":
            continue
        complaints += [f"{name}: licence {part!r} is not in the list of allowed ones" for part in refused(text)]
    return "\n".join(lines) + "\n", complaints


def main() -> int:
    """Write or check the page; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the page")
    options = parser.parse_args()
    try:
        table, complaints = listing()
    except PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed: pip install -e '.[all]' -c constraints.txt")
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    wanted = before + BEGIN + "\n" + table + "\n" + END + rest.split(END)[1]
    if options.write:
        PAGE.write_text(wanted, encoding="utf-8")
    elif text != wanted:
        complaints.append(f"{PAGE.relative_to(ROOT)} is out of date: python tools/list_dependencies.py --write")
    print("\n".join(complaints) or f"{PAGE.relative_to(ROOT)}: {table.count(chr(10)) - 2} packages")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
