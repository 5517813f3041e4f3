"""Draw the figures of this project from result files alone, and name the results that are missing.

Figures compare like with like: of several results, those of equal epochs are drawn together where there are any, and the
legend says epochs and prior of each curve. Epochs are passes over the training images in all: those of the warm start and
of the runs that a run starts from count, too.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ohmq.errors import ConfigError
from ohmq.evaluation.plots import plot_rate_distortion
from ohmq.evaluation.published import published_curve
from ohmq.evaluation.qualities import QUALITIES, Quality
from ohmq.evaluation.results import Curve, RateName, ResultFile
from ohmq.utils.counting import counted

__all__ = ["FIGURES", "Drawn", "Run", "draw_figures", "read_results"]

MNIST_DATA = "MNIST test, 10000 images"
GRID_LAMBDAS = ((0.85, 0.9), (0.9, 0.999), (0.95, 0.999))
GRID_CHANNELS = (8, 16, 32)
KODAK_IMAGES = 24
PUBLISHED_EPOCHS = 1000
"""Epochs of the paper's runs on digits."""
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
        training: kind of training and prior: "ohmq" (warm start, residual quantization) or "published", and "context" or
            "static"; ("ohmq", "static") for integer rounding.
        epochs: passes over the training images in all; None: it starts from a run whose result is not there.
        note: epochs and prior for legends, such as "91 epochs, context prior".
    """

    path: Path
    result: ResultFile
    family: str
    quantizer: str
    channels_min: int
    channels_max: int
    lambdas: tuple[float, ...]
    fixed_rate: bool
    training: tuple[str, str]
    epochs: int | None
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
    x_label: str | None = None
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
    options = {run.path.parent: _options(run.result) for run in runs}
    return [_with_epochs(run, options) for run in runs]


def _options(result: ResultFile) -> dict[str, Any]:
    """Return the options of the training as it was done: its checkpoint may record more epochs, planned but not done."""
    recorded = result.extra.get("experiment", {}).get("options")
    options: dict[str, Any] = recorded or result.extra["training"]["options"]
    return options


def _run(path: Path) -> Run:
    """Read one result with the settings of its training; its epochs are still missing."""
    result = ResultFile.read(path)
    try:
        options = _options(result)
        model = options["model"]
        is_published = model["quantizer"] == "ohm" and not model.get("refinement", False)
        _ = options["epochs"]
        return Run(
            path=path,
            result=result,
            family=model["family"],
            quantizer=model["quantizer"],
            channels_min=model["channels_min"],
            channels_max=model["channels_max"],
            lambdas=tuple(options["lambdas"]),
            fixed_rate=bool(result.extra.get("experiment", {}).get("fixed_rate", False)),
            training=("published" if is_published else "ohmq", model.get("prior", "static")),
            epochs=None,
            note="",
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} does not say how its model was trained ({type(error).__name__}: {error})") from error


def _with_epochs(run: Run, options: Mapping[Path, Mapping[str, Any]]) -> Run:
    """Add the epochs of a run and its note; options: those of all runs, by folder."""
    own = options[run.path.parent]
    epochs = _epochs(run.path.parent, options)
    after = "" if epochs is not None else f" after {own['start_from']}"
    note = counted(own["epochs"] if epochs is None else epochs, "epoch") + after
    if run.quantizer == "ohm":
        note += f", {run.training[1]} prior"
    return run._replace(epochs=epochs, note=note)


def _epochs(folder: Path, options: Mapping[Path, Mapping[str, Any]]) -> int | None:
    """Count the passes over the training images of a run, with those of the run beside it that it starts from."""
    own = options[folder]
    if name := own.get("start_from", ""):
        start = folder.parent / name
        others = {path: other for path, other in options.items() if path != folder}
        if start not in others or (before := _epochs(start, others)) is None:
            return None
        # A run that grows its alphabet starts from the state of the other one before that grew.
        skipped = options[start].get("grow_epochs", 0) if own.get("grow_epochs", 0) else 0
        return int(before - skipped + own["epochs"])
    initialisation, quantizer = own.get("initialisation", "published"), own["model"]["quantizer"]
    is_warm = (quantizer, initialisation) in (("ohm", "scalar"), ("ohm", "vector"), ("integer", "rounding"))
    return int(own["epochs"] + (own.get("warm_start_epochs", 0) if is_warm else 0))


def _curve(run: Run, name: str, label: str, rate: RateName = "payload_bpp") -> Curve:
    return dataclasses.replace(run.result.curve(rate, f"{label} ({run.note})"), name=name)


def _find_digits(
    runs: Sequence[Run],
    quantizer: str,
    channels_min: int,
    channels_max: int,
    lambdas: tuple[float, float],
    training: tuple[str, str],
) -> list[Run]:
    """Find the adaptive runs on digits with these settings."""
    wanted = ("mnist", quantizer, channels_min, channels_max, lambdas, False, training)
    return [
        run
        for run in runs
        if run.result.data == MNIST_DATA
        and wanted
        == (run.family, run.quantizer, run.channels_min, run.channels_max, run.lambdas, run.fixed_rate, run.training)
    ]


def _alike(groups: Mapping[str, Sequence[Run]]) -> dict[str, list[Run]]:
    """Choose from each group the runs of one number of epochs: one that all groups have, else the largest of each."""
    groups = {name: runs for name, runs in groups.items() if runs}
    common = set.intersection(*({run.epochs for run in runs} for runs in groups.values())) if groups else set()
    common -= {None}
    chosen = {}
    for name, runs in groups.items():
        epochs = max(common or {run.epochs for run in runs}, key=lambda count: count or 0)
        chosen[name] = [run for run in runs if run.epochs == epochs]
    return chosen


def _unequal(chosen: Mapping[str, Sequence[Run]], leader: str) -> list[str]:
    """List the names of runs whose epochs are not those of the leader."""
    wanted = {run.epochs for run in chosen.get(leader, ())}
    return [name for name, runs in chosen.items() if wanted and {run.epochs for run in runs} != wanted]


def _unquantized_level(runs: Sequence[Run]) -> tuple[str, float] | None:
    """Find label and PSNR of the run without a quantizer, of several the longest."""
    found = [r for r in runs if (r.family, r.quantizer, r.result.data) == ("mnist", "none", MNIST_DATA)]
    if not found:
        return None
    run = max(found, key=lambda run: run.epochs or 0)
    return f"no quantizer ({run.note})", run.result.points[-1].psnr_db


def _influence_of_lambda(channels_min: int) -> Callable[[Sequence[Run]], _Plan]:
    def plan(runs: Sequence[Run]) -> _Plan:
        measured, published_curves, missing, like = [], [], [], {}
        for low, high in GRID_LAMBDAS:
            name, text = f"mnist-ohm-c{channels_min}-16-lambda{low}-{high}", f"λ {low} → {high}"
            found = _find_digits(runs, "ohm", channels_min, 16, (low, high), ("ohmq", "context"))
            published = _published(name, f"published, {text}")
            if not found:
                missing.append(name)
                continue
            measured.append(_curve(max(found, key=lambda run: run.epochs or 0), name, f"ohmq, {text}"))
            published_curves.append(published)
            like[published.name] = name
        title = f"OHM, {channels_min} to 16 channels, 10,000 test digits"
        return _Plan([*measured, *published_curves], missing, title, dotted=list(like), like=like)

    return plan


def _published(name: str, label: str) -> Curve:
    """Look up a curve of the paper on digits, for a figure that shows a run of the same name as well."""
    label = f"{label} ({PUBLISHED_EPOCHS} epochs, static prior)"
    return dataclasses.replace(published_curve(name), name=f"published {name}", label=label)


def _quantizers(runs: Sequence[Run]) -> _Plan:
    curves, missing, dashed, dotted, like = [], [], [], [], {}
    for channels in GRID_CHANNELS:
        context, static, twin = (
            f"mnist-{kind}-c0-{channels}-lambda0.95-0.999" for kind in ("ohm", "ohm-static", "int-warm")
        )
        lambdas = (0.95, 0.999)
        groups = {
            context: _find_digits(runs, "ohm", 0, channels, lambdas, ("ohmq", "context")),
            static: _find_digits(runs, "ohm", 0, channels, lambdas, ("ohmq", "static")),
            twin: _find_digits(runs, "integer", 0, channels, lambdas, ("ohmq", "static")),
        }
        chosen = _alike(groups)
        missing += [name for name in groups if name not in chosen] + _unequal(chosen, context)
        leader = next(iter(chosen), "")
        for name, found in chosen.items():
            text = "integer" if name == twin else "OHM"
            curves.append(_curve(found[0], name, f"{text}, {counted(channels, 'channel')}"))
            if name != leader:
                like[name] = leader
        dotted += [static] if static in chosen else []
        dashed += [twin] if twin in chosen else []
    level = _unquantized_level(runs)
    if level is None:
        missing.append("mnist-none-c32")
    title = "OHM and integer rounding, 10,000 test digits"
    return _Plan(curves, missing, title, dotted=dotted, dashed=dashed, like=like, level=level)


def _training(runs: Sequence[Run]) -> _Plan:
    base, static, published = (f"mnist-{kind}-c0-16-lambda0.95-0.999" for kind in ("ohm", "ohm-static", "published"))
    kinds = {base: ("ohmq", "context"), static: ("ohmq", "static"), published: ("published", "static")}
    groups = {name: _find_digits(runs, "ohm", 0, 16, (0.95, 0.999), kind) for name, kind in kinds.items()}
    missing = [name for name, found in groups.items() if not found]
    measured = {run.epochs: run for run in groups[published]}
    curves = []
    for name in (base, static):
        if found := groups[name]:
            # A run of equal epochs shows the training; without one, the longest.
            run = max(found, key=lambda run: (run.epochs in measured, run.epochs or 0))
            curves.append(_curve(run, name, "ohmq"))
            if measured and run.epochs not in measured:
                missing.append(f"{published} with as many epochs as {name} ({run.epochs})")
    dotted = []
    for epochs in sorted(measured, key=lambda epochs: epochs or 0):
        curves.append(_curve(measured[epochs], f"{published} {epochs}", "the published training, repeated"))
        dotted.append(curves[-1].name)
    if curves:
        curves.append(_published(base, "the paper"))
        dotted.append(curves[-1].name)
    return _Plan(curves, missing, "OHM, 0 to 16 channels, 10,000 test digits", dotted=dotted)


def _bitrates(runs: Sequence[Run]) -> _Plan:
    digits = [r for r in runs if r.family == "mnist" and r.quantizer == "ohm" and r.result.data == MNIST_DATA]
    single = [r for r in digits if r.channels_min == r.channels_max and r.training[0] == "ohmq"]
    base = "mnist-ohm-c0-16-lambda0.95-0.999"
    groups = {
        "mnist-fixed-*": [run for run in single if run.fixed_rate],
        "mnist-variable-*": [run for run in single if not run.fixed_rate],
        base: _find_digits(runs, "ohm", 0, 16, (0.95, 0.999), ("ohmq", "context")),
    }
    chosen = _alike(groups)
    missing = [name for name in groups if name not in chosen]
    labels = {"mnist-fixed-*": "fixed, one model a point", "mnist-variable-*": "variable, one model a point"}
    curves = []
    for name, label in labels.items():
        if name in chosen:
            points = [run.result.points[-1] for run in chosen[name]]
            # A fixed rate does not depend on a prior.
            note = chosen[name][0].note.partition(",")[0] if name == "mnist-fixed-*" else chosen[name][0].note
            rates, psnr = tuple(p.payload_bpp for p in points), tuple(p.psnr_db for p in points)
            curves.append(Curve(name, f"{label} ({note})", rates, psnr))
    if base in chosen:
        curves.append(_curve(chosen[base][0], base, "adaptive, one model"))
        if _unequal(chosen, base):
            others = sorted({f"{run.epochs}" for name in labels for run in chosen.get(name, ())})
            missing.append(f"{base} with as many epochs as the others ({' or '.join(others)})")
    return _Plan(curves, missing, "Fixed, variable and adaptive bitrate, 10,000 test digits")


def _kodak(runs: Sequence[Run], quality: Quality = "psnr_db") -> _Plan:
    curves, missing = [], []
    ending = f" {KODAK_IMAGES} images"
    kodak = [r for r in runs if r.result.data.lower().startswith("kodak, ") and r.result.data.endswith(ending)]
    for family, quantizer, effort, name in (
        ("photo", "ohm", 1, "photo"),
        ("openimages", "ohm", 0, "openimages-ohm-c0-480"),
        ("openimages", "integer", 0, "openimages-int-c0-480"),
    ):
        for run in kodak:
            if (run.family, run.quantizer, run.result.extra.get("effort", 0)) == (family, quantizer, effort):
                curve = run.result.curve("file_bpp", f"ohmq, {name}", quality)
                curves.append(dataclasses.replace(curve, name=name))
                break
        else:
            missing.append(name)
    published = KODAK_PUBLISHED if curves and quality == "psnr_db" else ()
    curves += [published_curve(name) for name in published]
    return _Plan(curves, missing, "24 Kodak images", dotted=published)


FIGURES: dict[str, Callable[[Sequence[Run]], _Plan]] = {
    "lambda-c0": _influence_of_lambda(0),
    "lambda-c8": _influence_of_lambda(8),
    "quantizers": _quantizers,
    "training": _training,
    "kodak": _kodak,
    "bitrates": _bitrates,
}
"""Figures by name; each function plans the curves of one."""


def draw_figures(
    runs: Sequence[Run],
    names: Sequence[str],
    folder: Path,
    *,
    quality: Quality = "psnr_db",
    extension: str = ".png",
    force: bool = False,
) -> list[Drawn]:
    """Draw figures, as far as there are results for them.

    Args:
        runs: results, from `read_results`.
        names: names of figures, in `FIGURES`.
        folder: folder of the files NAME.png, or NAME-QUALITY.png for another quality than PSNR.
        quality: quality to draw; another one than PSNR is drawn for "kodak" alone, without published curves.
        extension: extension of the files, with its dot.
        force: whether to replace existing files.

    Returns:
        The file and the missing results of each figure.

    Raises:
        ValueError: no such figure, or a figure of PSNR alone.
        ConfigError: a result without that quality.
        OutputExistsError: a file exists and force is not set.
    """
    drawn = []
    for name in names:
        if name not in FIGURES:
            raise ValueError(f"no figure {name!r}; choose one of {', '.join(FIGURES)}")
        if quality == "psnr_db":
            plan, file_name = FIGURES[name](runs), name
        elif name == "kodak":
            plan, file_name = _kodak(runs, quality), f"{name}-{quality}"
        else:
            raise ValueError(f"figure {name!r} shows PSNR alone; {QUALITIES[quality].name} is drawn in kodak")
        path = folder / f"{file_name}{extension}" if plan.curves else None
        if path is not None:
            plot_rate_distortion(
                plan.curves,
                path,
                title=plan.title,
                x_label=plan.x_label,
                y_label=QUALITIES[quality].axis,
                dotted=plan.dotted,
                dashed=plan.dashed,
                like=plan.like,
                level=plan.level,
                force=force,
            )
        drawn.append(Drawn(name, path, plan.missing))
    return drawn
