"""Force redelivery: seek a Pub/Sub subscription back in time, so that acknowledged messages come again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from faults.base import Evidence, Fault, Observations, System
from faults.evidence import arrived, flow, idle_rate, verdict_of
from harness.topology import Pipeline, PubSub, UsageError, unknown

if TYPE_CHECKING:
    from harness.store import FaultWindow, SavedRun


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
        """More bytes were delivered afterwards than the newly published messages explain.

        A redelivery is invisible to a tap, which has a subscription of its own, so it is measured on the links of the
        workers that pull: bytes a message before any seek, against bytes a message after this one and before the next.
        """
        proofs: list[tuple[bool, str]] = []
        figures: dict[str, object] = {}
        for subscription, seen in window.observations.get("sought", {}).items():
            begin, end = float(run.links["t"].min() or 0), float(run.links["t"].max() or 0)  # type: ignore[arg-type]
            seeks = [w.start for w in run.faults() if subscription in w.observations.get("sought", {})]
            first = min([window.start, *seeks])
            until = min((seek for seek in seeks if seek > window.start), default=end)
            idle = sum(idle_rate(run, link) for link in seen["links"])

            def delivered(a: float, b: float, links: list[str] = seen["links"], idle: float = idle) -> float:
                return max(0.0, sum(flow(run, link, a, b)["responses"] for link in links) - idle * (b - a))

            old = arrived(run, seen["hop"], begin, first)
            new = arrived(run, seen["hop"], window.start, until)
            again = arrived(run, seen["hop"], window.start - seen["back_s"], window.start)
            a_message = delivered(begin, first) / old if old else 0.0
            extra = delivered(window.start, until) - a_message * new
            messages = round(extra / a_message) if a_message else 0
            figures[subscription] = {
                "due_again": again,
                "delivered_again_about": messages,
                "bytes_a_message": round(a_message),
            }
            proofs.append((again > 0, f"{again} messages lay in the {seen['back_s']:g} s before the seek"))
            proofs.append((messages >= 0.3 * again > 0, f"about {messages} were delivered again"))
        if not proofs:
            proofs.append((False, "no subscription was there"))
        return verdict_of(window, proofs, figures)
