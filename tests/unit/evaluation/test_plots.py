import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ohmq.errors import OutputExistsError, UnsupportedImageError
from ohmq.evaluation.plots import COLOURS, RATE_LABELS, plot_rate_distortion
from ohmq.evaluation.results import Curve, RateName


def curves(count: int, label: str = "curve") -> list[Curve]:
    return [Curve(f"c{i}", f"{label} {i}", (0.4, 0.1, 0.2), (33.0 + i, 28.0 + i, 30.0 + i)) for i in range(count)]


def colours_in(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    return {tuple(colour) for _, colour in colours if isinstance(colour, tuple)}


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def test_each_curve_has_its_colour(tmp_path: Path) -> None:
    plot_rate_distortion(curves(3), tmp_path / "new" / "x.png", title="Title", dotted={"c1"})
    drawn = colours_in(tmp_path / "new" / "x.png")
    assert {rgb(colour) for colour in COLOURS[:3]} <= drawn
    assert not {rgb(colour) for colour in COLOURS[3:6]} & drawn


def test_files_of_each_format(tmp_path: Path) -> None:
    for name, start in (("x.png", b"\x89PNG"), ("x.svg", b"<?xml"), ("x.PDF", b"%PDF")):
        plot_rate_distortion(curves(2), tmp_path / name, dotted=["c0"])
        assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(("count", "label"), [(2, "short"), (9, "short"), (7, "a label far too long for two columns")])
def test_no_label_is_cut_off(tmp_path: Path, count: int, label: str) -> None:
    plot_rate_distortion(curves(count, label), tmp_path / "x.png", x_label="x", y_label="y")
    with Image.open(tmp_path / "x.png") as image:
        pixels = np.asarray(image.convert("L"))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()


def test_many_curves_differ_by_marker_and_colour(tmp_path: Path) -> None:
    plot_rate_distortion(curves(14), tmp_path / "x.png")
    assert {rgb(colour) for colour in COLOURS} <= colours_in(tmp_path / "x.png")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no curves"):
        plot_rate_distortion([], tmp_path / "x.png")
    with pytest.raises(ValueError, match="dotted names no curve drawn: nobody"):
        plot_rate_distortion(curves(1), tmp_path / "x.png", dotted={"nobody", "c0"})
    with pytest.raises(UnsupportedImageError, match=r"\.jpg"):
        plot_rate_distortion(curves(1), tmp_path / "x.jpg")
    (tmp_path / "x.png").write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        plot_rate_distortion(curves(1), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == b"mine"
    plot_rate_distortion(curves(1), tmp_path / "x.png", force=True)
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_matplotlibs_global_state_is_not_touched(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from ohmq.evaluation.plots import plot_rate_distortion; from ohmq.evaluation.results import Curve\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot_rate_distortion([Curve('a', 'a', (1, 2), (3, 4))], Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "x.png"], check=True)


def test_plots_name_their_rate(tmp_path: Path) -> None:
    def texts(*rates: RateName, x_label: str | None = None) -> str:
        shown = [dataclasses.replace(curve, rate=rate) for curve, rate in zip(curves(len(rates)), rates, strict=True)]
        plot_rate_distortion(shown, tmp_path / "x.svg", x_label=x_label, force=True)
        return (tmp_path / "x.svg").read_text()  # texts are comments beside their outlines

    for rate, label in RATE_LABELS.items():
        assert f"<!-- {label} in bits per pixel -->" in texts(rate, rate)
    mixed = texts("payload_bpp", "file_bpp")
    for text in ("bits per pixel", "curve 0, payload", "curve 1, whole file"):
        assert f"<!-- {text} -->" in mixed
    assert "<!-- curve 1 -->" in texts("payload_bpp", "file_bpp", x_label="mine")
