"""The query service: one HTTP interface before either pipeline's stores. The role of Twitter's Data Access Layer.

    LISTEN BACKEND GAUNTLET_WORKER
    BACKEND=lambda: BATCH_STORE REDIS REDIS_PREFIX     batch and speed results, merged as `views.py` tells
    BACKEND=kappa:  BIGTABLE TABLE                     the aggregates of the Kappa pipeline

    GET /cells       every cell, newline-delimited JSON: dimension, key, window_s, window_start_ms, count, weight
    GET /cell?dimension=tweet&key=17|like&window_s=10&window_start_ms=1790000010000      one cell, zero if there is none
    GET /sightings   newline-delimited JSON: event_id, seen_ms; in lambda for a speed layer with $SHOW_EVENTS
    GET /healthz     200 and from what it answers, as JSON

400 for what is no such question, 404 for another path, and 503 with the reason while there is no answer, for whatever
part: half an answer would be a wrong one. It keeps nothing, so it may be killed and started at will.

The server is the standard library's, a thread a request: four paths, no state and no middleware need no framework.

Where this differs: the Data Access Layer is a catalog that finds data sets by name for whoever needs them, wherever they
are stored; the merge of batch and speed was Summingbird's client (ClientStore) and TSAR's service behind it.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from pipelines_under_test.kappa import rpc
from pipelines_under_test.kappa.worker import open_log, setting, stop_on_signals
from pipelines_under_test.legacy.cache import Cache
from pipelines_under_test.legacy.cells import Cell, as_json
from pipelines_under_test.legacy.store import Store
from pipelines_under_test.legacy.views import Kappa, Lambda, Unavailable, View

LINES = "application/x-ndjson"
JSON = "application/json"


class BadQuestion(ValueError):
    """Status 400. The message says what was expected."""


def answer(view: View, path: str) -> tuple[int, str, str]:
    """Status, content type and body for a GET of this path."""
    asked = urlsplit(path)
    try:
        match asked.path:
            case "/cells":
                return 200, LINES, lines(as_json(cell, count) for cell, count in view.cells())
            case "/cell":
                cell = cell_of(asked.query)
                return 200, JSON, as_json(cell, view.cell(cell))
            case "/sightings":
                seen = ({"event_id": event_id, "seen_ms": at_ms} for event_id, at_ms in view.sightings())
                return 200, LINES, lines(json.dumps(one) for one in seen)
            case "/healthz":
                return 200, JSON, json.dumps(view.state())
    except BadQuestion as error:
        return 400, JSON, json.dumps({"error": str(error)})
    except Unavailable as error:
        return 503, JSON, json.dumps({"error": str(error)})
    return 404, JSON, json.dumps({"error": f"there is no {asked.path}; ask /cells, /cell, /sightings or /healthz"})


def lines(texts: Iterable[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def cell_of(query: str) -> Cell:
    """The cell that the parameters name. Raises BadQuestion."""
    given = {name: values[-1] for name, values in parse_qs(query).items()}
    if missing := [name for name in Cell._fields if name not in given]:
        raise BadQuestion(f"parameters missing: {', '.join(missing)}")
    if "|" not in given["key"]:
        raise BadQuestion("key must be <id>|<engagement>")
    try:
        return Cell(given["dimension"], given["key"], int(given["window_s"]), int(given["window_start_ms"]))
    except ValueError:
        raise BadQuestion("window_s and window_start_ms must be whole numbers") from None


def handler(view: View, say: Callable[..., None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            status, kind, text = answer(view, self.path)
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            if status >= 400:
                say("%s: %d %s", self.path, status, text)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing for each request; what could not be answered is logged above."""

    return Handler


def view_of(backend: str, stop: threading.Event, lambda_kind: type[Lambda] = Lambda) -> View:
    """What the environment says that is answered from. Ends the process with status 2 for another backend."""
    log = open_log(setting("GAUNTLET_WORKER", "query"))
    if backend == "lambda":
        cache = Cache(setting("REDIS"), setting("REDIS_PREFIX", "speed"))
        return lambda_kind(Store.at(setting("BATCH_STORE"), log), cache)
    if backend == "kappa":
        return Kappa(rpc.Connection(setting("BIGTABLE"), stop, log), setting("TABLE"))
    print(f"BACKEND is {backend!r}, but must be lambda or kappa", file=sys.stderr)
    raise SystemExit(2)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    #: At its start it may find the connections of a former self still closing.
    allow_reuse_address = True


def main(lambda_kind: type[Lambda] = Lambda) -> int:
    """Runs until SIGTERM (0)."""
    stop = stop_on_signals()
    view = view_of(setting("BACKEND", "lambda"), stop, lambda_kind)
    log = open_log(setting("GAUNTLET_WORKER", "query"))
    host, port = setting("LISTEN").rsplit(":", 1)
    server = Server((host, int(port)), handler(view, log.warning))
    log.info("listens on %s:%d", host, server.server_port)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    while not stop.wait(1):
        pass
    server.shutdown()
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
