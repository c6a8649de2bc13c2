"""`python -m benchmarks [NAME ...]`: measures, prints, and writes the results down."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import benchmarks
from benchmarks.measure import LEAST_ROUNDS, measure
from benchmarks.tables import put, save, table
from harness.errors import HarnessFault
from harness.topology import UsageError

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"


def names() -> list[str]:
    """The files here that are benchmarks."""
    modules = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_")]
    return [name for name in modules if "def benchmark(" in (HERE / f"{name}.py").read_text()]


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 where a limit was not kept or a goal not reached, or 2 where something is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names())} (default: all)")
    parser.add_argument(
        "--rounds", type=int, default=LEAST_ROUNDS, help="how often each side is measured (default: %(default)s)"
    )
    parser.add_argument("--dry", action="store_true", help="print only; leave the results and the page as they are")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in names()]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(names())}")
    if args.rounds < LEAST_ROUNDS and not args.dry:
        parser.error(f"fewer than {LEAST_ROUNDS} rounds say too little to be written down (--dry only prints them)")
    kept = True
    for name in args.names or names():
        try:
            benchmark = importlib.import_module(f"benchmarks.{name}").benchmark()
            result = measure(benchmark, args.rounds, lambda text: print(text, file=sys.stderr, flush=True))
        except (UsageError, HarnessFault) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        print(table(result))
        kept = kept and not result.too_much() and not result.too_little()
        if not args.dry:
            PAGE.write_text(put(PAGE.read_text(), name, table(result)))
            print(f"written to {save(result, HERE / 'results')} and {PAGE}", file=sys.stderr)
    return 0 if kept else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # whatever was begun cleans up after itself
    sys.exit(main())
