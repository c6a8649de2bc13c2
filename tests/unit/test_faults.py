"""A fault is a value; its proof that it bit is a pure function of what was recorded, and fails for want of any mark."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest
from served import served

from faults import (
    FAULTS,
    Fault,
    bandwidth,
    black_hole,
    fault_from_dict,
    kill,
    kill_broker,
    kill_service,
    latency,
    lose_acks,
    partition,
    pause,
    redeliver,
    reset_connections,
    terminate,
    throttle,
    upgrade,
)
from faults.evidence import evidence_of, idle_rate
from harness.errors import HarnessFault
from harness.scenario import schedule
from harness.store import WORK, FaultWindow, NotObserved
from harness.topology import Redis, UsageError
from pipelines_under_test.kappa.pipeline import kappa

LINK = "converter->pubsub"
START, END = 110.0, 113.0
LOAD_END, COLLECT = 120.0, 140.0


@dataclasses.dataclass
class Observed:
    """A saved run's recorded part, as far as faults read it."""

    links: pl.DataFrame
    history: list[dict[str, Any]]
    arrivals: list[float]

    meta: Any = dataclasses.field(
        default_factory=lambda: {
            "pipeline": {
                "links": [
                    {"name": "converter->kafka", "worker": "converter", "service": "kafka"},
                    {"name": LINK, "worker": "converter", "service": "pubsub"},
                ],
                "workers": [{"name": "converter", "reads": "intermediate"}],
                "services": [{"name": "kafka", "processes": ["kafka"]}, {"name": "pubsub", "processes": ["pubsub"]}],
            }
        }
    )

    #: samples of workers without a link
    work: pl.DataFrame = dataclasses.field(default_factory=lambda: pl.DataFrame(schema=WORK))

    #: the other faults of the run
    others: list[FaultWindow] = dataclasses.field(default_factory=list)

    def faults(self) -> list[FaultWindow]:
        return self.others

    def hop(self, name: str) -> pl.DataFrame:
        at = [t * 1000 for t in self.arrivals]
        frame = pl.DataFrame(
            {"seen_ms": at, "created_ms": at}, schema={"seen_ms": pl.Float64, "created_ms": pl.Float64}
        )
        return frame.with_columns(created_ms=pl.col("created_ms").cast(pl.Int64))


def recorded(
    *,
    rate: float = 100_000,
    during: tuple[float, float] = (0, 0),
    connections_during: int = 0,
    closed: int = 1,
    idle: float = 0,
    history: list[dict[str, Any]] | None = None,
    arrivals: list[float] | None = None,
    end: float = END,
    serves: bool = False,
    opens: tuple[float, ...] = (),
) -> Observed:
    """Links at `rate` bytes a second each way until the load ends, except in the fault's window."""
    rows = []
    requests = responses = 0.0
    opened, closed_now = 1, 0
    t = 100.0
    while t <= COLLECT:
        inside = START < t <= end
        loaded = t <= LOAD_END
        requests += 0.2 * (during[0] if inside else rate if loaded else idle)
        responses += 0.2 * (during[1] if inside else rate if loaded else idle)
        if inside and closed_now == 0:
            closed_now = closed
        if t > end and closed and opened == 1:
            opened = 1 + closed
        connected = connections_during if inside else 1
        for link in ("converter->kafka", LINK):
            more = sum(at < t for at in opens)
            rows.append((t, link, connected, opened + more, closed_now, int(requests), int(responses)))
        t = round(t + 0.2, 3)
    links = pl.DataFrame(rows, ["t", "link", "connections", "opened", "closed", "requests", "responses"], orient="row")
    always: list[dict[str, Any]] = [
        {"t": LOAD_END, "kind": "load-end"},
        {"t": COLLECT, "kind": "stage", "stage": "collect"},
        {"t": COLLECT, "kind": "tap", "hop": "published", "figures": {"bytes_a_message": 1000.0}},
    ]
    seen = [100 + i * 0.01 for i in range(2000)] if arrivals is None else arrivals
    made = Observed(links, (history or []) + always, seen)
    made.meta["pipeline"]["workers"][0] |= {"serves": True} if serves else {}
    return made


def window(fault: str, target: str = LINK, end: float = END, **seen: Any) -> FaultWindow:
    return FaultWindow(0, fault, target, START, end, {}, seen)


KILLED = {"killed": {"converter": {"pid": 1, "started": 90.0}}}
KILL_HISTORY = [
    {"t": START + 0.01, "kind": "worker-exit", "worker": "converter", "pid": 1, "status": -9},
    {"t": START + 0.3, "kind": "worker-start", "worker": "converter", "pid": 2},
]
CUT = {"links": [LINK], "answered": {LINK: False}}
HOLE = {"links": [LINK], "eaten_before": {LINK: {"upstream": 0}}, "eaten_after": {LINK: {"upstream": 900}}}
SLOW = {"links": [LINK], "ms": 200, "probe_before_s": {LINK: 0.001}, "probe_during_s": {LINK: 0.202}}
EATEN = {
    "links": [LINK],
    "eaten_before": {LINK: {"downstream": 5}},
    "eaten_after": {LINK: {"downstream": 90}},
    "pulses": 7,
}
STOPPED = {"states": {"converter": "stopped"}}
BROKER = {"killed": {"kafka": {"pid": 1, "status": -9}}, "back": {"kafka": {"pid": 2}}}
SOUGHT = {"sought": {"aggregator": {"back_s": 5.0, "hop": "published", "links": [LINK]}}}

