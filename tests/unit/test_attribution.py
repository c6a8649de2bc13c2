"""Attribution: single events planted at known hops are told with the right hop, worker and fault, and in the right words.

`Fire` is a saved run of the whole reference pipeline with faults that hold events back as real ones do: what comes to a
killed worker, or wants over a cut link, is through only after its return.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from saved_run import PARTITIONS, T0_MS, WARMUP_EVENTS, World

from assertions import attribution, duplicate_rate, no_loss
from assertions.attribution import residue, ways
from assertions.base import Finding
from assertions.judge import judge
from harness.store import DamagedRun, NotObserved, RunFolder, SavedRun
from load.profiles import Steady

LOAD = Steady(rate=400, seconds=12, tweets=400, share_late=0.01, share_poison=0.005, share_out_of_order=0.0)
WORKERS: tuple[dict[str, Any], ...] = (
    {"name": "preprocessor", "worker": "preprocessor", "reads": "source", "writes": ["intermediate", "dead-letters"]},
    {"name": "converter", "worker": "converter", "reads": "intermediate", "writes": ["published", "dead-letters"]},
    {"name": "aggregator", "worker": "aggregator", "reads": "published", "writes": ["aggregates"]},
)
LINKS = tuple(
    {"name": f"{worker}->{service}", "worker": worker, "service": service}
    for worker, service in [
        ("load", "kafka"),
        ("preprocessor", "kafka"),
        ("converter", "kafka"),
        ("converter", "pubsub"),
        ("aggregator", "pubsub"),
        ("aggregator", "bigtable"),
    ]
)
#: hop -> (hop before, worker, link on which it writes)
STEPS = {
    "intermediate": ("source", "preprocessor", "preprocessor->kafka"),
    "published": ("intermediate", "converter", "converter->pubsub"),
    "aggregates": ("published", "aggregator", "aggregator->bigtable"),
}
#: How long a killed worker is away, and how long until it has caught up.
DOWN_S, BACK_S = 0.6, 0.8


class Fire(World):
    """A world with a kill of every worker and a fault on every link that is written on, none at the same time."""

    def __init__(self, seed: int = 7, quiet: bool = False) -> None:
        super().__init__(profile=LOAD, seed=seed, workers=WORKERS, links=LINKS)
        self.at: dict[tuple[str, str], float] = {}
        self.pids = itertools.count(100)
        if quiet:
            return
        for number, (hop, (_, worker, link)) in enumerate(STEPS.items()):
            self.kill(worker, hop, 1.0 + 1.5 * number)
            self.cut(link, hop, 6.5 + 1.5 * number)

    def kill(self, worker: str, hop: str, at: float, pid: int | None = None) -> None:
        pid = next(self.pids)
        self.at["kill", hop] = at
        self.fault("kill", worker, at, at + DOWN_S, killed={worker: {"pid": pid}})
        self.happen("worker-exit", at, worker=worker, pid=pid, status=-9, signal=9, asked=True)
        self.happen("worker-start", at + DOWN_S, worker=worker, pid=pid + 1000)
        self.hold(hop, at - 0.02, at + BACK_S)

    def cut(self, link: str, hop: str, at: float, fault: str = "lose_acks") -> None:
        self.at["link", hop] = at
        self.fault(fault, link, at, at + 1.0, links=[link])
        self.hold(hop, at, at + 1.05)

    def hold(self, hop: str, start: float, end: float) -> None:
        """What came to the hop before between these moments is at this one, and at those after it, only from `end` on."""
        before = STEPS[hop][0]
        came = self.due_s + self.delay[before] - T0_MS / 1000
        held = (came >= start) & (came < end)
        for further, name in enumerate(self.after(hop)):
            self.delay[name][held] = (
                end + 0.02 * further + 0.0001 * (came[held] - start) - (self.due_s[held] - T0_MS / 1000)
            )

    def just_at(self, hop: str, second: float, poison: bool = False) -> int:
        """The event that came to a hop last before a moment, in seconds after the load's start."""
        came = self.due_s + self.delay[hop] - T0_MS / 1000
        some = np.flatnonzero((came <= second) & (self.poison == poison))
        return int(some[np.argmax(came[some])])

    def plant(self, kind: str, hop: str, fault: str) -> int:
        """One event lost or doubled on the step to a hop, by a fault on it or without one; the event's place."""
        before = STEPS[hop][0]
        second = {
            "kill": self.at.get(("kill", hop), 0) - 0.005,
            "link": self.at.get(("link", hop), 0) + 0.4,
            "none": 11.3,
        }
        place = self.just_at(before, second[fault])
        if kind == "lost":
            self.lose(hop, place)
            return place
        self.double(hop, place, further=True)
        if fault == "kill":  # written before, and again after the return
            self.delay[hop][place] = self.delay[before][place] + 0.002
            came = self.due_s[place] + self.delay[hop][place] - T0_MS / 1000
            self.again[hop][place] = self.at["kill", hop] + BACK_S - came
        else:
            self.delay[hop][place] = self.delay[before][place] + 0.01
            self.again[hop][place] = 0.2
        for one, another in itertools.pairwise(self.after(hop)):
            self.delay[another][place] = self.delay[one][place] + 0.02
            self.again[another][place] = self.again[one][place]
        return place

    def commit(self, hop: str, start: float = -1.0, until: float = 30.0, lag: float = 0.05, stop: float = 1e9) -> None:
        """Samples of what the worker that reads this hop has committed: all that came `lag` seconds before; from `stop`
        on nothing more."""
        worker = next(w["name"] for w in self.workers if w["reads"] == hop)
        frame = self.records(hop, "kafka").filter(pl.col("producer") >= 0)
        for t in np.arange(start, until, 0.1):
            reached = frame.filter(pl.col("seen_ms") <= T0_MS + 1000 * (min(t, stop) - lag))
            for partition in range(PARTITIONS):
                top = reached.filter(pl.col("partition") == partition)["offset"].max()
                self.commits.append((t - 0.004, t, worker, hop, partition, 0 if top is None else int(top) + 1))  # type: ignore[call-overload]


