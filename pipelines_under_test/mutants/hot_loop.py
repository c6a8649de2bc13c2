"""Mutant: a loop that turns hot after a reset.

The bug: a pull that fails closes the connection, and the loop around it tries again at once, without a pause and on the
connection that is closed. Two threads spin at full speed, the process looks busy, and no message is pulled any more.

In the wild: `while True: try: poll() except: continue`; consumers and librdkafka's broker threads that took all of the
processor after a broker had gone, also when it was long back.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import grpc

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.kappa.pulling import Subscription, pull_once


class SpinningSubscription(Subscription):
    def pull(self, request: bytes) -> Any:
        channel = self._connection.channel
        while not self.stop.is_set():
            with contextlib.suppress(ValueError):  # the channel is closed
                try:
                    return pull_once(request, channel)
                except grpc.RpcError:
                    channel.close()
        return None


def main() -> int:
    return aggregator.main(messages=SpinningSubscription)


if __name__ == "__main__":
    sys.exit(main())
