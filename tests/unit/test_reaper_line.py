"""What the reaper of containers cannot do is told, and so is what its containers cannot be found by."""

from __future__ import annotations

from concurrent.futures import Future
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.backends import ryuk
from harness.backends.docker import Containers
from harness.backends.docker_site import DockerSite
from harness.backends.outlived import OutlivedContainers
from harness.backends.reaper_line import ReaperLine
from harness.errors import HarnessFault
from pipelines_under_test.kappa.pipeline import kappa


def line(says: bytes) -> tuple[ReaperLine, BytesIO]:
    to = BytesIO()
    return ReaperLine(1, to, BytesIO(says), None), to


def test_a_reaper_that_does_not_start_is_told() -> None:
    with pytest.raises(HarnessFault, match="the reaper of containers did not start"):
        line(b"")


def test_what_a_reaper_is_asked_for_is_what_it_does() -> None:
    one, to = line(b"ready\nready\n")
    one.outlive(300, 8080)
    assert to.getvalue() == b"outlive 300 8080\n"


@pytest.mark.parametrize(
    ("answer", "told"), [(b"Address already in use\n", "this harness: Address already in use$"), (b"", "it has gone$")]
)
def test_a_reaper_that_cannot_outlive_a_harness_says_why(answer: bytes, told: str) -> None:
    one, _ = line(b"ready\n" + answer)
    with pytest.raises(HarnessFault, match=told):
        one.outlive(300, 0)


def test_a_reaper_that_has_gone_is_told() -> None:
    one, to = line(b"ready\n")
    to.close()
    with pytest.raises(HarnessFault, match="the reaper of containers has gone"):
        one.outlive(300, 0)


def test_containers_are_not_let_live_where_nobody_knows_whether_ryuk_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ryuk, "READY_WITHIN_S", -30)
    containers = Containers.__new__(Containers)
    containers.ryuk = Future()
    with pytest.raises(HarnessFault, match="Ryuk neither watches nor says why not"):
        containers.outlive(300)


def test_without_its_toxiproxy_a_site_of_containers_cannot_be_taken_over(tmp_path: Path) -> None:
    removed: list[str] = []
    left: Any = SimpleNamespace(
        network=lambda known: known, parts=lambda: {"kafka": "1", "meter": "2"}, remove=removed.extend
    )
    with pytest.raises(HarnessFault, match="toxiproxy ended, and every link with it"):
        DockerSite(kappa, {}, left, tmp_path, OutlivedContainers("", "me", 0, "network", [], {}))  # type: ignore[arg-type]
    assert removed == ["2"], "what belonged to the dead run alone"
