"""Draw screens, pages of text and line art to train the photo model on. Own drawings of random content, no copyright.

    python tools/draw_training_pages.py data/photos/train --count 300 --seed 1
    ohmq train --preset photo --data data

Picture n of a seed depends on the seed, n and the fonts alone, so that a run that was interrupted can be repeated, and
--first continues one. A third each are screens, text and line art, 512 to 768 pixels a side. Letters are drawn in grey
levels, in the colours of a screen's subpixels, or in black and white. Fonts are those of matplotlib; --fonts names a
folder of others, and only letters that a font has are drawn with it.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ohmq.errors import ConfigError, OhmqError
from ohmq.utils.atomic_write import write_atomically

KINDS = ("screen", "text", "lines")
SIDES = (512, 768)
"""Least and greatest side of a picture, in pixels."""
SCALE = 3
"""Factor by which pages are drawn larger, so that smoothing and subpixels can be chosen afterwards."""
ALPHABETS = {
    "latin": "eeeeeetttaaaooiinnnsshhrrddlluccmwfgypbvk",
    "accents": "eaionrtsldéèêàçùôöäüßñåøæœźżłčšř",
    "greek": "αααοοιιεετσσννηυρπκμλςωδγχθφβξζψ",
    "cyrillic": "ооооеееааиинннттссрвлкмдпуяыьгзбчйхжшюцщэф",
    "digits": "01234567890123456789.,-+%",
}
"""Letters of random words, repeated by about how often they occur."""

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]


class Palette(NamedTuple):
    """Colours of a picture: ground, text, dim text and accents."""

    ground: Colour
    text: Colour
    dim: Colour
    accents: tuple[Colour, ...]


class Page:
    """A page while it is drawn, with its random numbers.

    Args:
        rng: random numbers.
        size: width and height of the finished page, in pixels.
        fonts: files of fonts.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], fonts: Sequence[Path]) -> None:
        self.rng, self.size, self.fonts = rng, size, fonts
        self.palette = random_palette(rng)
        self.image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), self.palette.ground)
        self.pencil = ImageDraw.Draw(self.image)
        self.smoothing = str(rng.choice(["grey", "subpixels", "none"], p=(0.55, 0.3, 0.15)))
        if self.smoothing == "none":
            self.pencil.fontmode = "1"
        self.scripts = rng.choice(["latin", "latin", "accents", "greek", "cyrillic"], 2).tolist()

    def integer(self, low: int, high: int) -> int:
        """Draw a random number of [low, high)."""
        return int(self.rng.integers(low, high))

    def chance(self, probability: float) -> bool:
        """Tell whether something of a probability happens."""
        return bool(self.rng.random() < probability)

    def accent(self) -> Colour:
        """Choose a colour among the accents."""
        return self.palette.accents[self.integer(0, len(self.palette.accents))]

    def font(self, pixels: int, script: str) -> ImageFont.FreeTypeFont:
        """Choose a font that has the letters of a script, at a size in pixels of the finished page."""
        suited = [path for path in self.fonts if set(ALPHABETS[script]) <= letters_of(path)]
        if not suited:
            raise ConfigError(f"none of {len(self.fonts)} fonts has the letters of {script}; name others with --fonts")
        return ImageFont.truetype(suited[self.integer(0, len(suited))], pixels * SCALE)

    def words(self, script: str, count: int) -> list[str]:
        """Make up words."""
        letters, lengths = list(ALPHABETS[script]), 1 + self.rng.poisson(4, count)
        made = ["".join(self.rng.choice(letters, int(length))) for length in lengths]
        return [word.capitalize() if self.chance(0.12) else word + "," if self.chance(0.06) else word for word in made]

    def box(
        self, box: Box, fill: Colour | None, outline: Colour | None = None, radius: int = 0, width: int = 1
    ) -> None:
        """Draw a rectangle with round corners; sizes are those of the finished page."""
        left, top, right, bottom = (side * SCALE for side in box)
        if right > left and bottom > top:
            place = (left, top, right - 1, bottom - 1)
            self.pencil.rounded_rectangle(place, radius * SCALE, fill, outline, width * SCALE)

    def write(self, place: tuple[int, int], text: str, font: ImageFont.FreeTypeFont, colour: Colour) -> None:
        """Write one line; its upper left corner is given in pixels of the finished page."""
        self.pencil.text((place[0] * SCALE, place[1] * SCALE), text, colour, font)

    def finish(self) -> Image.Image:
        """Scale the page down: smoothed in grey levels, by subpixels, or not at all."""
        if self.smoothing == "none":
            return self.image.resize(self.size, Image.Resampling.NEAREST)
        image = self.image
        if self.smoothing == "subpixels":
            # The red, green and blue stripe of each pixel see the page a third of a pixel apart.
            parts = [
                part.transform(part.size, Image.Transform.AFFINE, (1, 0, shift, 0, 1, 0), fillcolor=255)
                for part, shift in zip(image.split(), (-1, 0, 1), strict=True)
            ]
            image = Image.merge("RGB", parts)
        return image.resize(self.size, Image.Resampling.BOX)


