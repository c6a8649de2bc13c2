"""Mutant: deduplication remembers in memory only.

The bug: which events were counted is known to the process that counted them and to nobody else. As long as it lives it
deduplicates for ever; after a restart everything that is delivered again is counted again.

In the wild: a `set()` or an LRU cache of seen ids in the consumer; a Bloom filter that is not part of the checkpoint;
deduplication per replica behind a balancer.
"""

from __future__ import annotations

import sys
import threading
import uuid

from pipelines_under_test.kappa import aggregator, events
from pipelines_under_test.kappa.subscription import PubsubRecord

#: UUID -> what the event is counted as. One a process, as in `blind_increment`.
_counted_as: dict[str, str] = {}
_lock = threading.Lock()


class DecodeFromMemory(aggregator.Decode):
    def uuid(self, event: events.Event, message: PubsubRecord) -> str:
        given = super().uuid(event, message)
        with _lock:
            return _counted_as.setdefault(given, str(uuid.uuid4()))


def main() -> int:
    return aggregator.main(decode=DecodeFromMemory)


if __name__ == "__main__":
    from pipelines_under_test.mutants import dedup_in_memory

    sys.exit(dedup_in_memory.main())
