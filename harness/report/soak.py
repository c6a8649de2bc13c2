"""The page of a soak: the verdict, what grows, every cycle, a picture of each measure, and what is told of no event.

Nothing here judges; see `html.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.report import charts, words
from harness.report.html import Section, framed, macros, save_page, standing_of
from harness.report.tables import Head, Table

Object = Mapping[str, Any]

#: Of more cycles than this, those that did not pass come first, and the newest.
MOST_CYCLES = 200


def write_page(folder: Path, verdict: Object, over: bool, path: Path) -> None:
    """Writes the page of a soak, whole or not at all. `over`: it came to its end. Raises only OSError."""
    save_page(page_of(folder, verdict, over), path)


def page_of(folder: Path, verdict: Object, over: bool) -> str:
    standing = standing_of(verdict) if over else "none"
    title = f"soak of {words.clean(verdict['pipeline'])}, {verdict['hours']:.1f} hours"
    hero = macros().hero(_hero(verdict, standing, over))
    return framed(title, standing, hero, _sections(folder, verdict), words.clean(folder), "")


def sentence(verdict: Object) -> str:
    """What a soak came to, in one sentence."""
    count = verdict["counts"]
    told = [f"{count['pass']} cycles passed", f"{count['violation']} were violations"]
    told.append(f"{count['inconclusive']} could not say")
    drift, *others = verdict["findings"]
    idle = [f["summary"] for f in others if f["assertion"] == "at_work" and f["verdict"] == "violation"]
    return f"{'; '.join([', '.join(told), *idle, drift['summary']])}."


def _hero(verdict: Object, standing: str, over: bool) -> dict[str, Any]:
    events, unjudged = verdict["events"], verdict["unjudged"]
    shown = verdict if over else {}
    resume = f"gauntlet soak --resume {words.clean(verdict['soak'])}"
    return {
        "standing": standing,
        "word": words.word(standing),
        "sentence": sentence(verdict) if over else f"It did not come to its end. So far: {sentence(verdict)}",
        "meaning": words.meaning(shown),
        "steps": words.next_steps(shown) if over else [f"Go on with it: {resume}"],
        "troubles": [] if over else ["The soak was ended before its time."],
        "tiles": [
            {"name": "Acknowledged and judged", "figure": f"{events['acked']:,}", "about": "events"},
            {
                "name": "Acknowledged and not judged",
                "figure": f"{unjudged['cut_off'] + unjudged['tried_again']:,}",
                "about": f"{unjudged['cut_off']:,} cut off with the harness, {unjudged['tried_again']:,} tried again",
            },
            {
                "name": "Faults that bit",
                "figure": f"{verdict['faults']:,}",
                "about": f"in {len(_last(verdict))} cycles",
            },
        ],
        "glance": [
            _finding(f, at) for f, at in zip(verdict["findings"], ("measures", "cycles", "cycles"), strict=True)
        ],
        "guards": None,
    }


def _finding(finding: Object, anchor: str) -> dict[str, str]:
    return {
        "standing": standing_of(finding),
        "told": words.word(finding["verdict"]),
        "name": words.clean(finding["assertion"]),
        "summary": words.clean(finding["summary"]),
        "anchor": anchor,
    }


def _last(verdict: Object) -> list[Object]:
    """The last attempt of each cycle."""
    return list({cycle["number"]: cycle for cycle in verdict["cycles"]}.values())


def _sections(folder: Path, verdict: Object) -> Iterator[Section]:
    measures = verdict["findings"][0]["figures"]["measures"]
    yield Section("measures", "What grows", Markup(macros().grid(_measures(measures))))
    cycles = _last(verdict)
    numbers = [cycle["number"] for cycle in cycles]
    plots = []
    for one in measures:
        if any(one["measure"] in cycle["figures"] for cycle in cycles):
            line = None if one["first"] is None else (one["first"], one["last"])
            values = [cycle["figures"].get(one["measure"]) for cycle in cycles]
            plots.append({"name": one["measure"], "body": charts.trend(one["measure"], numbers, values, line)})
    yield Section("trends", "Measure by measure", Markup(macros().stacked(plots)))
    yield Section("cycles", "Cycle by cycle", Markup(macros().grid(_cycles(folder, verdict["cycles"]))))
    if verdict["cut"]:
        yield Section("cut", "Cut off", Markup(macros().grid(_cut(folder, verdict["cut"]))))
    about = {
        "facts": [("Pipeline", verdict["pipeline"]), ("Seed", verdict["seed"]), ("Hours", f"{verdict['hours']:.2f}")],
        "about": "",
        "repeat": f"gauntlet soak --pipeline {words.clean(verdict['pipeline'])} --seed {verdict['seed']} "
        f"--hours {math.ceil(verdict['hours'] * 100) / 100:g}",
        "recheck": words.check_command(folder),
        "load": None,
        "plan": [],
    }
    yield Section("asked", "What was run", Markup(macros().asked(about)))


def _measures(measures: list[Object]) -> Table:
    heads = [Head("Measure"), Head("Verdict"), *(Head(h, True) for h in ("First", "Last", "Each cycle", "By chance"))]
    rows = [
        [words.clean(m["measure"]), m["verdict"], *(_number(m[key]) for key in ("first", "last", "a_cycle", "chance"))]
        for m in measures
    ]
    return Table("Each measure at both ends of its fitted line, and how probable it is by chance", heads, rows)


def _cycles(folder: Path, cycles: list[Object]) -> Table:
    heads = [Head("Cycle"), Head("Verdict"), *(Head(h, True) for h in ("Events", "Faults", "p99 (s)", "Recovery (s)"))]
    heads.append(Head("Its run"))
    shown = sorted(cycles, key=lambda c: (c["verdict"] == "pass", -c["number"], -c["attempt"]))[:MOST_CYCLES]
    rows: list[list[str]] = []
    for cycle in shown:
        figures = cycle["figures"]
        again = f", attempt {cycle['attempt']}" if cycle["attempt"] > 1 else ""
        rows.append(
            [
                f"{cycle['number']}{again}",
                ": ".join(
                    [words.word(cycle["verdict"]), *([", ".join(cycle["violated"])] if cycle["violated"] else [])]
                ),
                f"{cycle['events'].get('acked', 0):,}",
                str(cycle["faults"]),
                _number(figures.get("latency p99 (s)")),
                _number(figures.get("longest recovery (s)")),
                _link(folder, cycle["run"]),
            ]
        )
    more = f"{len(cycles) - MOST_CYCLES:,} older cycles that passed are not shown." if len(cycles) > MOST_CYCLES else ""
    return Table("Those that did not pass first, then the newest", heads, rows, more)


def _cut(folder: Path, cut: list[Object]) -> Table:
    rows = []
    for one in cut:
        violated = f": {', '.join(one['violated'])}" if one.get("violated") else ""
        unsaid = f"not judged: {words.clean(one['why'])}" if one.get("why") else "not judged"
        told = f"{words.word(one['verdict'])}{violated}" if one.get("verdict") else unsaid
        rows.append([_link(folder, one["run"], gone=""), told, f"{one['events']['acked']:,}"])
    caption = "Cycles in the middle of which the harness ended: of those that are not judged nothing is claimed"
    return Table(caption, [Head("Run"), Head("Its events"), Head("Acknowledged", True)], rows)


def _link(folder: Path, run: str, gone: str = "not kept") -> str:
    """To the report of a run that is still there; else what is told of one that is `gone`, or its name."""
    name = Path(run).name
    if not (folder / "cycles" / name / "report.html").is_file():
        return gone or name
    return Markup('<a href="cycles/{}/report.html">{}</a>').format(name, name)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
