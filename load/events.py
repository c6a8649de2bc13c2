"""What an event is.

An *event* is one unit of load: somebody engaged with a tweet. It can be recognised wherever it turns up, and whoever
knows the plan knows everything about it without having stored it.

**Its id** is (run, producer, sequence), written `1a2b3c4d-0001-0000012345`: the run's tag, which of the load's
producers sent it (0 is the warm-up), and its place in that producer's sequence.

**Its content** is a pure function of the seed, the profile, the start of the run, the producer (and how many there
are) and the sequence, and not of the run's tag: the same command with the same seed and start sends the same content.
Random numbers are counter-based (`load.numbers`), so event 10,000,000 can be made without the events before it.

    tweet_id        19 digits, drawn by a Zipf law; the Kafka key
    author_id       10 digits, a pure function of the tweet
    user_id         10 digits
    engagement      impression, like, retweet, reply, quote, click, profile_click or video_view
    weight          9 digits, pseudo-random. Summed beside every count, so that a loss and a duplicate in one cell do
                    not cancel, and a residue names the event that caused it
    event_time_ms   when the engagement happened, epoch ms: the due time, or 0.5 … 4 s before it (out of order), or
                    20 … 75 s before it (late)
    client, country

**Its time**: event i of the whole load is due i / rate seconds after the start, and producer p of U sends every U-th
of them: due(p, sequence) = t0 + (sequence * U + p - 1) / rate. The due time is the record's CreateTime, whenever the
record was really sent: so latency counts from when the event should have been sent, and what is late does not depend
on any fault.

**Its bytes**, where the pipeline does not bring an encoder of its own (`Encoder`), are JSON of fixed width:

    {"event_id":"1a2b3c4d-0001-0000012345","tweet_id":1800000000004194311,"author_id":2000000003,
     "user_id":1234567890,"engagement":"like"         ,"weight":123456789,"event_time_ms":1790000012345,
     "client":"ios"    ,"country":"US"}

(on one line). A *poison* event has its bytes damaged in one of four ways (`POISONS`), with the id still readable at
its place; it can be counted nowhere and must end in a dead-letter topic. A *twin* carries the whole content of the
event before it under an id of its own, and counts like any other: only its id (and its CreateTime) tells them apart.

**An encoder** is a function, named "module:function", that turns events into the bytes of a pipeline's own schema:

    def encode(events):
        return [(event["tweet_id"].to_bytes(8), my_schema(event)) for event in events]

It gets plain dicts of the content fields with `event_id` and `poison`, and returns (Kafka key or None, value) for
each. The id must stand in the value as text. For an event whose `poison` is True it must return bytes that its
pipeline cannot read, with the id still in them; an encoder that ignores `poison` is refused unless the profile's
share_poison is 0.

This module is the whole interface; what it offers lives in plan (content), source_form (bytes, ids) and expected (what
must come out of it).
"""

from load.expected import cell_of_each, expected_cells, expected_content, expected_parity
from load.plan import (
    CATEGORIES,
    CLIENTS,
    COUNTRIES,
    ENGAGEMENTS,
    POISONS,
    WARMUP,
    WARMUP_COUNTRY,
    Columns,
    Plan,
    columns,
    columns_at,
    is_poison,
    warmup_columns,
)
from load.source_form import (
    EVENT_BYTES,
    Encoder,
    as_mappings,
    encode,
    encode_with,
    event_ids,
    keys,
    load_encoder,
    parse_event_id,
    parse_event_ids,
)

__all__ = [
    "CATEGORIES",
    "CLIENTS",
    "COUNTRIES",
    "ENGAGEMENTS",
    "EVENT_BYTES",
    "POISONS",
    "WARMUP",
    "WARMUP_COUNTRY",
    "Columns",
    "Encoder",
    "Plan",
    "as_mappings",
    "cell_of_each",
    "columns",
    "columns_at",
    "encode",
    "encode_with",
    "event_ids",
    "expected_cells",
    "expected_content",
    "expected_parity",
    "is_poison",
    "keys",
    "load_encoder",
    "parse_event_id",
    "parse_event_ids",
    "warmup_columns",
]
