"""What an assertion is, and what it answers.

An assertion is a frozen value: a name, its parameters, and `check`, a pure function of a saved run. It answers with a
finding that is one of three: *violation* (the pipeline is proven wrong), *inconclusive* (this run cannot say) or
*pass* (everything that was claimed was observed). Nothing turns a missing observation into a pass: what was not
recorded raises `NotObserved`, which `observed` makes an inconclusive finding of; anything else that an assertion
raises is a failure of the harness and ends the judgement (see `verdict.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from harness.store import NotObserved, SavedRun

Verdict = Literal["pass", "violation", "inconclusive"]

#: From best to worst: the order in which verdicts compose.
SEVERITY: tuple[Verdict, ...] = ("pass", "inconclusive", "violation")
#: How many examples a finding shows.
MOST_EXAMPLES = 32


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Violation if any is; else inconclusive if any is; else pass. Nothing at all is inconclusive."""
    found = list(verdicts)
    return max(found, key=SEVERITY.index) if found else "inconclusive"


@dataclass(frozen=True)
class Finding:
    """What an assertion found.

    `figures`: plain numbers, texts, lists and dictionaries, as the assertion's docstring lists them. `examples`: at
    most 32, the worst first. `expected` is "violation" where the scenario expects one; the finding keeps its own
    verdict, and `verdict.counted` says what it counts as.
    """

    assertion: str
    verdict: Verdict
    summary: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    expected: Verdict | None = None

    def to_json(self) -> dict[str, Any]:
        """The finding as the contract's JSON object shows it."""
        obj: dict[str, Any] = {
            "assertion": self.assertion,
            "verdict": self.verdict,
            "summary": self.summary,
            "figures": plain(self.figures),
            "examples": plain(list(self.examples)[:MOST_EXAMPLES]),
        }
        if self.expected is not None:
            obj["expected"] = self.expected
        return obj


@runtime_checkable
class Assertion(Protocol):
    """A frozen value with a name and parameters that judges a saved run."""

    @property
    def name(self) -> str: ...

    def params(self) -> dict[str, Any]:
        """The parameters, as `run.json` stores them and `registry.from_json` takes them."""
        ...

    def check(self, run: SavedRun) -> Finding:
        """Judges the run. The same run always gives the same finding."""
        ...


@dataclass(frozen=True)
class Part:
    """One part of a finding: what was found at one hop, say. A finding is the worst of its parts."""

    verdict: Verdict
    text: str = ""


A = TypeVar("A", bound=Assertion)


def observed(check: Callable[[A, SavedRun], Finding]) -> Callable[[A, SavedRun], Finding]:
    """Makes an inconclusive finding of `NotObserved`: what was not recorded is neither right nor wrong."""

    @functools.wraps(check)
    def checked(self: A, run: SavedRun) -> Finding:
        try:
            return check(self, run)
        except NotObserved as reason:
            return Finding(self.name, "inconclusive", f"cannot say: {reason}")

    return checked


def parameters(assertion: Any) -> dict[str, Any]:
    """The fields of a frozen assertion as JSON shows them."""
    return {f.name: getattr(assertion, f.name) for f in dataclasses.fields(assertion)}


def not_certified(run: SavedRun, hops: Iterable[str]) -> list[Part]:
    """An inconclusive part for each of these hops whose tap is not certified."""
    parts = []
    for hop in hops:
        good, reason = run.certified(hop)
        if not good:
            parts.append(Part("inconclusive", f"the tap of {hop} is not certified: {reason}"))
    return parts


def finding(
    name: str,
    parts: Sequence[Part],
    passed: str,
    figures: Mapping[str, Any],
    examples: Sequence[Mapping[str, Any]] = (),
) -> Finding:
    """The finding that is the worst of `parts`; its summary tells those of the worst kind, or `passed`."""
    verdict: Verdict = worst(part.verdict for part in parts) if parts else "pass"
    told = [part.text for part in parts if part.verdict == verdict and part.text]
    summary = passed if verdict == "pass" else "; ".join(dict.fromkeys(told))
    return Finding(name, verdict, summary, figures, examples)


def mixed(*kinds: Sequence[Mapping[str, Any]], most: int = MOST_EXAMPLES) -> list[Mapping[str, Any]]:
    """At most `most` examples, one of each kind in turn, so that no kind of defect hides another: first the worst of
    each, then the second worst, and so on."""
    return [e for row in itertools.zip_longest(*kinds) for e in row if e is not None][:most]


def plain(value: Any) -> Any:
    """The value in JSON's own types. A figure that is no number (nan, infinite) becomes null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def share(part: float, whole: float) -> float:
    """`part / whole`, rounded to six digits; 0.0 of nothing."""
    return round(part / whole, 6) if whole else 0.0


def counted_noun(number: int, noun: str, plural: str = "") -> str:
    """`1 event`, `2 events`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
