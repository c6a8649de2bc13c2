"""The mutants: each says what its bug is and where it was seen, and does what it says."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import queue
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from test_kappa_events import EVENT, SOURCE
from test_kappa_workers import LOG, Diary, FakeRecord, converter, preprocessor, record

from assertions.registry import ASSERTIONS
from harness import catalog
from harness.compare.measures import MEASURES
from pipelines_under_test import mutants
from pipelines_under_test.kappa import events, rows
from pipelines_under_test.kappa.aggregator import Decode, Settings, Update
from pipelines_under_test.kappa.compaction import Horizon
from pipelines_under_test.kappa.kafka import Sink, Source
from pipelines_under_test.kappa.worker import Fatal
from pipelines_under_test.mutants import (
    MUTANTS,
    RELEASE_MUTANTS,
    SOAK_MUTANTS,
    dedup_in_memory,
    short_dedup_window,
    totals,
    totals_writer,
)
from pipelines_under_test.mutants.acks_one import TrustingPreprocessor, TrustingSink
from pipelines_under_test.mutants.acks_zero import HopefulPreprocessor, HopefulSink
from pipelines_under_test.mutants.auto_commit import AutomaticSource
from pipelines_under_test.mutants.batch_retried import WholesaleConverter
from pipelines_under_test.mutants.bounded_retry import ATTEMPTS, ResignedPublisher
from pipelines_under_test.mutants.dedup_by_message_id import DecodeByMessage
from pipelines_under_test.mutants.dedup_by_release import DecodeByRelease
from pipelines_under_test.mutants.drop_on_backpressure import MOST_WAITING, SheddingConverter
from pipelines_under_test.mutants.fire_and_forget import CarefreePublisher
from pipelines_under_test.mutants.id_as_double import DecodeWithDoubles
from pipelines_under_test.mutants.last_write_wins import WriteFromMemory
from pipelines_under_test.mutants.lingers import LINGER_S, LingeringConverter
from pipelines_under_test.mutants.lost_on_rebalance import EagerlyCommittingSource, HoldingConverter
from pipelines_under_test.mutants.mixed_up_keys import SwappingPreprocessor
from pipelines_under_test.mutants.never_reconnects import BereftPublisher
from pipelines_under_test.mutants.one_in_a_hundred_thousand import ONE_IN, RarelyForgettingConverter, unlucky
from pipelines_under_test.mutants.poison_kills_batch import HastyPreprocessor
from pipelines_under_test.mutants.read_modify_write import ReadModifyWrite
from pipelines_under_test.mutants.remembers_everything import NOTE, RememberingConverter
from pipelines_under_test.mutants.slow_to_start import START_S, SlowlyStartingConverter
from pipelines_under_test.mutants.slower_and_slower import LOOK_S, SearchingConverter
from pipelines_under_test.mutants.stale_cache import WriteFromCache
from pipelines_under_test.mutants.stuck_on_poison import BrittlePreprocessor
from pipelines_under_test.mutants.swallowed_exception import SwallowingWrite
from pipelines_under_test.mutants.time_zone import DecodeLocally
from pipelines_under_test.mutants.truncated_hash import TruncatingConverter
from pipelines_under_test.mutants.unbounded_buffer import HEAP, GreedyConverter
from pipelines_under_test.mutants.uuid_from_offset import NumberingConverter
from pipelines_under_test.mutants.window_boundary import DecodeWithClosedEnds

FOLDER = Path(mutants.__file__).parent
EVERY_MUTANT = MUTANTS | SOAK_MUTANTS | RELEASE_MUTANTS
#: What is in the folder and is no mutant.
SHARED = {"__init__", "registry", "sums", "totals", "totals_writer"}

INTERMEDIATE = events.to_intermediate(EVENT)
NOW_MS = 1_790_000_020_000


# ------------------------------------------------------------------------------------------------ what they say


def test_every_module_is_a_mutant_of_the_registry() -> None:
    modules = {path.stem for path in FOLDER.glob("*.py")} - SHARED
    assert modules == {name.replace("-", "_") for name in EVERY_MUTANT}
    assert len(MUTANTS) >= 25


@pytest.mark.parametrize("name", EVERY_MUTANT)
def test_a_mutant_tells_its_bug_and_where_such_a_bug_was_seen(name: str) -> None:
    mutant = EVERY_MUTANT[name]
    module = importlib.import_module(f"pipelines_under_test.mutants.{name.replace('-', '_')}")
    assert callable(module.main)
    told = module.__doc__ or ""
    assert told.startswith("Mutant: ")
    assert "\n\nThe bug: " in told
    assert "\n\nIn the wild: " in told
    assert mutant.seen_at.startswith("https://")
    assert mutant.about[0].islower()
    assert not mutant.about.endswith(".")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_a_claim_of_its_scenario(name: str) -> None:
    mutant = MUTANTS[name]
    assert mutant.caught_by in ASSERTIONS
    fitted = catalog.fitted(catalog.scenario(mutant.scenario), mutant.pipeline)
    assert mutant.caught_by in {a.name for a in fitted.assertions}


@pytest.mark.parametrize("name", SOAK_MUTANTS)
def test_a_mutant_of_the_soak_is_caught_by_what_a_soak_claims(name: str) -> None:
    mutant = SOAK_MUTANTS[name]
    assert mutant.scenario == "soak"
    assert mutant.caught_by in {"drift", *(a.name for a in catalog.claims(mutant.pipeline))}
    assert catalog.pipeline(name) is mutant.pipeline
    assert name in [m["name"] for m in catalog.mutants_of_more_than_a_run()["mutants that take a soak"]]
    assert name not in MUTANTS, "a single run need not catch it"


@pytest.mark.parametrize("name", RELEASE_MUTANTS)
def test_a_mutant_of_a_comparison_is_caught_by_what_a_comparison_measures(name: str) -> None:
    mutant = RELEASE_MUTANTS[name]
    assert mutant.caught_by in {measure.key for measure in MEASURES}
    assert catalog.pipeline(name) is mutant.pipeline
    assert name in [m["name"] for m in catalog.mutants_of_more_than_a_run()["mutants that take a comparison"]]
    assert name not in MUTANTS | SOAK_MUTANTS


@pytest.mark.parametrize("name", EVERY_MUTANT)
def test_a_mutant_changes_one_thing_and_copies_nothing(name: str) -> None:
    """It is short, and none of its functions is written again from the pipeline."""
    text = (FOLDER / f"{name.replace('-', '_')}.py").read_text()
    assert len(text.splitlines()) <= 115
    paths = [path for package in ("kappa", "legacy") for path in FOLDER.parent.joinpath(package).glob("*.py")]
    originals = {_bare(f) for path in paths for f in _functions(path)}
    copied = [f.name for f in _functions(FOLDER / f"{name.replace('-', '_')}.py") if _bare(f) in originals]
    assert copied == []


def test_who_lists_them_waits_for_no_beam() -> None:
    code = "import sys; from pipelines_under_test.mutants import MUTANTS; sys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_none_of_them_imports_the_harness() -> None:
    modules = [f"pipelines_under_test.mutants.{name.replace('-', '_')}" for name in EVERY_MUTANT]
    code = (
        f"import sys, {', '.join(modules)}\n"
        "ours = ('harness', 'faults', 'load', 'assertions')\n"
        "print([m for m in sys.modules if m.split('.')[0] in ours])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def _functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


def _bare(function: ast.FunctionDef) -> str:
    return function.name + "".join(ast.dump(statement) for statement in function.body)


def test_they_are_caught_soon() -> None:
    assert max(m.runs for m in MUTANTS.values()) <= 5
    assert statistics.median(m.runs for m in MUTANTS.values()) <= 2


def test_at_least_half_of_them_hide_while_nothing_is_injected() -> None:
    hidden = [m for m in MUTANTS.values() if catalog.scenario(m.scenario).faults]
    assert len(hidden) >= len(MUTANTS) / 2


def test_replicas_of_the_scenario_are_those_of_the_mutant_too() -> None:
    fitted = catalog.fitted(catalog.scenario("replicas"), MUTANTS["stale-cache"].pipeline)
    assert {"converter-2", "aggregator-2"} <= set(fitted.pipeline.instances())
    assert fitted.pipeline.worker("aggregator").command == MUTANTS["stale-cache"].pipeline.worker("aggregator").command
    alone = catalog.fitted(catalog.scenario("steady"), MUTANTS["stale-cache"].pipeline)
    assert "aggregator" in alone.pipeline.instances()


def test_brokers_of_the_scenario_are_those_of_the_mutant_too() -> None:
    fitted = catalog.fitted(catalog.scenario("broker-loss"), MUTANTS["acks-one"].pipeline)
    assert fitted.pipeline.service("kafka").processes() == ["kafka-1", "kafka-2", "kafka-3"]
    assert fitted.pipeline.worker("preprocessor").command == MUTANTS["acks-one"].pipeline.worker("preprocessor").command
    alone = catalog.fitted(catalog.scenario("steady"), MUTANTS["acks-one"].pipeline)
    assert alone.pipeline.service("kafka").processes() == ["kafka"]


# ------------------------------------------------------------------------------- preprocessors and converters


def test_poison_takes_the_rest_of_its_batch_and_all_of_it_is_committed() -> None:
    diary = Diary()
    preprocessor(diary, HastyPreprocessor).step([FakeRecord(SOURCE, 1), FakeRecord(b"{", 2), FakeRecord(SOURCE, 3)])
    assert [entry[:2] for entry in diary.entries[:2]] == [("write", "intermediate"), ("write", "dead")]
    assert diary.entries[2:] == [("settle",), ("commit", [1, 2, 3])]


def test_poison_ends_the_worker_before_anything_is_committed() -> None:
    diary = Diary()
    with pytest.raises(Fatal, match="topic/3/2: not JSON"):
        preprocessor(diary, BrittlePreprocessor).step([FakeRecord(SOURCE, 1), FakeRecord(b"{", 2)])
    assert "commit" not in diary.said()


@pytest.mark.parametrize(("client", "swapped"), [("web", True), ("ios", False)])
def test_only_what_comes_from_the_web_is_swapped(client: str, swapped: bool) -> None:
    diary = Diary()
    preprocessor(diary, SwappingPreprocessor).step([FakeRecord(SOURCE.replace(b'"android"', f'"{client}"'.encode()))])
    passed = events.from_intermediate(diary.entries[0][2])
    ids = EVENT.author_id, EVENT.user_id
    assert (passed.author_id, passed.user_id) == (ids[::-1] if swapped else ids)


def test_clients_get_the_settings_of_the_mutant(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[dict[str, Any]] = []

    class Client:
        def __init__(self, config: dict[str, Any]) -> None:
            configs.append(config)

        def subscribe(self, *_: Any, **__: Any) -> None:
            pass

    monkeypatch.setattr("pipelines_under_test.kappa.kafka.Producer", Client)
    monkeypatch.setattr("pipelines_under_test.kappa.kafka.Consumer", Client)
    assert HopefulPreprocessor.sink_kind is HopefulSink
    assert TrustingPreprocessor.sink_kind is TrustingSink
    for sink in (Sink, HopefulSink, TrustingSink):
        sink("address", "client", threading.Event(), LOG)
    for source in (Source, AutomaticSource, EagerlyCommittingSource):
        source("address", "topic", "group", "instance", threading.Event(), LOG)
    assert [c["acks"] for c in configs[:3]] == ["all", "0", "1"]
    assert [c["enable.auto.commit"] for c in configs[3:]] == [False, True, False]
    assert [c["group.instance.id"] for c in configs[3:]] == ["instance", "instance", None]
    assert AutomaticSource.commit(object.__new__(AutomaticSource), [])


class Answering:
    """A connection whose calls fail as often as told; counts them."""

    def __init__(self, failures: int) -> None:
        self.failures, self.calls = failures, 0

    def try_once(self, what: str, attempt: Any) -> Any:
        self.calls += 1
        if self.calls <= self.failures:
            return None
        return attempt(None)


def test_a_publish_that_failed_once_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Answering(1)
    CarefreePublisher(connection, "topic").publish(["message"])  # type: ignore[arg-type]
    assert connection.calls == 1


@pytest.mark.parametrize(("failures", "sent"), [(0, 1), (ATTEMPTS - 1, 1), (ATTEMPTS, 0)])
def test_a_publish_is_given_up_after_some_attempts(failures: int, sent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines_under_test.mutants.bounded_retry.PAUSE_S", 0.0)
    said: list[Any] = []
    publisher = ResignedPublisher(Answering(failures), "topic")  # type: ignore[arg-type]
    monkeypatch.setattr(publisher, "attempt", lambda messages, channel: said.append(messages))
    publisher.publish(["message"])
    assert len(said) == sent


class Inline:
    def map(self, function: Any, values: Any) -> Any:
        return map(function, values)


def test_one_failed_request_repeats_the_batch_under_other_uuids() -> None:
    diary = Diary()
    worker = converter(diary, WholesaleConverter)
    sent: list[str] = []

    class Recording:
        def attempt(self, messages: Any, channel: Any) -> None:
            sent.extend(m.attributes["uuid"] for m in messages)

    worker.__dict__.update(connection=_FailsSecond(), publisher=Recording(), pool=Inline())
    worker.step([FakeRecord(INTERMEDIATE, i) for i in range(60)])  # two requests
    assert len(sent) == 50 + 60
    assert len(set(sent)) == len(sent)
    assert diary.entries[-1] == ("commit", list(range(60)))


class _FailsSecond(Answering):
    def __init__(self) -> None:
        super().__init__(0)

    def try_once(self, what: str, attempt: Any) -> Any:
        self.calls += 1
        return None if self.calls == 2 else attempt(None)


def test_what_does_not_fit_the_queue_is_dropped() -> None:
    worker = converter(Diary(), SheddingConverter)
    worker.__dict__.update(waiting=queue.Queue(MOST_WAITING))
    for i in range(MOST_WAITING + 3):
        worker.enqueue([FakeRecord(INTERMEDIATE, i)])  # type: ignore[list-item]
    assert worker.waiting.qsize() == MOST_WAITING


def test_a_record_at_another_offset_gets_another_uuid() -> None:
    worker = converter(Diary(), NumberingConverter)
    uuids = [worker.message(FakeRecord(INTERMEDIATE, at), 0).attributes["uuid"] for at in (7, 7, 8)]
    assert uuids[0] == uuids[1] != uuids[2]


def test_a_truncated_uuid_has_twelve_bits() -> None:
    worker = converter(Diary(), TruncatingConverter)
    uuid = worker.uuid(EVENT)
    assert uuid[:-3] == "00000000-0000-0000-0000-000000000"
    assert uuid[-3:] == events.uuid_of(EVENT.event_id)[:3]


class Revoking(Diary):
    """A source that hands out one record at a time, and loses its partitions once, before the second."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self.stop, self.taken = stop, 0

    def take(self, most: int, wait_s: float) -> list[Any]:
        self.taken += 1
        if self.taken == 3:
            self.stop.set()
            return []
        return [FakeRecord(INTERMEDIATE, self.taken)]

    def close(self) -> None:
        self._note("close")


