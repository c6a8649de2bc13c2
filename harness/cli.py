"""The command line. Exit status: 0 pass, 1 violation, 2 usage error, 3 inconclusive, 4 the harness itself failed."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.compare import command as compare
from harness.service import command as service
from harness.topology import Pipeline, UsageError, unknown

if TYPE_CHECKING:
    from harness.scenario import SideBySide

PASS, VIOLATION, USAGE, INCONCLUSIVE, HARNESS, INTERRUPTED = 0, 1, 2, 3, 4, 130

EPILOG = """\
exit status:
  0  pass: everything that was claimed was observed
  1  violation: the pipeline is proven wrong
  2  usage error: the message says what to do
  3  inconclusive: the run cannot say (a fault did not bite, a tap is incomplete …)
  4  the harness itself failed

first steps:
  gauntlet run                              the main job on the reference pipeline
  gauntlet run --schedule random --seed 42  faults, targets and times drawn from a seed
  gauntlet run lost-acks --pipeline no-dedup    a pipeline with a planted bug: see it caught
  gauntlet compare kappa@main kappa         is what is checked out worse than main?
  gauntlet list                             scenarios, pipelines, faults, assertions, mutants
  gauntlet doctor                           what is installed, what would be fetched
"""

ZOO_EPILOG = """\
exit status:
  0  every mutant was caught by the assertion that must catch it; every healthy run passed
  1  one was missed or only caught by another, or fewer than half of all pass without faults; a healthy run was accused
  2  usage error
  3  some runs could not say
  4  the harness failed in some runs

Each run is a line in zoo.jsonl (healthy.jsonl) in the folder of --out as soon as it is over: an interruption loses
nothing, and --resume goes on. Of a healthy run that passed only the line is kept; the others keep their folder.

  gauntlet zoo no-dedup fresh-uuid          these two
  gauntlet zoo --docs docs/zoo.md           all of them, about a minute each
  gauntlet zoo --healthy 20 --seed 100      seeds 100 to 119
"""


SOAK_EPILOG = """\
exit status:
  0  every cycle passed, and nothing grows
  1  a cycle was a violation, or a measure drifts
  2  usage error
  3  a cycle could not say, twice
  4  the harness failed