#: Of a worker that answers for a hop: it answered in the beginning, did not for a moment, and did again.
ASKED = [
    {"t": 95.0, "told": 95.01, "kind": "worker-back", "worker": "converter"},
    {"t": START - 0.01, "told": START + 0.02, "kind": "worker-away", "worker": "converter"},
    {"t": COLLECT, "kind": "worker-watch", "worker": "converter", "asked": 300, "missed": 4},
]
OUT_OF_MEMORY = [{**KILL_HISTORY[0], "oom_killed": True}, KILL_HISTORY[1]]
OFF = {"connected": {"converter": False}}
THROTTLED = {"throttled_before": {"converter": 4}, "throttled_after": {"converter": 25}}

THERE = {
    "began": START,
    "version": "v2",
    "new_pid": 2,
    "ready": 110.5,
    "pid": 1,
    "until": 112.6,
    "killed": False,
    "over": 112.7,
}
BACK = {
    "began": 115.0,
    "version": "",
    "new_pid": 3,
    "ready": 115.5,
    "pid": 2,
    "until": 117.6,
    "killed": False,
    "over": 117.7,
}
UPGRADED = {"to": "v2", "forth": {"converter": THERE}, "back": {"converter": BACK}, "replaced": {"converter": [1, 2]}}
_START = {"kind": "worker-start", "worker": "converter"}
_EXIT = {"kind": "worker-exit", "worker": "converter", "status": 0, "asked": True}
UPGRADE_HISTORY = [
    {**_START, "t": 90.0, "pid": 1},
    {**_START, "t": START + 0.1, "pid": 2, "version": "v2"},
    {**_EXIT, "t": 112.65, "pid": 1},
    {**_START, "t": 115.1, "pid": 3},
    {**_EXIT, "t": 117.65, "pid": 2, "version": "v2"},
]
OPENED = {"end": START, "closed": 0, "opens": (START + 0.5, 115.5)}


def upgraded(way: str = "forth", *more: dict[str, Any], but: int | None = None, **changed: Any) -> tuple[Any, ...]:
    """(fault, what it observed, what was recorded) with something changed on one way, and other records."""
    seen = {**UPGRADED, way: {"converter": {**UPGRADED[way]["converter"], **changed}}}  # type: ignore[dict-item]
    kept = [record for i, record in enumerate(UPGRADE_HISTORY) if i != but]
    return "upgrade", seen, {"history": sorted([*kept, *more], key=lambda r: r["t"]), **OPENED}


_CRASH = {**_EXIT, "asked": False, "status": 3, "version": "v2", "pid": 2}
_NEVER_UP = {k: v for k, v in THERE.items() if k in ("began", "version")}

#: fault, what it observed, what was recorded: each bit.
BITTEN: dict[str, tuple[str, Mapping[str, Any], dict[str, Any]]] = {
    "kill": ("kill", KILLED, {"history": KILL_HISTORY}),
    "terminate": ("terminate", KILLED, {"history": [{**KILL_HISTORY[0], "status": 0}, KILL_HISTORY[1]]}),
    "kill_broker": ("kill_broker", BROKER, {}),
    "kill_service": ("kill_service", BROKER, {}),
    "kill: one that answers": ("kill", KILLED, {"history": KILL_HISTORY + ASKED, "rate": 0, "serves": True}),
    "pause": ("pause", STOPPED, {"connections_during": 1}),
    "upgrade": upgraded(),  # type: ignore[dict-item]
    "disconnect": ("disconnect", OFF, {"connections_during": 1}),
    "throttle": ("throttle", THROTTLED, {"during": (5_000, 5_000)}),
    "out_of_memory": ("out_of_memory", KILLED, {"history": OUT_OF_MEMORY}),
    "partition": ("partition", CUT, {}),
    "black_hole": ("black_hole", HOLE, {"during": (500, 0), "connections_during": 1}),
    "latency": ("latency", SLOW, {"during": (50_000, 50_000), "connections_during": 1}),
    "bandwidth": ("bandwidth", {"links": [LINK], "kb_per_s": 50}, {"during": (50_000, 9), "connections_during": 1}),
    "reset_connections": ("reset_connections", {"links": [LINK]}, {"during": (50_000, 9)}),
    "lose_acks": ("lose_acks", EATEN, {"during": (50_000, 9)}),
    "redeliver": ("redeliver", SOUGHT, {"during": (100_000, 300_000), "connections_during": 1}),
}

