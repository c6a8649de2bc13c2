"""The page's plots as inline SVG. Each is drawn once for each of WIDTHS, and CSS shows the one that fits.

Drawing at the real width, rather than scaling one picture, keeps type and lines the same size on a telephone and on
paper. Colours come from the page's CSS classes, so that the same SVG serves light and dark. All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

from harness.report import words
from harness.report.readings import Axis, Duplicates, Fault, Floats, Lane, Latency, Rates, Stage

#: Name of a size (as the CSS knows it) -> width in pixels. Paper takes the middle one.
WIDTHS = {"wide": 1072, "middle": 680, "narrow": 360}

#: Width of a character of the plots' type at 11 px, on the generous side.
_CHARACTER = 6.3
#: The same of a name, bold at 12.5 px.
_BOLD = 7.9
_MOST_LABEL_ROWS = 10
#: More fault windows than this are drawn without number or title, those that touch as one.
_MOST_WINDOWS = 60
#: Of more processes of one name than this, one is drawn for each pixel.
_MOST_LIVES = 60


@dataclass
class Drawing:
    """Collects elements; coordinates in pixels, rounded to a tenth."""

    width: int
    parts: list[str] = field(default_factory=list)

    def add(self, element: str, text: object = None, **attributes: object) -> None:
        shown = "".join(f' {k.rstrip("_").replace("_", "-")}="{escape(_short(v))}"' for k, v in attributes.items())
        if text is None:
            self.parts.append(f"<{element}{shown}/>")
        else:
            self.parts.append(f"<{element}{shown}>{escape(words.clean(text))}</{element}>")

    def text(self, x: float, y: float, text: object, class_: str = "", anchor: str = "start") -> None:
        self.add("text", text, x=x, y=y, class_=class_ or "t", **({} if anchor == "start" else {"text_anchor": anchor}))

    def heading(self, x: float, y: float, name: str, about: str) -> None:
        """A name and, after it, what it is; tspans, since nobody here knows how wide the name turns out."""
        more = f'<tspan class="dim" dx="8">{escape(words.clean(about))}</tspan>' if about else ""
        self.parts.append(
            f'<text x="{_short(x)}" y="{_short(y)}" class="t name">{escape(words.clean(name))}{more}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        self.add("path", d=f"M{_short(x1)} {_short(y1)}L{_short(x2)} {_short(y2)}", class_=class_)

    def box(self, x: float, y: float, width: float, height: float, class_: str, title: str = "", rx: float = 0) -> None:
        shape = {"x": x, "y": y, "width": max(width, 0.5), "height": height, "class_": class_}
        if rx:
            shape["rx"] = rx
        self.add("rect", **shape) if not title else self._titled("rect", title, **shape)

    def _titled(self, element: str, title: str, **attributes: object) -> None:
        self.add(element, **attributes)
        self.parts[-1] = self.parts[-1][:-2] + f"><title>{escape(words.clean(title))}</title></{element}>"

    def svg(self, height: float, label: str, extra: str = "") -> Markup:
        """The whole picture; `label` is what a screen reader says, the figures stand in a table beside it."""
        return Markup(
            f'<svg class="plot" viewBox="0 0 {self.width} {math.ceil(height)}" width="{self.width}" '
            f'height="{math.ceil(height)}" role="img" aria-label="{escape(words.clean(label))}"{extra}>'
            + "".join(self.parts)
            + "</svg>"
        )


def _short(value: object) -> str:
    if isinstance(value, float | np.floating):
        text = f"{value:.1f}"
        return text[:-2] if text.endswith(".0") else text
    return str(value)


def sizes(draw: object) -> Markup:
    """Calls `draw(width, narrow)` for each size and wraps the pictures so that CSS shows one of them."""
    pictures = [
        f'<div class="size {name}">{draw(width, name == "narrow")}</div>'  # type: ignore[operator]
        for name, width in WIDTHS.items()
    ]
    return Markup("".join(pictures))


# ------------------------------------------------------------------------------------------------------- axes


def _step(span: float, most: int) -> float:
    """A round step that gives at most `most` ticks: of seconds up to a minute, then of minutes and hours."""
    for step in (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400):
        if span / step <= most:
            return step
    return 86400 * math.ceil(span / 86400 / most)


def _tick(value: float, step: float) -> str:
    if step >= 60:
        total = round(value / 60)
        sign, total = ("−" if total < 0 else ""), abs(total)
        return f"{sign}{total // 60} h {total % 60:02d}" if total >= 60 else f"{sign}{total} min"
    return f"{value:g} s".replace("-", "−")


def _ticks(start: float, end: float, most: int) -> tuple[list[float], float]:
    step = _step(end - start, most)
    first = math.ceil(start / step - 1e-9)
    return [n * step for n in range(first, math.floor(end / step + 1e-9) + 1)], step


def nice_top(value: float) -> float:
    """The least of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten that is not below the value."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * power >= value * 0.9999)


