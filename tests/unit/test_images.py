"""Images: what goes into one, what it is called, and which pipelines can live in containers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest

from examples.orders.pipeline import orders
from harness.backends import Backends, images
from harness.backends.docker import cannot_hold
from harness.topology import UsageError
from pipelines_under_test.kappa.pipeline import kappa
from pipelines_under_test.legacy.pipeline import legacy, legacy_hdfs
from pipelines_under_test.warehouse.pipeline import kappa_warehouse


class Daemon:
    """Knows these images and can pull none."""

    def __init__(self, *refs: str, labels: dict[str, str] | None = None) -> None:
        self._refs, self._labels = refs, labels or {}
        self.images = self.api = self

    def inspect_image(self, ref: str) -> dict[str, Any]:
        if ref not in self._refs:
            raise docker.errors.ImageNotFound(ref)
        return {}

    def get(self, ref: str) -> Any:
        return SimpleNamespace(labels=self._labels)

    def pull(self, ref: str) -> None:
        raise docker.errors.APIError("no such host")


#: Those of every pipeline.
OFFICIAL = [images.OFFICIAL[kind].ref for kind in images.SERVICES]


def test_what_a_command_names_goes_into_its_image(tmp_path: Path) -> None:
    home = tmp_path / "jre"
    (home / "bin").mkdir(parents=True)
    for file in (home / "bin" / "java", tmp_path / "a.jar", tmp_path / "b.jar", tmp_path / "cache.aot"):
        file.touch()
    command = [f"{home}/bin/java", "-Xmx1g", f"-XX:AOTCache={tmp_path}/cache.aot", "-cp", f"{tmp_path}/a.jar:{tmp_path}/b.jar",
               "Main", "/mnt/not/here"]  # fmt: skip
    assert images._paths_in(command) == [home, tmp_path / "cache.aot", tmp_path / "a.jar", tmp_path / "b.jar"]


def test_the_workers_image_is_named_by_its_content(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stale image would test other code than the one that is here."""
    file = tmp_path / "a.py"
    file.write_text("x = 1")
    monkeypatch.setattr(images, "_sources", lambda: iter([("harness/a.py", file)]))
    first = images.worker_ref()
    assert images.worker_ref() == first
    file.write_text("x = 2")
    second = images.worker_ref()
    monkeypatch.setattr(images, "requirements", lambda: {"polars==0.1"})
    assert len({first, second, images.worker_ref()}) == 3


def test_what_this_package_stands_on_and_nothing_else() -> None:
    found = {line.split("==")[0] for line in images.requirements()}
    assert {"confluent-kafka", "testcontainers", "apache-beam", "google-api-core"} <= found
    assert not found & {"mypy", "ruff", "hypothesis", "gauntlet-harness"}


def test_every_source_of_the_package_is_in_it() -> None:
    names = {name for name, _ in images._sources()}
    assert {"harness/cli.py", "pipelines_under_test/kappa/aggregator.py", "harness/provision/kafka.lock"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_an_image_made_here_comes_before_the_official_one() -> None:
    labels = {"gauntlet.command": '["-p", "{port}"]', "gauntlet.version": "7", "gauntlet.note": "pstest"}
    here = images._here(Daemon(images.local_ref("pubsub"), *OFFICIAL, labels=labels), "pubsub")
    assert here == images.Image("pubsub", images.local_ref("pubsub"), "7", ("-p", "{port}"), "pstest")
    assert images._here(Daemon(*OFFICIAL), "pubsub") == images.OFFICIAL["pubsub"]
    assert images._here(Daemon(), "pubsub") is None


def test_an_image_that_is_named_is_taken_or_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAUNTLET_IMAGE_KAFKA", "mine/kafka:9")
    found = images._here(Daemon("mine/kafka:9", *OFFICIAL), "kafka")
    assert found is not None
    assert (found.ref, found.version) == ("mine/kafka:9", "9")
    assert images._here(Daemon(*OFFICIAL), "kafka") is None


def test_all_that_is_missing_is_told_at_once_with_the_command() -> None:
    with pytest.raises(UsageError) as raised:
        images.resolve(Daemon(images.OFFICIAL["kafka"].ref))
    told = str(raised.value)
    assert "gauntlet images build" in told
    assert "no such host" in told
    assert all(ref in told for ref in [*OFFICIAL[1:], images.worker_ref()])
    assert images.OFFICIAL["kafka"].ref not in told


def test_what_is_missing_is_known_without_a_pull() -> None:
    assert len(images.missing(Daemon())) == 5
    assert images.missing(Daemon(*OFFICIAL, images.worker_ref())) == []
    assert images.missing(Daemon(*OFFICIAL, images.packages_ref())) == [], "the last layer is made by need"


def test_an_image_that_only_some_pipelines_need_is_asked_for_by_them_alone() -> None:
    assert (images.needed(kappa), images.needed(legacy)) == (set(), {"redis"})
    valkey = images.OFFICIAL["redis"]
    assert images.missing_of(Daemon(*OFFICIAL), ["redis"]) == [f"the image {valkey.ref}"]
    assert images.missing_of(Daemon(valkey.ref), ["redis"]) == []
    assert images.resolve_services(Daemon(valkey.ref), ["redis"]) == {"redis": valkey}
    assert valkey.command[:5] == ("valkey-server", "--bind", "0.0.0.0", "--port", "{port}")
    with pytest.raises(UsageError, match=f"(?s){valkey.ref}: no such host.*gauntlet images build"):
        images.resolve_services(Daemon(), ["redis"])


def test_which_pipelines_can_live_in_containers() -> None:
    assert cannot_hold(kappa) == cannot_hold(legacy) == ""
    assert "is a file on this machine" in cannot_hold(orders)
    assert cannot_hold(legacy_hdfs) == "hdfs of legacy-hdfs is HDFS, which runs as plain processes only."
    assert cannot_hold(kappa_warehouse) == (
        "bigquery of kappa-warehouse is BigQuery, of whose emulator there is no image."
    )
    own = dataclasses.replace(kappa.workers[0], command=["./mine"])
    pipeline = dataclasses.replace(kappa, workers=[own, *kappa.workers[1:]])
    assert cannot_hold(pipeline) == "The worker preprocessor of kappa declares no image."
    imaged = dataclasses.replace(own, image="mine:1")
    assert cannot_hold(dataclasses.replace(kappa, workers=[imaged, *kappa.workers[1:]])) == ""
    assert kappa.batch is not None
    batch = dataclasses.replace(kappa.batch, command=["./batch"])
    assert cannot_hold(dataclasses.replace(kappa, batch=batch)) == "The batch job of kappa declares no image."


def test_a_backend_that_is_not_there_or_does_not_fit_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no backend 'podman'; there are auto, process, docker"):
        Backends("podman", None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Run it with --backend process"):
        Backends("docker", None).of(orders)  # type: ignore[arg-type]
