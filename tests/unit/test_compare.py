"""A comparison of two versions: the verdict, its folder, going on after a crash, the page, and asking for it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from saved_run import World

from assertions import duplicate_rate, latency, no_loss, recovery
from assertions.judge import judge
from harness import cli
from harness.compare import comparison
from harness.compare.command import asked_by
from harness.compare.comparison import FIRST_LOOK, MOST_PAIRS, Asked, Comparison, State, begun, order
from harness.compare.measures import MEASURES, adjusted, figures
from harness.compare.release import BASELINE, CANDIDATE, Made, release, seen_enough
from harness.compare.versions import Tree, Version
from harness.report.compare import page_of, repeat_command
from harness.run import Outcome
from harness.run_folder import under_way
from harness.store import SavedRun
from harness.topology import UsageError
from pipelines_under_test.kappa.pipeline import kappa

USUAL = {"duplicates": 5.0, "p99": 2.0, "steady-p99": 0.2, "throughput": 2000.0, "recovery": 3.0}


def runs(
    pairs: int = 8,
    change: Callable[[Made], Made] = lambda made: made,
    noise: float = 0.05,
    seed: int = 1,
    **factors: float,
) -> list[Made]:
    """Runs of two versions of which the candidate's figures are so many times the baseline's."""
    rng = np.random.default_rng(seed)
    made = []
    for pair in range(1, pairs + 1):
        for side in order(pair):
            figures = {
                key: value
                * float(np.exp(rng.normal(0, noise)))
                * (factors.get(key.replace("-", "_"), 1) if side == CANDIDATE else 1)
                for key, value in USUAL.items()
            }
            made.append(change(Made(pair, side, 1, pair, "pass", f"{pair}-{side}", figures)))
    return made


def told(made: Sequence[Made], asked: int = 8, known: Sequence[str] = (), **bounds: dict[str, float]) -> dict[str, Any]:
    return release(made, adjusted(bounds.get("tolerance", {}), bounds.get("visible", {})), asked, known)


def of(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return next(f for f in answer["findings"] if f["assertion"] == name)


def changed(pair: int, side: str, **changes: Any) -> Callable[[Made], Made]:
    return lambda m: dataclasses.replace(m, **changes) if (m.pair, m.side) == (pair, side) else m


# ---------------------------------------------------------------------------------------------------- how many pairs


def test_enough_is_seen_where_pairs_scatter_little_however_far_the_versions_are_apart() -> None:
    measures = adjusted({}, {})
    for factors in ({}, {"p99": 1.3}, {"p99": 5.0, "recovery": 0.1}):
        assert seen_enough(runs(8, **factors), measures), factors
        assert not seen_enough(runs(8, noise=0.6, **factors), measures), factors
    assert not seen_enough(runs(8, noise=0.12), measures)
    assert seen_enough(runs(24, noise=0.12), measures), "more pairs see smaller differences"
    assert not seen_enough(runs(6), measures), "of six pairs nothing can be claimed"
    assert not seen_enough(runs(8), adjusted({}, {"p99": 1.01})), "a small difference must be visible"


def test_what_a_version_never_shows_is_not_waited_for_and_what_it_shows_seldom_is() -> None:
    for without, enough in ((range(0), True), (range(1, 9), True), (range(1, 4), False)):
        made = [
            dataclasses.replace(m, figures={**m.figures, "p99": None})
            if m.side == CANDIDATE and m.pair in without
            else m
            for m in runs(8)
        ]
        assert seen_enough(made, adjusted({}, {})) is enough, without


def test_pairs_are_made_until_enough_is_seen() -> None:
    for noise, first, pairs in ((0.05, None, FIRST_LOOK), (0.6, (9, BASELINE, 1), MOST_PAIRS)):
        state = State(asked(pairs=MOST_PAIRS, enough=True), "tag", "now", "process", runs(FIRST_LOOK, noise=noise))
        assert (state.next(), state.pairs()) == (first, pairs)
        state.runs.pop()
        assert state.next() == (FIRST_LOOK, order(FIRST_LOOK)[1], 1), "a pair is made whole"
    state.runs = runs(MOST_PAIRS, noise=2.0)
    assert (state.next(), state.pairs()) == (None, MOST_PAIRS)
    state.runs = runs(7)
    assert state.next() == (8, order(8)[0], 1), "not before the first look"
    state.asked = asked(pairs=10)
    state.runs = runs(8)
    assert (state.next(), state.pairs()) == ((9, BASELINE, 1), 10), "a number that was asked for is made"


def test_the_command_asks_for_a_number_of_pairs_or_for_enough() -> None:
    for words, pairs, enough in (([], MOST_PAIRS, True), (["--pairs", "9"], 9, False)):
        args = cli._parser().parse_args(["compare", "kappa", "kappa", *words])
        found = asked_by(args)
        assert (found.pairs, found.enough) == (pairs, enough)
        assert ("--pairs 9" in repeat_command(found.as_dict())) is not enough


# ----------------------------------------------------------------------------------------------------- the verdict


def test_equal_versions_pass_and_are_told_how_small_a_difference_could_have_been_seen() -> None:
    answer = told(runs())
    assert answer["verdict"] == "pass"
    assert {line["status"] for line in answer["measures"]} == {"no difference seen"}
    for measure in MEASURES:
        assert "could not have been seen" in of(answer, measure.key)["summary"]


@pytest.mark.parametrize(
    ("factors", "measure"),
    [
        ({"p99": 2}, "p99"),
        ({"recovery": 2.3}, "recovery"),
        ({"throughput": 0.7}, "throughput"),
        ({"duplicates": 2}, "duplicates"),
    ],
)
def test_a_worse_measure_is_refused_and_the_same_the_other_way_round_is_better(
    factors: dict[str, float], measure: str
) -> None:
    answer = told(runs(**factors))
    assert answer["verdict"] == "violation"
    assert [f["assertion"] for f in answer["findings"] if f["verdict"] == "violation"] == [measure]
    answer = told(runs(**{key: 1 / factor for key, factor in factors.items()}))
    assert (answer["verdict"], next(x for x in answer["measures"] if x["measure"] == measure)["status"]) == (
        "pass",
        "better",
    )


def test_a_small_difference_that_is_sure_is_told_and_not_refused() -> None:
    answer = told(runs(p99=1.1, noise=0.01))
    assert answer["verdict"] == "pass"
    assert of(answer, "p99")["summary"].startswith("worse")
    assert "within the tolerance of 1.25 x" in of(answer, "p99")["summary"]
    assert told(runs(p99=1.1, noise=0.01), tolerance={"p99": 1.05})["verdict"] == "violation"


def test_where_a_large_difference_could_have_gone_unseen_it_is_no_pass() -> None:
    answer = told(runs(noise=1.0))
    assert answer["verdict"] == "inconclusive"
    assert "pairs would do" in of(answer, "p99")["summary"]
    wide = {m.key: 1000.0 for m in MEASURES}
    assert told(runs(noise=1.0), visible=wide)["verdict"] == "pass"


def test_one_violation_of_a_new_kind_refuses_and_one_that_the_baseline_shows_too_is_said() -> None:
    lost = changed(3, CANDIDATE, verdict="violation", violated=("no_loss",))
    answer = told(runs(change=lost))
    assert answer["verdict"] == "violation"
    assert "no_loss in 1 of 8 runs of the candidate and in none of 8" in of(answer, "violations")["summary"]
    both = changed(5, BASELINE, verdict="violation", violated=("no_loss",))
    answer = told(runs(change=lambda m: both(lost(m))))
    assert (answer["verdict"], of(answer, "violations")["verdict"]) == ("inconclusive", "inconclusive")
    assert "both versions are wrong" in of(answer, "violations")["summary"]
    assert told(runs(change=lambda m: both(lost(m))), known=["no_loss"])["verdict"] == "pass"
    answer = told(runs(change=both))
    assert answer["verdict"] == "pass"
    assert "the baseline is wrong" in of(answer, "violations")["summary"]


def test_pairs_without_a_verdict_are_left_out_and_too_few_are_inconclusive() -> None:
    blind = changed(2, BASELINE, verdict="inconclusive", attempt=2, reasons=("taps_complete: a gap",))
    answer = told(runs(change=blind))
    assert (answer["verdict"], answer["pairs"], answer["dropped"]) == ("pass", 7, [2])
    more = changed(4, CANDIDATE, verdict="inconclusive", attempt=2)
    answer = told(runs(change=lambda m: more(blind(m))))
    assert (answer["verdict"], of(answer, "pairs")["verdict"]) == ("inconclusive", "inconclusive")
    assert told([])["verdict"] == "inconclusive"


def test_what_only_one_version_shows_is_inconclusive_and_what_neither_shows_is_said() -> None:
    def without(key: str, *sides: str) -> Callable[[Made], Made]:
        import dataclasses

        return lambda m: dataclasses.replace(m, figures={**m.figures, key: None}) if m.side in sides else m

    answer = told(runs(change=without("recovery", CANDIDATE)))
    assert of(answer, "recovery")["verdict"] == "inconclusive"
    answer = told(runs(change=without("recovery", BASELINE, CANDIDATE)))
    assert answer["verdict"] == "pass"
    assert next(x for x in answer["measures"] if x["measure"] == "recovery")["status"] == "not compared"


def test_a_fault_that_nobody_saw_recovered_leaves_no_flattering_mean(tmp_path: Path) -> None:
    run = SavedRun.load(world().save(tmp_path).path)

    def recovery_of(*took: float | None) -> float | None:
        finding = {"assertion": "recovery", "figures": {"faults": [{"recovered_s": t} for t in took]}}
        return figures({**judge(run), "findings": [finding]}, run)["recovery"]

    assert recovery_of(2.0, 4.0) == 3.0
    assert recovery_of(2.0, None) is None


# -------------------------------------------------------------------------------------- the folder, and going on


CLAIMS = (no_loss(), duplicate_rate("published", most=1), duplicate_rate("aggregates"), latency(), recovery())


def world(delay: float = 0.2, lose: int = 0, gap: bool = False) -> World:
    made = World(assertions=[{"assertion": a.name, "params": a.params()} for a in CLAIMS])
    made.delay["aggregates"][:] = delay
    made.lose("aggregates", *made.sound[:lose])
    if gap:
        made.uncertified["source"] = "a gap"
    return made


class Session:
    """Stands for real runs: saves worlds, each judged as a run is."""

    def __init__(self, make: Callable[[str, int], World], crash_at: int = -1) -> None:
        self.make, self.crash_at, self.ran = make, crash_at, list[str]()
        self.backend = "process"
        self.processes = SimpleNamespace(temp=Path(tempfile.gettempdir()))

    def prepare(self, pipeline: Any) -> Any:
        where = {"process": "as processes", "docker": "in containers"}[self.backend]
        return SimpleNamespace(name=self.backend, where=where, refuses=lambda fault, pipeline: None)

    def run(self, scenario: Any, out: Path, listeners: Sequence[Any] = (), notes: Sequence[str] = ()) -> Outcome:
        if len(self.ran) == self.crash_at:
            raise KeyboardInterrupt
        self.ran.append(scenario.name)
        path = self.make(scenario.name, len(self.ran)).save(out).path
        path = path.rename(path.with_name(f"{len(self.ran):02d}-{scenario.name}-{scenario.seed}"))
        return Outcome(judge(SavedRun.load(path)), path)


def compared(folder: Path, state: State, session: Session) -> dict[str, Any]:
    with Comparison.opened(folder, state, session, lambda text: None) as one:  # type: ignore[arg-type]
        return one.run()


def asked(**changes: Any) -> Asked:
    return Asked(
        **{"baseline": Version("kappa"), "candidate": Version("kappa"), "pairs": 7, "schedule": "none", **changes}
    )


def healthy(name: str, number: int) -> World:
    return world(delay=0.2 + 0.001 * (number * 7 % 5))


def test_pairs_alternate_a_crash_loses_nothing_and_judging_again_says_the_same(tmp_path: Path) -> None:
    folder, state = begun(asked(), tmp_path)
    first = Session(healthy, crash_at=7)
    with pytest.raises(KeyboardInterrupt):
        compared(folder, state, first)
    assert cli.main(["check", str(folder)]) == 3
    assert cli.main(["report", str(folder)]) == 3
    assert "did not come to its end" in (folder / "report.html").read_text()
    second = Session(healthy)
    verdict = compared(folder, State.load(folder), second)
    names = [name for name in first.ran + second.ran if name.startswith("pair")]
    assert names == [f"pair-{pair:02d}-{side}" for pair in range(1, 8) for side in order(pair)]
    assert verdict["verdict"] == "pass", verdict["findings"]
    assert [int(run["folder"].rsplit("-", 1)[1]) for run in verdict["runs"]] == [7 + (i // 2) for i in range(14)]
    assert comparison.judge_again(folder) == verdict
    assert cli.main(["check", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "gauntlet compare kappa kappa" in page
    assert page.count("report.html") >= 14
    assert 'failures="0"' in (folder / "junit.xml").read_text()
    hop = next(next(folder.glob("*pair-02-candidate*")).glob("hops/published.parquet"))
    sound = hop.read_bytes()
    hop.write_bytes(sound[:-1] + b"?")
    assert cli.main(["check", str(folder)]) == 4, "the runs are judged again, and not what was written down of them"
    hop.write_bytes(sound)
    assert cli.main(["check", str(folder)]) == 0
    victim = next(folder.glob("*pair-03-baseline*"))
    shutil.rmtree(victim)
    assert cli.main(["check", str(folder)]) == 4


def test_a_new_violation_ends_it_with_its_pair_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def losing(name: str, number: int) -> World:
        return world(lose=1 if name == "pair-02-candidate" else 0)

    folder, state = begun(asked(), tmp_path)
    session = Session(losing)
    verdict = compared(folder, state, session)
    assert session.ran[-2:] == ["pair-02-candidate", "pair-02-baseline"]
    assert verdict["verdict"] == "violation"
    assert cli.main(["check", str(folder), "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["findings"][0]["examples"][0]["pair"] == 2
    assert "a new kind of violation: no_loss" in said.err


def test_a_doubled_latency_is_refused_from_saved_runs(tmp_path: Path) -> None:
    def slow(name: str, number: int) -> World:
        return world(delay=(0.4 if "candidate" in name else 0.2) + 0.001 * (number * 7 % 5))

    folder, state = begun(asked(), tmp_path)
    verdict = compared(folder, state, Session(slow))
    assert [f["assertion"] for f in verdict["findings"] if f["verdict"] == "violation"] == ["p99", "steady-p99"]


def test_a_run_that_cannot_say_is_made_once_more(tmp_path: Path) -> None:
    seen: list[str] = []

    def unsure(name: str, number: int) -> World:
        seen.append(name)
        return world(gap=name == "pair-01-baseline")

    folder, state = begun(asked(pairs=7), tmp_path)
    verdict = compared(folder, state, Session(unsure))
    assert seen.count("pair-01-baseline") == 2
    assert (verdict["verdict"], verdict["dropped"]) == ("inconclusive", [1])


@pytest.mark.parametrize(
    ("backend", "candidate", "why"),
    [
        ("docker", Version("kappa@v2", commit="0" * 40), "build one of v2 and name it with --candidate-image"),
        ("process", Version("kappa", image=("kappa:2",)), "--candidate-image needs --backend docker"),
    ],
)
def test_a_version_that_this_backend_cannot_run_is_refused(
    tmp_path: Path, backend: str, candidate: Version, why: str
) -> None:
    session = Session(healthy)
    session.backend = backend
    state = State(asked(candidate=candidate), "1a2b3c4d", "")
    both = dict.fromkeys((BASELINE, CANDIDATE), SimpleNamespace(pipeline=kappa))
    with pytest.raises(UsageError, match=why):
        Comparison(tmp_path, state, session, both, print).run()  # type: ignore[arg-type]
    assert session.ran == []


def test_what_goes_on_goes_on_where_it_began(tmp_path: Path) -> None:
    folder, state = begun(asked(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        compared(folder, state, Session(healthy, crash_at=4))
    elsewhere = Session(healthy)
    elsewhere.backend = "docker"
    with pytest.raises(UsageError, match="its runs are of the backend process, and now in containers"):
        compared(folder, State.load(folder), elsewhere)
    assert elsewhere.ran == []


def test_one_version_in_containers_and_the_other_not_is_no_comparison(tmp_path: Path) -> None:
    folder, state = begun(asked(), tmp_path)
    session = Session(healthy)
    backends = [session.prepare(kappa)]
    session.backend = "docker"
    backends.append(session.prepare(kappa))
    session.prepare = lambda pipeline: backends.pop(0)  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=r"\(the baseline as processes, the candidate in containers\). Take the same"):
        compared(folder, state, session)
    assert session.ran == []


def test_nobody_goes_on_with_a_comparison_that_is_under_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = begun(asked(), tmp_path)
    with under_way(folder, "comparison"):
        assert cli.main(["compare", "--resume", str(folder)]) == 2
    assert f"The comparison in {folder} is under way already, in another process." in capsys.readouterr().err


def test_the_page_shows_markup_and_does_not_do_it(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    folder, state = begun(asked(candidate=Version("kappa", env=(f"aggregator.X={evil}",))), tmp_path)
    verdict = comparison.judged(folder, state)
    page = page_of(folder, verdict)
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


# ------------------------------------------------------------------------------------------------- asking for it


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["kappa"], "Name two versions"),
        (["kappa", "kapa"], "Did you mean 'kappa'"),
        (["kappa", "kappa", "--pairs", "6"], "Take 7 or more"),
        (["kappa", "kappa", "--tolerance", "p9=2"], "Did you mean 'p99'"),
        (["kappa", "kappa", "--tolerance", "p99=0.5"], "a factor of 1 or more"),
        (["kappa", "kappa", "--visible", "p99"], "MEASURE=NUMBER"),
        (["kappa", "kappa", "--candidate-env", "X=1"], "WORKER.KEY=VALUE"),
        (["kappa", "kappa", "--candidate-env", "aggregater.X=1"], "Did you mean 'aggregator'"),
        (["kappa", "kappa", "--candidate-command", "converter"], "WORKER=VALUE"),
        (["kappa", "kappa", "--candidate-command", "converter=python 'x"], "cannot be read: No closing quotation"),
        (["kappa", "kappa@no-such-ref"], "no commit 'no-such-ref'"),
        (["kappa", "kappa@"], "PIPELINE@REF"),
        (["kappa", "kappa", "--scenario", "restart"], "Did you mean 'restarts'"),
        (["kappa", "kappa", "--resume", "."], "takes no BASELINE"),
        (["--resume", "."], "is no comparison"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    argv: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *argv, "--out", str(tmp_path)]) == 2
    assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_a_version_has_its_own_environment_command_and_image(tmp_path: Path) -> None:
    version = Version("kappa", ("aggregator.X=a=b",), ("converter=sh -c 'run it'",), ("preprocessor=p:2",))
    found = version.pipeline(tmp_path)
    assert found.worker("aggregator").env["X"] == "a=b"
    assert found.worker("converter").command == ["sh", "-c", "run it"]
    assert [w.image for w in found.workers] == ["p:2", "", ""]
    assert Version.from_dict(version.as_dict()) == version
    command = repeat_command(asked(candidate=version).as_dict())
    assert "--candidate-env aggregator.X=a=b" in command


def test_a_git_ref_is_run_from_a_copy_of_the_repository_at_that_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "repo"
    (top / "app").mkdir(parents=True)
    (top / "app" / "run.sh").write_text("old")

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(top), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "old")
    (top / "app" / "run.sh").write_text("new")
    (top / "later").mkdir()
    monkeypatch.chdir(top / "app")
    pinned = Version("kappa@HEAD").pinned()
    found = pinned.pipeline(tmp_path / "copy")
    worker = found.worker("converter")
    assert worker.cwd is not None
    assert (Path(worker.cwd) / "run.sh").read_text() == "old"
    assert worker.env["PYTHONPATH"].startswith(worker.cwd)
    assert found.batch == kappa.batch, "the truth is not what is compared"
    tree = Tree.laid(pinned.commit, tmp_path / "copy")
    import dataclasses

    moved = tree.moved(dataclasses.replace(kappa.worker("converter"), command=[str(top / "app" / "run.sh")]))
    assert moved.command == [str(tmp_path / "copy" / "app" / "run.sh")]
    with pytest.raises(UsageError, match="not there at that commit"):
        tree.moved(dataclasses.replace(kappa.worker("converter"), cwd=str(top / "later")))


def test_copies_of_a_version_lie_where_the_harness_leaves_nothing_however_it_ends(tmp_path: Path) -> None:
    folder, state = begun(asked(), tmp_path / "out")
    session = Session(healthy)
    session.processes.temp = tmp_path
    with Comparison.opened(folder, state, session, lambda text: None):  # type: ignore[arg-type]
        assert len(list(tmp_path.glob("versions-*"))) == 1
    assert not list(tmp_path.glob("versions-*"))