@dataclass(frozen=True)
class _Span:
    """Where time lies on the picture."""

    start: float
    end: float
    left: float
    right: float

    def x(self, t: float) -> float:
        t = min(max(t, self.start), self.end)
        return self.left + (t - self.start) / ((self.end - self.start) or 1) * (self.right - self.left)


def _time_axis(drawing: Drawing, span: _Span, top: float, bottom: float, words_below: bool = True) -> None:
    """Vertical grid lines, and below them the times."""
    room = max(2, int((span.right - span.left) / 62))
    ticks, step = _ticks(span.start, span.end, room)
    for tick in ticks:
        drawing.line(span.x(tick), top, span.x(tick), bottom, "grid zero" if tick == 0 else "grid")
        if words_below:
            drawing.text(span.x(tick), bottom + 14, _tick(tick, step), "t dim", "middle")


def _fault_strip(drawing: Drawing, span: _Span, faults: Sequence[Fault], top: float) -> float:
    """The faults by name, each above its window, in as many rows as they need. Returns where the strip ends."""
    rows: list[float] = []
    shown = [f for f in faults if f.start is not None and f.start <= span.end]
    for fault in shown:
        assert fault.start is not None
        x1 = span.x(fault.start)
        x2 = max(span.x(fault.end if fault.end is not None else span.end), x1 + 3)
        name = f"{fault.number} {fault.title}" + ("" if fault.bit is not False else " (did not bite)")
        # To the right of the bar, else to its left, else shortened on the side that has more room.
        name = words.clean(name)
        room_left, room_right = x1 - 5, drawing.width - 2 - x2 - 5
        wide = len(name) * _CHARACTER
        after = wide <= room_right or room_right >= room_left
        most = max(4, int((room_right if after else room_left) / _CHARACTER))
        name = name if len(name) <= most else name[: most - 1] + "…"
        wide = len(name) * _CHARACTER
        left, right = (x1, x2 + 5 + wide) if after else (x1 - 5 - wide, x2)
        row = next((n for n, taken in enumerate(rows) if taken + 8 <= left), len(rows))
        if row >= _MOST_LABEL_ROWS:
            continue
        rows[row:] = [right] if row == len(rows) else [right, *rows[row + 1 :]]
        y = top + row * 18
        drawing.box(x1, y + 3, x2 - x1, 9, _fault_class(fault, "bar"), _fault_title(fault), rx=1.5)
        if after:
            drawing.text(x2 + 5, y + 12, name, "t fault")
        else:
            drawing.text(x1 - 5, y + 12, name, "t fault", "end")
    return top + len(rows) * 18 + (6 if rows else 0)


def _fault_class(fault: Fault, part: str) -> str:
    return f"fault-{part}" + (" nobite" if fault.bit is False else "")


def _fault_title(fault: Fault) -> str:
    end = "never healed" if fault.end is None else f"to {fault.end:.1f} s"
    bit = {True: "bit", False: "did not bite", None: "not judged"}[fault.bit]
    return f"{fault.number}. {fault.title}, {fault.start or 0:.1f} s {end}, {bit}"


