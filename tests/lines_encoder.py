"""A user's encoder, as a load process imports it."""

from __future__ import annotations

from typing import Any


def encode_as_lines(events: Any) -> list[tuple[bytes | None, bytes]]:
    """No key, fields in a line."""
    return [
        (None, f"{e['event_id']};{'broken' if e['poison'] else e['weight']};{e['tweet_id']}".encode()) for e in events
    ]
