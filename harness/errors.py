"""What can go wrong outside the pipeline under test. `UsageError` (exit 2) lives with the vocabulary it names."""

from harness.topology import UsageError

__all__ = ["HarnessFault", "NothingArrives", "StartFailed", "UsageError", "WorkerDied"]


class HarnessFault(Exception):
    """The harness itself, or the machine under it, failed: exit status 4. Never a verdict on the pipeline."""


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
