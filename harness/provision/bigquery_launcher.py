"""Starts bqemulator 1.4.0, which runs in a virtual environment of its own, without DuckDB's extensions.

At its start it would install two of them from a host of DuckDB's own, which no package index mirrors, and end where it
cannot: `spatial`, which is left out here (so there is no GEOGRAPHY), and `avro`, which a setting leaves out.
"""

import os
import sys

from bqemulator.cli import main
from bqemulator.storage.engine import DuckDBEngine


def without_spatial(engine: object) -> None:
    """Stands for the method that loads the extension."""


DuckDBEngine._load_spatial = without_spatial
os.environ.setdefault("BQEMU_ENABLE_FORMAT_EXTENSIONS", "false")
sys.exit(main())
