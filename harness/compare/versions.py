"""A version of a pipeline: one by name, with its programs from another commit, command, image or environment. Two of them
are compared; and one worker is upgraded from the run's own to another.

    kappa                     a pipeline, mutant, or module:attribute, as `gauntlet run --pipeline` takes it
    orders:orders@v1.4        its programs as they are at a git ref

A git ref changes the programs and not the harness: what is declared (topics, hops, commands) is read from the current folder,
and the workers run in a copy of the repository as it was at that commit, which comes first on their PYTHONPATH too. Nothing is
built there: where a program must be, give its command as a script that builds first. The batch truth stays the current one.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shlex
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import catalog
from harness.topology import Pipeline, UsageError, Worker, unknown


@dataclass(frozen=True)
class Version:
    """What was asked for of one side, or of one worker.

    spec     pipeline[@ref]; of one worker also "": the pipeline at hand
    env      WORKER.KEY=VALUE, each
    command  WORKER=COMMAND, each, split like a shell does; started without one
    image    WORKER=IMAGE, each, or IMAGE for all workers (Docker backend only)
    commit   what the ref meant when the comparison began
    """

    spec: str
    env: Sequence[str] = ()
    command: Sequence[str] = ()
    image: Sequence[str] = ()
    commit: str = ""

    @property
    def name(self) -> str:
        return self.spec.partition("@")[0]

    @property
    def ref(self) -> str:
        return self.spec.partition("@")[2]

    def described(self) -> str:
        parts = [self.spec, *self.env, *self.command, *self.image]
        if self.commit:
            parts.insert(1, f"({self.commit[:10]})")
        return " ".join(part for part in parts if part)

    def pinned(self) -> Version:
        """With the commit that its ref means now. Raises UsageError for one that git does not know."""
        if "@" not in self.spec:
            return self
        if not self.ref or not self.name:
            raise UsageError(f"{self.spec!r} is not PIPELINE@REF: name a pipeline and a branch, tag or commit.")
        asked = _git(
            "rev-parse", "--verify", "--quiet", f"{self.ref}^{{commit}}", why=f"There is no commit {self.ref!r}"
        )
        return dataclasses.replace(self, commit=asked.decode().strip())

    def pipeline(self, folder: Path) -> Pipeline:
        """The pipeline as this version runs it; `folder`: where a copy of the repository is laid, if it has a ref."""
        return self.of(catalog.pipeline(self.name), folder)

    def of(self, found: Pipeline, folder: Path) -> Pipeline:
        """The same of a pipeline at hand."""
        workers = {worker.name: worker for worker in found.workers}
        for worker, value in _by_worker(found, self.command, "--…-command"):
            try:
                words = shlex.split(value)
            except ValueError as error:
                raise UsageError(f"The command {value!r} of the worker {worker!r} cannot be read: {error}.") from error
            if not words:
                raise UsageError(f"The worker {worker!r} needs a command, not an empty one.")
            workers[worker] = dataclasses.replace(workers[worker], command=words)
        for worker, (key, value) in _variables(found, self.env):
            workers[worker] = dataclasses.replace(workers[worker], env={**workers[worker].env, key: value})
        for asked in self.image:
            named = [n for n, _ in _by_worker(found, [asked], "--…-image")] if "=" in asked else list(workers)
            for worker in named:
                workers[worker] = dataclasses.replace(workers[worker], image=asked.rpartition("=")[2])
        if self.commit:
            tree = Tree.laid(self.commit, folder)
            workers = {name: tree.moved(worker) for name, worker in workers.items()}
        return dataclasses.replace(found, workers=[workers[w.name] for w in found.workers]).validate()

    def as_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "described": self.described()}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Version:
        names = {f.name for f in dataclasses.fields(cls)}
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items() if k in names}
        return cls(**known)


# ------------------------------------------------------------------------------------- one worker in another version

#: What may be told of a worker's other version, and the types of that.
WORDS: Mapping[str, tuple[type, ...]] = {
    "spec": (str,),
    "env": (Mapping,),
    "command": (str, list, tuple),
    "image": (str,),
}


def version_of(worker: str, to: Mapping[str, Any]) -> Version:
    """What `to` says of one worker, as `spec`, `env` (variable -> value), `command` (words, or a line that is split like a
    shell does) and `image`: all that a Version says of many. Raises UsageError for anything else."""
    for word, told in to.items():
        if word not in WORDS:
            raise unknown("word of a version", word, WORDS, "words of a version")
        if not isinstance(told, WORDS[word]) or not told:
            raise UsageError(f"{told!r} is no {word} of a version of {worker}.")
    command = to.get("command", "")
    line = command if isinstance(command, str) else shlex.join(command)
    return Version(
        to.get("spec", ""),
        tuple(f"{worker}.{key}={value}" for key, value in to.get("env", {}).items()),
        (f"{worker}={line}",) if line else (),
        (f"{worker}={to['image']}",) if "image" in to else (),
    )


def worker_in(version: Version, pipeline: Pipeline, worker: Worker, copy: Path) -> Worker:
    """The same worker of a pipeline in another version; `copy`: as of `Version.pipeline`.

    What it connects is the pipeline's and stays, so it may use no service beside its own. Raises UsageError.
    """
    other = version.of(catalog.pipeline(version.name) if version.name else pipeline, copy).worker(worker.name)
    for variable, service in other.uses.items():
        if service not in worker.uses.values():
            raise UsageError(
                f"{worker.name} of {version.described()} uses {service} by {variable}, to which {worker.name} of "
                f"{pipeline.name} has no link."
            )
    if other.serves != worker.serves:
        raise UsageError(f"{worker.name} of {version.described()} does not serve as that of {pipeline.name} does.")
    known = dataclasses.replace(
        worker, **{part: getattr(other, part) for part in ("command", "uses", "env", "cwd", "image")}
    )
    workers = [known if w.name == worker.name else w for w in pipeline.workers]
    dataclasses.replace(pipeline, workers=workers).validate()  # its variables may name what is not there
    return known


def second_name(instance: str) -> str:
    """Of a second process of a worker, in another version. No worker can be named so."""
    return f"{instance}.new"


def _by_worker(pipeline: Pipeline, asked: Sequence[str], option: str) -> list[tuple[str, str]]:
    found = []
    for text in asked:
        worker, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"{text!r} is not WORKER=VALUE, which {option} takes.")
        found.append((pipeline.worker(worker).name, value))
    return found


def _variables(pipeline: Pipeline, asked: Sequence[str]) -> list[tuple[str, tuple[str, str]]]:
    found = []
    for text in asked:
        match = re.fullmatch(r"([^.=]+)\.([A-Za-z_][A-Za-z0-9_]*)=(.*)", text, re.S)
        if not match:
            raise UsageError(f"{text!r} is not WORKER.KEY=VALUE, as aggregator.BATCH=100.")
        found.append((pipeline.worker(match[1]).name, (match[2], match[3])))
    return found


# ------------------------------------------------------------------------------------------------------ a git ref


@dataclass(frozen=True)
class Tree:
    """A copy of a repository's files as they were at a commit. `top`: of the repository; `copy`: of the copy."""

    top: Path
    copy: Path
    here: Path = field(default_factory=Path.cwd)

    @classmethod
    def laid(cls, commit: str, folder: Path) -> Tree:
        top = Path(_git("rev-parse", "--show-toplevel", why="There is no git repository").decode().strip())
        if not folder.exists():
            files = _git("archive", "--format=tar", commit, at=top, why=f"The commit {commit[:10]} cannot be read")
            with tarfile.open(fileobj=io.BytesIO(files)) as tar:
                # It may hold links that lead out, as a repository may; Debian 12's Python knows no filters, and needs none
                # (https://docs.python.org/3/library/tarfile.html#supporting-older-python-versions).
                tar.extraction_filter = getattr(tarfile, "tar_filter", lambda member, path: member)
                tar.extractall(folder)
        return cls(top, folder)

    def moved(self, worker: Worker) -> Worker:
        """The same worker with its folder, its PYTHONPATH and every path into the repository in the copy.

        Raises UsageError where its folder was not there at that commit.
        """
        before = Path(worker.cwd) if worker.cwd else self.here
        cwd = self._in_copy(before if before.is_absolute() else self.here / before)
        if not cwd.is_dir():
            raise UsageError(f"The worker {worker.name!r} runs in {before}, which is not there at that commit.")
        paths = [str(cwd), str(self.copy)]
        # What a worker's own variable holds is its declaration's; what it would inherit is this process's.
        inherited = worker.env.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        paths += [str(self._in_copy(Path(p))) for p in inherited.split(os.pathsep) if p]
        env = {key: value.replace(str(self.top), str(self.copy)) for key, value in worker.env.items()}
        env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        command = [self._word(word) for word in worker.command]
        return dataclasses.replace(worker, cwd=str(cwd), env=env, command=command)

    def _in_copy(self, path: Path) -> Path:
        path = path.resolve()
        return self.copy / path.relative_to(self.top.resolve()) if path.is_relative_to(self.top.resolve()) else path

    def _word(self, word: str) -> str:
        # An interpreter of a virtual environment inside the repository is no part of what was committed.
        inside = word.startswith(f"{self.top}{os.sep}")
        there = self.copy / Path(word).relative_to(self.top) if inside else None
        return str(there) if there is not None and there.exists() else word


def _git(*words: str, at: Path | None = None, why: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(at or Path.cwd()), *words], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UsageError("A pipeline at a git ref needs the command git, which is not installed.") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise UsageError(f"{why} as seen from {at or Path.cwd()}{f': {said}' if said else ''}.")
    return done.stdout
