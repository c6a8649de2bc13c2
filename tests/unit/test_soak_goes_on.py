"""When a soak goes on with the pipeline that it has, when with another one, and when not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import HarnessFault, NothingArrives, WorkerDied
from harness.soak import cycles
from harness.soak.cycles import Soak, scenario_of
from harness.soak.state import Asked, Cycle, State
from pipelines_under_test.kappa.pipeline import kappa

ASKED = Asked("soak", "kappa", "process", 7, 0.01, 60.0, 100, stop=False)
#: What a cycle comes to: its verdict and whether nothing of it will come after it, or an error at its beginning.
Played = tuple[str, bool] | Exception


class Play(Soak):
    """A soak whose cycles are played: everything but what it decides after each."""

    def __init__(self, folder: Path, played: Sequence[Played]) -> None:
        session = SimpleNamespace(prepare=lambda pipeline: None)
        self.told: list[str] = []
        super().__init__(scenario_of(ASKED, kappa), State(ASKED), folder, session, self.told.append)  # type: ignore[arg-type]
        self.played, self.done = list(played), list[str]()

    @contextlib.contextmanager
    def _deployed(self, taken: Any) -> Iterator[tuple[Any, Any]]:
        self.done.append("deployed")
        yield None, None
        self.done.append("ended")

    def _cycle(self, number: int, attempt: int, *_: Any) -> Any:
        played = self.played.pop(0)
        (self.folder / "cycles" / f"x-cycle-{number:05d}-{attempt}").mkdir(parents=True, exist_ok=True)
        if isinstance(played, Exception):
            raise played
        if not self.played:
            self._begin -= 3600  # its time is over
        verdict, nothing_left = played
        return SimpleNamespace(verdict=verdict, folder=Path(f"x-cycle-{number:05d}-{attempt}")), nothing_left

    def _kept(self, number: int, attempt: int, outcome: Any, *_: Any) -> Cycle:
        self.done.append(f"{number}.{attempt} {outcome.verdict}")
        events = {"sent": 1, "acked": 1, "ambiguous": 0, "failed": 0}
        return Cycle(number, attempt, 0, outcome.verdict, str(outcome.folder), events, 0, {}, [], {}, 1)

    def _drop_what_is_behind(self, stack: Any, deployed: Any) -> None:
        self.done.append("trimmed")


def test_a_pipeline_is_deployed_once_and_trimmed_after_each_cycle(tmp_path: Path) -> None:
    soak = Play(tmp_path, [("pass", True), ("inconclusive", True), ("pass", True)])
    assert soak.run()["verdict"] == "pass"
    assert soak.done == [
        "deployed",
        "1.1 pass",
        "trimmed",
        "2.1 inconclusive",
        "trimmed",
        "2.2 pass",
        "trimmed",
        "ended",
    ]


@pytest.mark.parametrize("verdict", ["inconclusive", "violation"])
def test_what_a_cycle_has_left_on_its_way_counts_in_no_other(tmp_path: Path, verdict: str) -> None:
    """Records that were not read are not deleted, and the pipeline that would still count them has ended."""
    soak = Play(tmp_path, [("pass", True), (verdict, False), ("pass", True)])
    assert soak.run()["verdict"] == ("violation" if verdict == "violation" else "pass")
    then = "2.2 pass" if verdict == "inconclusive" else "3.1 pass"
    assert soak.done == [
        "deployed",
        "1.1 pass",
        "trimmed",
        f"2.1 {verdict}",
        "ended",
        "deployed",
        then,
        "trimmed",
        "ended",
    ]
    assert any("is deployed anew: x-cycle-00002-1 has left something on its way" in line for line in soak.told)


@pytest.mark.parametrize("error", [NothingArrives("No event was seen.\nthe log"), WorkerDied("w dies at its start")])
def test_a_pipeline_that_worked_and_no_longer_does_is_a_violation_with_all_that_was_found_before(
    tmp_path: Path, error: Exception
) -> None:
    soak = Play(tmp_path, [("pass", True), error])
    verdict = soak.run()
    assert (verdict["verdict"], len(verdict["cycles"])) == ("violation", 1)
    said = f"cycle 2 did not begin: {str(error).splitlines()[0]}"
    assert [f["summary"] for f in verdict["findings"] if f["verdict"] == "violation"] == [said]
    assert [(Path(cut["run"]).name, cut["why"]) for cut in verdict["cut"]][-1] == ("x-cycle-00002-1", said)
    assert State.load(tmp_path).over()
    assert soak.done[-1] == "ended"


def test_a_pipeline_that_never_worked_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied):
        Play(tmp_path, [WorkerDied("w dies at its start")]).run()
    with pytest.raises(NothingArrives):
        Play(tmp_path, [("pass", True), ("violation", False), NothingArrives("nothing")]).run()


def test_where_the_disk_is_full_the_machine_is_to_blame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycles.shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(HarnessFault, match="The disk is full. nothing"):
        Play(tmp_path, [("pass", True), NothingArrives("nothing")]).run()
