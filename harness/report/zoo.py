"""How the zoo is shown: tables in the terminal, and a page of the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assertions.registry import ASSERTIONS
from harness.topology import UsageError
from harness.zoo import Row, in_words

BEGIN, END = "<!-- zoo: begin (made by `gauntlet zoo --docs`) -->", "<!-- zoo: end -->"

_STYLES = {"caught": "green", "missed": "bold red", "by another": "red", "pass": "green", "violation": "bold red"}

_HEADING = """\
# The zoo

The proof that a green run means something: the reference pipeline with one planted bug each, and which assertion found
it. Every one must be caught by the assertion named for it, within its runs; one that is missed means that the harness is
blind. `gauntlet zoo` makes the table again, `gauntlet zoo NAME` a part of it.
"""


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The assertions that found anything or should have, in the order of the registry."""
    named = {name for row in rows for name in (*row.by, row.mutant.caught_by)}
    return [name for name in ASSERTIONS if name in named] + sorted(named - set(ASSERTIONS))


def mark(row: Row, assertion: str) -> str:
    """●: found by the assertion that must; ○: found as well; -: must find it, and did not."""
    if assertion in row.by:
        return "●" if assertion == row.mutant.caught_by else "○"
    return "-" if assertion == row.mutant.caught_by else ""


def table_of_mutants(rows: Sequence[Row], summary: Mapping[str, Any]) -> RenderableType:
    table = Table(title="mutant x assertion", title_justify="left", caption_justify="left", header_style="bold")
    quiet = any(row.without_faults is not None for row in rows)
    assertions = columns_of(rows)
    table.add_column("mutant", no_wrap=True)
    for name in assertions:
        table.add_column(name.replace("_", "\n"), justify="center")
    table.add_column("outcome")
    table.add_column("runs", justify="right")
    table.add_column("seconds", justify="right")
    if quiet:
        table.add_column("without\nfaults")
    for row in rows:
        cells: list[str | Text] = [row.mutant.name, *(mark(row, name) for name in assertions)]
        cells += [Text(row.outcome, _STYLES.get(row.outcome, "yellow")), str(row.runs), f"{row.seconds:.0f}"]
        if quiet:
            cells.append(row.without_faults or "")
        table.add_row(*cells)
    lines = [
        "● found by the assertion that must find it   ○ found by another as well   - not found by the one that must"
    ]
    for row in rows:
        lines += [f"{row.mutant.name}: {reason}" for reason in row.as_dict()["reasons"][:2] if row.outcome != "caught"]
    return Group(table, *(Text(line) for line in [*lines, *sentences(rows, summary)]))


def sentences(rows: Sequence[Row], summary: Mapping[str, Any]) -> list[str]:
    """What the table comes to."""
    count = summary["outcomes"]
    told = [f"{count['caught']} of {len(rows)} mutants were caught by the assertion that must catch them."]
    told += [f"{count[word]} {word}." for word in count if word != "caught" and count[word]]
    quiet = summary["half_pass_without_faults"]
    if quiet is not None:
        passed = sum(row.without_faults == "pass" for row in rows)
        told.append(
            f"Without faults {passed} of {len(rows)} pass: "
            + ("it takes faults to find them." if quiet else "too few; bugs that any test would find prove little.")
        )
    return told


def lines_of_healthy(healthy: Mapping[str, Any]) -> RenderableType:
    """Each run that did not pass, with its reasons and its folder to be copied; then what all of them prove."""
    lines: list[Text] = []
    for trial in healthy["trials"]:
        if trial["verdict"] != "pass":
            style = _STYLES.get(trial["verdict"], "yellow")
            lines.append(Text.assemble(f"seed {trial['seed']}: ", (trial["verdict"], style)))
            lines += [Text(f"  {reason}") for reason in trial["reasons"] or ("no reason was told",)]
            lines += [Text(f"  {trial['folder']}", overflow="ignore", no_wrap=True)] if trial["folder"] else []
    return Group(*lines, Text(in_words(healthy)))


# ------------------------------------------------------------------------------------------------------ the page


def markdown_of_mutants(rows: Sequence[Row], summary: Mapping[str, Any], how: str) -> str:
    """The table as Markdown. `how`: in words, on what it was made."""
    assertions = columns_of(rows)
    quiet = any(row.without_faults is not None for row in rows)
    heads = ["mutant", "what is wrong with it", "seen", "scenario", *(f"`{name}`" for name in assertions)]
    heads += ["runs", "seconds", *(["without faults"] if quiet else [])]
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|" + ":-:|" * len(assertions) + "--:|--:|" + "---|" * quiet]
    for row in rows:
        seen = f"[in the wild]({row.mutant.seen_at})" if row.mutant.seen_at else ""
        cells = [f"`{row.mutant.name}`", row.mutant.about.replace("|", "\\|"), seen, row.mutant.scenario]
        cells += [mark(row, name) for name in assertions]
        cells += [str(row.runs), f"{row.seconds:.0f}", *([row.without_faults or ""] if quiet else [])]
        lines.append(f"| {' | '.join(cells)} |")
    legend = (
        "● found by the assertion that must find it · ○ found by another as well · - not found by the one that must"
    )
    return "\n".join([*lines, "", legend, "", " ".join(sentences(rows, summary)), "", how])


def write_page(path: Path, text: str) -> None:
    """Puts the text between the markers of a page that has them; writes a page of its own where there is none.

    Raises UsageError for a page without markers: what it says would be lost.
    """
    block = f"{BEGIN}\n\n{text}\n\n{END}"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{_HEADING}\n{block}\n")
            return
        before, begin, rest = path.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise UsageError(f"{path} has no place for the table: put these two lines into it.\n  {BEGIN}\n  {END}")
        path.write_text(f"{before}{block}{after}")
    except OSError as error:
        raise UsageError(f"The table cannot be written to {path}: {error.strerror}.") from error


def check_page(path: Path) -> None:
    """Raises UsageError now, before hours of runs, if `write_page` would."""
    if path.is_dir() or (path.exists() and (BEGIN not in path.read_text() or END not in path.read_text())):
        raise UsageError(f"{path} has no place for the table: put these two lines into it.\n  {BEGIN}\n  {END}")
