"""The statistics of a comparison: what they claim of equal versions and of different ones, over many synthetic ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare import statistics
from harness.compare.statistics import LEAST_PAIRS, LEVEL, compare, interval

PAIRS = 8


def scatter(rng: np.random.Generator, measures: int = 5, pairs: int = PAIRS) -> np.ndarray:
    """Differences of equal versions: heavy tails, jumps, and measures that hang together."""
    common = rng.standard_t(2, (pairs, 1))
    jumps = rng.choice([-1.0, 0.0, 1.0], (pairs, measures), p=[0.1, 0.8, 0.1])
    return 0.3 * rng.standard_t(2, (pairs, measures)) + 0.2 * common + jumps


@pytest.mark.parametrize("pairs", [7, 8, 10])
def test_between_equal_versions_some_difference_is_claimed_as_seldom_as_is_said(pairs: int) -> None:
    rng = np.random.default_rng(1)
    count = 800
    false = 0
    for _ in range(count):
        signs = statistics._signs(pairs)
        sizes = statistics._sizes(scatter(rng, pairs=pairs), signs)
        false += bool((statistics._chances(sizes, sizes[0]) <= LEVEL).any())
    # Three standard deviations of so many tries above what is claimed.
    assert false / count <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / count)


def test_to_stop_when_enough_could_be_seen_claims_no_more_false_differences() -> None:
    rng = np.random.default_rng(5)
    count, false, pairs = 120, 0, []
    for _ in range(count):
        differences = rng.standard_t(3, (24, 3)) * 0.2
        for looked_at in range(8, 25):
            answers = compare(differences[:looked_at])
            if all(answer.detectable <= math.log(2) for answer in answers):
                break
        pairs.append(looked_at)
        false += any(answer.different for answer in answers)
    assert len(set(pairs)) > 3, "it did stop at different numbers"
    assert false / count <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / count)


def test_a_doubling_is_found_beside_measures_that_do_not_differ() -> None:
    rng = np.random.default_rng(2)
    found = wrong = 0
    for _ in range(100):
        differences = rng.normal(0, 0.2, (PAIRS, 5))
        differences[:, 1] += math.log(2)
        answers = compare(differences)
        found += answers[1].different
        wrong += any(a.different for j, a in enumerate(answers) if j != 1)
    assert found >= 95
    assert wrong <= 8


def test_what_could_have_been_seen_is_mostly_found_and_a_fifth_of_it_seldom() -> None:
    rng = np.random.default_rng(3)
    detectable = float(np.median([compare(rng.normal(0, 0.2, (PAIRS, 3)))[0].detectable for _ in range(50)]))
    share = {}
    for part in (1.0, 0.2):
        trials = rng.normal(0, 0.2, (150, PAIRS, 3))
        trials[:, :, 0] += part * detectable
        share[part] = np.mean([compare(t)[0].different for t in trials])
    assert share[1.0] >= 0.75
    assert share[0.2] < 0.2


@pytest.mark.parametrize("pairs", [6, 8, 12])
def test_the_interval_holds_the_truth_as_often_as_is_said(pairs: int) -> None:
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        low, high = interval(1.5 + rng.standard_t(3, pairs))
        held += low <= 1.5 <= high
    assert held / 400 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 400)


def test_too_few_pairs_claim_nothing_however_far_apart() -> None:
    few = compare(np.full((LEAST_PAIRS - 1, 2), 100.0))
    assert not any(answer.different for answer in few)
    assert all(math.isinf(answer.detectable) for answer in few)
    assert math.isinf(interval(np.full(5, 3.0))[0])
    assert compare(np.full((LEAST_PAIRS, 2), 100.0))[0].different
    assert compare(np.zeros((0, 2)))[0].pairs == 0


def test_what_was_not_measured_is_left_out_and_what_never_differs_is_no_difference() -> None:
    differences = np.zeros((PAIRS, 3))
    differences[:, 0] = np.nan
    differences[:, 1] = np.linspace(0.5, 1, PAIRS)
    differences[0, 1] = np.nan
    nothing, seen, same = compare(differences)
    assert (nothing.pairs, nothing.different) == (0, False)
    assert (seen.pairs, seen.different) == (PAIRS - 1, True)
    assert (same.middle, same.low, same.high, same.different, same.chance) == (0, 0, 0, False, 1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=2), min_size=7, max_size=9),
    st.floats(0.1, 10),
)
def test_neither_the_unit_nor_the_order_of_pairs_nor_who_is_called_candidate_matters(
    rows: list[list[float]], unit: float
) -> None:
    differences = np.round(np.array(rows), 3)
    here = compare(differences)
    for other, sign in ((differences * [unit, 1.0], 1), (differences[::-1], 1), (-differences, -1)):
        there = compare(other)
        assert [a.different for a in there] == [a.different for a in here]
        assert there[1].middle == pytest.approx(sign * here[1].middle, abs=1e-9)
        assert there[0].chance == pytest.approx(here[0].chance)


def test_many_pairs_are_drawn_and_say_the_same_each_time() -> None:
    differences = np.random.default_rng(5).normal(0.1, 0.3, (20, 2))
    assert compare(differences) == compare(differences)
    assert compare(differences + 1)[0].different