Its folder has soak.json, a line for each cycle, written after each; at the end verdict.json, report.html and junit.xml; and the
run folders of the last cycles and of those that did not pass. `gauntlet check` and `gauntlet report` take it as they take
each of those. --resume goes on after a crash with the cycle that was cut off. As processes, the pipeline of a soak that was
killed goes on for five minutes: resumed by then, the events of that cycle are judged first.

  gauntlet soak --hours 8                   overnight
  gauntlet soak --hours 0.5 --rate 4000     half an hour, denser
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"gauntlet: {message}\nTry 'gauntlet --help'.", file=sys.stderr)
        sys.exit(USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gauntlet",
        description="Proves that a streaming pipeline survives restarts, partitions and publish retries.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    run = commands.add_parser("run", help="run a scenario and judge it", description="Runs a scenario and judges it.")
    run.add_argument("scenario", nargs="?", help="a name that `gauntlet list` prints (default: kappa-under-fire)")
    run.add_argument("--pipeline", metavar="P", help="another pipeline: a name that `list` prints, or module:attribute")
    run.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "process", "docker", "external"],
        help="where the parts run: containers, processes, or whichever can be had at once (default: auto); external: on "
        "services that are there already",
    )
    run.add_argument(
        "--endpoints",
        type=Path,
        metavar="FILE",
        help="for --backend external: where the services are (docs/external.md)",
    )
    run.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="the seed of the events and of a random schedule (default: the scenario's)",
    )
    run.add_argument("--rate", type=int, metavar="N", help="events a second")
    run.add_argument("--seconds", type=float, metavar="N", help="how long the load lasts")
    run.add_argument(
        "--load-processes",
        type=int,
        metavar="N",
        help="processes that share the load, for rates that one cannot reach (default: the scenario's)",
    )
    run.add_argument(
        "--schedule",
        metavar="KIND",
        help="other faults than the scenario's: 'random' draws them from the seed, 'none' leaves them out",
    )
    run.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where run folders go (default: out)")
    run.add_argument("--json", action="store_true", help="end with one JSON object on stdout; all else goes to stderr")

    check = commands.add_parser("check", help="judge a saved run again", description="Judges a saved run again.")
    check.add_argument("run", type=Path, metavar="RUN", help="a folder of a run, or of several")
    check.add_argument("--json", action="store_true", help="print the verdict as one JSON object")

    report = commands.add_parser(
        "report", help="write a saved run's page again", description="Writes report.html again."
    )
    report.add_argument("run", type=Path, metavar="RUN", help="a folder of a run, or of several")

    zoo = commands.add_parser(
        "zoo",
        help="prove that planted bugs are caught and a healthy pipeline is not accused",
        description="Runs every mutant (the reference pipeline with one planted bug) under its scenario until the "
        "assertion that must catch it does, and prints which assertion caught which. With --healthy N: the unmutated "
        "pipeline under N random schedules, for false alarms and runs that cannot say.",
        epilog=ZOO_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    zoo.add_argument("mutants", nargs="*", metavar="MUTANT", help="only these (default: all; `gauntlet list`)")
    zoo.add_argument("--runs", type=int, metavar="N", help="the most runs a mutant (default: what each one may need)")
    zoo.add_argument(
        "--schedule", metavar="KIND", default="own", help="'random': instead of the faults of each scenario (own)"
    )
    zoo.add_argument(
        "--without-faults",
        action="store_true",
        help="also run each mutant once without faults: at least half must pass",
    )
    zoo.add_argument("--healthy", type=int, metavar="N", help="N runs of the unmutated pipeline under random schedules")
    zoo.add_argument("--pipeline", metavar="P", help="with --healthy: another pipeline, as for `run` (default: kappa)")
    zoo.add_argument("--rate", type=int, metavar="N", help="with --healthy: events a second")
    zoo.add_argument("--seconds", type=float, metavar="N", help="with --healthy: how long each load lasts")
    zoo.add_argument("--seed", type=int, default=7, metavar="N", help="the first seed; each run takes the next (7)")
    zoo.add_argument(
        "--backend", default="auto", choices=["auto", "process", "docker"], help="as for `run` (default: auto)"
    )
    zoo.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where run folders go (default: out)")
    zoo.add_argument("--resume", action="store_true", help="go on with what the folder of --out says is done already")
    zoo.add_argument("--docs", type=Path, metavar="PAGE", help="write the table into this Markdown page, too")
    zoo.add_argument("--json", action="store_true", help="end with one JSON object on stdout; all else goes to stderr")

    soak = commands.add_parser(
        "soak",
        help="the same pipeline for hours, cycle after cycle of load and random faults",
        description="Deploys a pipeline once and puts it under load and random faults, cycle after cycle, for hours. Each "
        "cycle has events and faults of its own, drawn from the seed and its number, and is judged like a run; over all "
        "of them it is judged whether memory, open files, latency or recovery grow.",
        epilog=SOAK_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    soak.add_argument("--hours", type=float, default=8.0, metavar="H", help="how long (default: 8)")
    soak.add_argument("--pipeline", metavar="P", help="as for `run` (default: kappa)")
    soak.add_argument("--backend", default="auto", choices=["auto", "process", "docker"], help="as for `run`")
    soak.add_argument("--seed", type=int, default=7, metavar="N", help="what all cycles are drawn from (default: 7)")
    soak.add_argument("--rate", type=int, default=2_000, metavar="N", help="events a second (default: 2000)")
    soak.add_argument(
        "--cycle-seconds", type=float, default=60.0, metavar="N", help="how long a cycle's load lasts (default: 60)"
    )
    soak.add_argument("--stop", action="store_true", help="end at the first violation (default: go on)")
    soak.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="where its folder goes (default: out)"
    )
    soak.add_argument("--resume", type=Path, metavar="DIR", help="go on with the soak in this folder")
    soak.add_argument("--json", action="store_true", help="end with one JSON object on stdout; all else goes to stderr")

    service.add_to(commands)
    compare.add_to(commands)

    provision = commands.add_parser(
        "provision",
        help="find or fetch the real programs",
        description="Finds or fetches what the runs of every pipeline need; with names: what only some pipelines need.",
    )
    provision.add_argument("components", nargs="*", metavar="COMPONENT", help="bigquery: the emulator of BigQuery")
    commands.add_parser("doctor", help="what is installed and what is missing", description="Looks, fetches nothing.")
    images = commands.add_parser(
        "images", help="container images for --backend docker", description="Container images for --backend docker."
    )
    of_images = images.add_subparsers(dest="what", metavar="WHAT", required=True, parser_class=_Parser)
    build = of_images.add_parser(
        "build",
        help="make all of them on this machine",
        description="Makes every image on this machine, without a registry of images: from Debian's packages, from "
        "what provisioning has, and from this installation.",
    )
    build.add_argument("--base", metavar="IMAGE", help="stand on this image (it must have this Python) instead")
    listing = commands.add_parser("list", help="everything that has a name", description="Everything that has a name.")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    command = globals()[f"_{args.command}"]
    try:
        return int(command(args))
    except UsageError as error:
        print(f"gauntlet: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("gauntlet: interrupted; everything was healed and stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its exit
        return HARNESS
    except Exception as error:
        from harness.errors import HarnessFault
        from harness.store import UnfinishedRun

        if isinstance(error, UnfinishedRun):
            print(f"gauntlet: {error}", file=sys.stderr)
            return INCONCLUSIVE
        if isinstance(error, HarnessFault):
            print(f"gauntlet: the harness failed: {error}", file=sys.stderr)
        else:
            import traceback

            traceback.print_exc()
            print(f"gauntlet: the harness failed: {error!r}", file=sys.stderr)
        return HARNESS


def _interrupt(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


# ---------------------------------------------------------------------------------------------------- commands


def _run(args: argparse.Namespace) -> int:
    from harness.catalog import DEFAULT_SCENARIO, fitted, named, pipeline, rescheduled
    from harness.report.terminal import print_verdict
    from harness.scenario import SideBySide
    from harness.session import Session

    chosen = named(args.scenario or DEFAULT_SCENARIO)
    if isinstance(chosen, SideBySide):
        return _run_side_by_side(args, chosen)
    if args.pipeline:
        chosen = fitted(chosen, pipeline(args.pipeline)).with_(ref=args.pipeline if ":" in args.pipeline else "")
    given = {k: v for k, v in (("rate", args.rate), ("seconds", args.seconds)) if v is not None}
    chosen = chosen.with_(load=dataclasses.replace(chosen.load, **given))
    if args.seed is not None:
        chosen = chosen.with_(seed=args.seed)
    if args.load_processes is not None:
        chosen = chosen.with_(processes=args.load_processes, users=max(chosen.users, args.load_processes))
    if args.schedule is not None:
        chosen = rescheduled(chosen, args.schedule)
    chosen.validate()
    _check_out(args.out)
    with _view() as view, Session(args.backend, args.endpoints) as session:
        session.prepare(chosen.pipeline)
        outcome = session.run(chosen, args.out, [view])
    return _answer(outcome.verdict, args.json, print_verdict)


def _run_side_by_side(args: argparse.Namespace, chosen: SideBySide) -> int:
    from harness.report.terminal import print_verdict
    from harness.session import Session
    from harness.side_by_side import execute

    for option, given in (("--pipeline", args.pipeline), ("--schedule", args.schedule)):
        if given is not None:
            raise UsageError(f"{chosen.name} runs pipelines and schedules of its own, and takes no {option}.")
    load = {k: v for k, v in (("rate", args.rate), ("seconds", args.seconds)) if v is not None}
    changes: dict[str, Any] = {"load": dataclasses.replace(chosen.load, **load)}
    if args.seed is not None:
        changes["seed"] = args.seed
    if args.load_processes is not None:
        changes |= {"processes": args.load_processes, "users": max(chosen.scenarios[0].users, args.load_processes)}
    chosen = chosen.with_(**changes).validate()
    _check_out(args.out)
    with Session(args.backend, args.endpoints) as session:
        for scenario in chosen.scenarios:
            session.prepare(scenario.pipeline)
        outcome = execute(chosen, session, args.out, _view)
    return _answer(outcome.verdict, args.json, print_verdict)


@contextlib.contextmanager
def _view() -> Iterator[Any]:
    """What shows one run while it goes on."""
    from harness.report.terminal import make_view

    view = make_view(sys.stderr)
    try:
        yield view.on
    finally:
        with contextlib.suppress(Exception):
            view.close()


def _check_out(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Runs cannot be written to {out}: {error.strerror}. Take another --out.") from error
    if not os.access(out, os.W_OK):
        raise UsageError(f"Runs cannot be written to {out}: no permission. Take another --out.")


def _answer(verdict: dict[str, Any], as_json: bool, print_verdict: Any) -> int:
    from assertions.judge import exit_status

    print_verdict(verdict, sys.stderr if as_json else sys.stdout)
    if as_json:
        sys.stderr.flush()
        print(json.dumps(verdict))
    sys.stdout.flush()
    return exit_status(verdict)


def _soak(args: argparse.Namespace) -> int:
    from assertions.registry import to_json
    from harness.catalog import claims, pipeline
    from harness.report.soak_view import SoakView
    from harness.run_folder import new_folder
    from harness.session import Session
    from harness.soak.answers import write_answers
    from harness.soak.cycles import Soak, scenario_of
    from harness.soak.state import Asked, State

    if args.resume is not None:
        folder = _folder(args.resume).resolve()
        state = State.load(folder)
    else:
        name = args.pipeline or "kappa"
        asked = Asked(
            "soak", name, args.backend, args.seed, args.hours, args.cycle_seconds, args.rate, args.stop
        ).check()
        state = State(asked)
    asked = state.asked
    chosen = pipeline(asked.pipeline)
    scenario = scenario_of(asked, chosen)
    if args.resume is None:
        _check_out(args.out)
        folder = new_folder(args.out, "soak")[0].resolve()
    with Session(asked.backend, forgets=True) as session:
        if args.resume is None:  # else what is still at work comes first
            # What goes on later goes on here, and is held to the same.
            backend, claimed = session.prepare(chosen).name, [to_json(one) for one in claims(chosen)]
            state.asked = asked = dataclasses.replace(asked, backend=backend, claims=claimed)
        print(f"soak: {asked.hours:g} h in {folder}", file=sys.stderr)
        with SoakView(state) as view:
            verdict = Soak(scenario, state, folder, session, view.tell, [view.on]).run()
    write_answers(folder, verdict)
    return _answer(verdict, args.json, _print_soak)


def _print_soak(verdict: dict[str, Any], stream: Any) -> None:
    from harness.report.soak import sentence

    unjudged = verdict["unjudged"]["cut_off"] + verdict["unjudged"]["tried_again"]
    print(
        f"{verdict['verdict']}: {sentence(verdict)} {verdict['events']['acked']:,} events acknowledged and judged, "
        f"{unjudged:,} not judged; {verdict['faults']} faults.\n{verdict['soak']}/report.html",
        file=stream,
    )


def _compare(args: argparse.Namespace) -> int:
    if args.resume is not None:
        _folder(args.resume)
    _check_out(args.out)
    return _answer(compare.execute(args), args.json, compare.print_lines)


def _check(args: argparse.Namespace) -> int:
    from assertions.judge import judge
    from harness.report.terminal import print_verdict
    from harness.store import SavedRun

    folder = _folder(args.run)
    for kind, printed in _kinds_of_several().items():
        if kind.is_one(folder):
            return _answer(kind.judge_again(folder), args.json, printed)
    return _answer(judge(SavedRun.load(folder)), args.json, print_verdict)


def _report(args: argparse.Namespace) -> int:
    folder = _folder(args.run)
    kind = next((kind for kind in _kinds_of_several() if kind.is_one(folder)), None)
    return _report_of(folder) if kind is None else _report_of_several(folder, kind)


def _kinds_of_several() -> dict[Any, Any]:
    """What kinds of folders hold several runs (the module of each has `is_one`, `judge_again`, `write_answers` and
    `write_unfinished`), and how its verdict is printed."""
    from harness import side_by_side
    from harness.compare import comparison
    from harness.report.terminal import print_verdict
    from harness.soak import answers

    return {side_by_side: print_verdict, comparison: compare.print_lines, answers: _print_soak}


def _report_of_several(folder: Path, kind: Any) -> int:
    from harness.store import UnfinishedRun

    try:
        verdict = kind.judge_again(folder)
    except UnfinishedRun as error:
        kind.write_unfinished(folder)
        print(f"gauntlet: {error}", file=sys.stderr)
        print(folder / "report.html")
        return INCONCLUSIVE
    with contextlib.redirect_stdout(sys.stderr):
        for run in verdict.get("runs", ()):
            _report_of(Path(run["run"]))
    kind.write_answers(folder, verdict)
    print(folder / "report.html")
    return PASS


def _report_of(path: Path) -> int:
    from assertions.judge import judge
    from harness.report.html import write_html
    from harness.report.junit import write_junit
    from harness.store import RunFolder, SavedRun, UnfinishedRun

    folder = RunFolder(path)
    try:
        run = SavedRun.load(folder.path)
    except UnfinishedRun as error:
        write_html(SavedRun.open_unsealed(folder.path), {}, folder.report)
        print(f"gauntlet: {error}", file=sys.stderr)
        print(folder.report)
        return INCONCLUSIVE
    verdict = judge(run)
    if folder.verdict.exists():
        verdict["timing"] = json.loads(folder.verdict.read_text()).get("timing", {})
    write_html(run, verdict, folder.report)
    write_junit(verdict, folder.junit)
    print(folder.report)
    return PASS


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise UsageError(f"{path} is not a run folder; they are made by `gauntlet run` under --out (default: out).")
    return path


def _zoo(args: argparse.Namespace) -> int:
    if args.runs is not None and args.runs < 1:
        raise UsageError(f"--runs must be 1 or more, not {args.runs}.")
    if args.healthy is not None and args.healthy < 1:
        raise UsageError(f"--healthy must be 1 run or more, not {args.healthy}.")
    only_mutants = {"MUTANT": args.mutants, "--runs": args.runs, "--without-faults": args.without_faults,
                    "--docs": args.docs, "--schedule": args.schedule != "own"}  # fmt: skip
    only_healthy = {"--pipeline": args.pipeline, "--rate": args.rate, "--seconds": args.seconds}
    if args.healthy is not None:
        if wrong := [name for name, given in only_mutants.items() if given]:
            raise UsageError(f"{wrong[0]} is about mutants and cannot be asked together with --healthy.")
        return _zoo_of_healthy(args)
    if wrong := [name for name, given in only_healthy.items() if given is not None]:
        raise UsageError(f"{wrong[0]} needs --healthy N: a mutant is a pipeline of its own, under its own scenario.")
    return _zoo_of_mutants(args)


def _zoo_of_mutants(args: argparse.Namespace) -> int:
    from harness.report.zoo import check_page, markdown_of_mutants, table_of_mutants, write_page
    from harness.zoo import mutants_named, plan_of_mutant, summary_of_mutants
    from pipelines_under_test.mutants import MUTANTS

    if args.schedule not in ("own", "random"):
        raise unknown("schedule", args.schedule, ["own", "random"])
    mutants = mutants_named(args.mutants, MUTANTS)
    for mutant in mutants:
        plan_of_mutant(mutant, args.schedule, args.seed).scenario.validate()
    if args.docs:
        check_page(args.docs)
    rows: list[Any] = []

    def ended() -> int:
        summary = summary_of_mutants(rows, whole=not args.mutants)
        if args.docs and len(rows) == len(mutants):
            trial = rows[0].trials[0]
            how = f"Backend {trial.backend}, seed {args.seed}, schedule of the scenario{'' if args.schedule == 'own' else ': random'}."
            write_page(args.docs, markdown_of_mutants(rows, summary, how))
        return _told_of_zoo({**summary, "seed": args.seed}, table_of_mutants(rows, summary), args.json)

    with _zoo_opened(args, "zoo.jsonl", {"schedule": args.schedule, "seed": args.seed}, mutants[0].pipeline) as zoo:
        try:
            for row in zoo.run_mutants(
                mutants, runs=args.runs, seed=args.seed, schedule=args.schedule, without_faults=args.without_faults
            ):
                rows.append(row)
        except KeyboardInterrupt:
            ended()
            raise
    return ended()


def _zoo_of_healthy(args: argparse.Namespace) -> int:
    from harness.catalog import DEFAULT_SCENARIO, fitted, pipeline, rescheduled, scenario
    from harness.report.zoo import lines_of_healthy
    from harness.zoo import summary_of_healthy

    chosen = scenario(DEFAULT_SCENARIO)
    if args.pipeline:
        chosen = fitted(rescheduled(chosen, "none"), pipeline(args.pipeline))
    given = {k: v for k, v in (("rate", args.rate), ("seconds", args.seconds)) if v is not None}
    chosen = chosen.with_(load=dataclasses.replace(chosen.load, **given))
    rescheduled(chosen, "random").validate()
    asked = {"pipeline": chosen.pipeline.name, "rate": chosen.load.rate, "seconds": chosen.load.seconds}

    def ended() -> int:
        healthy = summary_of_healthy(zoo.trials)
        told = {**healthy, "pipeline": chosen.pipeline.name, "seed": args.seed}
        return _told_of_zoo(told, lines_of_healthy(healthy), args.json)

    with _zoo_opened(args, "healthy.jsonl", asked, chosen.pipeline) as zoo:
        try:
            zoo.run_healthy(chosen, args.healthy, args.seed)
        except KeyboardInterrupt:
            ended()
            raise
    return ended()


@contextlib.contextmanager
def _zoo_opened(args: argparse.Namespace, journal: str, asked: dict[str, Any], prepared: Pipeline) -> Iterator[Any]:
    """A zoo on its session. What goes on is a line a run, and on a terminal a status line meanwhile."""
    from rich.console import Console

    from harness.report.terminal import stages_on
    from harness.session import Session
    from harness.zoo import Zoo

    _check_out(args.out)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    with contextlib.ExitStack() as opened:
        session = opened.enter_context(Session(args.backend))
        session.prepare(prepared)  # shows by itself what it fetches
        status = opened.enter_context(console.status("starts"))
        asked = {**asked, "backend": args.backend}
        yield Zoo.opened(session, args.out / journal, asked, args.resume, console.print, stages_on(status))


def _told_of_zoo(summary: dict[str, Any], table: Any, as_json: bool) -> int:
    from rich.console import Console

    Console(stderr=as_json, highlight=False, markup=False).print(table)
    if as_json:
        sys.stderr.flush()
        print(json.dumps(summary))
    sys.stdout.flush()
    return {"pass": PASS, "violation": VIOLATION, "inconclusive": INCONCLUSIVE, "failed": HARNESS}[summary["verdict"]]


def _serve(args: argparse.Namespace) -> int:
    return service.serve(args)


def _provision(args: argparse.Namespace) -> int:
    from harness.provision import BY_NEED, provision, provision_one
    from harness.provision.show import Shown

    for name in args.components:
        if name not in BY_NEED:
            raise unknown("component to be had by name", name, BY_NEED, "components to be had by name")
    notes: list[str] = []
    with Shown() as shown:
        if args.components:
            found = {name: provision_one(name, shown) for name in args.components}
        else:
            programs = provision(shown)
            found, notes = (
                {n: getattr(programs, n) for n in ("kafka", "toxiproxy", "pubsub", "bigtable")},
                programs.notes,
            )
    for name, program in found.items():
        print(f"{name:10} {program.version:22} {program.origin}")
    for note in notes:
        print(f"note: {note}")
    return PASS


def _images(args: argparse.Namespace) -> int:
    from harness.backends import docker, images
    from harness.provision import provision, provision_one
    from harness.provision.show import Shown

    daemon = docker.client(600)
    with Shown() as shown:
        programs = dataclasses.replace(provision(shown), redis=provision_one("redis", shown))
    for name in images.build(daemon, programs, lambda text: print(f"  {text}", file=sys.stderr), args.base):
        print(name)
    return PASS


def _doctor(args: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.provision.doctor import doctor, render

    findings = doctor()
    Console().print(render(findings))
    return HARNESS if any(f.status == "missing" for f in findings) else PASS


def _list(args: argparse.Namespace) -> int:
    from harness.catalog import listing, mutants_of_more_than_a_run

    found = listing()
    if args.json:
        print(json.dumps(found))
        return PASS
    for kind, things in {**found, **mutants_of_more_than_a_run()}.items():
        print(f"{kind}:")
        for thing in things:
            caught = f"  [caught by {thing['caught_by']} in {thing['scenario']}]" if "caught_by" in thing else ""
            print(f"  {thing['name']:26} {thing['about']}{caught}")
        print()
    return PASS


if __name__ == "__main__":
    sys.exit(main())
