"""The two forms of an order.

As the shop sends it, one line of text, which load makes of a generated event:

    1a2b3c4d-0001-0000012345;2026-09-21T14:13:32.345Z;US;ios;like;1800000000004194311;2000000003;1234567890;1234567.89
    id                       placed                   country | via  item             seller     buyer      amount
                                                              channel

And as worker 1 passes it on, in JSON:

    {"order": {"id": "1a2b…", "placed": "2026-…Z", "via": "like", "item": 18…, "seller": 2…, "buyer": 1…},
     "shop": {"country": "US", "region": "AMER", "channel": "ios"}, "cents": 123456789}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

_ID = re.compile(rb"[0-9a-f]{8}-[0-9]{4}-[0-9]{10}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# ------------------------------------------------------------------------------------------- what load writes


def encode(events: Sequence[Mapping[str, Any]]) -> list[tuple[bytes, bytes]]:
    """(Kafka key, value) of each event: the buyer, and the order's line."""
    return [(str(event["user_id"]).encode(), (_damaged if event["poison"] else _line)(event)) for event in events]


def _line(event: Mapping[str, Any]) -> bytes:
    seconds, ms = divmod(event["event_time_ms"], 1000)
    placed = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"
    amount = f"{event['weight'] // 100}.{event['weight'] % 100:02d}"
    fields = (event["event_id"], placed, event["country"], event["client"], event["engagement"])
    return ";".join(map(str, (*fields, event["tweet_id"], event["author_id"], event["user_id"], amount))).encode()


def _damaged(event: Mapping[str, Any]) -> bytes:
    """No order, but its id is still there: cut off, an amount in words, or a country that does not exist."""
    fields = _line(event).split(b";")
    how = int(event["event_id"][-1]) % 3
    if how == 0:
        return b";".join(fields[:3])
    if how == 1:
        return b";".join([*fields[:-1], b"a lot"])
    return b";".join([*fields[:2], b"Atlantis", *fields[3:]])


# ------------------------------------------------------------------------------------ how records show themselves


def event_id(value: bytes, _: Mapping[str, str]) -> str | None:
    """By search, not by parsing: so a line that is no order still shows whose it is, and one function serves all."""
    found = _ID.search(value)
    return found[0].decode() if found else None


def content_of_line(value: bytes, _: Mapping[str, str]) -> dict[str, Any]:
    _id, placed, country, channel, via, item, seller, buyer, amount = value.decode().split(";")
    return {
        "tweet_id": int(item),
        "author_id": int(seller),
        "user_id": int(buyer),
        "engagement": via,
        "weight": int(amount.replace(".", "")),
        "event_time_ms": _milliseconds(placed),
        "client": channel,
        "country": country,
    }


def content_of_priced(value: bytes, _: Mapping[str, str]) -> dict[str, Any]:
    record = json.loads(value)
    order, shop = record["order"], record["shop"]
    return {
        "tweet_id": order["item"],
        "author_id": order["seller"],
        "user_id": order["buyer"],
        "engagement": order["via"],
        "weight": record["cents"],
        "event_time_ms": _milliseconds(order["placed"]),
        "client": shop["channel"],
        "country": shop["country"],
    }


def _milliseconds(placed: str) -> int:
    return (datetime.fromisoformat(placed) - _EPOCH) // timedelta(milliseconds=1)
