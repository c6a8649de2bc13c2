"""Finds or fetches the real programs that a run needs: Kafka, Toxiproxy, Bigtable and Pub/Sub.

    programs = provision(progress)          # harness.provision.Programs
    programs.toxiproxy.start_args("127.0.0.1", 8474)

Redis, which only some pipelines have, by `provision_redis`.

Each component is looked for in this order: an explicit path in the environment; the PATH or an installed Google Cloud
SDK; the cache; an official release; a build through the Go module proxy. What was fetched is checked and cached, and
from then on `provision` is a matter of some stat calls: under 50 ms, no process, no network. docs/provisioning.md tells
it all; one module a component tells its part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from harness.provision import bigtable, go_build, kafka, pubsub, redis, toxiproxy
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
    "Attempt",
    "KafkaProgram",
    "Program",
    "Programs",
    "Progress",
    "ProvisionError",
    "SeveralMissing",
    "provision",
    "provision_redis",
    "provision_toxiproxy",
]

#: Each module's `look` finds what is there (or None), its `fetch` gets it; both raise ProvisionError.
_COMPONENTS: dict[str, Any] = {"kafka": kafka, "toxiproxy": toxiproxy, "bigtable": bigtable, "pubsub": pubsub}
#: What only some pipelines need.
_BY_NEED: dict[str, Any] = {"redis": redis}


def provision(progress: Progress = silent, env: Mapping[str, str] | None = None) -> Programs:
    """All programs, found or fetched (what has to be fetched, in parallel).

    `env` stands for the environment (default: the process's own). Raises ProvisionError, for several components at
    once if need be, and OSError where the cache cannot be written.
    """
    search = Search(env, progress)
    found = _found(list(_COMPONENTS), search)
    notes = []
    if found["pubsub"].kind == "pstest":
        why = "GAUNTLET_PUBSUB asks for it" if pubsub.wanted(search) == "pstest" else "the real emulator was not found"
        notes.append(f"Pub/Sub is a small server on Google's pstest, not Google's emulator: {why}")
    return Programs(**found, notes=notes)


def provision_toxiproxy(progress: Progress = silent, env: Mapping[str, str] | None = None) -> Program:
    """Toxiproxy alone, for runs on services that are there already. As `provision`."""
    program: Program = _found(["toxiproxy"], Search(env, progress))["toxiproxy"]
    return program


def provision_redis(progress: Progress = silent, env: Mapping[str, str] | None = None) -> Program:
    """Redis alone, for pipelines that have one. As `provision`."""
    program: Program = _found(["redis"], Search(env, progress))["redis"]
    return program


def _found(names: list[str], search: Search) -> dict[str, Any]:
    modules = _COMPONENTS | _BY_NEED
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
        jobs = {name: pool.submit((_COMPONENTS | _BY_NEED)[name].fetch, search) for name in names}
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
