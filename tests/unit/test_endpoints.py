"""The endpoints file: what it may say, and what is answered to what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faults import partition
from harness.backends import Backends
from harness.backends.endpoints import Endpoint, Endpoints, Listener
from harness.backends.external import ExternalBackend, ExternalSite
from harness.provision.programs import Program
from harness.services.bigquery import BigQueryServer
from harness.topology import UsageError
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.legacy.pipeline import legacy_hdfs
from pipelines_under_test.warehouse.pipeline import kappa_warehouse

WHOLE = """
[kafka]
address = "kafka.staging.example:9092"

[kafka.links."converter->kafka"]
upstream = "kafka.staging.example:9102"
port = 21002

[pubsub]
address = "10.0.0.7:8085"

[bigtable]
address = "10.0.0.7:8086"
"""

OF_LEGACY_HDFS = """
[kafka]
address = "10.0.0.7:9092"

[redis]
address = "10.0.0.7:6379"

[hdfs]
address = "10.0.0.7:9870"
"""


def read(tmp_path: Path, text: str) -> Endpoints:
    path = tmp_path / "endpoints.toml"
    path.write_text(text)
    return Endpoints.read(path)


def test_a_whole_file(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE)
    found.check(kappa)
    listener = Listener("kafka.staging.example:9102", 21002)
    assert found.services["kafka"] == Endpoint("kafka.staging.example:9092", {"converter->kafka": listener})
    assert found.services["pubsub"] == Endpoint("10.0.0.7:8085")


def test_a_cluster_of_our_own_is_not_there_already(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hdfs of legacy-hdfs is HDFS, .* Run it with --backend process"):
        read(tmp_path, OF_LEGACY_HDFS).check(legacy_hdfs)
    with pytest.raises(UsageError, match="kappa has 3 brokers of its own in kafka, and .* knows one address"):
        read(tmp_path, WHOLE).check(kappa.brokers(kafka=3))


def test_links_to_kafka_without_a_listener_are_open(tmp_path: Path) -> None:
    opened = read(tmp_path, WHOLE).open_links(kappa)
    assert opened == {"load->kafka": "kafka", "preprocessor->kafka": "kafka"}


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("[pubsub]", "[pubsup]", r"does not say where the service 'pubsub' of kappa is. Add to it:\n  \[pubsub\]"),
        ("[bigtable]", "[redis]\naddress = 'a:1'\n[bigtable]", "no service of kappa 'redis'"),
        (
            "converter->kafka",
            "convertor->kafka",
            "no link to kafka 'convertor->kafka'. Did you mean 'converter->kafka'",
        ),
        ('address = "10.0.0.7:8085"', "", r"\[pubsub\]: address must be \"host:port\", not None"),
        ('"10.0.0.7:8085"', '"10.0.0.7"', "must be \"host:port\", not '10.0.0.7'"),
        ('"10.0.0.7:8085"', "8085", 'must be "host:port", not 8085'),
        ("port = 21002", 'port = "21002"', r"links.\"converter->kafka\"\]: port must be the number"),
        ("port = 21002", "port = 70000", "not 70000"),
        ("port = 21002", "", "not None"),
        ("upstream = ", "upsteam = ", "no setting 'upsteam'. Did you mean 'upstream'"),
        ('address = "10.0.0.7:8085"', 'address = "10.0.0.7:8085"\nadress = "x"', "Did you mean 'address'"),
        ("[kafka]", "extra = 3\n[kafka]", "must be a table, not 3"),
        ("[pubsub]", "[pubsub", "is no TOML"),
        (
            "[bigtable]",
            '[pubsub.links."converter->pubsub"]\nupstream = "a:1"\nport = 1\n[bigtable]',
            r"only Kafka needs a listener for each link; pubsub \(pubsub\) needs no \[pubsub.links\]",
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, was: str, becomes: str, told: str) -> None:
    assert was in WHOLE
    with pytest.raises(UsageError, match=told):
        read(tmp_path, WHOLE.replace(was, becomes, 1)).check(kappa)


GOOGLE = """
[bigquery]
address = "https://bigquery.googleapis.com"
project = "my-project"
"""


def test_the_real_bigquery_is_a_url_and_a_project(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE + GOOGLE)
    found.check(kappa_warehouse)
    assert found.services["bigquery"] == Endpoint("https://bigquery.googleapis.com", project="my-project")
    opened = found.open_links(kappa_warehouse)
    assert {link for link, service in opened.items() if service == "bigquery"} == {
        f"{worker}->bigquery" for worker in ("raw-export", "counts-export", "monitor", "parity")
    }
    emulator = read(tmp_path, WHOLE + GOOGLE.replace("https://bigquery.googleapis.com", "10.0.0.7:9050"))
    assert "bigquery" not in emulator.open_links(kappa_warehouse).values()


def test_workers_find_the_real_bigquery_past_their_proxies(tmp_path: Path) -> None:
    processes: Any = None
    program = Program("toxiproxy", "2.12.0", ("toxiproxy-server",), "test")
    endpoints = read(tmp_path, WHOLE + GOOGLE)
    site = ExternalSite(kappa_warehouse, program, processes, tmp_path, endpoints)
    assert site.doors["raw-export->bigquery"].client == "https://bigquery.googleapis.com"
    assert site.doors["raw-export->pubsub"].client.startswith("127.0.0.1:")
    server = BigQueryServer(kappa_warehouse.service("bigquery"), site, lambda name, how: None)  # type: ignore[arg-type]
    assert server.names("1a2b3c4d") == {"warehouse": "my-project.warehouse_1a2b3c4d"}
    assert server.upstreams(kappa_warehouse.link("monitor->bigquery")) == ["bigquery.googleapis.com:443"]
    site.close()


def test_faults_on_a_link_past_its_proxy_are_refused(tmp_path: Path) -> None:
    backend = object.__new__(ExternalBackend)
    backend._endpoints = read(tmp_path, WHOLE + GOOGLE)
    told = backend.refuses(partition("raw-export->bigquery"), kappa_warehouse)
    assert told == "bigquery is asked by its URL, by TLS and past the proxy"
    assert backend.refuses(partition("raw-export->pubsub"), kappa_warehouse) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (WHOLE, "does not say where the service 'bigquery' of kappa-warehouse is"),
        (WHOLE + GOOGLE.replace('project = "my-project"', ""), "does not say in which project of BigQuery"),
        (WHOLE + GOOGLE.replace('"my-project"', "7"), "project must be the name of a project of Google Cloud, not 7"),
        (WHOLE + GOOGLE.replace("https://bigquery", "https:// bigquery"), 'address must be "host:port", not'),
        (
            WHOLE.replace("10.0.0.7:8085", "https://pubsub.googleapis.com") + GOOGLE,
            "only BigQuery has a project and may be at a URL; pubsub needs",
        ),
        (WHOLE.replace('10.0.0.7:8086"', '10.0.0.7:8086"\nproject = "p"') + GOOGLE, "only BigQuery has a project"),
    ],
)
def test_what_is_wrong_about_bigquery_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read(tmp_path, text).check(kappa_warehouse)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere.toml cannot be read: No such file"):
        Endpoints.read(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("wanted", "endpoints", "told"),
    [
        ("external", None, "Give it one with --endpoints FILE"),
        ("process", Path("e.toml"), "e.toml is for --backend external, not process"),
        ("auto", Path("e.toml"), "not auto"),
        ("podman", None, "no backend 'podman'; there are auto, process, docker, external"),
    ],
)
def test_a_backend_and_its_file_belong_together(wanted: str, endpoints: Path | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Backends(wanted, None, endpoints)  # type: ignore[arg-type]
