"""Where Kafka leads the client of a link: what its library learns when it comes in by the link's own address."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

from harness.backends.base import Exit
from harness.stack import Stack
from harness.topology import Worker

ASK = """
import sys
from confluent_kafka.admin import AdminClient
brokers = AdminClient({"bootstrap.servers": sys.argv[1]}).list_topics(timeout=20).brokers.values()
print(",".join(sorted(f"{b.host}:{b.port}" for b in brokers)))
"""


def brokers_told(stack: Stack, worker: str, log: Path) -> list[str]:
    """ "host:port" of each broker, as told to a worker where the backend puts it; to the load here."""
    address = stack.address(worker, "kafka")
    if worker == "load":
        told = subprocess.check_output([sys.executable, "-c", ASK, address], text=True, timeout=60)
        return told.strip().split(",")
    ended: Future[Exit] = Future()
    start, _ = stack.site.launch("asker", Worker("asker", ["{python}", "-c", ASK, address]), {}, log)
    start(ended.set_result)
    assert ended.result(60).status == 0, log.read_text()
    return log.read_text().strip().split(",")
