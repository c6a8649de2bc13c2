"""How a comparison of two versions is shown: its page, and its lines on a terminal. Nothing here judges."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.compare.measures import MEASURES
from harness.report import words
from harness.report.html import Section, asked_in, framed, macros, save_page, standing_of

Object = Mapping[str, Any]

_BY_KEY = {measure.key: measure for measure in MEASURES}
_MEANING = {
    "pass": "The candidate showed no kind of violation that the baseline does not show, and of each measure it is not worse by "
    "more than what is allowed, as far as so many pairs can tell: how small a difference they could not tell is said "
    "beside each. It says nothing of other loads and faults.",
    "violation": "The candidate is proven worse: by a new kind of violation, or by a difference that chance would hardly show "
    "between equal versions and that is larger than what is allowed. It may not replace the baseline.",
    "inconclusive": "Nothing is proven against the candidate, and not enough is known for it: too few pairs came to a verdict, "
    "or they scatter so much that a large difference could have gone unseen. It is no pass.",
}
_NOTE = (
    "Figures are medians over the pairs; change and interval are of the candidate against the baseline within the pairs. "
    "A difference is claimed where equal versions would show one, in any of these measures, in at most 2 % of such comparisons. "
    "What could have been seen is the true difference that would have been found in four of five cases."
)


def write_page(folder: Path, verdict: Object, path: Path) -> None:
    """Writes the page of a comparison, whole or not at all. `verdict`: {} for one that did not come to its end."""
    save_page(page_of(folder, verdict), path)


def page_of(folder: Path, verdict: Object) -> str:
    asked = asked_in(folder / "compare.json")
    standing = standing_of(verdict)
    hero = macros().hero(_hero(verdict, standing))
    sections = list(_sections(folder, verdict, asked))
    return framed("compare", standing, hero, sections, words.clean(folder), str(asked.get("started") or ""))


def sentence(verdict: Object) -> str:
    """The verdict in one sentence."""
    if not verdict:
        return "This comparison did not come to its end, so nothing is said of either version."
    names = f"{_name(verdict, 'candidate')} against {_name(verdict, 'baseline')}, {verdict['pairs']} pairs"
    bad = [f for f in words.findings_of(verdict) if f.get("verdict") == verdict["verdict"] != "pass"]
    if bad:
        return (
            f"{names}: {words.clean(bad[0]['summary'])}" + (f"; and {len(bad) - 1} more" if len(bad) > 1 else "") + "."
        )
    better = [line["name"].lower() for line in verdict["measures"] if line["status"] == "better"]
    return f"{names}: it is not seen to be worse" + (f", and better in {', '.join(better)}" if better else "") + "."


def _name(verdict: Object, side: str) -> str:
    return words.clean((verdict.get(side) or {}).get("described") or side)


def _hero(verdict: Object, standing: str) -> dict[str, Any]:
    findings = words.findings_of(verdict)
    return {
        "standing": standing,
        "word": words.word(verdict.get("verdict")),
        "sentence": sentence(verdict),
        "meaning": _MEANING.get(standing, words.meaning({})),
        "steps": _steps(verdict, standing),
        "troubles": [] if verdict else ["Runs are missing: `gauntlet compare --resume` makes them."],
        "tiles": [_tile(line) for line in verdict.get("measures") or [] if line["change"] is not None],
        "glance": [
            {
                "standing": standing_of(f),
                "told": words.word(f.get("verdict")),
                "name": words.clean(f.get("assertion")),
                "summary": words.shorten(words.clean(f.get("summary")), 400),
                "anchor": "runs" if f.get("assertion") in ("violations", "pairs") else "measures",
            }
            for f in findings
        ],
        "guards": None,
    }


def _steps(verdict: Object, standing: str) -> list[str]:
    if standing == "pass":
        return ["Release it; or compare with other seeds, a higher rate or other faults first."]
    if standing == "inconclusive":
        return [
            "Take more pairs, or longer loads: what each finding asks for is in its line.",
            "Keep the machine free.",
        ]
    if standing == "violation":
        return ["Open a run of the candidate that shows it, below, and repeat it with its seed after the repair."]
    return words.next_steps({})


def _tile(line: Object) -> dict[str, str]:
    measure = _BY_KEY[line["measure"]]
    return {"name": line["name"], "figure": measure.told(line["change"]), "about": line["status"]}


def _sections(folder: Path, verdict: Object, asked: Object) -> Iterator[Section]:
    if verdict:
        yield Section("measures", "Candidate against baseline", Markup(macros().versions_compared(_compared(verdict))))
        yield Section("runs", "Pair by pair", Markup(macros().runs_in_pairs(_in_pairs(verdict))))
    about = {
        "facts": [(key, words.clean(value)) for key, value in _facts(verdict, asked) if value not in (None, "", [])],
        "about": "",
        "repeat": repeat_command(asked.get("asked") or {}),
        "recheck": words.check_command(folder),
        "load": None,
        "plan": [],
    }
    yield Section("asked", "What was compared", Markup(macros().asked(about)))


def _compared(verdict: Object) -> dict[str, Any]:
    return {
        "lead": f"{verdict['pairs']} pairs of runs, each pair with the same seed and the same faults, in alternation.",
        "caption": "The candidate beside the baseline",
        "confidence": f"{verdict['measures'][0]['confidence']:.0%}",
        "note": _NOTE,
        "lines": [_line(line) for line in verdict["measures"]],
    }


def _line(line: Object) -> dict[str, str]:
    measure = _BY_KEY[line["measure"]]
    seen, ends = line["could_be_seen"], line["interval"]
    return {
        "name": line["name"],
        "baseline": measure.told_value(line["baseline"]),
        "candidate": measure.told_value(line["candidate"]),
        "change": "–" if line["change"] is None else measure.told(line["change"]),
        "interval": " to ".join(measure.told(end) for end in ends) if ends else "–",
        "seen": "–" if seen is None else measure.told(seen),
        "standing": standing_of(line),
        "status": line["status"],
    }


def _in_pairs(verdict: Object) -> dict[str, Any]:
    return {
        "caption": "Every run, in the order in which they were made",
        "names": [f"{m.name} ({m.unit})" for m in MEASURES],
        "rows": [
            {
                "pair": str(run["pair"]) + (f", attempt {run['attempt']}" if run["attempt"] > 1 else ""),
                "seed": run["seed"],
                "side": words.clean(run["side"]),
                "href": f"{Path(run['folder']).name}/report.html",
                "standing": standing_of(run),
                "told": words.word(run["verdict"]),
                "why": words.shorten(words.clean("; ".join(run["violated"] or run["reasons"])), 300),
                "figures": [_figure(run["figures"].get(m.key)) for m in MEASURES],
            }
            for run in verdict["runs"]
        ],
    }


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}"


def _facts(verdict: Object, asked: Object) -> list[tuple[str, Any]]:
    own = asked.get("asked") or {}
    bounds = [
        f"{measure.key}: {measure.told(measure.as_change(measure.as_difference(line['tolerance'])))}"
        for line in verdict.get("measures") or []
        for measure in (_BY_KEY[line["measure"]],)
    ]
    return [
        ("Baseline", (own.get("baseline") or {}).get("described")),
        ("Candidate", (own.get("candidate") or {}).get("described")),
        ("Scenario", own.get("scenario")),
        ("Backend", asked.get("backend")),
        ("First seed", own.get("seed")),
        (
            "Pairs asked for",
            own.get("pairs") if not own.get("enough") else f"as many as it takes, up to {own.get('pairs')}",
        ),
        ("Runs made", len(asked.get("runs") or [])),
        ("Left out pairs", ", ".join(map(str, verdict.get("dropped") or []))),
        ("Allowed", "; ".join(bounds)),
        ("Known violations", ", ".join(own.get("known") or [])),
    ]


def repeat_command(asked: Object) -> str:
    """The command that asks for the same."""
    argv: list[str] = ["gauntlet", "compare"]
    for side in ("baseline", "candidate"):
        argv.append(str((asked.get(side) or {}).get("spec") or side.upper()))
    for side in ("baseline", "candidate"):
        for option in ("env", "command", "image"):
            for value in (asked.get(side) or {}).get(option) or []:
                argv += [f"--{side}-{option}", str(value)]
    for name in ("scenario", "backend", "pairs", "seed", "rate", "seconds", "schedule"):
        if asked.get(name) is not None and not (name == "pairs" and asked.get("enough")):
            argv += [f"--{name}", f"{asked[name]:g}" if isinstance(asked[name], float) else str(asked[name])]
    for name in ("tolerance", "visible"):
        for key, amount in (asked.get(name) or {}).items():
            argv += [f"--{name}", f"{key}={amount:g}"]
    for kind in asked.get("known") or []:
        argv += ["--known", str(kind)]
    return " ".join(shlex.quote(words.clean(word)) for word in argv)


def lines(verdict: Object) -> list[str]:
    """What a terminal shows of it: the verdict, and a line a finding."""
    told = ["", f"{words.word(verdict['verdict']).upper()}  {sentence(verdict)}", ""]
    told += [f"  {f['verdict']:<13} {f['assertion']:<11} {words.clean(f['summary'])}" for f in verdict["findings"]]
    told += [
        f"  {line['status']:<13} {line['measure']:<11} {line['summary']}"
        for line in verdict["measures"]
        if line["status"] == "not compared"
    ]
    return [*told, "", f"report: {verdict['run']}/report.html"]
