"""Draw examples/digits: handwritten-looking digits, 28x28, white on black. Own drawings, CC0.

    python tools/draw_digits.py

Each digit is one or more pen strokes through hand-set points (x to the right, y down, in units of the digit's height),
smoothed by a Catmull-Rom spline, slanted and shaken a little with a fixed seed, drawn at 8 times the size, then put
into a 20x20 box and centred by its mass, as MNIST's digits are.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SCALE = 8
"""Factor by which digits are drawn larger."""
SIDE = 28
"""Pixels of an image, each side."""
BOX = 20
"""Pixels of the box that holds a digit, each side."""
PEN = 2.3
"""Mean width of the pen, in pixels."""

STROKES: dict[int, list[list[list[tuple[float, float]]]]] = {
    0: [
        [[(0.5, 0.02), (0.2, 0.2), (0.12, 0.55), (0.3, 0.92), (0.55, 0.95), (0.78, 0.6), (0.74, 0.2), (0.48, 0.03)]],
        [[(0.6, 0.05), (0.3, 0.12), (0.1, 0.5), (0.2, 0.88), (0.5, 0.97), (0.8, 0.7), (0.85, 0.3), (0.55, 0.04)]],
    ],
    1: [[[(0.52, 0.0), (0.5, 0.3), (0.48, 0.65), (0.46, 1.0)]], [[(0.3, 0.22), (0.52, 0.0), (0.5, 0.5), (0.5, 1.0)]]],
    2: [
        [[(0.15, 0.22), (0.4, 0.0), (0.72, 0.16), (0.62, 0.48), (0.3, 0.8), (0.1, 0.98), (0.45, 0.93), (0.85, 0.96)]],
        [[(0.2, 0.15), (0.5, 0.0), (0.7, 0.25), (0.5, 0.6), (0.2, 0.92), (0.12, 0.8), (0.4, 0.84), (0.8, 1.0)]],
    ],
    3: [
        [[(0.15, 0.1), (0.5, 0.0), (0.7, 0.2), (0.4, 0.45), (0.72, 0.65), (0.62, 0.93), (0.3, 1.0), (0.1, 0.88)]],
        [[(0.12, 0.05), (0.7, 0.03), (0.42, 0.38), (0.75, 0.6), (0.65, 0.92), (0.3, 0.98), (0.12, 0.85)]],
    ],
    4: [
        [[(0.2, 0.05), (0.12, 0.3), (0.15, 0.52), (0.45, 0.55), (0.75, 0.48)], [(0.72, 0.0), (0.68, 0.5), (0.64, 1.0)]],
        [[(0.55, 0.0), (0.3, 0.3), (0.08, 0.62), (0.45, 0.62), (0.85, 0.6)], [(0.6, 0.3), (0.58, 0.65), (0.55, 1.0)]],
    ],
    5: [
        [[(0.75, 0.02), (0.3, 0.04), (0.22, 0.4), (0.5, 0.38), (0.75, 0.6), (0.6, 0.92), (0.3, 1.0), (0.1, 0.9)]],
        [[(0.3, 0.05), (0.25, 0.45), (0.55, 0.42), (0.72, 0.68), (0.5, 0.96), (0.15, 0.93)], [(0.3, 0.05), (0.8, 0.0)]],
    ],
    6: [
        [[(0.6, 0.0), (0.3, 0.3), (0.15, 0.68), (0.3, 0.96), (0.6, 0.92), (0.68, 0.65), (0.45, 0.52), (0.2, 0.7)]],
        [[(0.72, 0.05), (0.35, 0.2), (0.15, 0.6), (0.3, 0.95), (0.65, 0.9), (0.7, 0.65), (0.45, 0.55), (0.22, 0.75)]],
    ],
    7: [
        [[(0.1, 0.08), (0.45, 0.06), (0.8, 0.05), (0.6, 0.45), (0.4, 1.0)]],
        [[(0.12, 0.12), (0.5, 0.02), (0.78, 0.08), (0.6, 0.5), (0.42, 1.0)], [(0.35, 0.52), (0.75, 0.48)]],
    ],
    8: [
        [
            [(0.65, 0.12), (0.4, 0.0), (0.2, 0.2), (0.45, 0.45), (0.72, 0.72), (0.5, 1.0), (0.22, 0.85), (0.4, 0.5),
             (0.68, 0.25), (0.6, 0.08)],
        ],
        [
            [(0.5, 0.0), (0.25, 0.2), (0.5, 0.46), (0.75, 0.75), (0.5, 1.0), (0.25, 0.75), (0.5, 0.46), (0.75, 0.22),
             (0.52, 0.0)],
        ],
    ],
    9: [
        [[(0.7, 0.2), (0.45, 0.02), (0.18, 0.22), (0.35, 0.48), (0.68, 0.3), (0.7, 0.12), (0.66, 0.6), (0.55, 1.0)]],
        [[(0.72, 0.12), (0.4, 0.05), (0.2, 0.32), (0.45, 0.5), (0.7, 0.2), (0.68, 0.6), (0.45, 0.95), (0.2, 1.0)]],
    ],
}  # fmt: skip


def spline(points: np.ndarray, steps: int = 24) -> np.ndarray:
    """Draw a Catmull-Rom spline through points.

    Args:
        points: shape (n, 2).
        steps: points of the curve for each two points.

    Returns:
        Points of the curve, shape ((n - 1) * steps, 2).
    """
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, steps)[:, None]
    parts = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(parts)


def draw(strokes: list[list[tuple[float, float]]], rng: np.random.Generator) -> Image.Image:
    """Draw one digit.

    Args:
        strokes: points of each pen stroke, in units of the digit's height.
        rng: random numbers that slant and shake the strokes.

    Returns:
        A grey image of 28x28 pixels.
    """
    slant, pen = rng.normal(0.08, 0.08), PEN * SCALE * rng.uniform(0.85, 1.2)
    curves = []
    for stroke in strokes:
        points = np.array(stroke) + rng.normal(0, 0.015, (len(stroke), 2))
        points[:, 0] += slant * (0.5 - points[:, 1])
        curves.append(spline(points))
    points = np.concatenate(curves)
    low, size = points.min(0), np.ptp(points, 0).max()
    inner = BOX * SCALE - pen
    canvas = Image.new("L", (SIDE * SCALE, SIDE * SCALE))
    pencil = ImageDraw.Draw(canvas)
    placed = [(curve - low) / size * inner + 4 * SCALE + pen / 2 for curve in curves]
    for curve in placed:
        for x, y in curve:
            pencil.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    small = np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    shift = [round((SIDE - 1) / 2 - (grid * small).sum() / small.sum()) for grid in (rows, columns)]
    return Image.fromarray(np.roll(small, shift, (0, 1)).round().astype(np.uint8))


def main() -> None:
    """Draw all digits."""
    folder = Path(__file__).parents[1] / "examples" / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(28)
    for digit, variants in STROKES.items():
        for number, strokes in enumerate(variants):
            draw(strokes, rng).save(folder / f"digit_{digit}_{'ab'[number]}.png", optimize=True)


if __name__ == "__main__":
    main()
