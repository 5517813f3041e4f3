"""Hook of the documentation that writes the reference of the command line from the commands themselves."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click

from ohmq.cli import cli

MARK = "<!-- commands -->"
ESCAPED_BAR = "\\|"


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """List a command and its subcommands with their contexts, in the order of the help."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, click.Context(inner, info_name=name, parent=context))


def _cell(text: str) -> str:
    escaped = text.replace("|", ESCAPED_BAR).replace("<", "&lt;").replace("\n", " ")
    return re.sub(r"(?<![\w`-])(--?[a-z][\w-]*)", r"`\1`", escaped)


def _text(text: str) -> str:
    """Turn the text of a help page into Markdown: paragraphs that click keeps as they are become blocks of code."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            title, *lines = paragraph[2:].split("\n")
            code = "\n".join(line.removeprefix("    ") for line in lines)
            paragraphs.append(f"{title}\n\n```text\n{code}\n```")
        else:
            paragraphs.append(_cell(paragraph).replace(ESCAPED_BAR, "|"))
    return "\n\n".join(paragraphs)


def section(command: click.Command, context: click.Context) -> str:
    """Write the section of a command: usage, text and a table of its options."""
    lines = [
        f"{'##' if context.parent is None or context.parent.parent is None else '###'} {context.command_path}",
        f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```",
        _text(command.help or ""),
    ]
    records = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    rows = [
        f"| `{names.replace('|', ESCAPED_BAR)}` | {_cell(text)} |"
        for names, text in records
        if text and "--help" not in names
    ]
    if rows:
        lines.append("\n".join(["| option | description |", "|---|---|", *rows]))
    if command.epilog:
        example = " ".join(inspect.cleandoc(command.epilog).removeprefix("Example: ").split())
        lines.append(f"```text\n{example}\n```")
    return "\n\n".join(line for line in lines if line)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the mark for the reference of all commands.

    Args:
        markdown: text of a page.

    Returns:
        The text with the reference.
    """
    if MARK not in markdown:
        return markdown
    root = click.Context(cli, info_name="ohmq")
    return markdown.replace(MARK, "\n\n".join(section(*found) for found in commands(cli, root)))
