"""Mutant: automatic commits.

The bug: the client commits twice a second whatever it has handed out, done or not. A batch that is held because its
output cannot be written is committed meanwhile, and a kill then loses it. Quick batches and graceful stops hide it.

In the wild: the default of librdkafka and of most clients built on it, `enable.auto.commit=true` with
`enable.auto.offset.store=true`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import ClassVar

from confluent_kafka import Message

from pipelines_under_test.kappa import converter, kafka
from pipelines_under_test.kappa.converter import Converter


class AutomaticSource(kafka.Source):
    overrides: ClassVar[Mapping[str, object]] = {
        "enable.auto.commit": True,
        "enable.auto.offset.store": True,
        "auto.commit.interval.ms": 500,
    }

    def commit(self, records: Iterable[Message]) -> bool:
        return True


class AutomaticConverter(Converter):
    source_kind = AutomaticSource


def main() -> int:
    return converter.main(AutomaticConverter)


if __name__ == "__main__":
    sys.exit(main())
