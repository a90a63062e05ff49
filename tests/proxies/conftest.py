"""A backend, and each proxy in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Files, make_certificates
from load import Load
from proxies import Backend, Envoy, HAProxy, Nginx, Proxy

from raccoon_fast import TLS


@pytest.fixture(params=[Nginx, HAProxy, Envoy], ids=lambda class_: class_.__name__)
def proxy_class(request: Any) -> type[Proxy]:
    class_: type[Proxy] = request.param
    return class_


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """One that a test may do with as it likes."""
    running = Backend(tmp_path)
    running.start()
    yield running
    running.end()
    running.sink.unlink(missing_ok=True)  # tens of megabytes for each test


@pytest.fixture
def new_proxy(tmp_path: Path, backend: Backend, files: Files) -> Iterator[Callable[..., Any]]:
    """Makes and starts a proxy of a class, with parts of its configuration."""
    started: list[Proxy] = []

    def new(class_: type[Proxy], **parts: Any) -> Proxy:
        if class_.program() is None:
            pytest.fail(f"{class_.__name__} is not installed: see `make test-proxies` in CONTRIBUTING.md")
        proxy = class_(tmp_path, backend, files)
        started.append(proxy)
        proxy.start(**parts)
        return proxy

    yield new
    for proxy in started:
        proxy.end()


@pytest.fixture
def new_load(files: Files) -> Iterator[Callable[..., Load]]:
    """Makes the load of a proxy over a scheme."""
    loads: list[Load] = []

    def new(proxy: Proxy, scheme: str, **options: Any) -> Load:
        if scheme in ("https", "wss", "grpcs"):
            options = {"tls": TLS(ca=files.ca), **options}
        load = Load(proxy.url(scheme), proxy.backend.sink, **options)
        loads.append(load)
        return load

    yield new
    for load in loads:
        load.producer.close(timeout=0)
