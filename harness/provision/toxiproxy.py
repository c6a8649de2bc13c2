"""Toxiproxy: $GAUNTLET_TOXIPROXY, the PATH, the cache, the project's release on GitHub, a build with Go."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

from harness.provision import go_build
from harness.provision.cache import Entry, Made
from harness.provision.download import Refused
from harness.provision.programs import Program
from harness.provision.search import Search, architecture, operating_system
from harness.provision.trial import DoesNotRun, try_out

NAME = "toxiproxy"
VERSION = "2.12.0"
#: -proxy-metrics, which the evidence of faults reads, came with 2.5.0.
LEAST = (2, 5)
BINARY = "toxiproxy-server"
PACKAGE = "github.com/Shopify/toxiproxy/v2/cmd/server"
RELEASES = "https://github.com/Shopify/toxiproxy/releases/download"
#: sha256 of toxiproxy_2.12.0_<system>_<architecture>.tar.gz, as pinned by the hermit-packages of Cash App
#: (cashapp/hermit-packages, toxiproxy.hcl).
CHECKSUMS = {
    "linux_amd64": "65e042d3fc2290c099527bc506446a6fd863a09f113b8944b636ece70221c2b3",
    "linux_arm64": "ab417dafc77ae8b54ec8461cc5da5180d0465a61dcbda86c72da72ee4ab843b7",
    "darwin_amd64": "52ac1f99d7204b4b523f910b791bc86318b50ef94822c79a6157606704003ced",
    "darwin_arm64": "cece3905c06ad84d6b3bb4cd024c344e6466736b2a8cbaf9ef4fe45e62aba9b2",
}


def look(search: Search) -> Program | None:
    """What is there already. Raises ProvisionError for a wrong explicit path."""
    named = search.explicit(NAME, "GAUNTLET_TOXIPROXY")
    if named is not None:
        version = search.remembered(named, lambda: _ask(named))
        if not version:
            raise search.unusable(NAME, "GAUNTLET_TOXIPROXY", f"{named} is no toxiproxy-server")
        return _program(named, version, "$GAUNTLET_TOXIPROXY")
    found = search.which(BINARY)
    if found is None:
        search.refuse(NAME, "PATH", f"no {BINARY} there")
    else:
        version = search.remembered(found, lambda: _ask(found))
        if _numbers(version) >= LEAST or version == "git":
            return _program(found, version, f"PATH ({found})")
        search.refuse(NAME, f"PATH ({found})", f"is {version or 'no Toxiproxy'}; {LEAST[0]}.{LEAST[1]} is needed")
    entry = search.cached(NAME, key())
    return _cached(entry) if entry is not None else None


def fetch(search: Search) -> Program:
    """Downloads or builds it. Raises ProvisionError."""
    return _cached(
        search.cache.make(NAME, key(), lambda folder: _make(search, folder), search.progress, search.cancelled)
    )


def key() -> str:
    return f"{VERSION}-{operating_system()}-{architecture()}"


def _make(search: Search, folder: Path) -> Made:
    binary = folder / BINARY
    try:
        how = _download(search, binary)
    except Refused as refusal:
        search.refuse(NAME, "release on GitHub", str(refusal))
        try:
            # The tag is spelled out: the module's "latest" is 2.5.0, because newer tags were not made for Go's eyes.
            version = f"-X github.com/Shopify/toxiproxy/v2.Version={VERSION}"
            go = go_build.install(search, NAME, PACKAGE, f"v{VERSION}", binary, ldflags=version)
        except go_build.CannotBuild as error:
            search.refuse(NAME, "build with Go", str(error))
            raise search.missing(
                NAME, f"put {BINARY} {VERSION} on the PATH or name it by GAUNTLET_TOXIPROXY."
            ) from error
        how = f"built with {go.version}"
    try:
        if _ask(binary) != VERSION:
            raise DoesNotRun(f"it does not say that it is {VERSION}")
        try_out(search, _program(binary, VERSION, how))
    except DoesNotRun as error:
        search.refuse(NAME, how, str(error))
        raise search.missing(NAME, f"name a {BINARY} that runs here by GAUNTLET_TOXIPROXY.") from error
    return Made(VERSION, how)


def _download(search: Search, binary: Path) -> str:
    if search.offline:
        raise Refused("GAUNTLET_OFFLINE forbids it")
    system = f"{operating_system()}_{architecture()}"
    if system not in CHECKSUMS:
        raise Refused(f"there is no pinned release for {system}")
    url = f"{RELEASES}/v{VERSION}/toxiproxy_{VERSION}_{system}.tar.gz"
    archive = binary.with_name("release.tar.gz")
    search.progress(NAME, "downloading the release", 0.0)
    search.downloads.fetch(
        url, archive, CHECKSUMS[system], lambda done: search.progress(NAME, "downloading the release", done)
    )
    with tarfile.open(archive) as tar:
        member = next((m for m in tar.getmembers() if m.isfile() and Path(m.name).name == BINARY), None)
        content = tar.extractfile(member) if member else None
        if content is None:
            raise Refused(f"the release holds no {BINARY}")
        binary.write_bytes(content.read())
    archive.unlink()
    binary.chmod(0o755)
    return "release on GitHub"


def _cached(entry: Entry) -> Program:
    return _program(entry.folder / BINARY, entry.version, f"cache ({entry.origin})")


def _program(path: Path, version: str, origin: str) -> Program:
    return Program(NAME, version, (str(path),), origin)


def _ask(binary: Path) -> str:
    """The version that it tells; "" if it is no Toxiproxy."""
    try:
        told = subprocess.run([str(binary), "-version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"toxiproxy-server version (?:v)?(\S+)", told.stdout)
    return found.group(1) if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])
