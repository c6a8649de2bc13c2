"""What `gauntlet run` shows while it runs, and how it tells the verdict. All of it may fail without harm to the run.

Two views of the same events (`make_view` chooses): `LiveView` keeps a panel at the foot of a terminal and lets what
happens scroll by above it; `LineView` prints one plain line for each thing worth knowing, for CI and files. `on` may be
called from any thread and never raises: a terminal that goes away is a reason to be silent, not to stop a run.

The live view composes its lines itself instead of using rich's tables, which cost ten times as much processor time:
the machine is there for the pipeline under test.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.status import Status
from rich.style import Style

from harness.report import words

REFRESH_PER_SECOND = 4
#: A plain view says how far it is so often, in seconds.
PROGRESS_EVERY_S = 5.0
#: Rates are taken over so many seconds.
RATE_OVER_S = 2.0

Event = Mapping[str, Any]


class View(Protocol):
    """Something that shows a run. `on` and `close` never raise and may be called from any thread."""

    def on(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def make_view(stream: TextIO | None = None, quiet: bool = False, live: bool | None = None) -> View:
    """The view that suits a stream (default: stderr). `live`: True or False to decide it, None to look."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return QuietView()
    if live is None:
        live = _is_terminal(stream) and not os.environ.get("CI")
    return LiveView(stream) if live and os.environ.get("TERM", "") not in ("dumb", "") else LineView(stream)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (ValueError, OSError, AttributeError):
        return False