#: The same, with one mark of the proof taken away: none may be taken as bitten.
NOT_BITTEN: dict[str, tuple[str, Mapping[str, Any], dict[str, Any], str]] = {
    "kill: the process lives on": ("kill", KILLED, {"history": KILL_HISTORY[1:]}, "ended by the signal"),
    "kill: it ended by itself": (
        "kill",
        KILLED,
        {"history": [{**KILL_HISTORY[0], "status": 1}, KILL_HISTORY[1]]},
        "by the signal",
    ),
    "kill: not started again": ("kill", KILLED, {"history": KILL_HISTORY[:1]}, "started again"),
    "kill: idle": ("kill", KILLED, {"history": KILL_HISTORY, "rate": 0}, "at work"),
    "kill: nothing waited": ("kill", KILLED, {"history": KILL_HISTORY, "arrivals": []}, "0 messages waited"),
    "kill: no process": ("kill", {"killed": {}}, {}, "no process"),
    "terminate: it had to be killed": ("terminate", KILLED, {"history": KILL_HISTORY}, "on request"),
    "broker: same pid": ("kill_broker", {**BROKER, "back": {"kafka": {"pid": 1}}}, {}, "another pid"),
    "broker: ended otherwise": ("kill_broker", {**BROKER, "killed": {"kafka": {"pid": 1, "status": 0}}}, {}, "signal"),
    "broker: connections stayed": ("kill_broker", BROKER, {"connections_during": 1}, "0 links lost"),
    "broker: idle": ("kill_broker", BROKER, {"rate": 0}, "at work"),
    "service: same pid": ("kill_service", {**BROKER, "back": {"kafka": {"pid": 1}}}, {}, "another pid"),
    "service: ended otherwise": (
        "kill_service",
        {**BROKER, "killed": {"kafka": {"pid": 1, "status": 0}}},
        {},
        "by the signal",
    ),
    "service: connections stayed": ("kill_service", BROKER, {"connections_during": 1}, "0 links lost"),
    "service: idle": ("kill_service", BROKER, {"rate": 0}, "at work"),
    "service: no process": ("kill_service", {"killed": {}}, {}, "no process"),
    "kill: one that answers, and did not before": (
        "kill",
        KILLED,
        {"history": [*KILL_HISTORY, {**ASKED[1], "t": START - 0.1, "told": START - 0.09}, *ASKED], "serves": True},
        "at work",
    ),
    "kill: one that answers, and had been asked in vain for a while": (
        "kill",
        KILLED,
        {"history": [*KILL_HISTORY, ASKED[0], {**ASKED[1], "t": START - 0.6}, ASKED[2]], "serves": True},
        "at work",
    ),
    "kill: one that answers, whom nobody asked": (
        "kill",
        KILLED,
        {"history": [*KILL_HISTORY, *ASKED[:2]], "serves": True},
        "at work",
    ),
    "kill: one that answers, and did all along": (
        "kill",
        KILLED,
        {"history": [*KILL_HISTORY, ASKED[0], ASKED[2]], "serves": True},
        "did not answer",
    ),
    "pause: it ran on": ("pause", {"states": {"converter": "sleeping"}}, {"connections_during": 1}, "sleeping"),
    "pause: it sent": ("pause", STOPPED, {"during": (500, 0)}, "while stopped"),
    "pause: idle": ("pause", STOPPED, {"rate": 0}, "at work"),
    "pause: nothing waited": ("pause", STOPPED, {"arrivals": []}, "0 messages waited"),
    "disconnect: still on": (
        "disconnect",
        {"connected": {"converter": True}},
        {"connections_during": 1},
        "off its network",
    ),
    "disconnect: it sent": ("disconnect", OFF, {"during": (500, 0)}, "bytes came from"),
    "disconnect: idle": ("disconnect", OFF, {"rate": 0}, "at work"),
    "disconnect: nothing waited": ("disconnect", OFF, {"arrivals": []}, "0 messages waited"),
    "disconnect: no container": ("disconnect", {}, {}, "no container"),
    "throttle: enough for it": (
        "throttle",
        {**THROTTLED, "throttled_after": {"converter": 5}},
        {},
        "wait in 1 periods",
    ),
    "throttle: idle": ("throttle", THROTTLED, {"rate": 0}, "at work"),
    "throttle: no container": ("throttle", {}, {}, "no container"),
    "out of memory: it crashed": ("out_of_memory", KILLED, {"history": KILL_HISTORY}, "want of memory"),
    "out of memory: it lives on": ("out_of_memory", KILLED, {"history": OUT_OF_MEMORY[1:]}, "want of memory"),
    "out of memory: not started again": ("out_of_memory", KILLED, {"history": OUT_OF_MEMORY[:1]}, "started again"),
    "out of memory: idle": ("out_of_memory", KILLED, {"history": OUT_OF_MEMORY, "rate": 0}, "at work"),
    "out of memory: nothing waited": (
        "out_of_memory",
        KILLED,
        {"history": OUT_OF_MEMORY, "arrivals": []},
        "0 messages waited",
    ),
    "out of memory: no container": ("out_of_memory", {}, {}, "no container"),
    "partition: idle": ("partition", CUT, {"rate": 0}, "carrying bytes"),
    "partition: only idle chatter": ("partition", CUT, {"rate": 3000, "idle": 2900}, "carrying bytes"),
    "partition: connections stayed": ("partition", CUT, {"connections_during": 1}, "were cut"),
    "partition: bytes passed": ("partition", CUT, {"during": (0, 40)}, "bytes passed"),
    "partition: it answered": ("partition", {**CUT, "answered": {LINK: True}}, {}, "refused"),
    "black hole: nothing sent": ("black_hole", HOLE, {"during": (0, 0)}, "0 bytes were sent"),
    "black hole: answered": ("black_hole", HOLE, {"during": (500, 50)}, "were answered"),
    "black hole: nothing eaten": (
        "black_hole",
        {**HOLE, "eaten_after": {LINK: {"upstream": 0}}},
        {"during": (500, 0)},
        "swallowed 0",
    ),
    "black hole: idle": ("black_hole", HOLE, {"rate": 0, "during": (500, 0)}, "carrying bytes"),
    "latency: not slower": (
        "latency",
        {**SLOW, "probe_during_s": {LINK: 0.001}},
        {"during": (50_000, 9)},
        "took 0.001",
    ),
    "latency: no probe": ("latency", {**SLOW, "probe_during_s": {}}, {"during": (50_000, 9)}, "took None"),
    "latency: idle": ("latency", SLOW, {}, "carrying bytes"),
    "bandwidth: less was offered": (
        "bandwidth",
        {"links": [LINK], "kb_per_s": 500},
        {"during": (50_000, 9)},
        "more than the limit",
    ),
    "bandwidth: more went through": (
        "bandwidth",
        {"links": [LINK], "kb_per_s": 50},
        {"during": (90_000, 9)},
        "meanwhile",
    ),
    "bandwidth: nothing went through": (
        "bandwidth",
        {"links": [LINK], "kb_per_s": 50},
        {"during": (0, 0)},
        "meanwhile",
    ),
    "reset: none closed": (
        "reset_connections",
        {"links": [LINK]},
        {"during": (50_000, 9), "closed": 0},
        "0 connections were closed",
    ),
    "reset: idle": ("reset_connections", {"links": [LINK]}, {"rate": 0}, "carrying bytes"),
    "lost acks: nothing eaten": (
        "lose_acks",
        {**EATEN, "eaten_after": {LINK: {"downstream": 5}}},
        {"during": (50_000, 9)},
        "0 bytes",
    ),
    "lost acks: idle": ("lose_acks", EATEN, {}, "carrying bytes"),
    "redeliver: nothing extra": ("redeliver", SOUGHT, {"during": (100_000, 100_000)}, "delivered again"),
    "upgrade: nobody was there": ("upgrade", {"to": "v2"}, {}, "no process was there"),
    "upgrade: no such command": (
        "upgrade",
        {**UPGRADED, "forth": {"converter": {"began": START, "error": "no such file"}}, "back": {}},
        {"history": UPGRADE_HISTORY[:1], **OPENED},
        "was started (no such file)",
    ),
    "upgrade: it dies at its start": (
        "upgrade",
        {**UPGRADED, "forth": {"converter": _NEVER_UP}, "back": {}},
        {"history": [UPGRADE_HISTORY[0], {**_CRASH, "t": 112.0}], **OPENED},
        "came up and stayed (deaths: 1, the last with status 3)",
    ),
    "upgrade: it died beside the other": (*upgraded("forth", {**_CRASH, "t": 111.0}), "alive together for 0.5 s of 2"),  # type: ignore[dict-item]
    "upgrade: it died alone": (
        *upgraded("forth", {**_CRASH, "t": 114.0}, {**_START, "t": 114.2, "pid": 7, "version": "v2"}),
        "did not end by itself (deaths: 1",
    ),  # type: ignore[dict-item]
    "upgrade: too short a time together": (*upgraded("forth", until=111.0), "alive together for 0.5 s of 2"),  # type: ignore[dict-item]
    "upgrade: the old one began too late": (
        *upgraded("forth", {**_START, "t": 111.5, "pid": 1}, but=0),
        "alive together for 1.1 s of 2",
    ),  # type: ignore[dict-item]
    "upgrade: the old one lives on": (*upgraded("forth", but=2), "pid 1 ended on request"),  # type: ignore[dict-item]
    "upgrade: the old one ended by itself": (
        *upgraded("forth", {**_EXIT, "t": 112.65, "pid": 1, "asked": False}, but=2),
        "pid 1 ended on request",
    ),  # type: ignore[dict-item]
    "upgrade: the old one came again": (
        *upgraded("forth", {**_START, "t": 114.0, "pid": 9}),
        "then only the new version was left",
    ),  # type: ignore[dict-item]
    "upgrade: it never connected": (*upgraded("forth", ready=None), "the new version of converter connected"),  # type: ignore[dict-item]
    "upgrade: no connection was opened": (
        *upgraded()[:2],
        {**upgraded()[2], "opens": (115.5,)},
        "opened 0 connections",
    ),  # type: ignore[dict-item]
    "upgrade: the new one did nothing": (
        *upgraded()[:2],
        {**upgraded()[2], "end": 115.0, "connections_during": 1, "opens": (START + 0.5, 115.5)},
        "the new version was at work alone",
    ),  # type: ignore[dict-item]
    "upgrade: idle": (*upgraded()[:2], {**upgraded()[2], "rate": 0}, "at work just before"),  # type: ignore[dict-item]
    "upgrade: nothing came in": (*upgraded()[:2], {**upgraded()[2], "arrivals": [99.0]}, "0 messages came in"),  # type: ignore[dict-item]
    "upgrade: no way back": (
        "upgrade",
        {**UPGRADED, "back": {}},
        upgraded()[2],
        "converter was rolled back",
    ),
    "upgrade: the old one never back alone": (*upgraded("back", but=4), "pid 2 ended on request"),  # type: ignore[dict-item]
    "upgrade: the old one not connected": (*upgraded("back", ready=None), "the old version of converter connected"),  # type: ignore[dict-item]
    "redeliver: nothing lay there": (
        "redeliver",
        SOUGHT,
        {"arrivals": [118.0], "during": (9, 900_000)},
        "0 messages lay",
    ),
}


