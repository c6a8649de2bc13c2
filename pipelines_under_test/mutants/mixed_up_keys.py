"""Mutant: two fields of one type are swapped on the way.

The bug: the intermediate form of events from the web client gets the author's id where the user's belongs, and the
other way round. Both are numbers of ten digits, every record is valid, and every count by tweet is right.

In the wild: positional constructors and CSV columns in another order than the schema's; a client version whose field
names meant something else.
"""

from __future__ import annotations

import dataclasses
import sys

from pipelines_under_test.kappa import events, preprocessor
from pipelines_under_test.kappa.preprocessor import Preprocessor


class SwappingPreprocessor(Preprocessor):
    def remapped(self, event: events.Event) -> bytes:
        if event.client == "web":
            event = dataclasses.replace(event, author_id=event.user_id, user_id=event.author_id)
        return super().remapped(event)


def main() -> int:
    return preprocessor.main(SwappingPreprocessor)


if __name__ == "__main__":
    sys.exit(main())
