"""The inspector's answers in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from raccoon_fast import json_codec

__all__ = ["JsonResponse", "error_response"]


class JsonResponse(Response):
    """A value as JSON; an json_codec.Fragment in it is JSON already."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the value."""
        return json_codec.dumps(content)


def error_response(status: int, words: str, headers: Mapping[str, str] | None = None) -> JsonResponse:
    """The error answer to a request that fails."""
    return JsonResponse({"error": words}, status, headers)
