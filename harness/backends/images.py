"""Container images: the official ones, or ones made here out of what provisioning has.

An image that is on this machine is taken; one that is not is pulled; where that fails, `gauntlet images build` makes
all of them without any registry of images: a base of Debian's packages, and on it the very files that the process
backend runs, at the same paths, started by the same commands (so that the JVM's start-up caches stay valid). The
workers' image is this installation: its site-packages and this package, so that containers run what was tested.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessFault
from harness.provision import redis
from harness.topology import Pipeline, UsageError

#: Raise it when what `build` makes changes.
GENERATION = 1
BASE = f"gauntlet/base:{GENERATION}"
#: What a worker may be a module of without declaring an image.
PACKAGES = ("harness", "faults", "load", "assertions", "pipelines_under_test")
SERVICES = ("kafka", "toxiproxy", "pubsub", "bigtable")
#: Images that only some pipelines need.
BY_NEED = ("redis",)
#: Debian's releases by the Python that they bring: the workers' image shares this installation's compiled packages.
RELEASES = {(3, 11): "bookworm", (3, 13): "trixie"}

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """`command` follows the image's entry point; "{port}" in it stands for the port to listen on."""

    kind: str
    ref: str
    version: str
    command: tuple[str, ...] = ()
    note: str = ""


_GCLOUD = "gcr.io/google.com/cloudsdktool/google-cloud-cli:528.0.0-emulators"
_TOXIPROXY_FLAGS = ("-host=0.0.0.0", "-port=8474", "-proxy-metrics")

OFFICIAL: dict[str, Image] = {
    "kafka": Image("kafka", "apache/kafka:4.3.0", "4.3.0"),
    "toxiproxy": Image("toxiproxy", "ghcr.io/shopify/toxiproxy:2.12.0", "2.12.0", _TOXIPROXY_FLAGS),
    **{
        kind: Image(
            kind, _GCLOUD, "of Cloud SDK 528.0.0",
            ("gcloud", "beta", "emulators", kind, "start", "--host-port=0.0.0.0:{port}", "--project=gauntlet"),
        )
        for kind in ("pubsub", "bigtable")
    },
    "redis": Image(
        "redis", "valkey/valkey:8.1", "8.1",
        ("valkey-server", *(flag.format(host="0.0.0.0", port="{port}") for flag in redis.FLAGS)),
    ),
}  # fmt: skip


class Images(dict[str, Image]):
    """By kind: the services' and "worker"."""

    @property
    def notes(self) -> list[str]:
        return [image.note for image in self.values() if image.note]


def holds(command: Sequence[str]) -> bool:
    """Whether the workers' own image can run a command: a module of this package."""
    return list(command[:2]) == ["{python}", "-m"] and len(command) > 2 and command[2].split(".")[0] in PACKAGES


# ------------------------------------------------------------------------------------------------------- finding


def needed(pipeline: Pipeline) -> set[str]:
    """Kinds of services of a pipeline whose images only some need."""
    return {service.kind for service in pipeline.services} & {*BY_NEED}


def missing_of(daemon: Any, kinds: Iterable[str]) -> list[str]:
    """The images of these kinds that are not on this machine."""
    return [f"the image {_named(kind)}" for kind in kinds if _here(daemon, kind) is None]


def missing(daemon: Any) -> list[str]:
    """The images of every pipeline that are not here. The workers' own may be made by need, if what it stands on is."""
    found = [kind for kind in SERVICES if _here(daemon, kind) is None]
    if not _exists(daemon, worker_ref()) and not _exists(daemon, packages_ref()):
        found.append("worker")
    return [f"the image {_named(kind)}" for kind in found]


def resolve(daemon: Any) -> Images:
    """Every image: here, pulled, or (the workers') made. Raises UsageError that names `gauntlet images build`."""
    refused: list[str] = []
    found = _services(daemon, SERVICES, refused)
    if not _exists(daemon, worker_ref()):
        if _exists(daemon, packages_ref()):
            print(f"  making {worker_ref()}: this package has changed", file=sys.stderr, flush=True)
            _build_worker(daemon)
        else:
            refused.append(f"{worker_ref()}: it holds this installation and is made on this machine")
    _raise_if(refused)
    found["worker"] = Image("worker", worker_ref(), _own_version())
    return found


def resolve_services(daemon: Any, kinds: Iterable[str]) -> Images:
    """The images of these kinds, as `resolve`."""
    refused: list[str] = []
    found = _services(daemon, kinds, refused)
    _raise_if(refused)
    return found


def _services(daemon: Any, kinds: Iterable[str], refused: list[str]) -> Images:
    found = Images()
    for kind in kinds:
        image = _here(daemon, kind) or _pulled(daemon, kind, refused)
        if image is not None:
            found[kind] = image
    return found


def _raise_if(refused: list[str]) -> None:
    if refused:
        raise UsageError(
            "Images are missing:\n  " + "\n  ".join(refused) + "\nMake them on this machine: gauntlet images build"
        )


