"""Guard: no service died that was not killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from assertions.base import MOST_EXAMPLES, Finding, Part, counted_noun, finding, mixed, observed, parameters
from harness.store import SavedRun


@dataclass(frozen=True)
class ServicesAlive:
    """No service exited unless the harness asked for it (to end the run, or as a fault). What a service lost by dying
    is not the pipeline's loss. A service that was there before the run has no exit to be seen, so it is asked all along,
    past every fault, and must always have answered. A guard: inconclusive, never a violation.

    Figures: deaths (exits that nobody asked for), by service; watched (of those that were there before: how often each
    was asked, and how often it did not answer)
    Examples: service, at_s (after the load's start), pid, status, signal, log; service, at_s, back_s (null: never)
    Cost: none to speak of.
    """

    name: ClassVar[str] = "services_alive"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        deaths = [record for record in run.of_kind("service-exit") if not record.get("asked")]
        services: dict[str, int] = {}
        for record in deaths:
            services[str(record.get("service"))] = services.get(str(record.get("service")), 0) + 1
        parts = [
            Part("inconclusive", f"the service {name} died {counted_noun(times, 'time')} without being killed")
            for name, times in services.items()
        ]
        watched, silences, watch_parts = _watched(run)
        parts += watch_parts
        examples = [
            {
                "service": record.get("service"),
                "at_s": round(record["t"] - run.t0, 3),
                "pid": record.get("pid"),
                "status": record.get("status"),
                "signal": record.get("signal"),
                "log": f"logs/{record.get('service')}.log",
            }
            for record in deaths[:MOST_EXAMPLES]
        ]
        figures = {"deaths": services, "watched": watched}
        return finding(self.name, parts, "no service died that was not killed", figures, mixed(examples, silences))


def _watched(run: SavedRun) -> tuple[dict[str, Any], list[dict[str, Any]], list[Part]]:
    """Of the services that were there before the run: (figures by service, times without an answer, parts)."""
    figures: dict[str, Any] = {}
    silences: list[dict[str, Any]] = []
    parts: list[Part] = []
    told = {str(record.get("service")): record for record in run.of_kind("service-watch")}
    for service in run.meta["pipeline"]["services"]:
        if not service.get("existing"):
            continue
        name = service["name"]
        record = told.get(name)
        if record is None or not record["asked"]:
            parts.append(Part("inconclusive", f"nobody watched the service {name}, which the harness did not start"))
            continue
        figures[name] = {"asked": record["asked"], "missed": record["missed"]}
        backs = [r["t"] for r in run.of_kind("service-back") if r.get("service") == name]
        for away in (r["t"] for r in run.of_kind("service-away") if r.get("service") == name):
            back = next((t for t in backs if t >= away), None)
            at = {"service": name, "at_s": round(away - run.t0, 3)}
            silences.append({**at, "back_s": None if back is None else round(back - run.t0, 3)})
        if record["missed"]:
            times = counted_noun(record["missed"], "time")
            parts.append(Part("inconclusive", f"the service {name} did not answer, {times} of {record['asked']:,}"))
    return figures, silences, parts
