"""Guard: no service died that was not killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from assertions.base import MOST_EXAMPLES, Finding, Part, counted_noun, finding, observed, parameters
from harness.store import SavedRun


@dataclass(frozen=True)
class ServicesAlive:
    """No service exited unless the harness asked for it (to end the run, or as a fault). What a service lost by dying
    is not the pipeline's loss. A guard: inconclusive, never a violation.

    Figures: deaths (exits that nobody asked for), by service
    Examples: service, at_s (after the load's start), pid, status, signal, log
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
        return finding(self.name, parts, "no service died that was not killed", {"deaths": services}, examples)
