"""Faults as values: `kill("converter").at(5)`, `partition("converter->pubsub").at(3).lasting(2)`."""

from __future__ import annotations

from typing import Any

from faults.base import Evidence, Fault, System
from faults.disconnect import Disconnect
from faults.kill import Kill, Terminate
from faults.kill_broker import KillBroker
from faults.kill_service import KillService
from faults.lose_acks import LoseAcks
from faults.out_of_memory import OutOfMemory
from faults.partition import BlackHole, Partition
from faults.pause import Pause
from faults.random_schedule import RandomSchedule
from faults.redeliver import Redeliver
from faults.reset_connections import ResetConnections
from faults.slow import Bandwidth, Latency
from faults.throttle import Throttle
from faults.upgrade import Upgrade
from harness.topology import UsageError, unknown

__all__ = [
    "FAULTS",
    "Evidence",
    "Fault",
    "RandomSchedule",
    "System",
    "bandwidth",
    "black_hole",
    "disconnect",
    "fault_from_dict",
    "kill",
    "kill_broker",
    "kill_service",
    "latency",
    "lose_acks",
    "out_of_memory",
    "partition",
    "pause",
    "random_schedule",
    "redeliver",
    "reset_connections",
    "terminate",
    "throttle",
    "upgrade",
]

kill, terminate, pause = Kill, Terminate, Pause
kill_broker, kill_service = KillBroker, KillService
partition, black_hole, latency, bandwidth = Partition, BlackHole, Latency, Bandwidth
reset_connections, lose_acks, redeliver = ResetConnections, LoseAcks, Redeliver
disconnect, throttle, out_of_memory = Disconnect, Throttle, OutOfMemory
upgrade = Upgrade
random_schedule = RandomSchedule

#: Every fault by its name.
FAULTS: dict[str, type[Fault]] = {
    f.name: f
    for f in (
        Kill,
        Terminate,
        KillBroker,
        KillService,
        Pause,
        Upgrade,
        Partition,
        BlackHole,
        Latency,
        Bandwidth,
        ResetConnections,
        LoseAcks,
        Redeliver,
        Disconnect,
        Throttle,
        OutOfMemory,
    )
}


def fault_from_dict(saved: dict[str, Any]) -> Fault:
    """The fault that `Fault.as_dict` wrote. Raises UsageError for a name or parameter that is not known."""
    if saved["fault"] not in FAULTS:
        raise unknown("fault", saved["fault"], FAULTS)
    try:
        fault = FAULTS[saved["fault"]](saved["target"], saved["at"], saved["seconds"], **saved.get("params", {}))
        return fault.even_if_idle() if saved.get("idle_allowed") else fault
    except TypeError as error:
        raise UsageError(f"{saved['fault']}: {error}") from error
