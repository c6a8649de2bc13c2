"""Gauntlet measured side by side with what else does the job, on the same machine, in the same run.

    python -m benchmarks            # all of them
    python -m benchmarks start      # one, by the name of its file

Each file here that has a `benchmark()` is one. The results go to benchmarks/results/ and into docs/performance.md.
"""
