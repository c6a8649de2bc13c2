"""Whatever is planted is found, and nothing else: no_loss and duplicate_rate against random sets of defects."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saved_run import World

from assertions.content import Content
from assertions.duplicate_rate import DuplicateRate
from assertions.no_loss import NoLoss
from load.profiles import Steady

SMALL = Steady(rate=50, seconds=6, tweets=12, share_late=0.02, share_poison=0.03, share_twins=0.05)
EVENTS = SMALL.events
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

places = st.sets(st.integers(0, EVENTS - 1), max_size=20)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """A fresh folder each time it is asked: hypothesis runs many examples in one test."""
    return (tmp_path / str(i) for i in itertools.count())


@PROPERTY
@given(seed=st.integers(0, 50), users=st.integers(1, 3), at_hop=places, at_sink=places, poison=places)
def test_exactly_the_lost_events_are_found(
    folders: Iterator[Path], seed: int, users: int, at_hop: set[int], at_sink: set[int], poison: set[int]
) -> None:
    world = World(profile=SMALL, seed=seed, users=users)
    at_hop = {p for p in at_hop if not world.poison[p]}
    at_sink = {p for p in at_sink if not world.poison[p]}
    poison = {p for p in poison if world.poison[p]}
    world.lose("published", *at_hop).lose("aggregates", *at_sink)
    world.copies["dead-letters"][list(poison)] = 0
    finding = NoLoss().check(world.save(next(folders)))

    assert (finding.verdict == "violation") == bool(at_hop or at_sink or poison)
    assert finding.verdict != "inconclusive"
    assert finding.figures["hops"]["published"]["missing"] == len(at_hop)
    assert finding.figures["hops"]["intermediate"]["missing"] == 0
    assert finding.figures["sink"]["short_events"] == len(at_hop | at_sink)
    assert finding.figures["sink"]["masked_cells"] == 0
    assert finding.figures["poison"]["missing"] == len(poison)
    shown = {e["event"] for e in finding.examples if "lost_at" in e}
    assert shown <= {world.event_id(p) for p in at_hop}
    assert bool(shown) == bool(at_hop)


@PROPERTY
@given(
    seed=st.integers(0, 50),
    users=st.integers(1, 3),
    at_hop=st.dictionaries(st.integers(0, EVENTS - 1), st.integers(1, 4), max_size=20),
    at_sink=st.dictionaries(st.integers(0, EVENTS - 1), st.integers(1, 3), max_size=20),
)
def test_exactly_the_doubled_events_are_found(
    folders: Iterator[Path], seed: int, users: int, at_hop: dict[int, int], at_sink: dict[int, int]
) -> None:
    world = World(profile=SMALL, seed=seed, users=users)
    at_hop = {p: n for p, n in at_hop.items() if not world.poison[p]}
    at_sink = {p: n for p, n in at_sink.items() if not world.poison[p]}
    for planted, hop in ((at_hop, "published"), (at_sink, "aggregates")):
        for place, times in planted.items():
            world.copies[hop][place] += times
    run = world.save(next(folders))

    hop = DuplicateRate("published").check(run)
    assert (hop.verdict == "violation") == bool(at_hop)
    assert hop.figures["extra"] == sum(at_hop.values())
    assert hop.figures["doubled"] == len(at_hop)
    assert {e["event"]: e["copies"] - 1 for e in hop.examples} == {world.event_id(p): n for p, n in at_hop.items()}
    sink = DuplicateRate("aggregates").check(run)
    assert (sink.verdict == "violation") == bool(at_sink)
    assert sink.figures["extra"] == sum(at_sink.values())
    loss = NoLoss().check(run)  # a duplicate is no loss
    assert loss.verdict == ("inconclusive" if loss.figures["sink"]["undecided_cells"] else "pass")
    if len(at_sink) < 3:
        assert loss.verdict == "pass"


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
@given(
    seed=st.integers(0, 50),
    outcomes=st.dictionaries(st.integers(0, EVENTS - 1), st.sampled_from("e?"), max_size=30),
    arrived=places,
)
def test_ambiguous_events_must_arrive_just_if_they_are_in_the_log(
    folders: Iterator[Path], seed: int, outcomes: dict[int, str], arrived: set[int]
) -> None:
    world = World(profile=SMALL, seed=seed)
    for place, outcome in outcomes.items():
        world.outcome[place] = outcome
    absent = [p for p in outcomes if p not in arrived]
    for copies in world.copies.values():
        copies[absent] = 0
    run = world.save(next(folders))
    settled = run.settled()
    assert np.flatnonzero(settled.ambiguous_absent).tolist() == sorted(absent)
    for finding in (NoLoss().check(run), DuplicateRate("aggregates").check(run), Content().check(run)):
        assert finding.verdict == "pass"


@PROPERTY
@given(
    seed=st.integers(0, 50),
    altered=st.dictionaries(
        st.integers(0, EVENTS - 1), st.sampled_from(["tweet_id", "weight", "event_time_ms"]), max_size=20
    ),
)
def test_exactly_the_altered_events_are_found(folders: Iterator[Path], seed: int, altered: dict[int, str]) -> None:
    world = World(profile=SMALL, seed=seed)
    altered = {p: f for p, f in altered.items() if not world.poison[p]}
    for place, name in altered.items():
        world.altered.append(("intermediate", place, name, int(world.content[name][place]) + 1))
    finding = Content().check(world.save(next(folders)))
    assert (finding.verdict == "violation") == bool(altered)
    assert {(e["event"], e["field"]) for e in finding.examples} == {(world.event_id(p), f) for p, f in altered.items()}
