"""A rolling upgrade: in what order it is walked, what becomes of a version that does not come up, and how one is stated."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from served import served

from assertions.attribution.circumstances import _did, _how
from faults import fault_from_dict, kill, upgrade
from harness.compare.versions import second_name, version_of, worker_in
from harness.errors import HarnessFault
from harness.scenario import Scenario
from harness.store import FaultWindow
from harness.topology import UsageError
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.mutants import MUTANTS

TO = {"env": {"LEASE_S": "5"}}


class Diary:
    """A System that writes down what an upgrade does. `fails`: what goes wrong, by what."""

    def __init__(self, **fails: Any) -> None:
        self.done: list[str] = []
        self.t, self.fails = 0.0, fails

    def now(self) -> float:
        self.t += 1
        return self.t

    def wait(self, seconds: float) -> bool:
        self.done.append(f"wait {seconds:g}")
        return not self.fails.get("ending")

    def start_beside(self, instance: str, to: Mapping[str, Any] | None) -> dict[str, Any]:
        way = "back" if to is None else "to"
        self.done.append(f"{instance}: {way}")
        error = self.fails.get(f"{instance} {way}")
        return {"began": self.now(), **({"error": error} if error else {"version": "" if to is None else "v2"})}

    def wait_beside(self, instance: str, seconds: float) -> dict[str, Any]:
        up = not self.fails.get("never up")
        return {"pid": 7 if up else None, "ready": self.now() if up else None, "died": 0 if up else 3}

    def beside(self, instance: str) -> int | None:
        return 8 if self.fails.get("dies beside") else 7

    def take_over(self, instance: str) -> dict[str, Any]:
        self.done.append(f"{instance}: taken over")
        return {"pid": 6, "until": self.now(), "killed": False}

    def withdraw(self, instance: str) -> dict[str, Any]:
        self.done.append(f"{instance}: withdrawn")
        return {"pid": 7, "until": self.now(), "killed": False}


def walked(diary: Diary, *targets: str) -> dict[str, Any]:
    return upgrade("converter", to=TO).lasting(6).hold(diary, targets)  # type: ignore[arg-type]


def test_old_and_new_stand_side_by_side_there_and_back() -> None:
    diary = Diary()
    seen = walked(diary, "converter")
    there = ["converter: to", "wait 2", "converter: taken over"]
    assert diary.done == [*there, "wait 6", "converter: back", "wait 2", "converter: taken over"]
    assert seen["forth"]["converter"]["new_pid"] == 7
    assert seen["replaced"] == {"converter": [6, 6]}


def test_replicas_are_upgraded_one_after_the_other() -> None:
    diary = Diary()
    walked(diary, "converter-1", "converter-2")
    assert [entry for entry in diary.done if "wait" not in entry] == [
        f"converter-{i}: {what}" for way in ("to", "back") for i in (1, 2) for what in (way, "taken over")
    ]


@pytest.mark.parametrize("how", ["never up", "dies beside"])
def test_a_version_that_does_not_stay_up_is_withdrawn_and_the_old_one_stays(how: str) -> None:
    diary = Diary(**{how: True})
    seen = walked(diary, "converter-1", "converter-2")
    assert [entry for entry in diary.done if "wait" not in entry] == ["converter-1: to", "converter-1: withdrawn"]
    assert seen["forth"]["converter-1"]["ready"] is None
    assert seen["back"] == {}


def test_who_was_upgraded_before_the_one_that_failed_is_rolled_back() -> None:
    diary = Diary(**{"converter-2 to": "no such file"})
    seen = walked(diary, "converter-1", "converter-2")
    assert seen["forth"]["converter-2"]["error"] == "no such file"
    assert diary.done[-3:] == ["converter-1: back", "wait 2", "converter-1: taken over"]


def test_a_run_that_is_ended_leaves_the_old_version_as_it_was() -> None:
    diary = Diary(ending=True)
    walked(diary, "converter")
    assert diary.done == ["converter: to", "wait 2", "converter: withdrawn"]


def test_an_old_version_that_cannot_be_started_again_is_the_harnesss_failure() -> None:
    with pytest.raises(HarnessFault, match="converter could not be started again as it was: no memory"):
        walked(Diary(**{"converter back": "no memory"}), "converter")


def test_a_version_is_stated_as_compare_states_it() -> None:
    aggregator = kappa.worker("aggregator")
    asked = {"env": {"LEASE_S": 5}, "command": ["{python}", "-m", "mine of all"], "image": "mine:2"}
    version = version_of("aggregator", asked)
    assert version.described() == "aggregator.LEASE_S=5 aggregator='{python}' -m 'mine of all' aggregator=mine:2"
    other = worker_in(version, kappa, aggregator, Path())
    assert other.env == {**aggregator.env, "LEASE_S": "5"}
    assert (list(other.command), other.image) == (["{python}", "-m", "mine of all"], "mine:2")
    assert (other.reads, other.uses) == (aggregator.reads, aggregator.uses)
    of_a_mutant = worker_in(version_of("aggregator", {"spec": "no-dedup"}), kappa, aggregator, Path())
    assert of_a_mutant.command == MUTANTS["no-dedup"].pipeline.worker("aggregator").command
    assert worker_in(version_of("aggregator", {}), kappa, aggregator, Path()) == aggregator
    assert upgrade("aggregator", to="no-dedup").to == {"spec": "no-dedup"}
    assert upgrade("aggregator", to=["a", "b"]).to == {"command": ["a", "b"]}
    saved = upgrade("aggregator", to=TO).at(2)
    assert fault_from_dict(saved.as_dict()) == saved


def test_a_version_that_would_need_another_link_is_refused() -> None:
    lacking = dataclasses.replace(kappa.worker("converter"), uses={"KAFKA": "kafka"})
    with pytest.raises(
        UsageError, match="converter of kappa uses pubsub by PUBSUB, to which converter of kappa has no link"
    ):
        worker_in(version_of("converter", {"spec": "kappa"}), kappa, lacking, Path())
    serving = dataclasses.replace(kappa.worker("converter"), serves="LISTEN")
    with pytest.raises(UsageError, match="does not serve as that of kappa does"):
        worker_in(version_of("converter", {"spec": "kappa"}), kappa, serving, Path())


def test_who_serves_at_an_address_cannot_stand_beside_itself() -> None:
    with pytest.raises(UsageError, match="ask serves at an address of its own, at which no second one can listen"):
        upgrade("ask").check(served)


@pytest.mark.parametrize(
    ("to", "backend", "reason"),
    [
        ({"image": "mine:2"}, "process", "an image is for containers"),
        ({"image": "mine:2"}, "external", "an image is for containers"),
        ({"image": "mine:2"}, "docker", ""),
        ({"spec": "kappa@main"}, "docker", "build one of that commit"),
        ({"spec": "kappa@main"}, "process", ""),
        (TO, "external", ""),
    ],
)
def test_what_a_backend_cannot_do_it_refuses(to: Mapping[str, Any], backend: str, reason: str) -> None:
    refused = upgrade("aggregator", to=to).refused_by(backend)
    assert (reason in refused) is bool(reason or not refused)
    assert bool(refused) is bool(reason)


def test_a_worker_is_upgraded_once_at_a_time() -> None:
    with pytest.raises(UsageError, match="converter is being upgraded already then"):
        Scenario("s", kappa, faults=[upgrade("converter").at(2).lasting(5), upgrade("converter").at(4)]).validate()
    others = [upgrade("converter").at(2).lasting(5), upgrade("preprocessor").at(4), kill("converter").at(5)]
    Scenario("s", kappa, faults=[*others, upgrade("converter").at(9)]).validate()


def test_a_second_process_has_a_name_that_no_worker_can_have() -> None:
    taken = dataclasses.replace(kappa.worker("converter"), name=second_name("converter"))
    with pytest.raises(UsageError, match=r"worker name 'converter\.new'"):
        dataclasses.replace(kappa, workers=[*kappa.workers, taken]).validate()


def test_the_end_of_a_replaced_version_is_told_as_such_and_a_crash_is_not() -> None:
    window = FaultWindow(0, "upgrade", "converter", 10.0, 30.0, {}, {"replaced": {"converter": [1, 2]}})
    assert _did(window, "converter", {"pid": 1, "t": 15.0})
    assert not _did(window, "converter", {"pid": 5, "t": 15.0})
    assert not _did(window, "aggregator", {"pid": 1, "t": 15.0})
    assert _how({"status": 0}, window) == "was replaced by another version"
