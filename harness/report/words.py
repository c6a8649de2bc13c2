"""The wording that the page, the terminal and JUnit share: what a verdict means, how figures are spelt, what is safe.

Nothing here knows of HTML, XML or terminals. `clean` takes out what none of the three can show.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Guards look at the run itself; a finding of theirs is never a violation of the pipeline.
GUARDS = (
    "load_delivered",
    "ledger_settled",
    "taps_complete",
    "faults_effective",
    "drained",
    "services_alive",
    "clock_steady",
    "machine_healthy",
)

#: Verdict -> exit status of `gauntlet run` and `gauntlet check`.
EXIT_STATUS = {"pass": 0, "violation": 1, "inconclusive": 3}
EXIT_MEANING = {
    0: "pass",
    1: "violation: the pipeline is proven wrong",
    2: "usage error",
    3: "inconclusive: this run cannot say",
    4: "the harness itself failed",
}

#: What cannot be in XML 1.0, or would change how the text around it is read (direction overrides).
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
#: Figures that name something: they are shown without thousands separators.
_NAMES = re.compile(
    r"(^|_)(id|ids|pid|pids|sequence|sequences|offset|partition|producer|seed|port|key|ms|status|start|end)$"
)
_SECONDS = re.compile(r"(?<!_per)_s$")
_SHARES = re.compile(r"(^|_)(rate|share|parity|bound)s?$")


def clean(text: object) -> str:
    """The text without colour codes; characters that cannot be shown become visible escapes such as \\x00."""
    plain = _ANSI.sub("", str(text))
    return _UNSHOWABLE.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", plain)


def shorten(text: str, most: int) -> str:
    """At most `most` characters, the middle cut out, since both ends of a log line or an id tell something."""
    if len(text) <= most:
        return text
    if most < 12:
        return text[: max(most - 1, 1)] + "…"
    head = (most * 2) // 3
    return f"{text[:head]} … {text[len(text) - (most - head - 3) :]}"


def number(value: float) -> str:
    """`40,000`, `12.5`, `0.0573`: about four digits that matter, whole numbers whole."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 0.001 else f"{value:.3g}"


def percent(share: float) -> str:
    """`5.73%`, `97.885%`; what is not nothing is never shown as 0%, and what is not all never as 100%."""
    if share in (0, 1):
        return f"{share:.0%}"
    for digits in (3, 5, 7):
        text = f"{share * 100:.{digits}f}"
        if float(text) not in (0.0, 100.0):
            return f"{text.rstrip('0').rstrip('.')}%"
    return f"{share * 100:.2e}%"


