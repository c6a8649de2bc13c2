"""What a folder of the store says of itself: one `Entry` each, whatever state it is in.

An entry is a pass only if everything that must be there for a pass is there and agrees: the manifest, the sums that it
lists, a verdict that says so, and findings that add up to it. Anything else is told as what it is.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from assertions.base import worst
from harness.errors import HarnessFault
from harness.report import words
from harness.run_folder import JOB, UnfinishedRun, check_listed, check_manifest, read_json
from harness.side_by_side import RUNS

#: What an entry can be. The first three are verdicts; nothing but a verdict counts as one.
STANDINGS = ("pass", "violation", "inconclusive", "running", "broken off", "damaged")
KINDS = ("run", "side-by-side", "compare", "soak", "zoo")
#: A folder without an end is taken as under way if something was written to it so lately, or if its process lives.
LIVELY_S = 180.0
#: A zoo that the service started is a folder of this name and the job's.
ZOO = "zoo-"
#: Which file makes a folder what; the first that is there.
_MADE_BY = (("soak.json", "soak"), ("compare.json", "compare"), (RUNS, "side-by-side"), ("zoo.jsonl", "zoo"),
            ("healthy.jsonl", "zoo"), ("run.json", "run"), ("history.jsonl", "run"))  # fmt: skip
_NAMED = re.compile(r"(\d{8}T\d{6})Z-(.+)-[0-9a-f]{8}")
#: Files that tell by their size and time whether a folder has changed.
_TELLING = ("run.json", "verdict.json", "manifest.json", RUNS, "soak.json", "compare.json", "zoo.jsonl",
            "healthy.jsonl", "report.html", JOB)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A folder of the store.

    name      of the folder
    standing  one of STANDINGS; `why` tells what is behind one that is no verdict
    started   UTC, ISO 8601; "" if nothing tells it
    seconds   from deploy to verdict, without the judging of trends and pages
    acked     events of the load that Kafka acknowledged
    p99_s     the finding `latency`, seconds; of a soak, of its last cycle
    violated  assertions that found a violation which nobody expected
    job       of the service that started it, or ""
    """

    name: str
    kind: str
    standing: str
    why: str = ""
    scenario: str = ""
    pipeline: str = ""
    backend: str = ""
    seed: int | None = None
    started: str = ""
    seconds: float | None = None
    acked: int | None = None
    p99_s: float | None = None
    violated: tuple[str, ...] = ()
    job: str = ""

    @property
    def judged(self) -> bool:
        return self.standing in STANDINGS[:3]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Entry:
        return cls(**{**saved, "violated": tuple(saved["violated"])})


def kind_of(folder: Path) -> str | None:
    """Which kind of entry a folder is; None for what is none. A folder that was made and nothing more is a run."""
    for name, kind in _MADE_BY:
        if (folder / name).is_file():
            return kind
    return "run" if _NAMED.fullmatch(folder.name) else None


def signature(folder: Path) -> str:
    """Changes whenever the entry may have."""
    told = []
    for name in _TELLING:
        try:
            found = (folder / name).stat()
            told.append(f"{name} {found.st_size} {found.st_mtime_ns}")
        except OSError:
            continue
    return "\n".join(told)


