"""Links: every client goes through its own proxy, and cutting one link cuts that one only."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import requests
from advertised import brokers_told
from confluent_kafka.admin import AdminClient

import harness.toxiproxy
from harness.errors import HarnessFault
from harness.stack import Stack
from harness.toxiproxy import Toxic, ToxiproxyServer, parse_counters
from pipelines_under_test.kappa.pipeline import kappa

LINKS = [link.name for link in kappa.links()]


@pytest.fixture(autouse=True)
def healed(stack: Stack) -> object:
    yield
    stack.toxiproxy.reset()


@pytest.mark.parametrize("link", LINKS)
def test_a_cut_link_stops_and_no_other(stack: Stack, link: str) -> None:
    stack.toxiproxy.set_enabled(link, False)
    assert {name: stack.probe(name) is not None for name in LINKS} == {name: name != link for name in LINKS}
    stack.toxiproxy.set_enabled(link, True)
    assert stack.probe(link) is not None


@pytest.mark.parametrize("link", [link for link in LINKS if link.endswith("->kafka")])
def test_a_client_of_a_link_learns_no_address_but_its_proxy(stack: Stack, link: str, tmp_path: Path) -> None:
    """Kafka tells a client where to go on; here it must be told the proxy again (testcontainers-java #2073)."""
    worker = link.partition("->")[0]
    assert brokers_told(stack, worker, tmp_path / "log") == [stack.site.doors[link].client]


def test_a_toxic_does_what_it_says_and_its_removal_ends_it(stack: Stack) -> None:
    link = "converter->pubsub"
    stack.toxiproxy.add(link, Toxic("slow", "latency", "downstream", {"latency": 300}))
    slow = stack.probe(link)
    stack.toxiproxy.remove(link, "slow")
    after = [stack.probe(link) for _ in range(3)]  # one of which a busy machine may delay, but no toxic all of them
    assert slow is not None
    assert slow >= 0.3 > min(took for took in after if took is not None)


def test_an_attribute_that_toxiproxy_does_not_know_is_an_error(stack: Stack) -> None:
    """The server drops it in silence: the toxic would do nothing and the run would be green."""
    with pytest.raises(HarnessFault, match="otherwise than asked: {'latenzy': 300}"):
        stack.toxiproxy.add("converter->pubsub", Toxic("typo", "latency", "downstream", {"latenzy": 300}))


@pytest.mark.parametrize(
    ("doing", "told"),
    [
        (lambda t: t.set_enabled("nobody->kafka", False), "no proxy nobody->kafka"),
        (lambda t: t.add("converter->pubsub", Toxic("x", "no-such-toxic")), "refused"),
        (lambda t: t.remove("converter->pubsub", "never-added"), "refused"),
        (lambda t: t.create([("load->kafka", "127.0.0.1:1", "127.0.0.1:2")]), "refused"),
    ],
)
def test_what_toxiproxy_refuses_is_an_error(stack: Stack, doing: object, told: str) -> None:
    with pytest.raises(HarnessFault, match=told):
        doing(stack.toxiproxy)  # type: ignore[operator]


def test_a_port_that_is_taken_is_an_error_with_the_reason(stack: Stack) -> None:
    taken = stack.site.doors["load->kafka"].listen
    with pytest.raises(HarnessFault, match="address already in use"):
        stack.toxiproxy.create([("second", taken, stack.servers["kafka"].direct)])


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(HarnessFault, match="does not answer"):
        ToxiproxyServer("127.0.0.1", 9).set_enabled("x", True)


def test_two_servers_do_not_take_over_each_others_proxies(stack: Stack) -> None:
    """The library keeps its address in a class; calls to two servers from two threads must not be mixed up."""
    nowhere = ToxiproxyServer("127.0.0.1", 9)
    failures: list[Exception] = []

    def disturb() -> None:
        for _ in range(30):
            try:
                nowhere.reset()
            except HarnessFault:
                continue
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=disturb)
    thread.start()
    for _ in range(15):
        stack.toxiproxy.set_enabled("load->kafka", False)
        stack.toxiproxy.set_enabled("load->kafka", True)
    thread.join()
    assert failures == []


def test_an_http_error_is_never_taken_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    response = requests.Response()
    response.status_code = 500
    response._content = b"internal"
    with pytest.raises(HarnessFault, match="answered 500: internal"):
        harness.toxiproxy._checked(response)


def test_the_meter_sees_bytes_on_the_link_that_carried_them(stack: Stack) -> None:
    link, beside = "load->kafka", "aggregator->bigtable"  # the load's, because its client runs here on every backend
    meter = stack.site.meter()
    before = meter.sample()
    admin = AdminClient({"bootstrap.servers": stack.site.doors[link].harness})
    admin.list_topics(timeout=10)
    end = time.monotonic() + 10
    # Until an answer was acknowledged: the first sample of a connection may be of its first moment.
    while (during := meter.sample())[link].responses <= before[link].responses and time.monotonic() < end:
        admin.list_topics(timeout=10)
    del admin
    end = time.monotonic() + 10
    while (after := meter.sample())[link].connections and time.monotonic() < end:
        time.sleep(0.02)
    flow = during[link]
    assert flow.connections >= 1
    assert flow.requests > before[link].requests
    assert flow.responses > before[link].responses
    assert after[link].closed == after[link].opened
    assert during[beside] == before[beside], "nothing went over the link beside it"
    meter.close()


def test_eaten_bytes_are_counted_when_connections_close(stack: Stack) -> None:
    link = "converter->pubsub"
    before = stack.toxiproxy.counters(link)
    stack.toxiproxy.add(link, Toxic("eat", "timeout", "downstream", {"timeout": 0}))
    probing = threading.Thread(target=stack.probe, args=(link,))
    probing.start()
    time.sleep(0.5)
    stack.toxiproxy.remove(link, "eat")
    probing.join()
    end = time.monotonic() + 5
    while (after := stack.toxiproxy.counters(link)) == before and time.monotonic() < end:
        time.sleep(0.05)
    assert after.downstream_received - after.downstream_sent > before.downstream_received - before.downstream_sent


def test_counters_are_read_by_proxy_and_direction() -> None:
    text = (
        "# TYPE toxiproxy_proxy_received_bytes_total counter\n"
        'toxiproxy_proxy_received_bytes_total{direction="downstream",listener="l",proxy="a",upstream="u"} 10\n'
        'toxiproxy_proxy_received_bytes_total{direction="upstream",listener="l",proxy="a",upstream="u"} 1e+03\n'
        'toxiproxy_proxy_sent_bytes_total{direction="downstream",listener="l",proxy="b",upstream="u"} 7\n'
    )
    counters = parse_counters(text, "a")
    assert (counters.downstream_received, counters.upstream_received, counters.downstream_sent) == (10, 1000, 0)


def test_the_counters_of_a_link_are_those_of_all_its_proxies() -> None:
    line = 'toxiproxy_proxy_sent_bytes_total{{direction="upstream",listener="l",proxy="{}",upstream="u"}} 10\n'
    text = "".join(line.format(proxy) for proxy in ("a->k@1", "a->k@2", "a->kafka@1", "b->k@1"))
    assert parse_counters(text, "a->k").upstream_sent == 20