@cache
def letters_of(path: Path) -> frozenset[str]:
    """Return the letters that a font has."""
    from fontTools.ttLib import TTFont

    with TTFont(path, fontNumber=0, lazy=True) as font:
        return frozenset(map(chr, font.getBestCmap() or {}))


def random_palette(rng: np.random.Generator) -> Palette:
    """Choose colours: mostly dark on a light ground, often black on white."""
    dark = rng.random() < 0.3
    tint = rng.integers(-14, 15, 3)
    ground, text = (30, 225) if dark else (246, 24)
    if not dark and rng.random() < 0.4:
        ground, text, tint = 255, 0, np.zeros(3, int)
    accents = rng.integers(20, 236, (5, 3))
    colours = [np.clip(level + tint, 0, 255) for level in (ground, text, (2 * text + ground) // 3)]
    first, second, third = (to_colour(colour) for colour in colours)
    return Palette(first, second, third, tuple(to_colour(colour) for colour in accents))


def to_colour(values: NDArray[np.integer]) -> Colour:
    """Convert an array to a colour."""
    red, green, blue = (int(value) for value in values)
    return red, green, blue


def shade(colour: Colour, amount: int) -> Colour:
    """Make a colour lighter or darker."""
    return to_colour(np.clip(np.array(colour) + amount, 0, 255))


def draw_paragraphs(page: Page, box: Box, pixels: int | None = None) -> None:
    """Fill a box with lines of words; some are headings."""
    left, top, right, bottom = box
    script = page.scripts[page.integer(0, 2)]
    pixels = pixels or int(page.rng.choice([9, 10, 11, 12, 13, 14, 16, 18, 22]))
    y = top
    while y + pixels < bottom:
        heading = page.chance(0.1)
        font = page.font(min(pixels * 2, 60) if heading else pixels, script)
        colour = page.accent() if heading and page.chance(0.5) else page.palette.text
        for _ in range(1 if heading else page.integer(1, 7)):
            x, line = left * SCALE, ""
            for word in page.words(script, 40):
                if x + font.getlength(f"{line} {word}") > right * SCALE:
                    break
                line = f"{line} {word}".strip()
            if y + pixels > bottom:
                return
            page.write((left, y), line, font, colour)
            y += round(font.size / SCALE * 1.35)
        y += pixels // 2


def draw_table(page: Page, box: Box) -> None:
    """Fill a box with a grid of numbers."""
    left, top, right, bottom = box
    width, height = page.integer(48, 110), page.integer(16, 30)
    font = page.font(min(height - 5, 14), "digits")
    striped, ruled = page.chance(0.5), page.chance(0.6)
    for row, y in enumerate(range(top, bottom - height, height)):
        for x in range(left, right - width, width):
            fill = shade(page.palette.ground, -12) if striped and row % 2 else None
            page.box((x, y, x + width + 1, y + height + 1), fill, page.palette.dim if ruled else None)
            text = f"{page.rng.normal(0, 10 ** page.integer(0, 5)):,.2f}"
            page.write((x + 4, y + 2), text, font, (200, 20, 20) if text[0] == "-" else page.palette.text)


def draw_code(page: Page, box: Box) -> None:
    """Fill a box with indented lines of coloured words, as an editor or a terminal shows them."""
    left, top, right, bottom = box
    pixels = page.integer(10, 16)
    font = page.font(pixels, "latin")
    page.box(box, shade(page.palette.ground, 10 if sum(page.palette.ground) < 300 else -10))
    indent = 0
    for y in range(top + 4, bottom - pixels - 2, round(pixels * 1.4)):
        indent = max(0, min(5, indent + page.integer(-1, 2)))
        x = left + 6 + 2 * pixels * indent
        for word in page.words("latin", page.integer(0, 9)):
            text = word + ["", "(", ")", ":", " =", "[0]", "."][page.integer(0, 7)]
            if x + font.getlength(text) / SCALE > right:
                break
            page.write((x, y), text, font, page.palette.text if page.chance(0.5) else page.accent())
            x += round(font.getlength(f"{text} ") / SCALE)


def draw_chart(page: Page, box: Box) -> None:
    """Fill a box with a chart of bars or lines and its grid."""
    left, top, right, bottom = box
    for y in range(top + 8, bottom, max(12, (bottom - top) // 6)):
        page.box((left, y, right, y + 1), shade(page.palette.dim, 30))
    count = max(2, (right - left) // page.integer(6, 26))
    step = (right - left) / count
    for _ in range(page.integer(1, 4)):
        heights = np.clip(0.5 + np.cumsum(page.rng.normal(0, 0.12, count)), 0.03, 0.97) * (bottom - top)
        colour = page.accent()
        if page.chance(0.4):
            for bar, height in enumerate(heights):
                x = round(left + bar * step)
                page.box((x, round(bottom - height), round(x + 0.7 * step), bottom), colour)
        else:
            points = [((left + bar * step) * SCALE, (bottom - height) * SCALE) for bar, height in enumerate(heights)]
            page.pencil.line(points, colour, page.integer(1, 4) * SCALE, joint="curve")


def draw_form(page: Page, box: Box) -> None:
    """Fill a box with buttons, fields, ticks and labels."""
    left, top, right, bottom = box
    font = page.font(page.integer(10, 15), page.scripts[0])
    for y in range(top, bottom - 30, 36):
        x = left
        while x < right - 60:
            width = page.integer(40, 140)
            if x + width > right:
                break
            word = page.words(page.scripts[0], 1)[0]
            while word and font.getlength(word) / SCALE > width - 12:
                word = word[:-1]
            way = page.integer(0, 4)
            if way == 0:
                colour = page.accent()
                page.box((x, y, x + width, y + 24), colour, shade(colour, -40), radius=page.integer(0, 9))
                page.write((x + 6, y + 4), word, font, (255, 255, 255) if sum(colour) < 400 else (0, 0, 0))
            elif way == 1:
                page.box((x, y, x + width, y + 24), shade(page.palette.ground, 9), page.palette.dim)
                page.write((x + 5, y + 4), word, font, page.palette.text)
            elif way == 2:
                side = page.integer(10, 17)
                page.box((x, y + 4, x + side, y + 4 + side), None, page.palette.dim, radius=page.integer(0, side // 2))
                page.write((x + side + 4, y + 4), word[: max(1, len(word) - 3)], font, page.palette.text)
            else:
                page.write((x, y + 4), word, font, page.palette.dim)
            x += width + page.integer(6, 20)


def draw_icons(page: Page, box: Box) -> None:
    """Fill a box with small shapes of one colour or two."""
    left, top, right, bottom = box
    side = page.integer(16, 56)
    for y in range(top, bottom - side, side + 12):
        for x in range(left, right - side, side + 12):
            colour = page.accent()
            page.box((x, y, x + side, y + side), colour, radius=page.integer(0, side // 2))
            inner = page.rng.integers(side // 6, side - side // 6, (page.integer(3, 7), 2)) + (x, y)
            page.pencil.polygon([(int(a) * SCALE, int(b) * SCALE) for a, b in inner], shade(colour, 110))


def draw_gradient(page: Page, box: Box) -> None:
    """Fill a box with a gradient of two colours."""
    left, top, right, bottom = box
    ends = np.array([page.accent(), page.accent()], np.float64)
    ramp = np.linspace(0, 1, max(2, right - left))[None, :, None] * np.ones((bottom - top, 1, 1))
    if page.chance(0.5):
        ramp = np.linspace(0, 1, bottom - top)[:, None, None] * np.ones((1, max(2, right - left), 1))
    pixels = (ends[0] * (1 - ramp) + ends[1] * ramp).round().astype(np.uint8)
    part = Image.fromarray(pixels).resize(((right - left) * SCALE, (bottom - top) * SCALE), Image.Resampling.NEAREST)
    page.image.paste(part, (left * SCALE, top * SCALE))


PARTS: tuple[Callable[[Page, Box], None], ...] = (
    *(draw_paragraphs, draw_table, draw_code, draw_chart, draw_form, draw_form, draw_icons, draw_gradient),
)
LEAST_PART = 150
"""Sides, in pixels, below which a part of a screen is not divided further."""


def draw_screen(page: Page) -> None:
    """Draw a window: a bar, and parts that are divided at random."""
    width, height = page.size
    bar = page.integer(18, 46)
    page.box((0, 0, width, bar), page.accent() if page.chance(0.5) else shade(page.palette.ground, -20))
    page.write((8, bar // 5), " ".join(page.words("latin", 3)), page.font(bar // 2, "latin"), page.palette.text)
    parts = [(0, bar, width, height)]
    while parts:
        left, top, right, bottom = parts.pop()
        wide = right - left > bottom - top
        if max(right - left, bottom - top) > 2 * LEAST_PART and page.chance(0.9):
            cut = page.integer(LEAST_PART, (right - left if wide else bottom - top) - LEAST_PART)
            if wide:
                parts += [(left, top, left + cut, bottom), (left + cut, top, right, bottom)]
            else:
                parts += [(left, top, right, top + cut), (left, top + cut, right, bottom)]
            continue
        if page.chance(0.6):
            page.box((left + 4, top + 4, right - 4, bottom - 4), shade(page.palette.ground, page.integer(-12, 13)),
                     page.palette.dim if page.chance(0.5) else None, radius=page.integer(0, 10))  # fmt: skip
        PARTS[page.integer(0, len(PARTS))](page, (left + 12, top + 12, right - 12, bottom - 12))


def draw_text(page: Page) -> None:
    """Draw a page of text, in one to three columns."""
    width, height = page.size
    margin, columns = page.integer(10, 60), page.integer(1, 4)
    pixels = page.integer(9, 15) if columns > 1 else page.integer(11, 40)
    step = (width - 2 * margin) // columns
    for column in range(columns):
        left = margin + column * step
        draw_paragraphs(page, (left, margin, left + step - 10, height - margin), pixels)


def draw_lines(page: Page) -> None:
    """Draw line art: curves, polygons, circles, hatching, grids and labels, in one colour or a few."""
    width, height = page.size
    coloured = page.chance(0.3)
    font = page.font(page.integer(10, 20), "digits")
    if page.chance(0.2):
        step = page.integer(8, 48)
        for x in range(0, width, step):
            page.box((x, 0, x + 1, height), page.palette.dim)
        for y in range(0, height, step):
            page.box((0, y, width, y + 1), page.palette.dim)
    for _ in range(page.integer(12, 60)):
        colour = page.accent() if coloured else page.palette.text
        pen = round(SCALE * float(page.rng.choice([0.7, 1, 1, 1.5, 2, 3, 6])))
        centre = page.rng.uniform(0, 1, 2) * page.size * SCALE
        radius = page.rng.uniform(10, 160) * SCALE
        way = page.integer(0, 6)
        if way == 0:
            angles = np.linspace(0, 2 * np.pi, 120)
            waves = 1 + sum(
                page.rng.normal(0, 0.2 / n) * np.sin(n * angles + page.rng.uniform(0, 6)) for n in range(1, 7)
            )
            for ring in range(page.integer(1, 6)):
                points = centre + (radius * waves * (1 - 0.16 * ring))[:, None] * np.stack(
                    [np.cos(angles), np.sin(angles)], 1
                )
                page.pencil.line([tuple(point) for point in points], colour, pen)
        elif way == 1:
            page.pencil.circle(tuple(centre), radius, outline=colour, width=pen)
        elif way == 2:
            points = centre + page.rng.normal(0, radius, (page.integer(2, 9), 2))
            page.pencil.line([tuple(point) for point in points], colour, pen, joint="curve")
        elif way == 3:
            corners = (
                *(centre - radius * page.rng.uniform(0.2, 1, 2)),
                *(centre + radius * page.rng.uniform(0.2, 1, 2)),
            )
            page.pencil.rectangle(corners, page.accent() if coloured and page.chance(0.3) else None, colour, pen)
        elif way == 4:
            along = page.rng.normal(0, radius, 2)
            aside = np.array([-along[1], along[0]]) / np.hypot(*along) * page.integer(4, 12) * SCALE
            for number in range(page.integer(4, 30)):
                start = centre + number * aside
                page.pencil.line([tuple(start), tuple(start + along)], colour, pen)
        else:
            place = tuple((centre / SCALE).astype(int).tolist())
            page.write(place, f"{page.rng.uniform(0, 500):.1f}", font, colour)


def draw_picture(seed: int, number: int, fonts: Sequence[Path]) -> tuple[str, Image.Image]:
    """Draw one picture.

    Args:
        seed: seed of all pictures.
        number: number of the picture; its remainder by three chooses the kind.
        fonts: files of fonts.

    Returns:
        The kind, one of `KINDS`, and the picture.
    """
    rng = np.random.default_rng([seed, number])
    width, height = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, 2))
    page = Page(rng, (width, height), fonts)
    kind = KINDS[number % len(KINDS)]
    {"screen": draw_screen, "text": draw_text, "lines": draw_lines}[kind](page)
    return kind, page.finish()


def find_fonts(folders: Sequence[Path]) -> list[Path]:
    """List the files of fonts in folders; without one, matplotlib's, but for those of symbols alone.

    Raises:
        ConfigError: there are none, or matplotlib is not installed.
    """
    if not folders:
        from ohmq.evaluation.optional import require

        require("matplotlib")
        import matplotlib

        return sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVuS*.ttf"))
    fonts = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in (".ttf", ".otf", ".ttc"))
    if not fonts:
        raise ConfigError(f"no .ttf, .otf or .ttc file in {', '.join(map(str, folders))}")
    return fonts


def draw_all(folder: Path, count: int, *, seed: int, first: int = 0, fonts: Sequence[Path] = ()) -> list[Path]:
    """Draw pictures into a folder, as PNG files named by kind, seed and number.

    Args:
        folder: where to put them; it is made if it is missing.
        count: number of pictures.
        seed: seed of all pictures.
        first: number of the first picture.
        fonts: files of fonts.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(first, first + count):
        kind, image = draw_picture(seed, number, fonts)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files.append(folder / f"drawn_{kind}_{seed}_{number:06d}.png")
        write_atomically(files[-1], buffer.getvalue(), force=True)
    return files


def main() -> None:
    """Draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to draw into, such as data/photos/train")
    parser.add_argument("--count", type=int, default=300, help="number of pictures (default: 300)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first picture (default: 0)")
    parser.add_argument("--fonts", type=Path, nargs="*", default=[], help="folders of fonts (default: matplotlib's)")
    arguments = parser.parse_args()
    try:
        fonts = find_fonts(arguments.fonts)
        files = draw_all(arguments.folder, arguments.count, seed=arguments.seed, first=arguments.first, fonts=fonts)
    except OhmqError as error:
        sys.exit(f"draw_training_pages.py: {error}")
    print(f"drew {len(files)} pictures into {arguments.folder}, with {len(fonts)} fonts")


if __name__ == "__main__":
    main()
