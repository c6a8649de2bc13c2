"""The index over run folders: whole ones, damaged, half written, and what is removed when."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from saved_run import World

from assertions.judge import judge
from harness.run_folder import JOB, JOB_VARIABLE, RunFolder, new_folder, write_json, write_manifest
from harness.service import retention
from harness.service.entries import Entry, flake, read, signature
from harness.service.index import OWN, Asked, Index
from harness.service.retention import Keep, due
from harness.side_by_side import RUNS
from harness.soak.books import summary
from harness.soak.state import Asked as SoakAsked
from harness.soak.state import Cut, Cycle, State


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that passed, with its verdict."""
    run = World().save(tmp_path_factory.mktemp("whole"))
    write_json(run.path / "verdict.json", judge(run))
    return run.path


def copied(whole: Path, store: Path, name: str = "20261126T010203Z-steady-0000000a") -> Path:
    shutil.copytree(whole, store / name)
    return store / name


def entry_of(folder: Path) -> Entry:
    found = read(folder)
    assert found is not None
    return found


def changed(path: Path, **values: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **values})


def old(folder: Path, days: float) -> None:
    then = time.time() - days * 86_400
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


def test_a_whole_run_is_what_its_verdict_says(whole: Path, tmp_path: Path) -> None:
    entry = entry_of(copied(whole, tmp_path))
    assert entry.standing == json.loads((whole / "verdict.json").read_text())["verdict"]
    assert (entry.kind, entry.seed, entry.acked) == ("run", 7, 2_000)


def test_what_is_damaged_is_never_a_verdict(whole: Path, tmp_path: Path) -> None:
    def flipped(folder: Path) -> None:
        data = bytearray((folder / "ledger.bin").read_bytes())
        data[-1] ^= 1
        (folder / "ledger.bin").write_bytes(data)

    findings = json.loads((whole / "verdict.json").read_text())["findings"]
    bad = [{**findings[0], "verdict": "violation"}, *findings[1:]]
    damages = {
        "a bit": flipped,
        "a file less": lambda folder: (folder / "ledger.bin").unlink(),
        "half a verdict": lambda folder: (folder / "verdict.json").write_text('{"verdict": "pass"'),
        "no verdict": lambda folder: (folder / "verdict.json").unlink(),
        "another word": lambda folder: changed(folder / "verdict.json", verdict="fine"),
        "a word that its findings contradict": lambda folder: changed(folder / "verdict.json", verdict="pass", findings=bad),
        "no findings": lambda folder: changed(folder / "verdict.json", verdict="pass", findings=[]),
        "no object": lambda folder: (folder / "verdict.json").write_text("[]"),
        "half a manifest": lambda folder: (folder / "manifest.json").write_text("{"),
    }  # fmt: skip
    for number, (how, damage) in enumerate(damages.items()):
        folder = copied(whole, tmp_path, f"20261126T010203Z-steady-{number:08x}")
        damage(folder)
        entry = entry_of(folder)
        assert (entry.standing, bool(entry.why)) == ("damaged", True), how


def test_without_a_manifest_it_is_under_way_or_broken_off(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path)
    (folder / "manifest.json").unlink()
    (folder / "history.jsonl").touch()
    assert entry_of(folder).standing == "running", "something was written to it just now"
    told = read(folder, lambda name, job: False)
    assert told is not None
    assert told.standing == "broken off", "its process is known to have ended"
    old(folder, 1)
    assert entry_of(folder).standing == "broken off"
    told = read(folder, lambda name, job: True)
    assert told is not None
    assert told.standing == "running"


def test_a_folder_that_was_made_and_nothing_more_and_one_that_is_none(tmp_path: Path) -> None:
    folder = new_folder(tmp_path, "steady")[0]
    assert entry_of(folder).standing == "running"
    old(folder, 1)
    assert (entry_of(folder).standing, entry_of(folder).scenario) == ("broken off", "steady")
    (tmp_path / "something").mkdir()
    assert read(tmp_path / "something") is None


def test_a_folder_tells_which_job_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not (new_folder(tmp_path, "steady")[0] / JOB).exists()
    monkeypatch.setenv(JOB_VARIABLE, "a-job")
    assert entry_of(RunFolder.create(tmp_path, "steady").path).job == "a-job"


def soak_in(store: Path, *verdicts: str, over: bool = True) -> Path:
    folder = store / "20261126T010203Z-soak-0000000b"
    folder.mkdir()
    events = {"sent": 10, "acked": 10, "ambiguous": 0, "failed": 0}
    cycles = [
        Cycle(n, 1, n, verdict, f"/runs/{n}", events, 1, {"latency p99 (s)": 1.5}, ["no_loss"] * (verdict == "violation"))
        for n, verdict in enumerate(verdicts, 1)
    ]  # fmt: skip
    state = State(SoakAsked("soak", "kappa", "process", 7, 1.0, 60.0, 10), cycles, 60.0)
    state.save(folder)
    if over:
        write_json(folder / "verdict.json", summary(state, folder))
    return folder