@pytest.mark.parametrize("case", BITTEN)
def test_a_fault_that_bit_can_prove_it(case: str) -> None:
    fault, seen, how = BITTEN[case]
    evidence = evidence_of(recorded(**how), window(fault, **seen))  # type: ignore[arg-type]
    assert evidence.bit, evidence.reason


@pytest.mark.parametrize(("again", "bit"), [(300_000, True), (100_000, False)])
def test_of_several_redeliveries_each_is_measured_by_itself(again: float, bit: bool) -> None:
    """Bytes a message before the first, which no redelivery has swollen; and bytes up to the next."""
    seeks = [dataclasses.replace(window("redeliver", **SOUGHT), start=t, end=t + 0.01) for t in (START - 6, START, END)]
    run = recorded(during=(100_000, again), connections_during=1)
    swollen = [(START - 6, START - 4), (END, END + 2)]  # what the other two brought
    for begin, end in swollen:
        more = (pl.col("t").clip(begin, end) - begin) * 400_000
        run.links = run.links.with_columns(responses=(pl.col("responses") + more).cast(pl.Int64))
    run.others = seeks
    verdicts = [evidence_of(run, seek) for seek in seeks]  # type: ignore[arg-type]
    assert [v.bit for v in verdicts] == [True, bit, True]
    assert verdicts[1].figures["aggregator"]["bytes_a_message"] == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize(
    "case", ["kill", "pause", "out_of_memory", "throttle", "disconnect", "partition", "black_hole"]
)
@pytest.mark.parametrize(("ago", "bit"), [(0.1, False), (0.2, False), (1.0, True)])
def test_what_an_earlier_process_of_the_worker_did_is_no_work_of_this_one(case: str, ago: float, bit: bool) -> None:
    """It was started again `ago` seconds before; the one before it was at work until then."""
    fault, seen, how = BITTEN[case]
    run = recorded(**how)
    run.history.append({"t": START - ago, "kind": "worker-start", "worker": "converter", "pid": 1})
    run.history.append({"t": START - 0.1, "kind": "worker-start", "worker": "preprocessor", "pid": 7})
    evidence = evidence_of(run, window(fault, **seen))  # type: ignore[arg-type]
    assert evidence.bit is bit, evidence.reason