def _shade(drawing: Drawing, span: _Span, faults: Sequence[Fault], top: float, bottom: float, numbers: bool) -> None:
    """The fault windows behind a plot, each with its number where there is room for one."""
    if len(faults) > _MOST_WINDOWS:
        for x1, x2 in _merged(span, faults):
            drawing.box(x1, top, x2 - x1, bottom - top, "fault-window")
        return
    free = -1e9
    for fault in faults:
        if fault.start is None or fault.start > span.end:
            continue
        x1 = span.x(fault.start)
        x2 = max(span.x(fault.end if fault.end is not None else span.end), x1 + 2)
        drawing.box(x1, top, x2 - x1, bottom - top, _fault_class(fault, "window"), _fault_title(fault))
        if numbers and x1 + 2 > free:
            drawing.text(x1 + 2, top + 9, fault.number, "t tiny fault")
            free = x1 + 4 + 6 * len(str(fault.number))


def _merged(span: _Span, faults: Sequence[Fault]) -> list[tuple[float, float]]:
    """Windows of many faults as (from, to) in pixels; those that touch are one."""
    found: list[tuple[float, float]] = []
    for fault in faults:
        if fault.start is None or fault.start > span.end:
            continue
        x1 = span.x(fault.start)
        x2 = max(span.x(fault.end if fault.end is not None else span.end), x1 + 1)
        if found and x1 <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], x2))
        else:
            found.append((x1, x2))
    return found


# ------------------------------------------------------------------------------------------------------ plots


def _steps(span: _Span, axis: Axis, values: Floats, y: object) -> str:
    """The path of a step line through the bins."""
    edges = axis.edges
    path: list[str] = []
    before = None
    for place, value in enumerate(values):
        high = _short(float(y(value)))  # type: ignore[operator]
        if before is None:
            path.append(f"M{_short(span.x(float(edges[0])))} {high}")
        elif high != before:
            path.append(f"H{_short(span.x(float(edges[place])))}V{high}")
        before = high
    path.append(f"H{_short(span.x(float(edges[-1])))}")
    return "".join(path)


def rate_plot(rates: Rates, faults: Sequence[Fault], width: int, narrow: bool) -> Markup:
    """One panel a hop, the load first, above a common time axis, with the fault windows through all of them."""
    drawing = Drawing(width)
    axis = rates.axis
    left, right = (40.0, width - 6.0) if narrow else (52.0, width - 8.0)
    span = _Span(axis.start, float(axis.edges[-1]), left, right)
    y = _fault_strip(drawing, span, faults, 0)
    height, gap = (46, 30) if narrow else (58, 30)
    body_top = y + 18
    for rate in rates.rates:
        top = y + 20
        bottom = top + height
        peak = float(rate.values.max()) if len(rate.values) else 0.0
        planned = rates.planned if rate.all_pass else None
        most = nice_top(max(peak, planned or 0.0))
        total = f"{rate.total:,}"
        drawing.heading(left, top - 6, rate.name, "" if narrow else rate.about)
        drawing.text(right, top - 6, f"{total} in all · peak {words.compact(peak)}/s", "t dim", "end")
        _time_axis(drawing, span, top, bottom, words_below=False)
        _shade(drawing, span, faults, top, bottom, numbers=True)

        def at(value: float, bottom: float = bottom, most: float = most) -> float:
            return bottom - value / most * height

        steps = _steps(span, axis, rate.values, at)
        drawing.add("path", d=f"{steps}V{_short(bottom)}H{_short(left)}Z", class_="area")
        drawing.add("path", d=steps, class_="line")
        if planned:
            drawing.line(left, at(planned), right, at(planned), "planned")
        drawing.line(left, bottom, right, bottom, "base")
        drawing.text(left - 5, top + 8, words.compact(most), "t dim num", "end")
        drawing.text(left - 5, bottom, "0", "t dim num", "end")
        y = bottom + gap - 20
    bottom = y - (gap - 20)
    ticks, step = _ticks(span.start, span.end, max(2, int((right - left) / 62)))
    for tick in ticks:
        drawing.text(span.x(tick), bottom + 14, _tick(tick, step), "t dim", "middle")
    drawing.add("path", d=f"M0 {_short(body_top)}V{_short(bottom)}", class_="cursor", visibility="hidden")
    extra = f' data-left="{_short(left)}" data-right="{_short(right)}" data-plot="rates"'
    return drawing.svg(bottom + 22, "Messages a second at each hop over time, with the fault windows shaded", extra)


