"""What imports what: floors are entered from above only, and ``import minitl`` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minitl
import minitl.kernels

PACKAGES = {"minitl": Path(minitl.__file__).parent, "minitl.kernels": Path(minitl.kernels.__file__).parent}

# From the ground up; a module imports from its own floor and those below. models may import text, never back.
FLOORS: list[list[str]] = [
    ["minitl._version", "minitl.errors", "minitl.atomic_file", "minitl.plain_file", "minitl.strict_json"],
    ["minitl.kernels"],
    ["minitl.device", "minitl.tensor", "minitl.autograd", "minitl.random", "minitl.precision", "minitl.interop"],
    ["minitl.ops"],
    ["minitl.nn", "minitl.optim", "minitl.testing"],
    ["minitl.text"],
    ["minitl.models"],
    ["minitl.transfer"],
    ["minitl.training", "minitl.metrics", "minitl.viz", "minitl.serving", "minitl.cli"],
]


def floor(module: str) -> int:
    for number, names in enumerate(FLOORS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    raise AssertionError(f"{module} has no floor; enter it in FLOORS")


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            if path.stem == "__main__":
                continue
            yield name, path


MODULES = dict(modules())


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Yield the full names that a file imports, those for type checkers only excepted."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if is_type_checking(node) or (top_level_only and inside):
            continue
        waiting.extend(ast.iter_child_nodes(node))


def test_the_parser_sees_imports(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(
        "import torch.nn\nfrom minitl import ops, Tensor\nif TYPE_CHECKING:\n    import numba\n"
        "class A:\n    import a\n    def f(self):\n        from minitl.text import batch\n"
    )
    assert set(imports(path)) == {"torch.nn", "minitl.ops", "minitl", "a", "minitl.text.batch"}
    assert set(imports(path, top_level_only=True)) == {"torch.nn", "minitl.ops", "minitl", "a"}
    assert len(MODULES) > 60
    assert "minitl.kernels.gelu.reference" in MODULES


@pytest.mark.parametrize("module", [name for name in MODULES if name != "minitl"])
def test_imports_go_down_only(module: str) -> None:
    own = floor(module)
    for imported in imports(MODULES[module]):
        if imported == "minitl" or imported.startswith("minitl."):
            assert imported != "minitl", f"{module} imports from the package's face; name the module"
            assert floor(imported) <= own, f"{module} (floor {own}) imports {imported} (floor {floor(imported)})"


def test_every_floor_of_the_table_that_exists_is_used() -> None:
    known = [name for names in FLOORS for name in names]
    assert len(known) == len(set(known))
    present = {name for name in known if any(module == name or module.startswith(f"{name}.") for module in MODULES)}
    assert present >= set(known) - {"minitl.cli"}


@pytest.mark.parametrize("module", MODULES)
def test_no_heavy_import_at_module_level(module: str) -> None:
    """torch and transformers nowhere at all; the rest only where it is needed, inside functions."""
    forbidden = {"torch", "transformers", "tensorflow", "jax", "seqeval"}
    assert not {name.partition(".")[0] for name in imports(MODULES[module])} & forbidden
    late = {"numba", "cupy", "hypothesis"}
    if module == "minitl.testing.strategies":  # nothing imports it at module level, as the next test shows
        late.remove("hypothesis")
    kernel = module.removeprefix("minitl.kernels.")
    if kernel != module and kernel not in ("select", "launch", "threads", "special") and "reference" not in kernel:
        late.remove("numba")  # compiled kernels; likewise
    assert not {name.partition(".")[0] for name in imports(MODULES[module], top_level_only=True)} & late


def run(code: str, folder: Path) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


LATE = ["numba", "hypothesis", "tokenizers", "huggingface_hub", "safetensors", "tqdm", "cupy", "torch", "transformers"]


def test_import_minitl_is_light(tmp_path: Path) -> None:
    """By its effect, in a new process: none of these may have been imported; models and text come when asked for."""
    code = (
        "import minitl, minitl.testing, sys\n"
        f"print([name for name in {LATE} if name in sys.modules], 'minitl.models' in sys.modules)"
    )
    assert run(code, tmp_path).split() == ["[]", "False"]


def test_models_and_text_are_light_too(tmp_path: Path) -> None:
    code = f"import sys, minitl.models, minitl.text; print([name for name in {LATE} if name in sys.modules])"
    assert run(code, tmp_path).strip() == "[]"


def test_kernels_is_nobodys_package_elsewhere(tmp_path: Path) -> None:
    """The folder stands at the top of the repository; installed, it must be ``minitl.kernels`` and nothing else."""
    code = (
        "import importlib.util, minitl.kernels\n"
        "print(importlib.util.find_spec('kernels') is None, minitl.kernels.select.__module__)"
    )
    assert run(code, tmp_path).split() == ["True", "minitl.kernels.select"]
    with pytest.raises(AssertionError, match="No module named 'kernels'"):
        run("import kernels", tmp_path)
