"""Load profiles: what they accept, refuse and plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.topology import Cells, UsageError
from load import profiles
from load.events import Plan, expected_parity
from load.profiles import Burst, Steady
from load.spec import LoadSpec

KAPPA = [
    Cells("tweet", ["tweet_id", "engagement"], [10, 60]),
    Cells("author", ["author_id", "engagement"], [10, 60]),
]


def test_the_default_is_2000_a_second_for_20_seconds() -> None:
    assert (Steady().rate, Steady().seconds, Steady().events) == (2_000, 20, 40_000)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"rate": -5}, "rate must be at least 1"),
        ({"rate": 0}, "rate must be at least 1"),
        ({"rate": 2.5}, "rate must be a whole number, not 2.5"),
        ({"rate": True}, "rate must be a whole number"),
        ({"rate": "fast"}, "rate must be a whole number, not 'fast'"),
        ({"seconds": 0}, "longer than 0 seconds"),
        ({"seconds": -1}, "longer than 0 seconds"),
        ({"seconds": float("nan")}, "seconds must be a number"),
        ({"seconds": float("inf")}, "seconds must be a number"),
        ({"rate": 1, "seconds": 0.3}, "has no event"),
        ({"rate": 10**9, "seconds": 100}, "does not fit the ten digits"),
        ({"tweets": 0}, "tweets must be 1"),
        ({"tweets": 1_000_001}, "tweets must be 1"),
        ({"skew": -1}, "skew must be 0"),
        ({"share_late": 1.5}, "share_late is a share of its events"),
        ({"share_late": -0.1}, "share_late is a share of its events"),
        ({"share_out_of_order": 2}, "share_out_of_order is a share"),
        ({"share_poison": "some"}, "share_poison must be a number"),
        ({"share_late": 0.6, "share_out_of_order": 0.6}, "late or out of order, not both"),
        ({"share_twins": 0.6}, "share_twins must be 0 … 0.5"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_with_its_reason(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Steady(**fields)


@pytest.mark.parametrize("users", [0, -1, 10_000, 1.5])
def test_an_impossible_number_of_users_is_refused(users: Any) -> None:
    with pytest.raises(UsageError, match=r"users must be 1 … 9999"):
        Steady(rate=100_000).check_users(users)


def test_more_users_than_events_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 users cannot share 2 events \(2/s for 1 s\)"):
        Plan(Steady(rate=2, seconds=1), 7, 3, 1_790_000_000_000, "1a2b3c4d")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 64}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"run": "1A2B3C4D"}, "tag"),
        ({"run": "1a2b3c4"}, "tag"),
        ({"t0_ms": 1_790_000_000}, "epoch milliseconds"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change: dict[str, Any], text: str) -> None:
    fields = {"profile": Steady(), "seed": 7, "users": 1, "t0_ms": 1_790_000_000_000, "run": "1a2b3c4d", **change}
    with pytest.raises(UsageError, match=text):
        Plan(**fields)


def test_a_profile_survives_the_way_through_a_dict() -> None:
    profile = Steady(rate=123, seconds=4.5, tweets=17, skew=0.5, share_late=0.1, share_twins=0.25)
    assert profile.as_dict()["kind"] == "steady"
    assert profiles.from_dict(profile.as_dict()) == profile == Steady.from_dict(profile.as_dict())


def test_a_wrong_field_or_kind_is_named_with_the_nearest_right_one() -> None:
    with pytest.raises(UsageError, match=r"'share_lat'.*'share_late'"):
        profiles.from_dict({"kind": "steady", "share_lat": 0.1})
    with pytest.raises(UsageError, match=r"no load profile 'steadi'.*'steady'"):
        profiles.from_dict({"kind": "steadi"})


@pytest.mark.parametrize(("rate", "users", "seconds"), [(2_000, 1, 3), (7, 3, 5), (1_000, 4, 0.9), (3, 1, 10)])
def test_the_users_share_the_events_and_the_due_times_are_evenly_spaced(rate: int, users: int, seconds: float) -> None:
    plan = Plan(Steady(rate=rate, seconds=seconds), 7, users, 1_790_000_000_000, "1a2b3c4d")
    due = [plan.due_us(p, np.arange(plan.events_of(p))) for p in plan.producers]
    together = np.sort(np.concatenate(due)) - plan.t0_ms * 1000
    assert together.tolist() == [i * 1_000_000 // rate for i in range(plan.profile.events)]


def test_a_burst_is_several_times_the_rate_and_as_steady_before_and_after() -> None:
    load = Burst(rate=100, seconds=5, times=4, burst_at=1, burst_seconds=1.5)
    assert (load.events, load.most_rate) == (950, 400)
    offsets = load.offset_us(np.arange(load.events))
    assert (np.diff(offsets) > 0).all()
    assert np.bincount(offsets // 500_000).tolist() == [50, 50, 200, 200, 200, 50, 50, 50, 50, 50]


def test_a_burst_that_comes_out_of_no_whole_numbers_is_in_order_and_within_its_load() -> None:
    load = Burst(rate=7, seconds=9.7, times=2.6, burst_at=1.23, burst_seconds=3.21)
    offsets = load.offset_us(np.arange(load.events))
    assert (np.diff(offsets) > 0).all()
    assert 0 == offsets[0] < offsets[-1] < 9.7e6


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"times": 1}, "more than 1 times the rate, not 1"),
        ({"times": "many"}, "times must be a number, not 'many'"),
        ({"burst_at": -1}, "at 0 seconds or later"),
        ({"burst_seconds": 0}, "lasts longer than 0"),
        ({"burst_seconds": float("nan")}, "burst_seconds must be a number"),
        ({"seconds": 5}, "a burst of 4 s from 2 s on does not fit a load of 5 s"),
        ({"rate": 0}, "rate must be at least 1"),
    ],
)
def test_a_burst_that_cannot_be_is_refused_with_its_reason(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=f"(?i){text}"):
        Burst(**fields)


def test_a_burst_survives_the_way_through_its_description() -> None:
    load = Burst(rate=10, times=3)
    assert profiles.from_dict(load.as_dict()) == load
    with pytest.raises(UsageError, match="field of the burst profile"):
        profiles.from_dict({**load.as_dict(), "time": 1})


def test_due_ms_is_the_exact_time_rounded_down_however_long_the_load() -> None:
    plan = Plan(Steady(rate=3_000), 7, 7, 1_790_000_000_000, "1a2b3c4d")
    for sequence in (0, 1, 2, 12_345, 10**9 + 1, 9_999_999_999):
        exact = 1_790_000_000_000 + (sequence * 7 + 4) * 1000 // 3_000
        assert plan.due_ms(5, np.array([sequence]))[0] == exact


def test_the_default_profile_makes_97_to_99_percent_of_the_cells_exact() -> None:
    for seed in (1, 7, 42):
        for t0_ms in range(1_790_000_000_000, 1_790_000_060_000, 13_337):
            assert 0.97 <= expected_parity(Steady(), seed, KAPPA, 5.0, t0_ms=t0_ms) <= 0.99


@pytest.mark.parametrize("rate", [500, 5_000])
@pytest.mark.parametrize("seconds", [8, 60])
def test_other_rates_and_lengths_keep_parity_above_96_percent(rate: int, seconds: float) -> None:
    for t0_ms in range(1_790_000_000_000, 1_790_000_060_000, 20_500):
        assert 0.96 < expected_parity(Steady(rate=rate, seconds=seconds), 7, KAPPA, 5.0, t0_ms=t0_ms) < 1


def test_expected_parity_falls_with_the_share_of_late_events_and_is_1_without() -> None:
    parities = [expected_parity(Steady(share_late=share), 7, KAPPA, 5.0) for share in (0.0, 0.004, 0.05, 0.5)]
    assert parities[0] == 1.0
    assert parities == sorted(parities, reverse=True)
    assert parities[-1] < 0.6


def test_expected_parity_is_1_when_nothing_can_be_late_enough() -> None:
    assert expected_parity(Steady(share_late=0.5), 7, KAPPA, late_after_s=75) == 1.0


def spec_values(**change: Any) -> dict[str, Any]:
    values = {"bootstrap": "127.0.0.1:1", "topic": "t", "run": "1a2b3c4d", "seed": 7, "ledger": "l"}
    return {**values, "profile": Steady().as_dict(), **change}


def test_a_spec_survives_the_way_through_its_file(tmp_path: Any) -> None:
    spec = LoadSpec.from_dict(spec_values(users=2, encode="a:b"))
    spec.write(tmp_path / "spec.json")
    assert LoadSpec.read(tmp_path / "spec.json") == spec
    assert spec.profile == Steady()


def test_a_wrong_spec_says_what_is_wrong(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: No such file"):
        LoadSpec.read(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"bootstrap": ')
    with pytest.raises(UsageError, match="is no JSON"):
        LoadSpec.read(tmp_path / "half.json")
    with pytest.raises(UsageError, match=r"'ledge'.*'ledger'"):
        LoadSpec.from_dict(spec_values(ledge="x"))
    missing = spec_values()
    del missing["topic"]
    with pytest.raises(UsageError, match="lacks 'topic'"):
        LoadSpec.from_dict(missing)
    with pytest.raises(UsageError, match="tag"):
        LoadSpec.from_dict(spec_values(run="other"))