def classes(run: SavedRun, kind: str, hop: str) -> list[dict[str, Any]]:
    finding = no_loss().check(run) if kind == "lost" else duplicate_rate(hop, most=0).check(run)
    assert "attribution_error" not in finding.figures
    assert finding.verdict == "violation"
    return list(finding.figures["attribution"])


def sentence(finding: Finding) -> str:
    assert finding.verdict != "pass"
    return finding.summary


PLANTED = list(itertools.product(["lost", "doubled"], STEPS, ["kill", "link", "none"], [7, 8]))


@pytest.mark.parametrize(("kind", "hop", "fault", "seed"), PLANTED)
def test_a_planted_event_is_told_with_its_hop_and_its_fault(
    tmp_path: Path, kind: str, hop: str, fault: str, seed: int
) -> None:
    """36 runs with every fault in each, and one event that one of them, or none, did something to."""
    world = Fire(seed)
    place = world.plant(kind, hop, fault)
    run = world.save(tmp_path)
    (found,) = classes(run, kind, hop)
    before, worker, link = STEPS[hop]
    assert (found["kind"], found["events"]) == (kind, 1)
    assert (found["hop_before"], found["hop_after"], found["worker"], found["link"]) == (before, hop, worker, link)
    assert [e["event"] for e in found["examples"]] == [world.event_id(place)]
    wanted = {"kill": [("kill", worker)], "link": [("lose_acks", link)], "none": []}[fault]
    assert [(f["fault"], f["target"]) for f in found["faults"]] == wanted
    if wanted:
        assert found["faults"][0]["start"] == pytest.approx(world.at[fault, hop], abs=0.001)
        assert run.meta["schedule"][found["faults"][0]["index"]]["target"] == wanted[0][1]


