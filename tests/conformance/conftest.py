"""Real services, shared with every other test of the session, on every backend that this machine has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from staging import Staging

from harness.backends import docker
from harness.backends.base import Child, Children, OnExit
from harness.session import Session
from harness.stack import Stack
from pipelines_under_test.kappa.pipeline import kappa


@pytest.fixture(scope="session")
def stagings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Staging]]:
    """purpose -> services that are there already, for the external backend."""
    made: dict[str, Staging] = {}

    def staging(purpose: str) -> Staging:
        if purpose not in made:
            made[purpose] = Staging(tmp_path_factory.mktemp(purpose))
        return made[purpose]

    yield staging
    for each in made.values():
        each.close()


@pytest.fixture(scope="session")
def endpoints(backend: str, stagings: Callable[[str], Staging]) -> Path | None:
    """Of services that no other session uses; None for backends that start their own."""
    return stagings("beside").endpoints if backend == "external" else None


@pytest.fixture(scope="session")
def sessions(stagings: Callable[[str], Staging]) -> Iterator[Callable[[str], Session]]:
    """backend -> the session that all tests on it share."""
    made: dict[str, Session] = {}

    def session(backend: str) -> Session:
        if backend not in made:
            made[backend] = Session(backend, stagings("shared").endpoints if backend == "external" else None)
        return made[backend]

    yield session
    for each in made.values():
        each.close()


@pytest.fixture(scope="session", params=["process", "docker", "external"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker" and (reason := docker.why_not()):
        pytest.skip(f"no containers: {reason}")
    return str(request.param)


@pytest.fixture(scope="session")
def stack(backend: str, sessions: Callable[[str], Session]) -> Stack:
    """The stack of the reference pipeline, every service ready, on each backend in turn."""
    return sessions(backend).stack(kappa)


Spawn = Callable[..., Child]


@pytest.fixture(scope="session")
def children(backend: str, sessions: Callable[[str], Session]) -> tuple[Children, Spawn]:
    """What keeps a backend's children, and what starts one: spawn(argv, log, on_exit)."""
    made = sessions(backend).prepare(kappa)
    if isinstance(made, docker.DockerBackend):
        image = made.images["worker"].ref

        def spawn(argv: list[str], log: Path, on_exit: OnExit | None = None) -> Child:
            return made.containers.run(image, argv, log, on_exit, init=True)[1]

        return made.containers, spawn
    processes = sessions(backend).processes
    return processes, processes.spawn


@pytest.fixture(scope="session")
def local_stack(sessions: Callable[[str], Session]) -> Stack:
    """For tests that start programs of their own beside it."""
    return sessions("process").stack(kappa)


@pytest.fixture(scope="session")
def kafka_bootstrap(local_stack: Stack) -> str:
    return local_stack.servers["kafka"].direct


@pytest.fixture(scope="session")
def pubsub_address(local_stack: Stack) -> str:
    return local_stack.servers["pubsub"].direct


@pytest.fixture(scope="session")
def bigtable_address(local_stack: Stack) -> str:
    return local_stack.servers["bigtable"].direct
