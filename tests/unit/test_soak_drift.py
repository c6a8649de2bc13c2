"""What drifts and what does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.soak.drift import LEAST_CYCLES, drift, drift_in_a_life

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


# ---------------------------------------------------------------- what a soak of random faults makes of a process's memory


def lives_of(cycles: int, share_killed: float) -> list[int]:
    """Which life of a worker each cycle saw the end of, if it is killed in that share of the cycles."""
    return list(np.cumsum(NOISE.random(cycles) < share_killed))


def memory_of(lives: list[int], a_cycle: float, young: float = 40.0) -> np.ndarray:
    """Of a worker that fills its caches in a cycle or two and, if it leaks, grows by `a_cycle` MiB a cycle for ever."""
    ages = np.array([n - lives.index(life) for n, life in enumerate(lives)], dtype=float)
    return np.asarray(200 - young * np.exp(-2 * ages) + a_cycle * ages + 2 * NOISE.standard_normal(len(lives)))


@pytest.mark.parametrize("killed", [0.1, 0.3, 0.6])
def test_a_healthy_worker_that_is_killed_again_and_again_raises_no_alarm(killed: float) -> None:
    alarms = 0
    for cycles in (12, 40, 400):
        for _ in range(100 if cycles < 400 else 20):
            lives = lives_of(cycles, killed)
            memory = memory_of(lives, 0.0)
            alarms += drift("memory", memory, 20).verdict == "drifts"
            alarms += drift_in_a_life("memory", memory, lives, 20).verdict == "drifts"
    assert alarms == 0


def test_a_leak_is_found_between_the_kills_that_hide_it() -> None:
    found = hidden = 0
    for _ in range(100):
        lives = lives_of(30, 0.2)
        memory = memory_of(lives, 10.0)
        hidden += drift("memory", memory, 20).verdict != "drifts"
        found += drift_in_a_life("memory", memory, lives, 20).verdict == "drifts"
    assert hidden >= 80, "from the first cycle to the last nothing grows"
    assert found >= 95


def test_latency_under_random_faults_that_grows_is_found_and_that_which_does_not_is_not() -> None:
    """Every cycle's latency is made by its worst fault: of a few, one sort takes ten seconds."""
    found = alarms = 0
    for _ in range(100):
        steady = np.where(NOISE.random(60) < 0.3, 10.0, 1.5) * NOISE.lognormal(0, 0.3, 60)
        alarms += drift("latency", steady, 1.0).verdict == "drifts"
        found += drift("latency", steady + 0.25 * np.arange(60), 1.0).verdict == "drifts"
    assert alarms <= 1
    assert found >= 90


def test_a_life_says_how_far_it_came_and_not_how_far_it_could() -> None:
    lives = [n // 5 for n in range(60)]
    memory = 200 + 3.0 * (np.arange(60) % 5)
    found = drift_in_a_life("memory", memory, lives, 20)
    assert (found.verdict, found.cycles) == ("steady", 48), "sure, but nine MiB are the most that it ever was"
    assert (found.first, found.last, found.a_cycle) == (203.0, 212.0, 3.0)
    assert found.chance < 1e-6
    assert drift_in_a_life("memory", 5 * memory, lives, 20).verdict == "steady", "less than a tenth"
    assert drift_in_a_life("memory", memory, lives, 5).verdict == "steady", "less than a tenth"
    assert drift_in_a_life("memory", memory - 150, lives, 5).verdict == "drifts"


@pytest.mark.parametrize(
    ("counted", "lives", "verdict"), [(2, 10, "too few"), (2, 20, "drifts"), (4, 3, "drifts"), (3, 3, "too few")]
)
def test_where_even_the_surest_growth_is_not_sure_nothing_is_claimed(counted: int, lives: int, verdict: str) -> None:
    """Of ten lives of two cycles each: chance shows ten growths in ten once in 1,024 lives, and the test is coarser than that."""
    memory = np.tile(200.0 + 50.0 * np.arange(counted + 1), lives)
    found = drift_in_a_life("memory", memory, np.repeat(np.arange(lives), counted + 1).tolist(), 20)
    assert (found.verdict, found.cycles) == (verdict, counted * lives)


def test_lives_of_a_cycle_or_two_say_nothing() -> None:
    short = drift_in_a_life("memory", list(range(100, 140)), [n // 2 for n in range(40)])
    assert (short.verdict, short.cycles) == ("too few", 0)
    assert math.isnan(short.chance)
    assert drift_in_a_life("memory", list(range(100, 140)), [None] * 40).verdict == "too few"
