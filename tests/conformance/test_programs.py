"""The programs of this machine: found, started, and spoken to in their own protocols."""

from __future__ import annotations

import time

from harness.provision import provision
from harness.stack import Stack


def test_finding_everything_again_is_a_matter_of_milliseconds() -> None:
    """It lies in the start path of every run: no process, no network. (Generous: a shared machine.)"""
    provision()
    times = []
    for _ in range(5):
        begin = time.monotonic()
        provision()
        times.append(time.monotonic() - begin)
    assert min(times) < 0.5


def test_every_program_answers_in_its_own_protocol(stack: Stack) -> None:
    assert all(stack.alive().values())
    for link in stack.links:
        assert stack.probe(link.name) is not None, link.name
