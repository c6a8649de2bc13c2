"""BigQuery's emulator, the warehouse's SQL on it with data made by hand, and the client that workers ask it with."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import grpc
import polars as pl
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.bigtable_admin_v2.types import CreateTableRequest

from harness import warehouse
from harness.backends.process import Processes
from harness.backends.process_site import ProcessSite
from harness.provision import provision, provision_one
from harness.run_folder import RunFolder
from harness.services.bigquery import BigQueryServer, bigquery_tap, probe, select
from harness.topology import BigQueryHop
from pipelines_under_test.kappa import rows
from pipelines_under_test.kappa.table import Table
from pipelines_under_test.kappa.worker import Stopped
from pipelines_under_test.warehouse.bigquery import SQL, Dataset
from pipelines_under_test.warehouse.counts_export import written_since
from pipelines_under_test.warehouse.pipeline import COUNTS, kappa_warehouse

pytestmark = [pytest.mark.services, pytest.mark.longer]

LOG = logging.getLogger("test")
RUN = "1a2b3c4d"
L_MS = 5000
T0 = 1_790_000_000_000  # a whole minute and 40 s
START = T0 - T0 % 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryServer]:
    folder = tmp_path_factory.mktemp("bigquery") / "site"
    processes = Processes()
    programs = dataclasses.replace(provision(), bigquery=provision_one("bigquery"))
    site = ProcessSite(kappa_warehouse, programs, processes, folder)
    (folder / "logs").mkdir(parents=True)
    service: Any = kappa_warehouse.service("bigquery")
    started = BigQueryServer(service, site, lambda name, how: None)
    started.start()
    started.wait_until_ready()
    yield started
    processes.close()
    site.close()


@pytest.fixture
def dataset(server: BigQueryServer, request: pytest.FixtureRequest) -> Iterator[Dataset]:
    names = server.names(f"{abs(hash(request.node.name)):x}"[:8])
    server.make(names)
    made = Dataset(server.direct, names["warehouse"], threading.Event(), LOG)
    made.make_tables()
    yield made
    server.remove(names)


def raw(message: str, event: int | None, **other: Any) -> dict[str, Any]:
    """A row of the raw export: an event in the first 10 s, on time."""
    row: dict[str, Any] = {"message_id": message, "publish_ms": START + 900, "exported_ms": START + 950}
    if event is None:
        return row
    return {
        **row,
        "event_id": f"{RUN}-0001-{event:010d}",
        "created_ms": START + 800,
        "event_time_ms": START + 500,
        "tweet_id": 7,
        "author_id": 8,
        "engagement": "like",
        "weight": 100 + event,
        "country": "US",
        **other,
    }


def cell(count: int, weight: int = 0, start: int = 0, key: str = "7|like", **other: Any) -> dict[str, Any]:
    found = {"dimension": "tweet", "key": key, "window_s": 10, "window_start_ms": START + start * 1000}
    return {**found, "count": count, "weight": weight, **other}


# ------------------------------------------------------------------------------------------------------ service


def test_a_run_has_a_dataset_of_its_own_and_leaves_nothing(server: BigQueryServer) -> None:
    names = {run: server.names(run) for run in ("aaaaaaaa", "bbbbbbbb")}
    for each in names.values():
        server.make(each)
    found = {d.dataset_id for d in server.client().list_datasets()}
    assert {"warehouse_aaaaaaaa", "warehouse_bbbbbbbb"} <= found
    server.sweep("aaaaaaaa")
    found = {d.dataset_id for d in server.client().list_datasets()}
    assert "warehouse_bbbbbbbb" in found
    assert "warehouse_aaaaaaaa" not in found
    server.remove(names["bbbbbbbb"])
    server.remove(names["bbbbbbbb"])  # what is not there is no trouble
    assert "warehouse_bbbbbbbb" not in {d.dataset_id for d in server.client().list_datasets()}
    assert probe(server.direct) < 5


# --------------------------------------------------------------------------------------------------- duplicates


def duplicates(dataset: Dataset, behind_ms: int = -(2**62)) -> dict[str, Any]:
    [found] = dataset.select((SQL / "duplicates.sql").read_text(), behind_ms=behind_ms)
    return dict(found)


def test_duplicates_before_and_after(dataset: Dataset) -> None:
    some = [raw(str(i), i) for i in range(10)]
    some += [raw("again", 3), raw("again", 3)]  # published twice; and that export was repeated
    some += [raw("unreadable", None), raw("test", 77, country="ZZ"), raw("test again", 77, country="ZZ")]
    dataset.append("raw", some)
    dataset.append("counts", [cell(9, version=1), cell(12, version=3), cell(10, version=2)])  # one lands late
    dataset.append("counts", [cell(1, start=10, version=1, window_s=60)])
    found = duplicates(dataset)
    assert found == {
        "messages": 11,
        "events": 10,
        "before": pytest.approx(0.1),
        "settled": 10,
        "counted": 11,  # without the test's
        "after": pytest.approx(0.1),
    }


def test_only_what_is_settled_is_compared_with_the_counts(dataset: Dataset) -> None:
    dataset.append("raw", [raw("1", 1), raw("2", 2, event_time_ms=START + 10_000, created_ms=START + 11_000)])
    dataset.append("counts", [cell(1, version=1), cell(9, start=10, version=1)])
    assert duplicates(dataset, 1000) | {"before": 0} == {
        "messages": 2,
        "events": 2,
        "before": 0,
        "settled": 1,
        "counted": 1,
        "after": 0,
    }
    nothing = duplicates(dataset, 1001)
    assert (nothing["events"], nothing["settled"], nothing["counted"], nothing["after"]) == (2, 0, 0, None)


def test_duplicates_of_nothing(dataset: Dataset) -> None:
    found = duplicates(dataset)
    assert found == {"messages": 0, "events": 0, "before": None, "settled": 0, "counted": 0, "after": None}


# ------------------------------------------------------------------------------------------------------- parity

#: What the cells of parity hold: name -> (stream, batch, (count, weight) that was late)
CASES: Mapping[str, tuple[Any, Any, Any]] = {
    "same|like": ((3, 303), (3, 303), None),
    "late|like": ((3, 303), (2, 202), (1, 101)),
    "only-late|like": ((1, 101), None, (1, 101)),
    "lost|like": ((2, 202), (3, 303), None),
    "doubled|like": ((4, 404), (3, 303), None),
    "weight|like": ((3, 304), (3, 303), None),
    "late-weight|like": ((3, 303), (2, 203), (1, 101)),
    "late-dropped|like": ((2, 202), (2, 202), (1, 101)),
    "batch-only|like": (None, (3, 303), None),
    "stream-only|like": ((3, 303), None, None),
    "test|like": ((1, 101), (1, 101), None),
}
KINDS = {
    "same|like": "exact",
    "late|like": "explained",
    "only-late|like": "explained",
    **dict.fromkeys(("lost|like", "doubled|like", "weight|like", "late-weight|like", "late-dropped|like"), "wrong"),
    **dict.fromkeys(("batch-only|like", "stream-only|like"), "wrong"),
}


def fill(dataset: Dataset, folder: Path) -> Path:
    """Puts the cases in; by tweets that are numbered, since a key is made of one. Returns the batch truth's file."""
    events, counts, batch = [], [], []
    for tweet, (stream, truth, late) in enumerate(CASES.values()):
        key = f"{tweet}|like"
        if late is not None:
            came = {"created_ms": START + 10_000 + L_MS + 1, "weight": late[1]}
            events += [raw(f"late {tweet}", tweet, tweet_id=tweet, author_id=tweet, **came)]
            events += events[-1:]  # exported twice
        if tweet == list(CASES).index("test|like"):
            events.append(raw("test", tweet, tweet_id=tweet, country="ZZ"))
        if stream is not None:
            counts += [cell(*stream, key=key, version=2), cell(99, 99, key=key, version=1)]
        if truth is not None:
            batch.append(cell(*truth, key=key))
    events.append(raw("at the edge", 0, tweet_id=0, created_ms=START + 10_000 + L_MS))  # not late for it, by nothing
    dataset.append("raw", events)
    dataset.append("counts", counts)
    file = folder / "batch.parquet"
    pl.DataFrame(batch).with_columns(pl.col("window_s").cast(pl.Int32)).write_parquet(file)
    return file


