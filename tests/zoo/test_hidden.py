"""What makes the zoo mean something: hidden bugs do not show by themselves, and their scenarios hurt only who has one."""

from __future__ import annotations

import pytest

from harness import catalog
from harness.pytest_plugin import Gauntlet
from load.profiles import Steady
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.mutants import MUTANTS

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("name", ["auto-commit", "fire-and-forget", "dedup-in-memory", "stale-cache"])
def test_a_hidden_bug_does_not_show_while_nothing_is_injected(gauntlet: Gauntlet, name: str) -> None:
    """A sample, one for each kind of fault that brings such a bug out: a kill, a cut, a redelivery, a replica."""
    quiet = catalog.scenario("steady").with_(load=Steady(rate=2000, seconds=6))
    gauntlet.scenario(quiet, MUTANTS[name].pipeline).check()


@pytest.mark.parametrize("scenario", ["black-holes", "killed-while-cut", "redeliveries", "replicas", "resets"])
def test_the_reference_passes_where_mutants_are_caught(gauntlet: Gauntlet, scenario: str) -> None:
    """The scenarios that no test in tests/chaos runs."""
    chosen = catalog.scenario(scenario)
    assert chosen.pipeline.name == kappa.name
    gauntlet.scenario(chosen).check()
