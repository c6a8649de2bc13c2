"""What the cycles of a soak come to together: its trends, its books, its verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assertions.base import worst
from harness.soak.drift import LEAST_CYCLES, Drift, drift, drift_in_a_life
from harness.soak.state import NO_EVENTS, Cut, Cycle, State

#: Drift is judged in a soak of so many cycles or more.
ENOUGH_CYCLES = math.ceil(LEAST_CYCLES / 0.75)


#: Below so much, in a measure's own unit, its growth is the machine's grain: by how its name begins.
_GRAIN = {
    "latency": 1.0,
    "longest recovery": 2.0,
    "time to drain": 5.0,
    "lag": 2_000.0,
    "memory": 20.0,
    "open files": 10.0,
    "disk": 500.0,
}


def drifts(cycles: Sequence[Cycle]) -> list[Drift]:
    """Every measure's trend over the cycles."""
    names = dict.fromkeys(name for cycle in cycles for name in cycle.figures)
    workers = {worker for cycle in cycles for worker in cycle.lives}
    found = []
    for name in names:
        values = [math.nan if (v := cycle.figures.get(name)) is None else v for cycle in cycles]
        # 0.0: of a measure that another version of the harness has written down.
        least = next((grain for begins, grain in _GRAIN.items() if name.startswith(begins)), 0.0)
        found.append(drift(name, values, least))
        whose = name.rpartition(" (")[0] or name
        worker = next((w for w in workers if whose.endswith(f" of {w}")), None)
        if worker is not None:
            lives = [cycle.lives.get(worker) for cycle in cycles]
            found.append(drift_in_a_life(f"growth within a life: {name}", values, lives, least))
    return found


def _summed(some: Sequence[Cycle | Cut]) -> dict[str, int]:
    return {key: sum(one.events.get(key, 0) for one in some) for key in NO_EVENTS}


def _unjudged(state: State) -> dict[str, int]:
    """Events that were acknowledged and of which nothing is claimed: of attempts that were tried again, and of those that
    were cut off. With `events.acked` they are all that the soak has sent and seen acknowledged."""
    last = {id(cycle) for cycle in state.judged}
    again = [cycle for cycle in state.cycles if id(cycle) not in last]
    unsaid = [cut for cut in state.cut if not cut.verdict]
    return {"tried_again": _summed(again)["acked"], "cut_off": _summed(unsaid)["acked"]}


def _accounted(state: State) -> dict[str, Any]:
    """Whether every event that was ever acknowledged was judged once, or is counted among those of which nothing is claimed.

    Events bear the tag of their run, so none belongs to two; a run that stood here twice would count its events twice.
    """
    said: list[Cycle | Cut] = [cycle for cycle in state.judged if cycle.verdict != "inconclusive"]
    said += [cut for cut in state.cut if cut.verdict]
    unsaid = [cycle for cycle in state.judged if cycle.verdict == "inconclusive"]
    figures = {
        "acked": _summed([*state.cycles, *state.cut])["acked"],
        "judged": sum(one.judged or 0 for one in said),
        "could_not_say": _summed(unsaid)["acked"],
        **_unjudged(state),
    }
    runs = [Path(run).name for run in state.runs()]  # a soak's folder may have been moved
    wrong = [
        f"of {_named(one)} {one.events.get('acked', 0):,} events were acknowledged, and {one.judged or 0:,} judged"
        for one in said
        if one.judged != one.events.get("acked", 0)
    ]
    wrong += [f"{run} stands there {runs.count(run)} times" for run in dict.fromkeys(runs) if runs.count(run) > 1]
    told = f"each of {figures['judged']:,} acknowledged events was judged once"
    rest = figures["could_not_say"] + figures["tried_again"] + figures["cut_off"]
    told += (
        f"; of {rest:,} more nothing is claimed ({figures['cut_off']:,} were cut off with the harness)" if rest else ""
    )
    return {
        "assertion": "accounted",
        "verdict": "inconclusive" if wrong else "pass",
        "summary": "; ".join(wrong[:5]) or told,
        "figures": figures,
        "examples": [],
    }


def _at_work(state: State) -> dict[str, Any]:
    """Whether the pipeline still worked whenever a cycle was to begin: nothing was broken then, and nothing left to do."""
    return {
        "assertion": "at_work",
        "verdict": "violation" if state.idle else "pass",
        "summary": state.idle or "the pipeline was at work whenever a cycle began",
        "figures": {"cycles": len(state.judged)},
        "examples": [{"run": state.cut[-1].run}] if state.idle and state.cut else [],
    }


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more measures" if len(names) > most else "")


def _named(one: Cycle | Cut) -> str:
    return f"cycle {one.number}" if isinstance(one, Cycle) else f"what was cut off in {Path(one.run).name}"


def summary(state: State, folder: Path) -> dict[str, Any]:
    """The soak's verdict: the worst of its cycles (of each the last attempt) and of the trends.

    A soak of fewer than `ENOUGH_CYCLES` claims nothing of trends.
    """
    judged = state.judged
    trends = drifts(judged)
    growing = [d for d in trends if d.verdict == "drifts"]
    said_of_cut = [cut for cut in state.cut if cut.verdict]
    verdicts: list[Any] = [*(cycle.verdict for cycle in judged), *(cut.verdict for cut in said_of_cut)]
    claimed = len(judged) >= ENOUGH_CYCLES
    # A pipeline may show no latency, and a soak may need no recovery; but every process has memory and files.
    blind = [d.measure for d in trends if d.verdict == "too few" and d.measure.startswith(("memory", "open files"))]
    drifting = "pass" if not claimed else "violation" if growing else "inconclusive" if blind else "pass"
    accounted, at_work = _accounted(state), _at_work(state)
    verdicts += [drifting] if claimed else []
    verdicts += [accounted["verdict"]] if judged else []
    verdicts += [at_work["verdict"]] if judged or state.idle else []
    events = _summed([*judged, *said_of_cut])
    count = {verdict: sum(c.verdict == verdict for c in judged) for verdict in ("pass", "violation", "inconclusive")}
    unsure = [d.measure for d in trends if d.verdict == "too few"]
    told = f"no trend in {len(trends) - len(unsure)} measures over {len(judged)} cycles"
    told += f"; nothing is claimed of {_some(unsure)}: too few cycles show it" if unsure else ""
    if growing:
        told = "; ".join(
            f"{d.measure} grows by {d.a_cycle:.3g} a cycle, from {d.first:.4g} to {d.last:.4g}" for d in growing
        )
    elif claimed and blind:
        told = f"cannot say: {', '.join(blind)} could not be measured in enough cycles"
    elif not claimed:
        told = f"nothing is claimed of trends: {len(judged)} cycles, {ENOUGH_CYCLES} are needed"
    finding = {
        "assertion": "drift",
        "verdict": drifting,
        "summary": told,
        "figures": {"claimed": claimed, "measures": [d.to_json() for d in trends]},
        "examples": [d.to_json() for d in growing],
    }
    return {
        "verdict": worst(verdicts),
        "soak": str(folder),
        "pipeline": state.asked.pipeline,
        "scenario": state.asked.scenario,
        "seed": state.asked.seed,
        "hours": round(state.spent_s / 3600, 4),
        "events": events,
        "faults": sum(cycle.faults for cycle in judged),
        "counts": count,
        "findings": [finding, accounted, at_work],
        "cycles": [asdict(cycle) for cycle in state.cycles],
        "cut": [asdict(cut) for cut in state.cut],
        "unjudged": _unjudged(state),
    }