def kinds(told: list[Mapping[str, Any]]) -> dict[str, str]:
    names = list(CASES)
    return {names[int(row["key"].split("|")[0])]: row["kind"] for row in told if row["dimension"] == "tweet"}


def test_parity_of_every_kind(dataset: Dataset, tmp_path: Path) -> None:
    dataset.replace("batch", fill(dataset, tmp_path))
    sql = (SQL / "parity.sql").read_text()
    assert kinds(dataset.select(sql, late_after_ms=L_MS, closed_ms=2**62)) == KINDS
    assert dataset.select(sql, late_after_ms=L_MS, closed_ms=START + 9_999) == []
    assert kinds(dataset.select(sql, late_after_ms=L_MS, closed_ms=START + 10_000)) == KINDS
    generous = kinds(dataset.select(sql, late_after_ms=L_MS + 1, closed_ms=2**62))
    assert generous["late|like"] == "wrong"


def test_a_query_that_ignores_missing_cells_is_another_one(dataset: Dataset, tmp_path: Path) -> None:
    """What tests/zoo/test_warehouse.py plants changes the answer for just those that one side lacks."""
    dataset.replace("batch", fill(dataset, tmp_path))
    sql = (SQL / "parity.sql").read_text()
    inner = sql.replace("FULL JOIN batch", "INNER JOIN batch")
    assert inner != sql
    lacking = {"only-late|like", "batch-only|like", "stream-only|like"}
    found = kinds(dataset.select(inner, late_after_ms=L_MS, closed_ms=2**62))
    assert found == {name: kind for name, kind in KINDS.items() if name not in lacking}


