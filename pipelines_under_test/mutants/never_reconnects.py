"""Mutant: a connection that is closed once and never opened again.

The bug: when a publish fails, the connection is closed, as one should with a connection that may be half dead; whoever
is to open the next one does not exist. Every later attempt fails at once, and is tried again for ever: the process is
alive, its group membership too, and nothing moves.

In the wild: clients that hold the channel, the session or the consumer they were made with; librdkafka and its
bindings had several such bugs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import grpc
from google.api_core import exceptions

from pipelines_under_test.kappa import converter
from pipelines_under_test.kappa.converter import Converter, Outgoing, Publisher


class BereftPublisher(Publisher):
    def attempt(self, messages: Sequence[Outgoing], channel: grpc.Channel) -> None:
        try:
            super().attempt(messages, channel)
        except exceptions.GoogleAPICallError:
            channel.close()
            raise


class BereftConverter(Converter):
    def make_publisher(self, topic: str) -> Publisher:
        return BereftPublisher(self.connection, topic)


def main() -> int:
    return converter.main(BereftConverter)


if __name__ == "__main__":
    sys.exit(main())
