"""What can go wrong outside the pipeline under test. `UsageError` (exit 2) lives with the vocabulary it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.topology import UsageError

if TYPE_CHECKING:
    from harness.backends.base import Exit

__all__ = ["BackendGone", "HarnessFault", "NothingArrives", "StartFailed", "UsageError", "WorkerDied"]


class HarnessFault(Exception):
    """The harness itself, or the machine under it, failed: exit status 4. Never a verdict on the pipeline."""


class BackendGone(HarnessFault):
    """What starts and ends the parts of a run has gone, and with it all knowledge of how they are."""


class WorkerDied(UsageError):
    """A worker of the pipeline under test cannot be started or dies at its start: bad input, exit status 2."""


class NothingArrives(UsageError):
    """Warm-up events do not get through the pipeline, or its declaration does not show them: bad input, exit status 2."""


class StartFailed(HarnessFault):
    """A service did not come up. The message carries its last log lines."""


def last_lines(path: object, count: int = 15) -> str:
    """The end of a log, indented, for an error message."""
    try:
        with open(str(path), errors="replace") as file:
            lines = file.read().splitlines()[-count:]
    except OSError:
        lines = []
    return "\n".join(f"    {line}" for line in lines) if lines else "    (it wrote nothing)"


def died(name: str, version: str, how: Exit | None, log: object) -> StartFailed:
    """The error for a service that ended (`how`: its Exit) when it was to come up."""
    said = how.told if how is not None else "ended"
    return StartFailed(f"{name} died at its start: {version} {said}; its log ends:\n{last_lines(log)}")
