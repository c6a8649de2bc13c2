"""What drifts and what does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.soak.drift import LEAST_CYCLES, drift

NOISE = np.random.default_rng(11)


def noisy(level: float, share: float, cycles: int = 40) -> np.ndarray:
    return np.asarray(level * (1 + share * NOISE.standard_normal(cycles)))


def test_a_leak_is_found_in_the_noise() -> None:
    leak = noisy(200.0, 0.05) + 2.0 * np.arange(40)
    found = drift("memory", leak)
    assert found.verdict == "drifts"
    assert found.a_cycle == pytest.approx(2.0, abs=0.4)
    assert found.last - found.first == pytest.approx(2.0 * 29, abs=12)


def test_noise_does_not_drift_one_time_in_a_hundred() -> None:
    drifting = sum(drift("memory", noisy(200.0, 0.2)).verdict == "drifts" for _ in range(200))
    assert drifting <= 2


def test_what_fills_up_and_stays_is_steady() -> None:
    filling = noisy(200.0, 0.01) - 150 * np.exp(-np.arange(40) / 2)
    assert drift("memory", filling).verdict == "steady"


def test_a_growth_that_is_sure_and_small_is_none() -> None:
    assert drift("memory", 200 + 0.1 * np.arange(40)).verdict == "steady"
    assert drift("open files", 10 + 0.2 * np.arange(40), least=20).verdict == "steady"
    assert drift("open files", 10 + 0.2 * np.arange(40), least=2).verdict == "drifts"


def test_what_shrinks_does_not_drift() -> None:
    assert drift("memory", 400 - 5.0 * np.arange(40)).verdict == "steady"


def test_one_outlier_is_no_trend() -> None:
    values = np.full(40, 200.0)
    values[-1] = 5_000
    assert drift("latency", values).verdict == "steady"
    assert drift("latency", np.full(40, 0.0)).verdict == "steady"


def test_too_few_cycles_say_nothing() -> None:
    found = drift("memory", list(range(LEAST_CYCLES - 1)))
    assert (found.verdict, found.cycles) == ("too few", LEAST_CYCLES - 1)
    assert math.isnan(found.chance)
    assert found.to_json()["chance"] is None
    assert drift("memory", [100.0 * 2**i for i in range(LEAST_CYCLES)]).verdict == "drifts"


def test_cycles_that_were_not_measured_are_left_out() -> None:
    leak = 200 + 5.0 * np.arange(40)
    leak[::3] = np.nan
    found = drift("memory", leak)
    assert (found.verdict, found.cycles) == ("drifts", 20)
    assert found.a_cycle == pytest.approx(5.0)
