"""JSON as a checkpoint may hold it, and nothing looser.

Python's ``json`` accepts duplicate keys (the last one wins, so two readers can disagree about one file), ``NaN``,
numbers that overflow to infinity, lone surrogates, and lets a ``RecursionError`` escape from deep nesting. A file that
says what a model is must not be read in two ways, so all of these are refused here, for ``config.json``, for the shard
index and for the header of a safetensors file alike.
"""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from minitl.errors import CheckpointError
from minitl.plain_file import read_plain

LONGEST_INTEGER = 40  # digits; for "no limit" transformers writes int(1e30) into tokenizer_config.json


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse UTF-8 bytes that must hold one JSON object.

    Args:
        data: the bytes.
        where: how messages name the file, for example its path.

    Returns:
        The object as a dict.

    Raises:
        CheckpointError: not UTF-8, a byte order mark, not JSON, not an object, a duplicate key, ``NaN`` or infinity, an
            absurdly long integer, a lone surrogate, or nesting too deep to read.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise CheckpointError(f"{where}: starts with a UTF-8 byte order mark; save it as plain UTF-8")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{where}: is not UTF-8 (byte {error.start}: {error.reason})") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
        )
    except RecursionError:
        raise CheckpointError(f"{where}: JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{where}: is not JSON (line {error.lineno}, column {error.colno}: {error.msg}); it is damaged or cut short"
        ) from None
    except _Refused as error:
        raise CheckpointError(f"{where}: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: must hold a JSON object {{...}}, found {type(value).__name__}")
    return value


def read_object(path: Path, *, largest: int) -> dict[str, Any]:
    """Read a JSON file of at most ``largest`` bytes that must hold one object; see :func:`parse_object`."""
    return parse_object(read_plain(path, largest=largest), str(path))


class _Refused(Exception):
    """Something legal for Python's parser that we refuse; carries the reason."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"duplicate key {key!r}")
        _check_strings(key)
        _check_strings(value)
        found[key] = value
    return found


def _check_strings(value: Any) -> None:
    """Refuse lone surrogates; nested objects were checked when they were built, so only lists are walked."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _Refused(f"the string {value[:60]!r} holds a lone surrogate, which is not text") from None
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)


def _refuse_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"the number {text[:40]} is too large")
    return value


def _bounded_int(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise _Refused(f"the number {text[:40]} is too large")
    return int(text)
