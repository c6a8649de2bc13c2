"""Mutant: a fresh UUID per attempt.

The bug: the UUID that deduplication goes by is drawn anew whenever a request is sent. A publish whose acknowledgement
was lost is repeated under other UUIDs, and the sink counts both. Without a retry nothing shows.

In the wild: `str(uuid.uuid4())` inside the function that a retry decorator calls; idempotency keys made by the HTTP
client instead of by its caller.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence

import grpc

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import Converter, Outgoing, Publisher


class ForgetfulPublisher(Publisher):
    def attempt(self, messages: Sequence[Outgoing], channel: grpc.Channel) -> None:
        for message in messages:
            message.attributes["uuid"] = str(uuid.uuid4())
        super().attempt(messages, channel)


class ForgetfulConverter(Converter):
    def make_publisher(self, topic: str) -> Publisher:
        return ForgetfulPublisher(self.connection, topic)


def main() -> int:
    return converter.main(ForgetfulConverter)


if __name__ == "__main__":
    sys.exit(main())
