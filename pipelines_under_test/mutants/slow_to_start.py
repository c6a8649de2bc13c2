"""Mutant: slow to start.

The bug: the worker takes three seconds to start, in which it does nothing else. While it runs it is as good as ever. It
takes so much longer to come back from each kill, which is within every bound, and a run for itself passes.

In the wild: state that is read back at every start, stores that are opened one after another, connections that are made
before the first message is looked at.
"""

from __future__ import annotations

import sys
import time

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import Converter

START_S = 3.0


class SlowlyStartingConverter(Converter):
    def __init__(self) -> None:
        time.sleep(START_S)
        super().__init__()


def main() -> int:
    return converter.main(SlowlyStartingConverter)


if __name__ == "__main__":
    sys.exit(main())
