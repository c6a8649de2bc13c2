"""A hop's file of a saved run, read a piece at a time: whatever the length of the run, a piece is all that is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.run_folder import DamagedRun
from harness.settlement import Bits
from harness.topology import CONTENT_FIELDS

#: Rows of a piece: a row group as polars writes them.
PIECE = 1 << 18
#: Message ids that lie further apart than so many times their number are compared as texts.
_SPARSE = 16
#: What a message need not show, and rates of nothing.
_MAY_BE_EMPTY = ("raw", "created_ms", "before", "after")


@dataclass(frozen=True)
class Several:
    """Events that a hop holds more than once: their places, ascending, and how many distinct messages of each."""

    places: np.ndarray
    copies: np.ndarray


@dataclass(frozen=True)
class _Counted:
    """Of a hop: messages, those of no event of the load, the events seen, and those seen more than once."""

    messages: int
    strangers: int
    seen: Bits
    several: Several


class SavedFile:
    """A Parquet file of which the columns must have certain types. Raises DamagedRun where they have not."""

    def __init__(self, path: Path, schema: Mapping[str, Any]) -> None:
        self.path, self._schema = path, schema

    @cached_property
    def columns(self) -> list[str]:
        """The names of its columns; all that must be there are."""
        found = list(self._reading(lambda: pl.read_parquet_schema(self.path)))
        missing = [column for column in self._schema if column not in found and column != "raw"]
        if missing:
            raise DamagedRun(f"{self.path}: lacks the column(s) {', '.join(missing)}; it has {', '.join(found)}.")
        return found

    @cached_property
    def rows(self) -> int:
        return int(self._reading(lambda: pl.scan_parquet(self.path).select(pl.len()).collect()).item())

    def whole(self) -> pl.DataFrame:
        return self._in_shape(self._reading(lambda: pl.read_parquet(self.path, use_statistics=False)))

    def pieces(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """All rows in their order, a piece at a time, with those of the columns that the file has."""
        some = [column for column in self.columns if column in columns]
        for begin in range(0, self.rows, PIECE):
            yield self._in_shape(self._reading(lambda begin=begin: self._read(some, begin)))  # type: ignore[misc]

    def _read(self, columns: Sequence[str], begin: int) -> pl.DataFrame:
        scan = pl.scan_parquet(self.path, use_statistics=False, low_memory=True)
        return scan.select(columns).slice(begin, PIECE).collect()

    def _reading(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (Exception, pl.exceptions.PanicException) as error:  # a panic is a BaseException
            raise DamagedRun(f"{self.path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error

    def _in_shape(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with exactly the declared types; content columns, where there are any, in theirs."""
        assert self.columns
        types = {int: pl.Int64, str: pl.String}
        known = {**{k: types[t] for k, t in CONTENT_FIELDS.items()}, "content_read": pl.Boolean, **self._schema}
        try:
            frame = frame.cast({k: v for k, v in known.items() if k in frame.columns}, strict=True)
        except pl.exceptions.PolarsError as error:
            raise DamagedRun(f"{self.path}: a column is not of its type: {str(error).splitlines()[0]}") from error
        holes = [c for c in self._schema if c not in _MAY_BE_EMPTY and c in frame and frame[c].null_count()]
        if holes:
            raise DamagedRun(f"{self.path}: the column(s) {', '.join(holes)} have empty values.")
        return frame


