"""Force redelivery: seek a Pub/Sub subscription back in time, so that acknowledged messages come again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from faults.base import Evidence, Fault, Observations, System
from faults.evidence import flow, idle_rate, verdict_of
from harness.store import NotObserved
from harness.topology import Pipeline, PubSub, UsageError, unknown

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun

#: So long after a seek a redelivery is looked for: beyond it, what else takes bytes would add up.
AGAIN_WITHIN_S = 20


@dataclass(frozen=True)
class Redeliver(Fault):
    """Everything published in the last `back_s` seconds is delivered again."""

    back_s: float = 5.0

    name: ClassVar[str] = "redeliver"
    about: ClassVar[str] = "seek a Pub/Sub subscription back, so that its messages are delivered again"
    acts_on: ClassVar[str] = "subscription"

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        if self.back_s <= 0:
            raise UsageError(f"{self.describe()}: redeliver needs back_s of more than 0 seconds.")

    def targets(self, pipeline: Pipeline) -> list[str]:
        known = [s for service in pipeline.services if isinstance(service, PubSub) for s in service.subscriptions]
        if self.target not in known:
            raise unknown("subscription", self.target, known)
        return [self.target]

    def inject(self, system: System, targets: Sequence[str]) -> Observations:
        return {"sought": {s: system.seek(s, self.back_s) for s in targets}}

    def heal(self, system: System, targets: Sequence[str]) -> Observations:
        return {}

    @classmethod
    def evidence(cls, run: SavedRun, window: FaultWindow) -> Evidence:
        """More bytes were delivered afterwards than what was published explains.

        A redelivery is invisible to a tap, which has a subscription of its own, so it is measured on the links of the
        workers that pull: the bytes that came until the next seek, less those of every message once. How many those are
        the tap has measured, which gets the same messages. What was published and not yet delivered at the seek, and
        what had been delivered twice by then, is in the balance before it.
        """
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for subscription, seen in window.observations.get("sought", {}).items():
            size = _bytes_a_message(run, seen["hop"])
            last = float(run.links["t"].max() or 0)  # type: ignore[arg-type]
            seeks = [w.start for w in run.faults() if subscription in w.observations.get("sought", {})]
            until = min([last, window.start + AGAIN_WITHIN_S, *(seek for seek in seeks if seek > window.start)])
            times = [t for t in (window.start + i for i in range(1, AGAIN_WITHIN_S + 1)) if t < until] + [until]
            # The most of it: while a worker is away, ever more of what is published is still to come.
            most = max(_beyond_once(run, seen, size, t) for t in times)
            messages = round((most - max(0.0, _beyond_once(run, seen, size, window.start))) / size)
            again = _published(run, seen["hop"], window.start) - _published(
                run, seen["hop"], window.start - seen["back_s"]
            )
            figures[subscription] = {
                "due_again": again,
                "delivered_again_about": messages,
                "bytes_a_message": round(size),
            }
            proofs.append((again > 0, f"{again} messages lay in the {seen['back_s']:g} s before the seek"))
            proofs.append((messages >= 0.3 * again > 0, f"about {messages} were delivered again"))
        if not proofs:
            proofs.append((False, "no subscription was there"))
        return verdict_of(window, proofs, figures)


def _beyond_once(run: SavedRun, seen: Mapping[str, Any], size: float, t: float) -> float:
    """Bytes that had come by `t` beyond those of every message once; negative while some are still to come."""
    begin = float(run.links["t"].min() or 0)  # type: ignore[arg-type]
    came = 0.0
    for link in seen["links"]:
        came += flow(run, link, begin, t)["responses"] - idle_rate(run, link, ("responses",)) * (t - begin)
    return came - size * _published(run, seen["hop"], t)


def _published(run: SavedRun, hop: str, t: float) -> int:
    """Messages of a hop by `t`, by Pub/Sub's own clock. (A tap on a busy machine sees them later.)"""
    return int((run.hop(hop)["created_ms"] <= t * 1000).sum())


def _bytes_a_message(run: SavedRun, hop: str) -> float:
    for record in run.history:
        if record["kind"] == "tap" and record["hop"] == hop and record["figures"].get("bytes_a_message"):
            return float(record["figures"]["bytes_a_message"])
    raise NotObserved(f"the tap at {hop} did not tell how large messages are")