@pytest.mark.parametrize("hop", STEPS)
def test_what_is_doubled_on_the_way_is_told_at_the_first_hop_wherever_it_is_found(tmp_path: Path, hop: str) -> None:
    world = Fire()
    world.plant("doubled", hop, "kill")
    run = world.save(tmp_path)
    for later in world.after(hop):
        (found,) = classes(run, "doubled", later)
        assert found["hop_after"] == hop
        assert found["worker"] == STEPS[hop][1]
    assert duplicate_rate("source", most=0).check(run).figures["attribution"] == []


# ---------------------------------------------------------------------------------------------------- the words


def test_lost_in_the_hands_of_a_killed_worker_that_had_committed(tmp_path: Path) -> None:
    world = Fire()
    places = [world.just_at("intermediate", world.at["kill", "published"] - s) for s in (0.005, 0.010, 0.015)]
    world.lose("published", *places)
    world.commit("intermediate", lag=-1.0)  # a second ahead of itself
    finding = no_loss().check(world.save(tmp_path))
    assert (
        "3 events lost between intermediate and published; all were in converter's hands when it was killed at 2.5 s; their "
        "offsets had been committed by then, before they reached published, so intermediate was not read again from there"
    ) in sentence(finding)
    (found,) = finding.figures["attribution"]
    assert (found["class"], found["committed"]) == ("in-hand", 3)


def test_what_came_after_the_end_has_nothing_to_do_with_what_was_committed_before(tmp_path: Path) -> None:
    world = Fire()
    at = world.at["kill", "published"]
    world.lose("published", world.just_at("intermediate", at - 0.005))
    world.commit("intermediate", lag=-1.0)
    world.fault("partition", "converter->pubsub", at + 0.001, at + 0.5)
    (found,) = no_loss().check(world.save(tmp_path)).figures["attribution"]
    assert [(f["fault"], f["target"]) for f in found["faults"]] == [("kill", "converter")]


def test_lost_by_a_killed_worker_that_had_not_committed(tmp_path: Path) -> None:
    world = Fire()
    place = world.plant("lost", "published", "kill")
    world.commit("intermediate", lag=0.5, stop=world.at["kill", "published"])
    finding = no_loss().check(world.save(tmp_path))
    assert (
        "1 event lost between intermediate and published; it had come to intermediate and was not through when converter was "
        "killed at 2.5 s; its offset had not been committed by then, so converter was to read it again and did not pass it on"
    ) in sentence(finding)
    assert finding.figures["attribution"][0]["committed"] == 0
    assert finding.figures["attribution"][0]["examples"][0]["event"] == world.event_id(place)


def test_without_samples_of_commits_none_is_claimed(tmp_path: Path) -> None:
    """As in a run that was recorded before there were any."""
    world = Fire()
    world.plant("lost", "published", "kill")
    finding = no_loss().check(world.save(tmp_path))
    assert "whether its offset had been committed by then was not observed" in sentence(finding)
    assert finding.figures["attribution"][0]["committed"] is None


def test_a_commit_after_the_return_says_nothing_of_the_time_before(tmp_path: Path) -> None:
    world = Fire()
    world.plant("lost", "published", "kill")
    world.commit("intermediate", start=world.at["kill", "published"] + DOWN_S + 0.01, lag=-1.0)
    finding = no_loss().check(world.save(tmp_path))
    assert "was not observed" in sentence(finding)
    assert finding.figures["attribution"][0]["committed"] is None


def test_some_committed_and_some_not(tmp_path: Path) -> None:
    world = Fire()
    kill = world.at["kill", "published"]
    places = [world.just_at("intermediate", kill - 0.005 - 0.0025 * i) for i in range(8)]
    world.lose("published", *places)
    world.commit("intermediate", lag=0.012, stop=kill)
    text = sentence(no_loss().check(world.save(tmp_path)))
    assert "of them were in converter's hands" in text
    assert "had not been committed by then, so converter was to read them again" in text


def test_lost_before_pubsub_says_what_no_tap_can_see(tmp_path: Path) -> None:
    world = Fire()
    world.plant("lost", "aggregates", "kill")
    text = sentence(no_loss().check(world.save(tmp_path)))
    assert (
        "1 event lost between published and aggregates; it came to published just before aggregator was killed" in text
    )
    assert "whether it was acknowledged, or delivered again, no tap can see" in text


