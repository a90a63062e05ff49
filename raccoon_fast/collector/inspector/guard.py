"""Keeps web sites out of the inspector: any page that a developer visits can send requests to their own machine.

- DNS rebinding: if a site points its own name at this machine, its requests are same-origin. So the Host header must be
  an address, localhost, or the name on which the collector listens.
- Cross-site requests: an order must be JSON, which a page of another origin may not send without permission. If the
  browser names the origin of a request (Origin, Sec-Fetch-Site: https://www.w3.org/TR/fetch-metadata/), it must be the
  inspector's own page.
- Events contain foreign text. If it ever got into the page as more than text, the Content-Security-Policy would let it
  run no script and load nothing, and no other page can show the inspector in a frame.
"""

from __future__ import annotations

import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raccoon_fast.collector.inspector.responses import error_response

__all__ = ["Guard"]

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """ASGI middleware: refuses requests, and adds headers to every answer.

    Args:
        app: The application behind it.
        host: The name or address the collector listens on.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on one request, or refuse it, by ASGI."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refuse_host(headers)
        if not refusal and scope["method"] not in ("GET", "HEAD"):
            refusal = _refuse_origin(headers, scope["scheme"])
        app = error_response(403, refusal) if refusal else self._app
        await app(scope, receive, send_with_headers)

    def _refuse_host(self, headers: Headers) -> str:
        hosts = headers.getlist("host")
        name = _name_of(hosts[0]) if len(hosts) == 1 else ""
        if name in ("localhost", self._host) or name.endswith(".localhost") or _is_address(name):
            return ""
        return (
            f"the Host header must be localhost, an IP address or {self._host}, not {', '.join(hosts) or 'missing'}: "
            "open the inspector by one of these names (this keeps other web sites out)"
        )


def _refuse_origin(headers: Headers, scheme: str) -> str:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        return f"the Content-Type header must be application/json, not {media_type or 'missing'}"
    own = f"{scheme}://{headers['host']}"
    origin = headers.get("origin", own)
    site = headers.get("sec-fetch-site", "same-origin")
    if origin.lower() != own.lower() or site not in ("same-origin", "none"):
        return f"in a browser, only the inspector's own page may send this request, not {origin} ({site})"
    return ""


def _name_of(host: str) -> str:
    """The name or address in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
