"""The page of a run: one self-contained HTML file with the verdict first and the evidence behind it.

`write_html` also makes a page of a run that was broken off or whose files are damaged: each section is made for itself,
and one that cannot be made says why. Nothing here judges; the verdict is taken as it is given.

What a run holds may come from a broken program, so all of it is escaped (Jinja's autoescape, `markupsafe` in the
plots), and the page's own content policy allows no script, style or connection but the ones written here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.report import charts, readings, words
from harness.report.readings import Absent, Axis, Fault, finite, sentence
from harness.report.tables import MOST_ROWS, Head, Table, more, nested, table_of
from harness.run_folder import write_whole
from harness.store import SavedRun

_HERE = Path(__file__).parent
#: In the folder of runs side by side: what was asked (see harness.side_by_side).
RUNS = "runs.json"
#: Most faults whose evidence is shown; a soak has thousands.
MOST_FAULTS = 150
#: Most classes of lost or doubled events; each has up to 32 events.
MOST_CLASSES = 48
#: Of each log, the last so many bytes and lines.
LOG_BYTES, LOG_LINES = 8_000, 40

T = TypeVar("T")
Object = Mapping[str, Any]


def write_html(run: SavedRun | None, verdict: Object | None, path: Path | str) -> None:
    """Writes the page of a run to `path`, whole or not at all.

    `verdict`: the object of the contract, or None or {} for a run that was not judged. Raises only OSError, if the
    file cannot be written.
    """
    save_page(page_of(run, verdict), path)


def save_page(page: str, path: Path | str) -> None:
    """Writes a page, whole or not at all. Raises OSError."""
    write_whole(Path(path), page.encode("utf-8", "backslashreplace"))


def page_of(run: SavedRun | None, verdict: Object | None) -> str:
    """The page as text."""
    return _Page(run, verdict if isinstance(verdict, Mapping) else {}).render()


@cache
def _environment() -> Environment:
    # Lines that hold nothing but a tag vanish, which keeps the page small.
    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(frozen=True)
class Section:
    """A section of the page; without a body, `why` tells what kept it from being made."""

    id: str
    title: str
    body: Markup | None
    why: str = ""


class _Page:
    """Collects what the sections share, then makes them one by one."""

    def __init__(self, run: SavedRun | None, verdict: Object) -> None:
        self.run_or_none, self.verdict = run, verdict
        self.troubles: list[str] = []
        self.folder = words.clean(verdict.get("run") or getattr(run, "path", "") or "RUN")
        self.meta: Object = self._told(lambda: self.run.meta, lambda: _json_of(self.run.path / "run.json"), {})
        self.history: list[dict[str, Any]] = self._told(
            lambda: self.run.history, lambda: _lines_of(self.run.path / "history.jsonl"), []
        )
        self.history = [r for r in self.history if finite(r.get("t")) is not None]
        self.hops = [h for h in _at(self.meta, "pipeline", "hops", default=[]) if isinstance(h, Mapping)]
        self.findings = words.findings_of(verdict)
        self.anchors = {id(f): f"finding-{n}" for n, f in enumerate(self.findings, 1)}
        self.macros = macros()
        self.once: dict[str, Any] = {}
        if not words.findings_of(verdict) and verdict.get("verdict") not in words.EXIT_STATUS:
            self.troubles += self._why_no_verdict()

    @property
    def run(self) -> SavedRun:
        if self.run_or_none is None:
            raise Absent("There is no run folder.")
        return self.run_or_none

    def _told(self, read: Callable[[], T], leniently: Callable[[], T], nothing: T) -> T:
        """What `read` gives; where that fails, says so on the page and takes what can be read all the same."""
        try:
            return read()
        except Exception as reason:
            self.troubles.append(sentence(reason))
        try:
            return leniently()
        except Exception:
            return nothing

    def _why_no_verdict(self) -> list[str]:
        told = [words.clean(r.get("text", "")) for r in self.history if r.get("kind") == "error"]
        stages = [str(r.get("stage")) for r in self.history if r.get("kind") == "stage"]
        if not stages:
            return ["The run has no verdict.", *told[-3:]]
        done = (
            "it came to its end, but was not judged"
            if stages[-1] == "store"
            else f"it was broken off in the stage {words.clean(stages[-1])}"
        )
        return [f"The run has no verdict: {done}.", *(words.shorten(t, 1500) for t in told[-3:])]

    # -- what several sections need -------------------------------------------------------------------------------

    def _once(self, key: str, make: Callable[[], T]) -> T:
        """The value of `make()`, or its failure, once a page."""
        if key not in self.once:
            try:
                self.once[key] = make()
            except Exception as reason:
                self.once[key] = reason
        value = self.once[key]
        if isinstance(value, Exception):
            raise value
        return value  # type: ignore[no-any-return]

    def zero(self) -> tuple[float, str]:
        return self._once("zero", lambda: readings.time_zero(self.meta, self.history))

    def faults(self) -> list[Fault]:
        def make() -> list[Fault]:
            try:
                t0 = self.zero()[0]
            except Absent:
                t0 = 0.0
            return readings.faults_of(self.verdict, self.history, self.meta, t0)

        return self._once("faults", make)

    def rates(self) -> readings.Rates:
        planned = finite(_at(self.meta, "load", "profile", "rate"))
        return self._once("rates", lambda: readings.rates(self.run, self.hops, self.history, self.zero()[0], planned))

    def latency(self) -> readings.Latency:
        def make() -> readings.Latency:
            axis = self.rates().axis
            return readings.latency(self.run, self.hops, axis)

        return self._once("latency", make)

    def counts(self) -> list[readings.Counted]:
        return self._once("counts", lambda: readings.counts(self.run, self.hops))

    def stages(self) -> list[readings.Stage]:
        return self._once("stages", lambda: readings.stages(self.history, self.zero()[0]))

    def lanes(self) -> list[readings.Lane]:
        def make() -> list[readings.Lane]:
            pipeline = _at(self.meta, "pipeline", default={})
            services = pipeline.get("services") or []
            declared = {str(p): "service" for s in services for p in s.get("processes") or [s.get("name")]}
            declared |= {str(w.get("name")): "worker" for w in pipeline.get("workers") or []}
            return readings.lanes(self.history, declared, self.zero()[0])

        return self._once("lanes", make)

    # -- the page -------------------------------------------------------------------------------------------------

    def render(self) -> str:
        sections = list(self._sections())
        standing = self._standing()
        title = " · ".join(
            words.clean(part)
            for part in (
                self._known("scenario"),
                self._pipeline(),
                f"run {self.meta['run']}" if self.meta.get("run") else "",
            )
            if part
        )
        hero = self._hero(standing)
        return framed(title or self.folder, standing, hero, sections, self.folder, str(self.meta.get("started") or ""))

    def _standing(self) -> str:
        return standing_of(self.verdict)

    def _known(self, key: str) -> Any:
        return self.meta.get(key) or self.verdict.get(key)

    def _pipeline(self) -> str:
        return str(_at(self.meta, "pipeline", "name") or self.verdict.get("pipeline") or "")

    def _hero(self, standing: str) -> Markup:
        try:
            return self._render("hero", self._verdict(standing, full=True))
        except Exception as reason:
            self.troubles.append(f"Part of this page's head could not be made: {sentence(reason)}")
            return self._render("hero", self._verdict(standing, full=False))

    def _render(self, macro: str, *data: Any) -> Markup:
        return Markup(getattr(self.macros, macro)(*data))

    def _sections(self, only: Collection[str] = ()) -> Iterator[Section]:
        parts: list[tuple[str, str, Callable[[], Any]]] = [
            ("asked", "What was run", self._asked),
            ("counts", "Counts by hop", self._counts),
            ("rates", "Rate at each hop", self._rates),
            ("latency", "Latency", self._latency),
            ("warehouse", "Warehouse", self._warehouse),
            ("attribution", "Where and why", self._attribution),
            ("findings", "Findings", self._findings),
            ("faults", "Fault evidence", self._faults),
            ("life", "Life of the run", self._life),
            ("exits", "Starts and exits", self._exits),
            ("guards", "Guards", self._guards),
            ("logs", "Ends of the logs", self._logs),
            ("versions", "Versions", self._versions),
            ("notes", "Notes", self._notes),
        ]
        for id_, title, make in parts:
            if only and id_ not in only:
                continue
            try:
                data = make()
                if data is None:
                    continue
                yield Section(id_, title, self._render({"guards": "findings"}.get(id_, id_), data))
            except Exception as reason:
                yield Section(id_, title, None, words.shorten(words.clean(sentence(reason)), 600))

    # -- verdict --------------------------------------------------------------------------------------------------

    def _verdict(self, standing: str, full: bool) -> dict[str, Any]:
        judged = [f for f in self.findings if not words.is_guard(f)]
        guards = [f for f in self.findings if words.is_guard(f)]
        return {
            "standing": standing,
            "word": words.word(self.verdict.get("verdict")),
            "sentence": words.sentence(self.verdict),
            "meaning": words.meaning(self.verdict),
            "steps": words.next_steps(self.verdict, self._repeat()),
            "troubles": [words.clean(t) for t in dict.fromkeys(self.troubles)],
            "tiles": list(self._tiles()) if full else [],
            "glance": [
                {
                    "standing": _mark(words.standing(f)),
                    "told": words.told(f),
                    "name": words.finding_name(f),
                    "summary": words.shorten(words.clean(f.get("summary", "")), 300),
                    "anchor": self.anchors[id(f)],
                }
                for f in _worst_first(judged)
            ],
            "guards": _guards_at_a_glance(guards),
        }

    def _tiles(self) -> Iterator[dict[str, str]]:
        events = self.verdict.get("events")
        if isinstance(events, Mapping) and finite(events.get("acked")) is not None:
            rest = [f"{events[k]:,} {k}" for k in ("ambiguous", "failed") if events.get(k)]
            about = f"of {events['sent']:,} sent" if finite(events.get("sent")) is not None else "by Kafka"
            yield _tile("Events acknowledged", f"{events['acked']:,}", ", ".join([about, *rest]))
        yield from self._count_tiles() if self._standing() != "none" else ()
        for finding in self.findings:
            figures = finding.get("figures")
            if finding.get("assertion") == "batch_parity" and isinstance(figures, Mapping):
                parity = finite(figures.get("parity"))
                wrong = figures.get("wrong")
                if parity is not None:
                    yield _tile(
                        "Parity with batch",
                        words.percent(parity),
                        f"{wrong:,} wrong cell{'s' * (wrong != 1)}" if isinstance(wrong, int) else "",
                    )
        latency = self._or_none(self.latency)
        if latency is not None:
            last = next((x for x in latency.all if x.name == latency.hop), None)
            if last is not None:
                yield _tile("Latency, median", words.milliseconds(last.p50), f"p99 {words.milliseconds(last.p99)}")
        faults = self.faults()
        if faults:
            judged = [f for f in faults if f.bit is not None]
            figure = f"{sum(f.bit is True for f in faults)} of {len(faults)}" if judged else str(len(faults))
            yield _tile("Faults that bit" if judged else "Faults", figure, _count_by(f.fault for f in faults))

    def _count_tiles(self) -> Iterator[dict[str, str]]:
        """What is missing and what was counted twice; where a tap is not certified, that nobody knows."""
        lines = [c for c in self._or_none(self.counts) or [] if "dead-letter" not in c.about]
        path = [c for c in lines if c.missing is not None]
        blind = [c.name for c in lines if not c.certified or c.missing is None]
        if blind:
            yield _tile("Events missing", "not known", f"nothing certain of {words.clean(blind[0])}")
        elif path:
            lost = max(path, key=lambda c: c.missing or 0)
            yield _tile("Events missing", f"{lost.missing:,}", f"at {lost.name}" if lost.missing else "at any hop")
        sink = [c for c in lines if c.part and c.duplicates is not None]
        if sink and sink[0].name not in blind:
            doubled = [c for c in lines if not c.part and c.duplicates and ", path" in c.about]
            before = max(doubled, key=lambda c: c.duplicates or 0, default=None)
            about = f"at {sink[0].name}" + (f"; {before.duplicates:,} duplicates at {before.name}" if before else "")
            yield _tile("Counted twice", f"{max(c.duplicates or 0 for c in sink):,}", about)

    def _or_none(self, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except Exception:
            return None

    # -- what was run ---------------------------------------------------------------------------------------------

    def _repeat(self) -> str:
        whole = self._or_none(lambda: _json_of(self.run.path.parent / RUNS))
        if whole is not None:  # one of several that were run side by side
            return words.repeat_command({**whole, "backend": self.meta.get("backend")})
        return words.repeat_command(self.meta, self.verdict, named=_is_scenario(self._known("scenario")))

    def _asked(self) -> dict[str, Any]:
        profile = _at(self.meta, "load", "profile", default={})
        facts = [
            ("Scenario", self._known("scenario")),
            ("Pipeline", self._pipeline()),
            ("Backend", self._known("backend")),
            ("Seed", self._known("seed")),
            ("Load", _load_in_words(profile)),
            ("Faults scheduled", len(self.meta.get("schedule") or []) if "schedule" in self.meta else None),
            ("Schedule drawn from seed", self.meta.get("schedule_seed")),
            ("Run", self.meta.get("run")),
            ("Started", when(str(self.meta.get("started") or ""))),
        ]
        known = [(name, words.clean(value)) for name, value in facts if value not in (None, "")]
        if not known:
            raise Absent("Neither run.json nor the verdict says what was asked.")
        plan = [
            t
            for t in (
                table_of(
                    "Faults as scheduled", [dict(s) for s in self.meta.get("schedule") or [] if isinstance(s, Mapping)]
                ),
                table_of(
                    "Assertions asked for",
                    [dict(a) for a in self.meta.get("assertions") or [] if isinstance(a, Mapping)],
                ),
                table_of(
                    "Expected violations",
                    [{"assertion": a, "expected": e} for a, e in _at(self.meta, "expected", default={}).items()],
                ),
            )
            if t is not None
        ]
        load = Table(
            "The load",
            [Head("Setting"), Head("Value", numeric=True)],
            [[words.label(str(k)), words.scalar(str(k), v)] for k, v in profile.items()],
        )
        return {
            "facts": known,
            "about": words.clean(self.meta.get("about") or ""),
            "repeat": self._repeat(),
            "recheck": words.check_command(self.folder),
            "load": load,
            "plan": plan,
        }

    # -- counts, rates, latency -----------------------------------------------------------------------------------

    def _counts(self) -> dict[str, Any]:
        def told(value: int | None) -> str:
            return "not known" if value is None else f"{value:,}"

        return {
            "lines": [
                {
                    "name": words.clean(c.name),
                    "about": words.clean(c.part or c.about),
                    "messages": told(c.messages),
                    "events": told(c.events),
                    "duplicates": told(c.duplicates),
                    "share": words.percent(c.duplicate_share) if c.duplicates and c.duplicate_share else "",
                    "missing": told(c.missing),
                    "of": f"of {c.of:,}" if c.missing and c.of else "",
                    "lost": bool(c.missing),
                    "certified": c.certified,
                    "notes": [words.shorten(words.clean(n), 500) for n in c.notes],
                }
                for c in self.counts()
            ]
        }

    def _rates(self) -> dict[str, Any]:
        rates, faults = self.rates(), self.faults()
        drawn = [f for f in faults if f.start is not None]
        return {
            "bin": words.seconds(rates.axis.width),
            "planned": words.number(rates.planned) if rates.planned else "",
            "faults": bool(drawn),
            "plot": charts.sizes(lambda width, narrow: charts.rate_plot(rates, drawn, width, narrow)),
            "zero": self.zero()[1],
            "how": [
                f"{words.clean(r.name)} counts {r.how}." for r in rates.rates if "sampl" in r.how or "durable" in r.how
            ],
            "missing": [f"{words.clean(name)} is not drawn: {words.clean(why)}" for name, why in rates.missing.items()],
            "table": _rates_table(rates),
            "data": _script_json(
                {
                    "start": rates.axis.start,
                    "width": rates.axis.width,
                    "rates": [
                        {"name": words.clean(r.name), "values": [round(float(v)) for v in r.values]}
                        for r in rates.rates
                    ],
                    "faults": [
                        {"title": words.clean(f"{f.number} {f.title}"), "start": f.start, "end": f.end}
                        for f in drawn[:MOST_FAULTS]
                    ],
                }
            ),
        }

    def _latency(self) -> dict[str, Any]:
        latency = self.latency()
        drawn = [f for f in self.faults() if f.start is not None]
        rows = [
            [words.clean(x.name), f"{x.events:,}", *(words.milliseconds(v) for v in (x.p50, x.p95, x.p99, x.most))]
            for x in latency.all
        ]
        heads = [Head("To the hop"), *(Head(h, True) for h in ("Events", "Median", "p95", "p99", "Largest"))]
        return {
            "hop": words.clean(latency.hop),
            "faults": bool(drawn),
            "plot": charts.sizes(lambda width, narrow: charts.latency_plot(latency, drawn, width, narrow)),
            "table": Table("Latency from the intended send time to each hop", heads, rows),
            "missing": [
                f"{words.clean(name)} is left out: {words.clean(why)}" for name, why in latency.missing.items()
            ],
        }

    def _warehouse(self) -> dict[str, Any] | None:
        """The series of duplicates and what the parity query found; none where the pipeline has no warehouse."""
        if not _at(self.meta, "pipeline", "warehouse"):
            return None
        told = readings.duplicates(self.run, self.zero()[0])
        drawn = [f for f in self.faults() if f.start is not None]
        figures = {
            name: next((f.get("figures") or {} for f in self.findings if f.get("assertion") == name), {})
            for name in ("warehouse_duplicates", "warehouse_parity")
        }
        ours, parity = _at(figures["warehouse_duplicates"], "ledger", default={}), figures["warehouse_parity"]
        names = ("messages", "events", "before", "settled", "counted", "after")
        sides = {"by the warehouse": told.last, "by the harness": ours}
        rows = [
            [side, *(words.scalar(name, values[name]) if values.get(name) is not None else "" for name in names)]
            for side, values in sides.items()
        ]
        kinds = [("exact", "Match exactly"), ("explained", "Explained by late events"), ("wrong", "Wrong")]
        cells = parity.get("cells")
        return {
            "faults": bool(drawn),
            "plot": charts.sizes(lambda width, narrow: charts.duplicates_plot(told, drawn, width, narrow)),
            "asked": f"{len(told.times):,}",
            "table": Table(
                "At the end: duplicates, and the rates before and after deduplication",
                [Head(""), *(Head(words.label(name), True) for name in names)],
                rows,
            ),
            "parity": Table(
                "Cells of the stream against the batch output, by the parity query",
                [Head("Cells"), Head("Number", True), Head("Share", True)],
                [
                    [name, f"{parity[kind]:,}", words.percent(parity[kind] / cells)]
                    for kind, name in kinds
                    if cells and parity.get(kind) is not None
                ],
            ),
        }

    # -- findings and faults --------------------------------------------------------------------------------------

    def _findings(self) -> list[dict[str, Any]]:
        judged = [f for f in self.findings if not words.is_guard(f)]
        if not judged:
            raise Absent("The run was not judged, so there is no finding.")
        return [_finding(f, self.anchors[id(f)]) for f in _worst_first(judged)]

    def _attribution(self) -> list[dict[str, Any]] | None:
        """Each class of lost or doubled events, those of findings that are no pass first; none where nothing was."""
        shown = []
        for finding in _worst_first([f for f in self.findings if not words.is_guard(f)]):
            classes = _at(finding, "figures", "attribution", default=[])
            unsaid = _at(finding, "figures", "attribution_error")
            if unsaid:
                shown.append(_unattributed(finding, str(unsaid), self.anchors[id(finding)]))
            shown += [
                _attributed(one, finding, self.anchors[id(finding)]) for one in classes if isinstance(one, Mapping)
            ]
        return shown[:MOST_CLASSES] or None

    def _guards(self) -> list[dict[str, Any]]:
        guards = [f for f in self.findings if words.is_guard(f)]
        if not guards:
            raise Absent("The run was not judged, so no guard has looked at it.")
        return [_finding(f, self.anchors[id(f)]) for f in _worst_first(guards)]

    def _faults(self) -> dict[str, Any]:
        faults = self.faults()
        if not faults:
            return (
                {"summary": "No fault was scheduled in this run.", "rows": [], "more": ""}
                if self.meta
                else _absent("Nothing is known of faults: run.json and the history cannot be read.")
            )
        judged = [f for f in faults if f.bit is not None]
        bit = sum(f.bit is True for f in faults)
        summary = (
            f"{bit} of {len(faults)} fault{'s' * (len(faults) != 1)} bit. A fault that did nothing proves nothing."
            if judged
            else "Whether these faults bit was not judged; this is what was observed."
        )
        rows = []
        # Those that did not bite first matter most where not all are shown; the order stays that of time.
        kept = sorted(sorted(faults, key=lambda f: f.bit is True)[:MOST_FAULTS], key=lambda f: f.number)
        for f in kept:
            evidence = [(words.label(str(k)), words.scalar(str(k), v)) for k, v in {**f.params, **f.evidence}.items()]
            rows.append(
                {
                    "number": f.number,
                    "fault": words.clean(f.fault),
                    "target": words.clean(f.target),
                    "start": "never" if f.start is None else words.seconds(f.start),
                    "end": ("" if f.start is None else "not healed") if f.end is None else words.seconds(f.end),
                    "standing": {True: "pass", False: "inconclusive", None: "none"}[f.bit],
                    "bit": {True: "bit", False: "did not bite", None: "not judged"}[f.bit],
                    "evidence": evidence[:24],
                }
            )
        more = (
            f"{len(faults) - len(kept):,} further faults that bit are not shown; verdict.json has all."
            if len(faults) > len(kept)
            else ""
        )
        return {"summary": summary, "rows": rows, "more": more}

    # -- life -----------------------------------------------------------------------------------------------------

    def _life(self) -> dict[str, Any]:
        stages = self._or_none(self.stages) or []
        lanes = self._or_none(self.lanes) or []
        timing = self.verdict.get("timing")
        timing = timing if isinstance(timing, Mapping) else {}
        if not stages and not lanes and not timing:
            raise Absent("The history names no stage and no process, so nothing is known of the life of this run.")
        drawn = [f for f in self.faults() if f.start is not None]
        ended = next((r for r in self.history if r.get("kind") == "drain-end"), {})
        rows = []
        for stage in stages:
            told = finite(timing.get(stage.name.replace("-", "_")))
            took = told if told is not None else stage.seconds
            reason = f"ended by: {words.clean(ended.get('reason'))}" if stage.name == "drain" and ended else ""
            rows.append(
                [
                    words.clean(stage.name),
                    words.seconds(stage.start),
                    "" if took is None else words.seconds(took),
                    reason,
                ]
            )
        if not rows:
            rows = [[words.label(str(k)), "", words.scalar(str(k), v), ""] for k, v in timing.items()]
        heads = [Head("Stage"), Head("From", True), Head("Took", True), Head("Note")]
        return {
            "faults": bool(drawn),
            "plot": charts.sizes(lambda width, narrow: charts.life_plot(stages, lanes, drawn, width, narrow)),
            "table": Table("Stages of the run; times count from the load's start", heads, rows),
        }

    def _exits(self) -> dict[str, Any]:
        lanes = self.lanes()
        rows: list[tuple[float, list[str]]] = []
        for lane in lanes:
            for life in lane.lives:
                lived = None if life.start is None or life.end is None else life.end - life.start
                rows.append(
                    (
                        life.start if life.start is not None else life.end or 0.0,
                        [
                            words.clean(lane.name),
                            lane.kind,
                            words.clean(life.pid),
                            "not seen" if life.start is None else words.seconds(life.start),
                            "not seen" if life.end is None else words.seconds(life.end),
                            "" if lived is None else words.seconds(lived),
                            words.clean(life.how),
                        ],
                    )
                )
        rows.sort(key=lambda row: row[0])
        alone = sum(life.end is not None and not life.asked for lane in lanes for life in lane.lives)
        again = sum(max(0, len(lane.lives) - 1) for lane in lanes)
        summary = (
            f"{len(rows):,} processes, {again:,} of them started again; "
            f"{alone:,} exit{'s' * (alone != 1)} that nobody asked for."
        )
        heads = [
            Head("Name"),
            Head("What"),
            Head("Pid", True),
            Head("From", True),
            Head("To", True),
            Head("Lived", True),
            Head("How it ended"),
        ]
        shown = [cells for _, cells in rows[:MOST_ROWS]]
        return {"summary": summary, "table": Table("Every process, by its start", heads, shown, more(len(rows)))}

    # -- logs, versions, notes ------------------------------------------------------------------------------------

    def _logs(self) -> list[dict[str, Any]] | None:
        """The ends of the logs that tell something: of what ended by itself, or of all where the run has no verdict."""
        alone = {
            str(r.get("worker") or r.get("service"))
            for r in self.history
            if r.get("kind") in ("worker-exit", "service-exit") and not r.get("asked")
        }
        unjudged = self._standing() == "none"
        files = sorted((self.run.path / "logs").glob("*.log"))
        shown = [f for f in files if unjudged or f.stem in alone]
        logs = [{"name": words.clean(f"logs/{f.name}"), "text": _tail(f), "open": f.stem in alone} for f in shown[:24]]
        return logs or None

    def _versions(self) -> list[tuple[str, str]]:
        versions = self.meta.get("versions")
        if not isinstance(versions, Mapping) or not versions:
            raise Absent("run.json names no versions.")
        return [(words.clean(k), words.shorten(words.clean(v), 200)) for k, v in versions.items()]

    def _notes(self) -> list[dict[str, Any]]:
        notes = [{"when": "", "error": False, "text": words.clean(n)} for n in self.meta.get("notes") or []]
        t0 = self._or_none(lambda: self.zero()[0])
        for record in self.history:
            if record.get("kind") in ("note", "error"):
                when = "" if t0 is None else words.seconds(float(record["t"]) - t0)
                text = words.shorten(words.clean(record.get("text", "")), 1200)
                notes.append({"when": when, "error": record["kind"] == "error", "text": text})
        return notes[:MOST_ROWS] or _absent("Nothing was noted.")


# ------------------------------------------------------------------------------------------------- helpers


def framed(title: str, standing: str, hero: Markup, sections: Iterable[Section], folder: str, started: str) -> str:
    """A whole page: what every page has in common, around its own head and sections."""
    style, script = ((_HERE / name).read_text() for name in ("page.css", "page.js"))
    return (
        _environment()
        .get_template("page.jinja")
        .render(
            title=title,
            word=words.word(standing),
            started=words.clean(started),
            started_text=when(words.clean(started)),
            hero=hero,
            sections=list(sections),
            folder=folder,
            icon_none=macros().icon("none"),
            style=Markup(style),
            script=Markup(script),
            style_hash=_policy_hash(style),
            script_hash=_policy_hash(script),
            favicon=favicon(standing),
        )
    )


def sections_of(run: SavedRun | None, verdict: Object, only: Collection[str], live: bool = False) -> list[Section]:
    """Some sections of a run's page by their ids. `live`: the run is under way, so that what has not happened or was not
    collected yet is left out and not told as missing."""
    page = _Page(run, verdict)
    if live:
        page.meta, page.hops = {**page.meta, "schedule": []}, []
    return list(page._sections(only))


def macros() -> Any:
    """The macros of `sections.jinja`, each a section of a page."""
    return _environment().get_template("sections.jinja").module


def latency_of(run: SavedRun, verdict: Object) -> Markup:
    """The plot and table of a run's latency, as on its own page, or why there is none."""
    page = _Page(run, verdict)
    try:
        return page._render("latency", page._latency())
    except Exception as reason:
        return Markup("<p class='absent'>{}<span>{}</span></p>").format(macros().icon("none"), sentence(reason))