def test_a_load_replaces_all_of_a_table(dataset: Dataset, tmp_path: Path) -> None:
    file = fill(dataset, tmp_path)
    dataset.replace("batch", file)
    dataset.replace("batch", file)
    [found] = dataset.select("SELECT COUNT(*) AS n FROM batch")
    assert found["n"] == pl.read_parquet(file).height


# ------------------------------------------------------------------------------------- what the harness asks itself


def collected(server: BigQueryServer, dataset: Dataset, folder: RunFolder, **house: str) -> list[str]:
    declared = kappa_warehouse.warehouse
    assert declared is not None
    troubles: list[str] = []
    warehouse.collect(
        dataclasses.replace(declared, **house), server, dataset.name, L_MS / 1000, folder, troubles.append
    )
    return troubles


def test_the_final_figures(server: BigQueryServer, dataset: Dataset, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "synthetic")
    fill(dataset, tmp_path).rename(folder.batch)
    asked = duplicates(dataset)
    for _ in range(2):  # the append of the monitor was repeated
        dataset.append("duplicates", [{"at_ms": 5, **asked}])
    assert collected(server, dataset, folder) == []
    told = pl.read_parquet(folder.warehouse("duplicates"))
    assert told["final"].to_list() == [False, True]
    assert told["messages"].to_list() == [asked["messages"]] * 2
    assert kinds(pl.read_parquet(folder.warehouse("parity")).to_dicts()) == KINDS


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT 1 AS messages", "selects no column events, before, settled, counted, after"),
        ("SELECT 1 AS messages UNION ALL SELECT 2", "answers 2 rows, not one"),
        ("SELEKT", "could not be had"),
        (
            "SELECT 1 AS messages, CAST(NULL AS INT64) AS events, 0.5 AS before, 1 AS settled, 1 AS counted, 0.5 AS after",
            "has no value for events",
        ),
    ],
)
def test_sql_that_does_not_answer_leaves_nothing_to_judge_by(
    server: BigQueryServer, dataset: Dataset, tmp_path: Path, sql: str, told: str
) -> None:
    folder = RunFolder.create(tmp_path, "synthetic")
    (tmp_path / "wrong.sql").write_text(sql)
    troubles = collected(server, dataset, folder, duplicates=str(tmp_path / "wrong.sql"))
    assert told in troubles[0]
    assert "there is no batch truth" in troubles[1]
    assert not list(folder.warehouse_folder.iterdir())


def test_the_taps_of_both_exports(server: BigQueryServer, dataset: Dataset) -> None:
    some = [raw("a", 1), raw("b", 1), raw("b", 1), raw("c", 2, event_id=f"{RUN}-0000-0000000001"), raw("d", None)]
    hops = {hop.name: hop for hop in kappa_warehouse.hops if isinstance(hop, BigQueryHop)}
    taps = {
        name: bigquery_tap(hop, server, dataset.name, kappa_warehouse.cells, RUN, time.time)
        for name, hop in hops.items()
    }
    for tap in taps.values():
        tap.start()
    dataset.append("raw", some)
    dataset.append("counts", [cell(1, version=1), cell(3, version=2), cell(5, dimension="author", version=1)])
    until = time.monotonic() + 20
    while time.monotonic() < until and not all(tap.warm() for tap in taps.values()):
        time.sleep(0.05)
    assert (taps["raw"].count(), taps["raw"].distinct()) == (2, 1)
    assert taps["counts"].distinct() == 3
    result = taps["raw"].finish()
    assert result.certified, result.reason
    frame = result.frame.sort("message_id")
    assert frame["message_id"].to_list() == ["a", "b", "c", "d"]
    assert frame["producer"].to_list() == [1, 1, 0, -1]
    counts = taps["counts"].finish()
    assert counts.certified, counts.reason
    assert counts.frame.sort("dimension")["count"].to_list() == [5, 3]


