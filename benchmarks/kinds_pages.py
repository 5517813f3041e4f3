"""HTML pages and drawings of the test set: screens, text and line art, a function of nothing but fonts and library versions."""

import html
import io
from pathlib import Path

import numpy as np

__all__ = ["PAGES", "contour_map", "page_html"]

ENGLISH = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and "
    "should act towards one another in a spirit of brotherhood. Everyone is entitled to all the rights and freedoms set "
    "forth in this Declaration, without distinction of any kind, such as race, colour, sex, language, religion, "
    "political or other opinion, national or social origin, property, birth or other status. Everyone has the right to "
    "life, liberty and security of person. No one shall be held in slavery or servitude. Everyone has the right to "
    "recognition everywhere as a person before the law."
)
GERMAN = (
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und "
    "sollen einander im Geiste der Brüderlichkeit begegnen. Jeder hat das Recht auf Leben, Freiheit und Sicherheit der Person."
)
GREEK = (
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι με λογική και "
    "συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης."
)
RUSSIAN = (
    "Все люди рождаются свободными и равными в своём достоинстве и правах. Они наделены разумом и совестью и должны "
    "поступать в отношении друг друга в духе братства. Каждый человек имеет право на жизнь, на свободу и на личную "
    "неприкосновенность."
)
JAPANESE = (
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを授けられており、"
    "互いに同胞の精神をもって行動しなければならない。すべて人は、生命、自由及び身体の安全に対する権利を有する。"
)
"""First articles of the Universal Declaration of Human Rights (United Nations, 1948)."""


def _document(style: str, body: str) -> str:
    return (
        '<!doctype html><meta charset="utf-8"><style>'
        '@font-face{font-family:Sans;src:url("DejaVuSans.ttf")}@font-face{font-family:SansBold;src:url("DejaVuSans-Bold.ttf")}'
        '@font-face{font-family:Serif;src:url("DejaVuSerif.ttf")}@font-face{font-family:Mono;src:url("DejaVuSansMono.ttf")}'
        '@font-face{font-family:Gothic;src:url("VL-Gothic-Regular.ttf")}'
        "*{box-sizing:border-box}html,body{margin:0;height:100%;overflow:hidden}"
        f"{style}</style>{body}"
    )


def _paragraphs(texts: tuple[str, ...], count: int) -> str:
    return "".join(f"<p>{html.escape(texts[number % len(texts)])}</p>" for number in range(count))


def _book() -> str:
    style = "body{font:17px/26px Serif;color:#111;background:#fff;padding:34px 60px;text-align:justify}h1{font:28px SansBold}"
    return _document(style, "<h1>Universal Declaration</h1>" + _paragraphs((ENGLISH, GERMAN), 6))


def _japanese() -> str:
    style = "body{font:18px/31px Gothic;color:#222;background:#fbf7ec;padding:30px 44px}h1{font:30px Gothic;color:#a22}"
    return _document(style, "<h1>世界人権宣言</h1>" + _paragraphs((JAPANESE,), 6))


def _small_print() -> str:
    style = "body{font:11px/14px Sans;color:#b9c4d8;background:#16202f;padding:18px;columns:3;column-gap:22px}p{margin:0 0 9px}"
    return _document(style, _paragraphs((GREEK, RUSSIAN, GERMAN, ENGLISH), 24))


def _typewriter() -> str:
    style = "body{font:15px/21px Mono;color:#000;background:#fff;padding:24px 40px}"
    return _document(style, _paragraphs((ENGLISH,), 5))


def _poster() -> str:
    style = (
        "body{background:linear-gradient(160deg,#f7b733,#fc4a1a);color:#fff;padding:36px 44px;font-family:SansBold}"
        "h1{font-size:104px;line-height:98px;margin:0;color:#2b1055}h2{font-size:44px;margin:22px 0 8px}"
        "p{font:20px/29px Sans;margin:0;color:#fff6d8}"
        "b{font:15px SansBold;background:#2b1055;padding:8px 18px;border-radius:20px}"
    )
    body = (
        "<h1>Open<br>Door Day</h1><h2>12 – 14 September</h2>"
        "<p>Tours at 10, 12 and 15 o’clock · Workshops for children · Free entry<br>Königstraße 27, second floor, ring twice</p>"
        "<br><b>Register now</b> &nbsp; <b style='background:#fff;color:#fc4a1a'>More …</b>"
    )
    return _document(style, body)


