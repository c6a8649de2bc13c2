"""The old world: Twitter's Lambda pipeline for the same counts, out of real parts.

                 +-> landing -> raw logs -> batch -> batch store --+
    source ------|              (HDFS)    (Scalding) (Manhattan)   |-> query -> GET /cells
    Kafka        +-> speed -------------------------> Redis -------+  (Data Access Layer)
                     (Summingbird, TSAR on Heron)  (Nighthawk)

Its batch side is exact but for what came late, and behind; its speed side is at once and inexact: it loses what is in
its queues when it is restarted, until the batch job covers the window. Each module's docstring says what it stands for
at Twitter and where it differs. Every worker is a program of its own, `python -m pipelines_under_test.legacy.<name>`,
that imports nothing of the harness and gets all of this from its environment (= what it is by default):

    landing   KAFKA SOURCE_TOPIC RAW_LOGS   LANDING_GROUP=landing LOG_PARTITION_S=10 LOG_SLACK_S=2 LAND_EVERY_S=1
    batch     RAW_LOGS BATCH_STORE          LATE_AFTER_S=5 LOG_PARTITION_S=10 BATCH_EVERY_S=1
              RAW_LOGS BATCH_OUTPUT         LATE_AFTER_S=5      once: as the batch truth of this or another pipeline
    speed     KAFKA SOURCE_TOPIC REDIS      SPEED_GROUP=speed REDIS_PREFIX=speed BOLTS=2 QUEUE_DEPTH=5000 PER_TRIP=500
                                            TRIP_EVERY_S=0.05 MOST_LAG_S=10 CACHE_KEEP_S=86400 SHOW_EVENTS=0
                                            DEAD_LETTER_TOPIC (none)
    query     LISTEN BATCH_STORE REDIS      BACKEND=lambda REDIS_PREFIX=speed
              LISTEN BIGTABLE TABLE         BACKEND=kappa

KAFKA, REDIS, BIGTABLE and LISTEN are `host:port`. RAW_LOGS is a URL of fsspec or a folder; of landing and batch with
HDFS=<namenode>,<datanode> a path in that. BATCH_STORE is folders,
separated by commas, one a replica. LOG_PARTITION_S must be the same for landing and batch, REDIS_PREFIX for speed and
query, the folders for all. GAUNTLET_WORKER names a process in its log and makes it a static member of its group. One
process each of landing and batch; any number of speed and query.
"""
