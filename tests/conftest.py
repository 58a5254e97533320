"""What all tests share: Hypothesis profiles, and the strict device.

``ci`` (the default) draws the same examples on every run, so that a red test is red for everyone; ``long`` draws new
and many more ones: ``HYPOTHESIS_PROFILE=long pytest``; ``quick`` draws the first few of ``ci``'s, to see that all lines
run. All print how to repeat a failure.

``pytest --device cuda`` runs on a GPU what otherwise runs on the simulator.
"""

import os
from collections.abc import Iterator

# Before anything loads a pool of threads: each worker of the tests is one process on one core, and must not keep the
# others' busy with spinning. Tests of threads start processes of their own.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import strict_array
from hypothesis import settings

import minitl
import minitl.device

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("quick", derandomize=True, deadline=None, print_blob=True, max_examples=10)
settings.register_profile("long", derandomize=False, deadline=None, print_blob=True, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=("cudasim", "cuda"),
        help="where CUDA kernels are tested: the simulator (default) or a GPU; the kernels' contract is tested on both",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") is not None:  # for tests/simulator.py, which is imported later
        os.environ["MINITL_TEST_DEVICE"] = config.getoption("--device")


@pytest.fixture
def strict_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The device of ``strict_array``, whose arrays refuse whatever CuPy's would; the reference kernels run on it."""
    monkeypatch.setitem(minitl.device._MODULES, "strict", strict_array)
    with minitl.use_kernels("reference"):
        yield "strict"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test starts with the same random state, whichever ran before it."""
    minitl.manual_seed(0)
