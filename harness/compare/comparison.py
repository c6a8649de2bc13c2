"""The runs of a comparison: pairs in alternation, each kept at once, judged together, and taken up again after a crash.

<out>/<UTC time>-compare-<tag>/
    compare.json       what was asked, and every run so far; written whole after each run
    <run folders>      each whole, as `gauntlet run` leaves any; that of a warm-up is not kept
    verdict.json  report.html  junit.xml      of all of them
    manifest.json      written last: sums of compare.json and of the runs' own manifests

The runs of a pair have the same seed and the same faults; which comes first alternates (A B, B A, A B …), so that a machine
that grows slower, or faster, speaks for neither. Both versions share the services where they need the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from assertions.judge import judge
from harness import catalog
from harness.compare import measures as measuring
from harness.compare.release import (
    ATTEMPTS,
    BASELINE,
    CANDIDATE,
    SIDES,
    Made,
    kinds_of,
    last_attempts,
    new_kinds,
    release,
    seen_enough,
)
from harness.compare.statistics import LEAST_PAIRS
from harness.compare.versions import Version
from harness.history import Views, nobody
from harness.run_folder import FORMAT, DamagedRun, check_listed, new_folder, read_json, write_json, write_manifest
from harness.scenario import Scenario
from harness.session import Session
from harness.store import SavedRun
from harness.topology import UsageError

ASKED = "compare.json"
#: Unless a number is asked for, so many pairs are made, and then as many as it takes to have seen enough, up to the second.
FIRST_LOOK, MOST_PAIRS = 8, 24
#: The load of the run before the first pair, which finds a version that does not work, and starts what starts slowly.
WARM_UP_S = 3.0


@dataclass(frozen=True)
class Asked:
    """What was asked for. `rate`, `seconds`, `schedule`: None, or instead of the scenario's; `enough`: fewer pairs do,
    from `FIRST_LOOK` on, if what must not go unseen could be seen by then."""

    baseline: Version
    candidate: Version
    scenario: str = catalog.DEFAULT_SCENARIO
    backend: str = "auto"
    pairs: int = MOST_PAIRS
    enough: bool = False
    seed: int = 7
    rate: int | None = None
    seconds: float | None = None
    schedule: str | None = None
    tolerance: Mapping[str, float] = field(default_factory=dict)
    visible: Mapping[str, float] = field(default_factory=dict)
    known: Sequence[str] = ()

    def check(self) -> Asked:
        if self.pairs < LEAST_PAIRS:
            raise UsageError(
                f"{self.pairs} pairs cannot show a difference, however large: chance alone would look the same too often. "
                f"Take {LEAST_PAIRS} or more."
            )
        measuring.adjusted(self.tolerance, self.visible)
        return self

    def told_pairs(self) -> str:
        """How many are to be made, for a person."""
        return f"{FIRST_LOOK} to {self.pairs}" if self.enough else f"{self.pairs}"

    def version(self, side: str) -> Version:
        return self.baseline if side == BASELINE else self.candidate

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), BASELINE: self.baseline.as_dict(), CANDIDATE: self.candidate.as_dict()}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Asked:
        versions = {side: Version.from_dict(saved[side]) for side in SIDES}
        return cls(**{**saved, **versions})


@dataclass
class State:
    """All that a comparison knows of itself; `compare.json`."""

    asked: Asked
    tag: str
    started: str
    backend: str | None = None
    runs: list[Made] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        told = {
            "format": FORMAT,
            "run": self.tag,
            "started": self.started,
            "backend": self.backend,
            "asked": self.asked.as_dict(),
            "runs": [run.as_dict() for run in self.runs],
        }
        write_json(folder / ASKED, told)

    @classmethod
    def load(cls, folder: Path) -> State:
        """Raises UsageError where there is no comparison, DamagedRun where it cannot be read."""
        if not is_one(folder):
            raise UsageError(f"{folder} is no comparison: it has no {ASKED}.")
        saved = read_json(folder / ASKED)
        try:
            asked = Asked.from_dict(saved["asked"])
            runs = [Made(**run) for run in saved["runs"]]
            return cls(asked, saved["run"], saved["started"], saved["backend"], runs)
        except (KeyError, TypeError) as error:
            raise DamagedRun(f"{folder / ASKED}: is not what a comparison writes: {error!r}.") from error

    def next(self) -> tuple[int, str, int] | None:
        """(pair, side, attempt) of the run that comes next; None if the comparison is over.

        A new kind of violation ends it with its pair: the baseline is given the chance to show the same. Otherwise it ends
        with the pairs that were asked for, or when they have shown enough.
        """
        last = last_attempts(self.runs)
        for pair in range(1, self.asked.pairs + 1):
            for side in order(pair):
                made = last.get((pair, side))
                if made is None:
                    fresh = not any(number == pair for number, _ in last)
                    if fresh and (new_kinds(self.runs, self.asked.known) or self._enough(pair - 1)):
                        return None
                    return pair, side, 1
                if made.verdict == "inconclusive" and made.attempt < ATTEMPTS:
                    return pair, side, made.attempt + 1
        return None

    def _enough(self, pairs: int) -> bool:
        asked = self.asked
        looked = asked.enough and pairs >= FIRST_LOOK
        return looked and seen_enough(self.runs, measuring.adjusted(asked.tolerance, asked.visible))

    def pairs(self) -> int:
        """How many there are, or are to be: fewer than were asked for, if they have shown enough."""
        made = max((run.pair for run in self.runs), default=0)
        return made if self._enough(made) else self.asked.pairs


def order(pair: int) -> tuple[str, str]:
    return (BASELINE, CANDIDATE) if pair % 2 else (CANDIDATE, BASELINE)


def is_one(folder: Path) -> bool:
    return (folder / ASKED).is_file()


def begun(asked: Asked, out: Path) -> tuple[Path, State]:
    """The folder of a new comparison."""
    asked = dataclasses.replace(asked.check(), baseline=asked.baseline.pinned(), candidate=asked.candidate.pinned())
    folder, tag, started = new_folder(out, "compare")
    state = State(asked, tag, started.isoformat(timespec="milliseconds"))
    state.save(folder)
    return folder, state


class Comparison:
    """Use `run`, within `opened`. `tell` gets a line for a person before the first run and after each."""

    def __init__(
        self,
        folder: Path,
        state: State,
        session: Session,
        scenarios: Mapping[str, Scenario],
        tell: Callable[[str], None],
        views: Views | None = None,
    ) -> None:
        self.folder, self.state, self.session, self.scenarios = folder, state, session, scenarios
        self.tell, self.views = tell, views or nobody

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, folder: Path, state: State, session: Session, tell: Callable[[str], None], views: Views | None = None
    ) -> Iterator[Comparison]:
        """Makes the two scenarios, with copies of what a git ref names; these are gone afterwards.

        Raises UsageError where a version or the scenario makes no sense, before anything is started.
        """
        # In the harness's own temp folder, which goes with it even when it is killed.
        copies = Path(tempfile.mkdtemp(prefix="versions-", dir=session.processes.temp))
        try:
            yield cls(folder, state, session, scenarios_of(state.asked, copies), tell, views)
        finally:
            shutil.rmtree(copies, ignore_errors=True)

    def run(self) -> dict[str, Any]:
        """Every run that is still to be made; the verdict. What was done is in compare.json, whatever way it ends."""
        asked = self.state.asked
        self._check_backend()
        begin = time.monotonic()
        if self.state.next() is not None:
            self._warm_up()
        while (coming := self.state.next()) is not None:
            pair, side, attempt = coming
            made = self._made(pair, side, attempt)
            self.state.runs.append(made)
            self.state.save(self.folder)
            self.tell(_line(made, asked, time.monotonic() - begin))
        verdict = judged(self.folder, self.state)
        write_answers(self.folder, verdict)
        manifests = [self.folder / made.folder / "manifest.json" for made in self.state.runs]
        write_manifest(self.folder, [self.folder / ASKED, *manifests])
        return verdict

    def _check_backend(self) -> None:
        found = {side: self.session.prepare(self.scenarios[side].pipeline) for side in SIDES}
        if len({backend.name for backend in found.values()}) > 1:
            told = ", ".join(f"the {side} {backend.where}" for side, backend in found.items())
            raise UsageError(f"Two backends cannot be compared ({told}). Take the same: --backend process.")
        for side, backend in found.items():
            if self.state.backend not in (None, backend.name):
                raise UsageError(
                    f"{self.folder}: its runs are of the backend {self.state.backend}, and now {backend.where}."
                )
            self.state.backend = backend.name
            version = self.state.asked.version(side)
            if version.commit and backend.name == "docker":
                raise UsageError(
                    f"{version.spec}: in containers the programs are those of an image; build one of {version.ref} and name "
                    f"it with --{side}-image."
                )
            if version.image and backend.name != "docker":
                raise UsageError(f"--{side}-image needs --backend docker; these runs are {backend.where}.")

    def _warm_up(self) -> None:
        """A short run of each version without faults, which counts for nothing."""
        for side in SIDES:
            scenario = catalog.rescheduled(self.scenarios[side], "none")
            load = dataclasses.replace(scenario.load, seconds=min(WARM_UP_S, scenario.load.seconds))
            begin = time.monotonic()
            path = self._execute(scenario.with_(name=f"warm-up-{side}", load=load)).folder
            shutil.rmtree(path, ignore_errors=True)
            self.tell(f"warm-up: the {side} works, {time.monotonic() - begin:.0f} s")

    def _made(self, pair: int, side: str, attempt: int) -> Made:
        seed = self.state.asked.seed + pair - 1
        scenario = self._drawn(seed)[side].with_(name=f"pair-{pair:02d}-{side}")
        outcome = self._execute(scenario)
        return made_of(outcome.folder, outcome.verdict, pair, side, attempt)

    def _execute(self, scenario: Scenario) -> Any:
        with self.views() as view:
            return self.session.run(scenario, self.folder, [view])

    def _drawn(self, seed: int) -> dict[str, Scenario]:
        """Both scenarios with a pair's seed. Random faults are drawn of the baseline, and are the candidate's too."""
        both = {side: scenario.with_(seed=seed) for side, scenario in self.scenarios.items()}
        if both[BASELINE].random is None:
            return both
        backend = self.session.prepare(both[BASELINE].pipeline)
        drawn = both[BASELINE].drawn(backend.name, lambda fault: backend.refuses(fault, both[BASELINE].pipeline))
        same = {"faults": drawn.faults, "random": None, "schedule_seed": drawn.schedule_seed}
        return {side: scenario.with_(**same) for side, scenario in both.items()}


def scenarios_of(asked: Asked, copies: Path) -> dict[str, Scenario]:
    """The scenario of each side, validated."""
    found = {}
    for side in SIDES:
        version = asked.version(side)
        base = catalog.scenario(asked.scenario)
        given: dict[str, Any] = {k: v for k, v in (("rate", asked.rate), ("seconds", asked.seconds)) if v is not None}
        base = base.with_(load=dataclasses.replace(base.load, **given), seed=asked.seed)
        base = catalog.fitted(base, version.pipeline(copies / side))
        if asked.schedule is not None:
            base = catalog.rescheduled(base, asked.schedule)
        found[side] = base.with_(ref=version.name if ":" in version.name else "").validate()
    if found[BASELINE].pipeline == found[CANDIDATE].pipeline:
        return found
    for fault in found[BASELINE].faults or found[BASELINE].drawn("").faults:
        fault.check(found[CANDIDATE].pipeline)
    return found


def made_of(path: Path, verdict: Mapping[str, Any], pair: int, side: str, attempt: int) -> Made:
    """What is kept of a run."""
    unsure = [f"{f['assertion']}: {f['summary']}" for f in verdict["findings"] if f["verdict"] == "inconclusive"]
    return Made(
        pair,
        side,
        attempt,
        verdict["seed"],
        verdict["verdict"],
        path.name,
        measuring.figures(verdict, SavedRun.open_unsealed(path)),
        kinds_of(verdict),
        unsure if verdict["verdict"] == "inconclusive" else [],
    )


def judge_again(folder: Path) -> dict[str, Any]:
    """The verdict of a saved comparison, from its runs. Raises UnfinishedRun (exit 3) if it was never finished, DamagedRun
    (exit 4)."""
    check_listed(folder, ASKED)
    state = State.load(folder)
    for made in state.runs:
        if "/" in made.folder or not made.folder:
            raise DamagedRun(f"{folder / ASKED}: names no folder of a run: {made.folder!r}.")
    again = [made_of(folder / m.folder, judge(SavedRun.load(folder / m.folder)), m.pair, m.side, m.attempt)
             for m in state.runs]  # fmt: skip
    return judged(folder, dataclasses.replace(state, runs=again))


def judged(folder: Path, state: State) -> dict[str, Any]:
    """The object of `gauntlet compare --json`."""
    asked, pairs = state.asked, state.pairs()
    told = release(state.runs, measuring.adjusted(asked.tolerance, asked.visible), pairs, asked.known)
    return {
        "verdict": told["verdict"],
        "run": str(folder),
        "scenario": asked.scenario,
        "backend": state.backend,
        "baseline": asked.baseline.as_dict(),
        "candidate": asked.candidate.as_dict(),
        "pairs": told["pairs"],
        "pairs_asked": pairs,
        "dropped": told["dropped"],
        "seed": asked.seed,
        "measures": told["measures"],
        "findings": told["findings"],
        "runs": [{**run.as_dict(), "run": str(folder / run.folder)} for run in state.runs],
    }


def write_unfinished(folder: Path) -> None:
    """The page of a comparison that did not come to its end. Raises only OSError."""
    from harness.report.compare import write_page

    write_page(folder, {}, folder / "report.html")


def write_answers(folder: Path, verdict: Mapping[str, Any]) -> None:
    """The verdict, three ways. Raises only OSError."""
    from harness.report.compare import write_page
    from harness.report.junit import write_junit

    write_json(folder / "verdict.json", verdict)
    write_page(folder, verdict, folder / "report.html")
    write_junit({**{k: v for k, v in verdict.items() if k != "runs"}, "pipeline": "compare"}, folder / "junit.xml")


def _line(made: Made, asked: Asked, elapsed: float) -> str:
    again = f", attempt {made.attempt}" if made.attempt > 1 else ""
    at = f"{int(elapsed) // 60:02d}:{int(elapsed) % 60:02d}"
    said = f"[{at}] pair {made.pair} of {asked.told_pairs()}, {made.side}{again}, seed {made.seed}: "
    told = [f"{m.key} {m.told_value(made.figures.get(m.key))}" for m in measuring.MEASURES]
    why = made.violated or made.reasons[:1]
    because = f" ({', '.join(why)})" if why else ""
    return f"{said}{made.verdict}{because}; {', '.join(told)}"
