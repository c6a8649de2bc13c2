"""A run as it was stored: all that an assertion ever sees.

`SavedRun` loads lazily, caches everything and touches nothing of the outside world, so a run can be judged again at any
time. Three ways in which a folder cannot be judged, and never a verdict from any of them: `UnfinishedRun` (it has no
manifest), `DamagedRun` (a file differs from what the manifest says, is missing, was added, or cannot be read) and
`HarnessFault` (the run contradicts itself: the source log holds an event that load never intended to send).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from harness.errors import HarnessFault
from harness.ledger import ACKED, AMBIGUOUS, FAILED_TO_SEND, Ledger, ledgers
from harness.run_folder import FORMAT, DamagedRun, RunFolder, UnfinishedRun, check_manifest, must_be_folder, read_json
from harness.saved_hop import PIECE, SavedFile, SavedHop
from harness.settlement import Bits, EventIndex, FaultWindow, Settlement
from harness.topology import Cells, unknown
from load.events import WARMUP, Columns, Plan, cell_of_each, columns, expected_cells, is_poison
from load.profiles import from_dict as profile_from_dict

#: The content of events is made in blocks of 2**16, and so many of them are kept: 50 MB.
_BLOCK_BITS, _BLOCKS_KEPT = 16, 12
#: What identifies one cell of a sink.
CELL = ["dimension", "key", "window_s", "window_start_ms"]

_KAFKA = {"partition": pl.Int32, "offset": pl.Int64}
_PUBSUB = {"message_id": pl.String}
_RECORD = {"created_ms": pl.Int64, "seen_ms": pl.Float64, "producer": pl.Int32, "sequence": pl.Int64, "raw": pl.Binary}
#: The columns of what a tap brings home of a sink: its cells, when single events were counted, when cells appeared.
CELLS = {
    "dimension": pl.String,
    "key": pl.String,
    "window_s": pl.Int32,
    "window_start_ms": pl.Int64,
    "count": pl.Int64,
    "weight": pl.Int64,
}
SEEN = {"producer": pl.Int32, "sequence": pl.Int64, "seen_ms": pl.Float64}
APPEARED = {
    "dimension": pl.String,
    "key": pl.String,
    "window_s": pl.Int32,
    "window_start_ms": pl.Int64,
    "seen_ms": pl.Float64,
}
LINKS = {
    "t": pl.Float64,
    "link": pl.String,
    "connections": pl.Int32,
    "opened": pl.Int64,
    "closed": pl.Int64,
    "requests": pl.Int64,
    "responses": pl.Int64,
}
PROGRESS = {"t": pl.Float64, "hop": pl.String, "count": pl.Int64}
WORK = {"t": pl.Float64, "worker": pl.String, "pid": pl.Int64, "cpu_s": pl.Float64}
COMMITS = {
    "asked": pl.Float64,
    "t": pl.Float64,
    "worker": pl.String,
    "hop": pl.String,
    "partition": pl.Int32,
    "offset": pl.Int64,
}
#: The series of the duplicate monitor, and last what the warehouse said when all was over (`final`).
DUPLICATES = {
    "at_ms": pl.Int64,
    "messages": pl.Int64,
    "events": pl.Int64,
    "before": pl.Float64,
    "settled": pl.Int64,
    "counted": pl.Int64,
    "after": pl.Float64,
    "final": pl.Boolean,
}
#: What the parity query said of each cell.
PARITY = {
    "dimension": pl.String,
    "key": pl.String,
    "window_s": pl.Int32,
    "window_start_ms": pl.Int64,
    "stream": pl.Int64,
    "stream_weight": pl.Int64,
    "batch": pl.Int64,
    "batch_weight": pl.Int64,
    "late": pl.Int64,
    "late_weight": pl.Int64,
    "kind": pl.String,
}


T = TypeVar("T")


class NotObserved(Exception):
    """Something that an assertion needs was not recorded. The finding is inconclusive; the message says what."""


# ---------------------------------------------------------------------------------------------------- reading


class SavedRun:
    """A run as it was stored. Everything an assertion may look at, and nothing else.

    Raises UsageError if there is no such folder, UnfinishedRun or DamagedRun (see above) on `load`, DamagedRun also
    later when a file turns out unreadable, NotObserved when a part is asked for that was never recorded.
    """

    def __init__(self, path: Path, *, sealed: bool) -> None:
        self.path = Path(path)
        self.folder = RunFolder(self.path)
        self.sealed = sealed
        self._frames: dict[str, pl.DataFrame] = {}
        self._files: dict[Path, SavedFile] = {}
        self._blocks: dict[int, Columns] = {}
        self._notes: dict[Hashable, Any] = {}

    @classmethod
    def load(cls, path: Path | str) -> SavedRun:
        """Opens a finished run after checking every file against the manifest. Cost: one pass over all files."""
        path = Path(path)
        must_be_folder(path)
        check_manifest(path)
        return cls(path, sealed=True)

    @classmethod
    def open_unsealed(cls, path: Path | str) -> SavedRun:
        """Opens a run that is still being written: how a run judges itself before it is sealed."""
        path = Path(path)
        must_be_folder(path)
        return cls(path, sealed=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `make()`, computed once a run: for what several assertions derive from the same run."""
        if key not in self._notes:
            self._notes[key] = make()
        return self._notes[key]  # type: ignore[no-any-return]

    # -- what was asked ----------------------------------------------------------------------------------------

    @cached_property
    def meta(self) -> dict[str, Any]:
        """`run.json`."""
        meta = read_json(self.folder.run_json)
        if meta.get("format") != FORMAT:
            raise DamagedRun(f"{self.folder.run_json}: has format {meta.get('format')!r}; this version reads {FORMAT}.")
        missing = [key for key in ("run", "pipeline", "load", "schedule", "assertions") if key not in meta]
        if missing:
            raise DamagedRun(f"{self.folder.run_json}: lacks {', '.join(missing)}.")
        return meta

    @property
    def tag(self) -> str:
        return str(self.meta["run"])

    @property
    def pipeline(self) -> dict[str, Any]:
        return self.meta["pipeline"]

    @property
    def t0(self) -> float:
        """When the first event was due, epoch seconds; a schedule's times count from here."""
        return self._t0_ms / 1000

    @property
    def _t0_ms(self) -> int:
        t0_ms = self.meta["load"].get("t0_ms")
        if t0_ms is None:
            raise NotObserved("the load never began")
        return int(t0_ms)

    @cached_property
    def plan(self) -> Plan:
        """What load was to send, from which every event's content can be made again."""
        return self._plan(self._t0_ms)

    @cached_property
    def warmup_plan(self) -> Plan:
        return self._plan(int(self.meta["load"].get("warmup_t0_ms") or self._t0_ms))

    def _plan(self, t0_ms: int) -> Plan:
        load = self.meta["load"]
        return Plan(
            profile=profile_from_dict(load["profile"]),
            seed=int(self.meta["seed"]),
            users=int(load["users"]),
            t0_ms=t0_ms,
            run=self.tag,
        )

    @cached_property
    def cell_kinds(self) -> list[Cells]:
        """What the sink counts."""
        return [Cells(c["dimension"], tuple(c["key"]), tuple(c["windows_s"])) for c in self.pipeline.get("cells", [])]

    @property
    def late_after_s(self) -> float:
        return float(self.pipeline["late_after_s"])

    # -- hops --------------------------------------------------------------------------------------------------

    @cached_property
    def hops(self) -> dict[str, dict[str, Any]]:
        """The declared hops by name, in the order of the declaration."""
        return {hop["name"]: hop for hop in self.pipeline["hops"]}

    def hops_of_role(self, role: str) -> list[str]:
        return [name for name, hop in self.hops.items() if hop["role"] == role]

    @property
    def source(self) -> str:
        return self.hops_of_role("source")[0]

    @property
    def sink(self) -> str | None:
        return next(iter(self.hops_of_role("sink")), None)

    def has_hop(self, name: str) -> bool:
        """Whether the tap of this hop left a file."""
        return self.folder.hop(name).is_file()

    def hop(self, name: str) -> pl.DataFrame:
        """What the tap of a hop saw, the warm-up included."""
        return self._frame(self._file(name))

    def _file(self, name: str) -> SavedFile:
        if name not in self.hops:
            raise unknown("hop", name, self.hops)
        hop = self.hops[name]
        own = _KAFKA if hop["kind"] == "kafka" else _PUBSUB
        schema = CELLS if self.counts(name) else {**own, **_RECORD}
        return self._stored(self.folder.hop(name), schema, f"the hop {name!r}")

    def counts(self, name: str) -> bool:
        """Whether a hop shows counts by cell, and not single messages."""
        return self.hops[name]["role"] == "sink" or bool(self.hops[name].get("counts"))

    def certified(self, hop: str) -> tuple[bool, str]:
        """Whether the tap of a hop saw all that was there, and if not, why. No record of it means no."""
        records = [record for record in self.of_kind("tap") if record.get("hop") == hop]
        if not records:
            return False, f"no tap of the hop {hop!r} reported"
        for record in records:
            if record.get("certified") is not True:
                return False, str(record.get("reason") or "its tap gave no reason")
        if not self.has_hop(hop):
            return False, f"what its tap saw was not stored (no hops/{hop}.parquet)"
        return True, ""

    def saved_hop(self, name: str) -> SavedHop:
        """A hop with ids, to be read a piece at a time."""
        return self.once(("saved hop", name), lambda: SavedHop(self._file(name), self.events.places, len(self.events)))

    def messages(self, name: str) -> pl.DataFrame:
        """Distinct messages of a hop with ids, all at once: columns producer, sequence, created_ms, seen_ms (its first
        sighting), place (see `EventIndex`; -1 if not an event of this run's load) and what the hop shows of the content.

        Only for what looks at defects: it holds some hundred bytes a message. See `SavedHop`.
        """

        def make() -> pl.DataFrame:
            hop = self.saved_hop(name)
            pieces = list(hop.pieces(*hop.file.columns))
            return pl.concat(pieces) if pieces else hop.file.whole().with_columns(place=pl.lit(0, dtype=pl.Int64))

        return self.once(("messages", name), make)

    def copies(self, name: str) -> np.ndarray:
        """How many distinct messages a hop with ids holds of each event, by place."""
        return self.saved_hop(name).copies

    def events_at(self, name: str) -> np.ndarray:
        """The events seen at a hop with ids, as a boolean array over `events`."""
        return self.saved_hop(name).seen

    def bits_at(self, name: str) -> Bits:
        """The same at a bit an event."""
        return self.saved_hop(name).bits

    def sightings(self, sink: str) -> pl.DataFrame | None:
        """When single events were counted in the sink, if it shows that, a row each time: producer, sequence, seen_ms,
        place. All at once; see `sighting_pieces`."""
        pieces = self.sighting_pieces(sink)
        if pieces is None:
            return None
        none = pl.DataFrame(schema={**SEEN, "place": pl.Int64})
        return self.once(("sightings", sink), lambda: pl.concat([none, *pieces]))

    def sighting_pieces(self, sink: str) -> Iterator[pl.DataFrame] | None:
        """As `sightings`, a piece at a time."""
        path = self.folder.sightings(sink)
        if not path.is_file():
            return None
        file = self._stored(path, SEEN, f"the sightings of {sink!r}")
        return (
            piece.with_columns(
                pl.Series("place", self.events.places(piece["producer"].to_numpy(), piece["sequence"].to_numpy()))
            )
            for piece in (piece.filter(pl.col("producer") != WARMUP) for piece in file.pieces(list(SEEN)))
        )

    def appearances(self, sink: str) -> tuple[pl.DataFrame, np.ndarray] | None:
        """When events that are alone in their cell were counted in a sink that shows only counts, if its tap dated that:
        (producer, sequence, seen_ms, place of those that were; all that must have been, as a boolean array over
        `events`). None if it did not.

        The first declared dimension and window are looked at. An event that shares its cell with others is left out:
        nobody could tell which of them a count stands for. These are a fair sample, since no event knows that it is alone.
        """
        path = self.folder.appearances(sink)
        if not path.is_file():
            return None

        def make() -> tuple[pl.DataFrame, np.ndarray]:
            first = self.cell_kinds[0]
            must = self.settled().must_arrive
            cells = cell_of_each(self.columns(), first, first.windows_s[0]).with_row_index("place").filter(must)
            alone = cells.filter(pl.len().over("key", "window_start_ms") == 1)
            frame = self._frame(self._stored(path, APPEARED, f"the dates of {sink!r}"))
            frame = frame.select("key", "window_start_ms", "seen_ms")
            seen = alone.join(frame, on=["key", "window_start_ms"]).with_columns(pl.col("place").cast(pl.Int64))
            mask = np.zeros(len(must), dtype=bool)
            mask[alone["place"].to_numpy()] = True
            producers, sequences = self.events.events(seen["place"].to_numpy())
            named = seen.with_columns(
                pl.Series("producer", producers, dtype=pl.Int32), pl.Series("sequence", sequences, dtype=pl.Int64)
            )
            return named.select("producer", "sequence", "seen_ms", "place"), mask

        return self.once(("appearances", sink), make)

    # -- cells -------------------------------------------------------------------------------------------------

    def cells(self, hop: str | None = None) -> pl.DataFrame:
        """What a hop of counts (the sink) counted, a row a cell in no order, without the warm-up: cells of the warm-up
        alone are removed, its expected share of a cell that it has in common with the load is subtracted."""
        name = hop or self.sink
        if name is None:
            raise NotObserved("the pipeline declares no sink")
        return self.once(("cells", name), lambda: self._without_warmup(self._file(name).whole()))

    def batch(self) -> pl.DataFrame:
        """The batch truth, a row a cell in no order, without the warm-up."""

        def make() -> pl.DataFrame:
            frame = self._stored(self.folder.batch, CELLS, "the batch truth").whole()
            return self._without_warmup(frame, late=True)

        return self.once("batch", make)

    @property
    def warehouse(self) -> dict[str, Any]:
        """What the pipeline declares of its warehouse."""
        found = self.pipeline.get("warehouse")
        if found is None:
            raise NotObserved("the pipeline declares no warehouse")
        return dict(found)

    def warehouse_duplicates(self) -> pl.DataFrame:
        """The series of the duplicate monitor, by time, and last what the warehouse said when all was over (`final`)."""
        frame = self._frame(
            self._stored(self.folder.warehouse("duplicates"), DUPLICATES, "what the warehouse says of duplicates")
        )
        return frame.sort("final", "at_ms")

    def warehouse_parity(self) -> pl.DataFrame:
        """What the warehouse's parity query said of each cell, in no order, without the cells of the warm-up."""
        frame = self._frame(self._stored(self.folder.warehouse("parity"), PARITY, "what the warehouse says of parity"))
        warm = self._warmup_cells().join(self.expected(), on=CELL, how="anti")
        return frame.join(warm, on=CELL, how="anti")

    def expected(self) -> pl.DataFrame:
        """What the sink must hold, from the generator: dimension, key, window_s, window_start_ms, count, weight,
        late_count, late_weight, for the events that must arrive."""
        return self.once("expected", lambda: self.expected_of(self.settled().must_arrive))

    def undecided(self) -> pl.DataFrame:
        """Cells of events that were acknowledged and are not in the source log: whether they should have been counted
        nobody can say."""
        return self.once("undecided", lambda: self.expected_of(self.settled().acked_but_absent))

    def expected_of(self, mask: np.ndarray) -> pl.DataFrame:
        """What the sink would hold if exactly these events (a boolean array over `events`) arrived."""
        frame = expected_cells(self.plan, self.cell_kinds, self.events.masks(mask), self.late_after_s)
        return frame.cast(dict(CELLS) | {"late_count": pl.Int64, "late_weight": pl.Int64})  # type: ignore[arg-type]

    def _without_warmup(self, frame: pl.DataFrame, *, late: bool = False) -> pl.DataFrame:
        # A sink that spreads a cell over rows is summed by its tap; summing again costs little and is always right.
        frame = frame.group_by(CELL).agg(pl.col("count").sum(), pl.col("weight").sum())
        warm = self._warmup_cells()
        if warm.height:
            if late:
                warm = warm.with_columns(
                    count=pl.col("count") - pl.col("late_count"), weight=pl.col("weight") - pl.col("late_weight")
                )
            ours = self.expected().select([*CELL, pl.lit(True).alias("ours")])
            warm = warm.select([*CELL, "count", "weight"]).join(ours, on=CELL, how="left")
            frame = (
                frame.join(warm, on=CELL, how="left", suffix="_warm")
                .filter(pl.col("count_warm").is_null() | pl.col("ours").is_not_null())
                .with_columns(
                    count=pl.col("count") - pl.col("count_warm").fill_null(0),
                    weight=pl.col("weight") - pl.col("weight_warm").fill_null(0),
                )
                .select([*CELL, "count", "weight"])
            )
        return frame.filter((pl.col("count") != 0) | (pl.col("weight") != 0))

    def _warmup_cells(self) -> pl.DataFrame:
        """What the events of the warm-up add to the sink: those of them that are in the source log."""

        def make() -> pl.DataFrame:
            pieces = self._file(self.source).pieces(["producer", "sequence"])
            warm = [piece.filter(pl.col("producer") == WARMUP)["sequence"].to_numpy() for piece in pieces]
            sequences = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *warm]))
            if not len(sequences):
                return pl.DataFrame(schema={**CELLS, "late_count": pl.Int64, "late_weight": pl.Int64})
            frame = expected_cells(self.warmup_plan, self.cell_kinds, {WARMUP: sequences}, self.late_after_s)
            return frame.cast(dict(CELLS) | {"late_count": pl.Int64, "late_weight": pl.Int64})  # type: ignore[arg-type]

        return self.once("warm-up cells", make)

    # -- events ------------------------------------------------------------------------------------------------

    @cached_property
    def ledger(self) -> Ledger:
        """Of all the load's processes."""
        return self._ledger(self.folder.ledger)

    @cached_property
    def warmup_ledger(self) -> Ledger:
        return self._ledger(self.folder.warmup_ledger)

    def _ledger(self, path: Path) -> Ledger:
        if not (found := ledgers(path)):
            raise NotObserved(f"there is no {path.name}: what load sent was not stored")
        return Ledger.read(*found)

    @cached_property
    def events(self) -> EventIndex:
        """All events of the plan. HarnessFault if the ledger knows events that the plan does not."""
        sizes = {producer: self.plan.events_of(producer) for producer in self.plan.producers}
        for producer in self.ledger.producers:
            last = int(self.ledger.of(producer).hi[-1]) - 1
            if last >= sizes.get(producer, 0):
                raise HarnessFault(
                    f"{self.folder.ledger}: producer {producer} meant to send event {last}, but the plan "
                    f"has {sizes.get(producer, 0)} events for it."
                )
        return EventIndex(sizes)

    def columns(self) -> Columns:
        """The content of every event of the plan, by place, all at once: some 60 bytes an event. See `content_of`."""
        blocks = max(1, -(-len(self.events) >> _BLOCK_BITS))
        return self.once("columns", lambda: _joined([self._block(number) for number in range(blocks)]))

    def content_of(self, places: np.ndarray, fields: Sequence[str]) -> dict[str, np.ndarray]:
        """What was generated for these events, in the order given, by field; fields of `CATEGORIES` as codes.

        Made a block at a time, of which some are kept: cheap for events that lie close together.
        """
        if not len(places):
            return {field: getattr(self._block(0), field)[:0] for field in fields}
        block = places >> _BLOCK_BITS
        least, most = int(block.min()), int(block.max())
        if most - least < _BLOCKS_KEPT:
            around, index = [self._block(number) for number in range(least, most + 1)], places - (least << _BLOCK_BITS)
            return {f: _end_to_end([getattr(one, f) for one in around])[index] for f in fields}
        found: dict[str, np.ndarray] = {}
        for number in np.unique(block):
            some = np.flatnonzero(block == number)
            index = places[some] - (number << _BLOCK_BITS)
            for field in fields:
                values = getattr(self._block(int(number)), field)[index]
                found.setdefault(field, np.empty(len(places), dtype=values.dtype))[some] = values
        return found

    def _block(self, number: int) -> Columns:
        """The content of the events of one block of places."""
        if number not in self._blocks:
            begin, end = number << _BLOCK_BITS, min((number + 1) << _BLOCK_BITS, len(self.events))
            parts: list[Columns] = []
            while begin < end or not parts:  # a block may hold events of several producers
                producer, sequence = (int(x[0]) for x in self.events.events(np.array([begin])))
                some = min(end - begin, self.events.sizes[producer] - sequence)
                parts.append(columns(self.plan, producer, sequence, some))
                begin += some
            if len(self._blocks) >= _BLOCKS_KEPT:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[number] = _joined(parts)
        return self._blocks[number]

    def event_id(self, place: int) -> str:
        producer, sequence = self.events.events(np.array([place]))
        return f"{self.tag}-{int(producer[0]):04d}-{int(sequence[0]):010d}"

    def settled(self) -> Settlement:
        """What became of each event, settled at the source log.

        Raises HarnessFault (exit 4) if the log holds a record that load never intended: then the harness is wrong, and
        nothing it says about the pipeline can be believed.
        """
        return self.once("settled", self._settle)

    def _settle(self) -> Settlement:
        index = self.events

        def collect(status: int) -> Bits:
            found = np.zeros(len(index), dtype=bool)
            for producer, mask in index.masks(found).items():
                mask |= self.ledger.of(producer).of(status).mask(len(mask))
            return Bits.of(found)

        sets = {"acked": ACKED, "ambiguous": AMBIGUOUS, "failed": FAILED_TO_SEND}
        kept = {name: collect(status) for name, status in sets.items()}
        intended = kept["acked"] | kept["ambiguous"] | kept["failed"]
        log = self.saved_hop(self.source)
        if log.strangers or len(log.bits - intended):
            self._tell_strange(intended.mask())
        kept |= {"in_source_log": log.bits, "poison": Bits.of(self._poison())}
        return Settlement(index, log.messages - len(log.bits), **kept)

    def _poison(self) -> np.ndarray:
        parts = [
            is_poison(self.plan, producer, np.arange(begin, min(begin + PIECE, size)))
            for producer, size in sorted(self.events.sizes.items())
            for begin in range(0, size, PIECE)
        ]
        return np.concatenate([np.zeros(0, dtype=bool), *parts])

    def _tell_strange(self, intended: np.ndarray) -> None:
        log = self.messages(self.source)
        places = log["place"].to_numpy()
        known = places >= 0
        known[known] = intended[places[known]]
        strange = log.filter(~pl.Series(known))
        first = strange.row(0, named=True)
        what = (
            f"{self.tag}-{first['producer']:04d}-{first['sequence']:010d}"
            if first["producer"] >= 0
            else f"a record that shows no id of this run: {(first.get('raw') or b'')[:80]!r}"
        )
        where = f"partition {first['partition']}, offset {first['offset']}" if "offset" in first else "its log"
        raise HarnessFault(
            f"The source log {self.source!r} holds {strange.height} record(s) that load never intended to send; "
            f"the first is {what} ({where}). The harness, or something else that writes to the topic, is wrong; "
            "nothing can be judged."
        )

    # -- what happened -----------------------------------------------------------------------------------------

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The records of the history, by time."""
        records = []
        path = self.folder.history
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError as error:
            raise DamagedRun(f"{path}: is missing.") from error
        torn = lines.pop()
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                record["t"], record["kind"]
            except (ValueError, KeyError, TypeError) as error:
                raise DamagedRun(f"{path}: line {number} is not a record of a history.") from error
            records.append(record)
        if torn and self.sealed:
            raise DamagedRun(f"{path}: the last line was cut off.")
        return sorted(records, key=lambda record: record["t"])

    def of_kind(self, *kinds: str) -> list[dict[str, Any]]:
        return [record for record in self.history if record["kind"] in kinds]

    @cached_property
    def stages(self) -> dict[str, float]:
        """When each stage began, epoch seconds, in their order."""
        return {record["stage"]: record["t"] for record in self.of_kind("stage")}

    def faults(self) -> list[FaultWindow]:
        """The faults that were injected, by their start."""
        return self.once("faults", self._faults)

    def _faults(self) -> list[FaultWindow]:
        schedule = self.meta["schedule"]
        end = self.history[-1]["t"] if self.history else 0.0
        waiting: dict[tuple[int, str], list[int]] = {}
        windows: list[FaultWindow] = []
        for record in self.of_kind("fault-start", "fault-end"):
            index, target = int(record["index"]), str(record.get("target", ""))
            seen = {k: v for k, v in record.items() if k not in ("t", "kind", "index", "fault", "target")}
            active = waiting.setdefault((index, target), [])
            if record["kind"] == "fault-start":
                params = seen.pop("params", None)
                if params is None and 0 <= index < len(schedule):
                    params = schedule[index].get("params")
                active.append(len(windows))
                windows.append(
                    FaultWindow(
                        index=index,
                        fault=str(record["fault"]),
                        target=target,
                        service=processes_beside(self.meta, target)[0],
                        start=record["t"],
                        end=end,
                        params=params or {},
                        observations=seen,
                        at_start=seen,
                        healed=False,
                    )
                )
            elif active:
                place = active.pop(0)
                begun = windows[place]
                windows[place] = dataclasses.replace(
                    begun, end=record["t"], at_end=seen, observations={**begun.at_start, **seen}, healed=True
                )
        return windows

    @cached_property
    def links(self) -> pl.DataFrame:
        """Samples of the links: t (epoch seconds), link, connections, opened, closed, requests, responses."""
        return self._frame(self._stored(self.folder.links, LINKS, "the samples of the links"))

    @cached_property
    def progress(self) -> pl.DataFrame:
        """Samples of the hops: t (epoch seconds), hop, count."""
        return self._frame(self._stored(self.folder.progress, PROGRESS, "the samples of the hops"))

    @cached_property
    def work(self) -> pl.DataFrame:
        """Samples of workers without a link: t (epoch seconds), worker, pid, cpu_s (the processor time of that process and
        its children, in seconds)."""
        return self._frame(self._stored(self.folder.work, WORK, "the samples of workers without a link"))

    @cached_property
    def commits(self) -> pl.DataFrame:
        """Samples of what the consumer groups had committed: asked and t (epoch seconds; it was so at some moment
        between them), worker, hop that it reads, partition, offset. Empty for a run that did not record it."""
        if not self.folder.commits.is_file():
            return pl.DataFrame(schema=COMMITS)
        return self._frame(self._stored(self.folder.commits, COMMITS, "the samples of the committed offsets"))

    # -- reading files -----------------------------------------------------------------------------------------

    def _stored(self, path: Path, schema: Mapping[str, Any], what: str) -> SavedFile:
        if path not in self._files:
            if not path.is_file():
                raise NotObserved(f"{what} was not stored (no {path.relative_to(self.path).as_posix()})")
            self._files[path] = SavedFile(path, schema)
        return self._files[path]

    def _frame(self, file: SavedFile) -> pl.DataFrame:
        key = str(file.path)
        if key not in self._frames:
            self._frames[key] = file.whole()
        return self._frames[key]


def _joined(parts: Sequence[Columns]) -> Columns:
    return Columns(**{f.name: _end_to_end([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Columns)})


def _end_to_end(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def processes_beside(meta: Mapping[str, Any], process: str) -> tuple[str, list[str]]:
    """The service of which a process has this name, and the names of all its processes; ("", []) if none has."""
    for service in meta["pipeline"].get("services", []):
        processes = service.get("processes", [service["name"]])
        if process in processes:
            return service["name"], processes
    return "", []


__all__ = [
    "CELL",
    "FORMAT",
    "DamagedRun",
    "EventIndex",
    "FaultWindow",
    "HarnessFault",
    "NotObserved",
    "RunFolder",
    "SavedRun",
    "Settlement",
    "UnfinishedRun",
]