def test_lost_while_a_link_was_cut(tmp_path: Path) -> None:
    world = Fire(quiet=True)
    world.cut("converter->pubsub", "published", 5.0, fault="partition")
    world.plant("lost", "published", "link")
    text = sentence(no_loss().check(world.save(tmp_path)))
    assert (
        "it was on the way from intermediate to published while partition converter->pubsub (5.0 to 6.0 s) was in force"
    ) in text


@pytest.mark.parametrize(("target", "named"), [("kafka-2", True), ("kafka", True), ("kafka-9", False)])
def test_lost_while_a_broker_of_where_it_was_written_was_killed(tmp_path: Path, target: str, named: bool) -> None:
    """A broker stands for its service; another service does not, however it is named."""
    world = Fire(quiet=True)
    world.services = [{"name": "kafka", "processes": ["kafka-1", "kafka-2"]}, {"name": "kafka-9"}]
    world.fault("kill_broker", target, 5.0, 6.0, killed={target: {"pid": 3, "status": -9}})
    world.hold("intermediate", 5.0, 6.05)
    world.lose("intermediate", world.just_at("source", 5.4))
    text = sentence(no_loss().check(world.save(tmp_path)))
    assert (f"was on the way from source to intermediate while kill_broker {target} (5.0 to 6.0 s)" in text) is named


def test_lost_while_the_worker_was_down(tmp_path: Path) -> None:
    world = Fire()
    place = world.just_at("intermediate", world.at["kill", "published"] + 0.5)
    text = sentence(no_loss().check(world.lose("published", place).save(tmp_path)))
    assert (
        "it came to intermediate while converter was down (it was killed at 2.5 s and started again at 3.1 s)" in text
    )


def test_dropped_without_any_fault(tmp_path: Path) -> None:
    world = Fire()
    world.plant("lost", "published", "none")
    world.commit("intermediate")
    text = sentence(no_loss().check(world.save(tmp_path)))
    assert (
        "when no fault was in force on converter or its links and it was running: converter itself dropped it" in text
    )
    assert "and committed its offset" in text


def test_a_worker_that_died_by_itself_is_no_fault(tmp_path: Path) -> None:
    world = Fire(quiet=True)
    world.happen("worker-exit", 4.0, worker="converter", pid=1, status=1, signal=None, asked=False)
    world.happen("worker-start", 4.6, worker="converter", pid=2)
    world.hold("published", 3.98, 4.8)
    world.lose("published", world.just_at("intermediate", 3.995))
    (found,) = classes(world.save(tmp_path), "lost", "published")
    assert "converter ended by itself (status 1) at 4.0 s" in found["cause"]
    assert found["faults"] == []


def test_a_sound_event_that_was_refused(tmp_path: Path) -> None:
    world = Fire()
    place = int(world.sound[40])
    world.lose("intermediate", place).copies["dead-letters"][place] = 1
    (found,) = classes(world.save(tmp_path), "lost", "intermediate")
    assert (found["class"], found["cause"]) == ("refused", "it was refused as poison and is in dead-letters")
    assert (found["hop_before"], found["hop_after"], found["worker"]) == ("source", "intermediate", "preprocessor")


def test_doubled_by_a_replay_that_was_due(tmp_path: Path) -> None:
    world = Fire()
    world.plant("doubled", "published", "kill")
    world.commit("intermediate", lag=0.5, stop=world.at["kill", "published"])
    finding = duplicate_rate("published", most=0).check(world.save(tmp_path))
    assert (
        "1 event doubled between intermediate and published; converter wrote it, was killed at 2.5 s before its offset had "
        "been committed, and read the same record of intermediate again after its return at 3.1 s"
    ) in sentence(finding)
    assert finding.figures["attribution"][0]["class"] == "replayed"


