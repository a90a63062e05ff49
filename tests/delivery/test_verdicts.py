"""Whether the events or something between client and server caused a failure."""

from __future__ import annotations

from typing import Any

import pytest

from raccoon_fast.delivery.outcomes import is_poison, reason_of
from raccoon_fast.errors import AckTimeoutError, ConnectError, DeliveryError, ServerError, TLSError
from raccoon_fast.events import Code, Response, Status

UNREAD = "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data"


def answered(status: Any = None, code: int = 2, of: int = 2, retryable: bool = False, said: str = "") -> ServerError:
    response = Response(Status(of), Code(code), 0, "why") if code else None
    return ServerError("no", response=response, status=status, retryable=retryable, said=said)


@pytest.mark.parametrize("status", [None, 400, 200, 422])
def test_a_raccoons_bad_request_is_a_verdict(status: int | None) -> None:
    assert is_poison(answered(status))
    assert reason_of(answered(status)) == "BAD_REQUEST"


def test_grpc_go_s_error_for_an_unreadable_request_is_a_verdict() -> None:
    assert is_poison(answered("INTERNAL", code=0, said=UNREAD))


@pytest.mark.parametrize(
    "error",
    [
        answered(400, code=0),
        answered(400, code=0, said="Bad Request"),
        answered(422, code=0, said=UNREAD),
        answered("INVALID_ARGUMENT", code=0, said=UNREAD),
        answered("INTERNAL", code=0, said=f"HTTP status 400: {UNREAD}"),
        answered("INTERNAL", code=0, said=f"upstream: {UNREAD}"),
        answered("INTERNAL", code=0, said="grpc: failed to unmarshal the received message"),
        answered("UNKNOWN", code=0, said=UNREAD),
        answered(500, retryable=True),  # the server could not receive it whole
        answered(400, of=0),  # a gateway's {"code": 2}
        answered(400, code=3),
        ConnectError("no"),
        TLSError("no"),
        AckTimeoutError("no"),
        DeliveryError(UNREAD),
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'status', '')} {getattr(error, 'said', '')}",
)
def test_no_other_error_is_a_verdict(error: DeliveryError) -> None:
    assert not is_poison(error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (answered(500, code=3), "INTERNAL_ERROR"),
        (answered(404, code=0), "404"),
        (answered("UNAVAILABLE", code=0), "UNAVAILABLE"),
        (answered(None, code=0), "ServerError"),
        (ConnectError("no"), "ConnectError"),
    ],
)
def test_the_reason_under_which_a_failure_is_counted(error: DeliveryError, reason: str) -> None:
    assert reason_of(error) == reason
