"""Every event's way: at which hops it was seen, how often, when first and last; and which worker leads from hop to hop.

Times are epoch seconds. At a Pub/Sub hop they are the publish times that the service stamped, unless its clock is ahead
of the tap's; at any other hop, the moments at which the tap saw the message.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from harness.store import SavedRun

#: The process that writes to the source.
LOAD = "load"


@dataclass(frozen=True)
class Step:
    """One step of the way: from a hop to the next one, by a worker.

    `before` is None for the source, which load writes. `worker` is the declared name, `instances` its processes; None and
    empty where no worker says that it leads there. `links` are all of its links, `write_link` the one to where `after` is.
    """

    before: str | None
    after: str
    worker: str | None
    instances: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    write_link: str | None = None


@dataclass(frozen=True)
class Seen:
    """How a hop saw each event, by place: `copies` (distinct messages), `first` and `last` (nan: never), and, at a Kafka
    hop, `partition` and `offset` of its last record (-1: none)."""

    hop: str
    copies: np.ndarray
    first: np.ndarray
    last: np.ndarray
    partition: np.ndarray | None = None
    offset: np.ndarray | None = None


def path(run: SavedRun) -> list[str]:
    """The hops that show single events on their way, in their order: the source, then the path."""
    return [name for name, hop in run.hops.items() if hop["role"] in ("source", "path") and run.has_hop(name)]


def steps(run: SavedRun) -> dict[str, Step]:
    """The step that leads to each hop of the path and to the sink, by that hop."""
    return run.once("steps", lambda: _steps(run))


def _steps(run: SavedRun) -> dict[str, Step]:
    way = [*path(run), *([run.sink] if run.sink is not None else [])]
    pipeline = run.pipeline
    found: dict[str, Step] = {}
    for number, hop in enumerate(way):
        service = run.hops[hop].get("service", "")
        if number == 0:
            found[hop] = Step(None, hop, LOAD, (LOAD,), (f"{LOAD}->{service}",), f"{LOAD}->{service}")
            continue
        writers = [
            w for w in pipeline.get("workers", []) if hop in w.get("writes", ()) and w.get("reads") in way[:number]
        ]
        if not writers:
            found[hop] = Step(way[number - 1], hop, None)
            continue
        name = str(writers[0].get("worker") or writers[0]["name"])
        instances = tuple(str(w["name"]) for w in writers if (w.get("worker") or w["name"]) == name)
        links = [link for link in pipeline.get("links", []) if link["worker"] in instances]
        to_here = [link["name"] for link in links if link["service"] == service]
        # Of several replicas each has a link of its own; together they go by the worker's name.
        write_link = to_here[0] if len(to_here) == 1 else f"{name}->{service}" if to_here else None
        found[hop] = Step(
            str(writers[0]["reads"]), hop, name, instances, tuple(link["name"] for link in links), write_link
        )
    return found


def seen_at(run: SavedRun, hop: str) -> Seen:
    """How a hop of the path saw each event. Cost: one sort of its messages by time, once a run."""
    return run.once(("seen at", hop), lambda: _seen_at(run, hop))


def _seen_at(run: SavedRun, hop: str) -> Seen:
    frame = times_of(run, hop).filter(pl.col("place") >= 0).sort("at", maintain_order=True)
    places, at = frame["place"].to_numpy(), frame["at"].to_numpy()
    n = len(run.events)
    first, last = np.full(n, np.nan), np.full(n, np.nan)
    # Of several assignments to one place the last one stays.
    last[places] = at
    first[places[::-1]] = at[::-1]
    partition = offset = None
    if "partition" in frame.columns:
        partition, offset = np.full(n, -1, dtype=np.int32), np.full(n, -1, dtype=np.int64)
        partition[places], offset[places] = frame["partition"].to_numpy(), frame["offset"].to_numpy()
    return Seen(hop, run.copies(hop), first, last, partition, offset)


def times_of(run: SavedRun, hop: str) -> pl.DataFrame:
    """The messages of a hop with `at`, when each came there."""
    seen = pl.col("seen_ms")
    published = (
        pl.min_horizontal(pl.col("created_ms").cast(pl.Float64), seen) if run.hops[hop]["kind"] == "pubsub" else seen
    )
    return run.messages(hop).with_columns(at=published / 1000)


def first_counted(run: SavedRun) -> np.ndarray | None:
    """When each event became visible in the sink, by place (nan: never); None where the sink does not show that."""
    if run.sink is None:
        return None
    sightings = run.sightings(run.sink)
    if sightings is None:
        return None

    def make() -> np.ndarray:
        frame = sightings.filter(pl.col("place") >= 0).sort("seen_ms", descending=True)
        found = np.full(len(run.events), np.nan)
        found[frame["place"].to_numpy()] = frame["seen_ms"].to_numpy() / 1000
        return found

    return run.once("first counted", make)