def test_a_soak_is_what_its_cycles_come_to(tmp_path: Path) -> None:
    entry = entry_of(soak_in(tmp_path, "pass", "violation"))
    assert (entry.kind, entry.standing, entry.acked, entry.p99_s) == ("soak", "violation", 20, 1.5)
    assert entry.violated == ("no_loss",)
    changed(tmp_path / entry.name / "verdict.json", verdict="pass")
    assert entry_of(tmp_path / entry.name).standing == "damaged"


def test_what_was_cut_off_a_soak_and_judged_is_part_of_it(tmp_path: Path) -> None:
    folder = soak_in(tmp_path, "pass", over=False)
    state = State.load(folder)
    state.cut.append(
        Cut("/runs/cut", {"sent": 5, "acked": 5, "ambiguous": 0, "failed": 0}, "violation", ["content"], 5)
    )
    state.cut.append(Cut("/runs/unjudged", {"sent": 5, "acked": 5, "ambiguous": 0, "failed": 0}, why="a reboot"))
    state.save(folder)
    write_json(folder / "verdict.json", summary(state, folder))
    entry = entry_of(folder)
    assert (entry.standing, entry.acked, entry.violated[0]) == ("violation", 15, "content")


def test_a_soak_without_an_end_can_go_on(tmp_path: Path) -> None:
    folder = soak_in(tmp_path, "pass", "pass", over=False)
    assert entry_of(folder).standing == "running"
    old(folder, 1)
    assert (entry_of(folder).standing, "--resume" in entry_of(folder).why) == ("broken off", True)


def test_half_a_zoo_is_no_pass(tmp_path: Path) -> None:
    folder = tmp_path / "some-zoo"
    folder.mkdir()
    trial = {"pipeline": "no-dedup", "scenario": "lost-acks", "schedule": "own", "backend": "process", "seed": 7,
             "verdict": "violation", "violated": ["duplicate_rate"]}  # fmt: skip
    (folder / "zoo.jsonl").write_text(f'{{"asked": {{}}}}\n{json.dumps(trial)}\n{{"pipeline": "half')
    assert (entry_of(folder).kind, entry_of(folder).standing) == ("zoo", "inconclusive")
    assert entry_of(folder).why.startswith("1 of ")


def test_a_comparison_without_manifest_or_with_a_strange_word(tmp_path: Path) -> None:
    folder = tmp_path / "20261126T010203Z-compare-0000000c"
    folder.mkdir()
    write_json(folder / "compare.json", {"asked": {"baseline": {"spec": "kappa"}, "candidate": {"spec": "no-dedup"}}})
    write_json(folder / "verdict.json", {"verdict": "pass"})
    assert (entry_of(folder).kind, entry_of(folder).standing) == ("compare", "running")
    assert entry_of(folder).pipeline == "kappa and no-dedup"


