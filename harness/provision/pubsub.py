"""Pub/Sub: Google's emulator where it can be had, else a small server on Google's `pstest`.

The emulator (a jar) comes from $GAUNTLET_PUBSUB_EMULATOR or an installed Cloud SDK; there is no release of it outside
the SDK. It runs on the same Java as Kafka, with a start-up cache of its own (0.4 s instead of 0.7 s).

Without it, `pstest_server` (see its main.go for what it does and does not do) is built with Go, and the run says so.
$GAUNTLET_PUBSUB = emulator or pstest insists on one of the two.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.provision import go_build
from harness.provision.bigtable import sdk_version
from harness.provision.cache import Entry, Made
from harness.provision.java import QUIET, SHORT_LIVED, Java, find_java
from harness.provision.programs import Program, ProvisionError
from harness.provision.search import Search, architecture, operating_system
from harness.provision.trial import DoesNotRun, try_out, wait_for_port

NAME = "pubsub"
START = "pubsub-start"
SERVER = Path(__file__).with_name("pstest_server")
BINARY = "pstest-server"
MAIN = "com.google.cloud.pubsub.testing.v1.Main"
FLAGS = ("-Xms64m", "-Xmx1g", *SHORT_LIVED, "-XX:+ExitOnOutOfMemoryError")
HOST_AND_PORT = ("--host={host}", "--port={port}")


def wanted(search: Search) -> str:
    """ "emulator", "pstest" or "" for whatever there is. Raises ProvisionError for another word."""
    word = search.env.get("GAUNTLET_PUBSUB", "")
    if word not in ("", "emulator", "pstest"):
        raise search.unusable(NAME, "GAUNTLET_PUBSUB", "it must be emulator or pstest")
    return word


def that_forgets(env: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the server is taken that does not keep every message, unless it says itself which is wanted."""
    said = "GAUNTLET_PUBSUB" in env or "GAUNTLET_PUBSUB_EMULATOR" in env
    return dict(env) if said else {**env, "GAUNTLET_PUBSUB": "pstest"}


def look(search: Search) -> Program | None:
    """What is there already, ready to start. Raises ProvisionError."""
    jar = None if wanted(search) == "pstest" else look_for_jar(search)
    if jar is not None:
        return ready_emulator(search, jar, find_java(search))
    _insist(search)
    return look_for_pstest(search)


def fetch(search: Search) -> Program:
    """Prepares the emulator that is there, or builds the server on pstest. Raises ProvisionError."""
    jar = None if wanted(search) == "pstest" else look_for_jar(search)
    return prepare_emulator(search, jar, find_java(search)) if jar is not None else fetch_pstest(search)


def _insist(search: Search) -> None:
    if wanted(search) == "emulator":
        raise search.missing(NAME, "install the Cloud SDK's component 'pubsub-emulator', or unset GAUNTLET_PUBSUB.")


# --------------------------------------------------------------------------------------------------- the emulator


def look_for_jar(search: Search) -> tuple[Path, str, str] | None:
    """The emulator's jar (or a program that was named instead of it), its version and origin."""
    named = search.explicit(NAME, "GAUNTLET_PUBSUB_EMULATOR")
    if named is not None:
        if named.is_dir():
            jar = next(iter(sorted((named / "lib").glob("cloud-pubsub-emulator-*.jar"))), None)
            if jar is None:
                raise search.unusable(NAME, "GAUNTLET_PUBSUB_EMULATOR", f"{named}/lib holds no emulator's jar")
            named = jar
        elif named.suffix != ".jar" and not os.access(named, os.X_OK):
            raise search.unusable(NAME, "GAUNTLET_PUBSUB_EMULATOR", f"{named} is neither a jar nor a program")
        return named, _version_of(named), "$GAUNTLET_PUBSUB_EMULATOR"
    if search.sdk is None:
        search.refuse(NAME, "Google Cloud SDK", "not installed")
        return None
    for jar in sorted((search.sdk / "platform" / "pubsub-emulator" / "lib").glob("cloud-pubsub-emulator-*.jar")):
        return jar, _version_of(jar), f"Google Cloud SDK {sdk_version(search.sdk)} ({search.sdk})"
    search.refuse(NAME, f"Google Cloud SDK ({search.sdk})", "its component 'pubsub-emulator' is not installed")
    return None


def ready_emulator(search: Search, found: tuple[Path, str, str], java: Java) -> Program | None:
    """The emulator, if its start cache is there already (a program of its own has none)."""
    path, version, origin = found
    if path.suffix != ".jar":
        return Program(NAME, version, (str(path),), origin, HOST_AND_PORT, "emulator")
    if not java.makes_aot_caches:
        return _emulator(found, java, None)
    entry = search.cached(START, start_key(path, java))
    return _emulator(found, java, entry) if entry is not None else None


def prepare_emulator(search: Search, found: tuple[Path, str, str], java: Java) -> Program:
    """Trains the emulator's start-up cache. Raises ProvisionError if the emulator does not start at all."""
    maker = lambda folder: _train(search, found, java, folder)  # noqa: E731
    entry = search.cache.make(START, start_key(found[0], java), maker, search.progress, search.cancelled)
    return _emulator(found, java, entry)


