"""The assertions against runs whose every defect is known: whatever is planted is found, and nothing else.

Hypothesis plants any mixture of losses, duplicates, alterations, ambiguities and trouble in a small run. An oracle that
shares no code with the assertions (plain loops and dictionaries over what was planted) says what each of them must find.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from saved_run import T0_MS, World

from assertions import registry
from assertions.batch_parity import BatchParity
from assertions.content import Content
from assertions.drained import Drained
from assertions.duplicate_rate import DuplicateRate
from assertions.faults_effective import FaultsEffective
from assertions.judge import judge
from assertions.latency import Latency
from assertions.no_loss import NoLoss
from assertions.recovery import Recovery
from faults.base import Evidence
from harness.store import CELL, FaultWindow, SavedRun
from load.profiles import Steady

SMALL = Steady(rate=40, seconds=5, tweets=10, share_late=0.02, share_poison=0.04, share_twins=0.05)
EVENTS = SMALL.events
LATE_AFTER_S = 5.0
PROPERTY = settings(max_examples=25, suppress_health_check=list(HealthCheck), phases=set(Phase) - {Phase.explain})
PATH, SINK, DEAD = ("intermediate", "published"), "aggregates", "dead-letters"
WITH_IDS = ("source", *PATH)

#: What may be wrong with a sound event.
SOUND = (
    *(f"lost {hop}" for hop in (*PATH, SINK)),
    *(f"doubled {hop}" for hop in (*WITH_IDS, SINK)),
    *(f"altered {hop}" for hop in PATH),
    *(f"unread {hop}" for hop in PATH),
    "dead-lettered",  # and arrived
    "in the wrong cell",
    "ambiguous, present",
    "ambiguous, absent",
    "ambiguous, absent, arrived",
    "acked, absent",
    "acked, absent, arrived",
    "failed",
    "failed, present",
    "never intended",
)
#: And with a poison record.
POISON = ("lost", "acked, absent", "ambiguous, absent")
WRONG_KEY = "4242|like"


@dataclass
class Planted:
    """A world and what was done to it, by place."""

    world: World
    kinds: dict[int, str]

    def at(self, *kinds: str) -> list[int]:
        return sorted(place for place, kind in self.kinds.items() if kind in kinds)


@st.composite
def planted(draw: st.DrawFn) -> Planted:
    world = World(profile=SMALL, seed=draw(st.integers(0, 30)), users=draw(st.integers(1, 2)))
    chosen = draw(st.dictionaries(st.integers(0, EVENTS - 1), st.integers(0, 10_000), max_size=14))
    kinds = {p: (POISON if world.poison[p] else SOUND)[n % (len(POISON) if world.poison[p] else len(SOUND))] for p, n in chosen.items()}  # fmt: skip
    found = Planted(world, kinds)
    for place, kind in kinds.items():
        plant(world, place, kind)
    moved = found.at("in the wrong cell")
    world.edit_cells = lambda frame: pl.concat([frame, wrong_cells(world, moved, frame.schema)]) if moved else frame
    world.uncertified = dict.fromkeys(
        draw(st.sets(st.sampled_from([*WITH_IDS, SINK, DEAD]), max_size=1)), "two readings differ"
    )
    return found


def plant(world: World, place: int, kind: str) -> None:
    what, _, hop = kind.partition(" ")
    poison = world.poison[place]
    if what == "lost":
        if poison:
            world.copies[DEAD][place] = 0
        else:
            world.lose(hop, place)
    elif what == "doubled":
        world.copies[hop][place] += further_copies(place)
    elif what == "altered":
        world.altered.append((hop, place, "weight", int(world.content["weight"][place]) + 1))
    elif what == "unread":
        world.altered.append((hop, place, "content_read", False))
    elif kind == "dead-lettered":
        world.copies[DEAD][place] = 1
    elif kind == "in the wrong cell":
        world.copies[SINK][place] = 0
    else:
        outcome = {"ambiguous": "e", "acked": "a", "failed": "f", "never": "-"}[what.rstrip(",")]
        world.outcome[place] = outcome
        if "present" not in kind:
            world.copies["source"][place] = 0
            if "arrived" not in kind:
                for copies in world.copies.values():
                    copies[place] = 0


def further_copies(place: int) -> int:
    """How often an event that is doubled stands there besides."""
    return 1 + place % 3


def wrong_cells(world: World, places: Sequence[int], schema: Any) -> pl.DataFrame:
    """Where the events that were moved are counted: cells of a tweet and an author that do not exist."""
    rows = [
        {**dict(zip(CELL, (dimension, WRONG_KEY, window_s, start), strict=True)), "count": 1, "weight": weight}
        for place in places
        for (dimension, _, window_s, start), weight, _ in cells_of(world, place)
    ]
    frame = pl.DataFrame(rows, schema=schema)
    return frame.group_by(CELL).agg(pl.col("count").sum(), pl.col("weight").sum()).select(frame.columns)


# ------------------------------------------------------------------------------------------------------- the oracle


def cells_of(world: World, place: int) -> list[tuple[tuple[str, str, int, int], int, bool]]:
    """(cell, weight, late) for each of the four cells of an event."""
    e = world.content.row(place, named=True)
    found = []
    for dimension, windows in (("tweet", (10, 60)), ("author", (10, 60))):
        for window_s in windows:
            start = e["event_time_ms"] // (window_s * 1000) * window_s * 1000
            late = e["created_ms"] - (start + window_s * 1000) > LATE_AFTER_S * 1000
            found.append(((dimension, f"{e[f'{dimension}_id']}|{e['engagement']}", window_s, start), e["weight"], late))
    return found


@dataclass
class Cell:
    expected: int = 0
    expected_weight: int = 0
    late: int = 0
    late_weight: int = 0
    counted: int = 0
    counted_weight: int = 0
    undecided: bool = False
    #: whether an event is missing in it, or one is counted that does not belong there
    wrong: bool = False

    @property
    def excess(self) -> int:
        return self.counted - self.expected

    @property
    def residue(self) -> int:
        return self.counted_weight - self.expected_weight


class Oracle:
    """What must be found in a planted run, by loops over its events."""

    def __init__(self, found: Planted) -> None:
        self.planted, self.world = found, found.world
        world = found.world
        source = world.copies["source"]
        self.must = {p for p in range(EVENTS) if source[p] and not world.poison[p]}
        self.acked_absent = {p for p in range(EVENTS) if world.outcome[p] == "a" and not source[p]}
        self.cells: dict[tuple[str, str, int, int], Cell] = {}
        self.bearers: dict[tuple[str, str, int, int], set[int]] = {}
        for place in range(EVENTS):
            for key, weight, late in cells_of(world, place):
                self.bearers.setdefault(key, set()).add(weight)
                if world.poison[place]:
                    continue  # it counts nowhere, whatever became of it
                times = int(world.copies[SINK][place])
                if place not in self.must and not times and place not in self.acked_absent:
                    continue
                cell = self.cells.setdefault(key, Cell())
                cell.counted += times
                cell.counted_weight += times * weight
                if place in self.must:
                    cell.expected += 1
                    cell.expected_weight += weight
                    cell.late += late
                    cell.late_weight += late * weight
                cell.undecided |= place in self.acked_absent
                cell.wrong |= (place in self.must) != (times > 0)
        for place in found.at("in the wrong cell"):
            for (dimension, _, window_s, start), weight, _ in cells_of(world, place):
                cell = self.cells.setdefault((dimension, WRONG_KEY, window_s, start), Cell())
                cell.counted += 1
                cell.counted_weight += weight
                cell.wrong = True
        # A cell in which there is nothing, and should be nothing, is none.
        self.cells = {key: cell for key, cell in self.cells.items() if cell.counted or cell.expected}

    def uncertified(self, *hops: str) -> bool:
        return any(hop in self.world.uncertified for hop in hops)

    def most_of_any_group(self, amounts: dict[tuple[str, str, int, int], int]) -> int:
        sums: Counter[tuple[str, int]] = Counter()
        for (dimension, _, window_s, _), amount in amounts.items():
            sums[dimension, window_s] += amount
        return max(sums.values(), default=0)

    @property
    def short(self) -> dict[tuple[str, str, int, int], int]:
        return {key: -cell.excess for key, cell in self.cells.items() if cell.excess < 0}

    @property
    def too_high(self) -> dict[tuple[str, str, int, int], int]:
        return {key: cell.excess for key, cell in self.cells.items() if cell.excess > 0 and not cell.undecided}

    @property
    def masked(self) -> int:
        return sum(c.excess == 0 and c.residue != 0 and not c.undecided for c in self.cells.values())

    @property
    def hiding(self) -> int:
        """Cells that count too much and are wrong beside it: those that may be called unexplained."""
        return sum(self.cells[key].wrong for key in self.too_high)

    @property
    def unexplained(self) -> int:
        """Those of them that show it by the range of their residue; a search among the weights may find more."""
        weights = self.world.content["weight"].to_list()
        least, most = min(weights), max(weights)
        count = 0
        for key, excess in self.too_high.items():
            residue = self.cells[key].residue
            if excess == 1:
                count += residue not in self.bearers.get(key, set())
            else:
                count += not least * excess <= residue <= most * excess
        return count


def worst(violations: Sequence[bool], inconclusive: Sequence[bool]) -> str:
    return "violation" if any(violations) else "inconclusive" if any(inconclusive) else "pass"


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """A fresh folder each time it is asked: hypothesis runs many examples in one test."""
    return (tmp_path / str(i) for i in itertools.count())


# ------------------------------------------------------------------------------------------------- what came out


@PROPERTY
@given(found=planted())
def test_no_loss_finds_exactly_the_lost(folders: Iterator[Path], found: Planted) -> None:
    oracle, world = Oracle(found), found.world
    finding = NoLoss().check(world.save(next(folders)))
    missing = {hop: {p for p in oracle.must if not world.copies[hop][p]} for hop in PATH}
    wrongly = {p for p in oracle.must if world.copies[DEAD][p]}
    poison = {p for p in range(EVENTS) if world.poison[p] and world.copies["source"][p]}
    poison_gone = {p for p in poison if not world.copies[DEAD][p]}

    figures = finding.figures
    assert figures["must_arrive"] == len(oracle.must)
    assert figures["lost"] == len(set().union(*missing.values()) | wrongly)
    for hop in PATH:
        certified = not oracle.uncertified(hop)
        told = {"events": len(oracle.must) - len(missing[hop]), "missing": len(missing[hop]), "certified": certified}
        assert figures["hops"][hop] == told
    sink = dict(figures["sink"])
    unexplained, undecided = sink.pop("unexplained_cells"), sink.pop("undecided_cells")
    assert unexplained <= oracle.hiding, "no cell of duplicates alone is called wrong"
    assert unexplained + undecided >= oracle.unexplained
    assert sink == {
        "certified": not oracle.uncertified(SINK),
        "cells": len(oracle.cells),
        "short_cells": len(oracle.short),
        "short_events": oracle.most_of_any_group(oracle.short),
        "masked_cells": oracle.masked,
    }
    assert figures["poison"] == {
        "planted": len(poison),
        "dead_lettered": len(poison - poison_gone),
        "missing": len(poison_gone),
        "wrongly_dead_lettered": len(wrongly),
    }
    proven = [bool(missing[hop]) and not oracle.uncertified(hop, "source") for hop in PATH]
    at_sink = bool(oracle.short or oracle.masked or unexplained)
    proven += [at_sink and not oracle.uncertified(SINK, "source")]
    proven += [bool(wrongly or poison_gone) and not oracle.uncertified(DEAD, "source")]
    assert finding.verdict == worst(proven, [bool(world.uncertified or undecided)])
    lost = {e["event"]: e for e in finding.examples if "lost_at" in e}
    assert set(lost) <= {world.event_id(p) for p in set().union(*missing.values())}
    for place in found.at(*(f"lost {hop}" for hop in PATH)):
        if world.event_id(place) in lost:
            assert lost[world.event_id(place)]["lost_at"] == found.kinds[place].removeprefix("lost ")


@PROPERTY
@given(found=planted(), hop=st.sampled_from(WITH_IDS), most=st.sampled_from([0.0, 0.01, 0.03]))
def test_duplicate_rate_finds_exactly_the_doubled(
    folders: Iterator[Path], found: Planted, hop: str, most: float
) -> None:
    oracle, world = Oracle(found), found.world
    finding = DuplicateRate(hop, most=most).check(world.save(next(folders)))
    doubled = found.at(f"doubled {hop}")
    events = int((world.copies[hop] > 0).sum())
    assert finding.figures["events"] == events
    extra = sum(map(further_copies, doubled))
    assert finding.figures["messages"] == events + extra
    assert (finding.figures["extra"], finding.figures["doubled"]) == (extra, len(doubled))
    assert {e["event"]: e["copies"] - 1 for e in finding.examples} == {
        world.event_id(p): further_copies(p) for p in doubled
    }
    assert finding.verdict == worst([extra / events > most and not oracle.uncertified(hop)], [oracle.uncertified(hop)])


@PROPERTY
@given(found=planted(), most=st.sampled_from([0.0, 0.01, 0.03]))
def test_duplicate_rate_at_the_sink_finds_exactly_the_surplus(
    folders: Iterator[Path], found: Planted, most: float
) -> None:
    oracle, world = Oracle(found), found.world
    finding = DuplicateRate(SINK, most=most).check(world.save(next(folders)))
    extra = oracle.most_of_any_group(oracle.too_high)
    undecided = [c for c in oracle.cells.values() if c.excess > 0 and c.undecided]
    hidden = [c for c in oracle.cells.values() if c.excess == 0 and c.residue != 0]
    assert finding.figures["extra"] == extra
    assert finding.figures["events"] == len(oracle.must)
    assert finding.figures["cells"] == len(oracle.cells)
    assert finding.figures["cells_too_high"] == len(oracle.too_high)
    assert finding.figures["undecided_cells"] == len(undecided)
    unsure = oracle.uncertified(SINK, "source")
    assert finding.verdict == worst(
        [extra / len(oracle.must) > most and not unsure], [unsure, bool(undecided), bool(hidden)]
    )
    shown = {tuple(e[name] for name in CELL) for e in finding.examples}
    assert shown <= set(oracle.too_high)
    assert len(shown) == min(32, len(oracle.too_high))


@PROPERTY
@given(seed=st.integers(0, 50), changes=st.dictionaries(st.integers(0, EVENTS - 1), st.integers(-1, 2), max_size=12))
def test_no_mixture_of_losses_and_duplicates_at_the_sink_passes_both(
    folders: Iterator[Path], seed: int, changes: dict[int, int]
) -> None:
    """Whatever cells the lost and the doubled share: together the two assertions never call it a pass, and a loss alone
    or a duplicate alone is never called the other."""
    world = World(profile=SMALL, seed=seed)
    changes = {p: n for p, n in changes.items() if n and not world.poison[p]}
    for place, n in changes.items():
        world.copies["aggregates"][place] += n
    run = world.save(next(folders))
    finding = NoLoss().check(run)
    loss, twice = finding.verdict, DuplicateRate("aggregates").check(run).verdict
    # The sink shows sums only: one of two twins lost and the other doubled is the same as nothing at all.
    cells = world.counted().equals(World(profile=SMALL, seed=seed).counted())
    assert (loss == "violation" or twice == "violation") == (not cells)
    if changes and min(changes.values()) > 0:
        clear = "inconclusive" if finding.figures["sink"]["undecided_cells"] else "pass"
        assert (loss, twice) == (clear, "violation")
    if changes and max(changes.values()) < 0:
        assert (loss, twice) == ("violation", "pass")


@PROPERTY
@given(found=planted())
def test_content_finds_exactly_the_altered_and_the_strange(folders: Iterator[Path], found: Planted) -> None:
    oracle, world = Oracle(found), found.world
    finding = Content().check(world.save(next(folders)))
    violations, unsure = [], [bool(world.uncertified.keys() - {SINK})]
    for hop in (*PATH, DEAD):
        copies = world.copies[hop]
        here = [p for p in range(EVENTS) for _ in range(copies[p])]
        nowhere = sum(not world.copies["source"][p] and p not in oracle.acked_absent for p in here)
        altered = sum(bool(copies[p]) for p in found.at(f"altered {hop}"))
        unread = sum(bool(copies[p]) for p in found.at(f"unread {hop}"))
        figures = finding.figures["hops"][hop]
        assert figures["messages"] == len(here)
        assert figures["altered"] == altered
        assert figures["unreadable_content"] == unread
        assert figures["not_in_source_log"] == nowhere
        assert (figures["unreadable_ids"], figures["unknown_ids"]) == (0, 0)
        assert figures["compared"] == (0 if hop == DEAD else sum(not world.poison[p] for p in here) - unread)
        violations.append(bool(altered or unread or nowhere) and not oracle.uncertified(hop, "source"))
        unsure.append(any(p in oracle.acked_absent for p in here))
    assert finding.verdict == worst(violations, unsure)
    assert {(e["hop"], e["event"]) for e in finding.examples if e["problem"] == "altered"} == {
        (hop, world.event_id(p)) for hop in PATH for p in found.at(f"altered {hop}") if world.copies[hop][p]
    }


@PROPERTY
@given(found=planted(), gone=st.sets(st.integers(0, 30), max_size=2), least=st.sampled_from([0.0, 0.9, 1.0]))
def test_batch_parity_finds_exactly_the_wrong_cells(
    folders: Iterator[Path], found: Planted, gone: set[int], least: float
) -> None:
    oracle, world = Oracle(found), found.world
    rows = world.batch_cells().filter(pl.col("key") != "").sort(CELL)
    warm = set(World(profile=SMALL, seed=world.seed, users=world.users).batch_cells().select(CELL).rows()) - set(
        oracle.cells
    )
    ours = [row for row in rows.select(CELL).rows() if row not in warm and row in oracle.cells]
    dropped = {ours[i] for i in gone if i < len(ours)}
    world.edit_batch = lambda frame: frame.filter(
        ~pl.struct(CELL).map_elements(lambda c: tuple(c.values()) in dropped, return_dtype=pl.Boolean)
    )
    finding = BatchParity(least=least).check(world.save(next(folders)))

    kinds: Counter[str] = Counter()
    for key, cell in oracle.cells.items():
        batch_right = key not in dropped
        stream_right = cell.excess == 0 and cell.residue == 0
        if batch_right and stream_right:
            kinds["explained" if cell.late else "exact"] += 1
        elif cell.undecided:
            kinds["undecided"] += 1
        else:
            kinds["wrong"] += 1
            kinds["wrong_stream"] += not stream_right
            kinds["wrong_batch"] += not batch_right
    total = len(oracle.cells)
    for kind in ("exact", "explained", "wrong", "undecided", "wrong_stream", "wrong_batch"):
        assert finding.figures[kind] == kinds[kind], kind
    assert finding.figures["cells"] == total
    assert finding.figures["parity"] == round(kinds["exact"] / total, 6)
    off = [
        max(abs(e["stream"] - e["expected"]), abs(e["batch"] - (e["expected"] - e["late"]))) for e in finding.examples
    ]
    assert off == sorted(off, reverse=True)
    assert len(off) == min(32, kinds["wrong"])
    unsure = oracle.uncertified("source", SINK)
    too_low = kinds["exact"] / total < least and (kinds["exact"] + kinds["undecided"]) / total < least
    assert finding.verdict == worst(
        [bool(kinds["wrong"] or too_low) and not unsure], [unsure, bool(kinds["undecided"])]
    )


@PROPERTY
@given(found=planted())
def test_the_ledger_is_settled_by_exactly_what_is_in_the_log(folders: Iterator[Path], found: Planted) -> None:
    oracle, world = Oracle(found), found.world
    run = world.save(next(folders))
    findings = {g.name: g.check(run) for g in registry.GUARDS}
    settled, source = findings["ledger_settled"], world.copies["source"]

    def number(outcomes: str, present: bool | None) -> int:
        return sum(world.outcome[p] in outcomes and present in (None, bool(source[p])) for p in range(EVENTS))

    assert {k: settled.figures[k] for k in ("acked", "ambiguous", "failed")} == {
        "acked": number("a", None), "ambiguous": number("e?", None), "failed": number("f", None)
    }  # fmt: skip
    assert settled.figures["acked_but_absent"] == len(oracle.acked_absent)
    assert settled.figures["ambiguous_present"] == number("e", True)
    assert settled.figures["ambiguous_absent"] == number("e", False)
    assert settled.figures["failed_but_present"] == len(found.at("failed, present"))
    assert settled.figures["source_copies"] == sum(map(further_copies, found.at("doubled source")))
    assert settled.figures["must_arrive"] == len(oracle.must)
    unsure = [bool(oracle.acked_absent), bool(found.at("failed, present")), oracle.uncertified("source")]
    assert settled.verdict == worst([], unsure)
    assert {e["event"] for e in settled.examples} == {
        world.event_id(p) for p in oracle.acked_absent | set(found.at("failed, present"))
    }
    taps = findings["taps_complete"]
    assert {e["hop"] for e in taps.examples} == set(world.uncertified)
    assert taps.verdict == worst([], [bool(world.uncertified)])
    load = findings["load_delivered"]
    assert load.figures["share"] == round(number("a", None) / EVENTS, 6)
    assert load.verdict == worst([], [number("a", None) < 0.95 * EVENTS])


# ------------------------------------------------------------------------------------------------- what happened

faults_drawn = st.lists(
    st.tuples(st.sampled_from(["bit", "did not bite", "never healed", "never injected"]), st.integers(0, 4)), max_size=4
)
FAULTY = ("did not bite", "never healed", "never injected")


@PROPERTY
@given(
    schedule=faults_drawn,
    deaths=st.lists(st.tuples(st.sampled_from(["kafka", "pubsub"]), st.booleans()), max_size=4),
    drifts=st.lists(st.sampled_from([0.4, -249.0, 250.0, 251.0, -4000.0]), max_size=3),
    machine=st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=2),
    crashes=st.lists(st.booleans(), max_size=3),
    drain=st.sampled_from(["drained", "quiet", "stuck", "crash-loop", "cap", "interrupted"]),
)
def test_the_guards_and_recovery_tell_exactly_what_happened(
    folders: Iterator[Path],
    schedule: list[tuple[str, int]],
    deaths: list[tuple[str, bool]],
    drifts: list[float],
    machine: list[tuple[int, bool]],
    crashes: list[bool],
    drain: str,
) -> None:
    world = World(profile=SMALL, seed=3)
    for i, (what, at) in enumerate(schedule):
        world.fault("kill", f"w{i}", at, None if what == "never healed" else at + 0.5, bites=what == "bit")
        if what == "never injected":
            world.events = [e for e in world.events if e.get("index") != i]
    for i, (service, asked) in enumerate(deaths):
        world.happen("service-exit", at=1 + i, service=service, pid=i, status=1, asked=asked)
    for i, asked in enumerate(crashes):
        world.happen("worker-exit", at=1 + i, worker="converter", pid=i, status=1, asked=asked)
    for drift in drifts:
        world.happen("clock", wall_minus_mono_ms_drift=drift)
    for oom_kills, full in machine:
        world.happen("machine", oom_kills=oom_kills, disk_free_bytes=5 if full else 10**9, disk_full=full)
    world.drained = {"reason": drain, "waited_s": 20.0}

    def proof(run: SavedRun, window: FaultWindow) -> Evidence:
        return Evidence(bool(window.at_start["bites"]), "as planted", {})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faults.evidence.evidence_of", proof)
        judged = judge(world.save(next(folders)))
    findings = {f["assertion"]: f for f in judged["findings"]}

    effective, planned = findings["faults_effective"], [what for what, _ in schedule]
    assert effective["figures"] == {
        "scheduled": len(planned),
        "injected": len(planned) - planned.count("never injected"),
        "bit": planned.count("bit"),
    }
    assert [e["target"] for e in sorted(effective["examples"], key=lambda e: e["target"])] == [
        f"w{i}" for i, what in enumerate(planned) if what in FAULTY
    ]
    assert effective["verdict"] == worst([], [what in FAULTY for what in planned])
    assert Counter(f["bit"] for f in judged["faults"])[True] == planned.count("bit")

    unasked = Counter(service for service, asked in deaths if not asked)
    assert findings["services_alive"]["figures"]["deaths"] == dict(unasked)
    assert findings["services_alive"]["verdict"] == worst([], [bool(unasked)])
    assert len(findings["services_alive"]["examples"]) == unasked.total()

    assert abs(findings["clock_steady"]["figures"]["drift_ms"]) == max(map(abs, [0.4, *drifts]))
    assert findings["clock_steady"]["verdict"] == worst([], [abs(drift) > 250 for drift in drifts])

    kills = max([0, *(oom_kills for oom_kills, _ in machine)])
    full = any(full for _, full in machine)
    assert findings["machine_healthy"]["figures"]["oom_kills"] == kills
    assert findings["machine_healthy"]["figures"]["disk_full"] == full
    assert findings["machine_healthy"]["verdict"] == worst([], [bool(kills), full])

    assert findings["drained"]["verdict"] == worst([], [drain not in ("drained", "quiet")])
    run = world.save(next(folders))
    recovery = Recovery().check(run)
    assert recovery.figures["crashes"] == crashes.count(False)
    stood = drain in ("stuck", "crash-loop", "cap")
    assert recovery.verdict == worst([stood], [drain == "interrupted", "never healed" in planned])
    assert sum(e["problem"] == "a worker died" for e in recovery.examples) == stood * crashes.count(False)
    told = judged["verdict"], [f["verdict"] for f in judged["findings"]]
    assert told[0] == ("inconclusive" if "inconclusive" in told[1] else "pass")  # no guard is ever a violation
    assert Drained().check(run).figures == {"reason": drain, "waited_s": 20.0}


@PROPERTY
@given(
    slow=st.dictionaries(st.integers(0, EVENTS - 1), st.sampled_from([3.0, 8.0, 20.0]), max_size=8),
    unseen=st.sets(st.integers(0, EVENTS - 1), max_size=5),
    bound=st.sampled_from([None, 1.0, 5.0, 12.0]),
)
def test_latency_ranks_exactly_the_slow(
    folders: Iterator[Path], slow: dict[int, float], unseen: set[int], bound: float | None
) -> None:
    world = World(profile=SMALL, seed=5)
    unseen = {p for p in unseen if not world.poison[p]}
    world.delay[SINK][list(slow)] = list(slow.values())
    world.lose(SINK, *unseen)
    finding = Latency(p99_most_s=bound).check(world.save(next(folders)))
    took = sorted(world.delay[SINK][p] for p in range(EVENTS) if not world.poison[p] and p not in unseen)

    def rank(values: Sequence[float], percent: int) -> float:
        return sorted(values)[math.ceil(len(values) * percent / 100) - 1]

    for percent in (50, 95, 99):
        assert finding.figures[f"p{percent}_s"] == pytest.approx(rank(took, percent), abs=1e-3)
    assert finding.figures["max_s"] == pytest.approx(took[-1], abs=1e-3)
    assert (finding.figures["events"], finding.figures["missing"]) == (len(took), len(unseen))
    at_best = rank([*took, *[0.0] * len(unseen)], 99)
    at_worst = rank([*took, *[math.inf] * len(unseen)], 99)
    assert finding.verdict == worst([bound is not None and at_best > bound], [bound is not None and at_worst > bound])
    slowest = max(slow, key=lambda p: (slow[p] if p in slow and not world.poison[p] and p not in unseen else 0, -p), default=None)  # fmt: skip
    if slowest is not None and not world.poison[slowest] and slowest not in unseen:
        assert finding.examples[0]["latency_s"] == pytest.approx(slow[slowest], abs=1e-3)


@PROPERTY
@given(
    start=st.sampled_from([2.0, 3.0, 4.0]),
    lasts=st.sampled_from([0.5, 1.0, 2.0]),
    lag=st.sampled_from([0.0, 0.7, 1.5, 3.0]),
    bound=st.sampled_from([None, 1.0, 2.0]),
)
def test_recovery_measures_exactly_the_outage(
    folders: Iterator[Path], start: float, lasts: float, lag: float, bound: float | None
) -> None:
    """Nothing is seen from a fault's start until some time after it was healed; then all at once, then on time."""
    world = World(profile=Steady(rate=40, seconds=12, tweets=10), seed=5)
    world.fault("kill", "converter", start, start + lasts)
    due = world.due_s - T0_MS / 1000
    back = start + lasts + lag
    held = (due >= start) & (due < back)
    world.delay[SINK] = np.where(held, back - due, 0.02)
    finding = Recovery(most_s=bound).check(world.save(next(folders)))
    (told,) = finding.figures["faults"]
    assert told["recovered_s"] == pytest.approx(lag, abs=0.1)
    assert (told["start_s"], told["end_s"], told["disturbed"]) == (start, start + lasts, [])
    assert finding.verdict == worst([bound is not None and lag > bound], [])
    assert finding.figures["longest_gap_s"] >= max(0.0, lag - 0.1)
    slow = [e for e in finding.examples if e.get("recovered_s") is not None]
    assert len(slow) == (bound is not None and lag > bound)


def test_every_assertion_is_checked_here() -> None:
    """One that is added to the registry must be planted against, too."""
    checked = {NoLoss, DuplicateRate, Content, BatchParity, Latency, Recovery, FaultsEffective, Drained}
    guards = {"load_delivered", "ledger_settled", "taps_complete", "services_alive", "clock_steady", "machine_healthy"}
    by_example = {"warehouse_duplicates", "warehouse_parity"}  # tests/unit/test_assertion_warehouse.py
    assert {kind.name for kind in checked} | guards | by_example == set(registry.ASSERTIONS)
