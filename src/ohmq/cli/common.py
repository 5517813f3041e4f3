"""What several commands share: finding inputs, going on after one bad file, summaries."""

import glob
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from ohmq.errors import ConfigError, OhmqError

__all__ = ["Job", "find_files", "output_for", "print_json", "run_jobs"]


class Job(NamedTuple):
    """One input file and the path under which its output goes."""

    source: Path
    relative: Path


def find_files(inputs: Iterable[str], extensions: Sequence[str]) -> list[Job]:
    """Files named, in folders named (searched recursively), or matched by globs; in order, without duplicates.

    Args:
        inputs: files, folders and globs. extensions: lower-case endings taken from folders, such as (".png",).

    Raises:
        ConfigError: nothing found.
    """
    jobs: dict[Path, Job] = {}
    inputs = list(inputs)
    for text in inputs:
        path = Path(text)
        matches = [path] if path.exists() or not glob.has_magic(text) else [Path(m) for m in sorted(glob.glob(text))]
        for match in matches:
            if not match.is_dir():  # also a missing file: reading it gives the error
                jobs.setdefault(match, Job(match, Path(match.name)))
                continue
            for file in sorted(match.rglob("*")):
                if file.suffix.lower() in extensions and file.is_file():
                    jobs.setdefault(file, Job(file, file.relative_to(match)))
    if not jobs:
        raise ConfigError(f"no files found in {', '.join(inputs)} (looked for {', '.join(extensions)})")
    return list(jobs.values())


def output_for(job: Job, output: Path | None, single: bool, extension: str) -> Path:
    """Where the output of a job goes: the file named, below the folder named, or beside the input."""
    if output is None:
        return job.source.with_suffix(extension)
    if single and not output.is_dir() and output.suffix:
        return output
    return output / job.relative.with_suffix(extension)


def run_jobs(
    jobs: Sequence[Job], work: Callable[[Job], dict[str, Any]], verb: str, quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Do each job; a bad file does not stop the others.

    Returns:
        Results, and failures with the keys "input" and "error".
    """
    results, failures = [], []
    visible = len(jobs) > 1 and not quiet and sys.stderr.isatty()
    with click.progressbar(length=len(jobs), label=verb, file=sys.stderr, hidden=not visible) as bar:
        for job in jobs:
            try:
                results.append({"input": str(job.source), **work(job)})
            except BrokenPipeError:  # whoever reads our output has enough: no fault of the file; click ends quietly
                raise
            except (OhmqError, OSError) as error:
                message = str(error) if isinstance(error, OhmqError) else f"{job.source}: {error.strerror or error}"
                failures.append({"input": str(job.source), "error": message})
                click.echo(f"ohmq: {message}", err=True)
            bar.update(1)
    return results, failures


def finish(results: list[dict[str, Any]], failures: list[dict[str, Any]], as_json: bool, summary: str) -> int:
    """Print the outcome; the exit code."""
    if as_json:
        print_json({"results": results, "failures": failures})
    elif len(results) + len(failures) > 1:
        failed = f"; {len(failures)} failed" if failures else ""
        click.echo(f"{len(results)} of {len(results) + len(failures)} files {summary}{failed}")
    return 1 if failures else 0


def print_json(value: Any) -> None:
    """As JSON on standard output."""
    click.echo(json.dumps(value, indent=2))


IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".ppm", ".pgm")
"""Endings that a folder of pictures is searched for."""
