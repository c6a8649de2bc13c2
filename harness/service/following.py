"""Following a run by its history files, as server-sent events: from any place on, across the runs of a soak."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.service.entries import histories

#: Read at once, so that one who begins late does not hold up the others.
MOST_BYTES = 256 * 1024
_PLACE = re.compile(r"([^@]{0,400})@(\d{1,18})")


@dataclass
class Follower:
    """Reads the records of a folder's histories in their order. `place`: where it stands, to go on from later."""

    folder: Path
    place: str = "@0"

    def __post_init__(self) -> None:
        if not _PLACE.fullmatch(self.place):
            self.place = "@0"

    def new(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place after it, record) of whatever was written since. A line that is not whole yet waits."""
        name, _, offset = self.place.rpartition("@")
        at = int(offset)
        files = {path.relative_to(self.folder).as_posix(): path for path in histories(self.folder)}
        names = list(files)
        # A soak drops the cycles behind it: what stood there goes on with the next one that is left.
        gone = sum(Path(one).parent.name <= Path(name).parent.name for one in names)
        first = names.index(name) if name in names else gone if name.startswith("cycles/") else 0
        for one in names[first:]:
            begin = at if one == name else 0
            try:
                with files[one].open("rb") as file:
                    file.seek(begin)
                    data = file.read(MOST_BYTES)
            except OSError:
                continue
            whole = data[: data.rfind(b"\n") + 1]
            for line in whole.splitlines(keepends=True):
                begin += len(line)
                self.place = f"{one}@{begin}"
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield self.place, record
            if len(data) == MOST_BYTES and whole:
                return


def event(name: str, data: Any, id_: str = "") -> str:
    """One server-sent event. A place that would break the lines, of a folder with such a name, is left out."""
    told = f"id: {id_}\n" if id_ and id_.isprintable() else ""
    return f"{told}event: {name}\ndata: {json.dumps(data, separators=(',', ':'), default=str)}\n\n"
