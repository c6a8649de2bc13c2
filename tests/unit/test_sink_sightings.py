"""What a sink shows of single events: a row each time that one was counted, of this run alone."""

from __future__ import annotations

import polars as pl

from harness.services.base import SinkResult
from harness.topology import Sighting

NO_CELLS = pl.DataFrame()


def test_an_event_that_was_counted_twice_is_seen_twice_and_others_runs_are_left_out() -> None:
    seen = [
        Sighting("1a2b3c4d-0001-0000000007", 9.0),
        Sighting("1a2b3c4d-0001-0000000007", 5.0),
        Sighting("ffffffff-0001-0000000008", 6.0),
        Sighting("no id at all", 7.0),
        Sighting("1a2b3c4d-0002-0000000000", 8.0),
    ]
    frame = SinkResult(NO_CELLS, seen, True, "").sightings("1a2b3c4d")
    assert frame is not None
    assert frame.rows() == [(1, 7, 5.0), (2, 0, 8.0), (1, 7, 9.0)]


def test_a_sink_that_shows_none_is_told_from_one_that_holds_none() -> None:
    assert SinkResult(NO_CELLS, None, True, "").sightings("1a2b3c4d") is None
    empty = SinkResult(NO_CELLS, [], True, "").sightings("1a2b3c4d")
    assert empty is not None
    assert empty.schema == {"producer": pl.Int32, "sequence": pl.Int64, "seen_ms": pl.Float64}
