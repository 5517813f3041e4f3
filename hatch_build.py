"""The README as the package index shows it: there, links within the repository lead nowhere."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

_IMAGE = re.compile(
    r"!\[(?P<text>[^\]]*)\]\((?P<path>(?!https?:)[^)]+)\)(?P<caption>\n\n\*[^*].*?\*(?=\n\n))?", re.DOTALL
)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<path>(?!https?:|#)[^)]+)\)")


def standalone(readme: str, repository: str | None) -> str:
    """Return a README whose images and links work outside of the repository.

    Args:
        readme: Markdown.
        repository: address of the repository; None: images are left out with their captions, links keep their text.
    """
    if repository is None:
        return _LINK.sub(lambda match: match["text"], _IMAGE.sub("", readme))
    address = repository.rstrip("/")
    readme = _LINK.sub(lambda match: f"[{match['text']}]({address}/blob/HEAD/{match['path']})", readme)
    return _IMAGE.sub(
        lambda match: f"![{match['text']}]({address}/raw/HEAD/{match['path']}){match['caption'] or ''}", readme
    )


class Readme(MetadataHookInterface):
    """Hook that sets the field "readme" of the metadata."""

    def update(self, metadata: dict) -> None:
        """Set the field; the address is that of ``project.urls.Repository``, if there is one."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        metadata["readme"] = {"content-type": "text/markdown", "text": standalone(text, repository)}
