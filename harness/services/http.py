"""A worker of the pipeline that answers for its counts over HTTP: the query service in front of its stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import orjson
import requests

from harness.services.base import SinkReading, SinkTap
from harness.topology import Cells, CountedCell, HttpHop, Sighting

Answer = TypeVar("Answer")

#: It asks its stores before it answers, and one of them may be cut off.
TIMEOUT_S = 30.0
#: A query service is there to be asked, and so often that it shows when its counts appear.
RESTS_S, RESTS = 0.5, 2.0


def http_tap(hop: HttpHop, address: str, cells: Sequence[Cells], now: Callable[[], float]) -> SinkTap:
    """The tap of a worker's counts, which it answers as long as it runs: it is stopped after the tap has finished."""

    def glance() -> SinkReading:
        return SinkReading(list(_lines(f"http://{address}{hop.path}", _cell)), None)

    def read() -> SinkReading:
        cells = glance().cells
        seen = _lines(f"http://{address}{hop.sightings}", _sighting) if hop.sightings else None
        return SinkReading(cells, None if seen is None else list(seen))

    return SinkTap(hop.name, read, cells, now, glance, RESTS_S, RESTS, dates=not hop.sightings)


def _lines(url: str, told: Callable[[Any], Answer]) -> Iterator[Answer]:
    """What each line of an answer tells. Raises ValueError for one that is no answer, or of which nobody could tell that
    it is whole, and requests' own errors."""
    # A connection of its own: a server may end one after its answer without a word, and the next question asked on it
    # at that moment would find it dead.
    with _session() as session, session.get(url, timeout=TIMEOUT_S, headers={"Connection": "close"}) as answer:
        if answer.status_code != 200:
            raise ValueError(f"GET {url} was answered {answer.status_code}: {answer.text.strip()[:300]}")
        if "Content-Length" not in answer.headers and answer.headers.get("Transfer-Encoding") != "chunked":
            raise ValueError(f"GET {url} was answered without Content-Length, so that half of it would look whole")
        for number, line in enumerate(answer.content.splitlines(), 1):
            try:
                if line.strip():
                    yield told(orjson.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                kind = told.__name__.strip("_")
                raise ValueError(f"line {number} of {url} is no {kind} ({error!r}): {line[:200]!r}") from error


def healthy(address: str, path: str, timeout_s: float = 2.0) -> bool:
    """Whether the worker says that it can answer."""
    try:
        with _session() as session:
            return session.get(f"http://{address}{path}", timeout=timeout_s).status_code == 200
    except requests.RequestException:
        return False


def _cell(said: Any) -> CountedCell:
    return CountedCell(
        str(said["dimension"]),
        (str(said["key"]),),
        int(said["window_s"]),
        int(said["window_start_ms"]),
        int(said["count"]),
        int(said["weight"]),
    )


def _sighting(said: Any) -> Sighting:
    return Sighting(str(said["event_id"]), float(said["seen_ms"]))


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy stands between the harness and a worker
    return session
