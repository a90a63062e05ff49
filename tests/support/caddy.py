"""Caddy in front of a collector, with the same listeners as the other proxies."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from proxies import Proxy

from raccoon_fast import json_codec

__all__ = ["Caddy"]


class Caddy(Proxy):
    """Caddy 2. Parts: `handlers` (a list, before the proxy's own), `tls` (a connection policy for TLS listeners)."""

    @classmethod
    def program(cls) -> str | None:
        return shutil.which("caddy")

    def start(self, **parts: Any) -> None:
        self._write(**parts)
        self._run(self.program(), "run", "--config", self.folder / "caddy.json")
        self._wait_until_open()

    def reload(self, **parts: Any) -> None:
        """Replaces the configuration; Caddy itself waits until the new one serves."""
        self._write(**parts)
        command = [self.program() or "", "reload", "--force", "--config", str(self.folder / "caddy.json")]
        done = subprocess.run([*command, "--address", self._admin], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def hot_restart(self) -> None:
        """Reloads: Caddy has no other hot restart."""
        self.reload()

    def _write(
        self, handlers: list[dict[str, Any]] | None = None, tls: dict[str, Any] | None = None, *, has_tls: bool = True
    ) -> None:
        self._admin = f"unix/{self.folder}/caddy.sock"
        pem = str(self.files.server)
        config = {
            "admin": {"listen": self._admin, "config": {"persist": False}},
            "logging": {"logs": {"default": {"level": "WARN"}}},
            "storage": {"module": "file_system", "root": str(self.folder / "caddy")},
            "apps": {
                "http": {
                    "grace_period": "1s",
                    "servers": {
                        listener: self._server(listener, port, handlers or [], (tls or {}) if has_tls else None)
                        for listener, port in self.ports.items()
                    },
                },
                "tls": {"certificates": {"load_files": [{"certificate": pem, "key": pem}]}},
            },
        }
        (self.folder / "caddy.json").write_bytes(json_codec.dumps(config))

    def _server(
        self, listener: str, port: int, handlers: list[dict[str, Any]], tls: dict[str, Any] | None
    ) -> dict[str, Any]:
        is_grpc = listener.startswith("grpc")
        is_secure = tls is not None and listener.endswith("s")
        backend = self.backend.grpc_port if is_grpc else self.backend.port
        proxy = {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"127.0.0.1:{backend}"}],
            "transport": {"protocol": "http", "versions": ["h2c", "2"] if is_grpc else ["1.1"]},
        }
        return {
            "listen": [f"127.0.0.1:{port}"],
            "routes": [{"handle": [*handlers, proxy]}],
            "automatic_https": {"disable": True},
            "protocols": ["h1", "h2" if is_secure else "h2c"] if is_grpc else ["h1"],
            **({"tls_connection_policies": [tls]} if is_secure else {}),
        }