def test_doubled_by_a_publish_that_was_retried(tmp_path: Path) -> None:
    world = Fire()
    world.plant("doubled", "published", "link")
    finding = duplicate_rate("published", most=0).check(world.save(tmp_path))
    assert re.search(
        r"the second copy came (199|200|201) ms after the first while lose_acks converter->pubsub \(8.0 to 9.0 s\) was in force and "
        r"converter was not started again in between: it sent again what had arrived",
        sentence(finding),
    )
    assert finding.figures["attribution"][0]["class"] == "retried"


def test_what_was_committed_before_the_kill_was_not_replayed(tmp_path: Path) -> None:
    """A kill and a fault on the link between the copies: the commit tells which of them it was; without it, neither."""
    for name, committed in (("known", True), ("unknown", False)):
        world = Fire()
        world.fault("lose_acks", "converter->pubsub", 2.0, 3.5, links=["converter->pubsub"])
        world.plant("doubled", "published", "kill")
        if committed:
            world.commit("intermediate", lag=-1.0)
        (found,) = classes(world.save(tmp_path / name), "doubled", "published")
        assert found["class"] == ("retried" if committed else "replayed-or-retried")
        assert {f["fault"] for f in found["faults"]} == ({"lose_acks"} if committed else {"kill", "lose_acks"})


def test_doubled_without_any_fault(tmp_path: Path) -> None:
    world = Fire()
    world.plant("doubled", "intermediate", "none")
    text = sentence(duplicate_rate("intermediate", most=0).check(world.save(tmp_path)))
    assert (
        "no fault was in force on preprocessor or its links and it was not started again in between: preprocessor itself wrote it twice"
        in text
    )


def test_doubled_by_the_client_that_loads(tmp_path: Path) -> None:
    world = Fire(quiet=True)
    world.fault("lose_acks", "load->kafka", 3.0, 4.0, links=["load->kafka"])
    place = world.just_at("source", 3.5)
    world.double("source", place)
    (found,) = classes(world.save(tmp_path), "doubled", "source")
    assert (found["hop_before"], found["hop_after"], found["worker"], found["link"]) == (
        None,
        "source",
        "load",
        "load->kafka",
    )
    assert found["class"] == "retried"


def test_counted_again_after_one_message(tmp_path: Path) -> None:
    world = Fire()
    world.plant("doubled", "aggregates", "kill")
    text = sentence(duplicate_rate("aggregates", most=0).check(world.save(tmp_path)))
    assert (
        "1 event doubled at aggregates; it was counted more than once and was in published once: aggregator was killed at 4.0 s"
        in text
    )
    assert "no tap can see" in text


def test_counted_again_by_a_redelivery(tmp_path: Path) -> None:
    world = Fire(quiet=True)
    world.fault(
        "redeliver",
        "aggregator",
        6.0,
        6.0,
        params={"back_s": 4.0},
        sought={"aggregator": {"links": ["aggregator->pubsub"]}},
    )
    world.double("aggregates", world.just_at("published", 3.0))
    (found,) = classes(world.save(tmp_path), "doubled", "aggregates")
    assert [f["fault"] for f in found["faults"]] == ["redeliver"]


def test_copies_that_nobody_deduplicated(tmp_path: Path) -> None:
    world = Fire()
    world.plant("doubled", "published", "link")
    (found,) = classes(world.save(tmp_path), "doubled", "aggregates")
    assert "of the 1 event that came to published more than once aggregator counted 1 again" in found["cause"]


def test_replicas_are_one_worker_and_the_one_that_was_killed_is_told(tmp_path: Path) -> None:
    world = Fire(quiet=True)
    world.workers = (WORKERS[0], *({**WORKERS[1], "name": f"converter-{i}"} for i in (1, 2)), WORKERS[2])
    world.links = tuple(
        {"name": f"converter-{i}->{s}", "worker": f"converter-{i}", "service": s}
        for i in (1, 2)
        for s in ("kafka", "pubsub")
    )
    world.kill("converter-2", "published", 4.0)
    world.lose("published", world.just_at("intermediate", 3.995))
    (found,) = classes(world.save(tmp_path), "lost", "published")
    assert (found["worker"], found["link"]) == ("converter", "converter->pubsub")
    assert [(f["fault"], f["target"]) for f in found["faults"]] == [("kill", "converter-2")]
    assert "had come to intermediate and was not through when converter-2 was killed at 4.0 s" in found["cause"]


