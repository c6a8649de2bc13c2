"""content: an altered field, a swapped key, an id from nowhere; and a source log that is wrong itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from saved_run import HOPS, TAG, World

from assertions.base import Finding
from assertions.content import Content
from assertions.no_loss import NoLoss
from harness.errors import HarnessFault


def check(world: World, tmp_path: Path) -> Finding:
    return Content().check(world.save(tmp_path))


def test_a_healthy_run(tmp_path: Path) -> None:
    world = World(users=2)
    finding = check(world, tmp_path)
    assert (finding.verdict, list(finding.examples)) == ("pass", [])
    assert finding.figures["compared"] == 2 * len(world.sound)
    assert finding.figures["not_shown"] == ["country"]  # the made-up pipeline drops it: nothing is claimed of it


@pytest.mark.parametrize("hop", ["intermediate", "published"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tweet_id", 42),
        ("author_id", 42),
        ("user_id", 42),
        ("weight", 999_999_999),
        ("event_time_ms", 1_790_000_000_001),
        ("engagement", "superlike"),
        ("client", "fax"),
    ],
)
def test_an_altered_field_is_found_and_named(tmp_path: Path, hop: str, field: str, value: Any) -> None:
    world = World()
    place = int(world.sound[123])
    world.altered.append((hop, place, field, value))
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert list(finding.examples) == [
        {
            "hop": hop,
            "problem": "altered",
            "event": world.event_id(place),
            "field": field,
            "expected": world.content[field][place],
            "found": value,
        }
    ]
    assert finding.figures["hops"][hop]["altered"] == 1


def test_an_alteration_in_a_duplicate_only_is_found(tmp_path: Path) -> None:
    """Each message is compared, not only the first of its event."""
    world = World()
    place = int(world.sound[123])
    world.double("published", place)
    run = world.save(tmp_path)
    frame = run.hop("published").with_row_index()
    second = frame.filter(pl.col("sequence") == world.sequence[place])["index"][1]
    spoilt = pl.when(pl.col("index") == second).then(pl.lit(5, dtype=pl.Int64)).otherwise(pl.col("weight"))
    frame.with_columns(weight=spoilt).drop("index").write_parquet(run.folder.hop("published"))
    run.folder.seal()
    finding = Content().check(type(run).load(run.path))
    assert (finding.verdict, finding.figures["hops"]["published"]["altered"]) == ("violation", 1)


def test_swapped_keys(tmp_path: Path) -> None:
    world = World()
    one = int(world.sound[100])
    other = world.apart_from(one)
    for a, b in ((one, other), (other, one)):
        world.altered.append(("published", a, "tweet_id", world.content["tweet_id"][b]))
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert {e["event"] for e in finding.examples} == {world.event_id(one), world.event_id(other)}
    assert {e["field"] for e in finding.examples} == {"tweet_id"}


def test_a_field_that_only_some_records_lack_is_missing_in_those(tmp_path: Path) -> None:
    world = World()
    world.altered.append(("published", int(world.sound[9]), "weight", None))
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert [e["problem"] for e in finding.examples] == ["missing or of another type"]


def test_content_that_cannot_be_read(tmp_path: Path) -> None:
    world = World()
    world.altered.append(("published", int(world.sound[9]), "content_read", False))
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert [(e["event"], e["problem"]) for e in finding.examples] == [
        (world.event_id(world.sound[9]), "the content cannot be read")
    ]


def test_poison_is_compared_nowhere(tmp_path: Path) -> None:
    world = World()
    world.copies["intermediate"][world.poison] = 1  # a preprocessor may leave the sorting out to the next
    assert check(world, tmp_path).verdict == "pass"


@pytest.mark.parametrize("hop", ["intermediate", "published", "dead-letters"])
@pytest.mark.parametrize(
    ("strange", "problem", "shown"),
    [
        ((-1, -1, b"\xffgibberish"), "no readable id of this run", {"raw": "\\xffgibberish"}),
        ((1, 999_999, None), "an id that was never intended", {"event": f"{TAG}-0001-0000999999"}),
        ((8, 3, None), "an id that was never intended", {"event": f"{TAG}-0008-0000000003"}),
    ],
)
def test_an_id_from_nowhere(
    tmp_path: Path, hop: str, strange: tuple[int, int, bytes | None], problem: str, shown: dict[str, str]
) -> None:
    world = World()
    world.strange[hop] = [strange]
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert list(finding.examples) == [{"hop": hop, "problem": problem, **shown}]


@pytest.mark.parametrize("outcome", ["e", "?", "f"])
def test_an_event_that_is_not_in_the_source_log_must_not_appear(tmp_path: Path, outcome: str) -> None:
    world = World()
    world.outcome[world.sound[4]] = outcome
    world.copies["source"][world.sound[4]] = 0
    finding = check(world, tmp_path)
    assert finding.verdict == "violation"
    assert {e["hop"] for e in finding.examples} == {"intermediate", "published"}
    assert {e["event"] for e in finding.examples} == {world.event_id(world.sound[4])}


def test_an_acknowledged_event_that_the_log_lost_is_not_the_pipelines_doing(tmp_path: Path) -> None:
    world = World()
    world.copies["source"][world.sound[4]] = 0
    finding = check(world, tmp_path)
    assert finding.verdict == "inconclusive"
    assert "the source log lost" in finding.summary


def test_a_source_log_that_differs_from_the_generator_is_no_verdict(tmp_path: Path) -> None:
    world = World()
    world.altered.append(("source", int(world.sound[4]), "weight", 5))
    with pytest.raises(HarnessFault, match="does not hold what was generated"):
        check(world, tmp_path)


@pytest.mark.parametrize("hop", ["source", "published"])
def test_uncertified_is_inconclusive_whatever_was_found(tmp_path: Path, hop: str) -> None:
    world = World()
    world.altered.append(("published", int(world.sound[4]), "weight", 5))
    world.uncertified[hop] = "a gap"
    finding = check(world, tmp_path)
    assert (finding.verdict, finding.figures["hops"]["published"]["altered"]) == ("inconclusive", 1)


def test_hops_that_show_no_content_are_never_a_pass(tmp_path: Path) -> None:
    world = World()
    run = world.save(tmp_path)
    for hop in ("intermediate", "published"):
        frame = run.hop(hop)
        frame.select(frame.columns[: frame.columns.index("tweet_id")]).write_parquet(run.folder.hop(hop))
    run.folder.seal()
    finding = Content().check(type(run).load(run.path))
    assert finding.verdict == "inconclusive"
    assert "shows any content" in finding.summary


def test_no_events_and_no_hops(tmp_path: Path) -> None:
    world = World(hops=tuple(hop for hop in HOPS if hop["role"] in ("source", "sink")))
    assert check(world, tmp_path / "none").verdict == "inconclusive"
    world = World()
    for copies in world.copies.values():
        copies[:] = 0
    world.outcome[:] = "f"
    assert check(world, tmp_path / "empty").verdict == "inconclusive"


def test_many_alterations_of_one_field_do_not_hide_another(tmp_path: Path) -> None:
    world = World()
    for place in world.sound[:60]:
        world.altered.append(("published", int(place), "weight", 5))
    world.altered.append(("published", int(world.sound[100]), "client", "fax"))
    world.strange["intermediate"] = [(-1, -1, b"?")]
    finding = check(world, tmp_path)
    assert len(finding.examples) == 32
    assert {e.get("field") for e in finding.examples} == {"weight", "client", None}
    assert finding.figures["hops"]["published"]["altered"] == 61


def test_a_key_altered_on_the_way_is_a_loss_in_its_own_cells(tmp_path: Path) -> None:
    """What `content` shows at a hop, `no_loss` shows at the sink: one cell too low, another too high."""
    world = World()
    one = int(world.sound[100])
    world.copies["aggregates"][one] = 0
    world.copies["aggregates"][world.apart_from(one)] += 1
    assert NoLoss().check(world.save(tmp_path)).verdict == "violation"
