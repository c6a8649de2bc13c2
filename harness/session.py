"""A session: programs, processes and stacks, shared by all the runs of one command or one pytest session."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.backends.process import Processes
from harness.history import Listener
from harness.run import Outcome, execute
from harness.scenario import Scenario
from harness.stack import Stack, shape
from harness.topology import Pipeline

#: Stacks of so many shapes are kept up at once; each holds a Kafka of about 400 MB.
MOST_STACKS = 2


class Session:
    """Use it as a context manager; everything that it started is gone afterwards."""

    def __init__(self) -> None:
        self._processes: Processes | None = None
        self._stacks: dict[str, Stack] = {}
        self._programs: Any = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self, scenario: Scenario, out: Path, listeners: Sequence[Listener] = (), notes: Sequence[str] = ()
    ) -> Outcome:
        """Runs a scenario on a stack of its shape, which is started if there is none. See `harness.run.execute`."""
        scenario.validate()
        try:
            return execute(scenario, self._stack_for, self.processes, out, listeners, notes)
        except BaseException:
            self._drop(shape(scenario.pipeline))
            raise

    def stack(self, pipeline: Pipeline) -> Stack:
        """The stack of a pipeline's shape, with every service ready: for tests of services and faults themselves."""
        self.prepare()
        stack = self._stack_for(pipeline, lambda kind, **fields: None)
        for ready in stack.ready.values():
            ready.result(120)
        return stack

    @property
    def processes(self) -> Processes:
        self.prepare()
        assert self._processes is not None
        return self._processes

    def prepare(self) -> None:
        """Finds or fetches the programs, showing what takes time, and gets ready to start processes."""
        if self._processes is None:
            from harness.provision import provision
            from harness.provision.show import Shown

            with Shown() as shown:
                self._programs = provision(shown)
            self._processes = Processes()

    def _stack_for(self, pipeline: Pipeline, tell: Callable[..., Any]) -> Stack:
        key = shape(pipeline)
        stack = self._stacks.pop(key, None)
        if stack is not None and not all(stack.alive().values()):
            stack.close()
            stack = None
        if stack is None:
            while len(self._stacks) >= MOST_STACKS:
                self._stacks.pop(next(iter(self._stacks))).close()
            assert self._processes is not None
            stack = Stack(pipeline, self._programs, self._processes)
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
        if self._processes is not None:
            self._processes.close()
            self._processes = None
