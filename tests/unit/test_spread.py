"""Percentiles that are counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assertions.spread import Spread

#: Some beyond what is counted, some before it.
SECONDS = st.integers(-2_000, 3_000_000).map(lambda units: units / 10_000)


def spread_of(values: list[float]) -> Spread:
    spread = Spread()
    for half in (values[::2], values[1::2]):
        spread.add(np.array(half, dtype=float))
    return spread


@given(st.lists(SECONDS, min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_the_nearest_rank(values: list[float], percent: float) -> None:
    spread = spread_of(values)
    assert len(spread) == len(values)
    expected = np.percentile(np.array(values), percent, method="inverted_cdf")
    assert spread.percentile(percent) == pytest.approx(expected, abs=1e-9)
    assert spread.most == pytest.approx(max(values), abs=1e-9)


@given(st.lists(SECONDS), st.integers(0, 20), st.integers(0, 20), st.sampled_from([1.0, 50.0, 95.0, 99.0, 100.0]))
def test_values_that_are_less_or_more_than_any(values: list[float], below: int, above: int, percent: float) -> None:
    spread = spread_of(values)
    every = np.sort(np.array([*values, *[-math.inf] * below, *[math.inf] * above]))
    found = spread.percentile(percent, below=below, above=above)
    if not len(every):
        assert math.isnan(found)
    else:
        expected = every[max(1, math.ceil(len(every) * percent / 100 - 1e-9)) - 1]
        assert found == pytest.approx(expected, abs=1e-9)


def test_two_together_are_the_spread_of_both() -> None:
    both = spread_of([0.1, 0.2, 500.0]) + spread_of([0.3, -1.0])
    assert [len(both), both.percentile(1), both.percentile(60), both.most] == pytest.approx([5, -1.0, 0.2, 500.0])
