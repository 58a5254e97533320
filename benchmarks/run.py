"""Compare minitl with its peers: python benchmarks/run.py --suite training

Every program runs in a process of its own; they take turns. Results are tables (CSV and Markdown) and pictures in
benchmarks/results/. See benchmarks/README.md.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.child import WorkerError
from harness.floor import MODELS
from harness.machine import describe
from harness.settings import Settings, announce
from harness.tables import Table

SUITES = ("training", "inference", "gemm", "adamw", "kernels", "memory", "startup", "scaling")
RESULTS = Path(__file__).resolve().parent / "results"
QUICK_RESULTS = Path("runs") / "benchmarks-quick"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--suite", choices=(*SUITES, "all"), default="all")
    parser.add_argument("--rounds", type=_at_least_1, help="how often everybody is measured (5; with --quick 2)")
    parser.add_argument("--threads", type=_at_least_1, default=2, help="of every program (2)")
    parser.add_argument("--quick", action="store_true", help="little work, to see that everything runs")
    parser.add_argument("--model", choices=(*MODELS, "both"), default="both")
    parser.add_argument("--without", metavar="WORD", nargs="*", default=(), help="leave out programs with these words")
    parser.add_argument("--output", type=Path, help=f"folder ({RESULTS.name}/ here; with --quick {QUICK_RESULTS}/)")
    args = parser.parse_args()
    if args.threads > (os.cpu_count() or 1):
        parser.error(f"--threads {args.threads}: this machine has {os.cpu_count()} processors")
    return args


def _at_least_1(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def main() -> None:
    args = parse_arguments()
    rounds = args.rounds or (2 if args.quick else 5)
    output = args.output or (QUICK_RESULTS if args.quick else RESULTS)
    models = tuple(MODELS) if args.model == "both" else (args.model,)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # compiling is measured, so it starts from nothing in every run
        for name in SUITES if args.suite == "all" else (args.suite,):
            _run(name, Settings(rounds, args.quick, args.threads, models, args.without), output)
    _draw(output)


def _run(name: str, settings: Settings, output: Path) -> None:
    """Run one suite, write its table, and print it."""
    suite: Callable[[Settings], Table] = importlib.import_module(f"suites.{name}").run
    start = time.perf_counter()
    table = suite(settings)
    minutes = (time.perf_counter() - start) / 60
    head = {
        **describe(settings.threads, settings.rounds),
        "conditions": settings.conditions.sentence(),
        "duration": f"{minutes:.1f} minutes",
    }
    table.save(output, head)
    print(table.markdown(head))
    announce(f"{name}: {minutes:.1f} minutes; wrote {table.name}.csv and {table.name}.md")


def _draw(folder: Path) -> None:
    """Draw what there are results for; matplotlib is imported here, so that no worker's parent carries it."""
    try:
        from harness import pictures
    except ImportError as error:
        print(f"no pictures: {error.name} is not installed; pip install -e '.[benchmark]' brings it", file=sys.stderr)
        return
    for name in pictures.draw_all(folder):
        announce(f"drew {name}")


if __name__ == "__main__":
    try:
        main()
    except WorkerError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the table of this suite was not written")
