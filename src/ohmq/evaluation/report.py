"""src/ohmq/evaluation/report.py."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ohmq.cli.jobs import find_files
from ohmq.cli.options import IMAGE_EXTENSIONS
from ohmq.cli.output import progress_bar
from ohmq.codec import Codec
from ohmq.errors import ConfigError, OhmqError
from ohmq.evaluation.evaluate import evaluate_images, evaluate_unquantized, rate_points
from ohmq.evaluation.plots import plot_rate_distortion
from ohmq.evaluation.results import Curve, ResultFile
from ohmq.evaluation.tables import write_fraction_csv, write_rate_distortion_csv
from ohmq.imaging.convert import prepare_image
from ohmq.imaging.files import open_image
from ohmq.model_files.frozen_model import FrozenModel
from ohmq.utils.provenance import command_line

__all__ = ["channel_counts", "evaluate_set", "read_images"]

Images = Sequence[tuple[str, NDArray[np.uint8]]]


def evaluate_set(
    frozen: FrozenModel,
    images: Images,
    fractions: Sequence[float],
    output_dir: Path | None,
    *,
    data: str,
    plot: bool = True,
    quiet: bool = False,
    per_image: bool = True,
    fixed_rate: bool = False,
    cut: bool = False,
    effort: int | None = None,
    channels: Sequence[int] = (),
    extra: Mapping[str, Any] | None = None,
    beside: Sequence[Curve] = (),
) -> ResultFile:
    """Evaluate a model on images, print the table and write it.

    Args:
        frozen: the model. images: names and pixels. fractions: of the adaptive range; -1: every number of channels.
        output_dir: gets fraction_F.csv (a row an image and one 'avg'), rate_distortion.csv, .png and .json, the last when
            all others are there; None: none.
        data: what the images are. plot: draw. quiet: do not print the table. per_image: write fraction_F.csv.
        fixed_rate: measure fixed-rate files. cut: each image coded once, and cut. effort: of the encoder.
        channels: numbers of channels in place of fractions, also fewer than the model's minimum.
        extra: more that the result file keeps.
        beside: published curves, drawn dotted.

    Raises:
        ConfigError: fractions, channels or an effort that the model does not have.
    """
    rows = {}
    made: dict[str, Any] = {}
    with progress_bar(len(images), "evaluate") as update:
        if frozen.config.quantizer == "none":
            if effort:
                raise ConfigError(f"{frozen.name} has no quantizer: there is nothing to make an effort for")
            points = [evaluate_unquantized(frozen.model, images, progress=update)]
            plot = False
        else:
            codec = Codec(frozen)
            made = {"effort": codec.effort_for(effort, fixed_rate)} if codec.config.supports_rdoq else {}
            counts = sorted(set(channels)) or channel_counts(codec, fractions)
            if counts[-1] > codec.num_channels:
                raise ConfigError(f"channels is {counts[-1]}; {codec.name} has {codec.num_channels}")
            rows = evaluate_images(
                codec, images, counts, progress=update, fixed_rate=fixed_rate, cut=cut, effort=effort
            )
            points = rate_points(codec, rows)
    result = ResultFile(
        command=command_line(),
        model=frozen.name,
        model_id=frozen.model_id.hex(),
        data=f"{data}, {len(images)} images",
        points=tuple(points),
        extra={"training": frozen.provenance, **made, **(extra or {})},
    )
    if output_dir is not None:
        if rows and per_image:
            for point in points:
                write_fraction_csv(output_dir / f"fraction_{point.fraction:.4f}.csv", rows[point.channels], force=True)
        write_rate_distortion_csv(output_dir / "rate_distortion.csv", points, force=True)
        if plot:
            title = f"{data}, {len(images)} images"
            others = [dataclasses.replace(curve, name=f"published {curve.name}") for curve in beside]
            path, dotted = output_dir / "rate_distortion.png", [curve.name for curve in others]
            plot_rate_distortion([result.curve(), *others], path, title=title, dotted=dotted, force=True)
        result.write(output_dir / "rate_distortion.json", force=True)
    if not quiet:
        click.echo("channels  estimated bpp  payload bpp  file bpp  PSNR dB    SSIM  MS-SSIM  encode s  decode s")
        for p in points:
            click.echo(
                f"{p.channels:8d}  {p.estimated_bpp:13.4f}  {p.payload_bpp:11.4f}  {p.file_bpp:8.4f}  {p.psnr_db:7.3f}"
                f"  {p.ssim:6.4f}  {p.ms_ssim:7.4f}  {p.encode_s:8.4f}  {p.decode_s:8.4f}"
            )
    return result


def channel_counts(codec: Codec, fractions: Sequence[float]) -> list[int]:
    """Numbers of channels that fractions stand for; -1: all cut points, and the smallest number.

    Raises:
        ConfigError: a fraction outside [0, 1] that is not -1.
    """
    counts: set[int] = set()
    for fraction in fractions:
        if fraction == -1:
            low = codec.config.channels_min
            counts |= {n for n in (low, *codec.cut_points) if n >= max(low, 1)}
        elif 0 <= fraction <= 1:
            counts.add(codec.config.channels_for(fraction))
        else:
            raise ConfigError(f"channel fraction {fraction}: it must lie in 0 to 1, or be -1 for all")
    return sorted(counts)


def read_images(inputs: Sequence[str], *, grey: bool) -> tuple[list[tuple[str, NDArray[np.uint8]]], int]:
    """Images as the model codes them, and how many could not be read (each is reported)."""
    images, failed = [], 0
    for job in find_files(inputs, IMAGE_EXTENSIONS):
        try:
            loaded = open_image(job.source)
            prepared = prepare_image(loaded.image, grey=grey)
        except OhmqError as error:
            click.echo(f"skipped: {error}", err=True)
            failed += 1
            continue
        for note in (*loaded.notes, *prepared.notes):
            click.echo(f"{job.source}: {note}", err=True)
        images.append((str(job.relative), np.asarray(prepared.image)))
    if not images:
        raise ConfigError(f"no readable image in {', '.join(inputs)}")
    return images, failed
