"""Mutant: deduplication by a key that the release is a part of.

The bug: the key under which an event is remembered begins with the release of the worker that counts it, so that a
release that counts otherwise begins with a clean slate. Restarts change nothing. But an event that one release has
counted and that is delivered again to another is counted twice: after an upgrade, after a rollback, or while both work
side by side.

In the wild: cache keys with the version of the program in them; event ids that the next release derives in another way.
"""

from __future__ import annotations

import sys

from pipelines_under_test.kappa import aggregator, events
from pipelines_under_test.kappa.subscription import PubsubRecord
from pipelines_under_test.kappa.worker import setting


class DecodeByRelease(aggregator.Decode):
    def uuid(self, event: events.Event, message: PubsubRecord) -> str:
        return events.uuid_of(f"{setting('RELEASE', '1')}/{super().uuid(event, message)}")


def main() -> int:
    return aggregator.main(decode=DecodeByRelease)


if __name__ == "__main__":
    from pipelines_under_test.mutants import dedup_by_release

    sys.exit(dedup_by_release.main())
