"""Toxiproxy through toxiproxy-python, with every setting read back.

The one place that knows the library's sharp edges (docs/dependencies.md tells them at length):

* its HTTP consumer is a class attribute, so a second server takes over every Proxy object: here each call runs under a
  lock, with host and port set for this server;
* it sets no HTTP time-out and does not look at 5xx: here both are added by a subclass of its consumer;
* a toxic's attributes that the server does not know are accepted in silence: here the toxic is read back and compared;
* it cannot see the Prometheus counters: here they are read from the server's /metrics.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
import toxiproxy.proxy
import toxiproxy.server
from toxiproxy.api import APIConsumer
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

from harness.errors import HarnessFault
from harness.topology import link_of

_HTTP_TIMEOUT_S = 5.0
_one_at_a_time = threading.RLock()


class _Consumer(APIConsumer):
    """The library's consumer with a time-out and an error for every status of 400 and above."""

    @classmethod
    def get(cls, url: str, params: Any = None, **kwargs: Any) -> requests.Response:
        return _checked(super().get(url, params, timeout=_HTTP_TIMEOUT_S, **kwargs))

    @classmethod
    def post(cls, url: str, data: Any = None, json: Any = None, **kwargs: Any) -> requests.Response:
        return _checked(super().post(url, data, json, timeout=_HTTP_TIMEOUT_S, **kwargs))

    @classmethod
    def delete(cls, url: str, **kwargs: Any) -> requests.Response:
        return _checked(super().delete(url, timeout=_HTTP_TIMEOUT_S, **kwargs))


def _checked(response: requests.Response) -> requests.Response:
    if response.status_code >= 400:
        raise HarnessFault(f"Toxiproxy answered {response.status_code}: {response.text.strip()}")
    return response


toxiproxy.proxy.APIConsumer = _Consumer
toxiproxy.server.APIConsumer = _Consumer


@dataclass(frozen=True)
class Toxic:
    """A disturbance of one direction of a link. Attributes: https://github.com/Shopify/toxiproxy#toxics."""

    name: str
    type: str
    stream: str = "downstream"
    attributes: Mapping[str, int] = field(default_factory=dict)
    toxicity: float = 1.0


@dataclass(frozen=True)
class Counters:
    """Bytes of a proxy's closed connections: upstream = requests, downstream = responses; eaten = received - sent."""

    upstream_received: int = 0
    upstream_sent: int = 0
    downstream_received: int = 0
    downstream_sent: int = 0


class ToxiproxyServer:
    """One Toxiproxy server. Raises HarnessFault when it does not answer or did not do what it was asked.

    What is done to a link is done to each of its proxies (`harness.topology.Link.proxies`).
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._library = toxiproxy.server.Toxiproxy()

    @contextmanager
    def _talk(self) -> Iterator[Any]:
        with _one_at_a_time:
            _Consumer.host, _Consumer.port = self.host, self.port
            try:
                yield self._library
            except requests.RequestException as error:
                raise HarnessFault(f"Toxiproxy at {self.host}:{self.port} does not answer: {error}") from error
            except (InvalidToxic, NotFound, ProxyExists) as error:
                raise HarnessFault(f"Toxiproxy refused: {error}") from error

    def wait_until_ready(self, timeout_s: float = 10.0) -> None:
        """/version answers text and comes up first; /proxies is what is needed, so that is asked."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with self._talk() as library:
                    library.proxies()
                    return
            except HarnessFault:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def create(self, proxies: Sequence[tuple[str, str, str]]) -> None:
        """Makes proxies (name, listen address, upstream address), and sees that each listens where it was told."""
        with self._talk() as library:
            for name, listen, upstream in proxies:
                library.create(upstream=upstream, name=name, listen=listen, enabled=True)
            there = library.proxies()
        for name, listen, upstream in proxies:
            proxy = there.get(name)
            if proxy is None or (_wild(proxy.listen), proxy.upstream, proxy.enabled) != (_wild(listen), upstream, True):
                raise HarnessFault(f"Toxiproxy did not make the proxy {name} on {listen} to {upstream}")

    def set_enabled(self, link: str, enabled: bool) -> None:
        with self._talk():
            for proxy in self._proxies(link):
                proxy.enable() if enabled else proxy.disable()
            for proxy in self._proxies(link):
                if proxy.enabled is not enabled:
                    raise HarnessFault(f"Toxiproxy did not {'enable' if enabled else 'disable'} the proxy {proxy.name}")

    def add(self, link: str, toxic: Toxic) -> None:
        with self._talk():
            for proxy in self._proxies(link):
                proxy.add_toxic(
                    name=toxic.name,
                    type=toxic.type,
                    stream=toxic.stream,
                    toxicity=toxic.toxicity,
                    attributes=dict(toxic.attributes),
                )
                there, name = proxy.get_toxic(toxic.name), proxy.name
                if there is None:
                    raise HarnessFault(f"Toxiproxy did not add the toxic {toxic.name} to {name}")
                wrong = {k: v for k, v in toxic.attributes.items() if there.attributes.get(k) != v}
                if wrong or (there.type, there.stream) != (toxic.type, toxic.stream):
                    raise HarnessFault(f"Toxiproxy set the toxic {toxic.name} on {name} otherwise than asked: {wrong}")

    def remove(self, link: str, toxic_name: str) -> None:
        with self._talk():
            for proxy in self._proxies(link):
                proxy.destroy_toxic(toxic_name)
                if proxy.get_toxic(toxic_name) is not None:
                    raise HarnessFault(f"Toxiproxy did not remove the toxic {toxic_name} from {proxy.name}")

    def reset(self) -> None:
        """Enables every proxy and removes every toxic."""
        with self._talk() as library:
            library.reset()
            for proxy in library.proxies().values():
                if not proxy.enabled or proxy.toxics():
                    raise HarnessFault(f"Toxiproxy did not heal the proxy {proxy.name}")

    def counters(self, link: str) -> Counters:
        with self._talk():
            text = _Consumer.get("/metrics").text
        return parse_counters(text, link)

    def _proxies(self, link: str) -> list[Any]:
        """All proxies of a link, as they are now."""
        found = [proxy for name, proxy in sorted(self._library.proxies().items()) if link_of(name) == link]
        if not found:
            raise HarnessFault(f"Toxiproxy has no proxy {link}")
        return found


def _wild(address: str) -> str:
    """Go tells a listener on every address as [::], whichever way it was asked for."""
    return address.replace("[::]", "0.0.0.0")


def parse_counters(metrics: str, link: str) -> Counters:
    """The bytes of the proxies of one link out of Prometheus text; what has not been counted yet is 0."""
    found: dict[str, int] = {}
    pattern = re.compile(r"^toxiproxy_proxy_(received|sent)_bytes_total\{(.*)\} (\S+)$", re.MULTILINE)
    for what, labels, value in pattern.findall(metrics):
        label = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
        if link_of(label.get("proxy", "")) == link:
            key = f"{label['direction']}_{what}"
            found[key] = found.get(key, 0) + int(float(value))
    return Counters(**found)