@pytest.mark.parametrize("case", ["kill", "partition"])
def test_a_process_that_had_ended_by_itself_was_not_at_work(case: str) -> None:
    fault, seen, how = BITTEN[case]
    run = recorded(**how)
    run.history.insert(0, {"t": START - 0.4, "kind": "worker-exit", "worker": "converter", "pid": 3, "status": 1})
    evidence = evidence_of(run, window(fault, **seen))  # type: ignore[arg-type]
    assert not evidence.bit
    assert "at work" in evidence.reason or "carrying bytes" in evidence.reason


def test_who_has_only_just_connected_was_not_at_work() -> None:
    run = recorded(rate=5_000, history=KILL_HISTORY)
    assert evidence_of(run, window("kill", **KILLED)).bit  # type: ignore[arg-type]
    run.history.insert(0, {"t": START - 0.7, "kind": "worker-start", "worker": "converter", "pid": 1})
    evidence = evidence_of(run, window("kill", **KILLED))  # type: ignore[arg-type]
    assert (evidence.bit, evidence.reason) == (False, "not proven: converter was at work just before")


def test_one_end_proves_one_fault() -> None:
    run = recorded(history=KILL_HISTORY)
    run.others = [dataclasses.replace(window("kill", **KILLED), index=1, start=START - 0.2)]
    assert "no other fault had ended it" in evidence_of(run, window("kill", **KILLED)).reason  # type: ignore[arg-type]
    run.others = [dataclasses.replace(window("kill", **KILLED), index=1, start=START + 0.2)]
    assert evidence_of(run, window("kill", **KILLED)).bit  # type: ignore[arg-type]
    dead = {"killed": {"converter": {**KILLED["killed"]["converter"], "sent": False}}}
    assert not evidence_of(recorded(history=KILL_HISTORY), window("kill", **dead)).bit  # type: ignore[arg-type]


def test_a_link_that_was_cut_when_it_was_idle_does_not_show_by_that_how_idle_is() -> None:
    """A fault after the load's end: the seconds in which it was in force are quieter than the clients' own chatter."""
    begin, end = LOAD_END + 8, LOAD_END + 14
    run = recorded(idle=4_000)
    quiet = (pl.col("t").clip(begin, end) - begin) * 4_000
    run.links = run.links.with_columns(pl.col("requests", "responses") - quiet.cast(pl.Int64))
    late = dataclasses.replace(window("partition", **CUT), start=begin, end=end)
    run.others = [late]
    assert idle_rate(run, LINK) == pytest.approx(8_000, rel=0.05)  # type: ignore[arg-type]
    assert "carrying bytes" in evidence_of(run, late).reason  # type: ignore[arg-type]
    run.others = [dataclasses.replace(late, start=LOAD_END + 0.2, end=COLLECT)]
    with pytest.raises(NotObserved, match="never seen idle"):
        idle_rate(run, LINK)  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["partition", "bandwidth", "pause"])
def test_a_link_that_was_not_measured_meanwhile_proves_nothing(fault: str) -> None:
    """Sampling that broke off looks like a link that fell silent."""
    _, seen, how = BITTEN[fault]
    run = recorded(**how)
    run.links = run.links.filter(pl.col("t") < START + 0.3)
    with pytest.raises(NotObserved, match="not measured"):
        evidence_of(run, window(fault, **seen))  # type: ignore[arg-type]


def test_what_had_piled_up_behind_a_limit_does_not_count_against_it() -> None:
    """The last sample of the window may be read a moment after the limit is gone, and a socket's buffer may swallow a
    lot at once in the middle of it."""
    run = recorded(during=(50_000, 9), connections_during=1)
    for at in (START + 2, END - 0.1):
        burst = pl.when(pl.col("t") > at).then(pl.col("requests") + 200_000).otherwise(pl.col("requests"))
        run.links = run.links.with_columns(requests=burst)
    evidence = evidence_of(run, window("bandwidth", links=[LINK], kb_per_s=50))  # type: ignore[arg-type]
    assert evidence.bit, evidence.reason


