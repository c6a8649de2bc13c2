"""A hop's file, read a piece at a time: what a piece may not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import saved_hop
from harness.saved_hop import SavedFile, SavedHop

EVENTS = 12
_KAFKA = {"partition": pl.Int32, "offset": pl.Int64}
_PUBSUB = {"message_id": pl.String}
_REST = {"seen_ms": pl.Float64, "producer": pl.Int32, "sequence": pl.Int64}


def places(producer: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    return np.where((producer == 1) & (sequence < EVENTS), sequence, -1)


def hop_of(path: Path, keys: dict[str, pl.Series], rows: list[tuple[float, int, int]]) -> SavedHop:
    frame = pl.DataFrame(rows, schema=_REST, orient="row").with_columns(**keys)
    frame.write_parquet(path, row_group_size=3)
    return SavedHop(SavedFile(path, {**{k: v.dtype for k, v in keys.items()}, **_REST}), places, EVENTS)


#: (id, event): each message may come several times, each event in several messages; event 0 is the warm-up's, 13 unknown.
MESSAGES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 13)), max_size=25)


@pytest.mark.parametrize("kind", ["offsets", "close ids", "far ids", "texts"])
@given(MESSAGES, st.integers(1, 7), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_pieces_show_each_message_once_at_its_first_sighting(
    tmp_path: Path, kind: str, messages: list[tuple[int, int]], piece: int, in_order: bool
) -> None:
    event_of = dict(messages)  # of one message it is always the same event
    ids = [number for number, _ in (sorted(messages) if in_order else messages)]
    if in_order:
        ids = list(dict.fromkeys(ids))
    seen = [100.0 + (i * 7) % 11 for i in range(len(ids))]
    rows = [(at, 0 if event_of[n] == 0 else 1, event_of[n]) for at, n in zip(seen, ids, strict=True)]
    if kind == "offsets":
        keys = {
            "partition": pl.Series([n % 2 for n in ids], dtype=pl.Int32),
            "offset": pl.Series([n // 2 for n in ids], dtype=pl.Int64),
        }
    else:
        far = {"close ids": 1, "far ids": 10**15, "texts": 1}[kind]
        texts = [f"m{n}" if kind == "texts" else str(1_000_000 + n * far) for n in ids]
        keys = {"message_id": pl.Series(texts, dtype=pl.String)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(saved_hop, "PIECE", piece)
        hop = hop_of(tmp_path / "hop.parquet", keys, rows)
        shown = pl.concat([pl.DataFrame(schema={**_REST, "place": pl.Int64}), *hop.pieces("seen_ms")])
        first: dict[int, float] = {}
        for at, n in zip(seen, ids, strict=True):
            first[n] = min(at, first.get(n, at))
        ours = {n: at for n, at in first.items() if event_of[n] != 0}
        assert sorted(shown["seen_ms"].to_list()) == sorted(ours.values())
        held = [event_of[n] for n in ours if event_of[n] < EVENTS]
        copies = np.bincount(np.array(held, dtype=np.int64), minlength=EVENTS)
        assert hop.copies.tolist() == copies.tolist()
        assert hop.seen.tolist() == hop.bits.mask().tolist() == (copies > 0).tolist()
        assert hop.several.places.tolist() == np.flatnonzero(copies > 1).tolist()
        assert hop.several.copies.tolist() == copies[copies > 1].tolist()
        assert (hop.messages, hop.strangers) == (len(ours), len(ours) - len(held))