def compact(value: float) -> str:
    """`1.2k`, `3.4M`: for axes and narrow columns."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """`850 ms`, `4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    sign = "−" if value < 0 else ""
    value = abs(value)
    if 0 < value < 0.9995:
        return f"{sign}{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{sign}{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{sign}{minutes} min {rest:02d} s"
    return f"{sign}{minutes // 60} h {minutes % 60:02d} min"


def milliseconds(value: float) -> str:
    """A latency: `0`, `0.4 ms`, `12 ms`, `1.25 s`, `75 s`."""
    if value == 0:
        return "0"
    if value < 1:
        return f"{value:.1f} ms"
    if value < 1000:
        return f"{value:.0f} ms"
    return f"{value / 1000:.3g} s" if value < 60_000 else seconds(value / 1000)


def label(name: str) -> str:
    """`must_arrive` -> `must arrive`, `p99_s` -> `p99`: a figure's key as words; `scalar` adds the seconds."""
    text = clean(name)
    if _SECONDS.search(text):
        text = text[:-2]
    return text.replace("_", " ").strip()


def scalar(key: str, value: Any) -> str:
    """One figure as text, spelt by what its key says it is."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if _NAMES.search(key):
            return str(round(value, 3) if isinstance(value, float) else value)
        if isinstance(value, float) and _SHARES.search(key) and 0 <= value <= 1:
            return percent(value)
        return number(value) + (" s" if _SECONDS.search(key) else "")
    if isinstance(value, str):
        return shorten(clean(value), 400)
    if isinstance(value, Mapping):
        return shorten(" · ".join(f"{label(str(k))} {scalar(str(k), v)}" for k, v in value.items()), 400) or "none"
    if isinstance(value, Sequence):
        shown = [scalar(key, v) for v in value[:24]]
        more = [f"and {len(value) - 24:,} more"] if len(value) > 24 else []
        return shorten(", ".join(shown + more), 400) or "none"
    return shorten(clean(value), 400)


def as_text(value: Any) -> str:
    """Figures as JSON for a machine's eyes, safe to print."""
    return clean(json.dumps(value, default=str, ensure_ascii=False))


# ------------------------------------------------------------------------------------------------- verdicts


def word(verdict: object) -> str:
    """`Pass`, `Violation`, `Inconclusive`; `No verdict` for anything else."""
    return {"pass": "Pass", "violation": "Violation", "inconclusive": "Inconclusive"}.get(str(verdict), "No verdict")


def is_guard(finding: Mapping[str, Any]) -> bool:
    return finding.get("assertion") in GUARDS


def standing(finding: Mapping[str, Any]) -> str:
    """What a finding counts as in the run's verdict: an expected violation is a pass, its absence a violation."""
    verdict = str(finding.get("verdict", ""))
    if finding.get("expected") == "violation":
        return {"violation": "pass", "pass": "violation"}.get(verdict, verdict)
    return verdict


def told(finding: Mapping[str, Any]) -> str:
    """The word beside a finding: its own verdict, and whether the scenario expected it."""
    own = word(finding.get("verdict"))
    if finding.get("expected") == "violation":
        return (
            f"{own}, as expected" if finding.get("verdict") == "violation" else f"{own}, but a violation was expected"
        )
    return own


def finding_name(finding: Mapping[str, Any]) -> str:
    """The assertion, and the hop where one has several."""
    figures = finding.get("figures")
    hop = figures.get("hop") if isinstance(figures, Mapping) else None
    name = clean(finding.get("assertion", "?"))
    return f"{name} at {clean(hop)}" if name == "duplicate_rate" and isinstance(hop, str) else name


def findings_of(verdict: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The findings of a verdict, whatever shape it arrived in."""
    found = (verdict or {}).get("findings")
    return [dict(f) for f in found if isinstance(f, Mapping)] if isinstance(found, list | tuple) else []


def names(findings: Iterable[Mapping[str, Any]]) -> str:
    """`no_loss`, `no_loss and content`, `no_loss, content and latency`: each once."""
    found = list(dict.fromkeys(clean(f.get("assertion", "?")) for f in findings))
    return found[0] if len(found) == 1 else ", ".join(found[:-1]) + f" and {found[-1]}" if found else "nothing"


def sentence(verdict: Mapping[str, Any] | None) -> str:
    """The verdict in one sentence."""
    findings = findings_of(verdict)
    which = str((verdict or {}).get("verdict", ""))
    bad = [f for f in findings if standing(f) == which]
    if which == "pass":
        judged = [f for f in findings if not is_guard(f)]
        if not judged:
            return "Nothing was claimed of the pipeline; the guards of the run hold."
        guards = len(findings) - len(judged)
        also = f" and {guards} guard{'s' * (guards != 1)}" if guards else ""
        expected = [f for f in findings if f.get("expected") == "violation"]
        known = f"; {names(expected)} failed as the scenario expects" if expected else ""
        return (
            f"Everything that was claimed was observed: {len(judged)} finding{'s' * (len(judged) != 1)}{also}{known}."
        )
    if which == "violation":
        missed = [f for f in bad if f.get("expected") == "violation"]
        if missed and len(missed) == len(bad):
            return f"The scenario expects {names(missed)} to fail, and the run did not show it."
        return f"The pipeline is proven wrong by {names(bad)}." if bad else "The pipeline is proven wrong."
    if which == "inconclusive":
        return f"This run cannot say: {names(bad)} could not be settled." if bad else "This run cannot say."
    return "This run was not judged."


def meaning(verdict: Mapping[str, Any] | None) -> str:
    """What the verdict means for somebody who reads one for the first time."""
    return {
        "pass": "Under these faults, at this rate and with this seed, the pipeline delivered every event that it had to, "
        "and every figure that a finding states was observed, not assumed. It says nothing about faults that were not "
        "injected.",
        "violation": "What came out of the pipeline contradicts what went in, and the examples below show where. It is no "
        "flake: a run that could not observe something is inconclusive instead, so a violation is not to be retried away.",
        "inconclusive": "Something that a claim needs was not observed: a fault did not bite, a tap is incomplete, a "
        "service or the machine failed, or there were too few events for a bound. It speaks neither for the pipeline "
        "nor against it.",
    }.get(
        str((verdict or {}).get("verdict", "")),
        "The run never came to its end, or what it left cannot be judged. Nothing on this page may be read as a pass.",
    )


_ADVICE = {
    "faults_effective": "A fault did not bite: see its evidence below; a higher rate or a longer fault gives it work to "
    "interrupt.",
    "load_delivered": "The load could not deliver its plan: lower the rate, or look at logs/load.log.",
    "ledger_settled": "A service lost what it had acknowledged to load, before the pipeline could see it: read its log.",
    "taps_complete": "A tap did not see all of its hop: see which one and why in the counts by hop.",
    "services_alive": "A service died that nobody killed: read its log in the run folder.",
    "clock_steady": "The machine's clock was set during the run: run again on a machine whose clock holds still.",
    "machine_healthy": "The machine ran out of memory or disk: free some, or lower the rate.",
}


def next_steps(verdict: Mapping[str, Any] | None, repeat: str = "") -> list[str]:
    """What to do next, the most useful first."""
    which = str((verdict or {}).get("verdict", ""))
    bad = [f for f in findings_of(verdict) if standing(f) == which]
    if which == "pass":
        return ["Run it with other seeds before you rely on it: another seed is another load and other timings."]
    if which == "violation":
        first = clean(bad[0].get("assertion", "the first finding")) if bad else "the first finding"
        return [
            f"Start with {first}: its worst examples name events and cells that can be followed from hop to hop.",
            "Read the logs of the workers that it names, in the folder logs/ of the run.",
            "Repeat the run with the same seed after the repair" + (f": {repeat}" if repeat else "."),
        ]
    if which == "inconclusive":
        unseen = [f for f in bad if str(f.get("summary", "")).startswith("cannot say")]
        known = dict.fromkeys(str(f.get("assertion")) for f in bad if f not in unseen)
        steps = [_ADVICE[name] for name in known if name in _ADVICE]
        if unseen:
            steps.append(f"Something was not recorded: {names(unseen)} say what, and the logs may say why.")
        return [*steps, "Then run it again; an inconclusive run may be retried."]
    return ["Read the life of the run and the last log lines below for what stopped it, then run it again."]


def repeat_command(meta: Mapping[str, Any], verdict: Mapping[str, Any] | None = None, named: bool = True) -> str:
    """The command that repeats the run, from what `run.json` says was asked.

    `named`: the scenario is one that `gauntlet list` prints; else it was made by a test of that name.
    """
    known = {**(verdict or {}), **meta}
    if known.get("scenario") and not named:
        seed = "" if known.get("seed") is None else f" --gauntlet-seed {clean(known['seed'])}"
        backend = "" if not known.get("backend") else f" --gauntlet-backend {clean(known['backend'])}"
        return f"pytest -m chaos -k {shlex.quote(clean(known['scenario']))}{backend}{seed}"
    argv: list[Any] = ["gauntlet", "run"]
    if known.get("scenario"):
        argv.append(known["scenario"])
    pipeline = known.get("pipeline")
    if isinstance(pipeline, Mapping):
        pipeline = pipeline.get("ref") or pipeline.get("name")
    load = known.get("load")
    profile = load.get("profile") if isinstance(load, Mapping) else None
    profile = profile if isinstance(profile, Mapping) else {}
    options = {
        "--pipeline": pipeline,
        "--backend": known.get("backend"),
        "--seed": known.get("seed"),
        "--rate": profile.get("rate"),
        "--seconds": profile.get("seconds"),
    }
    for option, value in options.items():
        if value not in (None, ""):
            argv += [option, f"{value:g}" if isinstance(value, float) else value]
    if known.get("schedule") == []:
        argv += ["--schedule", "none"]
    elif known.get("schedule_seed") is not None:
        argv += ["--schedule", "random"]
    return " ".join(shlex.quote(clean(a)) for a in argv)


def check_command(folder: object) -> str:
    """The command that judges the saved run again."""
    return f"gauntlet check {shlex.quote(clean(folder))}"
