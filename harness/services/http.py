"""A worker of the pipeline that answers for its counts over HTTP: the query service in front of its stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import requests

from harness.services.base import SinkReading, SinkTap
from harness.topology import Cells, CountedCell, HttpHop

#: It asks its stores before it answers, and one of them may be cut off.
TIMEOUT_S = 30.0
#: A query service is there to be asked, and so often that it shows when its counts appear.
RESTS_S, RESTS = 0.5, 2.0


def http_tap(hop: HttpHop, address: str, cells: Sequence[Cells], now: Callable[[], float]) -> SinkTap:
    """The tap of a worker's counts, which it answers as long as it runs: it is stopped after the tap has finished."""
    session = _session()

    def read() -> SinkReading:
        return SinkReading(read_cells(session, f"http://{address}{hop.path}"), None)

    return SinkTap(hop.name, read, cells, now, rests_s=RESTS_S, rests=RESTS, dates=True)


def read_cells(session: requests.Session, url: str) -> list[CountedCell]:
    """All cells of one answer. Raises ValueError for one that is no answer, or of which nobody could tell that it is
    whole, and requests' own errors."""
    with session.get(url, timeout=TIMEOUT_S, headers={"Connection": "close"}) as answer:
        if answer.status_code != 200:
            raise ValueError(f"GET {url} was answered {answer.status_code}: {answer.text.strip()[:300]}")
        if "Content-Length" not in answer.headers and answer.headers.get("Transfer-Encoding") != "chunked":
            raise ValueError(f"GET {url} was answered without Content-Length, so that half of it would look whole")
        return [_cell(line, number) for number, line in enumerate(answer.content.splitlines(), 1) if line.strip()]


def healthy(address: str, path: str, timeout_s: float = 2.0) -> bool:
    """Whether the worker says that it can answer."""
    try:
        with _session() as session:
            return session.get(f"http://{address}{path}", timeout=timeout_s).status_code == 200
    except requests.RequestException:
        return False


def _cell(line: bytes, number: int) -> CountedCell:
    try:
        cell: dict[str, Any] = orjson.loads(line)
        return CountedCell(
            str(cell["dimension"]),
            (str(cell["key"]),),
            int(cell["window_s"]),
            int(cell["window_start_ms"]),
            int(cell["count"]),
            int(cell["weight"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"line {number} of the answer is no cell ({error!r}): {line[:200]!r}") from error


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy stands between the harness and a worker
    return session
