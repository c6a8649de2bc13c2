"""Existing services, as the owner of a staging environment would set them up: real ones, with a listener for each link."""

from __future__ import annotations

from pathlib import Path

from harness.backends.process import Processes
from harness.backends.process_site import ProcessSite
from harness.provision import provision
from harness.services.bigtable import BigtableServer
from harness.services.kafka import KafkaServer
from harness.services.pubsub import PubSubServer
from harness.topology import Pipeline
from pipelines_under_test.kappa.pipeline import kappa


class Staging:
    """Kafka, Pub/Sub and Bigtable of the reference pipeline, all up; and what an endpoints file says of them."""

    def __init__(self, folder: Path, pipeline: Pipeline = kappa) -> None:
        self.folder = folder
        self._processes = Processes()
        self._site = ProcessSite(pipeline, provision(), self._processes, folder / "staging")
        (folder / "staging" / "logs").mkdir(parents=True)
        links = [link for link in pipeline.links() if link.service == "kafka"]
        services = {service.name: service for service in pipeline.services}

        def ended(name: str, how: object) -> None:
            return

        self.kafka = KafkaServer(services["kafka"], self._site, links, ended)  # type: ignore[arg-type]
        self.pubsub = PubSubServer(services["pubsub"], self._site, ended)  # type: ignore[arg-type]
        self.bigtable = BigtableServer(services["bigtable"], self._site, ended)  # type: ignore[arg-type]
        for server in (self.kafka, self.pubsub, self.bigtable):
            server.start()
        for server in (self.kafka, self.pubsub, self.bigtable):
            server.wait_until_ready()
        doors = {link.name: self._site.doors[link.name].client for link in links}
        self.listeners = {
            link.name: (self.kafka.upstreams(link)[0], int(doors[link.name].split(":")[1])) for link in links
        }
        self.endpoints = self.file("endpoints.toml", list(self.listeners))

    def file(self, name: str, links: list[str], **addresses: str) -> Path:
        """An endpoints file that names listeners for these links; `addresses`: of services that it tells otherwise."""
        text = "".join(
            f'[{service}]\naddress = "{addresses.get(service, getattr(self, service).direct)}"\n\n'
            for service in ("kafka", "pubsub", "bigtable")
        )
        for link in links:
            upstream, port = self.listeners[link]
            text += f'[kafka.links."{link}"]\nupstream = "{upstream}"\nport = {port}\n\n'
        path = self.folder / name
        path.write_text(text)
        return path

    def kill_kafka(self) -> None:
        self._processes.stop_now(self.kafka.children["kafka"].pid)

    def start_kafka(self) -> None:
        self.kafka.start()
        self.kafka.wait_until_ready()

    def close(self) -> None:
        self._processes.close()
        self._site.close()
