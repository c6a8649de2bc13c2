"""Draining: waiting until everything that must arrive has arrived, and nothing else is on its way.

By progress, never by sleep. It has drained when all that must arrive is seen at the last hop, *and* every consumer
group's lag is 0, *and* nothing has moved at any hop for longer than the pipeline's `max_quiet_s`. The third is what
catches a pipeline without deduplication: what a killed worker held leased is delivered again only after the deadline,
when all has long been seen. The quiet starts over with every restart and every fault that is healed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.history import History
from harness.services.base import PolledTap, SinkTap, Tap
from harness.stack import Stack
from harness.supervisor import Supervisor
from harness.topology import Pipeline

#: Liveness: so long may nothing move while something is still missing or unread.
STUCK_AFTER_S = 60.0
#: And so long may all of it take, moving or not.
CAP_S = 600.0
#: When nothing has moved for so long there is no backlog that somebody works at.
AT_REST_S = 1.0
#: Until nothing has moved for so long, what the groups have left to read is asked once a second, and then all the time.
ASKED_AFTER_S = 0.2
#: A worker that died of a fault may have one more start before it that fails: the longest back-off of the supervisor.
SETTLED_AFTER_S = 6.0


def until_drained(
    pipeline: Pipeline,
    stack: Stack,
    supervisor: Supervisor,
    taps: Mapping[str, Tap],
    names: Mapping[str, str],
    history: History,
    plan: Any,
) -> str:
    """Returns and records the reason that ended it.

    "drained"      all three conditions hold
    "quiet"        nothing has moved for twice `max_quiet_s` and every lag is 0, but something is missing: it is not
                   coming any more; the assertions say what is lost
    "stuck"        nothing has moved for 60 s and a lag is left, or a worker is not running, or the sink cannot be read
    "crash-loop"   a worker dies again and again
    "cap"          600 s are over
    """
    begin = time.monotonic()
    path = {hop.name for hop in pipeline.hops if hop.role in ("path", "export")}
    polled = {name: tap for name, tap in taps.items() if isinstance(tap, PolledTap)}
    lags: dict[str, int | None] = {}
    moved = begin  # healing counts as a movement
    restarts = _starts(history)
    told = 0.0
    missing: dict[str, int] = {}
    while True:
        if stack.check():  # what ended meanwhile is known only now, and what follows from it is to come
            moved = time.monotonic()
        # Before the rest, so that a reading which ends meanwhile is not taken for one that has shown nothing new.
        known = {name: tap.known_until() for name, tap in polled.items()}
        still = max(moved, *(tap.last_moved() for tap in taps.values()))
        quiet = time.monotonic() - still
        if _starts(history) != restarts:
            restarts, moved = _starts(history), time.monotonic()
            continue
        telling = time.monotonic() - told > 1
        # While things move, asking takes time from a pipeline that needs it.
        if telling or quiet > min(ASKED_AFTER_S, pipeline.max_quiet_s):
            now_lags = _lags(pipeline, stack, names)
            if now_lags != lags:
                lags, moved = now_lags, time.monotonic()
                still, quiet = moved, 0.0
                for group, lag in lags.items():
                    history.add("lag", group=group, lag=lag)
        if quiet > pipeline.max_quiet_s or telling:
            missing = _missing(pipeline, taps, plan)
            # What taps put off takes time from a pipeline that still has a backlog. A sink comes last, and is waited for.
            through = not any(lags.values())
            if quiet > AT_REST_S or (through and not any(missing.values())):
                for tap in taps.values():
                    tap.hurry()
            elif through and not any(missing.get(hop) for hop in path):
                for tap in polled.values():
                    tap.hurry()
        down = supervisor.down()
        # A sink shows what it held when a reading began; one that began in the quiet's beginning says nothing of its end.
        unread = {name: tap for name, tap in polled.items() if known[name] < still + pipeline.max_quiet_s}
        if quiet > pipeline.max_quiet_s:
            for tap in unread.values():
                tap.look_again()
        read_up = all(lag == 0 for lag in lags.values()) and not down and not unread
        reason = ""
        if quiet > pipeline.max_quiet_s and read_up and not any(missing.values()):
            reason = "drained"
        elif supervisor.crash_loop(since=begin + SETTLED_AFTER_S) is not None:
            reason = "crash-loop"
        elif quiet > 2 * pipeline.max_quiet_s and read_up:
            reason = "quiet"
        elif quiet > max(STUCK_AFTER_S, 2 * pipeline.max_quiet_s):
            reason = "stuck"
        elif time.monotonic() - begin > CAP_S:
            reason = "cap"
        if reason:
            waited = round(time.monotonic() - begin, 3)
            history.add(
                "drain-end",
                reason=reason,
                waited_s=waited,
                missing={hop: n for hop, n in missing.items() if n},
                lags=lags,
                down=down,
                unread=list(unread),
                unstartable=supervisor.unstartable(),
                crashing=supervisor.crash_loop(since=begin),
            )
            return reason
        if telling:
            told = time.monotonic()
            history.show(
                {
                    "t": history.clock.now(),
                    "kind": "draining",
                    "quiet_s": round(quiet, 1),
                    "missing": missing,
                    "lags": lags,
                }
            )
        time.sleep(0.1)


def _starts(history: History) -> int:
    kinds = ("worker-start", "worker-exit", "service-start", "fault-end")
    return sum(r["kind"] in kinds for r in list(history.records))


def _lags(pipeline: Pipeline, stack: Stack, names: Mapping[str, str]) -> dict[str, int | None]:
    """What each consumer group has left to read; None where it is not known, which is not 0."""
    lags: dict[str, int | None] = {}
    for worker, hop in pipeline.group_readers():
        server: Any = stack.servers[hop.service]
        # Workers may share a group and read different topics.
        named = worker.group if worker.group not in lags else f"{worker.group} on {hop.topic}"
        lags[named] = server.lag(names[worker.group], names[hop.topic])
    return lags


def _missing(pipeline: Pipeline, taps: Mapping[str, Tap], plan: Any) -> dict[str, int]:
    """How many of the events in the source log have not been seen at each hop yet, poison aside.

    A first answer for the wait only; the assertions judge by the saved run. At the sink, where only counts are seen, a
    doubled event can stand for a missing one: then the quiet is what is waited for, as it is anyway. An export is behind
    until it holds as much.
    """
    from load.events import is_poison

    source: Any = taps[pipeline.source.name]
    by_producer = source.events_by_producer()
    poison = 0
    for producer, sequences in by_producer.items():
        if producer > 0:
            poison += int(np.count_nonzero(is_poison(plan, producer, np.array(sequences, dtype=np.int64))))
    due = sum(len(s) for p, s in by_producer.items() if p > 0) - poison
    missing = {}
    for hop in pipeline.hops:
        counts = isinstance(taps[hop.name], SinkTap)
        if hop.role == "path" or (hop.role == "export" and not counts):
            missing[hop.name] = max(0, due - taps[hop.name].distinct())
        elif hop.role == "sink" or (hop.role == "export" and counts):
            missing[hop.name] = max(0, due + len(by_producer.get(0, ())) - taps[hop.name].distinct())
    return missing
