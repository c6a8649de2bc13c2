"""How results are written: as a table for people, between the markers of docs/performance.md, and as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from benchmarks.measure import Result, summary


def table(result: Result) -> str:
    """In Markdown: the figures, and beneath them the machine and what they depend on."""
    bytes_each = result.bytes_each
    lines = [
        f"| {result.title} | median | least | most | runs | to the peer |{' MB/s |' if bytes_each else ''}",
        f"|---|---|---|---|---|---|{'---|' if bytes_each else ''}",
    ]
    for side, figures in result.figures.items():
        s = summary(figures)
        values = " | ".join(shown(v, result.unit) for v in (s.median, s.least, s.most))
        ratio = "1 (the peer)" if side == result.peer else f"{result.ratio(side):.2f}"
        bytes_a_second = f" {s.median * bytes_each / 1e6:.1f} |" if bytes_each else ""
        lines.append(f"| {side} | {values} | {s.runs} | {ratio} |{bytes_a_second}")
    lines.append("")
    for side, most in result.most.items():
        kept = "**not kept**" if side in result.too_much() else "kept in every run"
        lines.append(f"Limit for {side}: {shown(most, result.unit)}; {kept}.  ")
    for side, least in result.least.items():
        reached = "**missed**" if side in result.too_little() else "reached"
        lines.append(f"Goal for {side}: {least:g} times the peer; {reached}.  ")
    lines.append(machine_line(result.machine))
    lines += [f"{note}." for note in result.notes]
    return "\n".join(lines)


def shown(value: float, unit: str) -> str:
    """With two decimals, or in whole thousands: "3.71 s", "412,000/s"."""
    return f"{value:,.0f}{unit}" if unit.startswith("/") else f"{value:.2f} {unit}"


def machine_line(machine: object) -> str:
    return f"Machine: {', '.join(_words(machine))}."


def _words(machine: object) -> list[str]:
    m = dict(machine)  # type: ignore[call-overload]
    words = [f"{m['cores']} cores ({m['processor']})", f"{m['memory_gib']} GiB", m["system"], f"Python {m['python']}"]
    return [*words, f"load average before {m['load_before']}"]


def put(page: str, name: str, text: str) -> str:
    """The page with `text` between the markers of a benchmark. Raises ValueError where it has none."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the page has no lines {begin.strip()!r} and {end!r} to write between")
    return f"{before}{begin}\n{text}\n\n{end}{after}"


def save(result: Result, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.name}.json"
    path.write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n")
    return path
