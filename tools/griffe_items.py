"""Short forms of docstrings, read for the documentation.

Arguments, attributes and errors may share a line (``width, height: in pixels. name: of the image``), a continuation
line needs no indentation, references may take two lines, and examples stand under ``Example:``.
"""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^((?:Args|Attributes):\n)((?:[ ]{4}.*(?:\n|\Z)|\n(?=[ ]{4}))+)", re.MULTILINE)
ITEM = re.compile(r"[ ]{4}(\w+(?:, \w+)*): ")
RAISES = re.compile(r"^Raises:\n(?:[ ]{4}.*(?:\n|\Z))+", re.MULTILINE)
ERROR_WITHIN = re.compile(r"(?<=[.;?)`]) (?=\w+(?:Error|Warning): )")
REFERENCES = re.compile(r"^References: .*(?:\n[ ]{4}.*)*", re.MULTILINE)
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


def normalise(text: str, names: set[str]) -> str:
    """Bring a docstring into the form that Griffe reads: one item a line, its continuation indented.

    Brackets that follow brackets are indices, never links.

    Args:
        text: the docstring.
        names: arguments or attributes that an item within a line can begin with.

    Returns:
        The docstring with one item a line.
    """
    known = "|".join(map(re.escape, sorted(names))) or "(?!)"
    within = re.compile(rf"(?<=[.;?)`]) (?=(?:{known})(?:, \w+)*: )")

    def section(match: re.Match[str]) -> str:
        items: list[list[str]] = []
        for line in match[2].splitlines():
            for part in within.sub("\n    ", line).split("\n"):
                if ITEM.match(part) or not items:
                    items.append([part])
                else:
                    items[-1].append(" " * 8 + part.strip())
        lines = []
        for first, *rest in items:
            shared = ITEM.match(first)
            for name in shared[1].split(", ") if shared else [""]:
                lines += [f"    {name}: {first[shared.end() :]}" if shared else first, *rest]
        return match[1] + "\n".join(lines).replace("][", "]\\[") + "\n"

    text = RAISES.sub(lambda match: ERROR_WITHIN.sub("\n    ", match[0]), SECTION.sub(section, text))
    text = REFERENCES.sub(lambda match: " ".join(match[0].split()), text)
    return EXAMPLE.sub("Examples:", text)


class ShortItems(griffe.Extension):
    """Extension of Griffe that applies `normalise` to every docstring."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Take the package itself, which is no member of an object."""
        self.on_object(obj=pkg)

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Normalise the docstring of a module, class, function or attribute."""
        if not obj.docstring:
            return
        names: set[str] = set()
        if isinstance(obj, griffe.Function):
            names = {parameter.name for parameter in obj.parameters}
        elif isinstance(obj, griffe.Class):
            names = set(obj.members)
            init = obj.members.get("__init__")
            if isinstance(init, griffe.Function):
                names |= {parameter.name for parameter in init.parameters}
        obj.docstring.value = normalise(obj.docstring.value, names)
