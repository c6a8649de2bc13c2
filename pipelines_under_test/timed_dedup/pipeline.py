"""Declares the reference pipeline with another aggregator: the only module here that knows the harness."""

from __future__ import annotations

import dataclasses

from harness.topology import Pipeline
from pipelines_under_test.kappa.pipeline import command, kappa

#: Dataflow keeps ids for ten minutes; here a run must be able to outlast it.
WINDOW_S = 4.0


def timed_dedup(window_s: float = WINDOW_S, name: str = "kappa-timed-dedup") -> Pipeline:
    """The pipeline with a window of so many seconds."""
    workers = [
        dataclasses.replace(
            w, command=command("timed_dedup.aggregator"), env={**w.env, "DEDUP_WINDOW_S": f"{window_s:g}"}
        )
        if w.name == "aggregator"
        else w
        for w in kappa.workers
    ]
    about = f"the reference, but deduplicating in a window of {window_s:g} s, as Dataflow does: nearly exactly once"
    return dataclasses.replace(kappa, name=name, about=about, workers=workers)


kappa_timed_dedup = timed_dedup()
