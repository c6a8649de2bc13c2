"""What flows over each link, seen from outside by the kernel: connections and bytes, without touching the traffic.

Toxiproxy's own counters move only when a connection closes, so they cannot show that bytes stopped. The kernel's
`sock_diag` netlink interface (what `ss -ti` uses; linux/inet_diag.h, linux/tcp.h) gives, for the sockets that a proxy
accepted from its worker, the bytes received from the worker (requests) and those the worker has acknowledged
(responses). A connection that lives shorter than the sampling interval is missed: these figures are evidence, never
equality.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.topology import link_of

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x1 | 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INET_DIAG_INFO = 2
_TCP_ESTABLISHED, _TCP_CLOSE_WAIT = 1, 8
_BYTES_ACKED, _BYTES_RECEIVED = 120, 128  # offsets in struct tcp_info (since Linux 4.1)


@dataclass(frozen=True)
class Flow:
    """A link at one moment. Counters grow for the life of the meter; bytes as the proxy's worker side sees them."""

    connections: int = 0
    opened: int = 0
    closed: int = 0
    requests: int = 0
    responses: int = 0


@dataclass
class _Seen:
    received: int = 0
    acked: int = 0


@dataclass
class LinkMeter:
    """`ports`: name of a link's proxy -> port on which it listens. Not thread-safe: one thread samples."""

    ports: Mapping[str, int]
    _sockets: dict[str, dict[tuple[int, int], _Seen]] = field(default_factory=dict)
    _totals: dict[str, Flow] = field(default_factory=dict)

    def sample(self) -> dict[str, Flow]:
        """Every link as it is now, and each proxy of one that has several. Raises OSError where the kernel does not
        offer sock_diag."""
        by_port = {port: name for name, port in self.ports.items()}
        now: dict[str, dict[tuple[int, int], _Seen]] = {name: {} for name in self.ports}
        now |= {link_of(name): {} for name in self.ports}
        for port, peer, inode, received, acked in _established():
            name = by_port.get(port)
            if name is not None:
                now[name][peer, inode] = now[link_of(name)][peer, inode] = _Seen(received, acked)
        flows = {}
        for name, sockets in now.items():
            before = self._sockets.get(name, {})
            total = self._totals.get(name, Flow())
            requests, responses = total.requests, total.responses
            for key, seen in sockets.items():
                was = before.get(key, _Seen())
                requests += max(0, seen.received - was.received)
                responses += max(0, seen.acked - was.acked)
            flow = Flow(
                connections=len(sockets),
                opened=total.opened + len(sockets.keys() - before.keys()),
                closed=total.closed + len(before.keys() - sockets.keys()),
                requests=requests,
                responses=responses,
            )
            flows[name] = flow
        self._sockets, self._totals = now, flows
        return flows

    def close(self) -> None:
        """Nothing is held between samples."""


def _established() -> list[tuple[int, int, int, int, int]]:
    """(local port, peer port, inode, bytes received, bytes acked) of every connection with a live peer."""
    # What was accepted on a wildcard address is of the IPv6 family, whoever the peer is.
    return _of_family(socket.AF_INET) + _of_family(socket.AF_INET6)


def _of_family(family: int) -> list[tuple[int, int, int, int, int]]:
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), 0, 1 << _TCP_ESTABLISHED)
    request += b"\0" * 48  # struct inet_diag_sockid: any
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    found: list[tuple[int, int, int, int, int]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(2)
        netlink.send(header + request)
        while True:
            data = netlink.recv(1 << 18)
            at = 0
            while at + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind == _NLMSG_DONE or length < 16:
                    return found
                if kind == _NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, at + 16)[0], "sock_diag refused")
                body = at + 16
                local, peer = struct.unpack_from("!HH", data, body + 4)
                inode = struct.unpack_from("=I", data, body + 68)[0]
                attribute = body + 72
                while attribute + 4 <= at + length:
                    size, which = struct.unpack_from("=HH", data, attribute)
                    if size < 4:
                        break
                    if which == _INET_DIAG_INFO and size >= 4 + _BYTES_RECEIVED + 8:
                        acked, received = struct.unpack_from("=QQ", data, attribute + 4 + _BYTES_ACKED)
                        found.append((local, peer, inode, received, acked))
                    attribute += (size + 3) & ~3
                at += (length + 3) & ~3


def main() -> None:
    """Prints a sample a line, twenty a second, for ever: where the proxies are in another network namespace.

    One argument: the ports as a JSON object, link -> port. A line: link -> the five figures of `Flow` in order.
    """
    import dataclasses
    import json
    import sys
    import time

    meter = LinkMeter(json.loads(sys.argv[1]))
    while True:
        try:
            said: object = {link: dataclasses.astuple(flow) for link, flow in meter.sample().items()}
        except OSError as error:
            said = {"error": str(error)}
        print(json.dumps(said), flush=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
