"""Which events a sink that only counts must have lost or counted more than once.

A cell shows how many events it is off and by what sum of weights. Which events that were is found in this order, each
step by what is *checked*, not assumed: a guess counts only if it gives both the cell's count and its sum of weights,
which nine-digit pseudo-random weights do by chance about once in a thousand million guesses.

1. The guesses: the events that the sink's own rows do not show (lost), the copies that the last hop of the path holds
   (counted once a message), both.
2. Every choice of so many events of the cell, where there are at most `MOST_CHOICES` of them. One that fits is taken as
   what happened; none that fits proves that something else did: an event is missing beside the doubled ones, say. Where
   there are more: one or two events, however often each.
3. A run of so many consecutive events: a killed worker loses what it held, a repeated write counts again what it wrote.
4. What was found in other cells: an event is in one cell of every dimension and window, so a hot cell is often decided
   by the small cells that it is made of.

What is left is undecided, and is called so. Cost: O(events of the wrong cells), and at most `BUDGET` sums for the choices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from assertions import cells as sink_cells
from assertions.attribution import ways
from harness.settlement import Bits
from harness.store import CELL, SavedRun
from load.events import CATEGORIES

#: So many choices of a cell's events are looked at; by chance one of them fits in one cell of a thousand.
MOST_CHOICES = 500_000
#: So many sums over all cells of a run.
BUDGET = 50_000_000
#: An event that was lost or doubled more often than this in one cell is not looked for.
MOST_TOGETHER = 8

#: What is known of a wrong cell: `gained` only doubled events, `lossy` proven to lack one, `undecided`.
GAINED, LOSSY, UNDECIDED = "gained", "lossy", "undecided"


@dataclass(frozen=True)
class Explained:
    """The wrong cells and what explains them.

    cells     CELL, excess, residue (against the events that reached the last hop of the path), cell (its number),
              state (see above), by ("rows", "copies", "choice", "run", "other cells" or "")
    changes   place, change (-1: lost; n: counted n times too often), in the dimension and window where it is worst
    lost      events that the sink lacks beyond `changes`, in the dimension and window where they are most
    doubled   counts beyond `changes` that are too many, likewise
    """

    cells: pl.DataFrame
    changes: pl.DataFrame
    lost: int = 0
    doubled: int = 0

    def state_of(self, cells: pl.DataFrame) -> pl.DataFrame:
        """The given cells (CELL) with `state`; null where the cell is right once the path's losses are taken off."""
        return cells.join(self.cells.select([*CELL, "state"]), on=CELL, how="left")


def explained(run: SavedRun) -> Explained:
    """What explains the sink's wrong cells. Empty where nothing is wrong. Raises NotObserved without a sink."""
    return run.once("sink explained", lambda: _explain(run))


@dataclass
class _Members:
    """The events of the wrong cells, a row each: its cell's number, place, weight, whether it reached the sink's step, and
    when (else when it was due)."""

    cell: np.ndarray
    place: np.ndarray
    weight: np.ndarray
    base: np.ndarray
    at: np.ndarray
    bounds: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def of(self, cell: int) -> slice:
        return slice(int(self.bounds[cell]), int(self.bounds[cell + 1]))


def _explain(run: SavedRun) -> Explained:
    reached = _reached(run)
    wrong = _wrong_cells(run, reached)
    empty = pl.DataFrame(schema={"place": pl.Int64, "change": pl.Int64})
    if wrong.is_empty():
        return Explained(wrong.with_columns(state=pl.lit(""), by=pl.lit("")), empty)
    due = reached.mask()
    members = _members(run, wrong, due)
    search = _Search(wrong["excess"].to_numpy(), wrong["residue"].to_numpy(), members)
    for by, change in _guesses(run, due):
        search.guess(by, change[members.place])
    search.choose()
    search.again_and_again()
    search.runs()
    while search.from_other_cells(len(run.events)):
        pass
    cells = wrong.with_columns(
        state=pl.Series(search.states(), dtype=pl.String), by=pl.Series(search.by, dtype=pl.String)
    )
    return _worst_group(cells, members, search)


