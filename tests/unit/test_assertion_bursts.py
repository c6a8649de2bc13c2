"""The interval of a rate of duplicates that come in bursts: against published tables, and against what it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest

from assertions.bursts import ENOUGH, Bursts, most_within, sizes_by_time

#: Exact 95 % limits of a Poisson mean (Garwood 1936, as reprinted in every table of them since).
GARWOOD = {1: (0.0253, 5.572), 2: (0.2422, 7.225), 5: (1.623, 11.67), 10: (4.795, 18.39), 20: (12.22, 30.89), 50: (37.11, 65.92), 100: (81.36, 121.6)}  # fmt: skip


@pytest.mark.parametrize("count", GARWOOD)
@pytest.mark.parametrize("size", [1, 40])
def test_bursts_of_one_size_have_the_exact_interval_of_their_number(count: int, size: int) -> None:
    low, high = Bursts((size,) * count, size, events=1000).interval(0.95)
    assert low * 1000 / size == pytest.approx(GARWOOD[count][0], rel=1e-3)
    assert high * 1000 / size == pytest.approx(GARWOOD[count][1], rel=1e-3)


def test_with_no_burst_the_rule_of_three_counts_the_bursts_that_could_have_been() -> None:
    assert Bursts((), 200, events=2000).interval(0.95) == (0.0, pytest.approx(-math.log(0.025) * 200 / 2000))
    assert Bursts((), 200, events=2000).interval(0.90) == (0.0, pytest.approx(-math.log(0.05) * 200 / 2000))


def test_few_bursts_do_not_show_how_large_they_are_and_enough_do() -> None:
    few = Bursts((10,) * (ENOUGH - 1), 500, events=10_000)
    enough = Bursts((10,) * ENOUGH, 500, events=10_000)
    assert few.interval(0.95)[1] > 5 * enough.interval(0.95)[1]
    assert enough.interval(0.95) == Bursts((10,) * ENOUGH, 10, events=10_000).interval(0.95)
    assert few.interval(0.95)[0] < enough.interval(0.95)[0]


def test_a_burst_larger_than_was_thought_possible_counts_as_it_is() -> None:
    assert Bursts((50,), 1, events=100).interval(0.95) == Bursts((50,), 50, events=100).interval(0.95)


def test_bursts_of_several_sizes_have_the_interval_of_fay_and_feuer() -> None:
    """Their formula, with the gamma distribution summed up here instead of asked of a library."""

    def below(x: float, shape: float) -> float:
        """The share of the gamma distribution below x, by the middle of small steps."""
        steps = (np.arange(200_000) + 0.5) * x / 200_000
        density = np.exp((shape - 1) * np.log(steps) - steps - math.lgamma(shape))
        return float(density.sum() * x / 200_000)

    low, high = (limit * 100 for limit in Bursts((1, 2, 3), 5, events=100).interval(0.95))
    y, v, w = 6, 14, 5
    assert below(low * y / v, y**2 / v) == pytest.approx(0.025, abs=1e-5)
    assert below(high * (y + w) / (v + w**2), (y + w) ** 2 / (v + w**2)) == pytest.approx(0.975, abs=1e-5)


def test_a_longer_run_of_the_same_kind_is_narrower() -> None:
    bursts = Bursts((5, 9) * ENOUGH, 50, events=5000)
    whole = Bursts((5, 9) * ENOUGH * 4, 50, events=20_000)
    assert bursts.interval(0.95, times=4) == pytest.approx(whole.interval(0.95))


@pytest.mark.parametrize("sizes", ["one", "geometric", "log-normal"])
@pytest.mark.parametrize("mean", [1, 3, 8, 25, 60])
def test_the_interval_holds_the_true_rate_as_often_as_it_says(mean: int, sizes: str) -> None:
    generator = np.random.default_rng(mean)
    draw = {
        "one": lambda n: np.full(n, 40),
        "geometric": lambda n: generator.geometric(1 / 40, n),
        "log-normal": lambda n: np.minimum(1000, np.ceil(generator.lognormal(3, 1, n)).astype(int)),
    }[sizes]
    truth = mean * float(draw(400_000).mean()) / 100_000
    below = above = 0
    for _ in range(1000):
        bursts = Bursts(tuple(draw(generator.poisson(mean)).tolist()), 1000, events=100_000)
        low, high = bursts.interval(0.95)
        below += high < truth
        above += low > truth
    assert above <= 40  # 2.5 %, and three standard deviations of 1,000 trials
    assert below <= (40 if sizes == "one" else 65)


def test_independent_duplicates_are_held_to_be_more_alike_than_they_are() -> None:
    """Singles that fall into one second by chance count as one burst: wider than need be, never narrower."""
    generator = np.random.default_rng(5)
    times = generator.uniform(0, 20, 400)
    by_burst = Bursts(tuple(sizes_by_time(times)), 2000, events=40_000).interval(0.95)
    alone = Bursts((1,) * 400, 2000, events=40_000).interval(0.95)
    assert by_burst[0] < alone[0] < 0.01 < alone[1] < by_burst[1]


# ------------------------------------------------------------------------------------------------------- needed


@pytest.mark.parametrize("bound", [0.002, 0.006, 0.02, 0.05])
@pytest.mark.parametrize("sizes", [(10, 20, 30) * 5, (7,), ()])
def test_so_many_events_as_are_needed_decide_and_few_less_do_not(sizes: tuple[int, ...], bound: float) -> None:
    bursts = Bursts(sizes, 200, events=20_000)
    rate = bursts.extra / bursts.events
    needed = bursts.events_needed(bound, 0.95)
    assert needed is not None

    def decides(events: float) -> bool:
        low, high = bursts.interval(0.95, events / 20_000)
        return low > bound if rate > bound else high <= bound

    assert decides(needed)
    assert needed == 20_000 or not decides(needed * 0.998)


def test_more_are_needed_as_the_bound_comes_near() -> None:
    bursts = Bursts((1,) * 50, 1, events=1000)
    near, far = bursts.events_needed(0.051, 0.95), bursts.events_needed(0.06, 0.95)
    assert near is not None
    assert far is not None
    assert near > far * 50
    assert bursts.events_needed(0.05, 0.95) is None
    assert bursts.events_needed(0.05 * (1 + 1e-7), 0.95) is None  # not among numbers that anybody will send


# ------------------------------------------------------------------------------------------------------- bursts


@pytest.mark.parametrize(
    ("times", "sizes"),
    [
        ([], []),
        ([5.0], [1]),
        ([5.0, 5.5, 6.0], [3]),
        ([5.0, 6.01], [1, 1]),
        ([0.0, 0.6, 1.2, 1.8], [2, 2]),  # a stream without a pause is cut by the length
        ([9.0, 1.0, 1.5, 9.2, 9.4], [2, 3]),
    ],
)
def test_what_follows_within_a_second_of_the_first_is_one_burst(times: list[float], sizes: list[int]) -> None:
    assert sizes_by_time(np.array(times)) == sizes


def test_the_most_that_one_burst_could_hold() -> None:
    assert most_within(np.array([])) == 0
    assert most_within(np.array([3.0])) == 1
    assert most_within(np.array([4.1, 0.0, 0.9, 1.8, 1.9, 4.0])) == 3
