"""Mutant: a cut-off that is a minute too late.

The bug: the batch job takes what came up to 65 s after its window instead of 5 s. Its counts look better for it, nearer
to the stream's, and are not what the batch is said to hold: two answers to one question, by when the job happened to
run.

In the wild: session windows that let late events into the next session instead of dropping them; a grace period given
in the wrong unit, or to the watermark and again to the window.
"""

from __future__ import annotations

import sys

from pipelines_under_test.legacy import batch

TOO_LATE_MS = 60_000


class LaxBatch(batch.Batch):
    def __init__(self) -> None:
        super().__init__()
        self.late_after_ms += TOO_LATE_MS

    def ready_until(self, closed_ms: int) -> int:
        return batch.covered_until(closed_ms, self.late_after_ms - TOO_LATE_MS)


def main() -> int:
    return batch.main(LaxBatch)


if __name__ == "__main__":
    sys.exit(main())
