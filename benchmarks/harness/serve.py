"""The worker's side of a benchmark: a process that prepares once, and then works only when it is told to.

The parent writes one JSON object a line, ``{"call": NAME, "arguments": {...}}``, and gets one line back, ``{"result":
...}`` or ``{"error": "one line"}``. In between the worker waits for its standard input and uses no processor time.
"""

import json
import os
import resource
import sys
import traceback
from typing import Any, NoReturn


class Unavailable(Exception):
    """This machine or installation cannot do what was asked; the message says why, and goes into the table."""


def serve(worker: Any) -> None:
    """Answer the parent's calls with the worker's methods until standard input ends."""
    replies = _private_output()
    for line in sys.stdin:
        message = json.loads(line)
        name = message["call"]
        function = _ALWAYS[name] if name in _ALWAYS else getattr(worker, name)
        try:
            reply = {"result": function(**message["arguments"])}
        except ModuleNotFoundError as error:
            reply = {"error": _missing(error)}
        except Exception as error:
            if not isinstance(error, Unavailable):
                traceback.print_exc()
            reply = {"error": one_line(error)}
        print(json.dumps(reply), file=replies, flush=True)


def refuse(error: ModuleNotFoundError) -> NoReturn:
    """Answer the parent's first call with what is not installed, and end the process."""
    print(json.dumps({"error": _missing(error)}), file=_private_output(), flush=True)
    sys.exit(0)


def _missing(error: ModuleNotFoundError) -> str:
    return f"not measured: {error.name} is not installed; pip install -e '.[benchmark]' brings it"


def one_line(error: BaseException) -> str:
    """The message of an exception, short enough for a cell of a table."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if isinstance(error, Unavailable) else f"{type(error).__name__}: {text}"
    return text if len(text) <= 400 else text[:397] + "..."


def _private_output() -> Any:
    """Keep the parent's pipe for replies; whatever a library prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def _peak_memory() -> int:
    """Return the most memory this process has had so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


_ALWAYS = {"peak_memory": _peak_memory}
