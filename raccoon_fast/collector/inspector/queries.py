"""Parses the inspector's queries and POST bodies; refuses invalid ones with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from raccoon_fast import json_codec

__all__ = ["limit_of", "order_of", "query_of", "whole_number"]

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 500
_MAX_ORDER_BYTES = 64 << 10


def query_of(request: Request, *allowed: str) -> dict[str, str]:
    """The query's parameters.

    Raises:
        HTTPException: A parameter is unknown or repeated.
    """
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in allowed:
            raise HTTPException(400, f"{name!r} is not a parameter here: {', '.join(allowed) or 'there are none'}")
        if name in query:
            raise HTTPException(400, f"{name} is given twice")
        query[name] = value
    return query


def limit_of(query: Mapping[str, str]) -> int:
    """The query's `limit`, from 1 to 500; 100 by default."""
    limit = whole_number(query, "limit", 1, _MAX_LIMIT)
    return _DEFAULT_LIMIT if limit is None else limit


def whole_number(query: Mapping[str, str], name: str, low: int, high: int = 2**63 - 1) -> int | None:
    """A number of the query; None if it is missing.

    Raises:
        HTTPException: It is not a number from `low` to `high`.
    """
    text = query.get(name)
    if text is None:
        return None
    # The length is checked first, because int() takes long for a long text, or refuses it.
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not low <= value <= high:
        raise HTTPException(400, f"{name} must be a whole number from {low} to {high}, not {text[:50]!r}")
    return value


async def order_of(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        HTTPException: It is not a JSON object, or too long.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_ORDER_BYTES:
            raise HTTPException(413, f"an order may have up to {_MAX_ORDER_BYTES} bytes")
    try:
        order = json_codec.loads(body or b"{}")
    except json_codec.JSONDecodeError as error:
        raise HTTPException(400, f"the body must be a JSON object, such as {{}}: {error}") from None
    if not isinstance(order, dict):
        raise HTTPException(400, f"the body must be a JSON object, not {order!r:.50}")
    return order
