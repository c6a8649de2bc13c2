"""The page of runs side by side: Twitter's evaluation as a table, what it reported beside what was measured here.

Every figure leads to the place in its run's own page where it stands. Nothing here judges; see `html.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.report import words
from harness.report.comparison import MEASURES, Measure, findings
from harness.report.html import RUNS, Section, asked_in, framed, latency_of, macros, save_page, standing_of
from harness.report.tables import Head, Table
from harness.store import SavedRun

Object = Mapping[str, Any]

CAPTION = "Twitter's evaluation, and the same figures of these runs"
NOTE = (
    "Latency counts from when an event was due until it was counted where it is served. What a killed aggregator held comes "
    "again when its leases run out: late, and whole; what a killed speed layer held does not come again. "
    "Throughput is what became visible each second while the load lasted, at the size of the source records: what was asked "
    "of both, as long as both keep up. Parity counts a cell as exact when the served counts are those of the generator and "
    "the batch truth's too. A dash is what a pipeline does not have or did not show. Twitter's figures are of its own "
    "machines and load."
)


def write_page(folder: Path, verdict: Object, path: Path) -> None:
    """Writes the page of runs in a folder, whole or not at all. Raises only OSError."""
    save_page(page_of(folder, verdict), path)


def page_of(folder: Path, verdict: Object) -> str:
    """The page as text. `verdict`: of `harness.side_by_side`, or {} for runs of which not all came to their end."""
    asked = asked_in(folder / RUNS)
    standing = standing_of(verdict)
    name = words.clean(verdict.get("scenario") or asked.get("scenario") or folder.name)
    hero = macros().hero(_hero(verdict, standing, _repeat(verdict, asked)))
    return framed(
        name, standing, hero, _sections(folder, verdict, asked), words.clean(folder), asked.get("started", "")
    )


def _runs(verdict: Object) -> list[Object]:
    runs = verdict.get("runs")
    return [run for run in runs if isinstance(run, Mapping)] if isinstance(runs, list) else []


def _href(run: Object, number: int | None = None) -> str:
    """Into the run's own page, which lies in a folder beside this one."""
    folder = Path(str(run.get("run") or "")).name
    return f"{folder}/report.html" + (f"#finding-{number}" if number else "")


def sentence(verdict: Object) -> str:
    """The verdict of all runs in one sentence."""
    runs = _runs(verdict)
    if not runs:
        return "Not all of these runs came to their end, so nothing can be compared."
    told = [f"{words.clean(run.get('pipeline'))}: {words.word(run.get('verdict')).lower()}" for run in runs]
    return f"{'; '.join(told)}. {words.sentence(_worst(runs))}"


def _worst(runs: list[Object]) -> Object:
    order = ("violation", "inconclusive", "pass")
    return min(runs, key=lambda run: order.index(run["verdict"]) if run.get("verdict") in order else 0)


def _hero(verdict: Object, standing: str, repeat: str) -> dict[str, Any]:
    runs = _runs(verdict)
    table = {line["key"]: line["values"] for line in verdict.get("table") or []}
    return {
        "standing": standing,
        "word": words.word(verdict.get("verdict")),
        "sentence": sentence(verdict),
        "meaning": words.meaning(_worst(runs)) if runs else words.meaning({}),
        "steps": words.next_steps(_worst(runs), repeat) if runs else words.next_steps({}),
        "troubles": [] if runs else ["A run is missing, or was broken off."],
        "tiles": [_tile(m, table[m.key]) for m in MEASURES if m.key in ("lost", "latency_p99_s", "parity") and table],
        "glance": [
            {
                "standing": standing_of(run),
                "told": words.word(run.get("verdict")),
                "name": words.clean(run.get("pipeline")),
                "summary": words.sentence(run),
                "anchor": f"run-{number}",
            }
            for number, run in enumerate(runs, 1)
        ],
        "guards": None,
    }


def _tile(measure: Measure, values: Object) -> dict[str, str]:
    return {
        "name": measure.name,
        "figure": " · ".join(told(measure, value) for value in values.values()),
        "about": " · ".join(words.clean(name) for name in values),
    }