def test_a_whole_comparison_is_what_its_verdict_says_and_a_changed_one_is_damaged(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "20261126T010203Z-compare-0000000c"
    folder.mkdir()
    run = copied(whole, folder, "20261126T010203Z-pair-01-baseline-0000000d")
    asked = {"baseline": {"spec": "kappa"}, "candidate": {"spec": "no-dedup"}}
    write_json(folder / "compare.json", {"asked": asked, "runs": [{"folder": run.name}]})
    found = [{"assertion": "new_kinds", "verdict": "violation"}, {"assertion": "pairs", "verdict": "pass"}]
    write_json(folder / "verdict.json", {"verdict": "violation", "findings": found})
    write_manifest(folder, [folder / "compare.json", run / "manifest.json"])
    entry = entry_of(folder)
    assert (entry.standing, entry.violated) == ("violation", ("new_kinds",))
    for said in ("pass", "better"):
        changed(folder / "verdict.json", verdict=said)
        assert entry_of(folder).standing == "damaged", "not what its findings add up to"
    changed(folder / "verdict.json", verdict="violation")
    ledger = (run / "ledger.bin").read_bytes()
    (run / "ledger.bin").write_bytes(ledger[:-1] + bytes([ledger[-1] ^ 1]))
    assert (entry_of(folder).standing, "ledger.bin" in entry_of(folder).why) == ("damaged", True)
    (run / "ledger.bin").write_bytes(ledger)
    assert entry_of(folder).standing == "violation"
    changed(folder / "compare.json", runs=[1])
    assert entry_of(folder).standing == "damaged"


def test_runs_side_by_side_are_as_good_as_the_worst_and_as_whole(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "20261126T010203Z-old-against-new-0000000e"
    folder.mkdir()
    runs = [copied(whole, folder, name) for name in ("20261126T010203Z-a-0000000a", "20261126T010204Z-b-0000000b")]
    verdicts = [{**json.loads((run / "verdict.json").read_text()), "run": f"/elsewhere/{run.name}"} for run in runs]
    write_json(folder / RUNS, {"scenario": "old-against-new", "runs": [{"pipeline": "old"}, {"pipeline": "new"}]})
    write_json(folder / "verdict.json", {"verdict": verdicts[0]["verdict"], "runs": verdicts})
    write_manifest(folder, [folder / RUNS, *(run / "manifest.json" for run in runs)])
    entry = entry_of(folder)
    assert (entry.kind, entry.standing, entry.pipeline) == ("side-by-side", verdicts[0]["verdict"], "old and new")
    assert entry.acked == 4_000
    changed(folder / "verdict.json", verdict="violation")
    assert entry_of(folder).standing == "damaged", "not what its runs come to"
    changed(folder / "verdict.json", verdict=verdicts[0]["verdict"])
    (runs[1] / "ledger.bin").unlink()
    assert (entry_of(folder).standing, "ledger.bin" in entry_of(folder).why) == ("damaged", True)


# ---------------------------------------------------------------------------------------------------------- index


def test_the_index_follows_the_folders(whole: Path, tmp_path: Path) -> None:
    index = Index(tmp_path)
    folder = copied(whole, tmp_path)
    index.refresh()
    assert index.names(entry_of(folder).standing) == {folder.name}
    (folder / "verdict.json").write_text("{")
    index.refresh()
    assert index.names("damaged") == {folder.name}
    shutil.rmtree(folder)
    index.refresh()
    assert index.count(Asked()) == 0
    index.close()


def test_the_index_is_made_again_from_nothing_and_from_rubbish(whole: Path, tmp_path: Path) -> None:
    copied(whole, tmp_path)
    index = Index(tmp_path)
    index.refresh()
    before = index.entries(Asked())
    assert index.rebuild() == 1
    assert index.entries(Asked()) == before
    index.close()
    for path in (tmp_path / OWN).glob("index.sqlite*"):
        path.write_bytes(b"no database" * 1000)
    index = Index(tmp_path)
    index.refresh()
    assert index.entries(Asked()) == before
    index.close()


def test_what_is_sought_is_found_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    index = Index(tmp_path)
    for number in range(5):
        copied(whole, tmp_path, f"2026112{number}T010203Z-steady-0000000{number}")
    soak_in(tmp_path, "violation")
    index.refresh()
    assert index.count(Asked()) == 6
    assert index.count(Asked(kind="soak", standing="violation")) == 1
    assert index.count(Asked(text="00000003")) == 1
    assert index.count(Asked(text="%")) == 0, "no sign is more than itself"
    assert index.count(Asked(text="' OR 1=1 --")) == 0
    newest = index.entries(Asked(kind="run"), limit=2, offset=1)
    assert len(newest) == 2
    assert index.folder("../etc") is None
    assert index.folder("..") is None
    index.close()


def test_a_link_in_the_store_is_not_followed(whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "20261126T010203Z-steady-0000000d").symlink_to(whole)
    index = Index(store)
    index.refresh()
    assert index.count(Asked()) == 0
    index.close()


def test_a_signature_tells_a_change(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path)
    before = signature(folder)
    assert signature(folder) == before
    changed(folder / "verdict.json", verdict="violation")
    assert signature(folder) != before


def test_flake_rate_counts_what_could_not_say_and_changes() -> None:
    said = ["pass", "inconclusive", "damaged", "pass", "pass", "violation"]
    assert flake(Entry(str(n), "run", word) for n, word in enumerate(said)) == (5, 1, 3)


# ------------------------------------------------------------------------------------------------------ retention


def test_what_is_too_old_goes_and_never_what_is_under_way(whole: Path, tmp_path: Path) -> None:
    index = Index(tmp_path)
    names = [f"2026112{n}T010203Z-steady-0000000{n}" for n in range(4)]
    for name, days in zip(names, (1, 10, 40, 40), strict=True):
        old(copied(whole, tmp_path, name), days)
    changed(tmp_path / names[3] / "verdict.json", verdict="damaged")
    old(tmp_path / names[3], 40)
    broken = soak_in(tmp_path, "pass", over=False)
    old(broken, 40)
    index.refresh()
    standing = entry_of(tmp_path / names[0]).standing
    passes, others = (5, None) if standing == "pass" else (None, 5)
    assert due(index, Keep(), []) == []
    found = due(index, Keep(passes, others), [names[2]])
    assert names[1] in found
    assert names[0] not in found, "it is young"
    assert names[2] not in found, "a job is at work on it"
    everything = due(index, Keep(5, 30), [])
    assert {names[1], names[2], names[3], broken.name} == set(everything)
    retention.remove(tmp_path, names[1])
    assert not (tmp_path / names[1]).exists()
    assert not (tmp_path / OWN / "removed" / names[1]).exists()
    index.close()