@pytest.mark.parametrize("case", NOT_BITTEN)
def test_a_proof_without_one_of_its_marks_is_none(case: str) -> None:
    fault, seen, how, reason = NOT_BITTEN[case]
    evidence = evidence_of(recorded(**how), window(fault, **seen))  # type: ignore[arg-type]
    assert not evidence.bit
    assert evidence.reason.startswith("not proven: ") or "no " in evidence.reason
    assert reason in evidence.reason


def shifted(run: Observed, responses: float, since: float, until: float) -> Observed:
    """With so many more (or fewer) bytes delivered, evenly between two moments."""
    done = ((pl.col("t") - since) / (until - since)).clip(0, 1)
    run.links = run.links.with_columns(responses=pl.col("responses") + (responses * done).cast(pl.Int64))
    return run


@pytest.mark.parametrize("size", [400, -400])
def test_what_was_late_or_double_before_a_seek_is_no_redelivery(size: int) -> None:
    """400 messages were delivered twice before it; or 400 waited, and came when the worker had caught up after it."""
    run = shifted(recorded(during=(100_000, 100_000), connections_during=1), size * 1000, 105, 109)
    if size < 0:
        run = shifted(run, -size * 1000, START + 0.5, START + 2)
    evidence = evidence_of(run, window("redeliver", **SOUGHT))  # type: ignore[arg-type]
    assert not evidence.bit
    assert abs(evidence.figures["aggregator"]["delivered_again_about"]) < 30


def test_a_redelivery_is_seen_beside_what_was_late_before_it() -> None:
    run = shifted(recorded(during=(100_000, 300_000), connections_during=1), -200_000, 105, 109)
    run = shifted(run, 200_000, START + 1, START + 4)
    assert evidence_of(run, window("redeliver", **SOUGHT)).bit  # type: ignore[arg-type]


def test_a_redelivery_is_seen_though_the_worker_was_away_afterwards() -> None:
    run = shifted(recorded(during=(100_000, 300_000), connections_during=1), -2_000_000, END, END + 8)
    assert evidence_of(run, window("redeliver", **SOUGHT)).bit  # type: ignore[arg-type]


def test_a_redelivery_cannot_be_told_without_the_size_of_a_message() -> None:
    run = recorded(during=(100_000, 300_000))
    run.history = [record for record in run.history if record["kind"] != "tap"]
    with pytest.raises(NotObserved, match="how large messages are"):
        evidence_of(run, window("redeliver", **SOUGHT))  # type: ignore[arg-type]


def test_every_fault_has_both_proofs() -> None:
    assert {f for f, *_ in BITTEN.values()} == set(FAULTS)
    assert {f for f, *_ in NOT_BITTEN.values()} == set(FAULTS)


def test_idle_chatter_is_measured_before_the_workers_are_stopped() -> None:
    """A link that is silent only because its worker was stopped is not "idle at 0 bytes a second"."""
    assert idle_rate(recorded(idle=1000), LINK) == pytest.approx(2000, rel=0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_survives_being_saved(name: str) -> None:
    target = {"worker": "converter", "link": LINK, "service": "kafka", "subscription": "aggregator"}
    fault = FAULTS[name](target[FAULTS[name].acts_on]).at(2.5)
    assert fault_from_dict(fault.as_dict()) == fault
    assert fault_from_dict(fault.even_if_idle().as_dict()) == fault.even_if_idle() != fault
    fault.check(kappa)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (kill("convertor"), "Did you mean 'converter'"),
        (partition("converter->pubsubb"), "Did you mean 'converter->pubsub'"),
        (kill_broker("pubsub"), "keeps everything in memory"),
        (kill_broker("kafkaa"), "Did you mean 'kafka'"),
        (kill_service("bigtable"), "keeps everything in memory"),
        (kill_service("kafkaa"), "Did you mean 'kafka'"),
        (kill_broker("kafka", alone_s=1), "there must be other brokers: Kafka(brokers=3)"),
        (kill_broker("kafka", alone_s=0.1), "at least 0.2 s"),
        (redeliver("agregator"), "Did you mean 'aggregator'"),
        (redeliver("aggregator", back_s=0), "back_s of more than 0"),
        (pause("converter").lasting(0.1), "less than 0.5 s"),
        (upgrade("convertor"), "Did you mean 'converter'"),
        (upgrade("converter").lasting(0.5), "less than 1 s alone"),
        (upgrade("converter", beside_s=0.1), "0.5 s beside the other"),
        (upgrade("converter", to=7), "7 is no version"),  # type: ignore[arg-type]
        (upgrade("converter", to={"environment": {"A": "1"}}), "There is no word of a version 'environment'"),
        (upgrade("converter", to={"env": "A=1"}), "'A=1' is no env of a version of converter"),
        (upgrade("converter", to={"command": []}), "[] is no command of a version of converter"),
        (upgrade("converter", to={"env": {"A-B": "1"}}), "is not WORKER.KEY=VALUE"),
        (upgrade("converter", to={"env": {"A": "{nothing}"}}), "'nothing'"),
        (upgrade("converter", to="kapa"), "Did you mean 'kappa'"),
        (upgrade("converter", to="kappa@no-such-commit"), "There is no commit 'no-such-commit'"),
        (upgrade("converter", to="legacy"), "There is no worker 'converter'"),
        (upgrade("preprocessor", to="module.of.mine:pipeline"), "cannot be imported"),
        (latency(LINK, ms=0), "ms of 1 or more"),
        (bandwidth(LINK, kb_per_s=0), "kb_per_s of 1 or more"),
        (bandwidth(LINK).lasting(1), "less than 2 s"),
        (lose_acks(LINK, pulse_ms=500, every_ms=500), "less than every_ms"),
        (lose_acks(LINK).lasting(0.1), "at least one period"),
        (throttle("converter", cpus=0), "cpus of 0.01 or more"),
        (kill("converter").at(-1), "0 or more seconds"),
        (black_hole("nothing"), "There is no link 'nothing'"),
        (terminate("nothing"), "There is no worker 'nothing'"),
        (reset_connections("nothing"), "The links are: "),
    ],
)
def test_a_fault_that_cannot_be_done_is_a_usage_error(fault: Fault, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        fault.check(kappa)
    assert message in str(raised.value)


def test_unknown_faults_and_parameters_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="Did you mean 'kill'"):
        fault_from_dict({"fault": "kil", "target": "converter", "at": 1, "seconds": 0})
    with pytest.raises(UsageError, match="unexpected keyword"):
        fault_from_dict({"fault": "kill", "target": "converter", "at": 1, "seconds": 0, "params": {"x": 1}})


