"""The endpoints file: what it may say, and what is answered to what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.backends import Backends
from harness.backends.endpoints import Endpoint, Endpoints, Listener
from harness.topology import UsageError
from pipelines_under_test.kappa.pipeline import kappa

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
