"""Assertions by name, and the guards of every run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from assertions.base import Assertion
from assertions.batch_parity import BatchParity
from assertions.clock_steady import ClockSteady
from assertions.content import Content
from assertions.drained import Drained
from assertions.duplicate_rate import DuplicateRate
from assertions.faults_effective import FaultsEffective
from assertions.latency import Latency
from assertions.ledger_settled import LedgerSettled
from assertions.load_delivered import LoadDelivered
from assertions.machine_healthy import MachineHealthy
from assertions.no_loss import NoLoss
from assertions.recovery import Recovery
from assertions.services_alive import ServicesAlive
from assertions.taps_complete import TapsComplete
from assertions.warehouse_duplicates import WarehouseDuplicates
from assertions.warehouse_parity import WarehouseParity
from harness.store import SavedRun
from harness.topology import UsageError, unknown

#: In every run, whatever the scenario asks: they can make it inconclusive, and never a pass or a violation.
GUARDS: tuple[Assertion, ...] = (
    LoadDelivered(),
    LedgerSettled(),
    TapsComplete(),
    FaultsEffective(),
    Drained(),
    ServicesAlive(),
    ClockSteady(),
    MachineHealthy(),
)

#: What a scenario may assert about a pipeline.
JUDGEMENTS: tuple[type[Any], ...] = (
    *(NoLoss, DuplicateRate, BatchParity, Content, Latency, Recovery),
    *(WarehouseDuplicates, WarehouseParity),
)

#: Every assertion by its name.
ASSERTIONS: dict[str, type[Any]] = {kind.name: kind for kind in (*JUDGEMENTS, *map(type, GUARDS))}  # type: ignore[attr-defined]


def to_json(assertion: Assertion) -> dict[str, Any]:
    """`{"assertion": name, "params": {...}}`, as `run.json` holds it."""
    return {"assertion": assertion.name, "params": assertion.params()}


def from_json(saved: Mapping[str, Any]) -> Assertion:
    """The assertion that `to_json` wrote. UsageError for a name, a parameter or a value that cannot be."""
    name = str(saved.get("assertion", ""))
    if name not in ASSERTIONS:
        raise unknown("assertion", name, ASSERTIONS)
    kind = ASSERTIONS[name]
    fields = {f.name for f in dataclasses.fields(kind)}
    params = dict(saved.get("params") or {})
    for given in params:
        if given not in fields:
            raise unknown(f"parameter of {name}", given, fields)
    try:
        return kind(**params)  # type: ignore[no-any-return]
    except TypeError as error:
        raise UsageError(f"{name}: {error}") from error


def of_run(run: SavedRun) -> list[Assertion]:
    """The assertions that a saved run asks for, then the guards that it did not name itself."""
    asked = [from_json(saved) for saved in run.meta["assertions"]]
    named = {assertion.name for assertion in asked}
    return asked + [guard for guard in GUARDS if guard.name not in named]


def check_hops(assertions: Iterable[Assertion], hops: Iterable[str]) -> None:
    """Raises UsageError if an assertion names a hop that is not among these."""
    known = list(hops)
    for assertion in assertions:
        hop = assertion.params().get("hop")
        if hop is not None and hop not in known:
            raise unknown("hop", str(hop), known)
