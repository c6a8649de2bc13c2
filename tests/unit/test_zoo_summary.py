"""The zoo: what many runs come to. The runs themselves are made in tests/zoo."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness import cli
from harness.errors import HarnessFault, NothingArrives
from harness.report import zoo as shown
from harness.run import Outcome
from harness.scenario import Scenario
from harness.topology import UsageError
from harness.zoo import (
    Plan,
    Row,
    Trial,
    Zoo,
    enough_pass_without_faults,
    in_words,
    mutants_named,
    plan_of_mutant,
    read_journal,
    row_of,
    summary_of_healthy,
    summary_of_mutants,
    upper_bound,
    wants_another_run,
)
from pipelines_under_test.mutants import MUTANTS
from pipelines_under_test.mutants.registry import Mutant

NO_DEDUP = MUTANTS["no-dedup"]  # caught by duplicate_rate in lost-acks
LATE = MUTANTS["late-dropped"]  # caught by no_loss in steady, which has no faults
SLOW = MUTANTS["blind-increment"]  # within three runs


def trial(
    mutant: Mutant = NO_DEDUP, verdict: str = "pass", *violated: str, schedule: str = "own", seed: int = 7
) -> Trial:
    if violated:
        verdict = "violation"
    reasons = ("faults_effective: it did not bite",) if verdict in ("inconclusive", "failed") else ()
    return Trial(
        mutant.name, mutant.scenario, schedule, "process", seed, verdict, violated, reasons, 40.0, f"out/{seed}"
    )


def row(mutant: Mutant, *trials: Trial, most: int = 0) -> Row:
    found = row_of(mutant, trials, most or mutant.runs)
    assert found is not None
    return found


# ----------------------------------------------------------------------------------------------------- the mutants


@pytest.mark.parametrize(
    ("trials", "outcome"),
    [
        ([trial(NO_DEDUP, "", "duplicate_rate")], "caught"),
        ([trial(NO_DEDUP, "", "no_loss", "duplicate_rate")], "caught"),
        ([trial(NO_DEDUP, "", "no_loss")], "by another"),
        ([trial()], "missed"),
        ([trial(NO_DEDUP, "inconclusive")], "inconclusive"),
        ([trial(NO_DEDUP, "inconclusive"), trial()], "missed"),
        ([trial(NO_DEDUP, "inconclusive"), trial(NO_DEDUP, "inconclusive")], "inconclusive"),
        ([trial(NO_DEDUP, "inconclusive"), trial(NO_DEDUP, "failed")], "failed"),
        ([trial(NO_DEDUP, "failed"), trial(NO_DEDUP, "", "duplicate_rate")], "caught"),
    ],
)
def test_how_a_mutant_came_out(trials: list[Trial], outcome: str) -> None:
    assert row(NO_DEDUP, *trials).outcome == outcome


def test_a_mutant_that_needs_several_runs_is_missed_only_after_all_of_them() -> None:
    assert SLOW.runs == 3
    assert row(SLOW, trial(SLOW), trial(SLOW)).outcome == "inconclusive", "it was interrupted: nothing is said yet"
    assert row(SLOW, trial(SLOW), trial(SLOW), trial(SLOW)).outcome == "missed"
    found = row(SLOW, trial(SLOW), trial(SLOW, "", "no_loss", "duplicate_rate"))
    assert (found.outcome, found.runs, found.seconds, found.by) == ("caught", 2, 80.0, ("duplicate_rate", "no_loss"))


def test_runs_go_on_until_it_is_caught_or_they_are_used_up() -> None:
    def wants(*trials: Trial, most: int = SLOW.runs) -> bool:
        return wants_another_run(SLOW, trials, most)

    missed, blind = trial(SLOW), trial(SLOW, "inconclusive")
    assert wants()
    assert wants(missed, missed)
    assert wants(trial(SLOW, "", "no_loss")), "another assertion found something; the right one may yet"
    assert not wants(missed, missed, missed)
    assert not wants(missed, trial(SLOW, "", "duplicate_rate"))
    assert wants(blind), "a run that could not say is made again"
    assert wants(blind, missed, missed)
    assert not wants(blind, missed, missed, missed)
    assert not wants(blind, blind), "once"
    assert not wants(missed, most=1)


def test_runs_of_other_mutants_and_without_faults_say_nothing_of_a_mutant() -> None:
    assert row_of(NO_DEDUP, [trial(LATE), trial(schedule="none")], 1) is None
    found = row(NO_DEDUP, trial(NO_DEDUP, "", "duplicate_rate"), trial(schedule="none"), trial(LATE, "", "no_loss"))
    assert (found.runs, found.without_faults, found.by) == (1, "pass", ("duplicate_rate",))


def test_without_faults() -> None:
    caught = trial(NO_DEDUP, "", "duplicate_rate")
    assert row(NO_DEDUP, caught).without_faults is None, "it was not asked"
    assert row(NO_DEDUP, caught, trial(schedule="none")).without_faults == "pass"
    assert row(NO_DEDUP, caught, trial(NO_DEDUP, "", "no_loss", schedule="none")).without_faults == "caught"
    assert row(NO_DEDUP, caught, trial(NO_DEDUP, "inconclusive", schedule="none")).without_faults == "inconclusive"
    assert row(LATE, trial(LATE, "", "no_loss")).without_faults == "caught", "its scenario has no faults"
    under_fire = trial(LATE, "", "no_loss", schedule="random")
    assert row(LATE, under_fire).without_faults is None


def quiet(*verdicts: str) -> list[Row]:
    return [row(NO_DEDUP, trial(NO_DEDUP, "", "duplicate_rate"), *( [trial(NO_DEDUP, v, schedule="none")] if v else []))
            for v in verdicts]  # fmt: skip


def test_at_least_half_must_pass_without_faults() -> None:
    assert enough_pass_without_faults(quiet("pass", "violation")) is True
    assert enough_pass_without_faults(quiet("pass", "violation", "violation")) is False
    assert enough_pass_without_faults(quiet("pass", "inconclusive", "violation")) is False
    assert enough_pass_without_faults(quiet("pass", "")) is None
    assert enough_pass_without_faults([]) is None


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["caught", "caught"], "pass"),
        (["caught", "missed"], "violation"),
        (["caught", "by another"], "violation"),
        (["inconclusive", "missed", "failed"], "violation"),
        (["inconclusive", "failed"], "failed"),
        (["caught", "inconclusive"], "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_the_verdict_of_a_zoo(outcomes: list[str], verdict: str) -> None:
    rows = [Row(NO_DEDUP, outcome, 1, 1.0, (), None, ()) for outcome in outcomes]
    assert summary_of_mutants(rows, whole=True)["verdict"] == verdict


def test_a_zoo_that_any_test_would_catch_is_not_good_enough() -> None:
    rows = quiet("violation", "violation", "pass")
    assert summary_of_mutants(rows, whole=True)["verdict"] == "violation"
    assert summary_of_mutants(rows, whole=False)["verdict"] == "pass", "of some of them it says nothing"


# ----------------------------------------------------------------------------------------------------- the healthy


def test_the_rule_of_three() -> None:
    assert upper_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert 0.029 < upper_bound(0, 100) < 0.03
    assert upper_bound(0, 1) == pytest.approx(0.95)
    assert upper_bound(0, 0) == upper_bound(3, 3) == 1.0


@given(st.integers(0, 30), st.integers(1, 300))
def test_the_bound_is_the_rate_at_which_so_few_would_be_a_rarity(events: int, runs: int) -> None:
    """By definition, with the binomial distribution counted out another way; and published values below."""
    bound = upper_bound(min(events, runs), runs)
    if events >= runs:
        assert bound == 1.0
        return
    tail, term = 0.0, (1 - bound) ** runs
    for k in range(events + 1):
        tail += term
        term *= (runs - k) / (k + 1) * bound / (1 - bound)
    assert tail == pytest.approx(0.05, abs=1e-6)
    assert bound > events / runs
    assert upper_bound(events, runs + 1) < bound


@pytest.mark.parametrize(("events", "runs", "bound"), [(1, 10, 0.3942), (2, 20, 0.2826), (5, 100, 0.1023)])
def test_the_bound_is_that_of_clopper_and_pearson(events: int, runs: int, bound: float) -> None:
    """Beta quantiles at 95 %, one-sided, from tables."""
    assert upper_bound(events, runs) == pytest.approx(bound, abs=1e-4)


def healthy(**count: int) -> dict[str, Any]:
    return summary_of_healthy([trial(verdict=v, seed=i) for v, n in count.items() for i in range(n)])


@pytest.mark.parametrize(
    ("count", "verdict"),
    [
        ({"pass": 5}, "pass"),
        ({"pass": 5, "inconclusive": 1}, "inconclusive"),
        ({"pass": 5, "inconclusive": 1, "failed": 1}, "failed"),
        ({"pass": 5, "failed": 1, "violation": 1}, "violation"),
        ({}, "inconclusive"),
    ],
)
def test_the_verdict_of_healthy_runs(count: dict[str, int], verdict: str) -> None:
    assert healthy(**count)["verdict"] == verdict


def test_what_clean_runs_prove_is_said_with_its_bound() -> None:
    told = in_words(healthy(**{"pass": 100}))
    assert "100 conclusive runs without a false alarm" in told
    assert "at 95 % confidence, a rate below 3.0 %" in told
    assert "9.6 %" in in_words(healthy(**{"pass": 30})), "1 - 0.05 ** (1/30) is 9.503 %, never rounded down"
    assert "1 of 20 conclusive runs raised an alarm" in in_words(healthy(**{"pass": 19, "violation": 1}))
    assert in_words(healthy(inconclusive=3)).startswith("No run came to a conclusion")
    assert "2 could not say" in in_words(healthy(**{"pass": 10, "inconclusive": 2}))


def test_runs_that_did_not_pass_keep_their_folder() -> None:
    assert healthy(**{"pass": 2, "inconclusive": 1})["kept"] == ["out/0"]


# ------------------------------------------------------------------------------------------------------- the loop


class Session:
    """Stands for real runs: what each comes to, by the scenario that is asked for."""

    def __init__(self, answer: Callable[[Scenario], str | Exception]) -> None:
        self.answer, self.asked = answer, []  # type: ignore[var-annotated]

    def run(self, scenario: Scenario, out: Path, listeners: Any = ()) -> Outcome:
        drawn = scenario.drawn("process")
        self.asked.append(drawn)
        answer = self.answer(drawn)
        if isinstance(answer, BaseException):
            raise answer
        folder = out / f"run-{len(self.asked)}"
        folder.mkdir(exist_ok=True)
        kind = "violation" if answer not in ("pass", "inconclusive") else answer
        finding = {"assertion": answer if kind == "violation" else "no_loss", "verdict": kind, "summary": "so it is"}
        verdict = {"verdict": kind, "run": str(folder), "pipeline": scenario.pipeline.name, "scenario": scenario.name,
                   "backend": "process", "seed": scenario.seed, "findings": [finding], "faults": []}  # fmt: skip
        return Outcome(verdict, folder)

    def prepare(self, pipeline: Any) -> Any:
        return type("Backend", (), {"name": "process"})


def opened(
    tmp_path: Path, answer: Callable[[Scenario], str | Exception], resume: bool = False
) -> tuple[Zoo, list[str]]:
    told: list[str] = []
    session: Any = Session(answer)
    return Zoo.opened(session, tmp_path / "zoo.jsonl", {"seed": 7}, resume, told.append, lambda event: None), told


def run_all(
    zoo: Zoo, *mutants: Mutant, runs: int | None = None, schedule: str = "own", without: bool = False
) -> list[Row]:
    return list(zoo.run_mutants(mutants, runs=runs, seed=7, schedule=schedule, without_faults=without))


def test_a_mutant_is_run_until_it_is_caught(tmp_path: Path) -> None:
    zoo, told = opened(tmp_path, lambda s: "pass" if s.seed == 7 else "duplicate_rate")
    (found,) = run_all(zoo, SLOW)
    assert (found.outcome, found.runs) == ("caught", 2)
    assert [s.seed for s in zoo.session.asked] == [7, 8]  # type: ignore[attr-defined]
    assert "[1/1]" in told[0]
    assert "not caught" in told[0]
    assert "caught by duplicate_rate" in told[1]


def test_at_most_as_many_runs_as_were_asked_for(tmp_path: Path) -> None:
    zoo, _ = opened(tmp_path, lambda s: "pass")
    assert run_all(zoo, SLOW, runs=2)[0].outcome == "missed"
    assert len(zoo.trials) == 2


def test_a_run_that_could_not_say_is_made_again_with_the_same_seed(tmp_path: Path) -> None:
    answers = iter(["inconclusive", "duplicate_rate"])
    zoo, told = opened(tmp_path, lambda s: next(answers))
    assert run_all(zoo, NO_DEDUP)[0].outcome == "caught"
    assert [s.seed for s in zoo.session.asked] == [7, 7]  # type: ignore[attr-defined]
    assert "inconclusive (no_loss: so it is)" in told[0]


@pytest.mark.parametrize("error", [HarnessFault("no port"), NothingArrives("nothing came\nthe log")])
def test_a_run_that_fails_is_told_and_does_not_end_the_zoo(tmp_path: Path, error: Exception) -> None:
    zoo, told = opened(tmp_path, lambda s: error if s.pipeline.name == "no-dedup" else "no_loss")
    rows = run_all(zoo, NO_DEDUP, LATE)
    assert [found.outcome for found in rows] == ["failed", "caught"]
    assert str(error).splitlines()[0] in told[0]
    assert summary_of_mutants(rows, whole=False)["verdict"] == "failed"


def test_faults_are_left_out_or_drawn_as_asked(tmp_path: Path) -> None:
    zoo, _ = opened(tmp_path, lambda s: "duplicate_rate" if s.faults else "pass")
    (found,) = run_all(zoo, NO_DEDUP, schedule="random", without=True)
    drawn, none = zoo.session.asked  # type: ignore[attr-defined]
    assert (drawn.schedule_seed, bool(drawn.faults)) == (7, True)
    assert (none.schedule_seed, none.faults) == (None, ())
    assert (found.outcome, found.without_faults) == ("caught", "pass")


def test_without_faults_is_not_run_again_where_there_are_none(tmp_path: Path) -> None:
    zoo, _ = opened(tmp_path, lambda s: "no_loss")
    assert run_all(zoo, LATE, without=True)[0].without_faults == "caught"
    assert len(zoo.trials) == 1


def test_healthy_runs_take_one_seed_after_the_other_and_keep_what_did_not_pass(tmp_path: Path) -> None:
    zoo, told = opened(tmp_path, lambda s: "inconclusive" if s.seed == 102 else "pass")
    from harness import catalog

    base = catalog.scenario(catalog.DEFAULT_SCENARIO)
    zoo.run_healthy(base, 3, 100)
    asked = zoo.session.asked  # type: ignore[attr-defined]
    assert [(s.seed, s.schedule_seed) for s in asked] == [(100, 100), (101, 101), (102, 102)]
    assert asked[0].faults != asked[1].faults
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-3", "zoo.jsonl"]
    assert "kept: " in told[2]
    zoo.run_healthy(base, 4, 100)
    assert len(zoo.session.asked) == 4, "what is done is not done again"  # type: ignore[attr-defined]


def test_an_interrupted_zoo_is_taken_up_where_it_was(tmp_path: Path) -> None:
    def interrupted(s: Scenario) -> str | Exception:
        return "duplicate_rate" if s.pipeline.name == "no-dedup" else KeyboardInterrupt()  # type: ignore[return-value]

    zoo, _ = opened(tmp_path, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_all(zoo, NO_DEDUP, LATE)
    with (tmp_path / "zoo.jsonl").open("a") as journal:
        journal.write('{"pipeline": "torn')
    again, _ = opened(tmp_path, lambda s: "no_loss", resume=True)
    assert [found.outcome for found in run_all(again, NO_DEDUP, LATE)] == ["caught", "caught"]
    assert [s.pipeline.name for s in again.session.asked] == ["late-dropped"]  # type: ignore[attr-defined]


def test_a_new_zoo_does_not_wipe_out_an_old_one(tmp_path: Path) -> None:
    zoo, _ = opened(tmp_path, lambda s: "duplicate_rate")
    run_all(zoo, NO_DEDUP)
    told = zoo.journal.read_text()
    again, _ = opened(tmp_path, lambda s: "pass")
    assert again.trials == []
    assert (tmp_path / "zoo.before").read_text() == told


def test_a_journal_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    journal = tmp_path / "zoo.jsonl"
    with pytest.raises(UsageError, match="leave --resume away"):
        read_journal(journal, {})
    journal.write_text(json.dumps({"asked": {"seed": 8}}) + "\n")
    assert read_journal(journal, {"seed": 8}) == []
    with pytest.raises(UsageError, match="was made with seed 8, not 7"):
        read_journal(journal, {"seed": 7})
    for damaged in ("", "{}\n", "no json\n", '{"asked": {}}\n{"colour": 1}\n'):
        journal.write_text(damaged)
        with pytest.raises(UsageError, match="not the journal"):
            read_journal(journal, {})


def test_a_trial_survives_being_saved(tmp_path: Path) -> None:
    zoo, _ = opened(tmp_path, lambda s: "duplicate_rate")
    one = zoo.make(Plan(plan_of_mutant(NO_DEDUP, "own", 7).scenario, "own"))
    assert read_journal(zoo.journal, {}) == [one]


def test_mutants_by_name() -> None:
    assert mutants_named([], MUTANTS) == list(MUTANTS.values())
    assert mutants_named(["no-dedup", "no-dedup"], MUTANTS) == [NO_DEDUP]
    with pytest.raises(UsageError, match="Did you mean 'no-dedup'"):
        mutants_named(["no-dedupe"], MUTANTS)


# ------------------------------------------------------------------------------------------------ how it is shown


def rendered(thing: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


ROWS = [
    row(NO_DEDUP, trial(NO_DEDUP, "", "duplicate_rate", "batch_parity"), trial(schedule="none")),
    row(LATE, trial(LATE)),
]


def test_the_table_shows_who_caught_what() -> None:
    text = rendered(shown.table_of_mutants(ROWS, summary_of_mutants(ROWS, whole=True)))
    assert shown.columns_of(ROWS) == [
        name for name in shown.ASSERTIONS if name in ("no_loss", "duplicate_rate", "batch_parity")
    ]
    caught = next(line for line in text.splitlines() if "no-dedup" in line)
    assert ("●" in caught, "○" in caught, "caught" in caught, "pass" in caught) == (True, True, True, True)
    missed = next(line for line in text.splitlines() if "late-dropped" in line)
    assert ("-" in missed.replace("late-dropped", ""), "missed" in missed) == (True, True)
    assert "1 of 2 mutants were caught" in text
    assert "1 missed." in text


def test_why_a_mutant_could_not_be_judged_is_told() -> None:
    rows = [row(NO_DEDUP, trial(NO_DEDUP, "inconclusive"))]
    assert "no-dedup: faults_effective: it did not bite" in rendered(
        shown.table_of_mutants(rows, summary_of_mutants(rows, whole=False))
    )


def test_healthy_runs_that_did_not_pass_are_listed_with_their_reason() -> None:
    text = rendered(shown.lines_of_healthy(healthy(**{"pass": 3, "inconclusive": 1})))
    assert "seed 0: inconclusive\n  faults_effective: it did not bite\n  out/0\n" in text
    assert "3 conclusive runs" in text
    assert "seed" not in rendered(shown.lines_of_healthy(healthy(**{"pass": 3})))


def test_the_page_is_written_whole_or_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "zoo.md"
    text = shown.markdown_of_mutants(ROWS, summary_of_mutants(ROWS, whole=True), "Backend process.")
    shown.write_page(page, text)
    first = page.read_text()
    assert first.startswith("# The zoo\n")
    assert "| `no-dedup` |" in first
    assert f"| [in the wild]({NO_DEDUP.seen_at}) |" in first
    rows = [line for line in first.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1, "as many cells in each row"
    page.write_text(f"before\n{first}\nafter\n")
    shown.write_page(page, "another table")
    assert "another table" in page.read_text()
    assert "no-dedup`" not in page.read_text()
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("\nafter\n")


def test_a_page_without_a_place_for_the_table_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("all my thoughts")
    for do in (
        lambda: shown.write_page(page, "table"),
        lambda: shown.check_page(page),
        lambda: shown.check_page(tmp_path),
    ):
        with pytest.raises(UsageError, match="has no place for the table"):
            do()
    assert page.read_text() == "all my thoughts"
    shown.check_page(tmp_path / "new.md")


# ------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no-dedupe"], "Did you mean 'no-dedup'"),
        (["--runs", "0"], "--runs must be 1 or more"),
        (["--healthy", "0"], "--healthy must be 1 run or more"),
        (["--healthy", "2", "no-dedup"], "MUTANT is about mutants"),
        (["--healthy", "2", "--without-faults"], "--without-faults is about mutants"),
        (["--healthy", "2", "--schedule", "random"], "--schedule is about mutants"),
        (["--rate", "100"], "--rate needs --healthy"),
        (["--schedule", "none"], "There is no schedule 'none'"),
        (["--healthy", "2", "--seconds", "2"], "too short for a random schedule"),
        (["--healthy", "2", "--pipeline", "kapa"], "Did you mean 'kappa'"),
        (["--docs", "README.md"], "has no place for the table"),
        (["--out", "/proc/nowhere"], "Take another --out"),
    ],
)
def test_bad_input_is_a_usage_error_before_anything_starts(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["zoo", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Scenario], str | Exception]], Session]:
    def pretend(answer: Callable[[Scenario], str | Exception]) -> Session:
        session = Session(answer)

        class Opened:
            def __init__(self, backend: str) -> None: ...
            def __enter__(self) -> Session:
                return session

            def __exit__(self, *_: object) -> None: ...

        monkeypatch.setattr("harness.session.Session", Opened)
        return session

    return pretend


def test_exit_status_and_json(pretended: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretended(lambda s: "duplicate_rate")
    page = tmp_path / "zoo.md"
    assert cli.main(["zoo", "no-dedup", "fresh-uuid", "--json", "--out", str(tmp_path), "--docs", str(page)]) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert (answer["verdict"], answer["seed"]) == ("pass", 7)
    assert answer["matrix"] == {
        "no-dedup": {"duplicate_rate": "violation"},
        "fresh-uuid": {"duplicate_rate": "violation"},
    }
    assert [(m["mutant"], m["outcome"], m["runs"]) for m in answer["mutants"]] == [
        ("no-dedup", "caught", 1),
        ("fresh-uuid", "caught", 1),
    ]
    assert "2 of 2 mutants were caught" in told.err
    assert "[2/2]" in told.err
    assert "`fresh-uuid`" in page.read_text()
    pretended(lambda s: "pass")
    assert cli.main(["zoo", "no-dedup", "--out", str(tmp_path)]) == 1
    assert "1 missed" in capsys.readouterr().out
    pretended(lambda s: "inconclusive")
    assert cli.main(["zoo", "no-dedup", "--out", str(tmp_path)]) == 3
    pretended(lambda s: HarnessFault("no port"))
    assert cli.main(["zoo", "no-dedup", "--out", str(tmp_path)]) == 4


def test_the_seed_given_arrives(pretended: Any, tmp_path: Path) -> None:
    session = pretended(lambda s: "pass")
    assert cli.main(["zoo", "--healthy", "2", "--seed", "40", "--rate", "500", "--out", str(tmp_path)]) == 0
    assert [(s.seed, s.schedule_seed, s.load.rate) for s in session.asked] == [(40, 40, 500), (41, 41, 500)]


def test_an_interruption_loses_nothing(pretended: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretended(lambda s: "pass" if s.seed == 7 else KeyboardInterrupt())
    assert cli.main(["zoo", "--healthy", "9", "--out", str(tmp_path)]) == 130
    assert "1 conclusive runs without a false alarm" in capsys.readouterr().out
    session = pretended(lambda s: "pass")
    assert cli.main(["zoo", "--healthy", "2", "--resume", "--out", str(tmp_path), "--json"]) == 0
    assert [s.seed for s in session.asked] == [8]
    assert json.loads(capsys.readouterr().out)["runs"] == 2