def test_names_stand_for_every_replica() -> None:
    twice = kappa.replicas(converter=2)
    assert kill("converter").targets(twice) == ["converter-1", "converter-2"]
    assert kill("converter-2").targets(twice) == ["converter-2"]
    assert partition("converter->pubsub").targets(twice) == ["converter-1->pubsub", "converter-2->pubsub"]
    assert partition("aggregator").targets(kappa) == ["aggregator->pubsub", "aggregator->bigtable"]


def test_of_several_brokers_one_is_killed_and_the_others_may_be_paused() -> None:
    thrice = kappa.brokers(kafka=3)
    assert kill_broker("kafka-2").targets(thrice) == ["kafka-2"]
    assert kill_broker("kafka-2", alone_s=1).targets(thrice) == ["kafka-2", "kafka-1", "kafka-3"]
    with pytest.raises(UsageError, match="several processes; name one of kafka-1, kafka-2, kafka-3"):
        kill_broker("kafka").check(thrice)
    with pytest.raises(UsageError, match="Did you mean 'kafka"):
        kill_broker("kafka-4").check(thrice)
    assert kill_service("kafka-2").targets(thrice) == ["kafka-2"]


def test_a_durable_service_is_killed_while_it_is_at_work() -> None:
    assert kill_service("cache").targets(served) == ["cache"]
    assert kill_service("cache").works_on(served) == [["count->cache", "ask->cache"]]
    with pytest.raises(UsageError, match="cache is no Kafka; kill_service kills it"):
        kill_broker("cache").check(served)
    with pytest.raises(UsageError, match="files \\(files\\) has no process"):
        kill_service("files").check(served)
    forgetful = dataclasses.replace(served, services=[*served.services[:1], Redis("cache", durable=False)])
    with pytest.raises(UsageError, match="keeps everything in memory"):
        kill_service("cache").check(forgetful)