def test_a_hop_to_which_no_worker_leads(tmp_path: Path) -> None:
    world = World(workers=())
    world.lose("published", int(world.sound[100]))
    (found,) = classes(world.save(tmp_path), "lost", "published")
    assert (found["hop_before"], found["worker"], found["link"]) == ("intermediate", None, None)
    assert "no worker declares that it reads intermediate and writes published" in found["cause"]


# ---------------------------------------------------------------------------------------------------- the sink


def _pair(world: World, many: int = 2) -> list[int]:
    """So many events that share every cell, with weights of their own."""
    frame = world.content.with_row_index("place").filter(~pl.col("poison") & ~pl.col("twin"))
    frame = frame.with_columns(w10=pl.col("event_time_ms") // 10_000)
    groups = frame.group_by("tweet_id", "engagement", "w10").agg(pl.col("place")).sort("tweet_id", "engagement", "w10")
    return [int(p) for p in groups.filter(pl.col("place").list.len() >= many)["place"][0][:many]]


@pytest.mark.parametrize("many", [1, 2, 3])
@pytest.mark.parametrize("kind", ["lost", "doubled"])
def test_several_events_of_one_cell_are_named_by_its_residue(tmp_path: Path, kind: str, many: int) -> None:
    """By the weights alone: this sink shows no single events."""
    world = World()
    world.show_sightings = False
    places = _pair(world, many)
    (world.lose if kind == "lost" else world.double)("aggregates", *places)
    found = residue.explained(world.save(tmp_path))
    assert dict(found.changes.iter_rows()) == dict.fromkeys(sorted(places), -1 if kind == "lost" else 1)
    assert (found.lost, found.doubled) == (0, 0)


def test_one_event_lost_and_another_doubled_in_its_cell_are_both_named(tmp_path: Path) -> None:
    world = World()
    world.show_sightings = False
    gone, twice = _pair(world)
    found = residue.explained(world.lose("aggregates", gone).double("aggregates", twice).save(tmp_path))
    assert dict(found.changes.iter_rows()) == {gone: -1, twice: 1}


def test_an_event_counted_three_times(tmp_path: Path) -> None:
    world = World()
    world.show_sightings = False
    (one,) = _pair(world, 1)
    world.copies["aggregates"][one] = 3
    found = residue.explained(world.save(tmp_path))
    assert dict(found.changes.iter_rows()) == {one: 2}


def test_what_was_lost_before_is_not_looked_for_at_the_sink(tmp_path: Path) -> None:
    world = World().lose("published", *(int(p) for p in World().sound[:200]))
    found = residue.explained(world.save(tmp_path))
    assert found.cells.is_empty()


def test_a_hot_cell_that_lost_a_run_of_its_events(tmp_path: Path) -> None:
    world = World(profile=Steady(rate=400, seconds=10, tweets=1, share_poison=0, share_late=0))
    world.show_sightings = False
    hottest = world.content.with_row_index("place").filter(pl.col("engagement") == "impression")["place"].to_numpy()
    gone = [int(p) for p in hottest[300:330]]
    found = residue.explained(world.lose("aggregates", *gone).save(tmp_path))
    assert found.changes["place"].to_list() == gone
    assert set(found.cells["by"]) == {"run"}


def test_rows_that_show_single_events_name_them_only_if_the_weights_agree(tmp_path: Path) -> None:
    world = World(profile=Steady(rate=400, seconds=10, tweets=1, share_poison=0, share_late=0))
    gone = [int(p) for p in np.random.default_rng(1).choice(len(world.index), 60, replace=False)]
    found = residue.explained(world.lose("aggregates", *gone).save(tmp_path / "agree"))
    assert sorted(found.changes["place"].to_list()) == sorted(gone)
    assert set(found.cells["by"]) <= {"rows", "choice"}
    # The rows claim other events than those that are missing: their weights do not add up, so nothing is claimed.
    counted, seen = world.counted(), np.setdiff1d(np.arange(len(world.index)), gone)
    world.copies["aggregates"][:] = 1
    world.copies["aggregates"][seen[:60]] = 0
    world.edit_cells = lambda _: counted
    found = residue.explained(world.save(tmp_path / "differ"))
    assert "rows" not in set(found.cells.filter(pl.col("excess") < -1)["by"])
    assert found.lost > 0


def test_what_cannot_be_told_apart_is_undecided(tmp_path: Path) -> None:
    """20 of 1,800 events of one cell, here and there, and nothing but its sum to go by."""
    world = World(profile=Steady(rate=400, seconds=10, tweets=1, share_poison=0, share_late=0))
    world.show_sightings = False
    hottest = world.content.with_row_index("place").filter(pl.col("engagement") == "impression")["place"].to_numpy()
    run = world.lose("aggregates", *(int(p) for p in hottest[::80])).save(tmp_path)
    (found,) = no_loss().check(run).figures["attribution"]
    assert (found["class"], found["events"], found["examples"]) == ("undecided", len(hottest[::80]), [])


def test_a_loss_cannot_hide_behind_many_duplicates_of_a_hot_cell(tmp_path: Path) -> None:
    """Doubled here and there, so that no choice can be searched: whether one is missing beside them cannot be said."""
    world = World(profile=Steady(rate=400, seconds=10, tweets=1, share_poison=0, share_late=0))
    world.show_sightings = False
    hottest = world.content.with_row_index("place").filter(pl.col("engagement") == "impression")["place"].to_numpy()
    world.double("aggregates", *(int(p) for p in hottest[::80]))
    clean = no_loss().check(world.save(tmp_path / "doubled"))
    assert clean.verdict == "inconclusive"
    assert "cells of aggregates: so many events were counted too often" in clean.summary
    world.lose("aggregates", int(hottest[7]))
    assert no_loss().check(world.save(tmp_path / "lost")).verdict == "inconclusive"


def test_copies_before_the_sink_decide_a_hot_cell(tmp_path: Path) -> None:
    """Every message was counted, and the weights agree: nothing is missing. One less, and they do not."""
    world = World(profile=Steady(rate=400, seconds=10, tweets=1, share_poison=0, share_late=0))
    world.show_sightings = False
    hottest = world.content.with_row_index("place").filter(pl.col("engagement") == "impression")["place"].to_numpy()
    world.double("published", *(int(p) for p in hottest[::80]), further=True)
    run = world.save(tmp_path / "all")
    assert no_loss().check(run).verdict == "pass"
    assert set(residue.explained(run).cells["by"]) == {"copies"}
    world.lose("aggregates", int(hottest[7]))
    assert no_loss().check(world.save(tmp_path / "lost")).verdict != "pass"


def test_a_loss_behind_two_duplicates_in_a_small_cell_is_proven(tmp_path: Path) -> None:
    """-1 and +3: the excess is two, the range of two weights holds, and no two of the cell's events have the sum."""
    world = World()
    world.show_sightings = False
    gone, twice, thrice = _pair(world, 3)
    world.lose("aggregates", gone)
    world.copies["aggregates"][[twice, thrice]] = [2, 3]
    run = world.save(tmp_path)
    finding = no_loss().check(run)
    assert finding.verdict == "violation"
    assert finding.figures["sink"]["unexplained_cells"] == 4
    assert gone in residue.explained(run).changes.filter(pl.col("change") < 0)["place"].to_list()


# ---------------------------------------------------------------------------------------------------- kept


def _unsealed(world: World, tmp_path: Path) -> tuple[RunFolder, SavedRun]:
    folder = world.write(tmp_path)
    return folder, SavedRun.open_unsealed(folder.path)


def test_every_event_with_its_way_is_kept_and_judged_again_alike(tmp_path: Path) -> None:
    world = Fire()
    world.assertions = [
        {"assertion": "no_loss", "params": {}},
        {"assertion": "duplicate_rate", "params": {"hop": "published", "least": 0.0, "most": 0.0, "confidence": 0.95}},
    ]
    many = [world.just_at("intermediate", world.at["kill", "published"] - 0.0025 * i) for i in range(1, 60)]
    world.lose("published", *many)
    twice = world.plant("doubled", "intermediate", "none")
    world.commit("intermediate")
    folder, run = _unsealed(world, tmp_path)
    first = judge(run)
    attribution.keep(run)
    folder.seal()
    again = SavedRun.load(folder.path)
    second = judge(again)
    del first["timing"], second["timing"]
    assert first == second
    kept = pl.read_parquet(folder.attribution)
    assert kept.equals(attribution.table(again))
    lost = kept.filter(pl.col("kind") == "lost")
    assert set(lost["event"]) == {world.event_id(p) for p in many}
    assert lost["published_copies"].to_list() == [0] * len(set(many))
    assert lost["published_first_s"].null_count() == lost.height
    assert lost["offset"].min() >= 0  # type: ignore[operator]
    doubled = kept.filter(pl.col("kind") == "doubled")
    assert set(doubled["event"]) == {world.event_id(twice)}
    assert set(doubled["hop"]) == {"intermediate", "published", "aggregates"}
    assert set(doubled["hop_after"]) == {"intermediate"}
    examples = first["findings"][0]["figures"]["attribution"][0]["examples"]
    assert len(examples) == 32
    folder.attribution.write_bytes(folder.attribution.read_bytes()[:-1])
    with pytest.raises(DamagedRun, match="attribution.parquet"):
        SavedRun.load(folder.path)


def test_a_healthy_run_has_nothing_to_attribute(tmp_path: Path) -> None:
    run = Fire().save(tmp_path)
    assert no_loss().check(run).figures["attribution"] == []
    assert duplicate_rate("published").check(run).figures["attribution"] == []
    assert attribution.table(run).is_empty()


def test_what_an_uncertified_tap_did_not_see_is_not_attributed(tmp_path: Path) -> None:
    world = Fire()
    world.plant("lost", "published", "kill")
    world.uncertified["published"] = "no sentinel was seen"
    finding = no_loss().check(world.save(tmp_path))
    assert finding.verdict == "violation"  # the sink lacks it
    assert {c["hop_after"] for c in finding.figures["attribution"]} == {"aggregates"}


def test_what_keeps_it_from_being_made_changes_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = World().lose("published", int(World().sound[3])).save(tmp_path)
    for error, told in ((NotObserved("nobody looked"), "nobody looked"), (KeyError("x"), "it failed: KeyError('x')")):

        def fails(run: SavedRun, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(attribution, "of_losses", fails)
        finding = no_loss().check(run)
        assert finding.verdict == "violation"
        assert (finding.figures["attribution"], finding.figures["attribution_error"]) == ([], told)


def test_a_file_of_commits_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    world = Fire()
    world.plant("lost", "published", "kill")
    world.commit("intermediate", until=3.0)
    folder = world.write(tmp_path)
    folder.commits.write_bytes(b"torn")
    folder.seal()
    with pytest.raises(DamagedRun, match="commits.parquet"):
        no_loss().check(SavedRun.load(folder.path))


def test_a_publish_time_ahead_of_the_tap_is_not_believed(tmp_path: Path) -> None:
    run = World().save(tmp_path)
    run.hop("published").with_columns(pl.col("created_ms") + 60_000).write_parquet(run.folder.hop("published"))
    run = SavedRun.open_unsealed(run.path)
    at = ways.times_of(run, "published")
    assert (at["at"] * 1000 - at["seen_ms"]).abs().max() < 0.01  # type: ignore[operator]
    assert at.height == World().copies["published"].sum()
    assert WARMUP_EVENTS + at.height == run.hop("published").height
