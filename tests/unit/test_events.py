"""Events: that they can be made again anywhere, that their bytes say what they are, and what must come of them.

The oracle for the expected cells is written from the bytes alone: json.loads and plain arithmetic, none of numpy,
polars or `load`'s own columns.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.topology import CONTENT_FIELDS, Cells, UsageError
from load import events, numbers
from load.events import (
    CLIENTS,
    COUNTRIES,
    ENGAGEMENTS,
    EVENT_BYTES,
    POISONS,
    WARMUP,
    Columns,
    Plan,
    as_mappings,
    columns,
    columns_at,
    encode,
    encode_with,
    event_ids,
    expected_cells,
    expected_content,
    is_poison,
    keys,
    load_encoder,
    parse_event_id,
    warmup_columns,
)
from load.profiles import Steady

T0_MS = 1_790_000_003_456
RUN = "1a2b3c4d"
KAPPA = [
    Cells("tweet", ["tweet_id", "engagement"], [10, 60]),
    Cells("author", ["author_id", "engagement"], [10, 60]),
]
ROUGH = Steady(rate=500, seconds=4, share_late=0.2, share_out_of_order=0.2, share_poison=0.1, share_twins=0.3)


def plan(profile: Steady = ROUGH, seed: int = 7, users: int = 1, t0_ms: int = T0_MS, run: str = RUN) -> Plan:
    return Plan(profile, seed, users, t0_ms, run)


def same(a: Columns, b: Columns, but: Sequence[str] = ()) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a) if f.name not in but
    )


# ----------------------------------------------------------------------------------------------- made again anywhere


def test_the_same_plan_makes_the_same_events() -> None:
    assert same(columns(plan(), 1, 0, 2_000), columns(plan(), 1, 0, 2_000))


@pytest.mark.parametrize("producer", [WARMUP, 1, 3])
def test_a_slice_is_the_same_without_the_events_before_it(producer: int) -> None:
    whole = columns(plan(users=3), producer, 0, 600)
    draw = random.Random(1)
    for _ in range(50):
        lo = draw.randrange(600)
        n = draw.randrange(600 - lo)
        assert same(columns(plan(users=3), producer, lo, n), whole[lo : lo + n])
    some = np.array([599, 3, 4, 0, 77])
    assert same(columns_at(plan(users=3), producer, some), whole[some])


def test_events_far_out_can_be_made_at_once() -> None:
    far = columns(plan(), 1, 9_999_999_990, 10)
    assert len(set(far.weight.tolist())) > 5
    assert json.loads(encode(far, plan(Steady(share_poison=0)), 1)[0] if not far.poison[0] else b"{}") is not None


def test_content_does_not_depend_on_the_runs_tag_but_on_seed_start_and_producer() -> None:
    base = columns(plan(users=2), 1, 0, 500)
    assert same(base, columns(plan(users=2, run="ffffffff"), 1, 0, 500))
    assert not np.array_equal(base.weight, columns(plan(users=2, seed=8), 1, 0, 500).weight)
    assert not np.array_equal(base.weight, columns(plan(users=2), 2, 0, 500).weight)
    moved = columns(plan(users=2, t0_ms=T0_MS + 1_000), 1, 0, 500)
    assert same(base, moved, but=["created_ms", "event_time_ms"])
    assert (moved.event_time_ms - base.event_time_ms == 1_000).all()


def test_the_generator_gives_what_it_always_gave() -> None:
    """A saved run is judged by making its events again: a change of the generator would judge old runs wrong."""
    made = columns(plan(), 1, 0, 3)
    assert encode(made, plan(), 1) == GOLDEN
    reference = 0x1234  # splitmix64 as its authors wrote it: a state that moves by the golden ratio
    z = (reference + 0x9E3779B97F4A7C15) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    assert int(numbers.mix(np.array([reference + 0x9E3779B97F4A7C15], dtype=np.uint64))[0]) == z ^ (z >> 31)


GOLDEN = [
    b'{"event_id":"1a2b3c4d-0001-0000000000","tweet_id":1800000000006478529,"author_id":2000000115'
    b',"user_id":1433390847,"engagement":"impression"   '
    b',"weight":744456748,"event_time_ms":1789999966472,"client":"web"    ,"country":"GB"}',
    b'{"event_id":"1a2b3c4d-0001-0000000001","tweet_id":1800000002131249330,"author_id":2000000090'
    b',"user_id":1072399413,"engagement":"like"         '
    b',"weight":705613274,"event_time_ms":1790000003458,"client":"web"    ,"country":"JP"}',
    b'{"event_id":"1a2b3c4d-0001-0000000002","tweet_id":1800000000079342067,"author_id":2000000336'
    b',"user_id":1311476389,"engagement":"impression"   '
    b',"weight":683962060,"event_time_ms":1790000003460,"client":"ios"    ,"country":"BR"}',
]


# ------------------------------------------------------------------------------------------------------- their traits


def within(observed: float, share: float, n: int) -> bool:
    """Within five standard deviations of a binomial share."""
    return abs(observed - share) <= 5 * math.sqrt(share * (1 - share) / n) + 1e-12


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize("profile", [Steady(), ROUGH])
def test_the_shares_are_those_of_the_profile(profile: Steady, seed: int) -> None:
    n = 200_000
    made = columns(plan(profile, seed), 1, 0, n)
    place = made.sequence - made.twin
    back = plan(profile, seed).due_ms(1, place) - made.event_time_ms
    alone = back[~made.twin]  # a twin shares its neighbour's draw
    assert within((alone >= 20_000).mean(), profile.share_late, len(alone))
    assert within(((alone > 0) & (alone < 20_000)).mean(), profile.share_out_of_order, len(alone))
    assert within(made.poison.mean(), profile.share_poison, n)
    assert within(made.twin[1::2].mean(), 2 * profile.share_twins, n // 2)
    assert not made.twin[::2].any()
    assert set(made.damage[made.poison].tolist()) == set(range(len(POISONS)))


def test_shares_of_0_and_1_are_none_and_all() -> None:
    none = columns(plan(Steady(share_late=0, share_out_of_order=0, share_poison=0, share_twins=0)), 1, 0, 10_000)
    assert not none.poison.any()
    assert not none.twin.any()
    assert np.array_equal(none.event_time_ms, none.created_ms)
    every = columns(plan(Steady(share_late=1, share_out_of_order=0, share_poison=1, share_twins=0.5)), 1, 0, 10_000)
    assert every.poison.all()
    assert every.twin[1::2].all()
    assert (every.created_ms - every.event_time_ms >= 20_000).all()


def test_late_and_out_of_order_events_lie_back_by_the_stated_times() -> None:
    made = columns(plan(Steady(rate=1_000, share_late=0.5, share_out_of_order=0.5, share_twins=0)), 1, 0, 1_000_000)
    back = made.created_ms - made.event_time_ms
    late, out_of_order = back[back >= 20_000], back[back < 20_000]
    assert (late.min(), late.max()) == (20_000, 75_000)
    assert (out_of_order.min(), out_of_order.max()) == (500, 4_000)


def test_values_are_of_the_stated_width_and_words() -> None:
    made = columns(plan(), 1, 0, 50_000)
    for field, digits in {"tweet_id": 19, "author_id": 10, "user_id": 10, "weight": 9, "event_time_ms": 13}.items():
        values = getattr(made, field)
        assert values.dtype == np.int64
        assert {len(str(v)) for v in values.tolist()} == {digits}, field
    assert set(made.text("engagement")) == set(ENGAGEMENTS)
    assert set(made.text("client")) == set(CLIENTS)
    assert set(made.text("country")) == set(COUNTRIES) - {"ZZ"}
    assert len(set(made.weight.tolist())) > 0.99 * len(made) * (1 - ROUGH.share_twins)


def test_the_author_is_a_pure_function_of_the_tweet() -> None:
    made = columns(plan(users=2), 1, 0, 20_000)
    other = columns(plan(users=2), 2, 0, 20_000)
    pairs = set(zip(made.tweet_id.tolist(), made.author_id.tolist(), strict=True))
    pairs |= set(zip(other.tweet_id.tolist(), other.author_id.tolist(), strict=True))
    assert len({tweet for tweet, _ in pairs}) == len(pairs)
    assert len({author for _, author in pairs}) <= ROUGH.tweets // 5


@pytest.mark.parametrize("skew", [0.0, 0.8, 1.05])
def test_tweets_follow_the_zipf_law(skew: float) -> None:
    n, tweets = 200_000, 500
    made = columns(plan(Steady(tweets=tweets, skew=skew, share_twins=0)), 1, 0, n)
    counts = np.sort(np.unique_counts(made.tweet_id).counts)[::-1]
    weights = np.arange(1, tweets + 1) ** -skew
    shares = weights / weights.sum()
    assert abs(counts[0] / n - shares[0]) < 0.003
    assert abs(counts[:50].sum() / n - shares[:50].sum()) < 0.02


def test_a_twin_has_the_content_of_the_event_before_it_and_an_id_and_createtime_of_its_own() -> None:
    made = columns(plan(), 1, 0, 2_000)
    ids = event_ids(made, plan(), 1)
    assert len(set(ids)) == 2_000
    twins = np.flatnonzero(made.twin)
    assert len(twins) > 400
    for field in CONTENT_FIELDS:
        assert np.array_equal(getattr(made, field)[twins], getattr(made, field)[twins - 1])
    assert (made.created_ms[twins] > made.created_ms[twins - 1]).all()
    values = encode(made, plan(), 1)
    for i in twins.tolist():
        if not made.poison[i] and not made.poison[i - 1]:
            one, other = json.loads(values[i - 1]), json.loads(values[i])
            assert one.pop("event_id") != other.pop("event_id")
            assert one == other


def test_is_poison_says_what_the_columns_say() -> None:
    some = np.array([5, 1_000_000, 3, 77, 78, 79])
    assert np.array_equal(is_poison(plan(), 1, some), columns_at(plan(), 1, some).poison)
    assert is_poison(plan(), 1, np.arange(1_000)).any()
    assert not is_poison(plan(), WARMUP, np.arange(1_000)).any()


def test_the_warm_up_shares_no_key_with_the_load() -> None:
    warm, load = warmup_columns(plan(), 0, 5_000), columns(plan(), 1, 0, 50_000)
    for field in ("tweet_id", "author_id", "user_id"):
        assert not np.intersect1d(getattr(warm, field), getattr(load, field)).size
    assert set(warm.text("country")) == {"ZZ"}
    assert np.array_equal(warm.event_time_ms, warm.created_ms)
    assert warm.created_ms.tolist()[:3] == [T0_MS, T0_MS + 1, T0_MS + 2]
    assert not warm.poison.any()
    assert same(warm, columns(plan(), WARMUP, 0, 5_000))
    assert [json.loads(value)["country"] for value in encode(warm, plan(), WARMUP)] == ["ZZ"] * 5_000


# -------------------------------------------------------------------------------------------------------- their bytes


@pytest.mark.parametrize("users", [1, 3])
def test_the_source_form_is_json_that_says_what_the_columns_say(users: int) -> None:
    made = columns(plan(users=users), users, 0, 3_000)
    values = encode(made, plan(users=users), users)
    for i, value in enumerate(values):
        if made.poison[i]:
            continue
        assert len(value) == EVENT_BYTES
        record = json.loads(value)
        assert list(record) == ["event_id", *CONTENT_FIELDS]
        assert record["event_id"] == f"{RUN}-{users:04d}-{i:010d}"
        assert {field: type(record[field]) for field in CONTENT_FIELDS} == CONTENT_FIELDS
    sound = np.flatnonzero(~made.poison).tolist()
    for field in CONTENT_FIELDS:
        told = made.values(field)
        assert [json.loads(values[i])[field] for i in sound] == [told[i] for i in sound]


def test_the_key_is_the_tweet_id_also_of_poison() -> None:
    made = columns(plan(), 1, 0, 1_000)
    assert keys(made) == [str(tweet).encode() for tweet in made.tweet_id.tolist()]


def test_no_event_makes_no_bytes() -> None:
    none = columns(plan(), 1, 5, 0)
    assert (encode(none, plan(), 1), keys(none), event_ids(none, plan(), 1)) == ([], [], [])


def sound_record(value: bytes) -> dict[str, Any] | None:
    """The fields of a record as a strict reader takes them, or None if it must refuse it."""
    try:
        record = json.loads(value)
    except ValueError:
        return None
    words = {"engagement": ENGAGEMENTS, "client": CLIENTS, "country": COUNTRIES}
    for field, kind in CONTENT_FIELDS.items():
        if type(record.get(field)) is not kind or record[field] not in words.get(field, [record[field]]):
            return None
    return dict(record)


def test_poison_cannot_be_read_and_shows_its_id() -> None:
    made = columns(plan(), 1, 0, 4_000)
    values = encode(made, plan(), 1)
    for i, value in enumerate(values):
        assert (sound_record(value) is None) == made.poison[i]
        assert parse_event_id(value[13:37].decode()) == (RUN, 1, i)
    by_kind = {
        kind: [values[i] for i in np.flatnonzero(made.poison & (made.damage == k))] for k, kind in enumerate(POISONS)
    }
    assert all(len(found) > 50 for found in by_kind.values())
    for value in by_kind["cut"]:
        with pytest.raises(ValueError):
            json.loads(value)
    assert {json.loads(v)["weight"] for v in by_kind["text for a number"]} == {"a lot"}
    assert all("event_time_ms" not in json.loads(v) for v in by_kind["field missing"])
    assert {json.loads(v)["engagement"] for v in by_kind["unknown engagement"]} == {"teleport"}


def test_digits_are_those_of_format() -> None:
    draw = random.Random(3)
    for width in range(1, 20):
        given = [0, 10**width - 1] + [draw.randrange(10**width) for _ in range(50)]
        given = [min(v, 2**63 - 1) for v in given]
        rows = np.zeros((len(given), width + 2), dtype=np.uint8)
        numbers.put_digits(rows, 1, width, np.array(given, dtype=np.int64))
        assert [bytes(row[1:-1]).decode() for row in rows] == [f"{v:0{width}d}" for v in given]
        assert not rows[:, 0].any()
        assert not rows[:, -1].any()


# ---------------------------------------------------------------------------------------------------------- their ids


def test_ids_are_parsed_back() -> None:
    made = columns(plan(users=3), 3, 9_999_999_997, 3)
    ids = event_ids(made, plan(users=3), 3)
    assert [parse_event_id(i) for i in ids] == [(RUN, 3, 9_999_999_997 + k) for k in range(3)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "1a2b3c4d-0001-000000000",
        "1a2b3c4d-0001-00000000001",
        "1A2B3C4D-0001-0000000000",
        "1a2b3c4d-001-00000000000",
        "1a2b3c4d_0001_0000000000",
        " 1a2b3c4d-0001-0000000000",
        "1a2b3c4d-0001-0000000000\n",
        "1a2b3c4d-0001-٠٠٠٠٠٠٠٠٠٠",
    ],
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert parse_event_id(text) is None


# ------------------------------------------------------------------------------------------------- a user's encoder


def fine(given: Sequence[Mapping[str, Any]]) -> list[tuple[bytes | None, bytes]]:
    return [(None, b"POISON " * e["poison"] + f"{e['event_id']} {e['weight']}".encode()) for e in given]


def blind(given: Sequence[Mapping[str, Any]]) -> list[tuple[bytes | None, bytes]]:
    return [(b"k", f"{e['event_id']} {e['weight']}".encode()) for e in given]


def nameless(given: Sequence[Mapping[str, Any]]) -> list[tuple[bytes | None, bytes]]:
    return [(None, b"%d" % e["weight"]) for e in given]


def short(given: Sequence[Mapping[str, Any]]) -> list[tuple[bytes | None, bytes]]:
    return fine(given)[1:]


def textual(given: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
    return [(None, e["event_id"]) for e in given]


def failing(given: Sequence[Mapping[str, Any]]) -> list[tuple[bytes | None, bytes]]:
    return [(None, e["no_such_field"]) for e in given]


def here(function: Any) -> str:
    return f"{__name__}:{function.__name__}"


def test_a_users_encoder_gets_plain_dicts_in_order() -> None:
    made = columns(plan(), 1, 0, 300)
    given = as_mappings(made, plan(), 1)
    assert list(given[0]) == ["event_id", *CONTENT_FIELDS, "poison"]
    assert all(type(given[0][field]) is kind for field, kind in CONTENT_FIELDS.items())
    assert [e["poison"] for e in given] == made.poison.tolist()
    values = encode(made, plan(), 1)
    for event, value in zip(given, values, strict=True):
        if not event["poison"]:
            assert {k: v for k, v in event.items() if k != "poison"} == json.loads(value)
    found_keys, found = encode_with(load_encoder(here(fine), 0.1), made, plan(), 1)
    assert [value.startswith(b"POISON") for value in found] == made.poison.tolist()
    assert set(found_keys) == {None}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_colon", "'module:function'"),
        ("no.such.module:encode", "cannot be imported"),
        ("json:no_such_function", "cannot be imported"),
        (here(failing), "failed on the event"),
        (here(short), "one \\(key, value\\) for each event"),
        (here(textual), "one \\(key, value\\) for each event"),
        (here(nameless), "does not keep the event id readable"),
        (here(blind), "does not damage events whose 'poison' is True"),
    ],
)
def test_an_encoder_that_cannot_serve_is_refused_before_the_load(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        load_encoder(name, share_poison=0.001)


def test_an_encoder_may_ignore_poison_where_there_is_none() -> None:
    assert load_encoder(here(blind), share_poison=0) is blind


def test_an_encoder_that_errs_later_is_refused_then() -> None:
    made = columns(plan(), 1, 0, 5)
    with pytest.raises(UsageError, match="does not keep the event id readable"):
        encode_with(nameless, made, plan(), 1)
    with pytest.raises(UsageError, match="4 records of 5 events"):
        encode_with(short, made, plan(), 1)


# ----------------------------------------------------------------------------------------------- what must come of them


def oracle(
    given: Plan, cells: Sequence[Cells], must_arrive: Mapping[int, Sequence[int]], late_after_s: float
) -> dict[tuple[str, str, int, int], list[int]]:
    """(dimension, key, window, start) -> [count, weight, late count, late weight], from the events' bytes alone."""
    found: dict[tuple[str, str, int, int], list[int]] = {}
    for producer, sequences in must_arrive.items():
        for sequence in sequences:
            record = sound_record(encode(columns(given, producer, sequence, 1), given, producer)[0])
            if record is None:
                continue
            index = sequence * given.users + producer - 1
            created_ms = given.t0_ms + index * 1000 // given.profile.rate
            for declared in cells:
                for window_s in declared.windows_s:
                    start = record["event_time_ms"] - record["event_time_ms"] % (window_s * 1000)
                    late = created_ms - (start + window_s * 1000) > late_after_s * 1000
                    key = "|".join(str(record[field]) for field in declared.key)
                    cell = found.setdefault((declared.dimension, key, window_s, start), [0, 0, 0, 0])
                    cell[0] += 1
                    cell[1] += record["weight"]
                    cell[2] += late
                    cell[3] += record["weight"] * late
    return found