class Services:
    """A system that does as it is told, and tells what it was told; the one thing named in `fails` goes wrong."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.told = fails, list[str]()

    def tell(self, what: str) -> None:
        self.told.append(what)
        if what == self.fails:
            raise HarnessFault(what)

    def now(self) -> float:
        return START

    def wait(self, seconds: float) -> bool:
        self.told.append(f"wait {seconds:g}")
        return True

    def signal_service(self, process: str, number: int) -> dict[str, Any]:
        self.tell(f"{signal.Signals(number).name} {process}")
        return {"pid": 7, "state": "stopped"}

    def kill_service(self, process: str) -> dict[str, Any]:
        self.tell(f"kill {process}")
        return {"pid": 1, "status": -9}


@pytest.mark.parametrize("fails", ["", "kill kafka-1", "SIGCONT kafka-2"])
def test_the_fellows_of_a_killed_broker_go_on_whatever_becomes_of_it(fails: str) -> None:
    system = Services(fails)
    fault = kill_broker("kafka-1", alone_s=1)
    with pytest.raises(HarnessFault) if fails else contextlib.nullcontext():
        seen = fault.inject(system, fault.targets(kappa.brokers(kafka=3)))  # type: ignore[arg-type]
        assert seen["killed"] == {"kafka-1": {"pid": 1, "status": -9, "at": START}}
        assert seen["paused"].keys() == {"kafka-2", "kafka-3"}
    stopped = ["SIGSTOP kafka-2", "SIGSTOP kafka-3", "wait 1"]
    assert system.told == [*stopped, "kill kafka-1", "SIGCONT kafka-2", "SIGCONT kafka-3"]


def of_three_brokers(cut: int) -> Observed:
    """A run in which the links to broker `cut` lost their connections for the window, and those to the others did not."""
    run = recorded(connections_during=1)
    proxies = []
    for i in (1, 2, 3):
        gone = pl.col("t").is_between(START, END, closed="right") & (i == cut)
        proxies.append(
            run.links.filter(pl.col("link") == "converter->kafka").with_columns(
                link=pl.lit(f"converter->kafka@{i}"), connections=pl.when(gone).then(0).otherwise(1).cast(pl.Int64)
            )
        )
    meta = {**run.meta["pipeline"], "services": [{"name": "kafka", "processes": ["kafka-1", "kafka-2", "kafka-3"]}]}
    return dataclasses.replace(run, links=pl.concat([run.links, *proxies]), meta={"pipeline": meta})


def test_one_of_several_brokers_is_proven_dead_by_the_links_that_led_to_it() -> None:
    seen = {
        "killed": {"kafka-2": {"pid": 1, "status": -9, "at": START + 0.1}},
        "back": {"kafka-2": {"pid": 2}},
        "paused": {"kafka-1": {"state": "stopped"}, "kafka-3": {"state": "stopped"}},
    }
    evidence = evidence_of(of_three_brokers(cut=2), window("kill_broker", **seen))  # type: ignore[arg-type]
    assert evidence.bit, evidence.reason
    assert evidence.figures["kafka-2"]["links_cut"] == 1
    other = evidence_of(of_three_brokers(cut=1), window("kill_broker", **seen))  # type: ignore[arg-type]
    assert (other.bit, other.reason) == (False, "not proven: 0 links lost their connections")
    seen["paused"]["kafka-3"] = {"state": "sleeping"}
    awake = evidence_of(of_three_brokers(cut=2), window("kill_broker", **seen))  # type: ignore[arg-type]
    assert (awake.bit, awake.reason) == (False, "not proven: the kernel showed kafka-3 as sleeping")


DEAD = {**BROKER, "killed": {"kafka": {"pid": 1, "status": -9, "at": START + 0.1}}}


@pytest.mark.parametrize(("fault", "seen"), [("kill_broker", DEAD), ("partition", CUT)])
def test_that_nobody_looked_is_no_proof_that_connections_were_gone(fault: str, seen: Mapping[str, Any]) -> None:
    """The last measurement before the fault, the next one after it."""
    run = recorded()
    gap = ~pl.col("t").is_between(START + 0.05, END + 0.05)
    with pytest.raises(NotObserved, match="was not measured"):
        evidence_of(dataclasses.replace(run, links=run.links.filter(gap)), window(fault, **seen))  # type: ignore[arg-type]


def test_a_schedule_is_flat_and_in_the_order_of_time() -> None:
    made = schedule(partition(LINK).at(3), kill("converter").at(1).repeated(3, every=2))
    assert [(f.name, f.start) for f in made] == [("kill", 1), ("partition", 3), ("kill", 3), ("kill", 5)]


def test_what_still_flows_while_a_slow_machine_injects_a_fault_is_no_leak() -> None:
    """The proxy was cut half a second after the fault began; the samples before that say nothing against it."""
    late = recorded()
    links = late.links.with_columns(
        connections=pl.when(pl.col("t").is_between(START, START + 0.7)).then(1).otherwise(pl.col("connections"))
    )
    slow = dataclasses.replace(late, links=links)
    assert not evidence_of(slow, window("partition", **CUT)).bit  # type: ignore[arg-type]
    assert evidence_of(slow, window("partition", **CUT, in_force=START + 0.6)).bit  # type: ignore[arg-type]


def without_link(
    *,
    rate: float = 0.6,
    idle: float = 0.01,
    until: float = START,
    pid: int = 1,
    gap: float = 0.0,
    started: float = 90.0,
) -> Observed:
    """A killed batch job that has no link: how much of a processor it used until a moment, and when it was started."""
    ended = {"t": START + 0.01, "kind": "worker-exit", "worker": "job", "pid": 1, "status": -9}
    again = {"t": START + 0.3, "kind": "worker-start", "worker": "job", "pid": 2}
    run = recorded(history=[{"t": started, "kind": "worker-start", "worker": "job", "pid": 1}, ended, again])
    run.meta["pipeline"]["workers"] = [{"name": "job", "reads": ""}]
    times = [round(100 + 0.2 * i, 1) for i in range(int((START - 100) / 0.2))]
    used = [idle * (t - 100) + rate * max(0.0, min(t, until) - (START - 2)) for t in times]
    rows = [(t, "job", pid if t > started else 9, u) for t, u in zip(times, used, strict=True) if t <= START - gap]
    run.work = pl.DataFrame(rows, schema=WORK, orient="row")
    return run


JOB_KILLED = {"killed": {"job": {"pid": 1, "started": 90.0}}}


@pytest.mark.parametrize(
    ("how", "bit"),
    [
        ({}, True),
        ({"rate": 0.0}, False),
        ({"rate": 0.04}, False),
        ({"rate": 0.1}, True),
        ({"rate": 0.1, "idle": 0.1}, False),
        ({"rate": 0.3, "idle": 0.1}, True),
        ({"until": START - 1}, False),
        ({"started": START - 2}, False),
        ({"started": START - 3}, True),
    ],
    ids=[
        "at work",
        "asleep",
        "hardly awake",
        "awake",
        "as awake as ever",
        "more than ever",
        "asleep again",
        "only just started",
        "started a while ago",
    ],
)
def test_a_worker_without_a_link_was_at_work_if_it_used_the_processor(how: dict[str, Any], bit: bool) -> None:
    evidence = evidence_of(without_link(**how), window("kill", "job", **JOB_KILLED))  # type: ignore[arg-type]
    assert evidence.bit is bit, evidence.reason
    assert bit or evidence.reason == "not proven: job was at work just before"


def test_a_worker_without_a_link_that_was_not_measured_proves_nothing() -> None:
    with pytest.raises(NotObserved, match="job was not measured then"):
        evidence_of(without_link(gap=3), window("kill", "job", **JOB_KILLED))  # type: ignore[arg-type]
