"""The workers' order of things: output first, settled second, input committed last; and the patience between."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from test_kappa_events import EVENT, SOURCE

from pipelines_under_test.kappa import events, kafka, rpc
from pipelines_under_test.kappa.aggregator import Decode, Refused, Settings, Update, Write
from pipelines_under_test.kappa.compaction import Horizon
from pipelines_under_test.kappa.converter import Converter
from pipelines_under_test.kappa.preprocessor import Preprocessor
from pipelines_under_test.kappa.subscription import Mark, MarkCoder, PubsubRecord, Reader
from pipelines_under_test.kappa.table import RawMutated, Table
from pipelines_under_test.kappa.worker import Fatal, Progress, Stopped
from pipelines_under_test.mutants.commit_before_publish import HastyConverter
from pipelines_under_test.mutants.fresh_uuid import ForgetfulPublisher
from pipelines_under_test.mutants.poison_dropped import CarelessPreprocessor

LOG = logging.getLogger("test")
KAPPA = Path(events.__file__).parent


class FakeRecord:
    def __init__(self, value: bytes, offset: int = 0) -> None:
        self._value, self._offset = value, offset

    def value(self) -> bytes:
        return self._value

    def key(self) -> bytes:
        return b"key"

    def topic(self) -> str:
        return "topic"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_790_000_000_000


class Diary:
    """Stands for sink, source and publisher at once, and writes down what was asked of it."""

    def __init__(self, broken: str = "") -> None:
        self.entries: list[tuple[Any, ...]] = []
        self.broken = broken

    def _note(self, what: str, *rest: Any) -> None:
        if what == self.broken:
            raise Fatal(what)
        self.entries.append((what, *rest))

    def write(
        self, topic: str, value: bytes, key: bytes | None = None, headers: Any = None, created_ms: int = 0
    ) -> None:
        self._note("write", topic, value, headers, created_ms)

    def settle(self) -> None:
        self._note("settle")

    def commit(self, records: Any) -> None:
        self._note("commit", [r.offset() for r in records])

    def publish(self, messages: Any) -> None:
        self._note("publish", list(messages))

    def said(self) -> list[str]:
        return [entry[0] for entry in self.entries]


class Inline:
    """An executor that runs at once."""

    def submit(self, function: Any, *args: Any) -> Any:
        value = function(*args)
        return type("Done", (), {"result": lambda self: value})()


def preprocessor(diary: Diary, kind: type[Preprocessor] = Preprocessor) -> Preprocessor:
    worker = object.__new__(kind)
    worker.__dict__.update(
        name="pre-1",
        intermediate="intermediate",
        dead_letters="dead",
        log=LOG,
        progress=Progress(LOG),
        sink=diary,
        source=diary,
    )
    return worker


def converter(diary: Diary, kind: type[Converter] = Converter) -> Converter:
    worker = object.__new__(kind)
    worker.__dict__.update(
        name="con-1",
        dead_letters="dead",
        log=LOG,
        progress=Progress(LOG),
        sink=diary,
        source=diary,
        publisher=diary,
        pool=Inline(),
        stop=threading.Event(),
        buffer=[],
        lock=threading.Lock(),
        failed=None,
    )
    return worker


# --------------------------------------------------------------------------------------------------- preprocessor


def test_the_preprocessor_commits_only_after_everything_was_acknowledged() -> None:
    diary = Diary()
    preprocessor(diary).step([FakeRecord(SOURCE, 4), FakeRecord(b"{", 5)])
    assert diary.said() == ["write", "write", "settle", "commit"]


def test_what_follows_from_a_record_is_as_old_as_it_is() -> None:
    diary = Diary()
    preprocessor(diary).step([FakeRecord(SOURCE, 4)])
    assert diary.entries[0][-1] == 1_790_000_000_000


@pytest.mark.parametrize("broken", ["write", "settle"])
def test_the_preprocessor_does_not_commit_what_was_not_written(broken: str) -> None:
    diary = Diary(broken)
    with pytest.raises(Fatal):
        preprocessor(diary).step([FakeRecord(SOURCE)])
    assert "commit" not in diary.said()


def test_poison_goes_to_the_dead_letters_with_reason_origin_and_its_own_bytes() -> None:
    diary = Diary()
    preprocessor(diary).step([FakeRecord(SOURCE[:50], 17)])
    _, topic, value, headers, _ = diary.entries[0]
    assert (topic, value) == ("dead", SOURCE[:50])
    assert headers == {"reason": b"not JSON", "worker": b"pre-1", "topic": b"topic", "partition": b"3", "offset": b"17"}


def test_the_mutant_drops_poison() -> None:
    diary = Diary()
    preprocessor(diary, CarelessPreprocessor).step([FakeRecord(SOURCE[:50], 17)])
    assert diary.said() == ["settle", "commit"]


# ------------------------------------------------------------------------------------------------------ converter


def test_the_converter_commits_only_after_the_publish_was_acknowledged() -> None:
    diary = Diary()
    converter(diary).step([FakeRecord(events.to_intermediate(EVENT), 9)])
    assert diary.said() == ["settle", "publish", "commit"]


def test_the_converter_does_not_commit_what_was_not_published() -> None:
    diary = Diary("publish")
    with pytest.raises(Fatal):
        converter(diary).step([FakeRecord(events.to_intermediate(EVENT))])
    assert "commit" not in diary.said()


def test_the_mutant_commits_what_was_not_published() -> None:
    diary = Diary("publish")
    converter(diary, HastyConverter).step([FakeRecord(events.to_intermediate(EVENT))])
    assert diary.said() == ["settle", "commit"]


def test_a_message_carries_the_uuid_of_its_event_and_where_it_comes_from() -> None:
    message = converter(Diary()).message(FakeRecord(events.to_intermediate(EVENT), 9), 1_790_000_000_123)
    assert events.from_message(message.data) == EVENT
    assert dict(message.attributes) == {
        "uuid": events.uuid_of(EVENT.event_id),
        "source": "topic/3/9",
        "created_at_ms": "1790000000000",
        "converter": "con-1",
        "converted_at_ms": "1790000000123",
    }


def test_a_replayed_record_gets_the_same_uuid_whatever_its_new_offset() -> None:
    worker, raw = converter(Diary()), events.to_intermediate(EVENT)
    uuids = {worker.message(FakeRecord(raw, offset), offset).attributes["uuid"] for offset in range(5)}
    assert len(uuids) == 1


def test_the_mutant_gives_every_attempt_another_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(
        "pipelines_under_test.kappa.converter.Publisher.attempt",
        lambda self, messages, channel: sent.extend(m.attributes["uuid"] for m in messages),
    )
    publisher = ForgetfulPublisher(Diary(), "topic")  # type: ignore[arg-type]
    messages = [converter(Diary()).message(FakeRecord(events.to_intermediate(EVENT)), 0)]
    publisher.attempt(messages, None)  # type: ignore[arg-type]
    publisher.attempt(messages, None)  # type: ignore[arg-type]
    assert len(set(sent)) == 2


def test_an_unreadable_intermediate_record_is_a_dead_letter_and_blocks_nobody() -> None:
    diary = Diary()
    converter(diary).step([FakeRecord(b"?", 1), FakeRecord(events.to_intermediate(EVENT), 2)])
    assert diary.said() == ["write", "settle", "publish", "commit"]
    assert diary.entries[-1] == ("commit", [1, 2])


# ----------------------------------------------------------------------------------------------------- aggregator

NOW_MS = 1_790_000_020_000


def record(event: events.Event = EVENT, **attributes: str) -> PubsubRecord:
    return PubsubRecord(events.to_message(event), {"uuid": events.uuid_of(event.event_id), **attributes}, "1")


def test_a_message_becomes_one_cell_in_each_dimension() -> None:
    update = Decode(Horizon()).decode(record(), NOW_MS)
    assert isinstance(update, Update)
    cells = dict(update.cells())
    assert [key.split(b"#", 1)[1] for key in cells] == [
        b"1790000012#tweet#1234567890123456789",
        b"1790000012#author#1000000007",
    ]
    assert len(set(cells.values())) == 1


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (PubsubRecord(b"?", {}, "1"), "not JSON"),
        (PubsubRecord(events.to_message(EVENT), {}, "1"), "attribute missing: uuid"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(message: PubsubRecord, why: str) -> None:
    assert Decode(Horizon()).decode(message, NOW_MS) == Refused(message, why)


def test_an_event_past_the_horizon_is_refused_and_one_before_is_not() -> None:
    decode = Decode(Horizon(horizon_s=60, grace_s=10))
    end_ms = 1_790_000_040_000  # of the event's minute
    assert isinstance(decode.decode(record(), end_ms + 60_000), Update)
    assert decode.decode(record(), end_ms + 60_001) == Refused(record(), "past the deduplication horizon")


def test_refused_messages_are_published_after_the_counts_and_before_the_bundle_ends() -> None:
    said: list[str] = []
    for_ever = Horizon(horizon_s=1e9)
    write = Write(Settings("agg", "", "", "", "", "", for_ever))
    write.count = lambda updates: said.append(f"count {len(updates)}")  # type: ignore[method-assign]
    write.publish_refused = lambda refused: said.append(f"refuse {len(refused)}")  # type: ignore[method-assign]
    write.start_bundle()
    for decoded in Decode(for_ever).process([record(), PubsubRecord(b"?", {}, "2")]):
        write.process(decoded)
    assert said == []
    write.finish_bundle()
    assert said == ["count 1", "refuse 1"]


class FakeSubscription:
    def __init__(self) -> None:
        self.settled: list[str] = []
        self.stop = threading.Event()

    def take(self) -> list[Any]:
        message = type("M", (), {"data": b"d", "attributes": {"a": "b"}, "message_id": "7"})()
        return [type("R", (), {"ack_id": "ack-7", "message": message})()]

    def settle(self, ack_ids: list[str]) -> None:
        self.settled.extend(ack_ids)


def test_a_reader_acknowledges_in_finalization_and_not_before() -> None:
    subscription = FakeSubscription()
    reader = Reader(subscription)  # type: ignore[arg-type]
    assert reader.start()
    assert reader.get_current() == [PubsubRecord(b"d", {"a": "b"}, "7")]
    mark = reader.get_checkpoint_mark()
    assert subscription.settled == []
    mark.finalize_checkpoint()
    assert subscription.settled == ["ack-7"]


def test_each_mark_holds_the_messages_of_its_own_bundle_only() -> None:
    reader = Reader(FakeSubscription())  # type: ignore[arg-type]
    reader.start()
    first = reader.get_checkpoint_mark()
    assert (len(first.ack_ids), len(reader.get_checkpoint_mark().ack_ids)) == (1, 0)


def test_the_copy_of_a_mark_that_the_runner_keeps_acknowledges_nothing() -> None:
    subscription = FakeSubscription()
    coder = MarkCoder()
    coder.decode(coder.encode(Mark(subscription, ["x"]))).finalize_checkpoint()  # type: ignore[arg-type]
    assert subscription.settled == []


# ------------------------------------------------------------------------------------------------------- patience


class FakeError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__()
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "made up"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(rpc, "LONGEST_DELAY_S", 0.002)


def connection(stop: threading.Event | None = None) -> rpc.Connection:
    return rpc.Connection("127.0.0.1:1", stop or threading.Event(), LOG)


@pytest.mark.parametrize("code", sorted(rpc.TRANSIENT, key=lambda c: c.name))
def test_a_call_is_repeated_until_it_succeeds(code: grpc.StatusCode) -> None:
    failures = [FakeError(code)] * 5

    def attempt(_: grpc.Channel) -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert connection().insist("call", attempt) == "done"


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT])
def test_a_call_that_can_never_succeed_is_fatal_at_once(code: grpc.StatusCode) -> None:
    calls = []

    def attempt(_: grpc.Channel) -> None:
        calls.append(1)
        raise FakeError(code)

    with pytest.raises(Fatal, match=code.name):
        connection().insist("call", attempt)
    assert len(calls) == 1


def test_patience_ends_when_the_worker_is_asked_to_stop() -> None:
    stop = threading.Event()

    def attempt(_: grpc.Channel) -> None:
        stop.set()
        raise FakeError(grpc.StatusCode.UNAVAILABLE)

    with pytest.raises(Stopped):
        connection(stop).insist("call", attempt)


def test_two_missed_deadlines_in_a_row_make_a_new_connection() -> None:
    link = connection()
    first, seen = link.channel, []

    def attempt(channel: grpc.Channel) -> None:
        seen.append(channel is first)
        if len(seen) <= 2:
            raise FakeError(grpc.StatusCode.DEADLINE_EXCEEDED)

    link.insist("call", attempt)
    assert seen == [True, True, False]


def test_deadlines_missed_now_and_then_do_not() -> None:
    link = connection()
    first = link.channel
    for _ in range(3):
        errors = [FakeError(grpc.StatusCode.DEADLINE_EXCEEDED)]

        def attempt(_: grpc.Channel, errors: list[FakeError] = errors) -> None:
            if errors:
                raise errors.pop()

        link.insist("call", attempt)
    assert link.channel is first


# ---------------------------------------------------------------------------------------------------------- table


class Answers:
    """A channel whose MutateRows answers with these (index, status code) each time, and notes what was sent."""

    def __init__(self, *answers: list[tuple[int, int]]) -> None:
        self.answers, self.sent = list(answers), list[int]()

    def unary_stream(self, *_: Any) -> Any:
        from pipelines_under_test.kappa.table import RawMutate

        def call(request: bytes, timeout: float) -> Any:
            self.sent.append(len(RawMutate.FromString(request).entries))
            answer = RawMutated()
            for index, code in self.answers.pop(0):
                answer.entries.add(index=index).status.code = code
            return [answer]

        return call


def table(channel: Answers) -> Table:
    made = Table("127.0.0.1:1", "table", threading.Event(), LOG)
    made.connection._channel = channel  # type: ignore[assignment]
    return made


CELLS = {b"a": [(b"q", b"1|x")], b"b": [(b"q", b"1|x")], b"c": [(b"q", b"1|x")]}


def test_only_rows_that_failed_are_written_again() -> None:
    channel = Answers([(0, 0), (1, 14), (2, 0)], [(0, 0)])
    table(channel).add_seen(CELLS)
    assert channel.sent == [3, 1]


def test_rows_that_the_answer_does_not_mention_are_written_again() -> None:
    channel = Answers([(2, 0)], [(0, 0), (1, 0)])
    table(channel).add_seen(CELLS)
    assert channel.sent == [3, 2]


def test_a_row_that_can_never_be_written_is_fatal() -> None:
    with pytest.raises(Fatal, match="not accepted"):
        table(Answers([(0, 0), (1, 3), (2, 0)])).add_seen(CELLS)


def test_a_write_that_the_horizon_overtook_is_not_sent() -> None:
    channel = Answers([(0, 14), (1, 14), (2, 14)])
    with pytest.raises(Fatal, match="horizon"):
        table(channel).add_seen(CELLS, lambda: bool(channel.sent))
    assert channel.sent == [3]


# ---------------------------------------------------------------------------------------- who may import whom


@pytest.mark.parametrize(
    "module",
    [
        "kappa.preprocessor",
        "kappa.converter",
        "kappa.aggregator",
        "kappa.batch",
        "stock_beam.aggregator",
        "mutants.ack_before_write",
        "mutants.blind_increment",
    ],
)
def test_a_worker_imports_nothing_of_the_harness(module: str) -> None:
    code = (
        f"import sys, pipelines_under_test.{module}\n"
        "ours = ('harness', 'faults', 'load', 'assertions')\n"
        "print([m for m in sys.modules if m.split('.')[0] in ours])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_batch_truth_shares_no_code_with_the_workers() -> None:
    tree = ast.parse((KAPPA / "batch.py").read_text())
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not [m for m in imported if m and m.startswith("pipelines_under_test")]


class Member:
    """A consumer of a group. `deaf`: it is never told that its partitions are gone."""

    def __init__(self, deaf: bool = False) -> None:
        self.done: list[str] = []
        self.deaf = deaf
        self.source: Any = None

    def unsubscribe(self) -> None:
        self.done.append("unsubscribe")

    def poll(self, _: float) -> None:
        self.done.append("poll")
        if not self.deaf:
            self.source._on_revoke(self, [])

    def close(self) -> None:
        self.done.append("close")


@pytest.mark.parametrize("deaf", [False, True])
def test_a_worker_that_ends_leaves_its_group_and_waits_for_that_but_not_for_ever(
    deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing alone does not, for a static member: its partitions would be nobody's until its session ends."""
    monkeypatch.setattr(kafka, "LEAVE_WITHIN_S", 0.01)
    member, source = Member(deaf), object.__new__(kafka.Source)
    member.source = source
    source.__dict__.update(_consumer=member, _topic="t", _log=LOG, revoked=False)
    source.close()
    assert (member.done[0], member.done[1], member.done[-1]) == ("unsubscribe", "poll", "close")
    assert deaf or member.done == ["unsubscribe", "poll", "close"]