def test_what_was_held_is_forgotten_when_partitions_are_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    diary = Revoking(stop)
    worker = converter(diary, HoldingConverter)
    worker.stop = stop
    monkeypatch.setattr(worker, "lost_partitions", lambda: diary.taken == 2)
    worker.run()
    assert ("commit", [2]) in diary.entries
    assert diary.said() == ["settle", "publish", "commit", "close"]


def test_a_publish_that_fails_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    from google.api_core import exceptions

    closed: list[bool] = []
    channel = type("C", (), {"close": lambda self: closed.append(True)})()

    def fail(self: Any, messages: Any, channel: Any) -> None:
        raise exceptions.ServiceUnavailable("made up")

    monkeypatch.setattr("pipelines_under_test.kappa.converter.Publisher.attempt", fail)
    with pytest.raises(exceptions.ServiceUnavailable):
        BereftPublisher(Diary(), "topic").attempt([], channel)  # type: ignore[arg-type]
    assert closed == [True]


def test_a_buffer_that_is_full_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    worker = converter(Diary(), GreedyConverter)

    def kill(pid: int, number: int) -> None:
        killed.append(number)
        worker.stop.set()

    monkeypatch.setattr("os.kill", kill)
    taking = type("S", (), {"take": lambda self, most, wait_s: [FakeRecord(INTERMEDIATE)] * most})()
    worker.__dict__.update(source=taking)
    worker.read_on()
    assert killed == [9]
    assert HEAP < len(worker.buffer) <= HEAP + 1000


