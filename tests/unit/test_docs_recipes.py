"""The recipes are what their programs take: schemas for the YAML, the command line's own parser for each command."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from harness import cli
from harness.pytest_plugin import Gauntlet

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "recipes.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("number", "schema"), [(0, "vendor.github-workflows"), (1, "vendor.gitlab-ci")])
def test_the_yaml_is_valid(tmp_path: Path, number: int, schema: str) -> None:
    file = tmp_path / "recipe.yml"
    transform = ["--data-transform", "gitlab-ci"] if "gitlab" in schema else []
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *transform, str(file)]
    text = snippets("yaml")[number]
    for changed, status in (
        (text, 0),
        (text.replace("    ", "    nonsense: 1\n    ", 1).replace("cache:", "cash:"), 1),
    ):
        file.write_text(changed)
        assert subprocess.run(argv, capture_output=True, text=True, timeout=60).returncode == status


def test_every_command_is_one() -> None:
    found = re.findall(r"(?:\.venv/bin/)?gauntlet (soak [^\n`]*--(?:out soaks|resume \S+))", PAGE)
    assert len(found) == 5
    for command in found:
        words = shlex.split(re.sub(r"\$\{\{.*?\}\}|\"?\$\(.*?\)\"?|\$CI_PIPELINE_IID", "7", command))
        asked = cli._parser().parse_args(words)
        assert asked.command == "soak"
        assert asked.resume or (asked.hours <= 8 and asked.seed == 7)


def test_the_line_of_cron_has_five_fields_and_no_bare_percent() -> None:
    (line,) = snippets("crontab")
    fields = line.split(maxsplit=5)
    assert fields[:5] == ["17", "1", "*", "*", "*"]
    assert not re.search(r"(?<!\\)%", fields[5])


def test_the_units_have_what_systemd_needs() -> None:
    units = []
    for text in snippets("ini"):
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read_string(text)
        units.append(unit)
    service, timer = units
    assert service["Service"]["ExecStart"] == "/srv/orders/soak.sh"
    assert timer["Timer"]["OnCalendar"] == "*-*-* 01:17:00"


def test_the_script_goes_on_with_a_soak_that_was_cut_off_and_with_no_other(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    gauntlet = tmp_path / ".venv" / "bin" / "gauntlet"
    gauntlet.write_text('#!/bin/sh\necho "$@"\n')
    gauntlet.chmod(0o755)
    script = tmp_path / "soak.sh"
    script.write_text(snippets("sh")[0])

    def told() -> str:
        done = subprocess.run(
            ["sh", script], cwd=tmp_path, capture_output=True, text=True, timeout=10, env={**os.environ}
        )
        return done.stdout.strip()

    assert told().startswith("soak --hours 8")
    folder = tmp_path / "soaks" / "20261126T010000Z-soak-1a2b3c4d"
    folder.mkdir(parents=True)
    (folder / "soak.json").write_text("{}")
    assert told() == "soak --resume soaks/20261126T010000Z-soak-1a2b3c4d"
    (folder / "verdict.json").write_text("{}")
    assert told().startswith("soak --hours 8")


def test_the_soak_of_the_page_on_soaks_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("orders")
    vars(module).update(orders="the pipeline")
    monkeypatch.setitem(sys.modules, "orders", module)
    (text,) = re.findall(r"^```python\n(.*?)^```", (DOCS / "soak.md").read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(text, "soak.md", "exec", dont_inherit=True), names)
    test = names["test_a_night_wears_nothing_out"]
    assert [mark.name for mark in test.pytestmark] == ["soak"]
    gauntlet = mock.create_autospec(Gauntlet, instance=True)
    test(gauntlet)
    gauntlet.soak.assert_called_once_with("the pipeline", rate=1_000)
    gauntlet.soak.return_value.check.assert_called_once_with()
