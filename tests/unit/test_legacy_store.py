"""The batch store: whole versions only, from whichever replica is left; and what a kill at any instant leaves."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines_under_test.legacy import store as batch_store
from pipelines_under_test.legacy.cells import Cell, Count
from pipelines_under_test.legacy.store import NOTHING, Store, Unreadable, Version

LOG = logging.getLogger("test")
CELL = Cell("tweet", "7|like", 10, 1_790_000_040_000)
OTHER = Cell("author", "9|like", 60, 1_790_000_040_000)


@pytest.fixture
def replicas(tmp_path: Path) -> list[Path]:
    return [tmp_path / name for name in ("a", "b")]


@pytest.fixture
def store(replicas: list[Path]) -> Store:
    made = Store(replicas, LOG)
    assert made.publish(NOTHING, {CELL: Count(2, 10)}, 50_000) == 1
    assert made.publish(made.newest(), {OTHER: Count(1, 5)}, 60_000) == 2
    return made


def served(replicas: list[Path]) -> Any:
    """Number, what it covers, and its cells, as a reader that has just started has them."""
    return Store(replicas, LOG).ask(lambda v: (v.number, v.covers_until_ms, v.cells()))


WHOLE = (2, 60_000, {CELL: Count(2, 10), OTHER: Count(1, 5)})


def test_a_version_holds_what_the_one_before_held_and_what_it_covers(store: Store, replicas: list[Path]) -> None:
    assert served(replicas) == WHOLE
    assert store.ask(lambda v: v.get(CELL)) == Count(2, 10)
    assert store.ask(lambda v: v.get(CELL._replace(key="8|like"))) is None


def test_before_the_first_version_there_is_no_answer_and_no_error(tmp_path: Path) -> None:
    assert Store([tmp_path / "a"], LOG).ask(Version.cells) is None
    assert Store([tmp_path / "a"], LOG).newest() is NOTHING


def test_old_versions_are_dropped_but_for_the_one_before(store: Store, replicas: list[Path]) -> None:
    store.publish(store.newest(), {}, 70_000)
    assert [sorted(p.name for p in replica.glob("*")) for replica in replicas] == [["CURRENT", "v2", "v3"]] * 2


def test_a_reader_that_holds_an_old_version_goes_over_to_the_new_one(store: Store, replicas: list[Path]) -> None:
    reader = Store(replicas, LOG)
    assert reader.ask(lambda v: v.number) == 2
    for until_ms in (70_000, 80_000, 90_000):
        store.publish(store.newest(), {}, until_ms)
    assert reader.ask(lambda v: (v.number, len(v.cells()))) == (5, 2)


def table_of(replica: Path) -> Path:
    (table,) = (replica / "v2").glob("*.sst")
    return table


def scribble(replica: Path) -> None:
    """Damages the cells, not the index: the version can still be opened."""
    table = table_of(replica)
    raw = bytearray(table.read_bytes())
    raw[5:15] = bytes(10)
    table.write_bytes(raw)


def empty_pointer(replica: Path) -> None:
    (replica / "CURRENT").write_text("")


DAMAGE = {
    "the replica is gone": shutil.rmtree,
    "the version is gone": lambda replica: shutil.rmtree(replica / "v2"),
    "its table is gone": lambda replica: table_of(replica).unlink(),
    "its table is cut off": lambda replica: os.truncate(table_of(replica), 100),
    "its cells are damaged": scribble,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_replica_is_passed_over_and_healed(
    damage: Any, which: int, store: Store, replicas: list[Path]
) -> None:
    damage(replicas[which])
    assert served(replicas) == WHOLE
    Store(replicas, LOG).heal()
    assert served([replicas[which]]) == WHOLE


@pytest.mark.parametrize("damage", list(DAMAGE.values())[1:], ids=list(DAMAGE)[1:])
def test_when_no_replica_is_left_the_error_says_so(damage: Any, store: Store, replicas: list[Path]) -> None:
    for replica in replicas:
        damage(replica)
    with pytest.raises(Unreadable, match="v2"):
        served(replicas)


def test_an_unreadable_pointer_does_not_hide_the_versions(store: Store, replicas: list[Path]) -> None:
    for replica in replicas:
        empty_pointer(replica)
    assert served(replicas) == WHOLE


def test_cells_that_are_missing_from_a_scan_are_noticed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """RocksDB's iterator, as it is bound, ends at a damaged block as if that were the end."""
    version = Version(store.replicas[0] / "v2")
    version._db = {batch_store.META: b"", batch_store._key(CELL): b"2|10"}
    with pytest.raises(batch_store.Damaged, match="1 of 2 cells"):
        version.cells()


