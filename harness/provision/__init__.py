"""Finds or fetches the real programs that a run needs: Kafka, Toxiproxy, Bigtable and Pub/Sub.

    programs = provision(progress)          # harness.provision.Programs
    programs.toxiproxy.start_args("127.0.0.1", 8474)

What only some pipelines need (`BY_NEED`) is got one by one, by `provision_one`.

Each component is looked for in this order: an explicit path in the environment; the PATH or an installed Google Cloud
SDK; the cache; an official release; a build through the Go module proxy. What was fetched is checked and cached, and
from then on `provision` is a matter of some stat calls: under 50 ms, no process, no network. docs/provisioning.md tells
it all; one module a component tells its part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from harness.provision import bigquery, bigtable, go_build, hadoop, kafka, pubsub, redis, toxiproxy
from harness.provision.programs import (
    Attempt,
    KafkaProgram,
    Program,
    Programs,
    Progress,
    ProvisionError,
    SeveralMissing,
)
from harness.provision.search import Search, silent

__all__ = [
    "BY_NEED",
    "Attempt",
    "KafkaProgram",
    "Program",
    "Programs",
    "Progress",
    "ProvisionError",
    "SeveralMissing",
    "provision",
    "provision_one",
]

#: Each module's `look` finds what is there (or None), its `fetch` gets it; both raise ProvisionError.
_COMPONENTS: dict[str, Any] = {"kafka": kafka, "toxiproxy": toxiproxy, "bigtable": bigtable, "pubsub": pubsub}
#: What only some pipelines need, or who asks for it.
BY_NEED: dict[str, Any] = {"bigquery": bigquery, "redis": redis, "hadoop": hadoop}


def provision(progress: Progress = silent, env: Mapping[str, str] | None = None) -> Programs:
    """All programs, found or fetched (what has to be fetched, in parallel).

    `env` stands for the environment (default: the process's own). Raises ProvisionError, for several components at
    once if need be, and OSError where the cache cannot be written.
    """
    search = Search(env, progress)
    found = _found(list(_COMPONENTS), search)
    notes = []
    if found["pubsub"].kind == "pstest":
        why = "it was asked for" if pubsub.wanted(search) == "pstest" else "the real emulator was not found"
        notes.append(f"Pub/Sub is a small server on Google's pstest, not Google's emulator: {why}")
    return Programs(**found, notes=notes)


def provision_one(name: str, progress: Progress = silent, env: Mapping[str, str] | None = None) -> Any:
    """One component alone: Toxiproxy for runs on services that are there already, or one of `BY_NEED`. As `provision`."""
    return _found([name], Search(env, progress))[name]


def _found(names: list[str], search: Search) -> dict[str, Any]:
    modules = _COMPONENTS | BY_NEED
    found, errors = _each({name: partial(modules[name].look, search) for name in names})
    missing = [name for name in names if found.get(name) is None and name not in errors]
    if missing:
        fetched, failed = _fetch_all(missing, search)
        found |= fetched
        errors |= failed
    if errors:
        raise _one_error(list(errors.values()))
    return found


def _each(jobs: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, ProvisionError]]:
    found: dict[str, Any] = {}
    errors: dict[str, ProvisionError] = {}
    for name, job in jobs.items():
        try:
            found[name] = job()
        except ProvisionError as error:
            errors[name] = error
    return found, errors


def _fetch_all(names: list[str], search: Search) -> tuple[dict[str, Any], dict[str, ProvisionError]]:
    """Side by side: training and downloads leave the compiler a core. Ends all of it when interrupted."""
    from concurrent.futures import ThreadPoolExecutor

    search.children  # noqa: B018  made here, in one thread
    pool = ThreadPoolExecutor(len(names), "provision")
    try:
        jobs = {name: pool.submit((_COMPONENTS | BY_NEED)[name].fetch, search) for name in names}
        return _each({name: job.result for name, job in jobs.items()})
    except BaseException:
        search.cancel()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        search.close()
        go_build.clean_up(search)


def _one_error(errors: list[ProvisionError]) -> ProvisionError:
    different = list({str(error): error for error in errors}.values())  # a missing Java is missed by two
    return different[0] if len(different) == 1 else SeveralMissing(different)
