"""Caddy between producers and a server: its refusals, and what happens when Caddy or the server is replaced."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from caddy import Caddy
from load import EVENTS, Load, judge_a_mend
from proxies import LISTENERS, Backend, Proxy

pytestmark = pytest.mark.timeout(150)

SCHEMES = tuple(LISTENERS)
NewProxy = Callable[..., Proxy]
NewLoad = Callable[..., Load]
BODY_BYTES = 32 << 10


def answering(status: int) -> dict[str, Any]:
    return {"handlers": [{"handler": "static_response", "status_code": status, "body": "no such luck"}]}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_reloads(scheme: str, new_proxy: NewProxy, new_load: NewLoad) -> None:
    proxy = new_proxy(Caddy)
    load = new_load(proxy, scheme)
    load.run(EVENTS, proxy.reload, steps=3, over_s=4.0)
    load.judge()


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_bodies_over_its_limit(scheme: str, new_proxy: NewProxy, new_load: NewLoad) -> None:
    """Batches are about twice the limit; one event is not. REST gets 502, as if there were no server."""
    proxy = new_proxy(Caddy, handlers=[{"handler": "request_body", "max_size": BODY_BYTES}])
    load = new_load(proxy, scheme)
    load.run(EVENTS)
    load.judge()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("status", [400, 403])
def test_a_rule_that_refuses_everything(status: int, scheme: str, new_proxy: NewProxy, new_load: NewLoad) -> None:
    proxy = new_proxy(Caddy, **answering(status))
    judge_a_mend(new_load(proxy, scheme), str(status), proxy.reload)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_is_killed_and_started_again(
    scheme: str, new_proxy: NewProxy, new_load: NewLoad, backend: Backend
) -> None:
    def kill() -> None:
        backend.kill()
        time.sleep(0.3)  # down for a while
        backend.start()

    load = new_load(new_proxy(Caddy), scheme)
    load.run(EVENTS, kill, steps=3, over_s=3.0)
    load.judge()