# ------------------------------------------------------------------------------------------------- aggregators


def decoded(kind: type[Decode], event: events.Event = EVENT) -> Update:
    update = kind(Horizon(horizon_s=1e9)).decode(record(event), NOW_MS)
    assert isinstance(update, Update)
    return update


def test_an_id_read_as_a_double_is_another_id() -> None:
    assert decoded(DecodeWithDoubles).event.tweet_id == 1_234_567_890_123_456_768


def test_local_time_is_utc_only_where_the_clock_is(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for zone, shift_h in (("UTC0", 0), ("IST-5:30", 5.5)):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert decoded(DecodeLocally).event.event_time_ms == EVENT.event_time_ms + shift_h * 3_600_000
    finally:
        monkeypatch.undo()
        time.tzset()


def test_only_the_first_millisecond_of_a_window_is_counted_in_another() -> None:
    from dataclasses import replace

    for at_ms, start_s in ((1_790_000_010_000, 1_790_000_008), (1_790_000_010_001, 1_790_000_010)):
        update = decoded(DecodeWithClosedEnds, replace(EVENT, event_time_ms=at_ms))
        assert {rows.parse_key(key).start_s for key, _ in update.cells()} == {start_s}


def test_an_event_has_another_name_after_the_window_and_not_before() -> None:
    uuid = events.uuid_of("short-dedup-window")
    names = [short_dedup_window.name_in_window(uuid, now) for now in (100.0, 101.9, 102.1, 103.0, 104.2)]
    assert names[0] == names[1] == uuid
    assert names[2] == names[3]
    assert len(set(names)) == 3


def test_an_event_has_another_name_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [decoded(dedup_in_memory.DecodeFromMemory).uuid for _ in range(2)]
    monkeypatch.setattr(dedup_in_memory, "_counted_as", {})
    assert len({*first, decoded(dedup_in_memory.DecodeFromMemory).uuid}) == 2


def test_two_messages_of_one_event_have_two_names() -> None:
    decode = DecodeByMessage(Horizon(horizon_s=1e9))
    uuids = {decode.uuid(EVENT, record()._replace(message_id=i)) for i in ("1", "1", "2")}
    assert len(uuids) == 2


def test_an_event_has_one_name_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference has one for all; so has the mutant across any number of restarts of one release."""
    for decode, names in ((DecodeByRelease(Horizon(horizon_s=1e9)), 2), (Decode(Horizon(horizon_s=1e9)), 1)):
        uuids = set()
        for release in ("1", "1", "2", "1"):
            monkeypatch.setenv("RELEASE", release)
            uuids.add(decode.uuid(EVENT, record()))
        assert len(uuids) == names


class FakeTable:
    """Rows in memory, with the writes of WriteTotals applied to them."""

    def __init__(self) -> None:
        self.stored: dict[bytes, dict[tuple[str, bytes], list[tuple[int, bytes]]]] = {}
        self.clock = 0

    def write(self, entries: Any) -> None:
        for entry in entries:
            cells = self.stored.setdefault(entry.row_key, {})
            for mutation in entry.mutations:
                cell, self.clock = mutation.set_cell, self.clock + 1
                cells.setdefault((cell.family_name, cell.column_qualifier), []).append((self.clock, cell.value))

    def read(self, _: Any, keys: set[bytes]) -> dict[bytes, totals.Held]:
        return {key: totals.Held.of(_Row(key, self.stored.get(key, {}))) for key in keys}

    def counts(self) -> set[int]:
        """Of every cell."""
        return {c.count for key, cells in self.stored.items() for c in totals.cells_of_row(_Row(key, cells))}


class _Row:
    def __init__(self, key: bytes, cells: Any) -> None:
        self.key, self.cells = key, cells


def writer(
    kind: type[totals_writer.WriteTotals], table: FakeTable, monkeypatch: pytest.MonkeyPatch
) -> totals_writer.WriteTotals:
    monkeypatch.setattr(totals_writer, "read", table.read)
    made = kind(Settings("agg", "", "", "", "", "", Horizon()))
    made.table = table  # type: ignore[assignment]
    return made


def some(*names: str) -> list[Update]:
    return [Update(EVENT, events.uuid_of(name)) for name in names]


@pytest.mark.parametrize("kind", [ReadModifyWrite, WriteFromCache, WriteFromMemory])
def test_totals_are_exact_for_one_worker(
    kind: type[totals_writer.WriteTotals], monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget(monkeypatch)
    table = FakeTable()
    made = writer(kind, table, monkeypatch)
    made.count(some("a", "b"))
    made.count(some("b", "c", "c"))
    assert table.counts() == {3}


def test_a_row_that_was_read_before_each_write_lacks_what_came_between(monkeypatch: pytest.MonkeyPatch) -> None:
    table = FakeTable()
    made = writer(ReadModifyWrite, table, monkeypatch)
    before = table.read(None, {key for key, _ in some("a")[0].cells()})
    made.count(some("a"))
    made.count(some("b"))
    assert table.counts() == {2}
    monkeypatch.setattr(totals_writer, "read", lambda table, keys: before)  # what the other worker had read
    made.count(some("c"))
    assert table.counts() == {1}


def test_a_cache_lacks_what_another_worker_wrote_and_survives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(monkeypatch)
    table = FakeTable()
    made = writer(WriteFromCache, table, monkeypatch)
    made.count(some("a"))
    writer(ReadModifyWrite, table, monkeypatch).count(some("b"))
    made.count(some("c"))
    assert table.counts() == {2}
    _forget(monkeypatch)
    made.count(some("d"))
    assert table.counts() == {3}


def test_what_is_only_in_memory_starts_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(monkeypatch)
    table = FakeTable()
    made = writer(WriteFromMemory, table, monkeypatch)
    made.count(some("a", "b"))
    _forget(monkeypatch)
    made.count(some("c"))
    assert table.counts() == {1}


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines_under_test.mutants.stale_cache._cache", {})
    monkeypatch.setattr("pipelines_under_test.mutants.last_write_wins._memory", {})


def test_a_failed_write_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, updates: Any) -> None:
        raise OSError("the sink is away")

    monkeypatch.setattr("pipelines_under_test.kappa.aggregator.Write.count", fail)
    SwallowingWrite(Settings("agg", "", "", "", "", "", Horizon())).count(some("a"))


# ------------------------------------------------------------------------------------------------ those of the soak


def test_it_remembers_every_message_it_ever_published() -> None:
    worker: Any = converter(Diary(), RememberingConverter)
    worker.notes = []
    for _ in range(3):
        worker.step([FakeRecord(INTERMEDIATE), FakeRecord(INTERMEDIATE)])
    assert [len(note) for note in worker.notes] == [NOTE] * 6


def test_it_takes_longer_the_more_there_ever_was(monkeypatch: pytest.MonkeyPatch) -> None:
    worker: Any = converter(Diary(), SearchingConverter)
    worker.ends = {}
    waited: list[float] = []
    monkeypatch.setattr(worker.stop, "wait", waited.append)
    for offset in (99, 9_999):
        worker.step([FakeRecord(INTERMEDIATE, offset)])
    assert waited == [pytest.approx(100 * LOOK_S), pytest.approx(10_000 * LOOK_S)]


def test_it_forgets_one_event_in_a_hundred_thousand_and_always_the_same() -> None:
    ids = [f"0a0b0c0d-0001-{n:010d}" for n in range(10 * ONE_IN)]
    lost = [event_id for event_id in ids if unlucky(event_id)]
    assert 3 <= len(lost) <= 25, "ten are to be expected"
    worker: Any = converter(Diary(), RarelyForgettingConverter)
    records = [
        FakeRecord(events.to_intermediate(dataclasses.replace(EVENT, event_id=event_id)))
        for event_id in (ids[0], lost[0])
    ]
    (kept,) = worker.convert(records)
    assert kept.attributes["uuid"] == events.uuid_of(ids[0])


# ------------------------------------------------------------------------------------------ those of the comparison


def test_it_holds_a_message_until_it_is_old_and_an_old_one_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    worker: Any = converter(Diary(), LingeringConverter)
    waited: list[float] = []
    monkeypatch.setattr(worker.stop, "wait", waited.append)
    record = FakeRecord(INTERMEDIATE)
    for age in (0.0, 0.4, LINGER_S + 5):
        monkeypatch.setattr("time.time", lambda age=age: record.timestamp()[1] / 1000 + age)
        worker.step([record])
    assert waited == [pytest.approx(LINGER_S, abs=0.01), pytest.approx(LINGER_S - 0.4, abs=0.01), 0.0]


def test_it_takes_its_time_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("pipelines_under_test.kappa.converter.Converter.__init__", lambda self: slept.append(0.0))
    SlowlyStartingConverter()
    assert slept == [START_S, 0.0]
