"""Draw the figures of this project from result files alone, and name the results that are missing."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ohmq.errors import ConfigError
from ohmq.evaluation.plots import plot_rate_distortion
from ohmq.evaluation.published import published_curve
from ohmq.evaluation.results import Curve, RateName, ResultFile

__all__ = ["FIGURES", "Drawn", "Run", "draw_figures", "read_results"]

MNIST_DATA = "MNIST test, 10000 images"
GRID_LAMBDAS = ((0.85, 0.9), (0.9, 0.999), (0.95, 0.999))
GRID_CHANNELS = (8, 16, 32)
KODAK_IMAGES = 24
KODAK_PUBLISHED = ("kodak-ohm", "kodak-int", "kodak-jpeg-pillow", "kodak-webp-pillow", "kodak-bmshj2018-hyperprior")


class Run(NamedTuple):
    """A result, and the settings of the run that it belongs to.

    Attributes:
        path: the result file.
        result: its content.
        family: family of the model.
        quantizer: its quantizer.
        channels_min: channels that are always active.
        channels_max: all channels.
        lambdas: smallest and largest λ of the training.
        fixed_rate: whether fixed-rate files were measured.
        note: addition to the curve's label, such as another number of epochs; may be empty.
    """

    path: Path
    result: ResultFile
    family: str
    quantizer: str
    channels_min: int
    channels_max: int
    lambdas: tuple[float, ...]
    fixed_rate: bool
    note: str


class Drawn(NamedTuple):
    """A figure that was drawn, or not.

    Attributes:
        figure: name of the figure.
        path: its file; None if there is no result to draw.
        missing: names of experiments whose results are missing.
    """

    figure: str
    path: Path | None
    missing: list[str]


class _Plan(NamedTuple):
    """Curves of a figure with their styles, and names of experiments whose results are missing."""

    curves: list[Curve]
    missing: list[str]
    title: str
    x_label: str = "payload in bits per pixel"
    dotted: Sequence[str] = ()
    dashed: Sequence[str] = ()
    like: Mapping[str, str] = {}
    level: tuple[str, float] | None = None


def read_results(folders: Sequence[Path]) -> list[Run]:
    """Read all results (``rate_distortion.json``) in folders and below.

    Args:
        folders: the folders.

    Returns:
        The results, in order of the folders and of their paths.

    Raises:
        ConfigError: a folder that is not there or holds no result, or a result that cannot be read.
    """
    runs = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"no folder {folder}; name one that holds results, such as runs/experiments/results")
        if not (paths := sorted(folder.rglob("rate_distortion.json"))):
            raise ConfigError(f"no rate_distortion.json in {folder} or below; `ohmq experiments run` writes them")
        runs += [_run(path) for path in paths]
    return runs


def _run(path: Path) -> Run:
    """Read one result with the settings of its training."""
    result = ResultFile.read(path)
    record = result.extra.get("experiment", {})
    try:
        options: dict[str, Any] = result.extra["training"]["options"]
        model = options["model"]
        planned = record.get("epochs_of_the_file", options["epochs"])
        return Run(
            path=path,
            result=result,
            family=model["family"],
            quantizer=model["quantizer"],
            channels_min=model["channels_min"],
            channels_max=model["channels_max"],
            lambdas=tuple(options["lambdas"]),
            fixed_rate=bool(record.get("fixed_rate", False)),
            note="" if options["epochs"] == planned else f" ({options['epochs']} epochs)",
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} does not say how its model was trained ({type(error).__name__}: {error})") from error


def _curve(run: Run, name: str, label: str, rate: RateName = "payload_bpp") -> Curve:
    return dataclasses.replace(run.result.curve(rate, label + run.note), name=name)


def _find_digits(
    runs: Sequence[Run], quantizer: str, channels_min: int, channels_max: int, lambdas: tuple[float, float]
) -> Run | None:
    """Find the adaptive run on digits with these settings; among several the first by path."""
    wanted = ("mnist", quantizer, channels_min, channels_max, lambdas, False)
    for run in runs:
        settings = (run.family, run.quantizer, run.channels_min, run.channels_max, run.lambdas, run.fixed_rate)
        if settings == wanted and run.result.data == MNIST_DATA:
            return run
    return None


def _unquantized_level(runs: Sequence[Run]) -> tuple[str, float] | None:
    """Find label and PSNR of the run without a quantizer."""
    for run in runs:
        if run.family == "mnist" and run.quantizer == "none" and run.result.data == MNIST_DATA:
            return f"no quantizer{run.note}", run.result.points[-1].psnr_db
    return None


def _influence_of_lambda(channels_min: int) -> Callable[[Sequence[Run]], _Plan]:
    def plan(runs: Sequence[Run]) -> _Plan:
        measured, published_curves, missing, like = [], [], [], {}
        for low, high in GRID_LAMBDAS:
            name, text = f"mnist-ohm-c{channels_min}-16-lambda{low}-{high}", f"λ {low} → {high}"
            run = _find_digits(runs, "ohm", channels_min, 16, (low, high))
            published = dataclasses.replace(published_curve(name), name=f"published {name}", label=f"published, {text}")
            if run is None:
                missing.append(name)
                continue
            measured.append(_curve(run, name, f"ohmq, {text}"))
            published_curves.append(published)
            like[published.name] = name
        title = f"OHM, {channels_min} to 16 channels, 10,000 test digits"
        return _Plan([*measured, *published_curves], missing, title, dotted=list(like), like=like)

    return plan


def _quantizers(runs: Sequence[Run]) -> _Plan:
    curves, missing, dashed, like = [], [], [], {}
    drawn = set()
    for quantizer, text in (("ohm", "OHM"), ("integer", "integer")):
        for channels_max in GRID_CHANNELS:
            name = f"mnist-{quantizer[:3]}-c0-{channels_max}-lambda0.95-0.999"
            run = _find_digits(runs, quantizer, 0, channels_max, (0.95, 0.999))
            if run is None:
                missing.append(name)
                continue
            curves.append(_curve(run, name, f"{text}, {channels_max} channels"))
            drawn.add(name)
            if quantizer == "integer":
                dashed.append(name)
                if (twin := name.replace("-int-", "-ohm-")) in drawn:
                    like[name] = twin
    level = _unquantized_level(runs)
    if level is None:
        missing.append("mnist-none-c32")
    title = "OHM and integer rounding, 10,000 test digits"
    return _Plan(curves, missing, title, dashed=dashed, like=like, level=level)


def _bitrates(runs: Sequence[Run]) -> _Plan:
    curves, missing = [], []
    digits = [r for r in runs if r.family == "mnist" and r.quantizer == "ohm" and r.result.data == MNIST_DATA]
    single = [r for r in digits if r.channels_min == r.channels_max]
    for fixed, label, name in ((True, "fixed", "mnist-fixed-*"), (False, "variable", "mnist-variable-*")):
        chosen = [run for run in single if run.fixed_rate == fixed]
        if not chosen:
            missing.append(name)
            continue
        points = [run.result.points[-1] for run in chosen]
        notes = sorted({run.note for run in chosen})
        text = f"{label}, one model a point{', '.join(notes)}"
        rates, psnr = tuple(p.payload_bpp for p in points), tuple(p.psnr_db for p in points)
        curves.append(Curve(name, text, rates, psnr))
    name = "mnist-ohm-c0-16-lambda0.95-0.999"
    run = _find_digits(runs, "ohm", 0, 16, (0.95, 0.999))
    if run is None:
        missing.append(name)
    else:
        curves.append(_curve(run, name, "adaptive, one model"))
    return _Plan(curves, missing, "Fixed, variable and adaptive bitrate, 10,000 test digits")


def _kodak(runs: Sequence[Run]) -> _Plan:
    curves, missing = [], []
    ending = f" {KODAK_IMAGES} images"
    kodak = [r for r in runs if r.result.data.lower().startswith("kodak, ") and r.result.data.endswith(ending)]
    for family, quantizer, effort, name in (
        ("photo", "ohm", 1, "photo"),
        ("photo", "ohm", 0, "photo, effort 0"),
        ("openimages", "ohm", 0, "openimages-ohm-c0-480"),
        ("openimages", "integer", 0, "openimages-int-c0-480"),
    ):
        for run in kodak:
            if (run.family, run.quantizer, run.result.extra.get("effort", 0)) == (family, quantizer, effort):
                curves.append(_curve(run, name, f"ohmq, {name}", "file_bpp"))
                break
        else:
            missing.append(name)
    if curves:
        curves += [published_curve(name) for name in KODAK_PUBLISHED]
    title, rate = "24 Kodak images", "rate in bits per pixel (published OHM and integer: payload)"
    return _Plan(curves, missing, title, rate, dotted=KODAK_PUBLISHED if curves else ())


FIGURES: dict[str, Callable[[Sequence[Run]], _Plan]] = {
    "lambda-c0": _influence_of_lambda(0),
    "lambda-c8": _influence_of_lambda(8),
    "quantizers": _quantizers,
    "kodak": _kodak,
    "bitrates": _bitrates,
}
"""Figures by name; each function plans the curves of one."""


def draw_figures(
    runs: Sequence[Run], names: Sequence[str], folder: Path, *, extension: str = ".png", force: bool = False
) -> list[Drawn]:
    """Draw figures, as far as there are results for them.

    Args:
        runs: results, from `read_results`.
        names: names of figures, in `FIGURES`.
        folder: folder of the files NAME.png.
        extension: extension of the files, with its dot.
        force: whether to replace existing files.

    Returns:
        The file and the missing results of each figure.

    Raises:
        ValueError: no such figure.
        OutputExistsError: a file exists and force is not set.
    """
    drawn = []
    for name in names:
        if name not in FIGURES:
            raise ValueError(f"no figure {name!r}; choose one of {', '.join(FIGURES)}")
        plan = FIGURES[name](runs)
        path = folder / f"{name}{extension}" if plan.curves else None
        if path is not None:
            plot_rate_distortion(
                plan.curves,
                path,
                title=plan.title,
                x_label=plan.x_label,
                dotted=plan.dotted,
                dashed=plan.dashed,
                like=plan.like,
                level=plan.level,
                force=force,
            )
        drawn.append(Drawn(name, path, plan.missing))
    return drawn
