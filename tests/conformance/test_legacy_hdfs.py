"""The raw logs in a real HDFS, whose NameNode and DataNode are killed while the collector, killed as well, writes."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from test_kappa_services import eventually, source_form
from test_legacy_services import OldWorld, free_port, kill_now_and_then, minutes_ago, over_time

from harness.provision import hadoop
from harness.provision.hadoop import DATANODE, NAMENODE, Hdfs
from harness.provision.java import find_older_java
from harness.provision.programs import ProvisionError
from harness.provision.search import Search
from pipelines_under_test.legacy.logs import RawLogs

pytestmark = [pytest.mark.services, pytest.mark.longer]


class Cluster:
    """A NameNode and a DataNode, with a process for each."""

    def __init__(self, folder: Path) -> None:
        search = Search()
        ports = (free_port(), free_port(), free_port(), free_port(), free_port())
        self.hdfs = Hdfs(hadoop.look(search) or hadoop.fetch(search), folder, ports)
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.hdfs.configure()
        with (folder / "format.log").open("wb") as log:
            subprocess.run(self.hdfs.format_args(), stdout=log, stderr=log, check=True, timeout=60)
        for main in (NAMENODE, DATANODE):
            self.start(main)
        eventually(self.ready, 60)

    def start(self, main: str) -> None:
        with (self.folder / f"{main.rsplit('.', 1)[1]}.log").open("ab") as log:
            self.running[main] = subprocess.Popen(self.hdfs.args(main), stdout=log, stderr=log)

    def kill(self, main: str) -> None:
        self.running[main].kill()
        self.running[main].wait()

    def ready(self) -> bool:
        """Whether the NameNode is out of safe mode and knows a DataNode."""
        url = f"http://{self.hdfs.address}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return False
        return '"NumLiveDataNodes" : 1' in text and '"FSState" : "Operational"' in text

    def close(self) -> None:
        for main in self.running:
            self.kill(main)


def left_behind() -> set[Path]:
    """What HDFS's web servers unpack, in the folder of everybody's temporary files."""
    return set(Path(tempfile.gettempdir()).glob("jetty-*"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "hdfs"
    folder.mkdir()
    try:
        find_older_java(Search(), hadoop.MOST_JAVA)
    except ProvisionError as missing:
        pytest.skip(f"no Java that Hadoop runs on: {missing}")
    before = left_behind()
    made = Cluster(folder)
    yield made
    made.close()
    assert left_behind() <= before, "what is killed removes nothing, so it must have had all in its own folder"


@pytest.fixture
def world(kafka_bootstrap: str, pubsub_address: str, bigtable_address: str, tmp_path: Path) -> Iterator[OldWorld]:
    made = OldWorld(kafka_bootstrap, pubsub_address, bigtable_address, tmp_path)
    yield made
    made.close()


def test_nothing_is_lost_or_doubled_in_hdfs_whatever_is_killed(
    cluster: Cluster, world: OldWorld, tmp_path: Path
) -> None:
    url = f"webhdfs://gauntlet@{cluster.hdfs.address}/raw"
    start_ms = minutes_ago(3)
    happened = over_time(start_ms, 75, 6000)
    stop = threading.Event()

    def produce() -> None:
        for i in range(0, len(happened), 50):
            world.happen(happened[i : i + 50])
            stop.wait(0.15)

    def kill_the_file_system() -> None:
        for main in (DATANODE, NAMENODE, DATANODE):
            stop.wait(3)
            cluster.kill(main)
            stop.wait(1.5)
            cluster.start(main)

    threads = [threading.Thread(target=target) for target in (produce, kill_the_file_system)]
    for thread in threads:
        thread.start()
    kill_now_and_then(world, "landing", 5, RAW_LOGS=url)
    for thread in threads:
        thread.join()
    eventually(cluster.ready, 60)
    logs = RawLogs(url)
    eventually(lambda: logs.closed_until() == start_ms + 70_000, 60)
    eventually(lambda: sum(last + 1 for last in newest(logs).values()) == 6000, 60)
    assert world.log_of("landing").count("trying again") > 0
    landed = [value for file in logs.files() for value in logs.read(file)["value"]]
    assert sorted(landed) == sorted(source_form(e) for e in happened)

    truths = [tmp_path / name for name in ("logs.parquet", "topic.parquet")]
    assert world.start("legacy.batch", "truth", RAW_LOGS=url, BATCH_OUTPUT=str(truths[0])).wait(60) == 0
    assert world.start("kappa.batch", "truth", BATCH_OUTPUT=str(truths[1])).wait(60) == 0
    assert pl.read_parquet(truths[0]).equals(pl.read_parquet(truths[1]))


def newest(logs: RawLogs) -> dict[int, int]:
    """Kafka partition -> the last offset that has landed."""
    return {file.kafka_partition: file.last for file in sorted(logs.files(), key=lambda file: file.last)}


def test_a_collector_waits_for_a_file_system_that_is_away(cluster: Cluster, world: OldWorld) -> None:
    cluster.kill(NAMENODE)
    url = f"webhdfs://gauntlet@{cluster.hdfs.address}/raw"
    world.happen(over_time(minutes_ago(3), 20, 200))
    worker = world.worker("landing", RAW_LOGS=url)
    eventually(lambda: "trying again" in world.log_of("landing"))
    time.sleep(1)
    assert worker.poll() is None
    cluster.start(NAMENODE)
    logs = RawLogs(url)
    eventually(cluster.ready, 60)
    eventually(lambda: sum(logs.read(file).height for file in logs.files()) == 200, 30)
    worker.terminate()
    assert worker.wait(15) == 0