def fetch_declared(daemon: Any, pipeline: Pipeline) -> None:
    """Sees that every image that a pipeline's workers and batch job declare is here, or pulls it.

    Raises UsageError that names those that cannot be had, and who needs them.
    """
    import docker.errors

    users: dict[str, list[str]] = {}
    for worker in pipeline.workers:
        users.setdefault(worker.image, []).append(worker.name)
    if pipeline.batch is not None:
        users.setdefault(pipeline.batch.image, []).append("the batch job")
    refused = []
    for image, names in users.items():
        try:
            if image and not _exists(daemon, image):
                print(f"  pulling {image}", file=sys.stderr, flush=True)
                daemon.images.pull(image)
        except docker.errors.APIError as error:
            refused.append(f"{image} (of {', '.join(names)}): {error.explanation or error}")
    if refused:
        raise UsageError(
            f"Images of {pipeline.name} are neither on this machine nor to be pulled:\n  "
            + "\n  ".join(refused)
            + "\nCorrect the name, or build it here (docker build -t NAME .), or see that `docker pull NAME` gets it."
        )


def _named(kind: str) -> str:
    return worker_ref() if kind == "worker" else OFFICIAL[kind].ref


def _here(daemon: Any, kind: str) -> Image | None:
    named = os.environ.get(f"GAUNTLET_IMAGE_{kind.upper()}")
    official = OFFICIAL[kind]
    if named:
        return Image(kind, named, named.rpartition(":")[2], official.command) if _exists(daemon, named) else None
    if _exists(daemon, local_ref(kind)):
        labels = daemon.images.get(local_ref(kind)).labels
        command = tuple(json.loads(labels["gauntlet.command"]))
        return Image(kind, local_ref(kind), labels["gauntlet.version"], command, labels.get("gauntlet.note", ""))
    return official if _exists(daemon, official.ref) else None


def _pulled(daemon: Any, kind: str, refused: list[str]) -> Image | None:
    import docker.errors

    ref = os.environ.get(f"GAUNTLET_IMAGE_{kind.upper()}") or OFFICIAL[kind].ref
    print(f"  pulling {ref}", file=sys.stderr, flush=True)
    try:
        daemon.images.pull(ref)
    except docker.errors.DockerException as error:
        refused.append(f"{ref}: {getattr(error, 'explanation', None) or error}")
        return None
    return _here(daemon, kind)


def _exists(daemon: Any, ref: str) -> bool:
    import docker.errors

    try:
        daemon.api.inspect_image(ref)
    except docker.errors.ImageNotFound:
        return False
    return True


def local_ref(kind: str) -> str:
    return f"gauntlet/{kind}:{GENERATION}"


def packages_ref() -> str:
    """Named by every distribution that this one stands on, so that a stale one is never taken."""
    return f"gauntlet/packages:{_digest([sys.version, str(GENERATION), *sorted(requirements())])}"


