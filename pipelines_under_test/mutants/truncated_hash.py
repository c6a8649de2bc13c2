"""Mutant: a hash cut to twelve bits.

The bug: to save room, deduplication goes by the first twelve bits of the UUID. Two of some hundred events of one
tweet in one moment then have the same name now and then, and the second of them is not counted.

In the wild: 32-bit hashes as document ids of log events; Python's `hash()` of a SHA-256; short ids that were long
enough for the test data.
"""

from __future__ import annotations

import sys
import uuid

from pipelines_under_test.kappa import converter, events
from pipelines_under_test.kappa.converter import Converter

BITS = 12


class TruncatingConverter(Converter):
    def uuid(self, event: events.Event) -> str:
        return str(uuid.UUID(int=uuid.UUID(super().uuid(event)).int >> (128 - BITS)))


def main() -> int:
    return converter.main(TruncatingConverter)


if __name__ == "__main__":
    sys.exit(main())