def latency_plot(latency: Latency, faults: Sequence[Fault], width: int, narrow: bool) -> Markup:
    """p50, p99 and the largest latency by when the event was due; logarithmic when they lie far apart."""
    drawing = Drawing(width)
    axis = latency.axis
    left, right = (46.0, width - 6.0) if narrow else (52.0, width - 8.0)
    span = _Span(axis.start, float(axis.edges[-1]), left, right)
    top = _fault_strip(drawing, span, faults, 0) + 6
    bottom = top + (150 if narrow else 200)
    least, most = float(np.nanmin(latency.p50)), float(np.nanmax(latency.most))
    logarithmic = most > 20 * max(float(np.nanmedian(latency.p50)), 0.1)
    _time_axis(drawing, span, top, bottom)
    _shade(drawing, span, faults, top, bottom, numbers=True)
    if logarithmic:
        low, high = _outer(max(least, 0.5), up=False), _outer(most, up=True)
        marks = [m * 10.0**n for n in range(-1, 9) for m in (1, 2, 5) if low <= m * 10.0**n <= high]
        if len(marks) > 8:
            marks = [m for m in marks if math.log10(m).is_integer()]

        def at(value: float) -> float:
            share = math.log10(max(value, low) / low) / math.log10(high / low)
            return bottom - share * (bottom - top)
    else:
        high, marks = _even_marks(max(most, 0.1))

        def at(value: float) -> float:
            return bottom - value / high * (bottom - top)

    for mark in marks:
        drawing.line(left, at(mark), right, at(mark), "grid")
        drawing.text(left - 5, at(mark) + 4, _latency_tick(mark), "t dim num", "end")
    for values, class_ in ((latency.most, "line most"), (latency.p99, "line p99"), (latency.p50, "line p50")):
        for start, end in _stretches(values):
            part = Axis(axis.t0, float(axis.edges[start]), float(axis.edges[end]), axis.width)
            drawing.add("path", d=_steps(span, part, values[start:end], at), class_=class_)
    drawing.line(left, bottom, right, bottom, "base")
    label = f"Latency to {latency.hop} over time: median, p99 and largest, with the fault windows shaded"
    return drawing.svg(bottom + 22, label)


def duplicates_plot(told: Duplicates, faults: Sequence[Fault], width: int, narrow: bool) -> Markup:
    """The duplicate rate before and after deduplication, as the warehouse's monitor told it, in percent."""
    drawing = Drawing(width)
    left, right = (46.0, width - 6.0) if narrow else (52.0, width - 8.0)
    end = float(told.times[-1])
    span = _Span(min(-1.0, float(told.times[0])), end, left, right)
    top = _fault_strip(drawing, span, faults, 0) + 6
    bottom = top + (110 if narrow else 140)
    _time_axis(drawing, span, top, bottom)
    _shade(drawing, span, faults, top, bottom, numbers=True)
    values = [np.maximum(rates, 0) * 100 for rates in (told.before, told.after)]
    high, marks = _even_marks(max(0.5, *(float(np.nanmax(v)) for v in values if np.isfinite(v).any()), 0.5))

    def at(value: float) -> float:
        return bottom - value / high * (bottom - top)

    for mark in marks:
        drawing.line(left, at(mark), right, at(mark), "grid")
        drawing.text(left - 5, at(mark) + 4, f"{mark:g} %", "t dim num", "end")
    for rates, class_ in zip(values, ("line p50", "line p99"), strict=True):
        path = ""
        for t, value in zip(told.times, rates, strict=True):
            if np.isfinite(value):
                x, y = _short(span.x(float(t))), _short(at(float(value)))
                path += f"H{x}V{y}" if path else f"M{x} {y}"
        if path:
            drawing.add("path", d=path, class_=class_)
    drawing.line(left, bottom, right, bottom, "base")
    label = "Duplicate rate before and after deduplication by the warehouse, over time, with the fault windows shaded"
    return drawing.svg(bottom + 22, label)


