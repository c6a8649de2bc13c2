"""The Kappa pipeline with its exports to BigQuery, watched there as Twitter watched it.

    published  -> raw_export    -> raw        every Pub/Sub message, at least once
    aggregates -> counts_export -> counts     what the pipeline has counted, each state of a cell a row
    raw, counts -> monitor -> duplicates      duplicate percentage before and after deduplication, every second
    counts, batch -> parity -> parity         cell by cell against the batch output, on schedule

Twitter's two exports were Dataflow jobs of their own; here they are small programs, and the second reads what has become
durable in Bigtable instead of deduplicating once more, so that the two are independent. The SQL of the monitor and of the
parity query stands in `sql/` and runs on the real BigQuery as it is.
"""
