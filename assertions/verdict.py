"""From findings to a verdict.

Worst-of: violation if any finding is one; else inconclusive if any is; else pass. A finding that the scenario expects
to be a violation counts as a pass if it is one, as a violation if it is a pass (what was said to be wrong was not
seen to be), and as inconclusive if it is inconclusive: then the run cannot say either way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from assertions.base import Assertion, Finding, Verdict, worst
from harness.errors import HarnessFault
from harness.store import SavedRun
from harness.topology import UsageError, unknown

#: Exit status of a verdict; 2 is a usage error and 4 a failure of the harness, which have no verdict.
EXIT_STATUS: dict[Verdict, int] = {"pass": 0, "violation": 1, "inconclusive": 3}


def check(assertion: Assertion, run: SavedRun) -> Finding:
    """The assertion's finding. Whatever it raises, other than a usage error, is a failure of the harness: exit 4."""
    try:
        return assertion.check(run)
    except (UsageError, HarnessFault):
        raise
    except Exception as error:
        raise HarnessFault(f"The assertion {assertion.name} failed to judge {run.path}: {error!r}") from error


def expecting(findings: Iterable[Finding], expected: Mapping[str, str]) -> list[Finding]:
    """The findings with what the scenario expects of them.

    `expected`: an assertion's name, or `name:hop` for one of several that differ by hop -> "violation". UsageError for
    a name that no finding has: an expectation that nobody looks at could never fail.
    """
    done = []
    met = set()
    for finding in findings:
        names = {finding.assertion, f"{finding.assertion}:{finding.figures.get('hop')}"}
        for name in names & expected.keys():
            met.add(name)
            if expected[name] != "violation":
                raise UsageError(f"Of {name} only a violation can be expected, not {expected[name]!r}.")
            summary = finding.summary
            if finding.verdict == "pass":
                summary = f"expected a violation and saw none: {summary}"
            finding = dataclasses.replace(finding, expected="violation", summary=summary)
        done.append(finding)
    for name in expected:
        if name not in met:
            raise unknown("assertion of this run", name, [finding.assertion for finding in done])
    return done


def counted(finding: Finding) -> Verdict:
    """What a finding counts as for the verdict of the run."""
    if finding.expected == "violation":
        return {"violation": "pass", "pass": "violation", "inconclusive": "inconclusive"}[finding.verdict]  # type: ignore[return-value]
    return finding.verdict


def verdict_of(findings: Iterable[Finding]) -> Verdict:
    """The verdict of the run. Of no findings at all: inconclusive."""
    return worst(counted(finding) for finding in findings)
