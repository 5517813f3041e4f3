"""The command line: one module a verb, imported only when it is used."""

import errno
import importlib
import os
import sys

import click

from ohmq import __version__
from ohmq.errors import OhmqError

__all__ = ["cli", "main"]

COMMANDS = {
    "train": "Train a model.",
    "export": "Freeze a checkpoint into one model file.",
    "models": "List the shipped models.",
    "compress": "Turn images into .ohm files.",
    "decompress": "Turn .ohm files into images.",
    "truncate": "Cut .ohm files to a lower bitrate, without a model.",
    "bulk": "Code millions of images: shards, object storage, processes or a Ray cluster.",
    "info": "Show what an .ohm file holds.",
    "evaluate": "Measure a model on images: rate, distortion, time.",
    "experiments": "List experiments and run them by name.",
    "plot": "Draw figures from result files.",
    "parameters": "Count the parameters of a model, part by part.",
    "compare": "Compare a model with JPEG, WebP, JPEG 2000 and AVIF on your images.",
}


class _LazyGroup(click.Group):
    """A group that imports the module of a command when it is used, so that light commands start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"ohmq.cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """ohmq: a learned image codec on one-hot max quantization.

    \b
    Example:
        ohmq compress photo.png -o photo.ohm
        ohmq decompress photo.ohm -o decoded.png
    """


def main(arguments: list[str] | None = None, command: click.Command = cli, name: str = "ohmq") -> None:
    """Run a command line: an `OhmqError` is one line on stderr and exit code 1; wrong usage is exit code 2.

    Args:
        arguments: arguments without the program's name; default: those of this process.
        command: command to run.
        name: program's name in messages.
    """
    # OpenBLAS reads this when numpy is loaded. By default its threads spin for some 20 ms while they wait for the next
    # product, on cores that torch needs.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    try:
        code = command.main(args=arguments, prog_name=name, standalone_mode=False)
        if sys.stdout is not None:  # None: the caller has closed it
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except OhmqError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:
            _echo_file_error(name, error)
            sys.exit(1)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        # A full disk under an output file is an `OutputWriteError`, so this is standard output. Redirect it, so that the
        # rest of its buffer does not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo(f"{name}: standard output: {error.strerror}; make room for it", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def run_published(name: str) -> None:
    """Run one of the published command lines with this package's exit codes.

    Args:
        name: "train" or "compress".
    """
    try:
        code = importlib.import_module(f"ohmq.cli.published_{name}").run()
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        code = 130
    except OhmqError as error:
        click.echo(f"{name}.py: {error}", err=True)
        code = 1
    except OSError as error:
        if error.filename is None:
            raise
        _echo_file_error(f"{name}.py", error)
        code = 1
    sys.exit(code)


def _echo_file_error(name: str, error: OSError) -> None:
    """Print an error of a path that cannot even be looked at, such as one in a folder that may not be searched."""
    advice = "; choose a shorter one" if error.errno == errno.ENAMETOOLONG else ""
    click.echo(f"{name}: {error.filename}: {error.strerror}{advice}", err=True)