def requirements(distribution: str = "gauntlet-harness", extra: str = "reference") -> set[str]:
    """name==version of everything that is installed because of a distribution; those of `extra` too."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [(distribution, extra)]
    seen = set(waiting)
    while waiting:
        name, wanted = waiting.pop()
        try:
            there = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system, or an extra that was not installed
        if name != distribution:
            found.add(f"{name}=={there.version}")
        for line in there.requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": wanted}):
                for each in needed.extras or {""}:
                    if (needed.name, each) not in seen:
                        seen.add((needed.name, each))
                        waiting.append((needed.name, each))
    return found


def worker_ref() -> str:
    """Named by the content of this package."""
    pieces = [packages_ref()]
    for name, path in _sources():
        pieces += [name, hashlib.sha256(path.read_bytes()).hexdigest()]
    return f"gauntlet/worker:{_digest(pieces)}"


def _sources() -> Iterator[tuple[str, Path]]:
    root = Path(__file__).parents[2]
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(root)), path


def _digest(pieces: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(pieces).encode()).hexdigest()[:12]


def _own_version() -> str:
    try:
        return importlib.metadata.version("gauntlet-harness")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# ------------------------------------------------------------------------------------------------------ building


def build(daemon: Any, programs: Any, tell: Tell, base: str | None = None) -> list[str]:
    """Makes every image on this machine; their names. `base`: an image to stand on instead of Debian's packages.

    Raises UsageError where the base cannot be had, HarnessFault where a build fails.
    """
    if base is None:
        base = BASE
        if not _exists(daemon, BASE):
            tell(f"{BASE}: Debian's packages")
            _import_debian(daemon)
    made = [base]
    for kind, command, start in _service_commands(programs):
        tell(f"{local_ref(kind)}: {getattr(programs, kind).origin}")
        labels = {"gauntlet.command": json.dumps(start), "gauntlet.version": getattr(programs, kind).version}
        if kind == "pubsub" and programs.notes:
            labels["gauntlet.note"] = programs.notes[0]
        files: dict[str, Path | str] = {str(path).lstrip("/"): path for path in _paths_in(command)}
        if kind == "kafka":
            from harness.backends.docker_site import KAFKA_DATA

            files[str(KAFKA_DATA).lstrip("/")] = programs.kafka.template
        _build(daemon, local_ref(kind), base, files, labels, {"ENTRYPOINT": json.dumps(command)})
        made.append(local_ref(kind))
    if not _exists(daemon, packages_ref()):
        tell(f"{packages_ref()}: this installation's packages")
        site = Path(sysconfig.get_path("purelib"))
        _build(daemon, packages_ref(), base, {"opt/gauntlet/site-packages": site}, {}, {})
    if not _exists(daemon, worker_ref()):
        tell(f"{worker_ref()}: this package")
        _build_worker(daemon)
    return [*made, packages_ref(), worker_ref()]


def _service_commands(programs: Any) -> Iterator[tuple[str, list[str], list[str]]]:
    """(kind, entry point, the rest of the command)."""
    from harness.backends.docker_site import KAFKA_CONFIG

    yield "kafka", programs.kafka.start_args(Path(KAFKA_CONFIG)), []
    yield "toxiproxy", [*programs.toxiproxy.command], list(_TOXIPROXY_FLAGS)
    for kind in ("pubsub", "bigtable", "redis"):
        program = getattr(programs, kind)
        yield kind, [*program.command], [flag.format(host="0.0.0.0", port="{port}") for flag in program.flags]


def _paths_in(command: Sequence[str]) -> list[Path]:
    """The files and folders of this machine that a command names; of a Java program its whole home."""
    found: dict[Path, None] = {}
    for word in command:
        for piece in re.split(r"[=:]", word):
            path = Path(piece)
            if path.is_absolute() and path.exists():
                found[path.parents[1] if path.name == "java" and path.parent.name == "bin" else path] = None
    return list(found)


def _build_worker(daemon: Any) -> None:
    environment = "PYTHONPATH=/opt/gauntlet/source:/opt/gauntlet/site-packages PYTHONUNBUFFERED=1"
    files: dict[str, Path | str] = {f"opt/gauntlet/source/{name}": path for name, path in _sources()}
    _build(daemon, worker_ref(), packages_ref(), files, {}, {"ENV": environment, "WORKDIR": "/tmp"})


def _build(
    daemon: Any,
    ref: str,
    base: str,
    files: Mapping[str, Path | str],
    labels: Mapping[str, str],
    more: Mapping[str, str],
) -> None:
    """One layer of files on a base. Raises HarnessFault."""
    lines = [f"FROM {base}", "COPY root/ /"]
    lines += [f"LABEL {name}={json.dumps(value)}" for name, value in labels.items()]
    lines += [f"{instruction} {rest}" for instruction, rest in more.items()]
    read, write = os.pipe()
    problems: list[BaseException] = []

    def pack() -> None:
        try:
            with os.fdopen(write, "wb") as out, tarfile.open(fileobj=out, mode="w|", dereference=True) as tar:
                _add_text(tar, "Dockerfile", "\n".join(lines) + "\n")
                for name, path in files.items():
                    tar.add(str(path), f"root/{name}")
        except BaseException as error:
            problems.append(error)

    packer = threading.Thread(target=pack, name="image-context", daemon=True)
    packer.start()
    said = []
    with os.fdopen(read, "rb") as context:
        for line in daemon.api.build(fileobj=context, custom_context=True, tag=ref, rm=True, decode=True):
            said.append(line.get("stream", "") or line.get("error", ""))
            if "error" in line:
                raise HarnessFault(f"the image {ref} could not be built: {''.join(said[-5:]).strip()}")
    packer.join()
    if problems:
        raise HarnessFault(f"the image {ref} could not be packed: {problems[0]!r}")


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    import io

    entry = tarfile.TarInfo(name)
    entry.size = len(text.encode())
    tar.addfile(entry, io.BytesIO(text.encode()))


def _import_debian(daemon: Any) -> None:
    release = RELEASES.get(sys.version_info[:2])
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    other = f"Name a base that has Python {version}: gauntlet images build --base python:{version}-slim"
    if release is None:
        raise UsageError(f"No release of Debian brings Python {version}. {other}")
    if shutil.which("mmdebstrap") is None:
        raise UsageError(
            f"mmdebstrap is missing (apt-get install mmdebstrap makes a base of Debian's packages). {other}"
        )
    argv = ["mmdebstrap", "--variant=minbase", "--include=python3-minimal,libpython3-stdlib,ca-certificates,zlib1g",
            "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*", release, "-"]  # fmt: skip
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)  # type: ignore[arg-type]
    reader.start()
    repository, tag = BASE.split(":")
    with contextlib.suppress(Exception):
        daemon.api.import_image_from_stream(process.stdout, repository=repository, tag=tag)
    if process.wait() != 0 or not _exists(daemon, BASE):
        with contextlib.suppress(Exception):
            daemon.api.remove_image(BASE, force=True)
        reader.join(5)
        raise HarnessFault(f"mmdebstrap could not make a base:\n{b''.join(said[-10:]).decode(errors='replace')}")