def test_a_replica_that_is_behind_is_not_asked_and_catches_up(store: Store, replicas: list[Path]) -> None:
    Store(replicas[:1], LOG).publish(store.newest(), {}, 70_000)
    assert served(replicas)[:2] == (3, 70_000)
    Store(replicas, LOG).heal()
    assert served(replicas[1:])[:2] == (3, 70_000)


def test_a_replica_that_cannot_be_written_to_does_not_stop_the_others(replicas: list[Path]) -> None:
    replicas[0].write_text("a file where the folder should be")
    assert Store(replicas, LOG).publish(NOTHING, {CELL: Count(1, 1)}, 50_000) == 1
    assert served(replicas) == (1, 50_000, {CELL: Count(1, 1)})
    replicas[1].rename(replicas[1].with_name("moved"))
    replicas[1].write_text("here, too")
    with pytest.raises(OSError, match="no replica could be written to"):
        Store(replicas, LOG).publish(NOTHING, {}, 50_000)


KILLED = """
import logging, os, signal, sys
from pathlib import Path
from pipelines_under_test.legacy import store
from pipelines_under_test.legacy.cells import Cell, Count

steps = int(sys.argv[1])
def fuse(event, args):
    global steps
    writes = event == "open" and args[1] == "w"
    if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
made = store.Store([Path(p) for p in sys.argv[2:]], logging.getLogger())
base = made.newest()
sys.addaudithook(fuse)
made.publish(base, {Cell("tweet", "8|like", 10, 0): Count(3, 3)}, 70_000)
"""


@pytest.mark.parametrize("number", [1, 2])
def test_a_kill_at_any_instant_leaves_the_old_version_or_the_new_one(
    number: int, store: Store, replicas: list[Path]
) -> None:
    """Before each change that the publisher makes to the file system, until it lives to the end. With one replica there is
    no other to make up for it."""
    new = (3, 70_000, WHOLE[2] | {Cell("tweet", "8|like", 10, 0): Count(3, 3)})
    seen = set()
    for steps in range(1, 100):
        folders = [replica.with_name(f"{replica.name}{steps}") for replica in replicas[:number]]
        for replica, folder in zip(replicas, folders, strict=False):
            shutil.copytree(replica, folder)
        done = subprocess.run([sys.executable, "-c", KILLED, str(steps), *map(str, folders)], check=False, timeout=60)
        found = served(folders)
        assert found in (WHOLE, new)
        seen.add(found[0])
        again = Store(folders, LOG)
        assert again.publish(again.newest(), {}, 80_000) > found[0]
        assert served(folders)[1:] == (80_000, found[2])
        assert not [leftover for folder in folders for leftover in folder.glob(".tmp*")]
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert done.returncode == 0
    assert seen == {2, 3}


ids = st.integers(0, 2**63 - 1)
cells = st.builds(
    lambda dimension, number, kind, window_s, start: Cell(dimension, f"{number}|{kind}", window_s, start * 10_000),
    st.sampled_from(["tweet", "author"]),
    ids,
    st.sampled_from(["like", "profile_click"]),
    st.sampled_from([10, 60]),
    st.integers(0, 25_340_230_079),
)


@given(cells, st.builds(Count, ids, ids))
def test_cells_and_counts_keep_their_value(cell: Cell, count: Count) -> None:
    assert batch_store._cell(batch_store._key(cell)) == cell
    assert batch_store._count(batch_store._value(count)) == count
