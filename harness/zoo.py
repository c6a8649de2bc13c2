"""The zoo: is every mutant caught by the assertion that must catch it, and does the healthy pipeline never raise an alarm?

Both halves are loops of runs, each of which becomes a `Trial`, one JSON line in the folder of the runs as soon as it
is over. Whatever is said afterwards is a pure function of those lines, so a zoo that was interrupted has lost nothing
and can be taken up again.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import catalog
from harness.errors import HarnessFault
from harness.history import Listener
from harness.scenario import Scenario
from harness.session import Session
from harness.topology import UsageError, unknown
from pipelines_under_test.mutants.registry import Mutant

#: How a mutant came out, the worst last.
OUTCOMES = ("caught", "inconclusive", "failed", "by another", "missed")
#: The confidence of the bounds that the healthy runs give.
CONFIDENCE = 0.95
#: Runs that could not say are made again so often a mutant, as the pytest plugin does it.
REPEATS = 1


@dataclass(frozen=True)
class Trial:
    """One run of the zoo.

    pipeline   the mutant's name, or that of the healthy pipeline
    schedule   "own": the scenario's faults; "random"; "none": without faults
    verdict    of the run; "failed" if the harness could not bring it to one
    violated   assertions that found a violation
    reasons    what made it inconclusive or failed, a text each
    seconds    from the start of the deployment to the verdict
    """

    pipeline: str
    scenario: str
    schedule: str
    backend: str
    seed: int
    verdict: str
    violated: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    folder: str = ""
    faults: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Trial:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
        return cls(**values)

    @classmethod
    def of(cls, verdict: Mapping[str, Any], schedule: str, seconds: float) -> Trial:
        """What a run's verdict says, in short."""
        found = verdict["findings"]
        return cls(
            verdict["pipeline"],
            verdict["scenario"],
            schedule,
            verdict["backend"],
            verdict["seed"],
            verdict["verdict"],
            tuple(dict.fromkeys(f["assertion"] for f in found if f["verdict"] == "violation")),
            tuple(f"{f['assertion']}: {f['summary']}" for f in found if f["verdict"] == verdict["verdict"] != "pass"),
            round(seconds, 1),
            verdict["run"],
            tuple(f"{f['fault']} {f['target']} at {f['start']:.1f} s" for f in verdict["faults"]),
        )


# ------------------------------------------------------------------------------------------- mutants: what came out


@dataclass(frozen=True)
class Row:
    """How one mutant came out. `by`: assertions that found a violation in any of its runs, the right one first."""

    mutant: Mutant
    outcome: str
    runs: int
    seconds: float
    by: tuple[str, ...]
    without_faults: str | None
    trials: tuple[Trial, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "mutant": self.mutant.name,
            "about": self.mutant.about,
            "caught_by": self.mutant.caught_by,
            "scenario": self.mutant.scenario,
            "outcome": self.outcome,
            "by": list(self.by),
            "runs": self.runs,
            "seconds": self.seconds,
            "without_faults": self.without_faults,
            "reasons": [reason for trial in self.trials for reason in trial.reasons if trial.verdict != "violation"],
            "folders": [trial.folder for trial in self.trials if trial.folder],
        }


def wants_another_run(mutant: Mutant, trials: Sequence[Trial], most: int) -> bool:
    """Whether a mutant is not caught yet and has runs left. One that could not say is made again, once."""
    if any(mutant.caught_by in trial.violated for trial in trials):
        return False
    said = sum(trial.verdict in ("pass", "violation") for trial in trials)
    return said < most and len(trials) - said <= REPEATS and len(trials) < most + REPEATS