def _editor() -> str:
    import skimage
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    source = (Path(skimage.__file__).parent / "metrics" / "simple_metrics.py").read_text("utf-8")
    formatter = HtmlFormatter(style="monokai", linenos="inline")
    code = highlight("\n".join(source.splitlines()[80:125]), PythonLexer(), formatter)
    files = "".join(
        f"<div>▸ {name}.py</div>" for name in "colour draw feature filters graph io measure metrics morph".split()
    )
    style = formatter.get_style_defs(".highlight") + (
        "body{background:#1e1f1c;color:#ccc;font:13px Sans;display:grid;grid-template:34px 1fr 24px/180px 1fr}"
        "header{grid-column:1/3;background:#3c3d38;padding:9px 14px}nav{background:#252620;padding:8px 14px;line-height:23px}"
        "pre{font:14px/19px Mono;margin:0;padding:8px}.highlight{background:#272822!important;overflow:hidden}"
        "footer{grid-column:1/3;background:#0a7aca;color:#fff;padding:4px 14px;font-size:12px}"
    )
    body = (
        f"<header>● ● ● &nbsp; simple_metrics.py</header><nav>{files}</nav>{code}"
        "<footer>Ln 97, Col 5 · UTF-8 · Python</footer>"
    )
    return _document(style, body)


def _spreadsheet() -> str:
    rng = np.random.default_rng(1)
    names = "North South East West Centre Harbour Airport Valley Hills Island".split()
    head = "".join(f"<th>{letter}</th>" for letter in " ABCDEFGHIJ")
    rows = []
    for number in range(1, 31):
        amounts = rng.normal(2000, 1500, 8)
        cells = "".join(f"<td class={'n' if amount < 0 else 'v'}>{amount:,.2f}</td>" for amount in amounts)
        share = f"<td class=p style='background:linear-gradient(90deg,#8fd19e {rng.integers(10, 95)}%,#fff 0)'></td>"
        rows.append(f"<tr><th>{number}</th><td>{names[number % 10]} {number // 10}</td>{cells}{share}</tr>")
    style = (
        "body{font:12px Sans;background:#f3f3f3}header{background:#217346;color:#fff;padding:8px 12px;font-size:14px}"
        "div{padding:6px 12px;background:#e8e8e8}table{border-collapse:collapse;background:#fff;width:100%}"
        "td,th{border:1px solid #d4d4d4;padding:2px 5px;height:19px}th{background:#e6e6e6;font:12px Sans;color:#555}"
        ".v,.n{text-align:right}.n{color:#c00}.p{width:80px}tr:nth-child(4) td{background:#ddebf7}"
    )
    body = (
        "<header>Budget.xlsx</header><div>File &nbsp; Edit &nbsp; View &nbsp; Insert &nbsp; Format &nbsp; Data &nbsp; "
        f"<i>fx</i> =SUM(C2:C31)</div><table><tr>{head}</tr>{''.join(rows)}</table>"
    )
    return _document(style, body)


def _dashboard() -> str:
    rng = np.random.default_rng(2)
    cards = []
    for title, colour in zip(
        ("Visits", "Orders", "Returns", "Revenue"), ("#4c6ef5", "#12b886", "#fa5252", "#fab005"), strict=True
    ):
        values = 40 + np.cumsum(rng.normal(0, 5, 40))
        points = " ".join(f"{6 * step},{np.clip(80 - value, 4, 78):.1f}" for step, value in enumerate(values))
        bars = "".join(
            f"<rect x={8 * step} y={60 - height} width=5 height={height} fill='{colour}' opacity=.55 />"
            for step, height in enumerate(rng.integers(6, 60, 28).tolist())
        )
        cards.append(
            f"<section><small>{title}</small><b style='color:{colour}'>{rng.integers(1000, 99999):,}</b>"
            f"<svg viewBox='0 0 236 80'><polyline points='{points}' fill=none stroke='{colour}' stroke-width=2 /></svg>"
            f"<svg viewBox='0 0 236 60'>{bars}</svg>"
            f"<button style='background:{colour}'>Details</button> <button>Export</button></section>"
        )
    items = "".join(
        f"<div>◆ &nbsp;{item}</div>" for item in "Overview Customers Products Invoices Messages Settings Help".split()
    )
    style = (
        "body{font:14px Sans;background:#f1f3f5;"
        "display:grid;grid-template-columns:170px 1fr 1fr;grid-template-rows:54px 1fr 1fr;gap:12px}"
        "header{grid-column:1/4;background:linear-gradient(90deg,#3b5bdb,#7048e8);"
        "color:#fff;padding:15px 20px;font:18px SansBold}"
        "nav{grid-row:2/4;background:#fff;padding:14px;line-height:36px;color:#495057}"
        "section{background:#fff;border-radius:10px;box-shadow:0 2px 8px #0003;padding:14px 18px;margin-right:10px}"
        "small{color:#868e96}b{font:28px SansBold;display:block;margin:4px 0}svg{display:block;width:100%;height:66px}"
        "button{font:12px Sans;border:1px solid #ced4da;border-radius:6px;padding:5px 14px;margin-top:8px}"
    )
    return _document(style, f"<header>Shop dashboard</header><nav>{items}</nav>{''.join(cards)}")


