"""A session: a backend and its stacks, shared by all the runs of one command or one pytest session."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.backends import Backend, Backends
from harness.backends.outlived import OUTLIVED, Outlived
from harness.backends.process import Processes
from harness.errors import HarnessFault
from harness.history import Listener
from harness.run import Outcome, execute
from harness.scenario import Scenario
from harness.stack import Stack, shape
from harness.topology import Pipeline, UsageError

#: Stacks of so many shapes are kept up at once; each holds a Kafka of about 400 MB.
MOST_STACKS = 2


class Session:
    """Use it as a context manager; everything that it started is gone afterwards.

    `backend`: "auto" (Docker where a daemon answers and the images are there, else processes), "process", "docker", or
    "external" (services that are there already, which the file `endpoints` tells). `forgets`: for a soak of hours, of which
    no service may keep everything (docs/soak.md).
    """

    def __init__(self, backend: str = "auto", endpoints: Path | None = None, forgets: bool = False) -> None:
        self._wanted, self._endpoints, self._forgets = backend, endpoints, forgets
        self._backends: Backends | None = None
        self._processes: Processes | None = None
        self._stacks: dict[str, Stack] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self, scenario: Scenario, out: Path, listeners: Sequence[Listener] = (), notes: Sequence[str] = ()
    ) -> Outcome:
        """Runs a scenario on a stack of its shape, which is started if there is none. See `harness.run.execute`."""
        scenario.validate()
        pipeline = scenario.pipeline
        backend = self.prepare(pipeline)
        scenario = scenario.drawn(backend.name, lambda fault: backend.refuses(fault, pipeline))
        for fault in scenario.faults:
            if fault.needs not in ("", backend.name):
                raise UsageError(
                    f"{fault.describe()}: this fault needs --backend {fault.needs}; this run is {backend.where}."
                )
            if reason := fault.refused_by(backend.name) or backend.refuses(fault, pipeline):
                raise UsageError(f"{fault.describe()} cannot be done {backend.where}: {reason}.")
        try:
            return execute(
                scenario,
                self._stack_for,
                self.processes,
                out,
                listeners,
                [*backend.notes, *notes],
                backend.name,
                backend.where,
            )
        except BaseException:
            self._drop(self._key(scenario.pipeline))
            raise

    def stack(self, pipeline: Pipeline) -> Stack:
        """The stack of a pipeline's shape, with every service ready: for tests of services and faults themselves."""
        stack = self._stack_for(pipeline, lambda kind, **fields: None)
        return _all_ready(stack)

    def take_over(self, pipeline: Pipeline, temp: Path, outlived: Outlived) -> Stack:
        """The stack of a harness that was killed, and that outlived it, with every service ready. To be called before
        anything else. Raises HarnessFault where it is there no more; whatever is left of it then ends with this session."""
        self._processes = Processes(temp)
        self._backends = Backends(self._wanted, self._processes, self._endpoints, self._forgets, outlived)
        backend = self.prepare(pipeline)
        if OUTLIVED.get(backend.name) is not type(outlived):
            raise HarnessFault(f"what is still at work is of another backend, and it is to go on {backend.where}")
        stack = Stack(pipeline, backend.site(pipeline, outlived))
        self._stacks[self._key(pipeline)] = stack
        stack.take_over(lambda kind, **fields: None)
        return _all_ready(stack)

    @property
    def processes(self) -> Processes:
        if self._processes is None:
            self._processes = Processes()
        return self._processes

    def prepare(self, pipeline: Pipeline) -> Backend:
        """The backend for a pipeline, with all that it needs found or fetched; shows what takes time."""
        if self._backends is None:
            self._backends = Backends(self._wanted, self.processes, self._endpoints, self._forgets)
        return self._backends.of(pipeline)

    def _key(self, pipeline: Pipeline) -> str:
        return f"{self.prepare(pipeline).name} {shape(pipeline)}"

    def _stack_for(self, pipeline: Pipeline, tell: Callable[..., Any]) -> Stack:
        key = self._key(pipeline)
        stack = self._stacks.pop(key, None)
        if stack is not None and not all(stack.alive().values()):
            stack.close()
            stack = None
        if stack is None:
            while len(self._stacks) >= MOST_STACKS:
                self._stacks.pop(next(iter(self._stacks))).close()
            stack = Stack(pipeline, self.prepare(pipeline).site(pipeline))
            self._stacks[key] = stack
            stack.start(tell)
        else:
            self._stacks[key] = stack  # the last one used is dropped last
            stack.listen(tell)
        return stack

    def _drop(self, key: str) -> None:
        """After a run that broke off, the next one gets a stack that nothing has happened to."""
        stack = self._stacks.pop(key, None)
        if stack is not None:
            with contextlib.suppress(Exception):
                stack.close()

    def close(self) -> None:
        for stack in self._stacks.values():
            with contextlib.suppress(Exception):
                stack.close()
        self._stacks.clear()
        if self._backends is not None:
            self._backends.close()
            self._backends = None
        if self._processes is not None:
            self._processes.close()
            self._processes = None


def _all_ready(stack: Stack) -> Stack:
    for ready in stack.ready.values():
        ready.result(120)
    return stack