def row_of(mutant: Mutant, trials: Iterable[Trial], most: int) -> Row | None:
    """How a mutant came out by its trials with faults; None if there was none of them.

    "caught"        the assertion that must catch it found a violation
    "by another"    others did, it did not: the bug shows, but what is said of it is not what was promised
    "missed"        every run was conclusive, as many as it may need, and none found anything: the harness is blind
    "inconclusive"  not seen often enough to say; "failed": the same, because the harness itself failed
    """
    mine = [trial for trial in trials if trial.pipeline == mutant.name]
    with_faults = [trial for trial in mine if trial.schedule != "none"]
    if not with_faults:
        return None
    by = tuple(dict.fromkeys(name for trial in with_faults for name in trial.violated))
    said = sum(trial.verdict in ("pass", "violation") for trial in with_faults)
    if mutant.caught_by in by:
        outcome = "caught"
        by = (mutant.caught_by, *(name for name in by if name != mutant.caught_by))
    elif said >= most:
        outcome = "by another" if by else "missed"
    else:
        outcome = "failed" if any(trial.verdict == "failed" for trial in with_faults) else "inconclusive"
    seconds = round(sum(trial.seconds for trial in with_faults), 1)
    quiet = _without_faults(mutant, mine)
    return Row(mutant, outcome, len(with_faults), seconds, by, quiet, tuple(with_faults))


def _without_faults(mutant: Mutant, trials: Iterable[Trial]) -> str | None:
    """The verdict without faults; None if that was not run. A scenario that has no faults is its own answer."""
    for trial in trials:
        if trial.schedule == "none" or (trial.schedule == "own" and not has_faults(mutant)):
            return "caught" if trial.verdict == "violation" else trial.verdict
    return None


def has_faults(mutant: Mutant) -> bool:
    return bool(catalog.scenario(mutant.scenario).faults)


def enough_pass_without_faults(rows: Sequence[Row]) -> bool | None:
    """Whether at least half of the mutants need a fault to be caught; None where it was not asked of all of them."""
    if not rows or any(row.without_faults is None for row in rows):
        return None
    return 2 * sum(row.without_faults == "pass" for row in rows) >= len(rows)


def summary_of_mutants(rows: Sequence[Row], whole: bool) -> dict[str, Any]:
    """The JSON object of `gauntlet zoo`. `whole`: no mutant was left out, so the share without faults counts."""
    outcomes = {outcome: sum(row.outcome == outcome for row in rows) for outcome in OUTCOMES}
    quiet = enough_pass_without_faults(rows)
    if outcomes["missed"] or outcomes["by another"] or (whole and quiet is False):
        verdict = "violation"
    elif outcomes["failed"]:
        verdict = "failed"
    else:
        verdict = "inconclusive" if outcomes["inconclusive"] or not rows else "pass"
    return {
        "verdict": verdict,
        "mutants": [row.as_dict() for row in rows],
        "matrix": {row.mutant.name: dict.fromkeys(row.by, "violation") for row in rows},
        "outcomes": outcomes,
        "half_pass_without_faults": quiet,
    }


# ---------------------------------------------------------------------------------------- healthy: what came out


def upper_bound(events: int, runs: int, confidence: float = CONFIDENCE) -> float:
    """The largest rate that `events` in `runs` still allow: Clopper and Pearson's one-sided bound.

    The rate at which so few events would have a probability of 1 - confidence. For no event at all it is
    1 - (1 - confidence)^(1/runs), about 3 / runs at 95 % (the rule of three).
    """
    if runs == 0 or events >= runs:
        return 1.0
    low, high = events / runs, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        tail = sum(math.comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(events + 1))
        low, high = (rate, high) if tail > 1 - confidence else (low, rate)
    return high


def summary_of_healthy(trials: Sequence[Trial]) -> dict[str, Any]:
    """The JSON object of `gauntlet zoo --healthy N`. Rates are over the runs that came to a verdict."""
    judged = [trial for trial in trials if trial.verdict != "failed"]
    count = {v: sum(t.verdict == v for t in trials) for v in ("pass", "violation", "inconclusive", "failed")}
    worst = next((v for v in ("violation", "failed", "inconclusive") if count[v]), "pass" if trials else "inconclusive")
    conclusive = count["pass"] + count["violation"]
    return {
        "verdict": worst,
        "runs": len(trials),
        "faults": sum(len(trial.faults) for trial in judged),
        "outcomes": count,
        "false_alarms_at_most": upper_bound(count["violation"], conclusive),
        "inconclusive_at_most": upper_bound(count["inconclusive"], len(judged)),
        "confidence": CONFIDENCE,
        "kept": [t.folder for t in trials if t.verdict != "pass" and t.folder],
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }


def in_words(healthy: Mapping[str, Any]) -> str:
    """What so many healthy runs prove, and what they do not."""
    count, percent = healthy["outcomes"], round(100 * healthy["confidence"])
    conclusive = count["pass"] + count["violation"]
    if not conclusive:
        return "No run came to a conclusion; nothing is proven."
    clean = (
        f"{conclusive} conclusive runs without a false alarm"
        if not count["violation"]
        else f"{count['violation']} of {conclusive} conclusive runs raised an alarm on a pipeline that is taken as right"
    )
    return (
        f"{clean}: at {percent} % confidence, a rate below {_rounded_up(healthy['false_alarms_at_most'])} "
        f"(Clopper-Pearson), and no better is proven. {count['inconclusive']} could not say: a rate below "
        f"{_rounded_up(healthy['inconclusive_at_most'])}."
    )


def _rounded_up(share: float) -> str:
    """Never less than it is: the bound would be wrong."""
    return f"{math.ceil(share * 1000 - 1e-9) / 10:.1f} %"


# ------------------------------------------------------------------------------------------------------- the runs


@dataclass(frozen=True)
class Plan:
    """One run to be made: the scenario, which schedule it has, and what it is called while it runs."""

    scenario: Scenario
    schedule: str


def mutants_named(names: Sequence[str], known: Mapping[str, Mutant]) -> list[Mutant]:
    """The mutants of these names, or all. Raises UsageError for an unknown name."""
    for name in names:
        if name not in known:
            raise unknown("mutant", name, known)
    return [known[name] for name in dict.fromkeys(names or known)]


def plan_of_mutant(mutant: Mutant, schedule: str, seed: int) -> Plan:
    base = catalog.fitted(catalog.scenario(mutant.scenario), mutant.pipeline).with_(seed=seed)
    return Plan(base if schedule == "own" else catalog.rescheduled(base, schedule), schedule)


