"""Maths in the documentation becomes MathML while it is built: pages need no script and no network for it."""

import html
import re
from typing import Any

from math_core import LatexError, LatexToMathML
from mkdocs.exceptions import PluginError

MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
QUAD = re.compile(r"\\q?quad\b\s*")
_converter = LatexToMathML()


def to_mathml(latex: str, *, display: bool) -> str:
    r"""A formula as MathML; displayed ones begin a line at each ``\quad``, as browsers break none.

    Raises:
        LatexError: something that is not LaTeX maths.
    """
    parts = QUAD.split(latex.strip())
    if display and len(parts) > 1:
        latex = r"\begin{gathered}" + r" \\ ".join(parts) + r"\end{gathered}"
    return _converter.convert_with_local_state(latex, displaystyle=display)


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Replace what `pymdownx.arithmatex` marked; a formula that cannot be converted stops the build."""

    def convert(found: re.Match[str]) -> str:
        latex = html.unescape(found[3])
        try:
            maths = to_mathml(latex, display=found[2] == "[")
        except LatexError as error:
            raise PluginError(f"{page.file.src_uri}: formula {latex!r}: {error}") from error
        return f'<{found[1]} class="maths">{maths}</{found[1]}>'

    return MATHS.sub(convert, content)
