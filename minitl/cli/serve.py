"""``minitl serve``: a token classifier behind HTTP, with a page to try it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from minitl.cli.printing import say, show
from minitl.errors import CheckpointError

if TYPE_CHECKING:
    from minitl.models import BertForTokenClassification
    from minitl.serving.server import Server

WARM_UP = "Ada Lovelace met Charles Babbage in London."
SPARE_THREADS = 16  # beyond those that wait for the tagger, for everything else


@click.command()
@click.argument("model_folder", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 lets other machines connect.")
@click.option("--port", default=8000, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--max-bytes", default=1_000_000, type=click.IntRange(min=1), help="Longest body of a request.")
@click.option("--timeout", default=30.0, type=click.FloatRange(min=0.001), help="Seconds a request may take.")
@click.option("--queue", default=256, type=click.IntRange(1, 400), help="Most requests that wait for the model.")
def serve(model_folder: Path, host: str, port: int, max_bytes: int, timeout: float, queue: int) -> None:
    """Find named entities over HTTP, with the token classifier in MODEL_FOLDER, and on a page in the browser.

    \b
    Examples:
      minitl serve runs/ner-1
      minitl serve runs/ner-1 --port 0
      curl http://127.0.0.1:8000/tag -d '{"text": "Ada met Ben in Oslo."}' -H 'Content-Type: application/json'
      curl http://127.0.0.1:8000/tag --data-binary @letter.txt -H 'Content-Type: text/plain; charset=utf-8'

    The URL is printed to standard output once the server answers, all else to standard error. Offsets count characters
    as Python does (Unicode code points). There is no password and no encryption: put a proxy in front of it before you
    let others connect. Ctrl-C or SIGTERM ends it when the running requests are answered.
    """
    from minitl.serving import server as http  # here: a command that serves nothing need not load it
    from minitl.serving.application import Application
    from minitl.serving.batching import Batcher

    http.require_waitress()
    http.log_to(_log)
    listening = http.listen(host, port)  # first, since a port in use should not take the time that loading takes
    with listening:
        loopback = http.is_loopback(listening)
        if not loopback:
            _log(
                f"warning: whoever reaches {http.url(listening)} over the network can use the model, without a password"
            )
        model = _loaded(model_folder)
        model.tag_texts([WARM_UP])  # compiles kernels before the first request, and says what is wrong with a model
        application = Application(
            Batcher(model.tag_texts, most_requests=queue, most_characters=8 * max_bytes),
            model=model_folder.resolve().name,
            labels=_entity_types(model),
            max_bytes=max_bytes,
            seconds=timeout,
            loopback=loopback,
            log=_log,
        )
        server = http.Server(application, listening, threads=queue + SPARE_THREADS)
        ended_by = _stop_at_signals(server)
        show(http.url(listening))
        sys.stdout.flush()
        has_ended = server.run()
    _log(f"stopped, after {application.batcher.counts()['requests']} requests")
    if not has_ended:  # a thread in the middle of native code would crash while Python is taken down
        _leave(128 + ended_by[0])
    click.get_current_context().exit(128 + ended_by[0])


def _loaded(folder: Path) -> BertForTokenClassification:
    from minitl.models import BertForTokenClassification

    model = BertForTokenClassification.from_pretrained(folder)
    if model.load_report is not None and model.load_report.new:
        raise CheckpointError(
            f"{folder}: holds no trained classifier, only an encoder; train it for named entities first"
        )
    return model


def _entity_types(model: BertForTokenClassification) -> list[str]:
    from minitl.text.schemes import split_tag

    return sorted({split_tag(tag)[1] for tag in model.config.id2label.values() if tag != "O"})


def _stop_at_signals(server: Server) -> list[int]:
    """Stop the server at Ctrl-C and SIGTERM, and at once at a second one; the list will hold the signals."""
    seen: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if seen:
            _leave(128 + number)
        seen.append(number)
        server.stop()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    return seen


def _log(text: str) -> None:
    """Write a line to standard error, if anybody still reads it."""
    with contextlib.suppress(OSError, ValueError):
        say(f"{time.strftime('%H:%M:%S')} {text}")


def _leave(code: int) -> None:
    """End the process at once, whatever its threads do."""
    os._exit(code)
