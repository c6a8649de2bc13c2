"""Shared by all tests: where the run folders of this suite go."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("gauntlet", deadline=None)
settings.load_profile("gauntlet")


@pytest.fixture(scope="session")
def gauntlet_out(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Run folders of the suite go to a temp folder, unless --gauntlet-out says otherwise."""
    given = str(pytestconfig.getoption("--gauntlet-out"))
    return tmp_path_factory.mktemp("runs") if given == "out" else Path(given)
