"""Jars from Maven Central, or from the mirror that $GAUNTLET_MAVEN names: exactly those of a lock, into the cache."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from harness.provision.cache import Entry, Made, sha256_of
from harness.provision.maven_lock import Lock
from harness.provision.search import Search


def fetch(search: Search, lock: Lock, advice: str) -> Entry:
    """The program's jars in the cache, downloaded if they are not there. Raises ProvisionError, which gives the advice."""

    def make(folder: Path) -> Made:
        try:
            if search.offline:
                raise OSError("GAUNTLET_OFFLINE forbids it")
            _download(search, lock, folder)
        except InterruptedError:
            raise
        except Exception as error:  # jgo raises whatever its HTTP library and its own assertions raise
            search.refuse(lock.name, _repository(search)[0], str(error) or type(error).__name__)
            raise search.missing(lock.name, f"{advice}, or name a mirror by GAUNTLET_MAVEN.") from error
        return Made(lock.version(), _repository(search)[0])

    return search.cache.make(lock.name, lock.key(), make, search.progress, search.cancelled)


def _download(search: Search, lock: Lock, folder: Path) -> None:
    from jgo.maven import MavenContext, PythonResolver  # 0.3 s that only a download has to pay

    # A repository of its own in the staging folder: jgo writes its files in place, and would trust half of one.
    repository = folder / "repository"
    context = MavenContext(repo_cache=repository, remote_repos=_repository(search)[1], resolver=PythonResolver())

    def one(coordinate: str, sha256: str) -> None:
        if search.cancelled():
            raise InterruptedError("the download was cancelled")
        group, artifact, version = coordinate.split(":")
        jar = context.project(group, artifact).at_version(version).artifact().resolve()
        if sha256_of(jar) != sha256:
            raise OSError(f"{jar.name} does not have the pinned checksum {sha256[:12]}…")
        jar.rename(folder / jar.name)

    pinned = lock.jars()
    with ThreadPoolExecutor(6, "jars") as pool:
        jobs = [pool.submit(one, *jar) for jar in pinned]
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                text = f"downloading the jars of {lock.name.capitalize()} {lock.version()}"
                search.progress(lock.name, text, done / len(pinned))
        finally:
            for job in jobs:
                job.cancel()
    shutil.rmtree(repository)


def _repository(search: Search) -> tuple[str, dict[str, str] | None]:
    mirror = search.env.get("GAUNTLET_MAVEN")
    return (f"$GAUNTLET_MAVEN = {mirror}", {"mirror": mirror.rstrip("/")}) if mirror else ("Maven Central", None)
