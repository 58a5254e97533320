"""Options that mean nothing in a call are refused, not ignored."""

from __future__ import annotations

import click


def given_options() -> set[str]:
    """Return the names of the running command's options that stand on the command line."""
    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is source}


def refuse(names: set[str], why: str) -> None:
    """Raise a UsageError if any of these options is left."""
    if names:
        options = sorted("--" + name.replace("_", "-") for name in names)
        raise click.UsageError(f"{why}; leave out {', '.join(options)}")
