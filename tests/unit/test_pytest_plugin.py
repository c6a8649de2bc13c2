"""How a test learns the verdict: a violation fails and is never retried, an inconclusive run is repeated once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assertions import no_loss
from faults import random_schedule
from harness.backends import NAMES
from harness.pytest_plugin import BACKENDS, CheckableRun, Gauntlet, Inconclusive, Violation
from harness.run import Outcome
from harness.scenario import Scenario
from harness.soak.books import summary
from harness.soak.cycles import Soak
from harness.soak.state import Cycle, State
from harness.topology import UsageError
from pipelines_under_test.kappa.pipeline import kappa

pytest_plugins = ["pytester"]


class Session:
    """Stands for real runs whose verdicts come in this order."""

    def __init__(self, *verdicts: str) -> None:
        self.verdicts, self.notes = list(verdicts), []  # type: ignore[var-annotated]

    def run(self, scenario: Scenario, out: Path, notes: Any = ()) -> Outcome:
        self.notes.append(list(notes))
        return Outcome({}, out / self.verdicts.pop(0))


@pytest.fixture(autouse=True)
def judged_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge_again(folder: Path, assertions: Any, expected: Any) -> Outcome:
        finding = {"assertion": "no_loss", "verdict": folder.name, "summary": "so it is", "examples": [], "figures": {}}
        return Outcome({"verdict": folder.name, "run": str(folder), "findings": [finding]}, folder)

    monkeypatch.setattr("harness.run.judge_again", judge_again)


def run(session: Session, tmp_path: Path) -> CheckableRun:
    return CheckableRun(Scenario("s", kappa), session, tmp_path)  # type: ignore[arg-type]


def test_a_pass_passes(tmp_path: Path) -> None:
    assert run(Session("pass"), tmp_path).check(no_loss()).checked


def test_a_violation_fails_and_is_not_repeated(tmp_path: Path) -> None:
    session = Session("violation", "pass")
    with pytest.raises(Violation, match="no_loss: violation: so it is"):
        run(session, tmp_path).check(no_loss())
    assert session.verdicts == ["pass"]


def test_an_inconclusive_run_is_repeated_once_and_the_repetition_says_so(tmp_path: Path) -> None:
    session = Session("inconclusive", "pass")
    run(session, tmp_path).check(no_loss())
    assert session.notes == [[], ["repeats inconclusive, which was inconclusive"]]


def test_a_run_that_stays_inconclusive_fails_with_its_own_word(tmp_path: Path) -> None:
    session = Session("inconclusive", "inconclusive", "pass")
    with pytest.raises(Inconclusive, match="no_loss: inconclusive"):
        run(session, tmp_path).check(no_loss())
    assert session.verdicts == ["pass"]


def test_a_violation_in_the_repetition_is_a_violation(tmp_path: Path) -> None:
    with pytest.raises(Violation):
        run(Session("inconclusive", "violation"), tmp_path).check(no_loss())


def test_a_random_schedule_stands_for_the_faults(tmp_path: Path) -> None:
    asked: list[Scenario] = []

    class Drawing(Session):
        def run(self, scenario: Scenario, out: Path, notes: Any = ()) -> Outcome:
            asked.append(scenario.drawn("process"))
            return super().run(scenario, out, notes)

    harness = Gauntlet(Drawing("pass", "pass"), tmp_path, "test", None)  # type: ignore[arg-type]
    harness.run(kappa, faults=random_schedule(seed=42))
    harness.run(kappa, faults=random_schedule(), seed=5)
    assert [scenario.schedule_seed for scenario in asked] == [42, 5]
    assert asked[0].faults == random_schedule(42).draw(kappa, 2000, 20, "process", seed=0)


def test_nothing_to_check_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to check"):
        run(Session("pass"), tmp_path).check()


def test_a_test_that_never_checks_its_run_fails(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest
        from pathlib import Path
        from harness.run import Outcome

        class Session:
            def run(self, scenario, out, notes=()):
                return Outcome({}, Path("somewhere"))

        @pytest.fixture(scope="session")
        def gauntlet_session():
            return Session()
        """
    )
    pytester.makepyfile(
        """
        from pipelines_under_test.kappa.pipeline import kappa

        def test_that_proves_nothing(gauntlet):
            gauntlet.run(kappa)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*was never checked*"])
    result.assert_outcomes(passed=1, errors=1)


def test_options_are_told_and_a_backend_that_is_not_there_is_refused(pytester: pytest.Pytester) -> None:
    told = pytester.runpytest_subprocess("--help").stdout.str()
    assert "--gauntlet-seed" in told
    assert "--gauntlet-out" in told
    refused = pytester.runpytest_subprocess("--gauntlet-backend", "podman")
    assert refused.ret == 4
    refused.stderr.fnmatch_lines(["*'podman' is not one of auto, process, docker*"])


def test_the_plugin_knows_the_backends_that_there_are() -> None:
    assert BACKENDS == NAMES


SOAKING = """
import pytest

@pytest.mark.soak
def test_a_night(): pass

def test_at_once(): pass
"""


def test_a_soak_is_left_out_unless_it_is_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SOAKING)
    pytester.runpytest().assert_outcomes(passed=1, deselected=1)
    pytester.runpytest("-m", "soak").assert_outcomes(passed=1, deselected=1)
    assert "test_a_night" in pytester.runpytest("-m", "soak", "-v").stdout.str()


ASKS_FOR_A_SESSION = """
import contextlib
import harness.session
import pytest

@contextlib.contextmanager
def session(backend, endpoints, forgets):
    yield forgets

@pytest.fixture(autouse=True, scope="session")
def no_real_one():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.session, "Session", session)
        yield

