"""The JUnit file: what a CI server takes for red, and for green."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from harness.report.junit import write_junit


def finding(name: str, verdict: str, **more: Any) -> dict[str, Any]:
    return {
        "assertion": name,
        "verdict": verdict,
        "summary": f"{name} is {verdict}",
        "figures": {},
        "examples": [],
        **more,
    }


def suite_of(tmp_path: Path, *findings: dict[str, Any], **verdict: Any) -> ET.Element:
    write_junit({"scenario": "s", "pipeline": "p", "findings": list(findings), **verdict}, tmp_path / "junit.xml")
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert root.tag == "testsuites"
    return root[0]


def test_an_expected_violation_is_green_and_its_absence_red(tmp_path: Path) -> None:
    suite = suite_of(
        tmp_path,
        finding("no_loss", "violation", expected="violation"),
        finding("content", "pass", expected="violation"),
    )
    lost, content = suite.findall("testcase")
    assert lost.find("failure") is None
    assert "as expected" in str(lost.findtext("system-out"))
    assert content.find("failure") is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")


def test_two_findings_of_one_assertion_have_names_of_their_own(tmp_path: Path) -> None:
    hops = [
        finding("duplicate_rate", "pass", figures={"hop": hop}) for hop in ("published", "aggregates", "aggregates")
    ]
    names = [case.get("name") for case in suite_of(tmp_path, *hops).findall("testcase")]
    assert names == ["duplicate_rate at published", "duplicate_rate at aggregates", "duplicate_rate at aggregates (2)"]


def test_a_failure_shows_its_examples_and_figures(tmp_path: Path) -> None:
    bad = finding("no_loss", "violation", figures={"lost": 3}, examples=[{"event": "1a2b-0001"}])
    case = suite_of(tmp_path, bad).find("testcase")
    assert case is not None
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == "no_loss is violation"
    assert "1a2b-0001" in str(failure.text)
    assert "lost: 3" in str(case.findtext("system-out"))


def test_characters_that_xml_forbids_are_shown_as_escapes(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, finding("no\x00loss", "violation", figures={"raw": "\x1b[31m\ufffe]]>"}), seed="\x07")
    assert suite.findall("testcase")[0].get("name") == "no\\x00loss"


def test_of_several_runs_each_is_a_suite(tmp_path: Path) -> None:
    runs = [{"pipeline": p, "verdict": "pass", "findings": [finding("no_loss", "pass")]} for p in ("kappa", "legacy")]
    write_junit({"runs": runs}, tmp_path / "junit.xml")
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert [suite.get("name") for suite in root] == ["gauntlet.kappa", "gauntlet.legacy"]
    assert root.get("tests") == "2"


def test_an_unjudged_run_is_an_error(tmp_path: Path) -> None:
    suite = suite_of(tmp_path)
    assert suite.get("errors") == "1"
    error = suite.find("testcase/error")
    assert error is not None
    assert error.get("type") == "inconclusive"
