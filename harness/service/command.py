"""`gauntlet serve`: its options, and what it does with them."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.topology import UsageError

EPILOG = """\
Pages for a browser and an HTTP API (/api/openapi.json), Prometheus metrics at /metrics. Reading is free on loopback; a change
needs the token, and so does reading when it is bound elsewhere or --allow-host is given. The token comes from --token-file, else from the variable
GAUNTLET_TOKEN, else from <store>/.service/token, which is made at the first start.

Runs are ordinary commands in sessions of their own: they outlive the service, also when it is killed, and the next one finds
them again. Nothing is removed unless --keep-days or --keep-others-days is given, and nothing that is under way.

  gauntlet serve                                        the runs in out/, at http://127.0.0.1:8321
  gauntlet serve --keep-days 14 --keep-others-days 90   passes for two weeks, the others for a quarter
  gauntlet serve --host 0.0.0.0 --allow-host ci.example --token-file /etc/gauntlet/token
  curl -H "Authorization: Bearer $(cat out/.service/token)" -H 'Content-Type: application/json' \\
       -d '{"kind": "run", "scenario": "restarts"}' http://127.0.0.1:8321/api/jobs

docs/serve.md tells the rest: watching by server-sent events, schedules, the webhook, a systemd unit.
"""


def add_to(commands: Any) -> None:
    """The subcommand, added to those of a parser."""
    serve = commands.add_parser(
        "serve",
        help="the runs as pages, and an API to start and watch them",
        description="Shows the runs of a store as pages, and starts, watches and cancels them by HTTP.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument(
        "--store", type=Path, default=Path("out"), metavar="DIR", help="where the run folders are (default: out)"
    )
    serve.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8321, metavar="N", help="(default: 8321; 0: any that is free)")
    serve.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a further name by which it is addressed"
    )
    serve.add_argument("--token-file", type=Path, metavar="FILE", help="where the token stands")
    serve.add_argument(
        "--at-once", type=int, default=1, metavar="N", help="runs under way at once; the others wait (default: 1)"
    )
    serve.add_argument("--keep-days", type=float, metavar="N", help="remove what passed after N days (default: never)")
    serve.add_argument(
        "--keep-others-days", type=float, metavar="N", help="remove everything else after N days (default: never)"
    )
    serve.add_argument("--webhook", metavar="URL", help="POST a JSON object there for each violation")


def serve(args: argparse.Namespace) -> int:
    """Serves until it is interrupted; exit status 0."""
    with contextlib.suppress(KeyboardInterrupt):
        _serve(args)
    return 0


def _serve(args: argparse.Namespace) -> None:
    import uvicorn

    from harness.service.access import Access, is_loopback, token_of
    from harness.service.app import application
    from harness.service.index import OWN
    from harness.service.jobs import Jobs
    from harness.service.keeper import Keeper
    from harness.service.retention import Keep

    _check(args)
    store = args.store.resolve()
    try:
        (store / OWN).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Nothing can be kept in {store}: {error.strerror}. Take another --store.") from error
    with _alone(store / OWN / "lock"), _listening(args.host, args.port) as listener:
        own = store / OWN / "token"
        access = Access.of(token_of(args.token_file, own), args.host, args.allow_host)
        jobs = Jobs(store, args.at_once)
        keeper = Keeper(store, jobs, Keep(args.keep_days, args.keep_others_days), args.webhook, _tell)
        for line in jobs.found:
            _tell(f"serve: {line}")
        port = listener.getsockname()[1]
        shown = f"[{args.host}]" if ":" in args.host else args.host
        _tell(f"serve: {store} at http://{shown}:{port}")
        if args.token_file is None and own.exists():
            _tell(f"serve: the token for changes is in {own}")
        if not is_loopback(args.host):
            _tell("serve: without TLS the token can be read on the way: put a proxy with TLS in front (docs/serve.md)")
        config = uvicorn.Config(
            application(keeper, access),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=500,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=32 * 1024,
        )
        # The signal that ended it comes again once it has ended.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        for job in jobs.under_way():
            _tell(
                f"serve: {job.id} goes on as process {job.pid}; the next service finds it, `kill -INT {job.pid}` ends it"
            )


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.port <= 65_535:
        raise UsageError(f"--port must be from 0 to 65535, not {args.port}.")
    if args.at_once < 1:
        raise UsageError(f"--at-once must be 1 or more, not {args.at_once}.")
    for option in ("keep_days", "keep_others_days"):
        days = getattr(args, option)
        if days is not None and not days > 0:
            raise UsageError(f"--{option.replace('_', '-')} must be more than 0 days, not {days:g}.")
    if args.webhook is not None and not args.webhook.startswith(("http://", "https://")):
        raise UsageError(f"--webhook must be an address with http:// or https://, not {args.webhook!r}.")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One service a store: two would start each job twice."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.read(handle, 20).decode(errors="replace").strip()
            raise UsageError(f"Another `gauntlet serve` (process {pid}) has {path.parent.parent}.") from error
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(found[0], socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[4])
        listener.listen(2048)  # from here on nobody is turned away, even if the first answer takes a second
    except OSError as error:
        raise UsageError(f"Cannot listen at {host} port {port}: {error.strerror}. Take another --port.") from error
    with listener:
        yield listener


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