def _sections(folder: Path, verdict: Object, asked: Object) -> Iterator[Section]:
    runs = _runs(verdict)
    if runs:
        yield Section("evaluation", "Old against new", Markup(macros().compared(_compared(verdict, runs))))
        shown = [_beside(run, number) for number, run in enumerate(runs, 1)]
        yield Section("runs", "Run by run", Markup(macros().beside(shown)))
        plots = [{"name": words.clean(run.get("pipeline")), "body": _latency(folder, run)} for run in runs]
        yield Section("latency", "Latency", Markup(macros().stacked(plots)))
    about = {
        "facts": [(k, words.clean(v)) for k, v in _facts(verdict, asked) if v not in (None, "")],
        "about": words.clean(asked.get("about") or ""),
        "repeat": _repeat(verdict, asked),
        "recheck": words.check_command(folder),
        "load": None,
        "plan": [],
    }
    yield Section("asked", "What was run", Markup(macros().asked(about)))


def _latency(folder: Path, run: Object) -> Markup:
    """From the saved run, which lies in a folder beside the page."""
    return latency_of(SavedRun.open_unsealed(folder / Path(str(run["run"])).name), run)


def _facts(verdict: Object, asked: Object) -> list[tuple[str, Any]]:
    runs = [run for run in asked.get("runs") or [] if isinstance(run, Mapping)]
    return [
        ("Scenario", asked.get("scenario")),
        ("Pipelines", ", ".join(str(run.get("pipeline")) for run in runs)),
        ("Backend", verdict.get("backend") or asked.get("backend")),
        ("Seed", asked.get("seed")),
        ("Runs that came to their end", f"{sum(bool(run.get('folder')) for run in runs)} of {len(runs)}"),
    ]


def _repeat(verdict: Object, asked: Object) -> str:
    return words.repeat_command({**asked, "backend": verdict.get("backend") or asked.get("backend")})


def _compared(verdict: Object, runs: list[Object]) -> dict[str, Any]:
    values = {line["key"]: line["values"] for line in verdict["table"]}
    events = (runs[0].get("events") or {}).get("acked")
    lead = (
        f"The same load, {events:,} events, and the same faults on each" if isinstance(events, int) else "The same load"
    )
    return {
        "lead": f"{lead}, one after the other; each figure leads to where it stands in its run's own page.",
        "caption": CAPTION,
        "note": NOTE,
        "runs": [{"name": words.clean(run.get("pipeline")), "href": _href(run)} for run in runs],
        "lines": [
            {
                "name": m.name,
                "old": m.old,
                "new": m.new,
                "part": m.name.startswith("…"),
                "strong": m.key in ("lost", "parity"),
                "figures": [_value(m, values[m.key].get(run.get("pipeline")), run) for run in runs],
            }
            for m in MEASURES
        ],
    }


def _value(measure: Measure, value: Any, run: Object) -> dict[str, str]:
    number = next((n for n, _ in findings(run, measure.finding)), None) if measure.finding else None
    anchor = _href(run, number) if measure.finding else f"{_href(run)}#rates"
    return {"text": told(measure, value), "href": anchor if value is not None else ""}


def told(measure: Measure, value: Any) -> str:
    """A figure with its unit, as a person reads it."""
    if value is None:
        return "–"
    if measure.unit == "s":
        return words.seconds(value)
    if measure.unit == "%":
        return words.percent(value / 100)
    number = f"{value:,}" if isinstance(value, int) else words.number(value)
    return f"{number} {measure.unit}".strip() if measure.unit not in ("events", "cells") else number


def _beside(run: Object, number: int) -> dict[str, Any]:
    judged = [(n, f) for n, f in enumerate(words.findings_of(run), 1)]
    faults = [f for f in run.get("faults") or [] if isinstance(f, Mapping)]
    rows = [
        [
            words.clean(f.get("fault")),
            words.clean(f.get("target")),
            words.seconds(f["start"]) if isinstance(f.get("start"), int | float) else "",
            "yes" if f.get("bit") else "no",
        ]
        for f in faults
    ]
    return {
        "id": f"run-{number}",
        "name": f"{words.clean(run.get('scenario'))}: {words.clean(run.get('pipeline'))}",
        "href": _href(run),
        "standing": standing_of(run),
        "told": words.word(run.get("verdict")),
        "about": words.sentence(run),
        "findings": [
            {
                "href": _href(run, number),
                "standing": standing_of({"verdict": words.standing(f)}),
                "told": words.told(f),
                "name": words.finding_name(f),
                "summary": words.shorten(words.clean(f.get("summary", "")), 300),
            }
            for number, f in judged
            if not words.is_guard(f) or words.standing(f) != "pass"
        ],
        "faults": Table("Faults", [Head("Fault"), Head("Target"), Head("At", True), Head("Bit")], rows)
        if rows
        else None,
    }