@dataclass
class Zoo:
    """Makes runs and writes each down. `tell` is called with a line after every run, `listener` with what goes on."""

    session: Session
    out: Path
    trials: list[Trial]
    journal: Path
    tell: Callable[[str], None]
    listener: Listener = lambda event: None

    @classmethod
    def opened(
        cls,
        session: Session,
        journal: Path,
        asked: Mapping[str, Any],
        resume: bool,
        tell: Callable[[str], None],
        listener: Listener,
    ) -> Zoo:
        """A new one, or with the trials of an earlier one that was asked the same and is to be taken up again.

        The journal of one that is not taken up again is kept as `….before`: it may be of many hours.
        """
        trials = read_journal(journal, asked) if resume else []
        if journal.exists():
            journal.rename(journal.with_suffix(".before"))
        lines = [json.dumps({"asked": asked}), *(json.dumps(dataclasses.asdict(trial)) for trial in trials)]
        journal.with_suffix(".tmp").write_text("\n".join(lines) + "\n")
        journal.with_suffix(".tmp").rename(journal)
        return cls(session, journal.parent, trials, journal, tell, listener)

    def make(self, plan: Plan) -> Trial:
        """One run. What fails in it is a trial too; only an interruption ends the zoo."""
        begin = time.monotonic()
        s = plan.scenario
        try:
            outcome = self.session.run(s, self.out, [self.listener])
            trial = Trial.of(outcome.verdict, plan.schedule, time.monotonic() - begin)
        except (HarnessFault, UsageError) as error:
            backend = self.session.prepare(s.pipeline).name
            reason = str(error).splitlines()[0]
            trial = Trial(s.pipeline.name, s.name, plan.schedule, backend, s.seed, "failed", (), (reason,),
                          round(time.monotonic() - begin, 1))  # fmt: skip
        self.trials.append(trial)
        with self.journal.open("a") as journal:
            journal.write(json.dumps(dataclasses.asdict(trial)) + "\n")
        return trial

    def run_mutants(
        self, mutants: Sequence[Mutant], *, runs: int | None, seed: int, schedule: str, without_faults: bool
    ) -> Iterator[Row]:
        """Each mutant until it is caught or its runs are used up; then, if asked, once without faults."""
        begin = time.monotonic()
        for place, mutant in enumerate(mutants, 1):
            head = f"[{place}/{len(mutants)}]"
            most = runs or mutant.runs
            mine = [t for t in self.trials if t.pipeline == mutant.name and t.schedule == schedule]
            while wants_another_run(mutant, mine, most):
                said = sum(trial.verdict in ("pass", "violation") for trial in mine)
                trial = self.make(plan_of_mutant(mutant, schedule, seed + said))
                mine.append(trial)
                self.tell(f"{head} {_elapsed(begin)} {mutant.name} under {mutant.scenario}, seed {trial.seed}: "
                          f"{_told(trial, mutant.caught_by)} in {trial.seconds:.0f} s")  # fmt: skip
            told = _without_faults(mutant, [t for t in self.trials if t.pipeline == mutant.name])
            if without_faults and told is None:
                trial = self.make(plan_of_mutant(mutant, "none", seed))
                self.tell(f"{head} {_elapsed(begin)} {mutant.name} without faults: {_told(trial)} in "
                          f"{trial.seconds:.0f} s")  # fmt: skip
            row = row_of(mutant, [t for t in self.trials if t.schedule in (schedule, "none")], most)
            assert row is not None
            yield row

    def run_healthy(self, base: Scenario, count: int, seed: int) -> None:
        """The pipeline under random schedules of `count` seeds. Of a run that passed only its line is kept."""
        begin = time.monotonic()
        done = {trial.seed for trial in self.trials}
        for place, one in enumerate(range(seed, seed + count), 1):
            if one in done:
                continue
            trial = self.make(Plan(catalog.rescheduled(base.with_(seed=one), "random"), "random"))
            if trial.verdict == "pass":
                shutil.rmtree(trial.folder, ignore_errors=True)
            kept = "" if trial.verdict == "pass" else f"; kept: {trial.folder}" if trial.folder else ""
            self.tell(f"[{place}/{count}] {_elapsed(begin)} seed {one}, {len(trial.faults)} faults: {_told(trial)} in "
                      f"{trial.seconds:.0f} s{kept}")  # fmt: skip


def read_journal(path: Path, asked: Mapping[str, Any]) -> list[Trial]:
    """The trials of an earlier zoo. Raises UsageError where there is none, or one that was asked something else.

    A line that was cut off by the end of its process is left out.
    """
    try:
        head, *lines = path.read_text().splitlines(keepends=True)
        before = json.loads(head)["asked"]
        trials = [Trial.from_dict(json.loads(line)) for line in lines if line.endswith("\n")]
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no {path} to go on from; leave --resume away, or take its folder as --out."
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is not the journal of a zoo: {error!r}") from error
    for name, value in asked.items():
        if before.get(name) != value:
            raise UsageError(
                f"{path} was made with {name} {before.get(name)}, not {value}: such runs do not add up. Ask for the "
                "same, or take another --out."
            )
    return trials


def _elapsed(begin: float) -> str:
    seconds = int(time.monotonic() - begin)
    return f"{seconds // 60:02d}:{seconds % 60:02d}"


def _told(trial: Trial, caught_by: str = "") -> str:
    if trial.violated:
        if caught_by:
            right = "caught by" if caught_by in trial.violated else f"not by {caught_by}, but by"
            return f"{right} {', '.join(trial.violated)}"
        return f"violation of {', '.join(trial.violated)}"
    if trial.verdict == "pass":
        return "passed" if not caught_by else "not caught"
    return f"{trial.verdict} ({trial.reasons[0] if trial.reasons else 'for no reason that was told'})"
