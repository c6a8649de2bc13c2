"""Runs of several pipelines side by side: the folder, the verdict of all, the table, the page, the command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from saved_run import HOPS, World

from assertions import batch_parity, duplicate_rate, latency, no_loss
from assertions.base import Assertion
from assertions.judge import judge
from faults import kill
from harness import catalog, cli, side_by_side
from harness.pytest_plugin import Gauntlet, Inconclusive, Violation
from harness.report.comparison import MEASURES
from harness.report.side_by_side import page_of
from harness.run import Outcome
from harness.scenario import Scenario, SideBySide
from harness.store import DamagedRun, SavedRun, UnfinishedRun
from harness.topology import UsageError
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.legacy.pipeline import legacy

CLAIMS: tuple[Assertion, ...] = (
    no_loss(), duplicate_rate("published", most=1), duplicate_rate("aggregates"), batch_parity(least=0.5), latency(),
)  # fmt: skip
EVIL = '<script>alert(1)</script>\x1b[31m & "quoted"'


def world(pipeline: str, change: Callable[[World], object] = lambda world: None, **expected: str) -> World:
    made = World(assertions=[{"assertion": a.name, "params": a.params()} for a in CLAIMS], expected=expected)
    told = made.meta
    made.meta = lambda: (whole := told()) | {"pipeline": whole["pipeline"] | {"name": pipeline}}  # type: ignore[method-assign]
    change(made)
    return made


def losing(made: World) -> None:
    made.lose("aggregates", *made.sound[:7])


class Session:
    """Stands for real runs: saves these worlds, one after another, each judged as a run is."""

    def __init__(self, *worlds: World | BaseException) -> None:
        self.worlds, self.ran = list(worlds), list[str]()

    def run(self, scenario: Scenario, out: Path, listeners: Sequence[Any] = (), notes: Sequence[str] = ()) -> Outcome:
        self.ran.append(scenario.name)
        made = self.worlds.pop(0)
        if isinstance(made, BaseException):
            raise made
        run = made.save(out)
        path = run.path.rename(run.path.with_name(f"{run.path.name}-{scenario.name}"))
        return Outcome(judge(SavedRun.load(path)), path)


LOAD = Steady(rate=200, seconds=10)
SIDE = SideBySide("trial", (Scenario("old", legacy, LOAD), Scenario("new", kappa, LOAD)), about="a trial")


def executed(tmp_path: Path, *worlds: World, side: SideBySide = SIDE) -> Outcome:
    return side_by_side.execute(side, Session(*worlds), tmp_path)  # type: ignore[arg-type]


def table(verdict: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {line["key"]: line["values"] for line in verdict["table"]}


# ----------------------------------------------------------------------------------------------- folder and verdict


def test_the_object_of_the_contract_has_one_object_a_pipeline_and_judging_again_says_the_same(tmp_path: Path) -> None:
    outcome = executed(tmp_path, world("legacy", losing, no_loss="violation", batch_parity="violation"), world("kappa"))
    verdict = outcome.verdict
    assert (verdict["verdict"], verdict["scenario"], verdict["backend"], verdict["seed"]) == (
        "pass",
        "trial",
        "process",
        7,
    )
    assert [(run["pipeline"], run["verdict"]) for run in verdict["runs"]] == [("legacy", "pass"), ("kappa", "pass")]
    assert verdict["run"] == str(outcome.folder)
    assert all(Path(run["run"]).parent == outcome.folder for run in verdict["runs"])
    assert json.loads((outcome.folder / "verdict.json").read_text())["verdict"] == "pass"
    again = side_by_side.judge_again(outcome.folder)
    for one in (verdict, again):
        for run in one["runs"]:
            run.pop("timing")
    assert again == verdict


@pytest.mark.parametrize(
    ("old", "new", "verdict", "status"),
    [
        (world("legacy"), world("kappa", losing), "violation", 1),
        (world("legacy", lambda w: w.uncertified.update(source="gap")), world("kappa"), "inconclusive", 3),
        (world("legacy", lambda w: w.uncertified.update(source="gap")), world("kappa", losing), "violation", 1),
        (world("legacy", no_loss="violation"), world("kappa"), "violation", 1),
    ],
    ids=["the new loses", "one cannot say", "the worst of both", "the old loses nothing though it must"],
)
def test_the_worst_verdict_is_that_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: World, new: World, verdict: str, status: int
) -> None:
    folder = executed(tmp_path, old, new).folder
    assert cli.main(["check", str(folder), "--json"]) == status
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["verdict"] == verdict
    assert "Events lost under restarts" in said.err


def test_a_run_that_breaks_off_leaves_the_folder_unfinished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        side_by_side.execute(SIDE, Session(world("legacy"), KeyboardInterrupt()), tmp_path)  # type: ignore[arg-type]
    [folder] = tmp_path.iterdir()
    assert side_by_side.is_one(folder)
    with pytest.raises(UnfinishedRun, match="never finished"):
        side_by_side.judge_again(folder)
    assert cli.main(["check", str(folder)]) == 3
    assert cli.main(["report", str(folder)]) == 3
    page = (folder / "report.html").read_text()
    assert "nothing can be compared" in page
    assert "1 of 2" in page


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(next(folder.glob(f"*-{name}")))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without("new"), "is missing"),
        (
            lambda f: (f / "runs.json").write_text((f / "runs.json").read_text().replace('"trial"', '"other"')),
            "changed",
        ),
        (lambda f: (f / "runs.json").unlink(), "run.json"),
        (lambda f: next(f.glob("*-old/manifest.json")).unlink(), "is missing"),
        (lambda f: next(f.glob("*-old/history.jsonl")).write_text("{}"), "bytes"),
    ],
    ids=["a run removed", "runs.json altered", "runs.json removed", "a run's manifest removed", "a run altered"],
)
def test_a_damaged_folder_is_never_a_pass(tmp_path: Path, damage: Callable[[Path], object], told: str) -> None:
    folder = executed(tmp_path, world("legacy"), world("kappa")).folder
    damage(folder)
    assert cli.main(["check", str(folder)]) == 4
    if side_by_side.is_one(folder):
        with pytest.raises(DamagedRun, match=told):
            side_by_side.judge_again(folder)


# ------------------------------------------------------------------------------------------------------- the table


def test_the_table_says_what_the_findings_say(tmp_path: Path) -> None:
    def old(made: World) -> None:
        losing(made)
        made.fault("kill", "converter", 3.0, 3.2)
        made.delay["aggregates"][:] = 0.75

    def new(made: World) -> None:
        made.double("published", *made.sound[:20])
        made.delay["aggregates"][:] = 0.25

    verdict = executed(tmp_path, world("legacy", old), world("kappa", new)).verdict
    found = table(verdict)
    events = len(world("x").sound)
    assert set(found) == {m.key for m in MEASURES}
    assert found["lost"] == {"legacy": 7, "kappa": 0}
    assert found["left_out_late"] == {"legacy": 0, "kappa": 0}
    assert found["restarts"] == {"legacy": 0, "kappa": 0}, "a kill that did not bite is no restart"
    assert found["latency_p50_s"] == {"legacy": pytest.approx(0.75, abs=2e-3), "kappa": pytest.approx(0.25, abs=2e-3)}
    assert found["duplicates_before"] == {"legacy": 0, "kappa": pytest.approx(100 * 20 / events, abs=1e-3)}
    assert found["duplicates_after"] == {"legacy": 0, "kappa": 0}
    for key in ("exact", "explained", "wrong"):
        parity = [
            next(f for f in r["findings"] if f["assertion"] == "batch_parity")["figures"] for r in verdict["runs"]
        ]
        assert list(found[key].values()) == [p[key] for p in parity]
    assert found["wrong"]["legacy"] > 0 == found["wrong"]["kappa"]
    assert found["carried_per_s"]["kappa"] == pytest.approx(events / 10, rel=0.05)
    assert found["most_per_s"]["kappa"] >= found["carried_per_s"]["kappa"]


def test_what_was_not_measured_is_none_and_never_nothing(tmp_path: Path) -> None:
    def blind(made: World) -> None:
        made.show_sightings = False
        made.hops = tuple(h for h in HOPS if h["role"] in ("source", "sink"))
        made.assertions = []

    found = table(executed(tmp_path, world("legacy", blind), world("kappa")).verdict)
    measured = {key: values["legacy"] for key, values in found.items() if values["legacy"] is not None}
    assert measured == {"restarts": 0}


# -------------------------------------------------------------------------------------------------------- the page


def test_every_figure_leads_to_where_it_stands_in_its_runs_own_page(tmp_path: Path) -> None:
    outcome = executed(tmp_path, world("legacy", losing), world("kappa"))
    for run in outcome.verdict["runs"]:  # as `harness.run` writes it
        cli._report_of(Path(run["run"]))
    page = (outcome.folder / "report.html").read_text()
    repeat = "gauntlet run trial --backend process --seed 7 --rate 200 --seconds 10"
    for word in ("Twitter reported", "Measured here", "over 95 %", "1 GB/s", repeat, "gauntlet check"):
        assert word in page, word
    for run in outcome.verdict["runs"]:
        assert repeat in (Path(run["run"]) / "report.html").read_text(), "a run alone could not be repeated by its name"
    links = set(re.findall(r'href="([^#"]+/report\.html)(?:#([a-z0-9-]+))?"', page))
    assert len({anchor for _, anchor in links}) > 5
    for target, anchor in links:
        text = (outcome.folder / target).read_text()
        assert not anchor or f'id="{anchor}"' in text, (target, anchor)
    [lost] = re.findall(r"Events lost under restarts</th>.*?</tr>", page, flags=re.S)
    assert re.findall(r">([\d,–]+)</a>", lost) == ["7", "0"]


def test_the_page_shows_markup_and_does_not_do_it(tmp_path: Path) -> None:
    outcome = executed(tmp_path, world("legacy"), world("kappa"))
    verdict = json.loads(json.dumps(outcome.verdict))
    verdict["scenario"] = EVIL
    verdict["runs"][0] |= {"pipeline": EVIL}
    verdict["runs"][0]["findings"][0]["summary"] = EVIL
    page = page_of(outcome.folder, verdict)
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page


# ------------------------------------------------------------------------------------------------ asking for it


@pytest.mark.parametrize(
    ("side", "told"),
    [
        (SideBySide("x", (Scenario("old", kappa),)), "needs two scenarios or more"),
        (SideBySide("x", (Scenario("old", kappa), Scenario("old", legacy))), "of different names"),
        (SideBySide("x", (Scenario("old", legacy), Scenario("new", kappa, LOAD))), "new has another load than old"),
        (SideBySide("x", (Scenario("old", legacy), Scenario("new", kappa, seed=8))), "another load"),
        (SideBySide("x", (Scenario("old", legacy), Scenario("new", kappa, faults=[kill("speed")]))), "'speed'"),
    ],
)
def test_what_cannot_be_compared_is_a_usage_error(side: SideBySide, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        side.validate()


def test_the_catalog_lists_it_beside_scenarios_and_every_one_is_sound() -> None:
    for side in catalog.side_by_side().values():
        side.validate()
    listed = {s["name"]: s for s in catalog.listing()["scenarios"]}
    assert listed["old-against-new"]["pipeline"] == "legacy-800 and kappa"
    assert catalog.named("old-against-new").with_(seed=9).seed == 9  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="Did you mean 'old-against-new'"):
        catalog.named("old-against-knew")
    with pytest.raises(UsageError, match="several pipelines side by side"):
        catalog.scenario("old-against-new")


@pytest.mark.parametrize("option", [("--pipeline", "kappa"), ("--schedule", "none")])
def test_it_takes_no_other_pipeline_and_no_other_schedule(
    option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "old-against-new", *option]) == 2
    assert f"takes no {option[0]}" in capsys.readouterr().err


def test_known_violations_are_known_of_one_pipeline_under_its_own_faults() -> None:
    old = catalog.side_by_side()["old-against-new"].scenarios[0]
    assert old.expected
    assert not catalog.rescheduled(old, "none").expected
    assert not catalog.fitted(old.with_(faults=()), kappa).expected


# ---------------------------------------------------------------------------------------------------- in pytest


def blind(made: World) -> None:
    made.uncertified["source"] = "a gap"


def test_in_pytest_a_violation_fails_and_an_inconclusive_run_is_repeated_once(tmp_path: Path) -> None:
    good, bad, unsure = (lambda: world("kappa")), (lambda: world("kappa", losing)), (lambda: world("kappa", blind))

    def asked(*worlds: World) -> tuple[Gauntlet, Session]:
        session = Session(*worlds)
        return Gauntlet(session, tmp_path, "t", None), session  # type: ignore[arg-type]

    gauntlet, _ = asked(world("legacy", losing), good())
    runs = gauntlet.side_by_side(SIDE)
    assert not runs.checked
    with pytest.raises(Violation, match="no_loss"):
        runs.check()
    assert runs.checked
    assert runs.figures("lost") == {"legacy": 7, "kappa": 0}
    assert runs.run("kappa")["verdict"] == "pass"
    gauntlet, session = asked(world("legacy"), unsure(), world("legacy"), good())
    assert gauntlet.side_by_side(SIDE).check().verdict["verdict"] == "pass"
    assert session.ran == ["old", "new"] * 2
    gauntlet, session = asked(world("legacy"), unsure(), world("legacy"), unsure())
    with pytest.raises(Inconclusive, match="no_loss"):
        gauntlet.side_by_side(SIDE).check()
    gauntlet, session = asked(world("legacy"), bad(), world("legacy"), good())
    with pytest.raises(Violation):
        gauntlet.side_by_side(SIDE).check()
    assert session.ran == ["old", "new"], "a violation is never retried"
    with pytest.raises(ValueError, match="a scenario of one pipeline"):
        gauntlet.side_by_side("restarts")
