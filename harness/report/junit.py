"""JUnit XML of a run, as Jenkins and GitLab read it: a testsuite a run, a testcase a finding.

A violation is a `failure`, an inconclusive finding an `error` of the type "inconclusive": both fail a build, and only
the first speaks against the pipeline. A violation that the scenario expects is neither.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.report import words
from harness.run_folder import write_whole


def write_junit(verdict: Mapping[str, Any] | None, path: Path | str) -> None:
    """Writes the verdict (the object of the contract; None or {}: a run that was not judged) to `path`, whole or not
    at all. Of a verdict with `runs`, each run is a testsuite. Raises OSError if the file cannot be written."""
    data = ET.tostring(_suites(verdict or {}), encoding="utf-8", xml_declaration=True)
    write_whole(Path(path), data + b"\n")


def _suites(verdict: Mapping[str, Any]) -> ET.Element:
    runs = verdict.get("runs")
    suites = [
        _suite(run) for run in (runs if isinstance(runs, list) and runs else [verdict]) if isinstance(run, Mapping)
    ]
    root = ET.Element("testsuites", name="gauntlet")
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in suites):.3f}")
    root.extend(suites)
    return root


def _suite(verdict: Mapping[str, Any]) -> ET.Element:
    findings = words.findings_of(verdict)
    timing = verdict.get("timing")
    times = [float(v) for v in timing.values() if isinstance(v, int | float)] if isinstance(timing, Mapping) else []
    name = ".".join(
        words.clean(part) for part in ("gauntlet", verdict.get("scenario"), verdict.get("pipeline")) if part
    )
    suite = ET.Element("testsuite", name=name, time=f"{sum(times):.3f}", skipped="0")
    properties = ET.SubElement(suite, "properties")
    for key in ("verdict", "run", "scenario", "pipeline", "backend", "seed"):
        if verdict.get(key) is not None:
            ET.SubElement(properties, "property", name=key, value=words.clean(verdict[key]))
    taken: dict[str, int] = {}
    cases = [_case(name, finding, taken) for finding in findings] or [_unjudged(name)]
    suite.extend(cases)
    suite.set("tests", str(len(cases)))
    for kind in ("failure", "error"):
        suite.set(f"{kind}s", str(sum(case.find(kind) is not None for case in cases)))
    told = [f"verdict: {verdict.get('verdict', 'none')}"]
    faults = verdict.get("faults")
    told += [_fault(f) for f in faults if isinstance(f, Mapping)] if isinstance(faults, list) else []
    ET.SubElement(suite, "system-out").text = words.clean("\n".join(told))
    ET.SubElement(suite, "system-err")
    return suite


def _case(suite: str, finding: Mapping[str, Any], taken: dict[str, int]) -> ET.Element:
    name = words.clean(finding.get("assertion", "?"))
    figures = finding.get("figures")
    if isinstance(figures, Mapping) and isinstance(figures.get("hop"), str):
        name += f" at {words.clean(figures['hop'])}"
    taken[name] = taken.get(name, 0) + 1
    if taken[name] > 1:  # a CI server merges cases of the same name
        name += f" ({taken[name]})"
    case = ET.Element("testcase", name=name, classname=suite, time="0.000")
    summary = words.clean(finding.get("summary", ""))
    standing = words.standing(finding)
    if standing != "pass":
        examples = finding.get("examples")
        shown = [words.as_text(e) for e in examples] if isinstance(examples, list | tuple) else []
        kind = "failure" if standing == "violation" else "error"
        told = {"violation": "violation", "inconclusive": "inconclusive"}.get(standing, "no verdict")
        ET.SubElement(case, kind, message=words.shorten(summary, 1000), type=told).text = "\n".join([summary, *shown])
    lines = [f"{words.told(finding)}: {summary}"]
    if isinstance(figures, Mapping):
        lines += [f"{words.clean(key)}: {words.as_text(value)}" for key, value in figures.items()]
    ET.SubElement(case, "system-out").text = "\n".join(lines)
    return case


def _unjudged(suite: str) -> ET.Element:
    case = ET.Element("testcase", name="verdict", classname=suite, time="0.000")
    told = "the run was not judged: nothing is known of the pipeline"
    ET.SubElement(case, "error", message=told, type="inconclusive").text = told
    return case


def _fault(fault: Mapping[str, Any]) -> str:
    bit = {True: "bit", False: "did not bite"}.get(fault.get("bit"), "not judged")  # type: ignore[arg-type]
    return f"fault: {fault.get('fault')} {fault.get('target')}, {fault.get('start')} to {fault.get('end')} s, {bit}"
