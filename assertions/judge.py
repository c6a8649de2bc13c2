"""Judges a saved run: the same folder always gets the same answer, whether the run has just ended or long ago.

`judge` is what `gauntlet run` ends with and what `gauntlet check` is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from assertions import registry, verdict
from assertions.base import plain
from assertions.faults_effective import evidence_of
from harness.store import FaultWindow, NotObserved, SavedRun


def judge(run: SavedRun) -> dict[str, Any]:
    """The verdict of a run, as the contract's JSON object shows it.

    Only `timing` differs from one judgement to the next: how long `check` took. Raises UsageError (exit 2) for a
    run.json that names what does not exist, HarnessFault and DamagedRun (exit 4) where there can be no verdict.
    """
    begin = time.perf_counter()
    assertions = registry.of_run(run)
    registry.check_hops(assertions, run.hops)
    found = [verdict.check(assertion, run) for assertion in assertions]
    findings = verdict.expecting(found, run.meta.get("expected") or {})
    return {
        "verdict": verdict.verdict_of(findings),
        "run": str(run.path),
        "pipeline": run.pipeline["name"],
        "scenario": run.meta.get("scenario"),
        "backend": run.meta.get("backend"),
        "seed": run.meta["seed"],
        "events": _events(run),
        "findings": [finding.to_json() for finding in findings],
        "faults": [_fault(run, window) for window in run.faults()],
        "timing": {**_timing(run), "check": round(time.perf_counter() - begin, 3)},
    }


def exit_status(judged: Mapping[str, Any]) -> int:
    """0 pass, 1 violation, 3 inconclusive."""
    return verdict.EXIT_STATUS[judged["verdict"]]


def _events(run: SavedRun) -> dict[str, int | None]:
    try:
        return dict(run.ledger.totals())
    except NotObserved:  # the findings say so
        return dict.fromkeys(("sent", "acked", "ambiguous", "failed"))


def _fault(run: SavedRun, window: FaultWindow) -> dict[str, Any]:
    evidence = evidence_of(run, window)
    return {
        "fault": window.fault,
        "target": window.target,
        "start": round(window.start - run.t0, 3),
        "end": round(window.end - run.t0, 3) if window.healed else None,
        "bit": bool(evidence.bit),
        "evidence": {"reason": evidence.reason, **plain(evidence.figures)},
    }


def _timing(run: SavedRun) -> dict[str, float]:
    """How long each stage took, in seconds, up to the start of the next; what comes after `collect` is told live."""
    spans = {a: round(run.stages[b] - run.stages[a], 3) for a, b in pairwise(run.stages)}
    return {stage.replace("-", "_"): length for stage, length in spans.items() if stage not in ("check", "store")}