def as_dict(frame: pl.DataFrame) -> dict[tuple[str, str, int, int], list[int]]:
    rows: Iterator[tuple[Any, ...]] = frame.select(
        "dimension", "key", "window_s", "window_start_ms", "count", "weight", "late_count", "late_weight"
    ).iter_rows()
    found = {row[:4]: list(row[4:]) for row in rows}
    assert len(found) == len(frame), "a cell has two rows"
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_expected_cells_are_those_counted_from_the_bytes(seed: int) -> None:
    draw = random.Random(seed)
    profile = Steady(
        rate=draw.choice([50, 333, 1_000]),
        seconds=draw.choice([1, 2.5]),
        tweets=draw.choice([1, 5, 200]),
        skew=draw.random() * 2,
        share_late=draw.random() / 2,
        share_out_of_order=draw.random() / 2,
        share_poison=draw.random() / 5,
        share_twins=draw.random() / 2,
    )
    given = plan(profile, seed=draw.getrandbits(64), users=draw.choice([1, 2, 3]), t0_ms=T0_MS + draw.randrange(60_000))
    must = {p: sorted(draw.sample(range(given.events_of(p)), given.events_of(p) * 2 // 3)) for p in given.producers}
    cells = [*KAPPA, Cells("place", ["country", "client", "user_id"], [7])]
    late_after_s = draw.choice([0, 5, 40])
    wanted = oracle(given, cells, must, late_after_s)
    arrays = {producer: np.array(sequences) for producer, sequences in must.items()}
    assert as_dict(expected_cells(given, cells, arrays, late_after_s)) == wanted
    masks = {p: np.isin(np.arange(given.events_of(p)), sequences) for p, sequences in must.items()}
    assert as_dict(expected_cells(given, cells, masks, late_after_s)) == wanted


def test_the_expected_cells_of_the_warm_up_are_its_own() -> None:
    found = expected_cells(plan(), KAPPA, {WARMUP: np.arange(100)}, 5)
    assert found.filter(pl.col("dimension") == "tweet", pl.col("window_s") == 10)["count"].sum() == 100


def test_the_columns_of_expected_cells_are_as_stated_also_of_none() -> None:
    schema = {
        "dimension": pl.String,
        "key": pl.String,
        "window_s": pl.Int32,
        "window_start_ms": pl.Int64,
        "count": pl.Int64,
        "weight": pl.Int64,
        "late_count": pl.Int64,
        "late_weight": pl.Int64,
    }
    for must in ({}, {1: np.array([], dtype=np.int64)}, {1: np.arange(50)}):
        assert dict(expected_cells(plan(), KAPPA, must, 5).schema) == schema


def test_poison_is_expected_nowhere() -> None:
    every = plan(Steady(rate=100, seconds=1, share_poison=1))
    assert len(expected_cells(every, KAPPA, {1: np.arange(100)}, 5)) == 0


def test_an_event_at_the_edge_of_a_window_belongs_to_the_later_one() -> None:
    smooth = Steady(rate=1_000, seconds=1, share_late=0, share_out_of_order=0, share_poison=0, share_twins=0)
    edge = plan(smooth, t0_ms=1_789_999_999_999)
    one = [Cells("every", ["country"], [10])]
    starts = [expected_cells(edge, one, {1: np.array([i])}, 5)["window_start_ms"].item() for i in range(3)]
    assert starts == [1_789_999_990_000, 1_790_000_000_000, 1_790_000_000_000]


def test_late_is_more_than_the_stated_time_after_the_windows_end_and_not_just_as_much() -> None:
    late = plan(Steady(rate=1_000, seconds=1, share_late=1, share_out_of_order=0, share_poison=0, share_twins=0))
    made = columns(late, 1, 0, 1)
    after_ms = int(made.created_ms[0] - (made.event_time_ms[0] // 10_000 * 10_000 + 10_000))
    assert after_ms > 0
    one = [Cells("every", ["country"], [10])]
    for less_ms, late_count in ((0, 0), (1, 1), (-1, 0)):
        found = expected_cells(late, one, {1: np.array([0])}, (after_ms - less_ms) / 1000)
        assert found["late_count"].item() == late_count


def test_out_of_order_events_are_never_late_for_the_reference() -> None:
    back = plan(Steady(share_late=0, share_out_of_order=1))
    assert expected_cells(back, KAPPA, {1: np.arange(40_000)}, 5.0)["late_count"].sum() == 0


def test_expected_content_is_what_the_bytes_say_in_the_order_asked_for() -> None:
    some = np.array([900, 3, 4, 5, 6, 7, 8, 1_999])
    frame = expected_content(plan(), 1, some)
    assert frame["sequence"].to_list() == some.tolist()
    assert frame.columns == ["producer", "sequence", "created_ms", "poison", "twin", *CONTENT_FIELDS]
    assert frame.schema["engagement"] == frame.schema["client"] == frame.schema["country"] == pl.String
    assert frame.schema["producer"] == pl.Int32
    values = encode(columns_at(plan(), 1, some), plan(), 1)
    for row, value in zip(frame.iter_rows(named=True), values, strict=True):
        record = sound_record(value)
        assert (record is None) == row["poison"]
        if record is not None:
            assert {field: row[field] for field in CONTENT_FIELDS} == {field: record[field] for field in CONTENT_FIELDS}


def test_chunks_do_not_show_in_the_expected_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = as_dict(expected_cells(plan(), KAPPA, {1: np.arange(2_000)}, 5))
    monkeypatch.setattr("load.expected._CHUNK", 77)
    assert as_dict(expected_cells(plan(), KAPPA, {1: np.arange(2_000)}, 5)) == whole


# --------------------------------------------------------------------------------------------------------------- speed


def test_making_events_is_fast_enough_not_to_be_the_bottleneck() -> None:
    """A wide margin: about two million a second are usual."""
    given = plan(Steady())
    columns(given, 1, 0, 10)
    begin = time.process_time()
    for lo in range(0, 100_000, 1_000):
        made = columns(given, 1, lo, 1_000)
        encode(made, given, 1)
        keys(made)
    assert 100_000 / (time.process_time() - begin) > 200_000


def test_the_interface_is_complete() -> None:
    assert set(events.__all__) <= set(dir(events))
