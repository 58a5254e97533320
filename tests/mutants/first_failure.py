"""A pytest plugin for the runner: it writes down how many tests passed, and the first failure.

Pytest's own output is for people; its exit code does not tell a failed test from a fixture that could not be made.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--first-failure", metavar="FILE", help="where to write the result, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Recorder(Path(config.getoption("--first-failure"))))
    if "hypothesis" in sys.modules:  # conftest.py has loaded a profile
        from hypothesis import Phase, settings

        # A smaller example makes a failure easier to read, which nobody does here.
        phases = [phase for phase in settings().phases if phase not in (Phase.shrink, Phase.explain)]
        settings.register_profile("as found", settings(), phases=phases)
        settings.load_profile("as found")


class _Recorder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed = 0
        self.failure: dict[str, str] | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.when == "call" and report.passed

    def pytest_exception_interact(self, call: pytest.CallInfo[Any], report: Any) -> None:
        if self.failure is None and call.excinfo is not None:
            self.failure = {
                "test": report.nodeid,
                "when": report.when,
                "error": call.excinfo.typename,
                "message": (str(call.excinfo.value).strip() or "no message").splitlines()[0],
            }

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps({"passed": self.passed, "failure": self.failure}), encoding="utf-8")