class QuietView:
    def on(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class _Safe(io.TextIOBase):
    """A stream that swallows what goes wrong with the one beneath it, and then stays silent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.gone = stream, False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return _is_terminal(self._stream)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not self.gone:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                with self._leaving():
                    self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding, "replace"))
            except (OSError, ValueError):
                self.gone = True
        return len(text)

    def flush(self) -> None:
        if not self.gone:
            with self._leaving():
                self._stream.flush()

    @contextlib.contextmanager
    def _leaving(self) -> Any:
        try:
            yield
        except (OSError, ValueError):
            self.gone = True


# -------------------------------------------------------------------------------------------- what is known


@dataclass
class _Hop:
    count: int = 0
    samples: deque[tuple[float, int]] = field(default_factory=deque)

    def seen(self, t: float, count: int) -> None:
        self.count = count
        self.samples.append((t, count))
        while len(self.samples) > 2 and self.samples[1][0] <= t - RATE_OVER_S:
            self.samples.popleft()

    def rate(self, now: float) -> float:
        if len(self.samples) < 2 or now - self.samples[-1][0] > 2 * RATE_OVER_S:
            return 0.0
        (t1, c1), (t2, c2) = self.samples[0], self.samples[-1]
        return max(0.0, (c2 - c1) / (t2 - t1)) if t2 > t1 else 0.0


@dataclass
class _Worker:
    pid: Any = None
    state: str = "waiting"
    starts: int = 0
    since: float = 0.0
    pids: list[Any] = field(default_factory=list)


@dataclass
class _Fault:
    fault: str
    target: str
    at: float | None
    seconds: float
    state: str = "planned"
    started: float = 0.0
    ended: float = 0.0
    bit: bool | None = None


class _State:
    """What the events so far say. Not locked: the views do that."""

    def __init__(self) -> None:
        self.run: dict[str, Any] = {}
        self.begun: float | None = None
        self.latest = 0.0
        self.stages: list[tuple[str, float]] = []
        self.load: dict[str, Any] = {}
        self.acked = _Hop()
        self.t0: float | None = None
        self.hops: dict[str, _Hop] = {}
        self.workers: dict[str, _Worker] = {}
        self.faults: dict[tuple[Any, str], _Fault] = {}
        self.waits: dict[str, int] = {}
        self.quiet_s: float | None = None
        self.missing: dict[str, int] = {}

    def take(self, event: Event) -> None:
        kind, t = str(event.get("kind")), _number(event.get("t"), self.latest)
        if self.begun is None:
            self.begun = t
        self.latest = max(self.latest, t)
        handler = getattr(self, f"_{kind.replace('-', '_')}", None)
        if handler is not None and kind in _KINDS:
            handler(event, t)

    def _run(self, event: Event, t: float) -> None:
        self.run = dict(event)
        self.hops = {str(name): _Hop() for name in event.get("hops") or []}
        self.workers = {str(name): _Worker() for name in event.get("workers") or []}
        for index, planned in enumerate(event.get("schedule") or []):
            if isinstance(planned, Mapping):
                target = str(planned.get("target", ""))
                at, length = planned.get("at"), _number(planned.get("seconds"), 0.0)
                self.faults[index, target] = _Fault(str(planned.get("fault", "?")), target, at, length)

    def _stage(self, event: Event, t: float) -> None:
        name = str(event.get("stage", "?"))
        self.stages.append((name, t))
        if name == "load" and self.t0 is None:
            self.t0 = t

    def _load(self, event: Event, t: float) -> None:
        self.load = dict(event)
        if isinstance(event.get("acked"), int):
            self.acked.seen(t, event["acked"])

    def _progress(self, event: Event, t: float) -> None:
        self.hops.setdefault(str(event.get("hop", "?")), _Hop()).seen(t, int(_number(event.get("count"), 0)))

    def _worker_start(self, event: Event, t: float) -> None:
        worker = self.workers.setdefault(str(event.get("worker", "?")), _Worker())
        worker.pid, worker.state, worker.since = event.get("pid"), "runs", t
        worker.pids.append(worker.pid)
        worker.starts += 1

    def _worker_exit(self, event: Event, t: float) -> None:
        worker = self.workers.setdefault(str(event.get("worker", "?")), _Worker())
        worker.pids = [pid for pid in worker.pids if pid != event.get("pid")]
        if worker.pids:  # it was one of two, of which the other goes on
            worker.pid = worker.pids[-1]
            return
        ending = self.stages and self.stages[-1][0] in ("collect", "check", "store")
        worker.state = "stopped" if event.get("asked") and ending else "down"
        worker.since = t

    def _fault_start(self, event: Event, t: float) -> None:
        fault = self._fault_of(event)
        fault.state, fault.started = "active", t

    def _fault_end(self, event: Event, t: float) -> None:
        fault = self._fault_of(event)
        fault.state, fault.ended = "healed", t
        fault.bit = event["bit"] if isinstance(event.get("bit"), bool) else None

    def _fault_of(self, event: Event) -> _Fault:
        index, target = event.get("index"), str(event.get("target", ""))
        if (index, target) not in self.faults:
            # Planned under a name that stands for several targets: each of them gets a line of its own.
            planned = next((f for (i, _), f in self.faults.items() if i == index), None)
            at, length = (planned.at, planned.seconds) if planned else (None, 0.0)
            self.faults = {k: f for k, f in self.faults.items() if k[0] != index or f.state != "planned"}
            self.faults[index, target] = _Fault(str(event.get("fault", "?")), target, at, length)
        return self.faults[index, target]

    def _lag(self, event: Event, t: float) -> None:
        if event.get("lag") is not None:
            self.waits[str(event.get("group", "?"))] = int(_number(event["lag"], 0))

    def _draining(self, event: Event, t: float) -> None:
        self.quiet_s = _number(event.get("quiet_s"), 0.0)
        missing = event.get("missing")
        self.missing = {str(k): v for k, v in missing.items() if v} if isinstance(missing, Mapping) else {}


_KINDS = (
    "run",
    "stage",
    "load",
    "progress",
    "worker-start",
    "worker-exit",
    "fault-start",
    "fault-end",
    "lag",
    "draining",
)


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


# ------------------------------------------------------------------------------------------ what is told once


#: (style, text): "" plain, else one of the names in _STYLES.
Line = tuple[str, str]


def _told(event: Event, state: _State) -> Line | None:
    """The line that an event is worth, or None. `state` has taken the event already."""
    kind = event.get("kind")
    get = event.get
    if kind == "run":
        load = get("load")
        load = load.get("profile", load) if isinstance(load, Mapping) else {}
        rate = (
            f", {load['rate']:,} events/s for {load.get('seconds', '?'):g} s"
            if isinstance(load.get("rate"), int)
            else ""
        )
        faults = len(get("schedule") or [])
        drawn = "" if get("schedule_seed") is None else f" drawn from seed {get('schedule_seed')}"
        return (
            "strong",
            f"run {get('run')}: {get('scenario')} on {get('pipeline')}, seed {get('seed')}{rate}, {faults} fault{'s' * (faults != 1)}{drawn}"
            + (f", {get('where')}" if get("where") else ""),
        )
    if kind == "stage":
        return "strong", f"stage {get('stage')}"
    if kind == "fault-start":
        return "fault", f"fault {get('fault')} {get('target')}: injected"
    if kind == "fault-end":
        bit = {True: ", it bit", False: ", it did not bite"}.get(get("bit"), "")  # type: ignore[arg-type]
        return "fault", f"fault {get('fault')} {get('target')}: healed{bit}"
    if kind == "worker-start":
        worker = state.workers.get(str(get("worker")))
        if get("version"):
            return "good", f"worker {get('worker')} started in another version ({get('version')}), pid {get('pid')}"
        again = worker is not None and worker.starts > 1
        return (
            ("good", f"worker {get('worker')} started again, pid {get('pid')}")
            if again
            else ("dim", f"worker {get('worker')} started, pid {get('pid')}")
        )
    if kind in ("worker-exit", "service-exit"):
        what = "worker" if kind == "worker-exit" else "service"
        how = get("signal") or f"status {get('status')}"
        asked = bool(get("asked"))
        ending = bool(state.stages) and state.stages[-1][0] in ("collect", "check", "store")
        return ("dim" if asked and ending else "warn" if asked else "bad"), (
            f"{what} {get(what)} ended ({how}{'' if asked else ', not asked for'})"
        )
    if kind == "service-start":
        return "dim", f"service {get('service')} started, pid {get('pid')}"
    if kind == "drain-end":
        missing = get("missing")
        left = f", {missing} still missing" if missing else ""
        return (
            "" if get("reason") == "drained" else "bad"
        ), f"drain ended after {_number(get('waited_s'), 0):.1f} s: {get('reason')}{left}"
    if kind == "load-end":
        status = get("status")
        return ("" if status in (0, None) else "bad"), f"load ended with status {status}" if status else "load ended"
    if kind == "tap" and not get("certified"):
        return "warn", f"the tap of {get('hop')} is not certified: {get('reason')}"
    if kind == "note":
        return "dim", str(get("text"))
    if kind == "error":
        return "bad", f"error: {get('text')}"
    return None


class _Base:
    """What both views share: the state, the lock, and that nothing gets out of `on`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = _Safe(stream)
        # Held while an event is taken and shown, so that lines come in order; and, within it, the lock of the state. What
        # draws by a thread of its own takes the second alone: it has the console's lock by then, which showing waits for.
        self._order, self._lock = threading.RLock(), threading.RLock()
        self._state = _State()
        self._closed = False

    def on(self, event: dict[str, Any]) -> None:
        try:
            with self._order:
                if self._closed:
                    return
                with self._lock:
                    self._state.take(event)
                self._show(event)
        except Exception:
            # A fault of the view is no fault of the run; what was to be shown is in history.jsonl.
            return

    def _show(self, event: Event) -> None:
        raise NotImplementedError

    def _elapsed(self, event: Event) -> str:
        begun = self._state.begun if self._state.begun is not None else 0.0
        return f"{max(0.0, _number(event.get('t'), self._state.latest) - begun):7.2f} s"


# -------------------------------------------------------------------------------------------------- line view


class LineView(_Base):
    """One plain line for each thing worth knowing, and how far the run is, every few seconds."""

    def __init__(self, stream: TextIO, every_s: float = PROGRESS_EVERY_S) -> None:
        super().__init__(stream)
        self._every = every_s
        self._last_progress: float | None = None

    def _show(self, event: Event) -> None:
        line = _told(event, self._state)
        if line is not None:
            self._print(event, line[1])
        if event.get("kind") not in ("progress", "load", "draining"):
            return
        t = _number(event.get("t"), self._state.latest)
        if self._last_progress is None:
            self._last_progress = t
        if t - self._last_progress >= self._every:
            self._last_progress = t
            self._print(event, _progress_line(self._state, t))

    def _print(self, event: Event, text: str) -> None:
        first, *rest = words.clean(text).splitlines() or [""]
        elapsed = self._elapsed(event)
        self._stream.write("".join([f"{elapsed}  {first}\n", *(f"{'':{len(elapsed)}}  {line}\n" for line in rest)]))
        self._stream.flush()

    def close(self) -> None:
        with self._order:
            self._closed = True
            self._stream.flush()


def _progress_line(state: _State, now: float) -> str:
    parts = []
    if state.load:
        behind = _number(state.load.get("behind_ms"), 0.0)
        late = f", {words.milliseconds(behind)} behind" if behind > 100 else ""
        parts.append(f"load {state.acked.count:,} acked ({state.acked.rate(now):,.0f}/s{late})")
    parts += [f"{name} {hop.count:,} ({hop.rate(now):,.0f}/s)" for name, hop in state.hops.items()]
    active = [f"{f.fault} {f.target}" for f in state.faults.values() if f.state == "active"]
    if active:
        parts.append("active: " + ", ".join(active))
    if state.missing:
        parts.append("missing: " + ", ".join(f"{hop} {n:,}" for hop, n in state.missing.items()))
    return "progress: " + "; ".join(parts)


# -------------------------------------------------------------------------------------------------- live view

_STYLES = {
    "": Style(),
    "strong": Style(bold=True),
    "dim": Style(dim=True),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "fault": Style(color="magenta"),
}

#: A line of the panel: pieces with their style.
Pieces = list[Line]


class LiveView(_Base):
    """A panel at the foot of a terminal, redrawn four times a second, with what happens scrolling by above it."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        super().__init__(stream)
        self._clock = clock
        self._console = Console(file=self._stream, force_terminal=True, highlight=False, markup=False, emoji=False)  # type: ignore[arg-type]
        self._live: Live | None = None

    def _show(self, event: Event) -> None:
        if self._live is None:
            self._live = Live(
                _Panel(self._lines),
                console=self._console,
                refresh_per_second=REFRESH_PER_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._live.start()
        line = _told(event, self._state)
        if line is not None and line[0] != "dim":
            self._say(event, line)

    def _say(self, event: Event, line: Line) -> None:
        style, text = line
        first, *rest = words.clean(text).splitlines() or [""]
        elapsed = self._elapsed(event)
        lines: list[Pieces] = [[("dim", elapsed), (style, f"  {first}")]]
        lines += [[("", f"{'':{len(elapsed)}}  {words.shorten(text, 400)}")] for text in rest[:20]]
        self._console.print(_Panel(lambda _width, _height: lines, wrap=True))

    def close(self) -> None:
        """Leaves the last panel where it is."""
        with self._order:
            if self._closed:
                return
            self._closed = True
            live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(Exception):
                live.stop()

    def _lines(self, width: int, height: int) -> list[Pieces]:
        with self._lock:
            now = max(self._state.latest, min(self._clock(), self._state.latest + 600))
            return _panel(self._state, now, width, height)


class _Panel:
    """Lines for rich, already cut to the width: no measuring, no wrapping."""

    def __init__(self, lines: Callable[[int, int], Sequence[Pieces]], wrap: bool = False) -> None:
        self._lines, self._wrap = lines, wrap

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(20, options.max_width - 1)
        try:
            lines = self._lines(width, options.size.height)
        except Exception as error:
            lines = [[("dim", f"(the view failed: {error!r})")]]
        for pieces in lines:
            used = 0
            for style, text in pieces:
                if not self._wrap:
                    room = width - used
                    if room <= 0:
                        break
                    if cell_len(text) > room:
                        text = set_cell_size(text, room)
                used += cell_len(text)
                yield Segment(text, _STYLES[style])
            yield Segment.line()


def _panel(state: _State, now: float, width: int, height: int) -> list[Pieces]:
    """The panel. Where the terminal is low, the workers share a line and only what is next of the faults is shown."""
    run = state.run
    lines: list[Pieces] = [[("dim", "─" * width)]]
    title = f"{run.get('scenario', '')} on {run.get('pipeline', '')}"
    since = now - (state.begun if state.begun is not None else now)
    lines.append(
        [
            ("strong", words.clean(title)),
            (
                "dim",
                f"  seed {run.get('seed', '?')}  {words.clean(run.get('where', ''))}  {words.clean(run.get('folder', ''))}",
            ),
        ]
    )
    lines.append(_stage_line(state, now, since))
    room = height - len(lines) - 4
    rows: list[Pieces] = []
    if state.load:
        load = state.load
        behind = _number(load.get("behind_ms"), 0.0)
        failed = int(_number(load.get("failed"), 0))
        rows.append(
            [
                ("", f"{'load':<18}{state.acked.count:>13,} acked{state.acked.rate(now):>10,.0f}/s"),
                ("dim", f"   {int(_number(load.get('sent'), 0)):,} sent"),
                ("warn" if behind > 250 else "dim", f", {words.milliseconds(behind)} behind"),
                ("bad", f", {failed:,} failed" if failed else ""),
            ]
        )
    for name, hop in state.hops.items():
        rate = hop.rate(now)
        rows.append([("", f"{_cut(name, 17):<18}{hop.count:>13,} seen {rate:>10,.0f}/s"), *_bar(rate, state, now)])
    rows += _worker_lines(state, now, width, compact=room < len(rows) + len(state.workers) + 3)
    most = max(2, room - len(rows))
    rows += _fault_lines(state, now, most)
    if state.quiet_s is not None and state.stages and state.stages[-1][0] == "drain":
        left = ", ".join(f"{hop} {n:,}" for hop, n in state.missing.items())
        rows.append(
            [("", f"{'drain':<18}quiet for {state.quiet_s:.1f} s"), ("warn", f", missing: {left}" if left else "")]
        )
    return lines + rows[: max(3, room + 1)]


def _cut(text: str, most: int) -> str:
    text = words.clean(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _stage_line(state: _State, now: float, since: float) -> Pieces:
    pieces: Pieces = []
    for place, (name, begun) in enumerate(state.stages):
        ended = state.stages[place + 1][1] if place + 1 < len(state.stages) else None
        if ended is None:
            pieces.append(("strong", f"▸ {name} {now - begun:.1f} s  "))
        else:
            pieces.append(("dim", f"✓ {name} {ended - begun:.1f} s  "))
    return [*pieces, ("dim", f"({since:.0f} s)")]


def _bar(rate: float, state: _State, now: float) -> Pieces:
    """The rate as a bar; ten cells are the fastest of all hops just now."""
    top = max([hop.rate(now) for hop in state.hops.values()] + [state.acked.rate(now), 1.0])
    cells = round(rate / top * 10)
    return [("", "   "), ("good", "━" * cells), ("dim", "╌" * (10 - cells))]


def _worker_lines(state: _State, now: float, width: int, compact: bool) -> list[Pieces]:
    shown: list[tuple[str, str, str]] = []
    for name, worker in state.workers.items():
        again = f", {worker.starts - 1}× restarted" if worker.starts > 1 else ""
        if worker.state == "runs":
            shown.append(("good", name, f"pid {worker.pid}{again}"))
        elif worker.state == "down":
            shown.append(("bad", name, f"down for {max(0.0, now - worker.since):.1f} s{again}"))
        else:
            shown.append(("dim", name, worker.state + again))
    if compact:
        pieces: Pieces = [("", f"{'workers':<18}")]
        for style, name, text in shown:
            pieces += [(style, "● "), ("", f"{name} "), ("dim", f"{text}  ")]
        return [pieces] if shown else []
    return [[(style, "● "), ("", f"{_cut(name, 15):<16}"), ("dim", text)] for style, name, text in shown]


def _fault_lines(state: _State, now: float, most: int) -> list[Pieces]:
    """Active faults first, then what is next, then what is over, as many as there is room for."""
    t0 = state.t0
    faults = list(state.faults.values())
    active = [f for f in faults if f.state == "active"]
    planned = sorted((f for f in faults if f.state == "planned"), key=lambda f: f.at or 0.0)
    healed = sorted((f for f in faults if f.state == "healed"), key=lambda f: -f.ended)
    kept = (active + planned[: max(1, most - len(active) - min(2, len(healed)))] + healed)[:most]
    lines: list[Pieces] = []
    for fault in faults:
        if fault not in kept:
            continue
        name = f"{fault.fault} {fault.target}"
        if fault.state == "active":
            left = fault.started + fault.seconds - now
            text = f"active, {left:.1f} s left" if left > 0 else f"active for {now - fault.started:.1f} s"
            lines.append([("fault", f"▮ {name}"), ("strong", f"  {text}")])
        elif fault.state == "healed":
            bit = {True: ", bit", False: ", did not bite", None: ""}[fault.bit]
            took = words.seconds(fault.ended - fault.started)
            lines.append([("dim", f"✓ {name}  healed after {took}{bit}")])
        else:
            wait = None if t0 is None or fault.at is None else t0 + fault.at - now
            at = f"at {fault.at:g} s" if isinstance(fault.at, int | float) else "planned"
            soon = f"in {wait:.1f} s" if wait is not None and wait > 0 else at
            lines.append([("dim", "▯ "), ("", name), ("dim", f"  {soon}")])
    hidden = len(faults) - len(kept)
    if hidden > 0:
        lines.append([("dim", f"  and {hidden} more faults")])
    return lines


# ------------------------------------------------------------------------------------------------ the verdict


def stages_on(status: Status) -> Callable[[Event], None]:
    """A listener to several runs, one after another, which shows on a status line which one is where."""
    name = ""

    def on(event: Event) -> None:
        nonlocal name
        if event["kind"] == "run":
            name = f"{event['scenario']} on {event['pipeline']}, seed {event['seed']}"
        elif event["kind"] == "stage":
            status.update(f"{name}: {event['stage']}")

    return on


def print_verdict(verdict: Mapping[str, Any] | None, stream: TextIO | None = None) -> None:
    """Tells the verdict: the word, a line a finding, the faults, where the page is, what to do next. Never raises."""
    safe = _Safe(sys.stderr if stream is None else stream)
    with contextlib.suppress(Exception):
        told = verdict if isinstance(verdict, Mapping) else {}
        terminal = safe.isatty() and os.environ.get("TERM", "") not in ("dumb", "")
        console = Console(
            file=safe,  # type: ignore[arg-type]
            force_terminal=terminal,
            no_color=None if terminal else True,
            highlight=False,
            markup=False,
            emoji=False,
        )
        width = console.width if terminal else 10_000
        runs = told.get("runs")
        for one in runs if isinstance(runs, list) and runs else [told]:
            if isinstance(one, Mapping):
                _write(safe, console, terminal, _verdict_lines(one, width))
        if isinstance(told.get("table"), list):
            _write(safe, console, terminal, _beside_lines(told))
        safe.flush()


def _write(stream: _Safe, console: Console, terminal: bool, lines: Iterable[Pieces]) -> None:
    lines = list(lines)
    if terminal:
        console.print(_Panel(lambda _width, _height: lines, wrap=True))
    else:
        stream.write("".join("".join(text for _, text in pieces).rstrip() + "\n" for pieces in lines))


_SIGNS = {"pass": ("good", "✓"), "violation": ("bad", "✗"), "inconclusive": ("warn", "?")}


def _verdict_lines(verdict: Mapping[str, Any], width: int) -> list[Pieces]:
    which = str(verdict.get("verdict", ""))
    style, sign = _SIGNS.get(which, ("warn", "–"))
    lines: list[Pieces] = [
        [],
        [(style, f"{sign} {words.word(which).upper()}"), ("", f"  {words.sentence(verdict)}")],
        [],
    ]
    findings = words.findings_of(verdict)
    judged = [f for f in findings if not words.is_guard(f)]
    guards = [f for f in findings if words.is_guard(f)]
    lines += _finding_lines(judged, width)
    trouble = [g for g in guards if words.standing(g) != "pass"]
    if guards and not trouble:
        lines.append(
            [
                ("good", "✓ "),
                ("", f"{'guards':<16}"),
                ("dim", f" all {len(guards)} hold: the run itself can be trusted"),
            ]
        )
    lines += _finding_lines(trouble, width)
    faults = verdict.get("faults")
    if isinstance(faults, list) and faults:
        lines += [[], *_fault_table([f for f in faults if isinstance(f, Mapping)])]
    events = verdict.get("events")
    if isinstance(events, Mapping):
        counted = ", ".join(f"{n:,} {what}" for what, n in events.items() if isinstance(n, int))
        lines += [[], [("dim", "events  "), ("", words.clean(counted))]]
    else:
        lines.append([])
    folder = words.clean(verdict.get("run") or "")
    if folder:
        lines.append([("dim", "report  "), ("", f"{folder}/report.html")])
        lines.append([("dim", "again   "), ("", words.check_command(folder))])
    for place, step in enumerate(words.next_steps(verdict)):
        lines.append([("dim", "next    " if not place else "        "), ("", step)])
    status = words.EXIT_STATUS.get(which)
    if status is not None:
        lines.append([("dim", "exit    "), ("", f"{status} ({words.EXIT_MEANING[status]})")])
    return lines


def _beside_lines(verdict: Mapping[str, Any]) -> list[Pieces]:
    """Runs side by side: the verdict of all, their figures in columns, and where the page is."""
    from harness.report import comparison, side_by_side  # of no use to a single run, and slow to import

    which = str(verdict.get("verdict", ""))
    style, sign = _SIGNS.get(which, ("warn", "–"))
    lines: list[Pieces] = [
        [],
        [(style, f"{sign} {words.word(which).upper()}"), ("", f"  {side_by_side.sentence(verdict)}")],
        [],
    ]
    measures = {m.key: m for m in comparison.MEASURES}
    rows = [line for line in verdict["table"] if line.get("key") in measures]
    names = [words.clean(name) for name in (rows[0]["values"] if rows else ())]
    lines.append([("dim", f"  {'':<38}" + "".join(f"{name:>18}" for name in names))])
    for line in rows:
        values = [side_by_side.told(measures[line["key"]], value) for value in line["values"].values()]
        lines.append([("", f"  {words.clean(line['measure']):<38}"), ("strong", "".join(f"{v:>18}" for v in values))])
    folder = words.clean(verdict.get("run") or "")
    lines += [[], [("dim", "report  "), ("", f"{folder}/report.html")]]
    lines.append([("dim", "again   "), ("", words.check_command(folder))])
    status = words.EXIT_STATUS.get(which)
    if status is not None:
        lines.append([("dim", "exit    "), ("", f"{status} ({words.EXIT_MEANING[status]})")])
    return lines


def _finding_lines(findings: Sequence[Mapping[str, Any]], width: int) -> list[Pieces]:
    lines: list[Pieces] = []
    names = [words.finding_name(f) for f in findings]
    column = min(max([len(n) for n in names] + [16]), 32)
    for name, finding in zip(names, findings, strict=True):
        style, sign = _SIGNS.get(words.standing(finding), ("warn", "–"))
        note = f"({words.told(finding)}) " if finding.get("expected") else ""
        summary = " ".join(words.clean(finding.get("summary", "")).split())
        lines.append([(style, f"{sign} "), ("strong", f"{name:<{column}} "), ("", note + summary)])
    return lines


def _fault_table(faults: Sequence[Mapping[str, Any]]) -> list[Pieces]:
    def time_of(value: Any) -> str:
        return f"{value:.1f} s" if isinstance(value, int | float) else "–"

    rows = [
        (
            words.clean(f.get("fault", "?")),
            words.clean(f.get("target", "")),
            time_of(f.get("start")),
            time_of(f.get("end")),
            f,
        )
        for f in faults
    ]
    wide = [max([len(head), *(len(row[i]) for row in rows)]) for i, head in enumerate(("fault", "target"))]
    lines: list[Pieces] = [[("dim", f"  {'fault':<{wide[0]}}  {'target':<{wide[1]}}  {'start':>8}  {'end':>8}  bit")]]
    for fault, target, start, end, told in rows:
        bit = told.get("bit")
        evidence = told.get("evidence")
        reason = words.clean(evidence.get("reason", "")) if isinstance(evidence, Mapping) and bit is False else ""
        style, text = {True: ("good", "yes"), False: ("warn", "no")}.get(bit, ("dim", "not judged"))  # type: ignore[arg-type]
        lines.append(
            [
                ("", f"  {fault:<{wide[0]}}  {target:<{wide[1]}}  {start:>8}  {end:>8}  "),
                (style, text),
                ("dim", f"  {reason}" if reason else ""),
            ]
        )
    return lines