def _even_marks(most: float) -> tuple[float, list[float]]:
    """(the end of a linear axis from 0 that holds `most`, its four or five marks)"""
    power = 10.0 ** math.floor(math.log10(most / 4))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * 4.5 >= most)
    high = step * math.ceil(most / step)
    return high, [step * n for n in range(round(high / step) + 1)]


def _outer(value: float, up: bool) -> float:
    """The nearest of 1, 2, 5 times a power of ten that is not below (`up`) or not above the value."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = [m * power for m in (1, 2, 5, 10)]
    return next(s for s in steps if s >= value) if up else next(s for s in reversed(steps) if s <= value)


def _latency_tick(milliseconds: float) -> str:
    return f"{milliseconds / 1000:g} s" if milliseconds >= 1000 else f"{milliseconds:g} ms" if milliseconds else "0"


def _stretches(values: Floats) -> list[tuple[int, int]]:
    """Where there are values: (first, one after the last) of each stretch without a gap."""
    there = np.concatenate(([False], np.isfinite(values), [False]))
    turns = np.flatnonzero(there[1:] != there[:-1])
    return [(int(a), int(b)) for a, b in zip(turns[::2], turns[1::2], strict=True)]


def life_plot(
    stages: Sequence[Stage], lanes: Sequence[Lane], faults: Sequence[Fault], width: int, narrow: bool
) -> Markup:
    """The stages of the run and, below them, when each process lived and how it ended."""
    drawing = Drawing(width)
    ends = [s.end for s in stages if s.end is not None] + [e for lane in lanes for e in _moments(lane)]
    starts = [s.start for s in stages] + [e for lane in lanes for e in _moments(lane)]
    if not starts:
        starts, ends = [0.0], [1.0]
    longest = max([len(lane.name) for lane in lanes] + [6])
    left = 2.0 if narrow else min(longest * _BOLD + 16, 220)
    span = _Span(min(starts), max([*ends, min(starts) + 1]), left, width - 8.0)
    y = 0.0
    if stages:
        y = _stage_band(drawing, span, stages, narrow)
    body = y
    rows = []
    for lane in lanes:
        top = y + (16 if narrow else 4)
        rows.append((lane, top))
        y = top + 18
    bottom = y + 4
    _shade(drawing, span, faults, body, bottom, numbers=False)
    _time_axis(drawing, span, body, bottom)
    for lane, top in rows:
        if narrow:
            drawing.text(left, top - 3, lane.name, "t name")
        else:
            drawing.text(left - 8, top + 11, lane.name, "t name", "end")
        drawing.line(left, top + 7, span.right, top + 7, "down")
        free = -1e9
        for life in lane.lives:
            if len(lane.lives) > _MOST_LIVES and life.end is not None and span.x(life.end) < free + 1:
                continue  # a soak's short lives: one a pixel is all that can be seen
            free = span.x(life.end) if life.end is not None else free
            x1 = span.x(life.start if life.start is not None else span.start)
            x2 = span.x(life.end if life.end is not None else span.end)
            began = "?" if life.start is None else f"{life.start:.1f} s"
            until = "still running" if life.end is None else f"{life.end:.1f} s, {life.how}"
            drawing.box(
                x1,
                top + 1,
                max(x2 - x1, 2),
                12,
                f"life {lane.kind}",
                f"{lane.name}, pid {life.pid}: {began} to {until}",
            )
            if life.end is not None and not (life.asked and life.end >= span.end - 1):
                _exit_mark(drawing, x2, top + 7, bool(life.asked))
    return drawing.svg(bottom + 22, "Stages of the run, and when each worker and service lived")


def _moments(lane: Lane) -> list[float]:
    return [t for life in lane.lives for t in (life.start, life.end) if t is not None]


def _stage_band(drawing: Drawing, span: _Span, stages: Sequence[Stage], narrow: bool) -> float:
    """The stages side by side; a name that does not fit is left to the table."""
    if not narrow:
        drawing.text(span.left - 8, 14, "stage", "t dim", "end")
    for place, stage in enumerate(stages):
        x1, x2 = span.x(stage.start), span.x(stage.end if stage.end is not None else span.end)
        drawing.box(x1, 1, x2 - x1, 19, f"stage s{place % 2}", f"{stage.name}: {words.seconds(stage.seconds or 0)}")
        if len(stage.name) * _CHARACTER + 6 <= x2 - x1:
            drawing.text((x1 + x2) / 2, 14.5, stage.name, "t", "middle")
    return 26.0


def _exit_mark(drawing: Drawing, x: float, y: float, asked: bool) -> None:
    """An exit: a bar if the harness asked for it, a cross if it came by itself."""
    if asked:
        drawing.add("path", d=f"M{_short(x)} {_short(y - 8)}V{_short(y + 8)}", class_="exit asked")
        return
    d = 4.5
    path = f"M{_short(x - d)} {_short(y - d)}L{_short(x + d)} {_short(y + d)}M{_short(x - d)} {_short(y + d)}L{_short(x + d)} {_short(y - d)}"
    drawing.add("path", d=path, class_="exit alone")


# -------------------------------------------------------------------------------------------------------- trends


def trend(
    measure: str, numbers: Sequence[int], values: Sequence[float | None], line: tuple[float, float] | None
) -> Markup:
    """One measure over the cycles of a soak: a dot a cycle, and from end to end the growth that the test for a trend fitted.

    `numbers`: of the cycles, in order; `values`: None where a cycle was not measured; `line`: at the first and the last of
    the cycles that count (a quarter of them, from the first on, does not).
    """
    return sizes(lambda width, narrow: _trend(width, measure, numbers, values, line))


def _trend(
    width: int,
    measure: str,
    numbers: Sequence[int],
    values: Sequence[float | None],
    line: tuple[float, float] | None,
) -> Markup:
    drawing, left, right, top, bottom = Drawing(width), 52.0, width - 8.0, 10.0, 104.0
    known = [value for value in values if value is not None]
    high = nice_top(max([*known, *(line or ())], default=1.0))

    def x(at: float) -> float:
        return left + at / max(1, len(values) - 1) * (right - left)

    def y(value: float) -> float:
        return bottom - max(0.0, value) / high * (bottom - top)

    for share in (0.0, 0.5, 1.0):
        drawing.line(left, y(share * high), right, y(share * high), "grid")
        drawing.text(left - 6, y(share * high) + 4, words.number(share * high), "dim", "end")
    for at in sorted({0, len(values) // 2, len(values) - 1}) if values else ():
        drawing.text(x(at), bottom + 16, f"cycle {numbers[at]}", "dim", ("start", "middle", "end")[_third(at, values)])
    for at, value in enumerate(values):
        if value is not None:
            drawing.add("circle", cx=x(at), cy=y(value), r=2, class_="dot")
    if line is not None:
        drawing.line(x(len(values) // 4), y(line[0]), right, y(line[1]), "line")
    return drawing.svg(bottom + 22, f"{measure} over {len(values)} cycles")


def _third(at: int, values: Sequence[object]) -> int:
    return 0 if at == 0 else 2 if at == len(values) - 1 else 1
