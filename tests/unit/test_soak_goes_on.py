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

DRAINED = "drained"
ASKED = Asked("soak", "kappa", "process", 7, 0.01, 60.0, 100, stop=False)
#: What a cycle comes to: its verdict and why its drain ended, or an error at its beginning.
Played = tuple[str, str] | Exception


class Play(Soak):
    """A soak whose cycles are played: everything but what it decides after each."""

    def __init__(self, folder: Path, played: Sequence[Played]) -> None:
        session = SimpleNamespace(prepare=lambda pipeline: None)
        self.told: list[str] = []
        super().__init__(scenario_of(ASKED, kappa), State(ASKED), folder, session, self.told.append)  # type: ignore[arg-type]
        self.played, self.done = list(played), list[str]()
        self.dead = ""
        self.second_deployment: Exception | None = None

    @contextlib.contextmanager
    def _deployed(self, taken: Any) -> Iterator[tuple[Any, Any]]:
        self._stack: Any = SimpleNamespace(
            alive=lambda: {"kafka": self.dead != "kafka"},
            ask=lambda service: None if service == self.dead else 0.1,
            site=SimpleNamespace(existing={"bigtable": "127.0.0.1:1"}),
        )
        if self.second_deployment is not None and "deployed" in self.done:
            raise self.second_deployment
        self.done.append("deployed")
        try:
            yield None, None
        finally:
            self.done.append("ended")

    def _cycle(self, number: int, attempt: int, *_: Any) -> Any:
        played = self.played.pop(0)
        (self.folder / "cycles" / f"x-cycle-{number:05d}-{attempt}").mkdir(parents=True, exist_ok=True)
        if isinstance(played, Exception):
            raise played
        if not self.played and self.second_deployment is None:
            self._begin -= 3600  # its time is over
        verdict, drain = played
        folder = Path(f"x-cycle-{number:05d}-{attempt}")
        return SimpleNamespace(verdict={"verdict": verdict}, folder=folder), drain

    def _kept(self, number: int, attempt: int, outcome: Any, drain: str, *_: Any) -> Cycle:
        verdict = outcome.verdict["verdict"]
        self.done.append(f"{number}.{attempt} {verdict}")
        events = {"sent": 1, "acked": 1, "ambiguous": 0, "failed": 0}
        return Cycle(number, attempt, 0, verdict, str(outcome.folder), events, 0, {}, [], {}, 1, drain)

    def _drop_what_is_behind(self, stack: Any, deployed: Any) -> None:
        self.done.append("trimmed")


def test_a_pipeline_is_deployed_once_and_trimmed_after_each_cycle(tmp_path: Path) -> None:
    soak = Play(tmp_path, [("pass", DRAINED), ("inconclusive", DRAINED), ("pass", "quiet"), ("violation", "quiet")])
    assert soak.run()["verdict"] == "violation"
    cycles = ["1.1 pass", "2.1 inconclusive", "2.2 pass", "3.1 violation"]
    assert soak.done == ["deployed", *(step for cycle in cycles for step in (cycle, "trimmed")), "ended"]


@pytest.mark.parametrize(
    ("verdict", "drain", "then", "comes_to"),
    [
        ("inconclusive", "quiet", "2.2 pass", "pass"),
        ("inconclusive", "stuck", "3.1 pass", "inconclusive"),
        ("violation", "stuck", "3.1 pass", "violation"),
        ("violation", "crash-loop", "3.1 pass", "violation"),
    ],
)
def test_what_a_cycle_has_left_on_its_way_counts_in_no_other(
    tmp_path: Path, verdict: str, drain: str, then: str, comes_to: str
) -> None:
    """Records that were not read are not deleted, and the pipeline that would still count them has ended. That another one does
    well says nothing of the one that stood still."""
    soak = Play(tmp_path, [("pass", DRAINED), (verdict, drain), ("pass", DRAINED)])
    assert soak.run()["verdict"] == comes_to
    again = ["deployed", then, "trimmed", "ended"]
    assert soak.done == ["deployed", "1.1 pass", "trimmed", f"2.1 {verdict}", "ended", *again]
    assert any("is deployed anew: x-cycle-00002-1 has left something on its way" in line for line in soak.told)


ERRORS = [NothingArrives("No event was seen.\nthe log"), WorkerDied("w dies at its start")]


@pytest.mark.parametrize("error", ERRORS)
def test_a_pipeline_that_worked_and_no_longer_does_is_a_violation_with_all_that_was_found_before(
    tmp_path: Path, error: Exception
) -> None:
    soak = Play(tmp_path, [("pass", DRAINED), error])
    verdict = soak.run()
    assert (verdict["verdict"], len(verdict["cycles"])) == ("violation", 1)
    said = f"cycle 2 did not begin: {str(error).splitlines()[0]}"
    assert [f["summary"] for f in verdict["findings"] if f["verdict"] == "violation"] == [said]
    assert [(Path(cut["run"]).name, cut["why"]) for cut in verdict["cut"]][-1] == ("x-cycle-00002-1", said)
    assert State.load(tmp_path).over()
    assert soak.done[-1] == "ended"


@pytest.mark.parametrize("error", ERRORS)
def test_one_that_does_not_work_when_it_is_deployed_anew_is_one_too(tmp_path: Path, error: Exception) -> None:
    assert Play(tmp_path, [("pass", DRAINED), ("inconclusive", "stuck"), error]).run()["verdict"] == "violation"
    (tmp_path / "other").mkdir()
    soak = Play(tmp_path / "other", [("pass", DRAINED), ("inconclusive", "stuck")])
    soak.second_deployment = error
    assert soak.run()["findings"][2]["verdict"] == "violation"


@pytest.mark.parametrize("error", ERRORS)
def test_a_pipeline_that_never_worked_is_bad_input(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)):
        Play(tmp_path, [error]).run()
    assert not State.load(tmp_path).over()


def test_where_the_machine_is_to_blame_the_pipeline_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for end, dead in (("own", "kafka"), ("existing", "bigtable")):
        soak = Play(tmp_path, [("pass", DRAINED), NothingArrives("nothing")])
        soak.dead = dead
        with pytest.raises(HarnessFault, match=f"{dead} ended or fell silent. nothing"):
            soak.run()
        assert not State.load(tmp_path).over(), end
    monkeypatch.setattr(cycles.shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(HarnessFault, match="The disk is full. nothing"):
        Play(tmp_path, [("pass", DRAINED), NothingArrives("nothing")]).run()
