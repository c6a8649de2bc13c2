"""The pytest plugin: `pytest -m chaos` in any project that has installed this package.

    @pytest.mark.chaos
    def test_a_killed_worker_loses_nothing(gauntlet):
        run = gauntlet.run(my_pipeline, load=Steady(rate=500, seconds=10), faults=[kill("worker").at(4)])
        run.check(no_loss(), duplicate_rate("sink", most=0))

A violation fails the test and is never retried. An inconclusive run is repeated once, which the history of the second
one says, and then fails the test too, with an exception of its own. It is never skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from assertions.base import Assertion
    from faults.base import Fault
    from faults.random_schedule import RandomSchedule
    from harness.run import Outcome
    from harness.scenario import Scenario, SideBySide
    from harness.session import Session
    from harness.soak.state import Asked
    from harness.topology import Pipeline
    from load.profiles import Steady


#: As harness.backends.NAMES, which is not imported into every pytest of a machine that has this plugin.
BACKENDS = ("auto", "process", "docker", "external")


class Violation(AssertionError):
    """The pipeline is proven wrong."""


class Inconclusive(Exception):
    """The run cannot say, and neither could its repetition."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gauntlet", "chaos runs of streaming pipelines")
    group.addoption(
        "--gauntlet-backend", default="auto", metavar="B", help="auto, process, docker or external (default: auto)"
    )
    group.addoption(
        "--gauntlet-endpoints", default=None, metavar="FILE", help="for the backend external: where the services are"
    )
    group.addoption("--gauntlet-seed", type=int, default=None, metavar="N", help="seed of the events of every run")
    group.addoption(
        "--gauntlet-soak-hours", type=float, default=8.0, metavar="H", help="how long every soak lasts (default: 8)"
    )
    group.addoption("--gauntlet-out", default="out", metavar="DIR", help="where run folders go (default: out)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: a chaos run on real services (select with -m chaos)")
    config.addinivalue_line("markers", "soak: a soak of hours, left out unless it is asked for (select with -m soak)")
    # The taps ask for an answer at once on purpose: an empty pull would block for half a minute.
    config.addinivalue_line("filterwarnings", "ignore:The return_immediately flag is deprecated:DeprecationWarning")
    if config.getoption("--gauntlet-backend") not in BACKENDS:
        given = config.getoption("--gauntlet-backend")
        raise pytest.UsageError(f"--gauntlet-backend: {given!r} is not one of {', '.join(BACKENDS)}")
    if (config.getoption("--gauntlet-backend") == "external") is not bool(config.getoption("--gauntlet-endpoints")):
        raise pytest.UsageError("--gauntlet-backend external and --gauntlet-endpoints FILE belong together")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Nobody who asks for all tests means to wait for hours."""
    if _soaks(config):
        return
    left_out = [item for item in items if item.get_closest_marker("soak")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _soaks(config: pytest.Config) -> bool:
    return "soak" in str(config.getoption("-m"))


@pytest.fixture(scope="session")
def gauntlet_out(pytestconfig: pytest.Config) -> Path:
    """Where the run folders go; override it to keep them elsewhere."""
    return Path(str(pytestconfig.getoption("--gauntlet-out")))


@pytest.fixture(scope="session")
def gauntlet_session(pytestconfig: pytest.Config) -> Iterator[Session]:
    """The stacks that all runs of this pytest session share."""
    from harness.session import Session

    endpoints = pytestconfig.getoption("--gauntlet-endpoints")
    backend = str(pytestconfig.getoption("--gauntlet-backend"))
    with Session(backend, Path(endpoints) if endpoints else None, forgets=_soaks(pytestconfig)) as session:
        yield session


@pytest.fixture
def gauntlet(gauntlet_session: Session, gauntlet_out: Path, request: pytest.FixtureRequest) -> Iterator[Gauntlet]:
    """Runs scenarios. A test that runs one and never checks it fails: it would prove nothing."""
    seed = request.config.getoption("--gauntlet-seed")
    hours = float(request.config.getoption("--gauntlet-soak-hours"))
    harness = Gauntlet(gauntlet_session, gauntlet_out, request.node.name, seed, hours)
    yield harness
    for run in harness.runs:
        if not run.checked:
            pytest.fail(f"the run {run.folder} was never checked: call run.check(...)", pytrace=False)


class Gauntlet:
    """What the fixture gives to a test."""

    def __init__(self, session: Session, out: Path, name: str, seed: int | None, soak_hours: float = 8.0) -> None:
        self._session, self._out, self._name, self._seed = session, out, name, seed
        self._soak_hours = soak_hours
        self.runs: list[CheckableRun | CheckableRuns | CheckableSoak] = []

    def run(
        self,
        pipeline: Pipeline,
        load: Steady | None = None,
        faults: Sequence[Fault | Sequence[Fault]] | RandomSchedule = (),
        *,
        users: int = 1,
        processes: int = 1,
        seed: int = 7,
    ) -> CheckableRun:
        """Runs a pipeline under load and faults, up to what was observed; `check` on the result judges it."""
        from faults.random_schedule import RandomSchedule
        from harness.scenario import Scenario, schedule
        from load.profiles import Steady

        by_hand = () if isinstance(faults, RandomSchedule) else schedule(*faults)
        drawn = faults if isinstance(faults, RandomSchedule) else None
        return self._start(
            Scenario(
                self._name,
                pipeline,
                load or Steady(),
                by_hand,
                users=users,
                processes=processes,
                seed=seed,
                random=drawn,
            )
        )

    def scenario(self, scenario: str | Scenario, pipeline: Pipeline | None = None) -> CheckableRun:
        """Runs a scenario, by name or value, perhaps on another pipeline; `check()` judges it by its own claims."""
        from harness import catalog

        chosen = catalog.scenario(scenario) if isinstance(scenario, str) else scenario
        return self._start(catalog.fitted(chosen, pipeline) if pipeline is not None else chosen)

    def side_by_side(self, runs: str | SideBySide) -> CheckableRuns:
        """Runs several pipelines side by side, by name or value; `check()` judges each by its own claims."""
        from harness import catalog
        from harness.scenario import SideBySide

        chosen = catalog.named(runs) if isinstance(runs, str) else runs
        if not isinstance(chosen, SideBySide):
            raise ValueError(f"{chosen.name} is a scenario of one pipeline: gauntlet.scenario({chosen.name!r})")
        made = CheckableRuns(
            chosen.with_(seed=self._seed) if self._seed is not None else chosen, self._session, self._out
        )
        self.runs.append(made)
        return made

    def soak(
        self,
        pipeline: Pipeline,
        *assertions: Assertion,
        hours: float | None = None,
        rate: int = 2_000,
        cycle_s: float = 60.0,
        seed: int = 7,
        stop: bool = False,
    ) -> CheckableSoak:
        """A soak of --gauntlet-soak-hours: cycle after cycle under random faults, each held to these assertions (those of
        every pipeline if none are given). `check()` on the result fails the test if a cycle did not pass, or a measure grows."""
        from assertions.registry import to_json
        from harness.catalog import claims
        from harness.soak.state import Asked

        asked = Asked(
            self._name,
            pipeline.name,
            self._session.prepare(pipeline).name,
            seed if self._seed is None else self._seed,
            self._soak_hours if hours is None else hours,
            cycle_s,
            rate,
            stop,
            [to_json(one) for one in assertions or claims(pipeline)],
        ).check()
        made = CheckableSoak(asked, pipeline, self._session, self._out)
        self.runs.append(made)
        return made

    def _start(self, scenario: Scenario) -> CheckableRun:
        chosen = scenario.with_(seed=self._seed) if self._seed is not None else scenario
        run = CheckableRun(chosen, self._session, self._out)
        self.runs.append(run)
        return run


class CheckableRun:
    """A run that was made and waits to be judged."""

    def __init__(self, scenario: Scenario, session: Session, out: Path) -> None:
        self._scenario, self._session, self._out = scenario, session, out
        self.checked = False
        self.outcome: Outcome = session.run(scenario, out)

    @property
    def folder(self) -> Path:
        return self.outcome.folder

    @property
    def verdict(self) -> dict[str, Any]:
        """The verdict as it stands: of the claims after `check`, of the guards alone before."""
        return self.outcome.verdict

    def finding(self, assertion: str, hop: str | None = None) -> dict[str, Any]:
        """The finding of an assertion (at a hop)."""
        for found in self.verdict["findings"]:
            if found["assertion"] == assertion and hop in (None, found["figures"].get("hop")):
                return dict(found)
        raise KeyError(assertion)

    def judge(self, *assertions: Assertion) -> dict[str, Any]:
        """Judges the run by these assertions and the guards, without failing the test; returns the verdict."""
        from harness.run import judge_again

        self.checked = True
        self.outcome = judge_again(
            self.outcome.folder, assertions or self._scenario.assertions, self._scenario.expected
        )
        return self.verdict

    def check(self, *assertions: Assertion) -> CheckableRun:
        """Judges the run (by the scenario's own claims if none are given); raises Violation or Inconclusive."""
        chosen = assertions or tuple(self._scenario.assertions)
        if not chosen:
            raise ValueError("nothing to check: give the assertions that must hold")
        if self.judge(*chosen)["verdict"] == "inconclusive":
            first = self.outcome.folder
            self.outcome = self._session.run(
                self._scenario, self._out, notes=[f"repeats {first.name}, which was inconclusive"]
            )
            self.judge(*chosen)
        if self.verdict["verdict"] == "violation":
            raise Violation(_told(self.verdict, "violation"))
        if self.verdict["verdict"] == "inconclusive":
            raise Inconclusive(_told(self.verdict, "inconclusive"))
        return self


class CheckableRuns:
    """Runs of several pipelines that were made and wait to be judged."""

    def __init__(self, chosen: SideBySide, session: Session, out: Path) -> None:
        from harness.side_by_side import execute

        self._again = lambda: execute(chosen, session, out)
        self.checked = False
        self.outcome: Outcome = self._again()

    @property
    def folder(self) -> Path:
        return self.outcome.folder

    @property
    def verdict(self) -> dict[str, Any]:
        """The object of the contract, with `runs` and `table`."""
        return self.outcome.verdict

    def run(self, pipeline: str) -> dict[str, Any]:
        """The verdict of a pipeline's run."""
        return next(dict(run) for run in self.verdict["runs"] if run["pipeline"] == pipeline)

    def figures(self, key: str) -> dict[str, Any]:
        """A line of the table: the pipelines' figures by their names."""
        return next(dict(line["values"]) for line in self.verdict["table"] if line["key"] == key)

    def check(self) -> CheckableRuns:
        """Raises Violation or Inconclusive, as `CheckableRun.check`."""
        self.checked = True
        if self.verdict["verdict"] == "inconclusive":
            self.outcome = self._again()
        told = "\n".join(_told(run, run["verdict"]) for run in self.verdict["runs"] if run["verdict"] != "pass")
        if self.verdict["verdict"] == "violation":
            raise Violation(told)
        if self.verdict["verdict"] == "inconclusive":
            raise Inconclusive(told)
        return self


class CheckableSoak:
    """A soak that was made and waits to be judged."""

    def __init__(self, asked: Asked, pipeline: Pipeline, session: Session, out: Path) -> None:
        from harness.run_folder import new_folder
        from harness.soak.answers import write_answers
        from harness.soak.cycles import Soak, scenario_of
        from harness.soak.state import State

        self.checked = False
        scenario = scenario_of(asked, pipeline)
        self.folder = new_folder(out, "soak")[0].resolve()
        self.verdict: dict[str, Any] = Soak(scenario, State(asked), self.folder, session, print).run()
        write_answers(self.folder, self.verdict)

    def check(self) -> CheckableSoak:
        """Raises Violation or Inconclusive. A cycle that could not say was tried once more already."""
        self.checked = True
        word = self.verdict["verdict"]
        bad = [c for c in self.verdict["cycles"] if c["verdict"] == word]
        told = [f"  cycle {c['number']}: {', '.join(c['violated']) or word}; kept in {c['run']}" for c in bad[:10]]
        lines = "\n".join([_told({**self.verdict, "run": str(self.folder)}, word), *told])
        if word == "violation":
            raise Violation(lines)
        if word == "inconclusive":
            raise Inconclusive(lines)
        return self


def _told(verdict: dict[str, Any], word: str) -> str:
    lines = [f"{word} in {verdict['run']}"]
    for found in verdict["findings"]:
        if found["verdict"] != "pass":
            lines.append(f"  {found['assertion']}: {found['verdict']}: {found['summary']}")
            lines += [f"    {example}" for example in found["examples"][:3]]
    return "\n".join([*lines, f"  the report: {verdict['run']}/report.html"])
