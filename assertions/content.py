"""No event is altered on its way, and none appears that was never sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assertions.base import (
    MOST_EXAMPLES,
    Finding,
    Part,
    counted_noun,
    finding,
    mixed,
    not_certified,
    observed,
    parameters,
)
from assertions.cells import shown as of_events
from harness.store import HarnessFault, SavedRun
from harness.topology import CONTENT_FIELDS

Examples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Content:
    """What a hop shows of an event's content is what was generated, and every id at every hop is one that was sent.

    Each message of each hop is compared, not only the first of an event, field by field as far as the hop shows them
    (a field that no record of a hop carries is not shown there; one that only some lack is missing in those). Poison is
    compared nowhere: its bytes are damaged. An id that cannot be read, is of another run or was never intended, or
    stands for an event that is not in the source log, is a violation at any hop after the source; an event that was
    acknowledged and is not in the source log is not the pipeline's doing (`ledger_settled`) and inconclusive here.

    If the source log itself differs from the generator nothing can be judged: HarnessFault (the load's encoder, or the
    source hop's `content`, is wrong).

    Figures
        hops      per hop after the source: messages, compared, altered, unreadable_ids, unknown_ids, not_in_source_log,
                  unreadable_content (messages of each), fields (that the hop shows; empty if it shows no content),
                  certified
        not_shown fields that no hop after the source shows, about which nothing is claimed
        compared  messages whose content was compared, after the source
    Examples
        hop, problem, and: event, field, expected, found (altered); raw (an id that cannot be read); event (others)
    Cost: O(messages x fields), without a Python object a message.
    """

    name: ClassVar[str] = "content"

    def params(self) -> dict[str, Any]:
        return parameters(self)

    @observed
    def check(self, run: SavedRun) -> Finding:
        settled = run.settled()
        self._check_source(run)
        parts = not_certified(run, [run.source])
        if not settled.must_arrive.any():
            parts.append(Part("inconclusive", "there is no event in the source log that must arrive"))
        source_known = not parts
        hops = run.hops_of_role("path") + run.hops_of_role("dead-letter")
        figures: dict[str, Any] = {}
        kinds: list[Examples] = []
        for hop in hops:
            uncertified = not_certified(run, [hop])
            parts += uncertified
            if not run.has_hop(hop):
                figures[hop] = {"certified": False}
                continue
            figures[hop], hop_parts, hop_examples = self._hop(run, hop)
            figures[hop]["certified"] = not uncertified
            kinds.append(hop_examples)
            proven = source_known and not uncertified
            parts += [part if proven else Part("inconclusive", part.text) for part in hop_parts]
        compared = sum(f.get("compared", 0) for f in figures.values())
        shown = {field for f in figures.values() for field in f.get("fields", [])}
        if not compared:
            parts.append(Part("inconclusive", "no hop after the source shows any content to compare"))
        told = {"hops": figures, "not_shown": [f for f in CONTENT_FIELDS if f not in shown], "compared": compared}
        passed = f"{counted_noun(compared, 'message')} carry what was sent, in {counted_noun(len(shown), 'field')}"
        return finding(self.name, parts, passed, told, mixed(*kinds))

    @staticmethod
    def _check_source(run: SavedRun) -> None:
        _fields, problems = _differences(run, run.source)
        if problems:
            first = problems[0][1][0]
            raise HarnessFault(
                f"The source log {run.source!r} does not hold what was generated: {first}. The load's encoder or the "
                "source hop's `content` is wrong; nothing can be judged."
            )

    def _hop(self, run: SavedRun, hop: str) -> tuple[dict[str, Any], list[Part], Examples]:
        settled = run.settled()
        frame = run.messages(hop)
        places = frame["place"].to_numpy()
        known = places >= 0
        nowhere = np.zeros(len(places), dtype=bool)
        lost_by_service = np.zeros(len(places), dtype=bool)
        nowhere[known] = ~settled.in_source_log[places[known]]
        lost_by_service[known] = settled.acked_but_absent[places[known]]
        nowhere &= ~lost_by_service
        unreadable = (frame["producer"] < 0).to_numpy()
        unknown = ~known & ~unreadable

        fields, differences = _differences(run, hop)
        altered = np.zeros(len(places), dtype=bool)
        unread = np.zeros(len(places), dtype=bool)
        altered_examples: list[Mapping[str, Any]] = []
        unread_examples: list[Mapping[str, Any]] = []
        for rows, examples, of_content in differences:
            (unread if of_content else altered)[rows] = True
            (unread_examples if of_content else altered_examples).extend(examples)
        comparable = known.copy()
        comparable[known] = ~settled.poison[places[known]]
        figures = {
            "messages": len(places),
            "compared": int((comparable & ~unread).sum()) if fields else 0,
            "altered": int(altered.sum()),
            "unreadable_ids": int(unreadable.sum()),
            "unknown_ids": int(unknown.sum()),
            "not_in_source_log": int(nowhere.sum()),
            "unreadable_content": int(unread.sum()),
            "fields": fields,
        }
        parts = [
            Part("violation", f"{counted_noun(int(mask.sum()), 'message')} at {hop} {what}")
            for mask, what in (
                (altered, "with altered content"),
                (unread, "whose content cannot be read"),
                (unreadable, "without a readable id of this run"),
                (unknown, "with the id of an event that was never intended"),
                (nowhere, "of events that are not in the source log"),
            )
            if mask.any()
        ]
        if lost_by_service.any():
            text = f"{counted_noun(int(lost_by_service.sum()), 'message')} at {hop} of events that the source log lost"
            parts.append(Part("inconclusive", text))
        examples = mixed(
            _spread(altered_examples),
            unread_examples[:MOST_EXAMPLES],
            [
                {
                    "hop": hop,
                    "problem": "no readable id of this run",
                    "raw": (raw or b"").decode("utf-8", "backslashreplace"),
                }
                for raw in _raw(frame, unreadable)
            ],
            [
                {"hop": hop, "problem": "an id that was never intended", "event": f"{run.tag}-{p:04d}-{s:010d}"}
                for p, s in frame.filter(pl.Series(unknown))
                .head(MOST_EXAMPLES)
                .select("producer", "sequence")
                .iter_rows()
            ],
            [
                {"hop": hop, "problem": "an event that is not in the source log", "event": run.event_id(int(p))}
                for p in places[nowhere][:MOST_EXAMPLES]
            ],
        )
        return figures, parts, examples


def _raw(frame: pl.DataFrame, mask: np.ndarray) -> list[bytes | None]:
    if "raw" not in frame.columns:
        return [None] * min(int(mask.sum()), MOST_EXAMPLES)
    return frame.filter(pl.Series(mask)).head(MOST_EXAMPLES)["raw"].to_list()


def _spread(examples: Examples) -> Examples:
    """Examples of altered fields with each field in turn, so that one altered everywhere does not hide the others."""
    by_field: dict[str, list[Mapping[str, Any]]] = {}
    for example in examples:
        by_field.setdefault(example["field"], []).append(example)
    return mixed(*by_field.values())


def _differences(run: SavedRun, hop: str) -> tuple[list[str], list[tuple[np.ndarray, Examples, bool]]]:
    """(fields that the hop shows, differences: rows of `messages(hop)`, examples of them, and whether it is the whole
    content that cannot be read instead of one field that differs)"""
    frame = run.messages(hop).with_row_index("row")
    if "content_read" not in frame.columns or run.hops[hop]["role"] == "dead-letter":
        return [], []  # a dead letter carries what could not be read
    poison = run.settled().poison
    places = frame["place"].to_numpy()
    comparable = places >= 0
    comparable[comparable] = ~poison[places[comparable]]
    frame = frame.filter(pl.Series(comparable))
    found: list[tuple[np.ndarray, Examples, bool]] = []

    unread = frame.filter(~pl.col("content_read").fill_null(False))
    if unread.height:
        examples = [
            {"hop": hop, "problem": "the content cannot be read", "event": run.event_id(place)}
            for place in unread["place"].head(MOST_EXAMPLES)
        ]
        found.append((unread["row"].to_numpy(), examples, True))
    frame = frame.filter(pl.col("content_read").fill_null(False))
    fields = [f for f in CONTENT_FIELDS if f in frame.columns and frame[f].null_count() < frame.height]
    if not frame.height:
        return fields, found
    expected = run.columns()[frame["place"].to_numpy()]
    for field in fields:
        shown = frame[field]
        wrong = shown.ne_missing(of_events(expected, field)).to_numpy()
        if wrong.any():
            some = np.flatnonzero(wrong)[:MOST_EXAMPLES]
            values = of_events(expected[some], field).to_list()
            examples = [
                {
                    "hop": hop,
                    "problem": "altered" if shown[int(i)] is not None else "missing or of another type",
                    "event": run.event_id(int(frame["place"][int(i)])),
                    "field": field,
                    "expected": value,
                    "found": shown[int(i)],
                }
                for i, value in zip(some, values, strict=True)
            ]
            found.append((frame["row"].to_numpy()[wrong], examples, False))
    return fields, found
