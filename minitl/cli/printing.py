"""How commands print: data to standard output, all else to standard error, and nothing that steers a terminal.

Names of files and tensors, labels and words may come from a stranger's file.
"""

from __future__ import annotations

import json
from typing import Any

import click

from minitl.viz.terminal import printable


def say(text: str) -> None:
    """Print lines for people to standard error."""
    click.echo(printable(text), err=True)


def show(text: str) -> None:
    """Print lines that are the answer to standard output."""
    click.echo(printable(text))


def show_json(values: Any) -> None:
    """Print an answer for programs to standard output: JSON in ASCII."""
    click.echo(json.dumps(values, indent=2))
