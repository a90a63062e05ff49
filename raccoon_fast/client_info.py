"""Identifies the build of the package, and makes the User-Agent."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.events import App

if TYPE_CHECKING:
    from raccoon_fast.logs import Log

__all__ = ["DOCTOR_NAME", "ClientInfo", "client_info", "is_probe", "log_form", "user_agent"]

_NAME = "raccoon_fast"
_UNKNOWN = "unknown"
#: The application that `raccoon-fast doctor` names in its User-Agent.
DOCTOR_NAME = "raccoon-fast-doctor"


class ClientInfo(NamedTuple):
    """The package's own identity.

    Attributes:
        name: "raccoon_fast".
        version: The distribution's version.
        build_date: UTC, as 2026-01-31T12:00:00Z; "unknown" for a source tree that was never built.
        form: "compiled", or "pure Python, about 12 times slower: " with the reason and what to do about it.
    """

    name: str
    version: str
    build_date: str
    form: str


@functools.cache
def client_info() -> ClientInfo:
    """Returns the build information stamped into the package, or else from the installed metadata."""
    from raccoon_fast._implementation import describe

    form = describe()
    try:
        from raccoon_fast import _build_info as stamp
    except ImportError:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return ClientInfo(_NAME, version(_NAME), _UNKNOWN, form)
        except PackageNotFoundError:
            return ClientInfo(_NAME, _UNKNOWN, _UNKNOWN, form)
    return ClientInfo(stamp.NAME, stamp.VERSION, stamp.BUILD_DATE, form)


_logged_form = False


def log_form(log: Log) -> None:
    """Logs once per process whether the compiled form is in use, with the first client that has a logger.

    Logs a warning if the pure form is in use by accident, otherwise a debug message.
    """
    global _logged_form
    if _logged_form:
        return
    _logged_form = True
    from raccoon_fast._implementation import IMPLEMENTATION, was_switched_off

    info = client_info()
    write = log.debug if IMPLEMENTATION == "compiled" or was_switched_off() else log.warning
    write("version %s, %s", info.version, info.form)


# RFC 9110, sections 5.6.2 (tchar) and 5.6.5 (ctext), ASCII only and without characters that comments must quote.
_NOT_IN_TOKEN = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_IN_COMMENT = re.compile(r"[^ !-'*-\[\]-~]+")


def user_agent(app: App | None = None) -> str:
    """Returns the User-Agent: `raccoon_fast/0.1.0 (compiled) goplay-backend/1.0 (goplay-123)`.

    The first comment is "(compiled)" or "(pure Python)". The format is that of RFC 9110, section 10.1.5:
    product tokens and comments. Other characters, above all CR and LF, become "-"; empty fields of `app` are left out.

    Args:
        app: The user's application: name and version become a product, the id its comment.

    Raises:
        TypeError: `app` is not an App of three strings.
    """
    info = client_info()
    form = info.form.partition(",")[0]
    parts = [f"{_NOT_IN_TOKEN.sub('-', info.name)}/{_NOT_IN_TOKEN.sub('-', info.version)} ({form})"]
    if app is None:
        return parts[0]
    if not isinstance(app, App) or not all(isinstance(field, str) for field in app):
        raise TypeError(f"app must be App(id, name, version) of three strings, not {app!r}")
    if app.name:
        name = _NOT_IN_TOKEN.sub("-", app.name)
        parts.append(f"{name}/{_NOT_IN_TOKEN.sub('-', app.version)}" if app.version else name)
    if app.id:
        parts.append(f"({_NOT_IN_COMMENT.sub('-', app.id)})")
    return " ".join(parts)


def is_probe(user_agent: str) -> bool:
    """Whether a request with this User-Agent is a probe of `raccoon-fast doctor`."""
    return f" {DOCTOR_NAME}/" in user_agent
