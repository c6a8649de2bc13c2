"""No event is altered on its way, and none appears that was never sent."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from harness.settlement import Bits
from harness.store import HarnessFault, SavedRun
from harness.topology import CONTENT_FIELDS

Examples = Sequence[Mapping[str, Any]]
_KINDS = ("altered", "unreadable_content", "unreadable_ids", "unknown_ids", "not_in_source_log")


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
        if not len(settled.sets["must_arrive"]):
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
        shown = _compared(run, run.source).examples
        if problems := [*shown["unreadable_content"], *shown["altered"]]:
            first = problems[0]
            raise HarnessFault(
                f"The source log {run.source!r} does not hold what was generated: {first}. The load's encoder or the "
                "source hop's `content` is wrong; nothing can be judged."
            )

    def _hop(self, run: SavedRun, hop: str) -> tuple[dict[str, Any], list[Part], Examples]:
        found = _compared(run, hop)
        count = found.counts
        figures = {
            "messages": count["messages"],
            "compared": count["compared"] if found.fields else 0,
            "altered": count["altered"],
            "unreadable_ids": count["unreadable_ids"],
            "unknown_ids": count["unknown_ids"],
            "not_in_source_log": count["not_in_source_log"],
            "unreadable_content": count["unreadable_content"],
            "fields": found.fields,
        }
        parts = [
            Part("violation", f"{counted_noun(count[kind], 'message')} at {hop} {what}")
            for kind, what in (
                ("altered", "with altered content"),
                ("unreadable_content", "whose content cannot be read"),
                ("unreadable_ids", "without a readable id of this run"),
                ("unknown_ids", "with the id of an event that was never intended"),
                ("not_in_source_log", "of events that are not in the source log"),
            )
            if count[kind]
        ]
        if count["lost_by_service"]:
            text = f"{counted_noun(count['lost_by_service'], 'message')} at {hop} of events that the source log lost"
            parts.append(Part("inconclusive", text))
        shown = found.examples
        kinds = ("unreadable_content", "unreadable_ids", "unknown_ids", "not_in_source_log")
        return figures, parts, mixed(_spread(shown["altered"]), *(shown[kind] for kind in kinds))


@dataclass
class _Compared:
    """A hop held against what was generated: messages by kind, the fields that it shows, and the first examples by kind
    (of `altered`: the first of each field)."""

    fields: list[str]
    counts: Counter[str]
    examples: dict[str, list[Mapping[str, Any]]]

    def add(self, kind: str, messages: int, examples: Iterable[Mapping[str, Any]]) -> None:
        self.counts[kind] += messages
        held = self.examples.setdefault(kind, [])
        held.extend(itertools.islice(examples, MOST_EXAMPLES - len(held)))


def _compared(run: SavedRun, hop: str) -> _Compared:
    """Cost: one pass over the hop, a piece at a time."""
    return run.once(("compared", hop), lambda: _compare(run, hop))


def _compare(run: SavedRun, hop: str) -> _Compared:
    settled = run.settled()
    in_log, lost, poison = (settled.sets[name] for name in ("in_source_log", "acked_but_absent", "poison"))
    found = _Compared(_fields(run, hop, poison), Counter(), {kind: [] for kind in _KINDS})
    for piece in run.saved_hop(hop).pieces("raw", "content_read", *found.fields):
        places = piece["place"].to_numpy()
        known = places >= 0
        unreadable = (piece["producer"] < 0).to_numpy()
        unknown = ~known & ~unreadable
        by_service, there, poisoned = (_among(known, places, some) for some in (lost, in_log, poison))
        nowhere = known & ~there & ~by_service
        raws = piece["raw"] if "raw" in piece.columns else pl.repeat(b"", len(piece), eager=True)
        found.counts["messages"] += len(piece)
        found.counts["lost_by_service"] += int(by_service.sum())
        found.add(
            "unreadable_ids",
            int(unreadable.sum()),
            (
                {
                    "hop": hop,
                    "problem": "no readable id of this run",
                    "raw": (raws[int(i)] or b"").decode("utf-8", "backslashreplace"),
                }
                for i in np.flatnonzero(unreadable)
            ),
        )
        found.add(
            "unknown_ids",
            int(unknown.sum()),
            (
                {"hop": hop, "problem": "an id that was never intended", "event": f"{run.tag}-{p:04d}-{s:010d}"}
                for p, s in piece.filter(pl.Series(unknown)).select("producer", "sequence").iter_rows()
            ),
        )
        found.add(
            "not_in_source_log",
            int(nowhere.sum()),
            (
                {"hop": hop, "problem": "an event that is not in the source log", "event": run.event_id(int(p))}
                for p in places[nowhere]
            ),
        )
        comparable = known & ~poisoned
        if _shows_content(run, hop):
            _compare_content(run, hop, piece if comparable.all() else piece.filter(pl.Series(comparable)), found)
    return found


def _compare_content(run: SavedRun, hop: str, piece: pl.DataFrame, found: _Compared) -> None:
    """Field by field; `piece` has sound events of the load alone."""
    read = piece["content_read"].fill_null(False)
    if not read.all():
        unread = piece.filter(~read)["place"]
        found.add(
            "unreadable_content",
            len(unread),
            (
                {"hop": hop, "problem": "the content cannot be read", "event": run.event_id(place)}
                for place in unread.head(MOST_EXAMPLES)
            ),
        )
        piece = piece.filter(read)
    found.counts["compared"] += len(piece)
    places = piece["place"].to_numpy()
    expected = run.content_of(places, found.fields)
    altered = np.zeros(len(piece), dtype=bool)
    for field in found.fields:
        shown = piece[field]
        wrong = shown.ne_missing(of_events(field, expected[field])).to_numpy()
        if wrong.any():
            altered |= wrong
            some = np.flatnonzero(wrong)[:MOST_EXAMPLES]
            found.add(
                f"altered {field}",
                0,
                (
                    {
                        "hop": hop,
                        "problem": "altered" if shown[int(i)] is not None else "missing or of another type",
                        "event": run.event_id(int(places[i])),
                        "field": field,
                        "expected": value,
                        "found": shown[int(i)],
                    }
                    for i, value in zip(some, of_events(field, expected[field][some]).to_list(), strict=True)
                ),
            )
    found.counts["altered"] += int(altered.sum())
    found.examples["altered"] = [e for field in found.fields for e in found.examples.get(f"altered {field}", ())]


def _among(known: np.ndarray, places: np.ndarray, events: Bits) -> np.ndarray:
    """Which of these places are in a set; none of those that are not `known`."""
    if known.all():
        return events.at(places)
    found = np.zeros(len(places), dtype=bool)
    found[known] = events.at(places[known])
    return found


def _shows_content(run: SavedRun, hop: str) -> bool:
    """Whether the tap read what the hop carries. A dead letter carries what could not be read."""
    return "content_read" in run.saved_hop(hop).file.columns and run.hops[hop]["role"] != "dead-letter"


def _fields(run: SavedRun, hop: str, poison: Bits) -> list[str]:
    """The fields that the hop shows of any sound event. Cost: as a rule one piece; where a field is nowhere, all of it."""
    if not _shows_content(run, hop):
        return []
    saved = run.saved_hop(hop)
    sought = [field for field in CONTENT_FIELDS if field in saved.file.columns]
    absent = list(sought)
    for piece in saved.pieces("content_read", *absent):
        if not (perhaps := [field for field in absent if piece[field].null_count() < len(piece)]):
            continue
        places = piece["place"].to_numpy()
        sound = (places >= 0) & piece["content_read"].fill_null(False).to_numpy()
        sound &= ~_among(sound, places, poison)
        shown = piece.filter(pl.Series(sound))
        absent = [f for f in absent if f not in perhaps or shown[f].null_count() == len(shown)]
        if not absent:
            break
    return [field for field in sought if field not in absent]


def _spread(examples: Examples) -> Examples:
    """Examples of altered fields with each field in turn, so that one altered everywhere does not hide the others."""
    by_field: dict[str, list[Mapping[str, Any]]] = {}
    for example in examples:
        by_field.setdefault(example["field"], []).append(example)
    return mixed(*by_field.values())
