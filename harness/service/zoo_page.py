"""The zoo by its journals: which assertion caught which mutant, and what the healthy runs prove."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.zoo import Row, Trial, row_of, summary_of_healthy, summary_of_mutants


@dataclass(frozen=True)
class Matrix:
    """`rows`: a mutant each that was run; `known`: how many mutants there are."""

    rows: list[Row]
    known: int
    verdict: str

    @property
    def caught(self) -> int:
        return sum(row.outcome == "caught" for row in self.rows)


def trials_in(journal: Path) -> list[Trial]:
    """The trials of a journal. A line that was cut off, or that is none of this version's, is left out."""
    from harness.service.entries import lines

    found = []
    for line in lines(journal):
        try:
            found.append(Trial.from_dict(line))
        except TypeError:
            continue
    return found


def mutants_of(journal: Path) -> Matrix:
    from pipelines_under_test.mutants import MUTANTS

    trials = trials_in(journal)
    found = [row_of(mutant, trials, mutant.runs) for mutant in MUTANTS.values()]
    rows = [row for row in found if row is not None]
    whole = len(rows) == len(MUTANTS)
    return Matrix(rows, len(MUTANTS), str(summary_of_mutants(rows, whole)["verdict"]))


def healthy_of(journal: Path) -> dict[str, Any]:
    """As `gauntlet zoo --healthy N --json` tells it."""
    return summary_of_healthy(trials_in(journal))
