"""Conversion of the documentation's maths to MathML while it is built: pages need no script and no network for it."""

import html
import re
from typing import Any

from math_core import LatexError, LatexToMathML
from mkdocs.exceptions import PluginError

MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
QUAD = re.compile(r"\\q?quad\b\s*")
_converter = LatexToMathML()


def to_mathml(latex: str, *, display: bool) -> str:
    r"""Convert a formula to MathML; displayed ones begin a line at each ``\quad``, as browsers do not break lines.

    Args:
        latex: the formula, without delimiters.
        display: whether the formula stands in a paragraph of its own.

    Returns:
        A ``<math>`` element.

    Raises:
        LatexError: the formula is not LaTeX maths.
    """
    parts = QUAD.split(latex.strip())
    if display and len(parts) > 1:
        latex = r"\begin{gathered}" + r" \\ ".join(parts) + r"\end{gathered}"
    return _converter.convert_with_local_state(latex, displaystyle=display)


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Replace the formulas that `pymdownx.arithmatex` marked.

    Args:
        content: HTML of a page.
        page: the page, for messages.

    Returns:
        The HTML with MathML in place of LaTeX.

    Raises:
        PluginError: a formula that cannot be converted; it stops the build.
    """

    def convert(match: re.Match[str]) -> str:
        latex = html.unescape(match[3])
        try:
            maths = to_mathml(latex, display=match[2] == "[")
        except LatexError as error:
            raise PluginError(f"{page.file.src_uri}: formula {latex!r}: {error}") from error
        return f'<{match[1]} class="maths">{maths}</{match[1]}>'

    return MATHS.sub(convert, content)
