"""Runs an ASGI application for one complete HTTP request."""

from __future__ import annotations

from typing import Any, Protocol

from raccoon_fast.collector.go_http import Head
from raccoon_fast.collector.http_answer import Answer

__all__ = ["Application", "answer", "path_of"]


class Application(Protocol):
    """An ASGI application that knows which paths it serves."""

    def has(self, path: str) -> bool:
        """Whether the application serves the path."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""


def path_of(head: Head) -> str:
    """The path in ASGI's form."""
    return head.target.path.decode("utf-8", "replace")


async def answer(application: Application, head: Head, body: bytes, *, is_tls: bool) -> Answer:
    """Return the answer of `application`."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": f"1.{min(head.minor, 1)}",
        "method": head.method,
        "scheme": "https" if is_tls else "http",
        "path": path_of(head),
        "raw_path": head.target.raw_path,
        "query_string": head.target.query,
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers],
        "client": None,
        "server": None,
        "state": {},
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]
    return Answer(
        sent[0]["status"],
        tuple((name, value) for name, value in headers if name != "content-length"),
        b"".join(message.get("body", b"") for message in sent[1:]),
    )