def start_key(jar: Path, java: Java) -> str:
    stat = jar.stat()
    identity = json.dumps([1, str(jar), stat.st_size, stat.st_mtime_ns, str(java.path.resolve()), java.version,
                           java.path.stat().st_mtime_ns, FLAGS])  # fmt: skip
    return f"{_version_of(jar)}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _emulator(found: tuple[Path, str, str], java: Java, entry: Entry | None, extra: tuple[str, ...] = ()) -> Program:
    jar, version, origin = found
    cache = (f"-XX:AOTCache={entry.folder / 'pubsub.aot'}",) if entry is not None and entry.facts["aot"] else ()
    command = (str(java.path), *FLAGS, *QUIET, *cache, *extra, "-cp", str(jar), MAIN)
    return Program(NAME, version, command, origin, HOST_AND_PORT, "emulator")


def _train(search: Search, found: tuple[Path, str, str], java: Java, folder: Path) -> Made:
    search.progress(START, "training the Pub/Sub emulator's start-up cache (once, about 8 s)", None)
    cache, log = folder / "pubsub.aot", folder / "training.log"
    try:
        _live(search, _emulator(found, java, None, (f"-XX:AOTCacheOutput={cache}",)), log)
    except (DoesNotRun, subprocess.TimeoutExpired) as error:
        search.refuse(NAME, found[2], str(error))
        advice = "name another Java by GAUNTLET_JAVA, or set GAUNTLET_PUBSUB=pstest."
        raise ProvisionError("a Pub/Sub emulator that starts", search.tried(NAME)[-1:], advice) from error
    facts: dict[str, object] = {"aot": cache.exists()}
    try:
        if cache.exists():
            _live(search, _emulator(found, java, None, (f"-XX:AOTCache={cache}", "-XX:AOTMode=on")), log)
    except (DoesNotRun, subprocess.TimeoutExpired) as error:
        facts = {"aot": False, "aot_missing": str(error)}
        cache.unlink()
    return Made(found[1], f"emulator {found[1]} on Java {java.version}", facts)


def _live(search: Search, program: Program, log: Path) -> None:
    """One short life of the emulator with a message in it."""
    children = search.children
    port = children.port()
    child = children.start(program.start_args("127.0.0.1", port), log)
    try:
        wait_for_port(search, port, lambda: children.status(child), 60.0)
        _exercise(port)
    finally:
        children.stop(child, 60.0)  # the JVM writes its cache when it ends


def _exercise(port: int) -> None:
    """A message there and back. Raises DoesNotRun."""
    import grpc
    from google.api_core.exceptions import GoogleAPICallError
    from google.pubsub_v1 import PublisherClient, SubscriberClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    topic, subscription = "projects/gauntlet/topics/training", "projects/gauntlet/subscriptions/training"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        try:
            publisher.create_topic(name=topic, timeout=30)
            subscriber.create_subscription(name=subscription, topic=topic, timeout=30)
            messages: list[Any] = [{"data": b"x" * 187, "attributes": {"id": str(i)}} for i in range(100)]
            publisher.publish(topic=topic, messages=messages, timeout=30)
            pulled = subscriber.pull(subscription=subscription, max_messages=100, timeout=30).received_messages
            subscriber.acknowledge(subscription=subscription, ack_ids=[m.ack_id for m in pulled], timeout=30)
        except GoogleAPICallError as error:
            raise DoesNotRun(f"Pub/Sub did not take a message: {error}") from error


def _version_of(path: Path) -> str:
    found = re.search(r"cloud-pubsub-emulator-(\d+(?:\.\d+)*)", path.name)
    return found.group(1) if found else "(not told)"


# --------------------------------------------------------------------------------------------------------- pstest


def look_for_pstest(search: Search) -> Program | None:
    entry = search.cached(NAME, pstest_key())
    return _pstest(entry) if entry is not None else None


def fetch_pstest(search: Search) -> Program:
    """Builds the server on pstest. Raises ProvisionError."""
    maker = lambda folder: _build(search, folder)  # noqa: E731
    return _pstest(search.cache.make(NAME, pstest_key(), maker, search.progress, search.cancelled))


def pstest_key() -> str:
    digest = hashlib.sha256()
    for file in sorted(SERVER.glob("*")):
        if file.suffix in (".go", ".mod", ".sum"):
            digest.update(file.read_bytes())
    return f"pstest-{pstest_version()}-{digest.hexdigest()[:8]}-{operating_system()}-{architecture()}"


def pstest_version() -> str:
    found = re.search(r"cloud.google.com/go/pubsub/v2 v(\S+)", (SERVER / "go.mod").read_text())
    return found.group(1) if found else "(unknown)"


def _build(search: Search, folder: Path) -> Made:
    source = folder / "source"
    shutil.copytree(SERVER, source, ignore=shutil.ignore_patterns("__pycache__"))  # Go writes nothing into the package
    try:
        go = go_build.build(search, NAME, source, folder / BINARY)
        shutil.rmtree(source)
        try_out(search, Program(NAME, "", (str(folder / BINARY),), "", HOST_AND_PORT))
    except (go_build.CannotBuild, DoesNotRun) as error:
        search.refuse(NAME, "build of a server on pstest with Go", str(error))
        advice = "install the Cloud SDK's component 'pubsub-emulator', or name its jar by GAUNTLET_PUBSUB_EMULATOR."
        raise search.missing(NAME, advice) from error
    return Made(f"pstest {pstest_version()}", f"built with {go.version}")


def _pstest(entry: Entry) -> Program:
    command = (str(entry.folder / BINARY),)
    return Program(NAME, entry.version, command, f"cache ({entry.origin})", HOST_AND_PORT, "pstest")
