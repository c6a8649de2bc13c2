"""The load process: `python -m load.main SPEC.json`. See load.spec for the file, load.users for what it does.

With `processes` in the spec it is Locust's master, and starts that many workers, which end with it (load.workers).

Its life: connect every producer, write {"state": "ready"}, wait for the go file, send on schedule with a line
{"state": "loading", "t", "sent", "acked", "failed", "behind_ms"} each half second, drain, and write
{"state": "done", "ended", "planned", "sent", "acked", "failed", "ambiguous", "behind_ms"}, where `ended` is "plan" (all
was sent), "stop" (the stop file) or "signal" (SIGTERM or SIGINT: drains for at most 5 s). `t` is in epoch seconds.

If it cannot do what it was asked to, the last line is {"state": "error", "text": …} and the exit status that of the
project: 2 for a usage error, 4 otherwise. SIGKILL at any moment leaves a ledger that can be read (harness.ledger).
"""

if __name__ == "__main__":  # before anything else is imported, or sockets and locks exist that block the others
    from gevent import monkey

    monkey.patch_all()

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from harness.errors import HarnessFault, UsageError
from load.spec import LoadSpec

STATUS_S = 0.5
SIGNAL_DRAIN_S = 5.0
_LOOK_S = 0.02


class Status:
    """Appends lines to the status file, each in one write."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644) if path else -1

    def write(self, state: str, **figures: Any) -> None:
        line = json.dumps({"state": state, "t": round(time.time(), 3), **figures}) + "\n"
        os.write(self._fd if self._fd >= 0 else 1, line.encode())


class Alone:
    """The users in this process."""

    def __init__(self, spec: LoadSpec) -> None:
        from locust.env import Environment

        from load.users import Load, PlannedUser

        self.spec, self._load = spec, Load(spec)
        PlannedUser.spec, PlannedUser.shared = spec, self._load
        self._runner = Environment(user_classes=[PlannedUser]).create_local_runner()
        self._runner.start(spec.users, spawn_rate=spec.users)
        self.start, self.stop, self.figures = self._load.start, self._load.stop, self._load.figures

    @property
    def broken(self) -> BaseException | None:
        return self._load.broken

    def look(self) -> None: ...

    def connected(self) -> bool:
        return self._are("connected")

    def done(self) -> bool:
        return self._are("done")

    def _are(self, what: str) -> bool:
        users = self._load.users
        return len(users) == self.spec.users and all(getattr(user, what) for user in users)

    def started(self) -> bool:
        return self._load.started.is_set()

    def close(self) -> None:
        if self.broken is None:  # else there is nothing to wait for
            self._runner.quit()
        self._load.ledger.close()


def _crew(spec: LoadSpec, path: str) -> Any:
    from load.workers import Crew

    return Crew(spec, path)


def run(spec: LoadSpec, path: str, status: Status) -> None:
    """Loads by the spec until its end; raises what made it impossible."""
    import gevent

    ended = ""

    def by_signal() -> None:
        nonlocal ended
        ended = "signal"
        load.stop(drain_s=SIGNAL_DRAIN_S)

    load = Alone(spec) if spec.processes == 1 else _crew(spec, path)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, by_signal)
    go, stop = Path(spec.go), Path(spec.stop)
    ready, next_line = False, 0.0
    try:
        while not load.done() and load.broken is None:
            load.look()
            if not ready and load.connected():
                ready = True
                status.write("ready")
            if ready and not load.started():
                t0_ms = _read_go(go) if spec.go else int(time.time() * 1000) + 100
                if t0_ms is not None:
                    load.start(t0_ms)
            if spec.stop and not ended and stop.exists():
                ended = "stop"
                load.stop()
            if load.started() and time.monotonic() >= next_line:
                next_line = time.monotonic() + STATUS_S
                status.write("loading", **load.figures())
            gevent.sleep(_LOOK_S)
    finally:
        load.close()
    if load.broken is not None:
        raise load.broken
    figures = load.figures()
    ambiguous = figures["sent"] - figures["acked"]
    status.write("done", ended=ended or "plan", planned=spec.profile.events, **figures, ambiguous=ambiguous)


def _read_go(path: Path) -> int | None:
    """When the load starts, or None as long as the file is not there or not yet complete."""
    try:
        return int(json.loads(path.read_text())["t0_ms"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None


def main(arguments: list[str]) -> int:
    """Exit status: 0 when the load ended in order, however it ended; 2 for a usage error; 4 when it broke."""
    if len(arguments) != 1:
        print("usage: python -m load.main SPEC.json", file=sys.stderr)
        return 2
    status: Status | None = None
    try:
        spec = LoadSpec.read(arguments[0])
        status = Status(spec.status)
        run(spec, arguments[0], status)
    except UsageError as error:
        return _give_up(status, str(error), 2)
    except HarnessFault as error:
        return _give_up(status, str(error), 4)
    except Exception as error:
        import traceback

        traceback.print_exc()
        return _give_up(status, f"load: {error!r}", 4)
    return 0


def _give_up(status: Status | None, text: str, exit_status: int) -> int:
    if status is not None:
        status.write("error", text=text)
    print(text, file=sys.stderr)
    return exit_status


if __name__ == "__main__":
    exit_status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not by return: closing a librdkafka client whose broker is gone can take a minute, and everything is written.
    os._exit(exit_status)
