"""The hierarchy of errors, and that each error survives copying and pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

from raccoon_fast import errors
from raccoon_fast.events import Code, Response, Status
from raccoon_fast.spool.store import SpoolError, SpoolFull

RESPONSE = Response(Status.ERROR, Code.INTERNAL_ERROR, 5, "why", {"req_guid": "g"})
ERRORS = [
    errors.SerializationError("cannot", index=3, event_type="page"),
    errors.MessageTooLargeError("too large", size=5, limit=4),
    errors.BufferFull("full", buffered=5, limit=4),
    errors.DecodeError("not an answer"),
    errors.DeliveryError("no", req_guid="g", outcome=errors.Outcome.POSSIBLY_DELIVERED),
    errors.ServerError("no", response=RESPONSE, retryable=False, outcome=errors.Outcome.NOT_DELIVERED),
    errors.ServerError("503", status=503, retryable=True, outcome=errors.Outcome.NOT_DELIVERED),
    errors.EventsRejectedError("g", [errors.RejectedEvent("page", b"x", "why")]),
    errors.DroppedError("dropped"),
    errors.ConnectError("no way"),
    errors.TLSError("not trusted"),
    errors.ConnectionLostError("gone"),
    errors.ProtocolError("what"),
    errors.AckTimeoutError("late", req_guid="g"),
    errors.ClientClosedError("closed", req_guid="g", outcome=errors.Outcome.NOT_DELIVERED),
    SpoolError("disk"),
    SpoolFull("full"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_copies_are_equal(error, again):
    other = again(error)
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


def test_every_error_is_tested():
    public = {getattr(errors, name) for name in errors.__all__}
    classes = {one for one in public if isinstance(one, type) and issubclass(one, Exception)}
    assert classes - {type(error) for error in ERRORS} == {errors.RaccoonError, errors.TransportError}


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (errors.SerializationError, (errors.RaccoonError, ValueError)),
        (errors.MessageTooLargeError, (errors.RaccoonError, ValueError)),
        (errors.BufferFull, (errors.RaccoonError,)),
        (errors.DecodeError, (errors.RaccoonError, ValueError)),
        (errors.DeliveryError, (errors.RaccoonError,)),
        (errors.ServerError, (errors.DeliveryError,)),
        (errors.EventsRejectedError, (errors.DeliveryError,)),
        (errors.DroppedError, (errors.DeliveryError,)),
        (errors.TransportError, (errors.DeliveryError, ConnectionError)),
        (errors.ConnectError, (errors.TransportError,)),
        (errors.TLSError, (errors.ConnectError,)),
        (errors.ConnectionLostError, (errors.TransportError,)),
        (errors.ProtocolError, (errors.TransportError,)),
        (errors.AckTimeoutError, (errors.DeliveryError, TimeoutError)),
        (errors.ClientClosedError, (errors.DeliveryError,)),
    ],
)
def test_the_tree(error, bases):
    assert all(issubclass(error, base) for base in bases)
    assert error.__name__ in (errors.__doc__ or "")
