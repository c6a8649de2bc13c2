"""Mutant: a producer that asks for no acknowledgement.

The bug: with `acks=0` a record counts as delivered when it is in the socket's buffer. The preprocessor commits on the
strength of that. Over a connection that works all is well; what was on its way when it breaks, or vanishes behind it,
is gone.

In the wild: `acks=0`, once the default of some clients, left in for speed. `acks-one` is the same bug one step further.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import ClassVar

from pipelines_under_test.kappa import kafka, preprocessor
from pipelines_under_test.kappa.preprocessor import Preprocessor


class HopefulSink(kafka.Sink):
    overrides: ClassVar[Mapping[str, object]] = {"acks": "0", "enable.idempotence": False}


class HopefulPreprocessor(Preprocessor):
    sink_kind = HopefulSink


def main() -> int:
    return preprocessor.main(HopefulPreprocessor)


if __name__ == "__main__":
    sys.exit(main())