def standing_of(verdict: Object) -> str:
    """The verdict's word as the page's classes name it: "none" without one."""
    return str(verdict.get("verdict")) if verdict.get("verdict") in words.EXIT_STATUS else "none"


def _absent(why: str) -> Any:
    raise Absent(why)


def _at(value: Any, *keys: str, default: Any = None) -> Any:
    """`value[a][b]…`, or the default where anything on the way is missing or of another kind."""
    for key in keys:
        if not isinstance(value, Mapping):
            return default
        value = value.get(key)
    if value is None or (default is not None and not isinstance(value, type(default))):
        return default
    return value


def _json_of(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_bytes())
    return found if isinstance(found, dict) else {}


def asked_in(path: Path) -> dict[str, Any]:
    """What a folder of several runs says was asked; {} where it cannot be read, because its page is then most wanted."""
    try:
        return _json_of(path)
    except (OSError, ValueError):
        return {}


def _lines_of(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "kind" in record and finite(record.get("t")) is not None:
            found.append(record)
    return sorted(found, key=lambda record: record["t"])


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read().decode("utf-8", "replace")
    lines = text.splitlines()
    if size > LOG_BYTES:
        lines = lines[1:]
    return words.clean("\n".join(words.shorten(line, 1000) for line in lines[-LOG_LINES:])) or "(it wrote nothing)"


@cache
def _scenarios() -> frozenset[str]:
    try:
        from harness import catalog

        return frozenset(catalog.scenarios())
    except Exception:
        return frozenset()


def _is_scenario(name: Any) -> bool:
    known = _scenarios()
    return not known or not name or name in known


def _tile(name: str, figure: str, about: str) -> dict[str, str]:
    return {"name": name, "figure": figure, "about": words.clean(about)}


def _mark(standing: str) -> str:
    return standing if standing in words.EXIT_STATUS else "none"


def _count_by(names: Iterator[str]) -> str:
    counted: dict[str, int] = {}
    for name in names:
        counted[name] = counted.get(name, 0) + 1
    return ", ".join(f"{n} × {words.clean(name)}" if n > 1 else words.clean(name) for name, n in counted.items())


def _worst_first(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(findings, key=lambda f: {"violation": 0, "inconclusive": 1, "pass": 3}.get(words.standing(f), 2))


def _guards_at_a_glance(guards: list[dict[str, Any]]) -> dict[str, str] | None:
    if not guards:
        return None
    bad = [g for g in guards if words.standing(g) != "pass"]
    if not bad:
        return {"standing": "pass", "told": "Pass", "summary": f"all {len(guards)} hold: the run itself can be trusted"}
    first = _worst_first(bad)[0]
    summary = "; ".join(f"{g.get('assertion')}: {g.get('summary', '')}" for g in bad)
    return {
        "standing": _mark(words.standing(first)),
        "told": words.told(first),
        "summary": words.shorten(words.clean(summary), 300),
    }


def _finding(finding: Object, anchor: str) -> dict[str, Any]:
    figures = finding.get("figures")
    figures = figures if isinstance(figures, Mapping) else {}
    plain: list[tuple[str, str]] = []
    tables: list[Table] = []
    for key, value in figures.items():
        if key in ("attribution", "attribution_error"):  # has a section of its own
            continue
        table = nested(str(key), value)
        if table is not None:
            tables.append(table)
        else:
            plain.append((words.label(str(key)), words.scalar(str(key), value)))
    examples = finding.get("examples")
    shown = (
        [e if isinstance(e, Mapping) else {"example": e} for e in examples]
        if isinstance(examples, list | tuple)
        else []
    )
    standing = _mark(words.standing(finding))
    return {
        "anchor": anchor,
        "standing": standing,
        "told": words.told(finding),
        "name": words.finding_name(finding),
        "summary": words.shorten(words.clean(finding.get("summary", "")), 2000),
        "figures": plain[:60],
        "tables": tables[:12],
        "examples": table_of("Worst examples" if standing != "pass" else "Examples", shown),
        "open": standing != "pass" or finding.get("verdict") != "pass",
    }


def _attributed(one: Object, finding: Object, anchor: str) -> dict[str, Any]:
    events = one.get("events")
    lost = one.get("kind") == "lost"
    before, after = one.get("hop_before"), one.get("hop_after")
    faults = [f for f in one.get("faults") or [] if isinstance(f, Mapping)]
    told = [f"{f.get('fault')} {f.get('target')} at {words.scalar('start_s', f.get('start'))}" for f in faults]
    examples = [dict(e) for e in one.get("examples") or [] if isinstance(e, Mapping)]
    return {
        "standing": _mark(words.standing(finding)),
        "events": f"{events:,}" if isinstance(events, int) else "?",
        "kind": "lost" if lost else "doubled",
        "between": words.clean(f"{before} → {after}" if before else after),
        "worker": words.clean(one.get("worker") or "not declared"),
        "link": words.clean(one.get("link") or ""),
        "faults": words.clean(", ".join(told) or "none"),
        "cause": words.shorten(words.clean(one.get("cause", "")), 1200),
        "finding": words.finding_name(finding),
        "anchor": anchor,
        "examples": table_of("The worst of them, hop by hop", examples),
    }


def _unattributed(finding: Object, why: str, anchor: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("events", "kind", "between", "worker", "link", "faults"), "")
    cause = f"This cannot be said: {words.shorten(words.clean(why), 600)}"
    own = {
        "standing": "none",
        "cause": cause,
        "finding": words.finding_name(finding),
        "anchor": anchor,
        "examples": None,
    }
    return {**nothing, **own}


def _rates_table(rates: readings.Rates) -> Table:
    """The plot's figures by the second, or by as many seconds as keep it to 120 rows."""
    axis: Axis = rates.axis
    together = max(1, math.ceil(1 / axis.width), math.ceil((len(axis.edges) - 1) / 120))
    heads = [Head("From", True), *(Head(f"{words.clean(r.name)} /s", True) for r in rates.rates)]
    rows = []
    for place in range(0, len(axis.edges) - 1, together):
        values = [float(np.mean(r.values[place : place + together])) for r in rates.rates]
        rows.append([words.seconds(float(axis.edges[place])), *(f"{round(v):,}" for v in values)])
    return Table(f"Messages a second, over {words.seconds(together * axis.width)} each", heads, rows)


def _load_in_words(profile: Mapping[str, Any]) -> str:
    rate, length = finite(profile.get("rate")), finite(profile.get("seconds"))
    kind = str(profile.get("kind", ""))
    parts = [kind, f"{words.number(rate)}/s" if rate else "", f"for {length:g} s" if length else ""]
    times, burst_s = finite(profile.get("times")), finite(profile.get("burst_seconds"))
    if times and burst_s:
        parts.append(f"({times:g} times as much for {burst_s:g} s)")
    return " ".join(p for p in parts if p)


def when(iso: str) -> str:
    """`2026-11-24 00:12:31 UTC`; what is no time is shown as it is."""
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return words.clean(iso)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _policy_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script_json(value: Any) -> Markup:
    """JSON that can stand inside a script element."""
    text = json.dumps(value, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def favicon(standing: str) -> str:
    colour = {"pass": "0b6a4d", "violation": "b3231b", "inconclusive": "875400"}.get(standing, "5a5f66")
    shape = {
        "pass": "%3Ccircle cx='8' cy='8' r='7'/%3E",
        "violation": "%3Crect x='1' y='1' width='14' height='14'/%3E",
        "inconclusive": "%3Cpath d='M8 0l8 8-8 8-8-8z'/%3E",
    }.get(standing, "%3Ccircle cx='8' cy='8' r='4'/%3E")
    return f"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%23{colour}'%3E{shape}%3C/svg%3E"
