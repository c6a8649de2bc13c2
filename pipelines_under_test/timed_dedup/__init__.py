"""The reference pipeline with deduplication in a window of time, as Dataflow has it: nearly exactly once.

Beam's `Deduplicate` keeps an id for some ten minutes after it was first seen, then forgets it: what is delivered again
later counts again. The window here is some seconds, so that a run can outlast it, and the pipeline declares it. Within
it every replay, retry and redelivery counts once; beyond it the residual duplicates are expected, and a bound on their
rate is what such a pipeline can promise.
"""