def _technical() -> str:
    parts = ["<g fill=none stroke=#000 stroke-width=2>"]
    parts += [f"<circle cx=250 cy=260 r={radius} />" for radius in (170, 150, 70, 40)]
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        x, y = 250 + 110 * np.cos(angle), 260 + 110 * np.sin(angle)
        parts.append(
            f"<circle cx={x:.2f} cy={y:.2f} r=14 /><path stroke-width=.7 d='M{x - 22:.2f} {y:.2f}h44M{x:.2f} {y - 22:.2f}v44'/>"
        )
    parts.append(
        "<rect x=500 y=90 width=190 height=340 /><rect x=540 y=90 width=110 height=340 /><path d='M500 190h190M500 330h190'/></g>"
    )
    hatches = "".join(f"M{500 + step} 190l-{min(step, 40)} {min(step, 40)}" for step in range(0, 190, 6))
    hatches += "".join(f"M{500 + step} 430l-{min(step, 60)} -{min(step, 60)}" for step in range(0, 190, 7))
    parts.append(f"<path d='{hatches}' stroke=#000 stroke-width=.8 fill=none />")
    parts.append("<g stroke=#000 stroke-width=.7 fill=none><path d='M40 260h420M250 50v420' stroke-dasharray='14 4 3 4'/>"
                 "<path d='M500 460v30M690 460v30M500 480h190M710 90h30M710 430h30M730 90v340'/></g>"
                 "<g font-family=Sans font-size=14><text x=580 y=475>⌀ 190</text>"
                 "<text x=738 y=265 transform='rotate(90 738 265)'>340 ± 0.1</text>"
                 "<text x=60 y=80>12 × ⌀ 28</text><text x=60 y=100>R 150</text></g>")  # fmt: skip
    return _document("body{background:#fff}", f"<svg width=768 height=512>{''.join(parts)}</svg>")


PAGES = {
    "book": (_book, (768, 512)),
    "japanese": (_japanese, (768, 512)),
    "small-print": (_small_print, (768, 512)),
    "typewriter": (_typewriter, (768, 512)),
    "poster": (_poster, (768, 512)),
    "editor": (_editor, (1024, 640)),
    "spreadsheet": (_spreadsheet, (1024, 640)),
    "dashboard": (_dashboard, (1024, 640)),
    "technical": (_technical, (768, 512)),
}
"""Functions that write the HTML of each page, and width and height in pixels."""


def page_html(name: str) -> str:
    """Write the HTML of one of `PAGES`; its fonts are files beside it."""
    return PAGES[name][0]()


def contour_map() -> bytes:
    """Draw a map of thin contour lines with matplotlib, as a PNG file of 768x512 pixels."""
    from matplotlib.figure import Figure

    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[0:2:200j, 0:3:300j]
    heights = sum(
        rng.normal() / (1 + wave) * np.sin(wave * (columns * rng.normal() + rows * rng.normal()) + rng.uniform(0, 6))
        for wave in range(1, 14)
    )
    figure = Figure(figsize=(7.68, 5.12), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    lines = axes.contour(heights, levels=34, colors="black", linewidths=[1.4, 0.6, 0.6, 0.6, 0.6])
    axes.clabel(lines, lines.levels[::5], fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
