"""Assertions as values: `no_loss()`, `duplicate_rate("aggregates", most=0)`, `batch_parity(least=0.95)`.

Pure functions of a saved run, one file each. `registry.py` names them, `judge.py` composes a verdict.
"""

from assertions.batch_parity import BatchParity
from assertions.content import Content
from assertions.duplicate_rate import DuplicateRate
from assertions.latency import Latency
from assertions.no_loss import NoLoss
from assertions.recovery import Recovery
from assertions.warehouse_duplicates import WarehouseDuplicates
from assertions.warehouse_parity import WarehouseParity

__all__ = [
    "batch_parity",
    "content",
    "duplicate_rate",
    "latency",
    "no_loss",
    "recovery",
    "warehouse_duplicates",
    "warehouse_parity",
]

# Each shadows the module of its own file on purpose: a test reads `run.check(no_loss())`.
batch_parity = BatchParity
content = Content
duplicate_rate = DuplicateRate
latency = Latency
no_loss = NoLoss
recovery = Recovery
warehouse_duplicates = WarehouseDuplicates
warehouse_parity = WarehouseParity
