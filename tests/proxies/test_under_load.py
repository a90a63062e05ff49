"""200,000 events through a proxy that limits connections, streams, bodies or times, is replaced, or loses its server.

RACCOON_FAST_PROXY_EVENTS sets another number of events.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from load import EVENTS, Load
from patience import patient
from proxies import LISTENERS, Backend, Envoy, HAProxy, Nginx, Proxy, typed

# A scenario takes a few seconds; a failed one waits for its events first.
pytestmark = pytest.mark.timeout(150)

SCHEMES = tuple(LISTENERS)
NewProxy = Callable[..., Proxy]
NewLoad = Callable[..., Load]
Parts = dict[type[Proxy], dict[str, Any]]

# Requests per connection, on both sides of the proxy.
KEEPALIVE: Parts = {
    Nginx: {"server": "keepalive_requests 7;", "upstream": "keepalive 16; keepalive_requests 7;"},
    HAProxy: {"defaults": "option httpclose"},
    Envoy: {
        "manager": {"common_http_protocol_options": {"max_requests_per_connection": 7}},
        "upstream": {"common_http_protocol_options": {"max_requests_per_connection": 7}},
    },
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_connections_of_few_requests(
    proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, new_load: NewLoad
) -> None:
    load = new_load(new_proxy(proxy_class, **KEEPALIVE[proxy_class]), scheme)
    load.run(EVENTS)
    load.judge()


BODY_BYTES = 32 << 10
BODIES: Parts = {
    Nginx: {"server": f"client_max_body_size {BODY_BYTES};"},
    HAProxy: {
        "defaults": "option http-buffer-request",
        "frontend": f"http-request deny deny_status 413 if {{ req.body_size gt {BODY_BYTES} }}",
    },
    Envoy: {"filters": [typed("buffer", "filters.http.buffer.v3.Buffer", max_request_bytes=BODY_BYTES)]},
}


@pytest.mark.parametrize("scheme", ["http", "https", "grpc", "grpcs"])
def test_bodies_over_its_limit(proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, new_load: NewLoad) -> None:
    """Batches are about twice the limit; one event is not."""
    load = new_load(new_proxy(proxy_class, **BODIES[proxy_class]), scheme)
    load.run(EVENTS)
    load.judge()


STREAMS: Parts = {
    Nginx: {"http": "http2_max_concurrent_streams 1;"},
    HAProxy: {"global_": "tune.h2.max-concurrent-streams 1\n  tune.h2.initial-window-size 1024"},
    Envoy: {"manager": {"http2_protocol_options": {"max_concurrent_streams": 1, "initial_stream_window_size": 65535}}},
}


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_one_stream_per_connection(
    proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, new_load: NewLoad
) -> None:
    load = new_load(new_proxy(proxy_class, **STREAMS[proxy_class]), scheme)
    load.run(EVENTS)
    load.judge()


TIMES: Parts = {
    Nginx: {
        "server": "keepalive_timeout 200ms; send_timeout 300ms; client_body_timeout 300ms;",
        "location": "proxy_read_timeout 300ms; grpc_read_timeout 300ms;",
    },
    HAProxy: {
        "defaults": "timeout http-keep-alive 200ms\n  timeout client 300ms\n  timeout server 300ms\n"
        "  timeout tunnel 300ms"
    },
    Envoy: {
        "manager": {"common_http_protocol_options": {"idle_timeout": "0.2s"}, "stream_idle_timeout": "0.3s"},
        "route": {"timeout": "0.3s"},
        "upstream": {"common_http_protocol_options": {"idle_timeout": "0.2s"}},
    },
}
BURSTS = 5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_idle_connections_closed_by_the_proxy(
    proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, new_load: NewLoad
) -> None:
    load = new_load(new_proxy(proxy_class, **TIMES[proxy_class]), scheme)
    for _ in range(BURSTS):
        load.run(EVENTS // BURSTS)
        assert load.producer.flush(patient(30)) == 0
        time.sleep(0.4)  # idle for longer than the proxy allows
    load.judge()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_is_slower_than_the_proxy_waits(
    proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, new_load: NewLoad, backend: Backend
) -> None:
    """The proxy answers in its place, with 504 or by closing, and the server may still have the events."""

    def freeze() -> None:
        backend.signal(signal.SIGSTOP)
        time.sleep(0.8)
        backend.signal(signal.SIGCONT)

    load = new_load(new_proxy(proxy_class, **TIMES[proxy_class]), scheme)
    load.run(EVENTS, freeze, steps=2, over_s=2.0)
    load.judge()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_reloads(proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, new_load: NewLoad) -> None:
    proxy = new_proxy(proxy_class)
    load = new_load(proxy, scheme)
    # A new Envoy starts when the one before has drained.
    load.run(EVENTS, proxy.reload, steps=2 if proxy_class is Envoy else 3, over_s=4.0)
    load.judge()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_hot_restart_of_nginx(scheme: str, new_proxy: NewProxy, new_load: NewLoad) -> None:
    """nginx replaces its binary; HAProxy and Envoy use the term for a reload."""
    proxy = new_proxy(Nginx)
    load = new_load(proxy, scheme)
    load.run(EVENTS, proxy.hot_restart, steps=2, over_s=4.0)
    load.judge()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_is_killed_and_started_again(
    proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, new_load: NewLoad, backend: Backend
) -> None:
    def kill() -> None:
        backend.kill()
        time.sleep(0.3)  # down for a while
        backend.start()

    load = new_load(new_proxy(proxy_class), scheme)
    load.run(EVENTS, kill, steps=3, over_s=3.0)
    load.judge()