@pytest.mark.soak
def test_a_night(gauntlet_session):
    assert gauntlet_session is True

def test_at_once(gauntlet_session):
    assert gauntlet_session is False
"""


def test_a_session_of_soaks_takes_services_that_forget(pytester: pytest.Pytester) -> None:
    """Google's Pub/Sub emulator would keep every message of a night."""
    pytester.makepyfile(ASKS_FOR_A_SESSION)
    pytester.runpytest().assert_outcomes(passed=1, deselected=1)
    pytester.runpytest("-m", "soak").assert_outcomes(passed=1, deselected=1)


def soaked(verdict: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gauntlet:
    """A harness whose soaks have two cycles, of which the second has this verdict."""

    def run(self: Soak) -> dict[str, Any]:
        violated = ["no_loss"] if verdict == "violation" else []
        for number, word in ((1, "pass"), (2, verdict)):
            self.state.cycles.append(Cycle(number, 1, 7, word, f"/r/{number}", {"acked": 5}, 1, {}, violated, {}, 5))
        self.state.spent_s = self.state.asked.hours * 3600
        self.state.save(self.folder)
        return summary(self.state, self.folder)

    monkeypatch.setattr(Soak, "run", run)
    session: Any = SimpleNamespace(prepare=lambda pipeline: SimpleNamespace(name="process"))
    return Gauntlet(session, tmp_path, "test_a_night", 11, soak_hours=0.5)


def test_a_soak_is_as_long_as_the_option_says_and_leaves_its_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = soaked("pass", monkeypatch, tmp_path).soak(kappa, no_loss(), rate=300).check()
    asked = State.load(made.folder).asked
    assert (asked.backend, asked.claims) == ("process", [{"assertion": "no_loss", "params": no_loss().params()}]), (
        "it goes on so"
    )
    assert (asked.hours, asked.seed, asked.rate, asked.pipeline) == (0.5, 11, 300, "kappa")
    assert {path.name for path in made.folder.iterdir()} >= {"verdict.json", "report.html", "junit.xml"}


def test_a_cycle_of_a_soak_fails_the_test_and_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(Violation, match="cycle 2: no_loss; kept in /r/2"):
        soaked("violation", monkeypatch, tmp_path).soak(kappa).check()
    with pytest.raises(Inconclusive, match="cycle 2: inconclusive"):
        soaked("inconclusive", monkeypatch, tmp_path).soak(kappa).check()


def test_a_soak_of_no_length_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="longer than 0 hours"):
        soaked("pass", monkeypatch, tmp_path).soak(kappa, hours=0)