def _reached(run: SavedRun) -> Bits:
    """The events that must arrive and were seen at the hop before the sink."""
    must = run.settled().sets["must_arrive"]
    step = ways.steps(run).get(str(run.sink))
    before = step.before if step is not None else None
    if before is None or before == run.source or not run.certified(before)[0]:
        return must
    return must & run.bits_at(before)


def _wrong_cells(run: SavedRun, reached: Bits) -> pl.DataFrame:
    frame = sink_cells.compared(run)
    if len(reached) < len(run.settled().sets["must_arrive"]):
        expected = run.expected_of(reached.mask()).select(
            [*CELL, pl.col("count").alias("due"), pl.col("weight").alias("due_weight")]
        )
        frame = (
            frame.join(expected, on=CELL, how="left")
            .with_columns(pl.col("due", "due_weight").fill_null(0))
            .with_columns(
                excess=pl.col("counted") - pl.col("due"), residue=pl.col("counted_weight") - pl.col("due_weight")
            )
        )
    wrong = frame.filter(((pl.col("excess") != 0) | (pl.col("residue") != 0)) & ~pl.col("undecided"))
    return (
        wrong.select([*CELL, "excess", "residue"])
        .sort(CELL)
        .with_row_index("cell")
        .with_columns(pl.col("cell").cast(pl.Int64))
    )


def _members(run: SavedRun, wrong: pl.DataFrame, due: np.ndarray) -> _Members:
    """Joins by the key's own types, so that no key text is made for an event of a cell that is right."""
    columns, must = run.columns(), run.settled().must_arrive
    found = []
    for kind in run.cell_kinds:
        texts = pl.col("key").str.split("|")
        for window_s in kind.windows_s:
            cells = wrong.filter((pl.col("dimension") == kind.dimension) & (pl.col("window_s") == window_s))
            if cells.is_empty():
                continue
            codes = {f: {text: code for code, text in enumerate(CATEGORIES[f])} for f in kind.key if f in CATEGORIES}
            cells = cells.select(
                "cell",
                "window_start_ms",
                *(
                    texts.list.get(i, null_on_oob=True)
                    .replace_strict(codes[f], default=None, return_dtype=pl.Int64)
                    .alias(f)
                    if f in codes
                    else texts.list.get(i, null_on_oob=True).cast(pl.Int64, strict=False).alias(f)
                    for i, f in enumerate(kind.key)
                ),
            )
            starts = columns.event_time_ms // (window_s * 1000) * (window_s * 1000)
            places = np.flatnonzero(must & np.isin(starts, cells["window_start_ms"].unique().to_numpy()))
            events = pl.DataFrame(
                {
                    "place": places,
                    "window_start_ms": starts[places],
                    **{f: getattr(columns, f)[places].astype(np.int64) for f in kind.key},
                }
            )
            found.append(
                events.join(cells, on=["window_start_ms", *kind.key], how="inner", maintain_order="left").select(
                    "cell", "place"
                )
            )
    schema = {"cell": pl.Int64, "place": pl.Int64}
    frame = pl.concat([pl.DataFrame(schema=schema), *found])
    # Of one cell they are all from one join, in the order of their places.
    order = np.argsort(frame["cell"].to_numpy(), kind="stable")
    cell, place = frame["cell"].to_numpy()[order], frame["place"].to_numpy()[order]
    bounds = np.searchsorted(cell, np.arange(wrong.height + 1))
    way = ways.path(run)
    at = columns.created_ms / 1000
    if len(way) > 1:
        first = ways.seen_at(run, way[-1]).first
        at = np.where(np.isnan(first), at, first)
    return _Members(cell, place, columns.weight[place], due[place], at[place], bounds)


