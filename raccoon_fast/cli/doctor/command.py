"""Runs the checks of `raccoon-fast doctor` in order, and prints the report."""

from __future__ import annotations

import functools
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from raccoon_fast import json_codec
from raccoon_fast._implementation import explain_pure, was_switched_off
from raccoon_fast.cli.connect import ServerOptions
from raccoon_fast.cli.doctor.finding import FAIL, OK, SKIP, WARN, Finding, Findings
from raccoon_fast.cli.doctor.identity import check_grpc, check_websocket
from raccoon_fast.cli.doctor.network import can_connect, check_network
from raccoon_fast.cli.doctor.probes import WAYS, check_clock, send_probe
from raccoon_fast.cli.doctor.rest import check_rest
from raccoon_fast.cli.exits import Exit
from raccoon_fast.cli.terminal import can_ask, confirm, write_json, write_line
from raccoon_fast.client_info import DOCTOR_NAME, client_info
from raccoon_fast.clients.options import Settings
from raccoon_fast.core.extensions import has_extensions
from raccoon_fast.events import App
from raccoon_fast.net.address import parse_address, protocol_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from raccoon_fast.transports.base import Link

__all__ = ["run"]

_TIMEOUT_S = 5.0
_GRPC_PORT = 8081  # the server's default


def run(arguments: argparse.Namespace) -> int:
    """Checks each server, and returns the exit code: 1 if a check failed.

    Raises:
        UsageError, ValueError: An option is invalid.
    """
    server = ServerOptions(arguments, arguments.url)
    server.options.setdefault("timeout", _TIMEOUT_S)
    # Lets a collector, and readers of a server's log, distinguish these requests from the user's.
    server.options["app"] = App("probe", DOCTOR_NAME, client_info().version)
    with server.blamed():
        patients = [_Patient(url, server.options) for url in server.urls]
        patients += [_Patient(url, server.options, is_guess=True) for url in _guesses(server.urls)]
    may_probe = functools.cache(functools.partial(_may_probe, arguments, patients))
    found: list[dict[str, str]] = []
    installed = _check_install()
    found.append({"url": "", **installed._asdict()})
    if not arguments.json:
        _write(installed)
    for patient in patients:
        if not arguments.json:
            write_line(str(patient.link.address))
        for finding in patient.examine(arguments.type, may_probe):
            found.append({"url": str(patient.link.address), **finding._asdict()})
            if not arguments.json:
                _write(finding)
    counts = Counter(one["status"] for one in found)
    if arguments.json:
        write_json(json_codec.dumps({"checks": found, **{status: counts[status] for status in _STATUSES}}).decode())
    else:
        summary = {f"{counts[status]} {status}": _COLOURS[status] for status in _STATUSES if counts[status]}
        write_line(", ".join(f"{counts[status]} {status}" for status in _STATUSES), summary)
    return Exit.FAILED if counts[FAIL] else Exit.OK


_STATUSES = (OK, WARN, FAIL, SKIP)
_COLOURS = {OK: "green", WARN: "yellow", FAIL: "red", SKIP: "dim"}


def _check_install() -> Finding:
    info = client_info()
    build = f"{info.name} {info.version}, {info.form}"
    if has_extensions():
        return Finding("install", OK, build)
    _, fix = explain_pure()
    return Finding("install", OK if was_switched_off() else WARN, build.removesuffix(f"; {fix}"), fix)


def _write(finding: Finding) -> None:
    write_line(
        f"  {finding.status:<4}  {finding.check:<13}  {finding.detail}", {finding.status: _COLOURS[finding.status]}
    )
    if finding.fix:
        write_line(f"{'':23}-> {finding.fix}")


def _may_probe(arguments: argparse.Namespace, patients: list[_Patient]) -> bool:
    if arguments.yes:
        return True
    servers = ", ".join(patient.link.address.authority for patient in patients)
    question = f"Send an event of type {arguments.type} over each protocol to {servers}?"
    return can_ask() and confirm(question)


def _guesses(urls: list[str]) -> Iterator[str]:
    """The default address of gRPC, if none of the URLs is one."""
    if any(url.startswith("grpc") for url in urls):
        return
    addresses = [parse_address(url, protocol_of(url)) for url in urls]
    for host in dict.fromkeys(one.host for one in addresses if not one.secure and not one.unix_path):
        yield f"grpc://{f'[{host}]' if ':' in host else host}:{_GRPC_PORT}"


class _Patient:
    """One server at one address, with the protocols that it speaks there.

    Args:
        url: The URL as the user gave it.
        options: The options of any client, see ClientOptions.
        is_guess: Whether the address is a guess and not from the user.

    Attributes:
        link: The link to the user's URL.
    """

    def __init__(self, url: str, options: dict[str, Any], *, is_guess: bool = False) -> None:
        self._url = url
        self._is_guess = is_guess
        self._options = options
        self._timeout_s = float(options["timeout"])
        self.link = self._link(url)

    def examine(self, event_type: str, may_probe: Callable[[], bool]) -> Findings[None]:
        """Runs the checks in order, as far as they make sense; asks `may_probe` before it sends an event."""
        if self._is_guess and not can_connect(self.link, self._timeout_s):
            fix = "give it as grpc://host:port, if the server has gRPC"
            yield Finding("grpc", SKIP, f"nothing listens on port {_GRPC_PORT}, the default of a Raccoon's gRPC", fix)
            return
        if not (yield from check_network(self.link, self._timeout_s)):
            return
        urls = (yield from self._speak_grpc()) if protocol_of(self._url) == "gRPC" else (yield from self._speak_http())
        if not urls:
            return
        if not may_probe():
            yield Finding("probe", SKIP, "no event was sent: acknowledgements were not tested", "--yes sends some")
            return
        knows_time = False
        for protocol, url in urls.items():
            for way in WAYS[protocol]:
                began_s = time.time()
                response = yield from send_probe(way, url, event_type, self._options)
                if response is not None and not knows_time:
                    knows_time = True
                    yield check_clock(response, began_s)

    def _speak_grpc(self) -> Findings[dict[str, str]]:
        return {"grpc": self._url} if (yield from check_grpc(self.link, self._timeout_s)) else {}

    def _speak_http(self) -> Findings[dict[str, str]]:
        scheme, rest = self._url.split("://", 1)
        ending = "+unix" if scheme.endswith("+unix") else "s" if self.link.address.secure else ""
        urls = {"rest": f"http{ending}://{rest}", "websocket": f"ws{ending}://{rest}"}
        if not (yield from check_rest(self._link(urls["rest"]), self._timeout_s)):
            del urls["rest"]
            if scheme.startswith("http"):
                return {}
        if not (yield from check_websocket(self._link(urls["websocket"]), self._timeout_s)):
            del urls["websocket"]
        return urls

    def _link(self, url: str) -> Link:
        return Settings(parse_address(url, protocol_of(url)), self._options, _TIMEOUT_S).link
