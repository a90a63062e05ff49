"""Ports for servers that start later, stop in between, or never start."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

# These ports are below the range for local ports of outgoing connections (ip_local_port_range), so a port stays free
# while its server is down.
_PORTS = range(12_000, 32_000)
_next_port = itertools.cycle([*_PORTS[os.getpid() * 97 % len(_PORTS) :], *_PORTS])


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Returns a port without a listener, which no outgoing connection will take."""
    while True:
        port = next(_next_port)
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("127.0.0.1", port))
            return port
