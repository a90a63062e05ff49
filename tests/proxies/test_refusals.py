"""Proxies refuse requests for reasons outside the events: the events wait until the cause is removed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Files
from load import CLOSED, EVENTS, FEW, Load, judge_a_mend, wait_until_refused
from proxies import LISTENERS, Backend, Envoy, HAProxy, Nginx, Proxy, typed, wait_for

from raccoon_fast import TLS

pytestmark = pytest.mark.timeout(150)

SCHEMES = tuple(LISTENERS)
SECURE = ("https", "wss", "grpcs")
NewProxy = Callable[..., Proxy]
NewLoad = Callable[..., Load]
Parts = dict[type[Proxy], dict[str, Any]]

# Requests that the proxy lets through in a second; a load sends more at once, and REQUESTS in all.
RATE = 5
REQUESTS = 12
CONNECTIONS = 20


def limits(status: int) -> Parts:
    """Configurations that refuse what is over RATE, and ask to wait for a second."""
    every = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    retry_after = {"header": {"key": "retry-after", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {
        Nginx: {
            "http": f"limit_req_zone $server_name zone=all:1m rate={RATE}r/s; limit_req_status {status};",
            "server": f"error_page {status} @limited;"
            f"location @limited {{ add_header Retry-After 1 always; return {status}; }}",
            "location": f"limit_req zone=all burst={RATE} nodelay;",
        },
        HAProxy: {
            "frontend": "stick-table type integer size 1 expire 10s store http_req_rate(500ms)\n"
            "  http-request track-sc0 int(1)\n"
            f"  http-request deny deny_status {status} hdr Retry-After 1 if {{ sc_http_req_rate(0) gt {RATE} }}"
        },
        Envoy: {
            "filters": [
                typed(
                    "local_ratelimit",
                    "filters.http.local_ratelimit.v3.LocalRateLimit",
                    stat_prefix="limit",
                    token_bucket={"max_tokens": RATE, "tokens_per_fill": RATE, "fill_interval": "1s"},
                    filter_enabled=every,
                    filter_enforced=every,
                    response_headers_to_add=[retry_after],
                    status={"code": status},
                    # Not about the size of the message.
                    rate_limited_as_resource_exhausted=status == 429,
                )
            ]
        },
    }


@pytest.mark.parametrize(("scheme", "status"), [("http", 429), ("https", 503), ("grpc", 503), ("grpcs", 429)])
def test_a_rate_limit_of_requests(
    proxy_class: type[Proxy], scheme: str, status: int, new_proxy: NewProxy, new_load: NewLoad
) -> None:
    """The proxy asks to wait for a second and refuses more than once."""
    proxy = new_proxy(proxy_class, **limits(status)[proxy_class])
    load = new_load(proxy, scheme, size=40, batch_events=EVENTS // REQUESTS)
    load.run(EVENTS)
    load.judge()
    assert load.producer.stats().retries > 1


@pytest.mark.parametrize(("scheme", "status"), [("ws", 429), ("wss", 503)])
def test_a_rate_limit_of_handshakes(
    proxy_class: type[Proxy], scheme: str, status: int, new_proxy: NewProxy, new_load: NewLoad, backend: Backend
) -> None:
    """More connections are opened than the proxy accepts per second, and again after the server was lost."""
    load = new_load(new_proxy(proxy_class, **limits(status)[proxy_class]), scheme, connections=CONNECTIONS)

    def restart() -> None:
        backend.kill()
        backend.start()

    load.run(EVENTS, restart, steps=1)
    load.judge()


def refusals(fault: str, files: Files) -> Parts:
    """Configurations that refuse everything."""
    if fault == "rule":
        abort = typed(
            "fault", "filters.http.fault.v3.HTTPFault", abort={"http_status": 400, "percentage": {"numerator": 100}}
        )
        return {
            Nginx: {"location": "return 400;"},
            HAProxy: {"frontend": "http-request deny deny_status 400"},
            Envoy: {"filters": [abort]},
        }
    if fault == "header":
        return {
            Nginx: {"server": "large_client_header_buffers 2 1k;"},
            HAProxy: {"global_": "tune.bufsize 4096\n  tune.maxrewrite 1024"},
            Envoy: {"manager": {"max_request_headers_kb": 2}},
        }
    trusted = {"validation_context": {"trusted_ca": {"filename": str(files.ca)}}}
    return {
        Nginx: {"tls": f"ssl_client_certificate {files.ca}; ssl_verify_client on;"},
        HAProxy: {"tls": f"verify required ca-file {files.ca}"},
        Envoy: {"tls": {"require_client_certificate": True, "common_tls_context": trusted}},
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_rule_that_answers_400(
    proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, new_load: NewLoad, files: Files
) -> None:
    proxy = new_proxy(proxy_class, **refusals("rule", files)[proxy_class])
    # Envoy answers a gRPC request as a gRPC server does: INTERNAL is its word for 400.
    said = "fault filter abort" if proxy_class is Envoy and scheme.startswith("grpc") else "400"
    judge_a_mend(new_load(proxy, scheme), said, proxy.reload)


@pytest.mark.parametrize(
    ("proxy_class", "scheme"),
    [
        *itertools.product([Nginx, Envoy], SCHEMES),
        # Its limit is that of its buffers, which must be larger than this for HTTP/2 (16 KiB), and than gRPC's own.
        *itertools.product([HAProxy], ["http", "https", "ws", "wss"]),
    ],
)
def test_headers_over_its_limit(
    proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, new_load: NewLoad, files: Files
) -> None:
    proxy = new_proxy(proxy_class, **refusals("header", files)[proxy_class])
    # Over HTTP/2 nginx ends the connection, and Envoy resets the stream.
    said = CLOSED if scheme.startswith("grpc") else "400|431"
    judge_a_mend(new_load(proxy, scheme, auth="x" * 3000), said, proxy.reload)


@pytest.mark.parametrize("scheme", SECURE)
@pytest.mark.parametrize("certificate", [None, "stranger"], ids=["none", "unknown CA"])
def test_a_client_certificate_the_proxy_rejects(
    proxy_class: type[Proxy],
    scheme: str,
    certificate: str | None,
    new_proxy: NewProxy,
    new_load: NewLoad,
    files: Files,
) -> None:
    """nginx answers 400; HAProxy and Envoy end the connection by an alert, which TLS 1.3 has after the handshake."""
    proxy = new_proxy(proxy_class, **refusals("client certificate", files)[proxy_class])
    pem = None if certificate is None else getattr(files, certificate)
    load = new_load(proxy, scheme, tls=TLS(ca=files.ca, cert=pem, key=pem))
    # An alert is lost when the connection is reset before it is read.
    judge_a_mend(load, "400" if proxy_class is Nginx else f"certificate|{CLOSED}", proxy.reload)


@pytest.mark.parametrize("scheme", ["http", "ws", "grpc"])
def test_plain_text_to_a_tls_port(proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, backend: Backend) -> None:
    proxy = new_proxy(proxy_class)
    with Load(f"{scheme}://localhost:{proxy.ports[LISTENERS[scheme] + 's']}", backend.sink) as load:
        said = "400" if proxy_class is Nginx and scheme != "grpc" else CLOSED
        judge_a_mend(load, said, lambda: proxy.reload(has_tls=False))


@pytest.mark.parametrize("scheme", ["http", "ws", "grpc"])
def test_the_next_server_takes_events_a_proxy_refuses(
    proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, files: Files, backend: Backend
) -> None:
    proxy = new_proxy(proxy_class, **refusals("rule", files)[proxy_class])
    with Load([proxy.url(scheme), backend.url(scheme)], backend.sink) as load:
        load.run(FEW)
        load.judge()


@pytest.mark.parametrize("scheme", ["http", "ws", "grpc"])
def test_durable_events_stay_in_the_spool(
    proxy_class: type[Proxy], scheme: str, new_proxy: NewProxy, new_load: NewLoad, files: Files, tmp_path: Path
) -> None:
    """A producer ends while the proxy refuses everything; the next one delivers what it left."""
    proxy = new_proxy(proxy_class, **refusals("rule", files)[proxy_class])
    options = {"spool": tmp_path / "spool.db", "durable": True}
    first = new_load(proxy, scheme, **options)
    first.emit(FEW)
    wait_until_refused(first)
    total = first.producer.close(1.0).total
    assert (total.spooled, total.lost) == (FEW, 0), first.picture()
    proxy.reload()
    with new_load(proxy, scheme, **options) as second:
        second.emit(1)
        wait_for(lambda: len(second.received()) > FEW or len(first.received()) > FEW, "the spool is not delivered")
