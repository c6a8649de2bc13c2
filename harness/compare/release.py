"""The release verdict: from what each run of a comparison came to, to whether the candidate may replace the baseline.

Pure: the same runs give the same answer, whoever asks and when. See docs/compare.md for the rules in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from assertions.base import worst
from harness.compare import statistics
from harness.compare.measures import Measure
from harness.compare.statistics import LEAST_PAIRS, Answer

BASELINE, CANDIDATE = "baseline", "candidate"
SIDES = (BASELINE, CANDIDATE)
#: Of the pairs that were asked for, so many must come to a verdict: whatever keeps runs from one may depend on the version.
LEAST_SHARE = 0.75
#: A run that could not say is made so often in all.
ATTEMPTS = 2


@dataclass(frozen=True)
class Made:
    """One run of a comparison. `violated`: kinds of violations, as "no_loss" or "duplicate_rate at aggregates"; `reasons`:
    why it could not say."""

    pair: int
    side: str
    attempt: int
    seed: int
    verdict: str
    folder: str
    figures: Mapping[str, float | None] = field(default_factory=dict)
    violated: Sequence[str] = ()
    reasons: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def kinds_of(verdict: Mapping[str, Any]) -> list[str]:
    """The kinds of violations of a run: an assertion, and where it is one of several, its hop."""
    found = []
    for finding in verdict["findings"]:
        if finding["verdict"] == "violation" and finding.get("expected") != "violation":
            hop = (finding.get("figures") or {}).get("hop")
            named = finding["assertion"] == "duplicate_rate" and hop
            found.append(f"{finding['assertion']} at {hop}" if named else finding["assertion"])
    return list(dict.fromkeys(found))


def last_attempts(runs: Iterable[Made]) -> dict[tuple[int, str], Made]:
    """Of each pair and side the run that counts."""
    return {(run.pair, run.side): run for run in runs}


def new_kinds(runs: Sequence[Made], known: Sequence[str] = ()) -> dict[str, list[Made]]:
    """Kinds of violations of the candidate that the baseline never showed -> the runs that did."""
    of_baseline = {kind for run in runs if run.side == BASELINE for kind in run.violated} | set(known)
    found: dict[str, list[Made]] = {}
    for run in runs:
        for kind in run.violated if run.side == CANDIDATE else ():
            if kind not in of_baseline:
                found.setdefault(kind, []).append(run)
    return found


def judged_pairs(runs: Iterable[Made]) -> list[tuple[Made, Made]]:
    """(baseline, candidate) of the pairs of which both came to a verdict of their own."""
    last = last_attempts(runs)
    numbers = sorted({pair for pair, _ in last})
    pairs = [(last.get((n, BASELINE)), last.get((n, CANDIDATE))) for n in numbers]
    return [(b, c) for b, c in pairs if b and c and "inconclusive" not in (b.verdict, c.verdict)]


def seen_enough(runs: Sequence[Made], measures: Sequence[Measure]) -> bool:
    """Whether a difference of `visible` could be seen by now in every measure that both versions show: more pairs would
    only see smaller ones. It asks how much the pairs scatter and never how far the versions are apart, so that a
    comparison which ends by it finds no more false differences than one of a fixed number of pairs (C. Stein, "A two-sample
    test for a linear hypothesis whose power is independent of the variance", Annals of Mathematical Statistics 16, 1945)."""
    pairs = judged_pairs(runs)
    answers = _answers(pairs, measures)
    return all(
        answer.pairs >= LEAST_PAIRS and _detectable(measure, answer, pairs) <= measure.as_difference(measure.visible)
        for measure, answer in zip(measures, answers, strict=True)
        if answer.pairs
    )


def _answers(pairs: Sequence[tuple[Made, Made]], measures: Sequence[Measure]) -> list[Answer]:
    columns = [[m.difference(b.figures.get(m.key), c.figures.get(m.key)) for b, c in pairs] for m in measures]
    return statistics.compare(np.array(columns, dtype=float).T.reshape(len(pairs), len(measures)))


def release(
    runs: Sequence[Made], measures: Sequence[Measure], pairs_asked: int, known: Sequence[str] = ()
) -> dict[str, Any]:
    """{"verdict", "pairs", "dropped", "measures", "findings"}. `known`: kinds of violations that are accepted."""
    pairs = judged_pairs(runs)
    broken_off = bool(new_kinds(runs, known))
    lines, judged = [], []
    for measure, answer in zip(measures, _answers(pairs, measures), strict=True):
        line, finding = _measured(measure, answer, pairs, broken_off)
        lines.append(line)
        if finding is not None:
            judged.append(finding)
    findings = [_violations(runs, known), _pairs(runs, pairs, pairs_asked, broken_off), *judged]
    if not judged:
        findings.append(_finding("measures", "inconclusive", "nothing was measured in both versions", {}))
    dropped = sorted({run.pair for run in runs} - {b.pair for b, _ in pairs})
    return {
        "verdict": worst(finding["verdict"] for finding in findings),
        "pairs": len(pairs),
        "dropped": dropped,
        "measures": lines,
        "findings": findings,
    }


def _finding(
    name: str, verdict: str, summary: str, figures: Mapping[str, Any], examples: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    return {
        "assertion": name,
        "verdict": verdict,
        "summary": summary,
        "figures": dict(figures),
        "examples": list(examples),
    }


# ---------------------------------------------------------------------------------------------------- violations


def _violations(runs: Sequence[Made], known: Sequence[str]) -> dict[str, Any]:
    """A new kind of violation refuses, however rare; one that the baseline shows too must have been said to be known."""
    new = new_kinds(runs, known)
    counts = {
        kind: {side: sum(kind in run.violated for run in runs if run.side == side) for side in SIDES}
        for kind in dict.fromkeys(kind for run in runs for kind in run.violated)
    }
    total = {side: sum(run.side == side for run in runs) for side in SIDES}
    figures = {"runs": total, "kinds": counts, "known": list(known)}
    examples = [
        {"kind": kind, "pair": run.pair, "seed": run.seed, "run": run.folder} for kind in new for run in new[kind]
    ]
    if new:
        told = "; ".join(
            f"{kind} in {len(made)} of {total[CANDIDATE]} runs of the candidate and in none of {total[BASELINE]} of the "
            "baseline" for kind, made in new.items()
        )  # fmt: skip
        return _finding("violations", "violation", f"a new kind of violation: {told}", figures, examples)
    both = [kind for kind, count in counts.items() if count[CANDIDATE]]
    unknown = [kind for kind in both if kind not in known]
    of_baseline = "; ".join(
        f"{kind} in {count[BASELINE]} of {total[BASELINE]} runs of the baseline and {count[CANDIDATE]} of "
        f"{total[CANDIDATE]} of the candidate"
        for kind, count in counts.items()
    )
    if unknown:
        told = f"both versions are wrong: {of_baseline}; whether that may be released is not for this comparison to say"
        return _finding("violations", "inconclusive", f"{told} (--known {unknown[0]!r} accepts it)", figures)
    if both:
        return _finding("violations", "pass", f"only violations that are known: {of_baseline}", figures)
    if counts:
        return _finding("violations", "pass", f"the candidate has none; the baseline is wrong: {of_baseline}", figures)
    return _finding("violations", "pass", f"none in {total[CANDIDATE]} runs of the candidate", figures)


def _pairs(runs: Sequence[Made], pairs: Sequence[tuple[Made, Made]], asked: int, broken_off: bool) -> dict[str, Any]:
    needed = max(LEAST_PAIRS, math.ceil(LEAST_SHARE * asked))
    last = last_attempts(runs)
    unsure = [run for run in last.values() if run.verdict == "inconclusive"]
    figures = {"asked": asked, "judged": len(pairs), "needed": needed}
    examples = [
        {"pair": run.pair, "side": run.side, "run": run.folder, "why": "; ".join(run.reasons)} for run in unsure
    ]
    told = f"{len(pairs)} of {asked} pairs came to a verdict"
    if unsure:
        numbers = ", ".join(str(n) for n in sorted({run.pair for run in unsure}))
        told += f"; left out, because a run could not say twice: {numbers}"
    if broken_off and len(pairs) < asked:
        return _finding("pairs", "pass", f"{told}; no more were made after the first new violation", figures, examples)
    if len(pairs) < needed:
        return _finding("pairs", "inconclusive", f"{told}; {needed} are needed", figures, examples)
    return _finding("pairs", "pass", told, figures, examples)


# ------------------------------------------------------------------------------------------------------- measures


def _measured(
    measure: Measure, answer: Answer, pairs: Sequence[tuple[Made, Made]], broken_off: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The line of a measure, and its finding; no finding where neither version has such a figure at all."""
    values = {side: [run[i].figures.get(measure.key) for run in pairs] for i, side in enumerate(SIDES)}
    detectable = _detectable(measure, answer, pairs)
    status, verdict, summary = _status(measure, answer, detectable, values, len(pairs), broken_off)
    ends = sorted((measure.as_change(answer.low), measure.as_change(answer.high)))
    line = {
        "measure": measure.key,
        "name": measure.name,
        "unit": measure.unit,
        "told_as": "factor" if measure.factor else "difference",
        "better": "higher" if measure.higher else "lower",
        "status": status,
        "verdict": verdict,
        "summary": summary,
        BASELINE: _round(_middle(values[BASELINE])),
        CANDIDATE: _round(_middle(values[CANDIDATE])),
        "change": _round(measure.as_change(answer.middle)) if answer.pairs else None,
        "interval": [_round(end) for end in ends] if math.isfinite(answer.low) else None,
        "confidence": statistics.CONFIDENCE,
        "chance": _round(answer.chance),
        "could_be_seen": _round(measure.as_change(detectable)) if math.isfinite(detectable) else None,
        "tolerance": measure.tolerance,
        "visible": measure.visible,
        "pairs": answer.pairs,
        "values": values,
    }
    if status == "not compared":
        return line, None
    figures = {
        key: line[key] for key in (BASELINE, CANDIDATE, "change", "interval", "could_be_seen", "chance", "pairs")
    }
    return line, _finding(measure.key, verdict, summary, figures)


def _detectable(measure: Measure, answer: Answer, pairs: Sequence[tuple[Made, Made]]) -> float:
    """How small a difference could have been seen: none that is smaller than the grain, however little the pairs scatter."""
    middle = _middle([baseline.figures.get(measure.key) for baseline, _ in pairs], 1.0)
    grain = math.log1p(measure.grain / max(middle, measure.grain)) if measure.factor else measure.grain
    return max(answer.detectable, grain)


def _status(
    measure: Measure,
    answer: Answer,
    detectable: float,
    values: Mapping[str, Sequence[float | None]],
    pairs: int,
    broken_off: bool,
) -> tuple[str, str, str]:
    """(how it stands, the verdict, a sentence)."""
    if all(value is None for side in SIDES for value in values[side]):
        return "not compared", "pass", "neither version shows it in these runs"
    known = f"{measure.told_value(_middle(values[BASELINE]))} -> {measure.told_value(_middle(values[CANDIDATE]))}"
    if broken_off and not answer.different:
        return "not judged", "pass", f"{known}; not judged, because the comparison ended at a new kind of violation"
    needed = max(LEAST_PAIRS, math.ceil(LEAST_SHARE * pairs))
    if answer.pairs < needed:
        return "not seen", "inconclusive", f"measured in {answer.pairs} of {pairs} pairs; {needed} are needed"
    change = measure.told(measure.as_change(answer.middle))
    between = " to ".join(measure.told(end) for end in sorted(map(measure.as_change, (answer.low, answer.high))))
    told = f"{known}: {change} ({statistics.CONFIDENCE:.0%} interval {between})"
    if answer.different and answer.middle < 0:
        return "better", "pass", f"better, {told}"
    if answer.different:
        bound = measure.as_difference(measure.tolerance)
        allowed = measure.told(measure.as_change(bound))
        if answer.middle > bound:
            return "worse", "violation", f"worse, {told}; allowed is {allowed}"
        return "worse", "pass", f"worse, {told}, but within the tolerance of {allowed}"
    size = measure.told_amount(detectable)
    unseen = (
        f"one of less than {size} could not have been seen" if math.isfinite(detectable) else "none could have been"
    )
    if detectable > measure.as_difference(measure.visible):
        wanted = measure.told_amount(measure.as_difference(measure.visible))
        more = _pairs_for(answer, detectable, measure)
        return (
            "no difference seen",
            "inconclusive",
            f"no difference seen, but {unseen}, and one of {wanted} must be; {more}; {told}",
        )
    return "no difference seen", "pass", f"no difference seen; {unseen}; {told}"


def _pairs_for(answer: Answer, detectable: float, measure: Measure) -> str:
    """About how many pairs would do: what can be seen shrinks with the root of their number."""
    if not math.isfinite(detectable):
        return f"take at least {LEAST_PAIRS} pairs"
    wanted = measure.as_difference(measure.visible)
    if wanted <= 0:
        return f"nothing smaller than {measure.told_amount(detectable)} can be promised: ask for less with --visible"
    return f"about {math.ceil(answer.pairs * (detectable / wanted) ** 2)} pairs would do"


def _middle(values: Sequence[float | None], otherwise: float | None = None) -> Any:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else otherwise


def _round(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")
