"""Real services, shared with every other test of the session."""

from __future__ import annotations

import pytest

from harness.session import Session
from harness.stack import Stack
from pipelines_under_test.kappa.pipeline import kappa


@pytest.fixture(scope="session")
def stack(gauntlet_session: Session) -> Stack:
    """The stack of the reference pipeline, every service ready."""
    return gauntlet_session.stack(kappa)


@pytest.fixture(scope="session")
def kafka_bootstrap(stack: Stack) -> str:
    return stack.servers["kafka"].direct


@pytest.fixture(scope="session")
def pubsub_address(stack: Stack) -> str:
    return stack.servers["pubsub"].direct


@pytest.fixture(scope="session")
def bigtable_address(stack: Stack) -> str:
    return stack.servers["bigtable"].direct
