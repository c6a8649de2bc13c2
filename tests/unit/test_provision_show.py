"""What a person sees of provisioning: bars in a terminal, few lines in a log, nothing if nothing is done."""

from __future__ import annotations

import io

from harness.provision.show import Shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_a_step_and_one_a_quarter() -> None:
    log = io.StringIO()
    with Shown(log) as shown:
        for i in range(101):
            shown("kafka", "downloading the jars", i / 100)
        shown("kafka", "formatting", None)
    assert log.getvalue().splitlines() == [
        "  kafka: downloading the jars",
        "  kafka: downloading the jars 25 %",
        "  kafka: downloading the jars 50 %",
        "  kafka: downloading the jars 75 %",
        "  kafka: downloading the jars 100 %",
        "  kafka: formatting",
    ]


def test_a_terminal_gets_a_bar_for_each_component() -> None:
    terminal = Terminal()
    with Shown(terminal) as shown:
        shown("kafka", "downloading the jars", 0.5)
        shown("toxiproxy", "building", None)
    assert "kafka" in terminal.getvalue()
    assert "toxiproxy" in terminal.getvalue()


def test_nothing_done_shows_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        with Shown(stream):
            pass
        assert stream.getvalue() == ""
