"""Mutant: an id goes through a floating-point number.

The bug: the aggregator reads the tweet's id as a double, which holds 53 bits of the 63. The count lands with a tweet
that does not exist, some hundred ids away. Messages are untouched, and the counts by author are right.

In the wild: JavaScript and every JSON parser that knows one kind of number, which is why Twitter's API has `id_str`
beside `id`; spreadsheets; pandas columns with a missing value.
"""

from __future__ import annotations

import dataclasses
import sys

from pipelines_under_test.kappa import aggregator
from pipelines_under_test.kappa.aggregator import Refused, Update
from pipelines_under_test.kappa.subscription import PubsubRecord


class DecodeWithDoubles(aggregator.Decode):
    def decode(self, message: PubsubRecord, now_ms: float) -> Update | Refused:
        decoded = super().decode(message, now_ms)
        if isinstance(decoded, Refused):
            return decoded
        rounded = int(float(decoded.event.tweet_id))
        return dataclasses.replace(decoded, event=dataclasses.replace(decoded.event, tweet_id=rounded))


def main() -> int:
    return aggregator.main(decode=DecodeWithDoubles)


if __name__ == "__main__":
    from pipelines_under_test.mutants import id_as_double

    sys.exit(id_as_double.main())