def read(folder: Path, at_work: Callable[[str, str], bool | None] = lambda name, job: None) -> Entry | None:
    """The entry of a folder; None if it is none. Raises nothing.

    `at_work` says of a folder's name and job whether a process works on it; None where nobody knows.
    """
    kind = kind_of(folder)
    if kind is None:
        return None
    named = _NAMED.fullmatch(folder.name)
    entry = Entry(folder.name, kind, "damaged", job=_job_of(folder))
    alive = at_work(entry.name, entry.job)
    if named:
        begun = datetime.strptime(named[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        entry = replace(entry, started=begun.isoformat(), scenario=named[2])
    try:
        entry = _asked(folder, entry)
        entry = _READERS[kind](folder, entry)
        return entry if entry.standing else replace(entry, **_unfinished(folder, alive))
    except UnfinishedRun:
        return replace(entry, **_unfinished(folder, alive))
    except Exception as error:
        # A folder that cannot be read is evidence of nothing, and must not take the others with it.
        if not (folder / "manifest.json").exists() and not (folder / "verdict.json").exists():
            return replace(entry, **_unfinished(folder, alive))
        told = error if isinstance(error, HarnessFault) else f"cannot be read ({error!r})"
        return replace(entry, standing="damaged", why=words.shorten(str(told), 500))


def _job_of(folder: Path) -> str:
    if folder.name.startswith(ZOO):
        return folder.name.removeprefix(ZOO)
    try:
        return (folder / JOB).read_text()[:100].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _unfinished(folder: Path, alive: bool | None) -> dict[str, Any]:
    if alive or (alive is None and time.time() - last_written(folder) < LIVELY_S):
        return {"standing": "running", "why": ""}
    if (folder / "soak.json").is_file():
        return {"standing": "broken off", "why": "The soak did not come to its end; it can go on with --resume."}
    return {"standing": "broken off", "why": "It did not come to its end, so it has no verdict."}


def last_written(folder: Path) -> float:
    """When something was last written into the folder's histories, or the folder itself (epoch seconds)."""
    times = [0.0]
    for path in [folder, folder / "soak.json", *histories(folder)]:
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times)


def histories(folder: Path) -> list[Path]:
    """Every history in the folder, in the order in which they were begun: its own, of its runs, of a soak's cycles."""
    found = [*folder.glob("history.jsonl"), *folder.glob("*/history.jsonl"), *folder.glob("cycles/*/history.jsonl")]
    return sorted(found, key=lambda path: (path.parent != folder, path.parent.name))


# ------------------------------------------------------------------------------------------------ what was asked


def _asked(folder: Path, entry: Entry) -> Entry:
    """What was asked for, where the folder has been told already."""
    if entry.kind == "soak":
        asked = read_json(folder / "soak.json").get("asked") or {}
        return replace(entry, scenario="soak", pipeline=_text(asked.get("pipeline")),
                       backend=_text(asked.get("backend")), seed=_whole(asked.get("seed")))  # fmt: skip
    name = {"run": "run.json", "side-by-side": RUNS, "compare": "compare.json"}.get(entry.kind)
    if name is None or not (folder / name).is_file():
        return entry
    asked = read_json(folder / name)
    if entry.kind == "compare" and isinstance(asked.get("asked"), Mapping):
        what = asked["asked"]
        specs = [_text((what.get(side) or {}).get("spec")) for side in ("baseline", "candidate")]
        asked = {**asked, "scenario": what.get("scenario"), "seed": what.get("seed"), "pipeline": " and ".join(specs)}
    pipeline = asked.get("pipeline")
    if isinstance(pipeline, Mapping):
        pipeline = pipeline.get("name")
    if pipeline is None and isinstance(asked.get("runs"), list):
        several = [_text(run.get("pipeline")) for run in asked["runs"] if isinstance(run, Mapping)]
        pipeline = " and ".join(dict.fromkeys(several))
    return replace(
        entry,
        scenario=_text(asked.get("scenario")) or entry.scenario,
        pipeline=_text(pipeline),
        backend=_text(asked.get("backend")),
        seed=_whole(asked.get("seed")),
        started=_time(asked.get("started")) or entry.started,
    )


# ------------------------------------------------------------------------------------------------- what came out


def _run(folder: Path, entry: Entry) -> Entry:
    check_manifest(folder)
    return _of_verdict(entry, read_json(folder / "verdict.json"))


def _side_by_side(folder: Path, entry: Entry) -> Entry:
    check_listed(folder, RUNS)
    verdict = read_json(folder / "verdict.json")
    runs = [run for run in verdict.get("runs") or [] if isinstance(run, Mapping)]
    for run in runs:
        check_manifest(folder / Path(_text(run.get("run"))).name)
        _of_verdict(entry, run)
    if verdict.get("verdict") != worst(run["verdict"] for run in runs):
        raise HarnessFault(f"{folder / 'verdict.json'}: its verdict is not that of its runs.")
    acked = sum(_whole((run.get("events") or {}).get("acked")) or 0 for run in runs)
    violated = [name for run in runs for name in _violated(run)]
    return replace(entry, standing=verdict["verdict"], acked=acked, violated=tuple(dict.fromkeys(violated)))


def _compare(folder: Path, entry: Entry) -> Entry:
    check_listed(folder, "compare.json")
    verdict = read_json(folder / "verdict.json")
    if verdict.get("verdict") != worst(finding["verdict"] for finding in verdict["findings"]):
        raise HarnessFault(f"{folder / 'verdict.json'}: its verdict is not what its findings add up to.")
    for run in read_json(folder / "compare.json").get("runs") or []:
        check_manifest(folder / Path(run["folder"]).name)
    return replace(entry, standing=verdict["verdict"], violated=_violated(verdict))


def _soak(folder: Path, entry: Entry) -> Entry:
    state = read_json(folder / "soak.json")
    cycles = {cycle["number"]: cycle for cycle in state["cycles"]}
    judged = [*cycles.values(), *(cut for cut in state.get("cut") or () if cut.get("verdict"))]
    acked = sum(one["events"].get("acked") or 0 for one in judged)
    last = list(cycles.values())[-1]["figures"].get("latency p99 (s)") if cycles else None
    violated = dict.fromkeys(name for one in judged for name in one.get("violated") or ())
    entry = replace(entry, seconds=_number(state.get("spent_s")), acked=acked, p99_s=_number(last),
                    violated=tuple(violated))  # fmt: skip
    if not (folder / "verdict.json").is_file():
        return replace(entry, standing="")
    verdict = read_json(folder / "verdict.json")
    found = [f["verdict"] for f in verdict["findings"] if f.get("figures", {}).get("claimed", True)]
    if verdict.get("verdict") != worst([*(one["verdict"] for one in judged), *found]):
        raise HarnessFault(f"{folder / 'verdict.json'}: its verdict is not that of its cycles and trends.")
    drifting = [f["assertion"] for f in verdict["findings"] if f["verdict"] == "violation"]
    return replace(entry, standing=verdict["verdict"], violated=(*entry.violated, *drifting))


def _zoo(folder: Path, entry: Entry) -> Entry:
    """Of mutants it is known when all were run; of healthy runs nobody wrote down how many were asked for."""
    from harness.service.zoo_page import healthy_of, mutants_of

    entry = replace(entry, scenario="zoo", pipeline="mutants" if (folder / "zoo.jsonl").is_file() else "healthy")
    if (folder / "zoo.jsonl").is_file():
        matrix = mutants_of(folder / "zoo.jsonl")
        standing = {"failed": "inconclusive"}.get(matrix.verdict, matrix.verdict)
        if len(matrix.rows) < matrix.known and standing == "pass":
            standing = "inconclusive"
        return replace(entry, standing=standing, why=f"{matrix.caught} of {matrix.known} mutants caught so far.")
    healthy = healthy_of(folder / "healthy.jsonl")
    count = healthy["outcomes"]
    alarms = count["violation"]
    told = f"{count['pass']} of {healthy['runs']} healthy runs passed so far; how many were asked for is not recorded."
    return replace(entry, standing="violation" if alarms else "inconclusive", why=told)


_READERS = {"run": _run, "side-by-side": _side_by_side, "compare": _compare, "soak": _soak, "zoo": _zoo}


def _of_verdict(entry: Entry, verdict: Mapping[str, Any]) -> Entry:
    """An entry by the verdict of a run. Raises HarnessFault for one whose findings do not add up to it."""
    findings = words.findings_of(verdict)
    said, counted = verdict.get("verdict"), [words.standing(finding) for finding in findings]
    unknown = [word for word in counted if word not in STANDINGS[:3]]
    if unknown or said != worst(counted):  # type: ignore[arg-type]
        raise HarnessFault(f"verdict.json: says {said!r}, which is not what its findings add up to.")
    timing = verdict.get("timing")
    events = verdict.get("events")
    spent = [_number(t) for t in timing.values()] if isinstance(timing, Mapping) else []
    latency = next((f.get("figures") or {} for f in findings if f.get("assertion") == "latency"), {})
    return replace(
        entry,
        standing=str(said),
        seconds=round(sum(t for t in spent if t is not None), 1) if spent else None,
        acked=_whole(events.get("acked")) if isinstance(events, Mapping) else None,
        p99_s=_number(latency.get("p99_s")),
        violated=_violated(verdict),
        backend=entry.backend or _text(verdict.get("backend")),
    )


def _violated(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    found = words.findings_of(verdict)
    return tuple(dict.fromkeys(_text(f.get("assertion")) for f in found if words.standing(f) == "violation"))


# ------------------------------------------------------------------------------------------------------ helpers


def lines(path: Path, most: int = 16 * 2**20) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines; what is torn or no object is left out. Of a long file its last `most` bytes."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - most))
        for line in file:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                yield found


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""


def _time(value: object) -> str:
    """As UTC to the second, so that times sort as texts."""
    try:
        return datetime.fromisoformat(_text(value)).astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def standing_class(standing: str) -> str:
    """The page's class of a standing: what is no verdict looks like none."""
    return standing if standing in STANDINGS[:3] else "none"


def flake(entries: Iterable[Entry]) -> tuple[int, int, int]:
    """(judged, that could not say, changes of verdict from one to the next), in the order of time."""
    told = [e.standing for e in entries if e.judged]
    changes = sum(a != b for a, b in pairwise(told))
    return len(told), told.count("inconclusive"), changes
