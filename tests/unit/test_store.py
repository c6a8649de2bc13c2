"""The run folder: what is written is what is read, and a folder that is not whole is told apart from one that is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from saved_run import CELLS, HOPS, T0_MS, TAG, WARMUP_EVENTS, World

from harness.ledger import INTENT, Ledger, LedgerWriter, ledger_of_worker
from harness.store import CELL, DamagedRun, EventIndex, HarnessFault, NotObserved, RunFolder, SavedRun, UnfinishedRun
from harness.topology import Cells, UsageError
from load.profiles import Steady

# ---------------------------------------------------------------------------------------------------- writing


def test_folders_of_runs_that_start_in_the_same_second_differ(tmp_path: Path) -> None:
    folders = [RunFolder.create(tmp_path, "kappa under/fire") for _ in range(50)]
    assert len({folder.path for folder in folders}) == 50
    assert len({folder.tag for folder in folders}) == 50
    assert all("kappa-under-fire" in folder.path.name for folder in folders)
    assert all((folder.path / "hops").is_dir() and folder.logs.is_dir() for folder in folders)


def test_a_given_tag_never_takes_another_runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder.create(tmp_path, "s", TAG)
    monkeypatch.setattr("harness.run_folder.datetime", _Frozen)
    RunFolder.create(tmp_path, "t", "00000000")
    with pytest.raises(FileExistsError):
        RunFolder.create(tmp_path, "t", "00000000")
    with pytest.raises(ValueError, match="eight hexadecimal"):
        RunFolder.create(tmp_path, "t", "XYZ")


class _Frozen:
    @staticmethod
    def now(zone: object) -> object:
        from datetime import UTC, datetime

        return datetime(2026, 1, 1, tzinfo=UTC)


def test_write_json_leaves_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path, "s")
    folder.write_json("verdict.json", {"verdict": "pass", "n": np.int64(3), "p": Path("x")})
    assert json.loads(folder.verdict.read_text()) == {"verdict": "pass", "n": 3, "p": "x"}

    def fails(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="power cut"):
        folder.write_json("verdict.json", {"verdict": "violation"})
    monkeypatch.undo()
    assert json.loads(folder.verdict.read_text())["verdict"] == "pass"
    assert sorted(p.name for p in folder.path.iterdir()) == ["hops", "logs", "verdict.json"]


def test_sealing_needs_what_a_verdict_needs(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "s")
    with pytest.raises(HarnessFault, match=r"run\.json was never written"):
        folder.seal()
    assert not folder.manifest.exists()


def test_the_manifest_covers_the_evidence_and_not_the_answers(tmp_path: Path) -> None:
    folder = World().write(tmp_path)
    folder.write_json("verdict.json", {})
    folder.worker_log("converter").write_text("hello")
    folder.seal()
    covered = set(json.loads(folder.manifest.read_text())["files"])
    assert covered == {
        "run.json",
        "history.jsonl",
        "ledger.bin",
        "warmup.bin",
        "batch.parquet",
        "progress.parquet",
        "hops/aggregates.seen.parquet",
        *(f"hops/{hop['name']}.parquet" for hop in HOPS),
    }
    folder.write_json("verdict.json", {"judged": "again"})  # a report or verdict may be made anew
    SavedRun.load(folder.path)


# ---------------------------------------------------------------------------- folders that cannot be judged


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no run folder"):
        SavedRun.load(tmp_path / "nothing")


def test_a_run_without_a_manifest_was_never_finished(tmp_path: Path) -> None:
    folder = World().write(tmp_path)
    with pytest.raises(UnfinishedRun, match="never finished"):
        SavedRun.load(folder.path)
    assert SavedRun.open_unsealed(folder.path).settled().must_arrive.any()  # yet it can be looked at


def test_a_writer_killed_while_sealing_leaves_an_unfinished_run(tmp_path: Path) -> None:
    folder = World().write(tmp_path)
    code = (
        "import os, signal, sys; from pathlib import Path; from harness import run_folder\n"
        "os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "run_folder.RunFolder(Path(sys.argv[1])).seal()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder.path)], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(UnfinishedRun):
        SavedRun.load(folder.path)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("file", ["run.json", "history.jsonl", "ledger.bin", "hops/published.parquet", "batch.parquet"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [(_truncate, "the manifest says"), (_flip, "its content has changed"), (_remove, "is missing")],
)
def test_any_damaged_file_is_found_and_named(
    tmp_path: Path, file: str, damage: Callable[[Path], None], says: str
) -> None:
    path = World().save(tmp_path).path
    damage(path / file)
    with pytest.raises(DamagedRun, match=says) as error:
        SavedRun.load(path)
    assert file in str(error.value)


def test_a_file_that_was_added_later_is_damage(tmp_path: Path) -> None:
    world = World()
    world.without = {"published"}
    path = world.save(tmp_path).path
    pl.DataFrame({"a": [1]}).write_parquet(path / "hops" / "published.parquet")
    with pytest.raises(DamagedRun, match=r"hops/published\.parquet: is not listed"):
        SavedRun.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"format": 1, "files": {"run.json": {"byt',
        "[]",
        '{"format": 1}',
        '{"files": {"run.json": {}, "history.jsonl": {}, "ledger.bin": {}}}',
        '{"files": {"run.json": {"bytes": 1, "sha256": "x"}}}',
    ],
)
def test_a_manifest_that_is_half_written_or_says_nothing_is_damage(tmp_path: Path, text: str) -> None:
    path = World().save(tmp_path).path
    (path / "manifest.json").write_text(text)
    with pytest.raises(DamagedRun, match=r"manifest\.json"):
        SavedRun.load(path)


def test_a_manifest_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    path = World().save(tmp_path).path
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../../etc/passwd"] = {"bytes": 1, "sha256": "x"}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedRun, match="outside the run folder"):
        SavedRun.load(path)


def _sealed_anew(world: World, tmp_path: Path, change: Callable[[RunFolder], None]) -> SavedRun:
    folder = world.write(tmp_path)
    change(folder)
    folder.seal()
    return SavedRun.load(folder.path)


def test_a_parquet_file_that_was_cut_off_before_the_seal_is_damage(tmp_path: Path) -> None:
    run = _sealed_anew(World(), tmp_path, lambda folder: _truncate(folder.hop("published")))
    with pytest.raises(DamagedRun, match=r"published\.parquet: cannot be read as Parquet"):
        run.hop("published")


def test_a_missing_column_is_damage(tmp_path: Path) -> None:
    def drop(folder: RunFolder) -> None:
        frame = pl.read_parquet(folder.hop("published")).drop("message_id")
        frame.write_parquet(folder.hop("published"))

    with pytest.raises(DamagedRun, match=r"published\.parquet: lacks the column\(s\) message_id"):
        _sealed_anew(World(), tmp_path, drop).hop("published")


def test_a_column_of_another_type_and_an_empty_value_are_damage(tmp_path: Path) -> None:
    def texts(folder: RunFolder) -> None:
        frame = pl.read_parquet(folder.hop("source")).with_columns(producer=pl.lit("one"))
        frame.write_parquet(folder.hop("source"))

    def nulls(folder: RunFolder) -> None:
        frame = pl.read_parquet(folder.hop("source")).with_columns(sequence=pl.lit(None, dtype=pl.Int64))
        frame.write_parquet(folder.hop("source"))

    with pytest.raises(DamagedRun, match="not of its type"):
        _sealed_anew(World(), tmp_path / "a", texts).hop("source")
    with pytest.raises(DamagedRun, match=r"sequence have empty values"):
        _sealed_anew(World(), tmp_path / "b", nulls).hop("source")


def test_a_history_that_was_cut_off_is_damage_once_sealed(tmp_path: Path) -> None:
    def cut(folder: RunFolder) -> None:
        folder.history.write_text(folder.history.read_text()[:-5])

    with pytest.raises(DamagedRun, match="the last line was cut off"):
        _ = _sealed_anew(World(), tmp_path / "a", cut).history
    folder = World().write(tmp_path / "b")
    cut(folder)
    assert SavedRun.open_unsealed(folder.path).history  # of a run that was killed, what there is


def test_a_history_line_that_is_no_record_is_damage(tmp_path: Path) -> None:
    def spoil(folder: RunFolder) -> None:
        folder.history.write_text('{"t": 1, "kind": "note"}\n{"t": 2}\n')

    with pytest.raises(DamagedRun, match="line 2"):
        _ = _sealed_anew(World(), tmp_path, spoil).history


def test_another_format_is_refused(tmp_path: Path) -> None:
    def later(folder: RunFolder) -> None:
        folder.write_json("run.json", {**json.loads(folder.run_json.read_text()), "format": 2})

    with pytest.raises(DamagedRun, match="has format 2"):
        _ = _sealed_anew(World(), tmp_path, later).meta


def test_a_damaged_ledger_is_no_verdict(tmp_path: Path) -> None:
    def spoil(folder: RunFolder) -> None:
        data = bytearray(folder.ledger.read_bytes())
        data[-20] ^= 1
        folder.ledger.write_bytes(data)

    with pytest.raises(HarnessFault, match="checksum"):
        _sealed_anew(World(), tmp_path, spoil).settled()


def test_the_ledgers_of_several_processes_are_read_as_one(tmp_path: Path) -> None:
    def spread(folder: RunFolder) -> None:
        records = Ledger.read(folder.ledger).records
        folder.ledger.unlink()
        for index, producer in enumerate((1, 2)):
            with LedgerWriter(ledger_of_worker(folder.ledger, index), TAG) as own:
                for record in records[records["producer"] == producer]:
                    write = own.intent if record["kind"] == INTENT else own.ack
                    write(producer, int(record["lo"]), int(record["n"]))

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = _sealed_anew(World(users=2), tmp_path / "one", lambda folder: None)
    two = _sealed_anew(World(users=2), tmp_path / "two", spread)
    assert two.ledger.producers == [1, 2]
    assert [two.ledger.acked(p).tolist() for p in (1, 2)] == [one.ledger.acked(p).tolist() for p in (1, 2)]
    assert two.settled().must_arrive.tolist() == one.settled().must_arrive.tolist()
    ledger_of_worker(two.folder.ledger, 1).unlink()
    with pytest.raises(DamagedRun, match=r"ledger-1\.bin: is missing"):
        SavedRun.load(two.path)


def test_a_manifest_without_any_ledger_is_damage(tmp_path: Path) -> None:
    folder = World().write(tmp_path)
    folder.seal()
    manifest = json.loads(folder.manifest.read_text())
    kept = {name: entry for name, entry in manifest["files"].items() if "ledger" not in name}
    folder.manifest.write_text(json.dumps({**manifest, "files": kept}))
    with pytest.raises(DamagedRun, match=r"does not list ledger\.bin"):
        SavedRun.load(folder.path)


# ---------------------------------------------------------------------------------------------- what it reads


def test_the_index_numbers_events_both_ways() -> None:
    index = EventIndex({1: 3, 2: 2, 3: 4})
    producers, sequences = index.events(np.arange(9))
    assert producers.tolist() == [1, 1, 1, 2, 2, 3, 3, 3, 3]
    assert sequences.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    assert index.places(producers, sequences).tolist() == list(range(9))
    assert index.places(np.array([0, 1, 2, 4, -1, 1]), np.array([0, 3, 2, 0, -1, -1])).tolist() == [-1] * 6
    assert {p: s.tolist() for p, s in index.sequences(np.arange(9) % 2 == 0).items()} == {1: [0, 2], 2: [1], 3: [1, 3]}


def test_events_settle_at_the_source_log(tmp_path: Path) -> None:
    world = World(users=2)
    sound = world.sound
    world.outcome[sound[:6]] = ["e", "e", "?", "?", "f", "a"]
    world.copies["source"][sound[[1, 3, 4]]] = 0  # an error and an unreported one did not get there, nor the failed
    world.copies["source"][sound[10]] = 3
    settled = world.save(tmp_path).settled()

    def places(mask: np.ndarray) -> list[int]:
        return np.flatnonzero(mask).tolist()

    assert places(settled.ambiguous) == sound[:4].tolist()
    assert places(settled.ambiguous_present) == sound[[0, 2]].tolist()
    assert places(settled.ambiguous_absent) == sound[[1, 3]].tolist()
    assert places(settled.failed) == [sound[4]]
    assert not settled.acked_but_absent.any()
    assert settled.source_copies == 2
    assert places(settled.poison_planted) == np.flatnonzero(world.poison).tolist()
    assert places(settled.must_arrive) == sorted(set(sound.tolist()) - set(sound[[1, 3, 4]].tolist()))
    by_producer = settled.sequences("ambiguous_absent")
    assert sum(map(len, by_producer.values())) == 2
    assert set(by_producer) == {1, 2}


def test_an_event_that_was_never_intended_is_the_harness_being_wrong(tmp_path: Path) -> None:
    world = World()
    world.outcome[world.sound[5]] = "-"
    with pytest.raises(HarnessFault, match=f"never intended.*{world.event_id(world.sound[5])}"):
        world.save(tmp_path).settled()


@pytest.mark.parametrize(("producer", "sequence"), [(1, 10**6), (7, 0)])
def test_an_id_beyond_the_plan_in_the_source_log(tmp_path: Path, producer: int, sequence: int) -> None:
    world = World()
    world.strange["source"] = [(producer, sequence, None)]
    with pytest.raises(HarnessFault, match=f"never intended.*{TAG}-{producer:04d}-{sequence:010d}"):
        world.save(tmp_path).settled()


def test_a_record_in_the_source_log_that_shows_no_id(tmp_path: Path) -> None:
    world = World()
    world.strange["source"] = [(-1, -1, b"who are you")]
    with pytest.raises(HarnessFault, match="who are you"):
        world.save(tmp_path).settled()


def test_a_ledger_that_knows_more_than_the_plan(tmp_path: Path) -> None:
    def shorten(folder: RunFolder) -> None:
        meta = json.loads(folder.run_json.read_text())
        meta["load"]["profile"]["seconds"] = 1
        folder.write_json("run.json", meta)

    with pytest.raises(HarnessFault, match="the plan has 200 events"):
        _sealed_anew(World(), tmp_path, shorten).settled()


def test_a_hop_without_a_file_was_not_observed(tmp_path: Path) -> None:
    world = World()
    world.without = {"published"}
    run = world.save(tmp_path)
    assert run.certified("published") == (False, "what its tap saw was not stored (no hops/published.parquet)")
    with pytest.raises(NotObserved, match="'published'"):
        run.hop("published")
    with pytest.raises(UsageError, match="Did you mean 'published'"):
        run.hop("publish")


def test_a_tap_that_said_nothing_is_not_certified(tmp_path: Path) -> None:
    world = World()
    world.silent = {"tap"}
    assert world.save(tmp_path).certified("source") == (False, "no tap of the hop 'source' reported")


def test_what_a_tap_was_shown_twice_is_one_message(tmp_path: Path) -> None:
    world = World()
    world.tap_twice = {"source", "published"}
    run = world.save(tmp_path)
    for hop in ("source", "published"):
        frame = run.messages(hop)
        assert frame.height == world.copies[hop].sum()
        assert frame["seen_ms"].max() < T0_MS + 10_200  # the first sighting is kept
        assert 0 not in frame["producer"]


def same(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """Whether both say the same of the same cells."""
    columns = [*CELL, "count", "weight"]
    return one.select(columns).sort(CELL).equals(other.select(columns).sort(CELL))


def test_cells_are_those_of_the_load_alone(tmp_path: Path) -> None:
    run = World().save(tmp_path)
    raw = run.hop("aggregates")
    assert raw.height > run.cells().height  # the warm-up has keys of its own
    assert same(run.cells(), run.expected())


def test_a_cell_that_the_warm_up_shares_counts_the_load_only(tmp_path: Path) -> None:
    # Keyed by engagement alone, the warm-up falls into the cells of the first events.
    world = World(cells=(Cells("engagement", ("engagement",), (60,)),))
    run = world.save(tmp_path)
    assert int(run.hop("aggregates")["count"].sum()) == world.copies["aggregates"].sum() + WARMUP_EVENTS
    assert int(run.cells()["count"].sum()) == world.copies["aggregates"].sum()
    assert same(run.cells(), run.expected())
    # Without one event of the load, just that one is missing.
    world = World(cells=(Cells("engagement", ("engagement",), (60,)),)).lose("aggregates", int(World().sound[3]))
    run = world.save(tmp_path / "other")
    assert int(run.cells()["count"].sum()) == int(run.expected()["count"].sum()) - 1


def test_a_sink_spread_over_rows_is_summed(tmp_path: Path) -> None:
    world = World()
    world.edit_cells = lambda frame: pl.concat(
        [frame.with_columns(count=pl.col("count") - 1, weight=pl.lit(7, dtype=pl.Int64)),
         frame.with_columns(count=pl.lit(1, dtype=pl.Int64), weight=pl.col("weight") - 7)]
    )  # fmt: skip
    run = world.save(tmp_path)
    assert same(run.cells(), World().save(tmp_path / "plain").cells())


def test_faults_are_paired_by_index_and_target(tmp_path: Path) -> None:
    world = World()
    world.fault("kill", "converter", 3.0, 4.5, pid=17).fault("partition", "a->b", 4.0, 6.0).fault(
        "pause", "x", 7.0, None
    )
    world.events[1]["back"] = 18
    first, second, third = world.save(tmp_path).faults()
    assert (first.fault, first.target, first.index) == ("kill", "converter", 0)
    assert (first.start, first.end) == (T0_MS / 1000 + 3, T0_MS / 1000 + 4.5)
    assert first.observations == {"pid": 17, "back": 18}
    assert first.at_start == {"pid": 17}
    assert (second.start, second.end) == (T0_MS / 1000 + 4, T0_MS / 1000 + 6)
    assert (first.healed, third.healed) == (True, False)
    assert third.end == world.history()[-1]["t"]  # active to the end


def test_the_plan_of_a_saved_run_is_the_plan_that_was_sent(tmp_path: Path) -> None:
    world = World(profile=Steady(rate=100, seconds=5, tweets=9), seed=11, users=3)
    run = world.save(tmp_path)
    assert run.plan == world.plan
    assert run.cell_kinds == list(CELLS)
    assert run.columns().weight.tolist() == world.content["weight"].to_list()
    assert [run.event_id(place) for place in range(len(world.index))] == [
        world.event_id(place) for place in range(len(world.index))
    ]
