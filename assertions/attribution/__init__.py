"""Where and why an event was lost or doubled: the hop before and after, the worker and link between them, the faults.

Pure functions of a saved run. `ways` follows every event from hop to hop, `circumstances` tells what happened to workers
and links meanwhile, `lost` and `doubled` put both together, `residue` finds the events behind a sink that only counts.
`findings` is what the assertions use; `table` is what a run keeps of it (attribution.parquet). docs/assertions.md says
what a cause claims.
"""

from assertions.attribution.findings import explain, keep, of_duplicates, of_losses, table

__all__ = ["explain", "keep", "of_duplicates", "of_losses", "table"]