def test_a_tap_of_a_table_that_is_not_there(server: BigQueryServer) -> None:
    hop = BigQueryHop("counts", "bigquery", dataset="warehouse", query=COUNTS, counts=True)
    tap = bigquery_tap(hop, server, "gauntlet.nobody", kappa_warehouse.cells, RUN, time.time)
    tap.start()
    assert tap.finish().frame.is_empty()


# ------------------------------------------------------------------------------------------- reading what is durable


def test_the_counts_export_reads_whole_rows_in_which_anything_was_written_since(bigtable_address: str) -> None:
    name = f"projects/gauntlet/instances/gauntlet/tables/aggregates-{time.monotonic_ns()}"
    parent, table_id = name.rsplit("/tables/", 1)
    families = {family: {} for family in (rows.SEEN, rows.AGG)}
    channel = grpc.insecure_channel(bigtable_address)
    request = CreateTableRequest(parent=parent, table_id=table_id, table={"column_families": families})
    channel.unary_unary("/google.bigtable.admin.v2.BigtableTableAdmin/CreateTable")(
        CreateTableRequest.serialize(request), timeout=10
    )
    table = Table(bigtable_address, name, threading.Event(), LOG)

    def add(key: str, *uuids: str) -> bytes:
        row = rows.row_key("tweet", key, START)
        table.add_seen({row: [(rows.seen_qualifier("like", u), rows.seen_value(5, u)) for u in uuids]})
        return row

    old, both = add("1", "a", "b"), add("2", "c")
    time.sleep(0.05)
    since = time.time()
    assert {row.key for row in written_since(table, 0.0)} == {old, both}
    assert written_since(table, since + 60) == []
    time.sleep(0.05)
    new = add("3", "d")
    add("2", "e")
    found = {row.key: len(row.cells) for row in written_since(table, since)}
    assert found == {both: 2, new: 1}


# ------------------------------------------------------------------------------------------------------ the client


def test_a_worker_insists_until_it_is_asked_to_stop(dataset: Dataset) -> None:
    away = Dataset("127.0.0.1:1", dataset.name, threading.Event(), LOG)
    ended: list[BaseException] = []

    def append() -> None:
        try:
            away.append("raw", [raw("1", 1)])
        except Stopped as stopped:
            ended.append(stopped)

    thread = threading.Thread(target=append)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    away.stop.set()
    thread.join(5)
    assert len(ended) == 1


class Google(BaseHTTPRequestHandler):
    """Stands for Google's token service and for the front of the real BigQuery: it asks who comes."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def _answer(self, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        self._answer({"access_token": "secret", "expires_in": 3600, "token_type": "Bearer"})

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        return


def test_the_real_one_is_asked_by_its_url_with_the_clients_own_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    google = HTTPServer(("127.0.0.1", 0), Google)
    threading.Thread(target=google.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{google.server_port}"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "client_email": "a@b", "private_key_id": "1", "project_id": "my-project"}
    account |= {"private_key": key.decode(), "token_uri": f"{url}/token"}
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    Dataset(url, "my-project.warehouse_1", threading.Event(), LOG).append("raw", [raw("1", 1)])
    google.shutdown()
    assert Google.asked[0][0] == "/token"
    path, bearer = Google.asked[1]
    assert path.startswith("/bigquery/v2/projects/my-project/datasets/warehouse_1/tables/raw/insertAll")
    assert bearer == "Bearer secret"


def test_a_query_with_parameters_of_the_harness(server: BigQueryServer, dataset: Dataset) -> None:
    dataset.append("raw", [raw("a", 1), raw("b", 2)])
    found = select(
        server.client(),
        dataset.name,
        "SELECT COUNT(*) FROM raw WHERE weight > @w AND engagement = @e",
        {"w": 101, "e": "like"},
    )
    assert found[0][0] == 1
