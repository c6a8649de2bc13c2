"""A scenario over time: its verdicts one by one, and its latency below them, as inline SVG like those of the reports."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from harness.report import words
from harness.report.charts import Drawing, nice_top, sizes
from harness.service.entries import Entry, standing_class

_MARK = {"pass": "●", "violation": "■", "inconclusive": "◆"}


def over_time(entries: Sequence[Entry]) -> Markup:
    """`entries`: the oldest first."""
    return sizes(lambda width, narrow: _drawn(entries, width, narrow))


def _drawn(entries: Sequence[Entry], width: int, narrow: bool) -> Markup:
    drawing = Drawing(width)
    left, right = (40.0, width - 6.0) if narrow else (64.0, width - 8.0)
    step = (right - left) / max(len(entries), 1)
    place = [left + step * (n + 0.5) for n in range(len(entries))]
    drawing.text(left - 6, 18, "verdict", "t dim", "end")
    for x, entry in zip(place, entries, strict=True):
        told = f"{words.clean(entry.name)}: {entry.standing}"
        # Form and colour, so that either suffices.
        drawing.parts.append(
            Markup(
                '<text x="{:.1f}" y="19" text-anchor="middle" class="t standing {}">{}<title>{}</title></text>'
            ).format(x, standing_class(entry.standing), _MARK.get(entry.standing, "○"), told)
        )
    top, bottom = 44.0, 44.0 + (110 if narrow else 140)
    known = [(x, e) for x, e in zip(place, entries, strict=True) if e.p99_s is not None]
    most = nice_top(max((e.p99_s or 0.0 for _, e in known), default=1.0))
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        drawing.line(left, y, right, y, "base" if share == 0 else "grid")
        drawing.text(left - 6, y + 4, words.seconds(share * most) if share else "0", "t dim num", "end")
    drawing.text(left, top - 8, "p99", "t name")
    path = "".join(
        f"{'L' if n else 'M'}{x:.1f} {bottom - (e.p99_s or 0.0) / most * (bottom - top):.1f}"
        for n, (x, e) in enumerate(known)
    )
    if path:
        drawing.add("path", d=path, class_="line")
    for x, entry in known:
        y = bottom - (entry.p99_s or 0.0) / most * (bottom - top)
        drawing.parts.append(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" class="point"><title>{}</title></circle>').format(
                x, y, f"{words.clean(entry.name)}: p99 {words.seconds(entry.p99_s or 0.0)}"
            )
        )
    if entries:
        drawing.text(left, bottom + 16, words.clean(entries[0].started[:10]), "t dim")
        drawing.text(right, bottom + 16, words.clean(entries[-1].started[:10]), "t dim", "end")
    return drawing.svg(
        bottom + 22, "Verdicts of the runs in the order of time, and their latency at the 99th percentile"
    )
