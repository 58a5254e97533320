"""The command ``minitl`` and what its subcommands share: one message for a user's mistake, and exit codes."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from minitl._version import __version__
from minitl.cli.compare import compare
from minitl.cli.convert import convert
from minitl.cli.doctor import doctor
from minitl.cli.evaluate import evaluate
from minitl.cli.export import export
from minitl.cli.inspect import inspect
from minitl.cli.predict import predict
from minitl.cli.printing import say
from minitl.cli.serve import serve
from minitl.cli.train import train
from minitl.errors import InterruptedRunError, MinitlError

SIGPIPE = 13  # by which other programs end when nobody reads what they write; not every system has the name


class Commands(click.Group):
    """Commands that end quietly when the reader of their output has enough, as ``head`` has after ten lines."""

    def invoke(self, context: click.Context) -> Any:
        try:
            result = super().invoke(context)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is written when Python ends
            return 128 + SIGPIPE
        return result


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Every command has a --help of its own.",
)
@click.version_option(__version__, prog_name="minitl")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def minitl(context: click.Context, debug: bool) -> None:
    """Transfer learning from scratch: small enough to read, fast enough to use."""
    context.obj = {"debug": debug}


for command in (compare, convert, doctor, evaluate, export, inspect, predict, serve, train):
    minitl.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: instead of the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = minitl.main(words, prog_name="minitl", standalone_mode=False)  # a command's own exit code, if it has one
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        usage = io.StringIO()
        error.show(usage)  # it repeats arguments as they are, which may be file names that a shell put in
        say(usage.getvalue().rstrip("\n"))
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        _leave(128 + signal.SIGINT)
    except InterruptedRunError as error:
        say(f"minitl: {error}")
        _leave(128 + error.signal_number)
    except MinitlError as error:
        say(traceback.format_exc().rstrip("\n") if "--debug" in words else f"minitl: {error}")
        sys.exit(1)


def _leave(code: int) -> None:
    """End the process at once: threads that a compiler has been given may be in the middle of its work, and would crash
    in it while Python is taken down.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
