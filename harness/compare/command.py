"""`gauntlet compare`: its options, and what it does with them."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.topology import UsageError

EPILOG = """\
exit status:
  0  no new kind of violation, and no measure worse by more than is allowed, as far as could be seen
  1  the candidate is refused: a new kind of violation, or proven worse by more than is allowed
  2  usage error
  3  inconclusive: too few pairs came to a verdict, or a large difference could have gone unseen
  4  the harness failed; --resume goes on

BASELINE and CANDIDATE are pipelines as `gauntlet run --pipeline` takes them, or those with @REF: their programs as they are at a
branch, tag or commit of the repository in the current folder. Both get the same seeds and faults, in alternation. The measures
are duplicates, p99, steady-p99, throughput and recovery; docs/compare.md says how they are judged.

  gauntlet compare kappa@main kappa                         what is checked out, against main
  gauntlet compare orders:orders@v1.4 orders:orders         a pipeline of your own
  gauntlet compare kappa kappa --candidate-env aggregator.DEDUP_HORIZON_S=60 --scenario restarts
  gauntlet compare kappa kappa --candidate-image registry/kappa:2.0 --backend docker
  gauntlet compare kappa no-dedup --tolerance p99=1.1 --pairs 12
  gauntlet compare --resume out/<folder>                    after a crash
  gauntlet check out/<folder>                               judges its saved runs again
"""


def add_to(commands: Any) -> None:
    """The subcommand, added to those of a parser."""
    compare = commands.add_parser(
        "compare",
        help="is a new version of a pipeline worse than the old one?",
        description="Puts two versions of a pipeline through the same seeds and faults in alternation, and says of the new one "
        "whether it violates in a new way, and of its duplicates, latency, throughput and recovery whether they are worse, "
        "better, or no difference was seen, and how small a one could have been.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("baseline", nargs="?", metavar="BASELINE", help="the version that is trusted: pipeline[@ref]")
    compare.add_argument("candidate", nargs="?", metavar="CANDIDATE", help="the version that may replace it")
    for side in ("baseline", "candidate"):
        compare.add_argument(
            f"--{side}-env",
            action="append",
            default=[],
            metavar="WORKER.KEY=VALUE",
            help=f"a variable of the {side}'s worker",
        )
        compare.add_argument(
            f"--{side}-command",
            action="append",
            default=[],
            metavar="WORKER=COMMAND",
            help="another command of a worker",
        )
        compare.add_argument(
            f"--{side}-image",
            action="append",
            default=[],
            metavar="[WORKER=]IMAGE",
            help="another image (docker backend)",
        )
    compare.add_argument("--scenario", metavar="S", help="load and faults of this scenario (default: kappa-under-fire)")
    compare.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="so many pairs of runs, 7 at least (default: 8 to 24, as many as it takes to see a difference of --visible)",
    )
    compare.add_argument("--seed", type=int, metavar="N", help="of the first pair; each takes the next (default: 7)")
    compare.add_argument("--rate", type=int, metavar="N", help="events a second")
    compare.add_argument("--seconds", type=float, metavar="N", help="how long each load lasts")
    compare.add_argument(
        "--schedule", metavar="KIND", help="other faults: 'random' draws them from each seed, or 'none'"
    )
    compare.add_argument(
        "--tolerance", action="append", default=[], metavar="MEASURE=T", help="so much worse is allowed, as p99=1.25"
    )
    compare.add_argument(
        "--visible",
        action="append",
        default=[],
        metavar="MEASURE=T",
        help="a difference of so much must not have gone unseen, as p99=2; else it is inconclusive",
    )
    compare.add_argument(
        "--known", action="append", default=[], metavar="KIND", help="accept this kind of violation, as no_loss"
    )
    compare.add_argument("--backend", choices=["auto", "process", "docker"], help="as for `run` (default: auto)")
    compare.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="where its folder goes (default: out)"
    )
    compare.add_argument("--resume", type=Path, metavar="DIR", help="go on with the comparison in this folder")
    compare.add_argument(
        "--json", action="store_true", help="end with one JSON object on stdout; all else goes to stderr"
    )


def execute(args: argparse.Namespace) -> dict[str, Any]:
    """The verdict."""
    from harness.compare.comparison import Comparison, State, begun, scenarios_of
    from harness.run_folder import under_way
    from harness.session import Session

    if args.resume is not None:
        folder = args.resume.resolve()
        if given := _given(args):
            raise UsageError(f"--resume goes on with what was asked then, and takes no {given[0]}.")
        state = State.load(folder)
    else:
        asked = asked_by(args)
        if not any("@" in asked.version(side).spec for side in ("baseline", "candidate")):
            scenarios_of(asked.check(), Path())  # what makes no sense leaves no folder
        folder, state = begun(asked, args.out)
        folder = folder.resolve()
    _tell(f"compare: {state.asked.told_pairs()} pairs in {folder}")
    with (
        under_way(folder, "comparison"),
        # What goes on goes on where it began: half of the pairs elsewhere would be another comparison.
        Session(state.backend or state.asked.backend) as session,
        Comparison.opened(folder, state, session, _tell, _status) as comparison,
    ):
        return comparison.run()


@contextlib.contextmanager
def _status() -> Iterator[Any]:
    """On a terminal a line that says which run is where; elsewhere nothing, since each run has a line at its end."""
    from rich.console import Console

    from harness.report.terminal import stages_on

    with Console(stderr=True, highlight=False, markup=False).status("starts") as status:
        yield stages_on(status)


def print_lines(verdict: dict[str, Any], stream: Any = None) -> None:
    from harness.report.compare import lines

    print("\n".join(lines(verdict)), file=stream or sys.stderr, flush=True)


def asked_by(args: argparse.Namespace) -> Any:
    """What the command line asks for. Raises UsageError."""
    from harness.compare.comparison import Asked
    from harness.compare.versions import Version

    if not args.baseline or not args.candidate:
        raise UsageError("Name two versions: gauntlet compare BASELINE CANDIDATE, as kappa@main kappa.")

    def version(side: str) -> Version:
        kinds: dict[str, Any] = {kind: tuple(getattr(args, f"{side}_{kind}")) for kind in ("env", "command", "image")}
        return Version(getattr(args, side), **kinds)

    optional = ("scenario", "pairs", "seed", "rate", "seconds", "schedule", "backend")
    given: dict[str, Any] = {name: getattr(args, name) for name in optional if getattr(args, name) is not None}
    given |= {name: _amounts(f"--{name}", getattr(args, name)) for name in ("tolerance", "visible")}
    return Asked(version("baseline"), version("candidate"), enough=args.pairs is None, known=tuple(args.known), **given)


def _given(args: argparse.Namespace) -> list[str]:
    options = vars(args).items()
    return [
        name.upper() if name in ("baseline", "candidate") else f"--{name.replace('_', '-')}"
        for name, value in options
        if name not in ("command", "resume", "out", "json") and value not in (None, [])
    ]


def _amounts(option: str, asked: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in asked:
        key, _, amount = text.partition("=")
        try:
            found[key] = float(amount)
        except ValueError as error:
            raise UsageError(f"{option} {text}: it is MEASURE=NUMBER, as p99=1.25.") from error
    return found


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
