"""Check Markdown files: links and paths that lead nowhere, and phrases that the house style rules out.

    python tools/check_prose.py

Addresses of other sites are not visited. Links between pages of docs/ are also checked by the strict build of the site.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "src").rglob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
]
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
FOLDERS = "benchmarks|docs|examples|results|slurm|src|tests|tools"
PATH = re.compile(rf"(?:{FOLDERS})/[\w./-]*")
PHRASES = {
    r"\bso many\b": "give the number",
    r"\bwhoever\b": "name the reader or the program",
    r"\bfor want of\b": "use 'because … is missing'",
    r"\bas such\b": "leave it out",
    r"\bthat (?:are|is) there\b": "use 'existing' or 'installed'",
    r"(?:^|[.:;] )What (?:can|cannot|is|has|was|limits|becomes)\b(?![^.\n]*\?)": "begin with the noun",
    r"\bwill do as well\b": "use 'also works'",
    r"\bis mended\b|\bmended\b": "use 'fixed'",
    r"\bhas not\b(?= [a-z]+s\b)": "use 'does not have'",
}


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub and the site give to a page's headings, and explicit ones."""
    found = set(re.findall(r'(?:id="|\{ *#)([\w.-]+)', text))
    for heading in HEADING.findall(CODE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        found.add(re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-"))
    return found


def problems(page: Path, root: Path = ROOT) -> Iterator[str]:
    """Find the problems of a page.

    Args:
        page: a Markdown file below `root`.
        root: folder of the project.

    Yields:
        One line for each problem, with page and line number.
    """
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(root).as_posix()

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    def place(position: int) -> str:
        return f"{name}:{text.count(chr(10), 0, position) + 1}"

    prose = COMMENT.sub(blank, CODE.sub(blank, text))
    for span in SPAN.finditer(prose):
        if PATH.fullmatch(span[1]) and not (root / span[1]).exists():
            yield f"{place(span.start())}: no file {span[1]}"
    prose = SPAN.sub(lambda match: "`" * len(match[0]), prose)
    for link in LINK.finditer(prose):
        address, _, anchor = link[1].partition("#")
        if re.match(r"[a-z]+:", address):
            continue
        target = page.parent / address if address else page
        if not target.exists():
            yield f"{place(link.start())}: no file {address}"
        elif (
            anchor
            and target.suffix == ".md"
            and target.parent.name != "api"  # their anchors are made from docstrings
            and anchor not in anchors(target.read_text(encoding="utf-8"))
        ):
            yield f"{place(link.start())}: {address or name} has no heading #{anchor}"
    for phrase, advice in PHRASES.items():
        for match in re.finditer(phrase, prose, re.MULTILINE | re.IGNORECASE if "What" not in phrase else re.MULTILINE):
            yield f"{place(match.start())}: {match[0].strip(' .:;')!r}: {advice}"


def main() -> int:
    """Print the problems of all pages; return the exit code."""
    lines = [line for page in sorted(PAGES) for line in problems(page)]
    print("\n".join(lines) or f"{len(PAGES)} pages: links and phrases are in order")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
