"""Mutant: a producer that trusts the word of the leader alone.

The bug: with `acks=1` a record counts as delivered when the leader of its partition has it. The preprocessor commits on
the strength of that. When that broker dies before the others have copied the record, one of them leads on without it.

In the wild: `acks=1` was the default of Kafka's producer until 3.0 (KIP-679), and still is that of many other clients.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import ClassVar

from pipelines_under_test.kappa import kafka, preprocessor
from pipelines_under_test.kappa.preprocessor import Preprocessor


class TrustingSink(kafka.Sink):
    overrides: ClassVar[Mapping[str, object]] = {"acks": "1", "enable.idempotence": False}


class TrustingPreprocessor(Preprocessor):
    sink_kind = TrustingSink


def main() -> int:
    return preprocessor.main(TrustingPreprocessor)


if __name__ == "__main__":
    sys.exit(main())
