"""Nothing of a model folder is ever run, and nothing is asked of the network where that is switched off."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import write_tiny_data, write_tiny_model

import minitl
import minitl.kernels
from minitl.text import read_folder

# Run in a process of its own: an audit hook cannot be taken away again. Prints what it saw, as JSON.
WATCHED = """
import json, os, sys

folder = os.path.realpath("evil")
seen = []


def watch(event, arguments):
    if event in ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
                 "socket.connect", "socket.bind", "socket.getaddrinfo"):
        seen.append([event, repr(arguments)[:200]])
    elif event in ("compile", "exec", "import", "ctypes.dlopen"):
        for argument in arguments:
            name = getattr(argument, "co_filename", argument)
            if isinstance(name, (str, bytes)) and os.fsdecode(name).startswith(folder):
                seen.append([event, repr(name)[:200]])
    elif event == "open":
        path = arguments[0]
        if isinstance(path, (str, bytes)) and os.fsdecode(path).endswith((".bin", ".py", ".pt", ".ckpt", ".h5")):
            if os.path.realpath(path).startswith(folder):
                seen.append([event, repr(path)])


sys.addaudithook(watch)
from minitl.cli.main import main

try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("SEEN " + json.dumps([code, seen]))
"""


class Evil:
    """What unpickles to a call."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch owned",)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working model folder with everything beside it that some loader would run, and data."""
    folder = tmp_path_factory.mktemp("no-code")
    labels = read_folder(write_tiny_data(folder / "data", 6)).labels.id2label
    evil = write_tiny_model(folder / "evil", id2label=labels)
    code = "open('owned', 'w')\nraise SystemExit('owned')\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "sitecustomize.py", "conftest.py",
                 "__init__.py", "numpy.py", "tokenizers.py"):  # fmt: skip
        (evil / name).write_text(code)
    for name in ("pytorch_model.bin", "model.pt", "model.ckpt", "training_args.bin", "optimizer.pt"):
        (evil / name).write_bytes(pickle.dumps(Evil()))
    config = json.loads((evil / "config.json").read_text())
    maps = {"AutoConfig": "configuration_evil.Evil", "AutoModelForTokenClassification": "modeling_evil.Evil"}
    config |= {
        "auto_map": maps,
        "trust_remote_code": True,
        "_name_or_path": "modeling_evil",
        "_target_": "os.system",
    }
    (evil / "config.json").write_text(json.dumps(config))
    settings = json.loads((evil / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}, "tokenizer_class": "Evil"}
    (evil / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "work"))


COMMANDS = [
    "predict evil data/test.conll",
    "evaluate evil data",
    "inspect evil",
    "inspect data --model evil",
    "train --data data --model evil --epochs 1 --output run",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_of_a_folder_is_run_and_no_socket_is_opened(command: str, folder: Path) -> None:
    # Numba keeps machine code in a cache of the user's, and unpickles it; the watch cannot tell that from a folder's
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "MINITL_KERNELS": "reference"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *command.split()],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("SEEN ")]
    assert lines, done.stderr
    assert json.loads(lines[0].removeprefix("SEEN ")) == [0, []], done.stderr
    assert not list(folder.rglob("owned"))


def test_the_watch_sees_what_it_is_for(folder: Path) -> None:
    script = WATCHED.replace("main(sys.argv[1:])", "import pickle; pickle.load(open('evil/pytorch_model.bin', 'rb'))")
    script = script.replace("except SystemExit as end:\n    code = end.code", "finally:\n    code = 0")
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    events = {event for event, _ in json.loads(done.stdout.splitlines()[-1].removeprefix("SEEN "))[1]}
    assert {"open", "pickle.find_class", "os.system"} <= events


def test_only_a_pickle_is_refused_with_the_way_out(folder: Path) -> None:
    (folder / "evil" / "model.safetensors").unlink()
    script = "from minitl.cli.main import main; main(['inspect', 'evil'])"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "A pickle can run code when it is read, so minitl never reads one" in done.stderr
    assert not list(folder.rglob("owned"))


FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "torch", "transformers", "runpy"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "execfile"}


def sources() -> Iterator[tuple[str, ast.AST]]:
    for package in (minitl, minitl.kernels):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            name = ".".join((package.__name__, *path.relative_to(root).with_suffix("").parts))
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def calls_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


FORBIDDEN_METHODS = {
    "builtins.eval",
    "builtins.exec",
    "builtins.compile",
    "os.system",
    "os.popen",
    "np.load",
    "numpy.load",
}


def methods_of(tree: ast.AST) -> Iterator[str]:
    """What is called with a module before the name, and an ``allow_pickle`` that is not plainly False."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                yield f"{node.func.value.id}.{node.func.attr}"
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", None) is not False:
                    yield "allow_pickle"


def modules_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_no_module_imports_what_unpickles_or_calls_what_runs_text() -> None:
    wrong = []
    for name, tree in sources():
        wrong += [f"{name} imports {module}" for module in set(modules_of(tree)) & FORBIDDEN_MODULES]
        wrong += [f"{name} calls {call}" for call in set(calls_of(tree)) & FORBIDDEN_CALLS]
        wrong += [f"{name} calls {call}" for call in set(methods_of(tree)) & {*FORBIDDEN_METHODS, "allow_pickle"}]
    assert wrong == []
