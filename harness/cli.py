"""The command line. Exit status: 0 pass, 1 violation, 2 usage error, 3 inconclusive, 4 the harness itself failed."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from harness.topology import UsageError

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
  gauntlet run lost-acks --pipeline no-dedup    a pipeline with a planted bug: see it caught
  gauntlet list                             scenarios, pipelines, faults, assertions, mutants
  gauntlet doctor                           what is installed, what would be fetched
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
    run.add_argument("--seed", type=int, metavar="N", help="the seed of the events (default: the scenario's)")
    run.add_argument("--rate", type=int, metavar="N", help="events a second")
    run.add_argument("--seconds", type=float, metavar="N", help="how long the load lasts")
    run.add_argument("--schedule", metavar="KIND", help="'none': without its faults")
    run.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where run folders go (default: out)")
    run.add_argument("--json", action="store_true", help="end with one JSON object on stdout; all else goes to stderr")

    check = commands.add_parser("check", help="judge a saved run again", description="Judges a saved run again.")
    check.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    check.add_argument("--json", action="store_true", help="print the verdict as one JSON object")

    report = commands.add_parser(
        "report", help="write a saved run's page again", description="Writes report.html again."
    )
    report.add_argument("run", type=Path, metavar="RUN", help="a run folder")

    commands.add_parser(
        "provision", help="find or fetch the real programs", description="Finds or fetches what runs need."
    )
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
    from harness.catalog import DEFAULT_SCENARIO, fitted, pipeline, scenario
    from harness.report.terminal import make_view, print_verdict
    from harness.session import Session

    chosen = scenario(args.scenario or DEFAULT_SCENARIO)
    if args.pipeline:
        chosen = fitted(chosen, pipeline(args.pipeline))
    given = {k: v for k, v in (("rate", args.rate), ("seconds", args.seconds)) if v is not None}
    chosen = chosen.with_(load=dataclasses.replace(chosen.load, **given))
    if args.seed is not None:
        chosen = chosen.with_(seed=args.seed)
    if args.schedule is not None:
        if args.schedule != "none":
            raise UsageError(
                f"There is no schedule {args.schedule!r}; this version knows 'none' and the scenario's own."
            )
        chosen = chosen.with_(faults=())
    chosen.validate()
    _check_out(args.out)
    view = make_view(sys.stderr)
    try:
        with Session(args.backend, args.endpoints) as session:
            session.prepare(chosen.pipeline)
            outcome = session.run(chosen, args.out, [view.on])
    finally:
        with contextlib.suppress(Exception):
            view.close()
    return _answer(outcome.verdict, args.json, print_verdict)


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


def _check(args: argparse.Namespace) -> int:
    from assertions.judge import judge
    from harness.report.terminal import print_verdict
    from harness.store import SavedRun

    return _answer(judge(SavedRun.load(_folder(args.run))), args.json, print_verdict)


def _report(args: argparse.Namespace) -> int:
    from assertions.judge import judge
    from harness.report.html import write_html
    from harness.report.junit import write_junit
    from harness.store import RunFolder, SavedRun, UnfinishedRun

    folder = RunFolder(_folder(args.run))
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


def _provision(args: argparse.Namespace) -> int:
    from harness.provision import provision
    from harness.provision.show import Shown

    with Shown() as shown:
        programs = provision(shown)
    for name in ("kafka", "toxiproxy", "pubsub", "bigtable"):
        program = getattr(programs, name)
        print(f"{name:10} {program.version:22} {program.origin}")
    for note in programs.notes:
        print(f"note: {note}")
    return PASS


def _images(args: argparse.Namespace) -> int:
    from harness.backends import docker, images
    from harness.provision import provision
    from harness.provision.show import Shown

    daemon = docker.client(600)
    with Shown() as shown:
        programs = provision(shown)
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
    from harness.catalog import listing

    found = listing()
    if args.json:
        print(json.dumps(found))
        return PASS
    for kind, things in found.items():
        print(f"{kind}:")
        for thing in things:
            caught = f"  [caught by {thing['caught_by']} in {thing['scenario']}]" if "caught_by" in thing else ""
            print(f"  {thing['name']:22} {thing['about']}{caught}")
        print()
    return PASS


if __name__ == "__main__":
    sys.exit(main())
