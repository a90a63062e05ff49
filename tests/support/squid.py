"""squid as a corporate forward proxy, in a separate process."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from patience import patient

__all__ = ["Squid"]

_AUTHENTICATOR = Path("/usr/lib/squid/basic_ncsa_auth")  # from Debian's package
_CONFIGURATION = """
http_port 127.0.0.1:{port}
pid_filename {folder}/squid.pid
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
cache deny all
coredump_dir {folder}
pinger_enable off
shutdown_lifetime 0 seconds
{rules}
"""
_WITH_PASSWORD = """
auth_param basic program {authenticator} {folder}/passwords
auth_param basic realm corp
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
"""


class Squid:
    """Runs from `start` to `end`.

    Args:
        user, password: The credentials that clients must send, if given.
        rules: The access rules without credentials.
    """

    def __init__(self, *, user: str = "", password: str = "", rules: str = "http_access allow all") -> None:
        # Started by root, squid runs as another user, who needs access to every parent folder.
        self.folder = folder = Path(tempfile.mkdtemp(prefix="squid-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        folder.chmod(0o777)
        if user:
            command = ["openssl", "passwd", "-apr1", password]
            encrypted = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            (folder / "passwords").write_text(f"{user}:{encrypted}")
            rules = _WITH_PASSWORD.format(authenticator=_AUTHENTICATOR, folder=folder)
        self._configuration = folder / "squid.conf"
        self._configuration.write_text(_CONFIGURATION.format(port=self.port, folder=folder, rules=rules))
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_installed() -> bool:
        """Whether squid and its password checker are installed."""
        return shutil.which("squid") is not None and _AUTHENTICATOR.exists()

    def start(self) -> None:
        """Starts squid and waits until it listens."""
        (self.folder / "squid.pid").unlink(missing_ok=True)  # left by a killed process
        with (self.folder / "squid.log").open("ab") as log:
            self._process = subprocess.Popen(["squid", "-N", "-f", self._configuration], stdout=log, stderr=log)
        self._wait_for(self._listens, "squid does not listen")

    def kill(self) -> None:
        """Kills squid, with all connections through it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Stops squid if it runs, and removes its files."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def tunnels(self) -> list[str]:
        """The targets of tunnels that have ended and of refused ones."""
        path = self.folder / "access.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[6] for line in lines if " CONNECT " in line]

    def wait_for_tunnels(self, count: int) -> list[str]:
        """Waits until this many tunnels have ended; squid logs a tunnel at its end."""
        self._wait_for(lambda: len(self.tunnels()) >= count, "squid has logged fewer tunnels")
        return self.tunnels()

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            return True
        return False

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + patient(20.0)
        while not condition():
            log = self.folder / "squid.log"
            assert time.monotonic() < deadline_s, f"{what}: {log.read_text() if log.exists() else ''}"
            time.sleep(0.02)
