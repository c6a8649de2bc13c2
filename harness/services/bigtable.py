"""Bigtable: Google's emulator. All of it in memory, so it is never killed (a pause or a partition is legitimate)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import grpc
from grpc.experimental import ChannelOptions

from harness.backends.base import Child, Site
from harness.errors import HarnessFault
from harness.services.base import ServiceExit, SinkReading, SinkTap, wait_until_up
from harness.services.pubsub import probe
from harness.topology import Bigtable, BigtableHop, Cells, CountedCell, Link, Row, Sighting

__all__ = ["BigtableServer", "bigtable_tap", "probe", "read_rows"]

#: How many times as long as a reading takes its tap rests, while the run goes on.
OFTEN, SELDOM = 8.0, 24.0

INSTANCE = "projects/gauntlet/instances/gauntlet"


class BigtableServer:
    def __init__(self, service: Bigtable, site: Site, on_exit: ServiceExit) -> None:
        self.name, self.service = service.name, service
        self._site, self._on_exit = site, on_exit
        self._log = site.folder / "logs" / f"{service.name}.log"
        self._port = site.port(self.name, "direct")
        self.direct, self.inside = site.direct(self.name, self._port), self._port.reach
        self.children: dict[str, Child] = {}
        self.channel = grpc.insecure_channel(
            self.direct,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.initial_reconnect_backoff_ms", 20),
                ("grpc.min_reconnect_backoff_ms", 20),
                ("grpc.max_reconnect_backoff_ms", 200),
                # A row comes as a message of its own; handing each from thread to thread costs more than all else.
                (ChannelOptions.SingleThreadedUnaryStream, 1),
            ],
        )

    def start(self, process: str = "") -> None:
        child = self._site.start_emulator(
            self.name, "bigtable", self._port, self.log(), on_exit=lambda e: self._on_exit(self.name, e)
        )
        self.children = {self.name: child} if child is not None else {}

    def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        wait_until_up(self, self._site, self._answers, timeout_s)

    def _answers(self) -> bool:
        return probe(self.direct, 1.0) >= 0

    def log(self, process: str = "") -> Path:
        return self._log

    def upstreams(self, link: Link) -> list[str]:
        return [self._port.reach]

    def names(self, run: str) -> dict[str, str]:
        return {table: f"{INSTANCE}/tables/{table}-{run}" for table in self.service.tables}

    def make(self, names: Mapping[str, str]) -> None:
        from google.cloud.bigtable_admin_v2.types import bigtable_table_admin, table

        for short, families in self.service.tables.items():
            column_families = {f: table.ColumnFamily() for f in families}
            request = bigtable_table_admin.CreateTableRequest(
                parent=INSTANCE,
                table_id=names[short].rsplit("/", 1)[1],
                table=table.Table(column_families=column_families),
            )
            self._admin("CreateTable", bigtable_table_admin.CreateTableRequest.serialize(request))

    def remove(self, names: Mapping[str, str]) -> None:
        from google.cloud.bigtable_admin_v2.types import bigtable_table_admin

        for name in names.values():
            request = bigtable_table_admin.DeleteTableRequest(name=name)
            try:
                self._admin("DeleteTable", bigtable_table_admin.DeleteTableRequest.serialize(request))
            except grpc.RpcError:
                pass  # best effort: the emulator forgets everything with its process

    def sweep(self, run: str) -> None:
        from google.cloud.bigtable_admin_v2.types import bigtable_table_admin as admin

        asked = admin.ListTablesRequest.serialize(admin.ListTablesRequest(parent=INSTANCE))
        found = admin.ListTablesResponse.deserialize(self._admin("ListTables", asked))
        for table in found.tables:
            if table.name.endswith(f"-{run}"):
                request = admin.DeleteTableRequest(name=table.name)
                self._admin("DeleteTable", admin.DeleteTableRequest.serialize(request))

    def _admin(self, method: str, request: bytes) -> bytes:
        path = f"/google.bigtable.admin.v2.BigtableTableAdmin/{method}"
        answer: bytes = self.channel.unary_unary(path)(request, timeout=20, wait_for_ready=True)
        return answer


def read_rows(channel: grpc.Channel, table: str, timeout_s: float = 60.0) -> Iterator[Row]:
    """Every row of a table with all its versions. Raises grpc.RpcError.

    Puts the chunks of ReadRows together as its protocol says (bigtable.proto, ReadRowsResponse.CellChunk): a field
    that is left out repeats the one before, a `value_size` announces that the value goes on in the next chunk.
    """
    from google.cloud.bigtable_v2.types import bigtable

    request = bigtable.ReadRowsRequest.pb()(table_name=table)
    call = channel.unary_stream(
        "/google.bigtable.v2.Bigtable/ReadRows",
        request_serializer=lambda r: r.SerializeToString(),
        response_deserializer=bigtable.ReadRowsResponse.pb().FromString,
    )
    key, family, qualifier, timestamp, value = b"", "", b"", 0, b""
    cells: dict[tuple[str, bytes], list[tuple[int, bytes]]] = {}
    going_on = False
    for response in call(request, timeout=timeout_s):
        for chunk in response.chunks:
            if chunk.reset_row:
                key, family, qualifier, value, cells, going_on = b"", "", b"", b"", {}, False
                continue
            if chunk.row_key:
                key = chunk.row_key
            if chunk.HasField("family_name"):
                family = chunk.family_name.value
            if chunk.HasField("qualifier"):
                qualifier = chunk.qualifier.value
            if not going_on:
                timestamp, value = chunk.timestamp_micros, b""
            value += chunk.value
            going_on = chunk.value_size > 0
            if not going_on:
                cells.setdefault((family, qualifier), []).append((timestamp, value))
            if chunk.commit_row:
                yield Row(key, cells)
                key, family, qualifier, value, cells = b"", "", b"", b"", {}


def bigtable_tap(
    hop: BigtableHop, server: BigtableServer, table: str, cells: Sequence[Cells], now: Callable[[], float]
) -> SinkTap:
    """The tap of a table of counts: read as a whole, now and then while the run goes on, and once at its end."""
    assert hop.cells is not None
    to_cells, to_sightings = hop.cells, hop.sightings

    def read(single_events: bool = True) -> SinkReading:
        counted: list[CountedCell] = []
        sightings: list[Sighting] | None = [] if to_sightings is not None and single_events else None
        for row in read_rows(server.channel, table):
            counted.extend(to_cells(row))
            if to_sightings is not None and sightings is not None:
                sightings.extend(to_sightings(row))
        return SinkReading(counted, sightings)

    # Where it shows single events, with the server's own times, nothing is judged by when it was looked at.
    rests = SELDOM if to_sightings is not None else OFTEN
    recount = partial(read, single_events=False)
    return SinkTap(hop.name, read, cells, now, glance=recount, rests=rests, recount=recount)


def trim(hop: BigtableHop, server: BigtableServer, table: str, before_ms: float) -> list[CountedCell]:
    """Deletes the rows of a table of counts whose windows had all ended before a moment; returns what they held. Raises
    grpc.RpcError."""
    from google.cloud.bigtable_v2.types import bigtable

    assert hop.cells is not None
    deleted: list[CountedCell] = []
    request = bigtable.MutateRowsRequest.pb()(table_name=table)
    for row in read_rows(server.channel, table):
        cells = list(hop.cells(row))
        if cells and all(c.window_start_ms + c.window_s * 1000 < before_ms for c in cells):
            deleted += cells
            request.entries.add(row_key=row.key).mutations.add().delete_from_row.SetInParent()
    if not request.entries:
        return deleted
    call = server.channel.unary_stream(
        "/google.bigtable.v2.Bigtable/MutateRows",
        request_serializer=lambda r: r.SerializeToString(),
        response_deserializer=bigtable.MutateRowsResponse.pb().FromString,
    )
    for response in call(request, timeout=60):
        for entry in response.entries:
            if entry.status.code:
                raise HarnessFault(f"a row of {table} could not be deleted: {entry.status.message}")
    return deleted
