"""The plan of a load and the content of its events, by the column. `load.events` explains what an event is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.topology import CONTENT_FIELDS, UsageError
from load import numbers
from load.profiles import Steady

#: Producer number of the warm-up; the load's own producers are 1 … users.
WARMUP = 0

ENGAGEMENTS = ("impression", "like", "retweet", "reply", "quote", "click", "profile_click", "video_view")
CLIENTS = ("ios", "android", "web")
COUNTRIES = ("US", "JP", "IN", "BR", "GB", "DE", "MX", "ZZ")
#: Country of the warm-up events; no event of the load carries it.
WARMUP_COUNTRY = "ZZ"

#: Texts of the fields that `Columns` holds as codes: index -> text.
CATEGORIES: dict[str, tuple[str, ...]] = {"engagement": ENGAGEMENTS, "client": CLIENTS, "country": COUNTRIES}

#: Ways to damage the bytes of an event; see load.source_form for what each does.
POISONS = ("cut", "text for a number", "field missing", "unknown engagement")

LATE_MS = (20_000, 75_000)
OUT_OF_ORDER_MS = (500, 4_000)

_ENGAGEMENT_SHARES = (0.46, 0.18, 0.05, 0.04, 0.01, 0.09, 0.03, 0.14)
_CLIENT_SHARES = (0.45, 0.40, 0.15)
_COUNTRY_SHARES = (0.30, 0.18, 0.15, 0.12, 0.10, 0.08, 0.07)  # none for the warm-up's

# One stream of random numbers for each independent trait of an event.
_LANE_KEY, _LANE_PERSON, _LANE_WEIGHT, _LANE_TIME, _LANE_DELAY, _LANE_ORIGIN, _LANE_TWIN, _LANE_POISON = range(8)

_FIRST_TWEET = 1_800_000_000_000_000_000
_FIRST_WARMUP_TWEET = 1_700_000_000_000_000_000
_TWEET_STEP = 1 << 22
_WARMUP_TWEETS = 64
_FIRST_USER, _USERS = 1_000_000_000, 900_000_000
_FIRST_AUTHOR = 2_000_000_000
_FIRST_WARMUP_USER, _FIRST_WARMUP_AUTHOR = 9_800_000_000, 9_900_000_000
_WARMUP_GAP_US = 1_000


@dataclass(frozen=True)
class Plan:
    """All that the events of one load follow from.

    seed    any whole number of 64 bits, 0 or more
    users   how many producers share the profile's rate; producer p of U sends events p-1, p-1+U, p-1+2U … of the whole
    t0_ms   when the load starts, epoch milliseconds (for warm-up events: when the warm-up starts)
    run     the run's tag, 8 hex digits: part of every event id and of nothing else
    """

    profile: Steady
    seed: int
    users: int
    t0_ms: int
    run: str

    def __post_init__(self) -> None:
        self.profile.check_users(self.users)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 64:
            raise UsageError(f"The seed must be a whole number of 0 … 2**64-1, not {self.seed!r}.")
        if not re.fullmatch("[0-9a-f]{8}", self.run):
            raise UsageError(f"The run's tag must be 8 hex digits in lower case, not {self.run!r}.")
        if not 10**12 <= self.t0_ms < 10**13 - 10**11:
            raise UsageError(f"The load's start must be in epoch milliseconds (13 digits), not {self.t0_ms}.")

    @property
    def producers(self) -> range:
        """Numbers of the load's producers (the warm-up's, 0, is not among them)."""
        return range(1, self.users + 1)

    def events_of(self, producer: int) -> int:
        """How many events this producer is to send."""
        return max(0, -(-(self.profile.events - (producer - 1)) // self.users))

    def due_us(self, producer: int, sequence: NDArray[np.int64]) -> NDArray[np.int64]:
        """When these events are due, epoch microseconds rounded down."""
        if producer == WARMUP:
            return self.t0_ms * 1000 + sequence * _WARMUP_GAP_US
        return self.due_us_of(sequence * self.users + (producer - 1))

    def rank(self, producer: NDArray[np.integer], sequence: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rank of events of the load in the order in which they are due, from 0."""
        return sequence * self.users + (producer - 1)

    def due_us_of(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """As `due_us`, by rank."""
        return self.t0_ms * 1000 + self.profile.offset_us(rank)

    def due_ms(self, producer: int, sequence: NDArray[np.int64]) -> NDArray[np.int64]:
        """When these events are due, epoch milliseconds rounded down: the CreateTime of their records."""
        return self.due_us(producer, sequence) // 1000


@dataclass(frozen=True)
class Columns:
    """Events as a struct of arrays, all of one length. Fields of `CATEGORIES` hold codes; `text` gives their words.

    `created_ms` is the due time; `poison` says that the event's bytes are to be damaged, `damage` how (an index into
    POISONS, meaningless elsewhere); `twin` that the content is that of the event before.
    The content of a poison event is what it was before the damage.
    """

    sequence: NDArray[np.int64]
    created_ms: NDArray[np.int64]
    tweet_id: NDArray[np.int64]
    author_id: NDArray[np.int64]
    user_id: NDArray[np.int64]
    engagement: NDArray[np.uint8]
    weight: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    client: NDArray[np.uint8]
    country: NDArray[np.uint8]
    poison: NDArray[np.bool_]
    damage: NDArray[np.uint8]
    twin: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, some: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Columns:
        """The same columns for some of the events."""
        return Columns(**{f.name: getattr(self, f.name)[some] for f in fields(self)})

    def text(self, field: str) -> list[str]:
        """The words of a field that is held as codes."""
        words = CATEGORIES[field]
        return [words[code] for code in getattr(self, field)]

    def values(self, field: str) -> Sequence[int] | Sequence[str]:
        """One content field as plain Python values."""
        values: list[int] = getattr(self, field).tolist()
        return self.text(field) if field in CATEGORIES else values


def columns(plan: Plan, producer: int, lo: int, n: int) -> Columns:
    """Events lo … lo+n-1 of one producer (0: the warm-up). Any slice can be made without the events before it."""
    return columns_at(plan, producer, np.arange(lo, lo + n, dtype=np.int64))


def warmup_columns(plan: Plan, lo: int, n: int) -> Columns:
    """Events lo … lo+n-1 of the warm-up: due one a millisecond from plan.t0_ms, with keys, users and country that no
    event of the load has; none late, poison or twin."""
    return columns(plan, WARMUP, lo, n)


def columns_at(plan: Plan, producer: int, sequence: NDArray[np.int64]) -> Columns:
    """Any events of one producer, in the order given."""
    sequence = np.asarray(sequence, dtype=np.int64)
    if producer == WARMUP:
        return _warmup_at(plan, sequence)
    profile, seed = plan.profile, plan.seed

    twin = _is_twin(plan, producer, sequence)
    # A twin reads all of its content at the place of the event before it.
    place = (sequence - twin).astype(np.uint64)

    key = numbers.random64(seed, producer, _LANE_KEY, place)
    rank = numbers.zipf(key, profile.tweets, profile.skew)
    tweet_ids, author_ids = _tweets(profile.tweets, seed)
    origin = numbers.random64(seed, producer, _LANE_ORIGIN, place)
    low16 = np.uint64(0xFFFF)

    moment = numbers.unit(numbers.random64(seed, producer, _LANE_TIME, place))
    delay = numbers.random64(seed, producer, _LANE_DELAY, place)
    late = moment < profile.share_late
    out_of_order = ~late & (moment < profile.share_late + profile.share_out_of_order)
    back = np.where(late, _between(delay, LATE_MS), np.where(out_of_order, _between(delay, OUT_OF_ORDER_MS), 0))

    poison_bits = numbers.random64(seed, producer, _LANE_POISON, sequence.astype(np.uint64))
    return Columns(
        sequence=sequence,
        created_ms=plan.due_ms(producer, sequence),
        tweet_id=tweet_ids[rank],
        author_id=author_ids[rank],
        user_id=_FIRST_USER + _below(numbers.random64(seed, producer, _LANE_PERSON, place), _USERS),
        engagement=numbers.choose(key & low16, _choices(_ENGAGEMENT_SHARES)),
        weight=_between(numbers.random64(seed, producer, _LANE_WEIGHT, place), (100_000_000, 999_999_999)),
        event_time_ms=plan.due_ms(producer, place.astype(np.int64)) - back,
        client=numbers.choose(origin & low16, _choices(_CLIENT_SHARES)),
        country=numbers.choose(origin >> np.uint64(48), _choices(_COUNTRY_SHARES)),
        poison=numbers.unit(poison_bits) < profile.share_poison,
        damage=(poison_bits & np.uint64(3)).astype(np.uint8),
        twin=twin,
    )


def is_poison(plan: Plan, producer: int, sequence: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these events are poison; far cheaper than `columns_at`, to say what must arrive."""
    sequence = np.asarray(sequence, dtype=np.int64)
    if producer == WARMUP:
        return np.zeros(len(sequence), dtype=bool)
    bits = numbers.random64(plan.seed, producer, _LANE_POISON, sequence.astype(np.uint64))
    return numbers.unit(bits) < plan.profile.share_poison


def _is_twin(plan: Plan, producer: int, sequence: NDArray[np.int64]) -> NDArray[np.bool_]:
    # Only odd places may be twins, at twice the share: so no event is the twin of a twin.
    drawn = numbers.unit(numbers.random64(plan.seed, producer, _LANE_TWIN, sequence.astype(np.uint64)))
    return (sequence % 2 == 1) & (drawn < 2 * plan.profile.share_twins)


def _warmup_at(plan: Plan, sequence: NDArray[np.int64]) -> Columns:
    n = len(sequence)
    bits = numbers.random64(plan.seed, WARMUP, _LANE_WEIGHT, sequence.astype(np.uint64))
    due = plan.due_ms(WARMUP, sequence)
    nothing = np.zeros(n, dtype=bool)
    return Columns(
        sequence=sequence,
        created_ms=due,
        tweet_id=_FIRST_WARMUP_TWEET + (sequence % _WARMUP_TWEETS) * _TWEET_STEP,
        author_id=_FIRST_WARMUP_AUTHOR + sequence % _WARMUP_TWEETS // 4,
        user_id=_FIRST_WARMUP_USER + sequence % 1_000_000,
        engagement=(sequence % len(ENGAGEMENTS)).astype(np.uint8),
        weight=_between(bits, (100_000_000, 999_999_999)),
        event_time_ms=due,
        client=(sequence % len(CLIENTS)).astype(np.uint8),
        country=np.full(n, COUNTRIES.index(WARMUP_COUNTRY), dtype=np.uint8),
        poison=nothing,
        damage=np.zeros(n, dtype=np.uint8),
        twin=nothing,
    )


@lru_cache(maxsize=8)
def _tweets(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(tweet id, author id) by rank. Both depend on the seed, so that hot tweets lie on another partition each time."""
    bits = numbers.random64(seed, 0, _LANE_KEY, np.arange(count, dtype=np.uint64))
    tweet = _FIRST_TWEET + np.arange(count, dtype=np.int64) * _TWEET_STEP + _below(bits, _TWEET_STEP)
    author = _FIRST_AUTHOR + _below(bits >> np.uint64(32), max(1, count // 5))
    return tweet, author


_choices = lru_cache(maxsize=8)(numbers.choice_table)


def _below(bits: numbers.U64, bound: int) -> NDArray[np.int64]:
    return (bits % np.uint64(bound)).astype(np.int64)


def _between(bits: numbers.U64, ends: tuple[int, int]) -> NDArray[np.int64]:
    return ends[0] + _below(bits, ends[1] - ends[0] + 1)


assert set(CONTENT_FIELDS) <= {f.name for f in fields(Columns)}
