"""A deployment that outlives its harness: where it stands, and how the next harness takes it over.

The emulators keep everything in memory. So that what was acknowledged when a soak was killed can still be judged, the
processes or containers of its pipeline go on for `LINGERS_S`, and `deployment.json` in its folder says where they are. Only a
kill leaves it there: a soak that ends in any other way ends them with it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.backends.outlived import OUTLIVED, Outlived
from harness.run_folder import DamagedRun, read_json, write_whole

#: How long the pipeline of a soak that was killed goes on, for another harness to take it over.
LINGERS_S = 300.0


@dataclass(frozen=True)
class Deployment:
    """What runs where: `temp` is the temp folder of its harness, `run` the folder of the workers' logs, whose name ends in the tag
    of the deployment."""

    temp: str
    run: str
    backend: str
    site: Outlived

    def keep(self, folder: Path) -> None:
        write_whole(_file(folder), (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def left_in(cls, folder: Path) -> Deployment | None:
        """What a harness that was killed has left in the folder of its soak; None where it left nothing. Raises DamagedRun where
        that cannot be read."""
        if not _file(folder).is_file():
            return None
        saved = read_json(_file(folder))
        try:
            return cls(saved["temp"], saved["run"], saved["backend"], OUTLIVED[saved["backend"]](**saved["site"]))
        except (KeyError, TypeError) as error:
            raise DamagedRun(f"{_file(folder)}: is of no use ({error!r}); without it the soak can go on.") from error


def forget(folder: Path) -> None:
    _file(folder).unlink(missing_ok=True)


def _file(folder: Path) -> Path:
    return folder / "deployment.json"