class SavedHop:
    """What the tap of a hop with ids saw. A message is a Kafka record (partition, offset) or a Pub/Sub message_id: what a
    tap read twice counts once, at its first sighting. The warm-up is left out."""

    def __init__(self, file: SavedFile, places: Callable[[np.ndarray, np.ndarray], np.ndarray], events: int) -> None:
        """`places`: the place of each event by its producer and sequence, -1 for none of this run's load."""
        self.file = file
        self._places, self._events = places, events
        self._key = ["message_id"] if "message_id" in file.columns else ["partition", "offset"]

    def pieces(self, *columns: str) -> Iterator[pl.DataFrame]:
        """Distinct messages in the order of the file, with `producer`, `sequence`, `place` and these columns."""
        repeated = self._repeated
        begin = 0
        for piece in self.file.pieces(["producer", "sequence", *columns]):
            keep = piece["producer"].to_numpy() != 0
            if repeated is not None:
                keep &= ~repeated[begin : begin + len(piece)]
            begin += len(piece)
            if not keep.all():
                piece = piece.filter(pl.Series(keep))
            places = self._places(piece["producer"].to_numpy(), piece["sequence"].to_numpy())
            yield piece.with_columns(pl.Series("place", places, dtype=pl.Int64))

    @property
    def messages(self) -> int:
        return self._counted.messages

    @property
    def strangers(self) -> int:
        """Messages of no event of this run's load."""
        return self._counted.strangers

    @property
    def seen(self) -> np.ndarray:
        """The events of which it holds any message, as a boolean array by place."""
        return self._counted.seen.mask()

    @property
    def bits(self) -> Bits:
        """The same at a bit an event."""
        return self._counted.seen

    @property
    def several(self) -> Several:
        """The events of which it holds more than one."""
        return self._counted.several

    @property
    def copies(self) -> np.ndarray:
        """How many messages it holds of each event, by place."""
        found = self.seen.astype(np.int64)
        found[self.several.places] = self.several.copies
        return found

    @cached_property
    def _counted(self) -> _Counted:
        seen = np.zeros(self._events, dtype=bool)
        further: list[np.ndarray] = []
        messages = strangers = 0
        for piece in self.pieces():
            places = piece["place"].to_numpy()
            places = places[places >= 0]
            messages, strangers = messages + len(piece), strangers + len(piece) - len(places)
            known = seen[places]
            further.append(places[known])
            places = places[~known]
            if _mark(seen, places) < len(places):
                distinct, times = np.unique(places, return_counts=True)
                further.append(np.repeat(distinct, times - 1))
        several, more = np.unique(np.concatenate(further or [np.zeros(0, np.int64)]), return_counts=True)
        return _Counted(messages, strangers, Bits.of(seen), Several(several, more + 1))

    @cached_property
    def _repeated(self) -> np.ndarray | None:
        """The rows of messages that another row shows earlier, as a boolean array; None if there are none."""
        if (self._ids_repeat if self._key == ["message_id"] else self._offsets_repeat)():
            rows = pl.scan_parquet(self.file.path).select([*self._key, "seen_ms"]).with_row_index("row").collect()
            first = rows.sort("seen_ms", maintain_order=True).unique(self._key, keep="first", maintain_order=True)
            repeated = np.ones(len(rows), dtype=bool)
            repeated[first["row"].to_numpy()] = False
            return repeated if repeated.any() else None
        return None

    def _offsets_repeat(self) -> bool:
        """Whether a record may stand twice: the offsets of some partition do not ascend."""
        last: dict[int, int] = {}
        for piece in self.file.pieces(self._key):
            partition, offset = piece["partition"].to_numpy(), piece["offset"].to_numpy()
            for one in np.unique(partition).tolist():
                of_one = offset[partition == one]
                if of_one[0] <= last.get(one, -1) or (of_one[1:] <= of_one[:-1]).any():
                    return True
                last[one] = int(of_one[-1])
        return False

    def _ids_repeat(self) -> bool:
        """Whether a message id may stand twice. Ids are texts; where they are numbers that lie close together, as all
        that are known give them, each takes a byte here."""
        least, most = self._span()
        if most - least > _SPARSE * self.file.rows + PIECE:
            return True
        seen = np.zeros(most - least + 1, dtype=bool)
        for piece in self.file.pieces(self._key):
            ids = piece["message_id"].cast(pl.Int64).to_numpy() - least
            if seen[ids].any() or _mark(seen, ids) < len(ids):
                return True
        return False

    def _span(self) -> tuple[int, int]:
        """The least and the greatest message id; where any is no number that fits, they are very far apart."""
        least, most = 1 << 62, 0
        for piece in self.file.pieces(self._key):
            ids = piece["message_id"].cast(pl.Int64, strict=False)
            if ids.null_count() or (ids.cast(pl.String) != piece["message_id"]).any():
                return 0, 1 << 62
            least, most = min(least, ids.min()), max(most, ids.max())  # type: ignore[type-var, assignment]
        return least, max(least, most)


def _mark(seen: np.ndarray, places: np.ndarray) -> int:
    """Sets these places; how many of them were not set before."""
    if not len(places):
        return 0
    reach = seen[places.min() : places.max() + 1]
    before = np.count_nonzero(reach)
    seen[places] = True
    return int(np.count_nonzero(reach) - before)