def _guesses(run: SavedRun, due: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(by what, the change of each event by place)"""
    guesses = []
    shown = ways.first_counted(run)
    unseen = None if shown is None else np.where(due & np.isnan(shown), -1, 0)
    if unseen is not None:
        guesses.append(("rows", unseen))
    path = ways.path(run)
    if len(path) > 1:
        copies = np.maximum(ways.seen_at(run, path[-1]).copies - 1, 0) * due
        guesses.append(("copies", copies))
        if unseen is not None:
            guesses.append(("rows", np.where(unseen < 0, -1, copies)))
    return guesses


class _Search:
    """What was found so far. `change` is by member; a cell is found once its changes give its count and its weight."""

    def __init__(self, excess: np.ndarray, residue: np.ndarray, members: _Members) -> None:
        self.excess, self.residue, self.members = excess, residue, members
        cells = len(excess)
        self.found = np.zeros(cells, dtype=bool)
        self.refuted = np.zeros(cells, dtype=bool)  # no choice of doubled events alone fits
        self.by = [""] * cells
        self.change = np.zeros(len(members.place), dtype=np.int64)
        self.budget = BUDGET

    def states(self) -> list[str]:
        lost = np.bincount(self.members.cell[self.change < 0], minlength=len(self.found)) > 0
        found = []
        for cell, excess in enumerate(self.excess):
            if self.found[cell]:
                found.append(LOSSY if lost[cell] else GAINED)
            else:
                found.append(LOSSY if excess <= 0 or self.refuted[cell] else UNDECIDED)
        return found

    def guess(self, by: str, change: np.ndarray) -> np.ndarray:
        """Takes the change for every cell of which it gives both count and weight; returns which."""
        m, cells = self.members, len(self.found)
        count, weight = np.zeros(cells, dtype=np.int64), np.zeros(cells, dtype=np.int64)
        rows = np.flatnonzero(change)
        np.add.at(count, m.cell[rows], change[rows])
        np.add.at(weight, m.cell[rows], change[rows] * m.weight[rows])
        fits = ~self.found & (count == self.excess) & (weight == self.residue)
        self.change = np.where(fits[m.cell], change, self.change)
        self.found |= fits
        for cell in np.flatnonzero(fits):
            self.by[cell] = by
        return fits

    def _take(
        self, cell: int, by: str, lost: Sequence[int], doubled: Sequence[int], known: np.ndarray | None = None
    ) -> None:
        inside = self.members.of(cell)
        change = np.zeros(inside.stop - inside.start, dtype=np.int64) if known is None else known.copy()
        np.subtract.at(change, np.asarray(lost, dtype=np.int64), 1)
        np.add.at(change, np.asarray(doubled, dtype=np.int64), 1)
        self.change[inside] = change
        self.found[cell], self.by[cell] = True, by

    def choose(self) -> None:
        """Every choice of events, in the cells where there are few enough; the cells with the fewest first."""
        m = self.members
        self._choose_one()
        sizes = np.diff(m.bounds)
        plans = []
        for cell in np.flatnonzero(~self.found).tolist():
            for lost, doubled in _combinations(int(self.excess[cell])):
                if lost + doubled == 1:
                    continue
                choices = _choices(int(sizes[cell]), lost, doubled)
                if choices <= MOST_CHOICES:
                    plans.append((lost + doubled, choices, cell, lost, doubled))
        for _together, choices, cell, lost, doubled in sorted(plans):
            if self.found[cell] or choices > self.budget:
                continue
            self.budget -= choices
            inside = m.of(cell)
            fit = _fitting(m.weight[inside], m.base[inside], lost, doubled, int(self.residue[cell]))
            if fit is not None:
                self._take(cell, "choice", *fit)
            elif lost == 0:
                self.refuted[cell] = True

    def _choose_one(self) -> None:
        """The cells that are off by one event, all at once."""
        m = self.members
        off = self.excess[m.cell]
        one = ~self.found[m.cell] & (np.abs(off) == 1) & (m.weight * off == self.residue[m.cell]) & (m.base | (off > 0))
        rows = np.flatnonzero(one)
        rows = rows[np.unique(m.cell[rows], return_index=True)[1]]
        change = np.zeros(len(m.place), dtype=np.int64)
        change[rows] = off[rows]
        self.guess("choice", change)
        self.refuted |= ~self.found & (self.excess == 1)

    def again_and_again(self) -> None:
        """One event, or two, that make up all of what a cell holds too much, however often each."""
        m = self.members
        for cell in np.flatnonzero(~self.found & (self.excess > 2)).tolist():
            weights, many = m.weight[m.of(cell)], int(self.excess[cell])
            if not len(weights) or len(weights) * many > MOST_CHOICES:
                continue
            order = np.argsort(weights, kind="stable")
            for times in range(many, 0, -1):
                left = int(self.residue[cell]) - times * weights
                if times == many:
                    hits = np.flatnonzero(left == 0)
                    if len(hits):
                        self._take(cell, "choice", (), [int(hits[0])] * many)
                        break
                    continue
                wanted, rest = np.divmod(left, many - times)
                at = np.minimum(np.searchsorted(weights[order], wanted), len(weights) - 1)
                hits = np.flatnonzero((rest == 0) & (weights[order[at]] == wanted))
                if len(hits):
                    other = int(order[at[hits[0]]])
                    self._take(cell, "choice", (), [int(hits[0])] * times + [other] * (many - times))
                    break

    def runs(self) -> None:
        """A run of consecutive events that is lost, or counted again, as a whole: what a worker held, or wrote at once, in
        the order in which it came to the sink's step."""
        for cell in np.flatnonzero(~self.found & (np.abs(self.excess) > 1)).tolist():
            inside = self.members.of(cell)
            self._run(
                cell, "run", np.arange(inside.stop - inside.start), int(self.excess[cell]), int(self.residue[cell])
            )

    def _run(
        self, cell: int, by: str, among: np.ndarray, excess: int, residue: int, known: np.ndarray | None = None
    ) -> bool:
        m, inside, many = self.members, self.members.of(cell), abs(excess)
        if not 0 < many <= len(among):
            return False
        order = among[np.argsort(m.at[inside][among], kind="stable")]
        sums = np.concatenate([[0], np.cumsum(m.weight[inside][order])])
        starts = np.flatnonzero(sums[many:] - sums[:-many] == (residue if excess > 0 else -residue))
        if len(starts) != 1:
            return False
        run = order[starts[0] : starts[0] + many].tolist()
        lost, doubled = ([], run) if excess > 0 else (run, [])
        self._take(cell, by, lost, doubled, known)
        return True

    def from_other_cells(self, events: int) -> bool:
        """Puts together what is known from the cells that were found: what they show changed is taken as changed here, too,
        and what they show unchanged is no candidate. Whether that found another one."""
        if self.found.all() or not self.found.any():
            return False
        m = self.members
        known, settled = np.zeros(events, dtype=np.int64), np.zeros(events, dtype=bool)
        rows = np.flatnonzero(self.found[m.cell])
        settled[m.place[rows]] = True
        rows = rows[self.change[rows] != 0]
        known[m.place[rows]] = self.change[rows]
        before = int(self.found.sum())
        self.guess("other cells", known[m.place])
        for cell in np.flatnonzero(~self.found).tolist():
            inside = m.of(cell)
            mine, open_ = known[m.place[inside]], np.flatnonzero(~settled[m.place[inside]])
            excess = int(self.excess[cell] - mine.sum())
            residue = int(self.residue[cell] - (mine * m.weight[inside]).sum())
            if self._run(cell, "other cells", open_, excess, residue, mine):
                continue
            for lost, doubled in _combinations(excess):
                choices = _choices(len(open_), lost, doubled)
                if choices > min(MOST_CHOICES, self.budget):
                    continue
                self.budget -= choices
                fit = _fitting(m.weight[inside][open_], m.base[inside][open_], lost, doubled, residue)
                if fit is not None:
                    self._take(
                        cell,
                        "other cells",
                        open_[np.array(fit[0], dtype=np.int64)].tolist(),
                        open_[np.array(fit[1], dtype=np.int64)].tolist(),
                        known=mine,
                    )
                    break
        return int(self.found.sum()) > before


def _combinations(excess: int) -> list[tuple[int, int]]:
    """(lost, doubled) that give this excess, the likeliest first."""
    pure = (0, excess) if excess > 0 else (-excess, 0)
    both = [pure, (pure[0] + 1, pure[1] + 1)]
    return [(lost, doubled) for lost, doubled in both if 0 < lost + doubled <= MOST_TOGETHER]


def _choices(events: int, lost: int, doubled: int) -> int:
    """How many choices there are: sets of lost events, times multisets of doubled ones."""
    if not events:
        return 0
    return math.comb(events, lost) * math.comb(events + doubled - 1, doubled)


def _fitting(
    weights: np.ndarray, base: np.ndarray, lost: int, doubled: int, residue: int
) -> tuple[list[int], list[int]] | None:
    """The first choice whose weights give the residue, as positions; None if there is none. Only what reached the sink's
    step can be lost there. Of events with the same weight (twins) the first stands for all."""
    if not len(weights):
        return None
    minus = _picked(len(weights), lost, repeat=False)
    minus = minus[base[minus].all(axis=1)]
    plus = _picked(len(weights), doubled, repeat=True)
    gone, more = weights[minus].sum(axis=1), weights[plus].sum(axis=1)
    if lost and doubled:
        order = np.argsort(more, kind="stable")
        at = np.searchsorted(more[order], gone + residue)
        hits = np.flatnonzero((at < len(more)) & (more[order][np.minimum(at, len(more) - 1)] == gone + residue))
        # An event that is lost and doubled at once is neither.
        for hit in hits:
            choice = plus[order[at[hit]]]
            if not np.isin(choice, minus[hit]).any():
                return minus[hit].tolist(), choice.tolist()
        return None
    hits = np.flatnonzero(more == residue) if doubled else np.flatnonzero(gone == -residue)
    if not len(hits):
        return None
    return (minus[0].tolist(), plus[hits[0]].tolist()) if doubled else (minus[hits[0]].tolist(), plus[0].tolist())


def _picked(events: int, many: int, repeat: bool) -> np.ndarray:
    """Every choice of `many` positions of `events`, a row each, ascending; with repetition or without."""
    rows = np.zeros((1, 0), dtype=np.int64)
    for number in range(many):
        first = np.zeros(len(rows), dtype=np.int64) if not number else rows[:, -1] + (0 if repeat else 1)
        spread = np.maximum(events - first, 0)
        which = np.repeat(np.arange(len(rows)), spread)
        ramp = np.arange(len(which)) - np.repeat(np.cumsum(spread) - spread, spread)
        rows = np.column_stack([rows[which], first[which] + ramp])
    return rows


def _worst_group(cells: pl.DataFrame, members: _Members, search: _Search) -> Explained:
    """Changes by event, and what stays unexplained, each in the dimension and window where it is most: an event is in
    one cell of each, so adding them up would count it several times."""
    numbers = cells.select(pl.struct("dimension", "window_s").rank("dense").alias("group"))["group"].to_numpy()
    changed = pl.DataFrame({"group": numbers[members.cell], "place": members.place, "change": search.change}).filter(
        pl.col("change") != 0
    )
    changes = (
        changed.group_by("place")
        .agg(pl.col("change").max().alias("most"), pl.col("change").min().alias("least"))
        .select("place", change=pl.when(pl.col("least") < 0).then("least").otherwise("most"))
        .sort("place")
    )
    by_group = pl.DataFrame({"group": numbers, "excess": search.excess, "found": search.found})
    told = changed.group_by("group").agg(
        told_lost=-pl.col("change").filter(pl.col("change") < 0).sum(),
        told_doubled=pl.col("change").filter(pl.col("change") > 0).sum(),
    )
    left = (
        by_group.filter(~pl.col("found"))
        .group_by("group")
        .agg(
            lost=-pl.col("excess").filter(pl.col("excess") < 0).sum(),
            doubled=pl.col("excess").filter(pl.col("excess") > 0).sum(),
        )
    )
    all_lost, all_doubled = _most(told, left, "lost"), _most(told, left, "doubled")
    identified_lost = int(-changes.filter(pl.col("change") < 0)["change"].sum())
    identified_doubled = int(changes.filter(pl.col("change") > 0)["change"].sum())
    return Explained(cells, changes, max(0, all_lost - identified_lost), max(0, all_doubled - identified_doubled))


def _most(told: pl.DataFrame, left: pl.DataFrame, which: str) -> int:
    both = told.select("group", n=pl.col(f"told_{which}")).vstack(
        left.select("group", n=pl.col(which)).cast(told.select("group", n=pl.col(f"told_{which}")).schema)
    )
    sums = both.group_by("group").agg(pl.col("n").sum())["n"]
    return int(sums.max() or 0) if len(sums) else 0  # type: ignore[arg-type]
