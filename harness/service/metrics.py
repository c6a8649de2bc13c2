"""What Prometheus is told: how many folders of which kind and standing, the last run of each scenario, jobs, the webhook."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from harness.service.entries import STANDINGS
from harness.service.index import Asked
from harness.service.keeper import Keeper

#: Series of single scenarios: of so many of the newest folders.
NEWEST = 2_000


class _Collector:
    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def collect(self) -> Iterator[Any]:
        keeper = self._keeper
        folders = GaugeMetricFamily("gauntlet_folders", "Folders in the store", labels=["kind", "standing"])
        for (kind, standing), count in keeper.index.counts().items():
            folders.add_metric([kind, standing], count)
        yield folders
        labels = ["kind", "scenario", "pipeline", "backend"]
        when = GaugeMetricFamily("gauntlet_last_started_seconds", "When the last judged one was started", labels=labels)
        verdict = GaugeMetricFamily(
            "gauntlet_last_verdict", "1 for the verdict of the last judged one", labels=[*labels, "verdict"]
        )
        p99 = GaugeMetricFamily("gauntlet_last_latency_p99_seconds", "Its latency, p99", labels=labels)
        seen = set()
        for entry in keeper.index.entries(Asked(), NEWEST):
            key = (entry.kind, entry.scenario, entry.pipeline, entry.backend)
            if not entry.judged or key in seen:
                continue
            seen.add(key)
            if entry.started:
                when.add_metric(key, datetime.fromisoformat(entry.started).timestamp())
            for one in STANDINGS[:3]:
                verdict.add_metric([*key, one], float(one == entry.standing))
            if entry.p99_s is not None:
                p99.add_metric(key, entry.p99_s)
        yield from (when, verdict, p99)
        jobs = GaugeMetricFamily("gauntlet_jobs", "Jobs of the service", labels=["state"])
        states = [job.state for job in keeper.jobs.all()]
        for state in ("waiting", "starting", "running", "ended"):
            jobs.add_metric([state], states.count(state))
        yield jobs
        yield CounterMetricFamily("gauntlet_webhook_delivered", "Violations told", value=keeper.webhook.delivered)
        yield CounterMetricFamily("gauntlet_webhook_failures", "Attempts that failed", value=keeper.webhook.failures)
        yield GaugeMetricFamily(
            "gauntlet_webhook_waiting", "Violations still to be told", value=keeper.webhook.waiting()
        )
        free = shutil.disk_usage(keeper.store).free
        yield GaugeMetricFamily("gauntlet_store_free_bytes", "Room left where the store is", value=free)


def exposition(keeper: Keeper) -> bytes:
    """The text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(keeper))  # type: ignore[arg-type]
    return bytes(generate_latest(registry))
