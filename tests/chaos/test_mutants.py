"""One or two of the mutants in every run of the suite; tests/zoo has them all."""

from __future__ import annotations

import pytest

from harness.pytest_plugin import Gauntlet, Violation
from pipelines_under_test.mutants import MUTANTS

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("name", [pytest.param("ack-before-write", marks=pytest.mark.longer), "no-dedup"])
def test_a_planted_bug_is_caught_by_the_right_assertion(gauntlet: Gauntlet, name: str) -> None:
    mutant = MUTANTS[name]
    run = gauntlet.scenario(mutant.scenario, mutant.pipeline)
    with pytest.raises(Violation, match=mutant.caught_by):
        run.check()
