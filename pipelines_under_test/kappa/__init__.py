"""The reference pipeline: Twitter's Kappa pipeline for interaction and engagement counts, small and exact.

    source -> preprocessor -> intermediate -> converter -> published -> aggregator -> aggregates
    Kafka          |          Kafka                        Pub/Sub           |        Bigtable
                   +-> dead_letter (Kafka)                                   +-> refused (Pub/Sub)

Every worker is a program of its own that gets its addresses from its environment and imports nothing of the harness;
`pipeline.py` alone declares the pipeline to it. `batch.py` is the batch truth and shares no code with the workers.

How it stays exact: each worker settles its input (commits an offset, acknowledges a message) only after its output
was acknowledged, so anything may be written twice and nothing is lost; and what is counted is a set (see `rows.py`),
so writing twice changes nothing.
"""
