"""JSON accepts the usual objects in events, and names the place of what it cannot encode."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import json
import pickle
import sys
import uuid
from decimal import Decimal
from types import ModuleType
from typing import Any

import attrs
import numpy
import orjson
import pydantic
import pytest

from raccoon_fast import JSON, RestClient, SerializationError
from raccoon_fast.collector import Collector


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


@attrs.define
class Slotted:
    name: str
    price: Any = Decimal("1.10")


class Model(pydantic.BaseModel):
    id: uuid.UUID
    at: datetime.datetime


class Colour(enum.Enum):
    RED = Decimal("1.5")
    BLUE = "blue"


UUID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("data", "encoded"),
    [
        (Point(1, {"a": Point(2)}), {"x": 1, "y": {"a": {"x": 2, "y": None}}}),
        (Slotted("a"), {"name": "a", "price": "1.10"}),
        (
            Model(id=UUID, at=datetime.datetime(2026, 1, 31, tzinfo=datetime.timezone.utc)),
            {"id": str(UUID), "at": "2026-01-31T00:00:00Z"},
        ),
        (Decimal("0.10"), "0.10"),
        (UUID, str(UUID)),
        (Colour.BLUE, "blue"),
        (Colour.RED, "1.5"),
        ({3}, [3]),
        (frozenset(["b"]), ["b"]),
        (b"\x00\xff", base64.b64encode(b"\x00\xff").decode()),
        (bytearray(b"abc"), "YWJj"),
        (memoryview(b"abc"), "YWJj"),
        (datetime.date(2026, 1, 31), "2026-01-31"),
        (datetime.datetime(2026, 1, 31, 12), "2026-01-31T12:00:00"),
        ([Slotted("a", {Point(1, b"z").y})], [{"name": "a", "price": ["eg=="]}]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_accepted_values(data: Any, encoded: Any) -> None:
    assert json.loads(JSON({"of": data})) == {"of": encoded}


def test_a_set_of_several() -> None:
    assert sorted(map(str, json.loads(JSON({1, "a"})))) == ["1", "a"]


def test_numpy_scalars_and_arrays() -> None:
    data = {"f": numpy.float32(0.5), "i": numpy.int64(3), "b": numpy.bool_(True), "a": numpy.arange(6).reshape(2, 3).T}
    assert json.loads(JSON(data)) == {"f": 0.5, "i": 3, "b": True, "a": [[0, 3], [1, 4], [2, 5]]}


def test_a_scalar_of_numpy_that_the_encoder_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy may be installed in a version that orjson does not read."""
    module = ModuleType("numpy")
    scalar = type("longdouble", (), {"tolist": lambda self: 2.5, "__module__": "numpy"})
    monkeypatch.setitem(sys.modules, "numpy", module)
    assert JSON([scalar()]) == b"[2.5]"


@pytest.mark.parametrize(
    ("data", "path", "why"),
    [
        (object(), "$", "object has no JSON form; convert it with JSON.with_options"),
        ({"items": [1, {"price": 1j}]}, "$.items[1].price", "complex has no JSON form"),
        ({"a b": {"c": object()}}, "$['a b'].c", "object"),
        ({"a": {1: 2}}, "$.a", "key must be str; use JSON.with_options.option=json_codec.OPT_NON_STR_KEYS"),
        ([0, 2**64], "$[1]", "64-bit"),
        (["\ud800"], "$[0]", "UTF-8"),
        (Point(0, Slotted("a", object())), "$.y.price", "object"),
        ({"s": {1j}}, "$.s[0]", "complex"),
        ((1, (object(),)), "$[1][0]", "object"),
    ],
)
def test_errors_name_the_path(data: Any, path: str, why: str) -> None:
    with pytest.raises(SerializationError, match=why) as caught:
        JSON(data)
    assert caught.value.path == path
    assert f"at {path}: " in str(caught.value)
    assert (caught.value.index, caught.value.event_type) == (None, "")


def test_a_path_without_an_end_is_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(SerializationError) as caught:
        JSON(endless)
    assert len(str(caught.value)) < 400


def test_errors_contain_no_values() -> None:
    with pytest.raises(SerializationError) as caught:
        JSON({"password": "secret", "card": [1234, object()]})
    assert "secret" not in str(caught.value)
    assert "1234" not in str(caught.value)


def as_pair(value: Any) -> Any:
    if isinstance(value, complex):
        return [value.real, value.imag]
    raise TypeError("only complex numbers are known here")


class TestWithOptions:
    def test_default_takes_the_rest(self) -> None:
        serializer = JSON.with_options(default=as_pair)
        assert serializer({"c": 1j, "d": Decimal(1)}) == b'{"c":[0.0,1.0],"d":"1"}'
        with pytest.raises(SerializationError, match=r"\$.o: object: only complex numbers are known here"):
            serializer({"o": object()})

    def test_an_error_of_default_is_the_cause(self) -> None:
        def default(value: object) -> object:
            raise LookupError("no such thing")

        with pytest.raises(SerializationError, match="no such thing") as caught:
            JSON.with_options(default=default)(object())
        assert isinstance(caught.value.__cause__, LookupError)

    def test_option_is_passed_to_orjson(self) -> None:
        assert JSON.with_options(option=orjson.OPT_NON_STR_KEYS)({1: 2}) == b'{"1":2}'

    def test_json_itself_stays_unchanged(self) -> None:
        JSON.with_options(default=as_pair)
        with pytest.raises(SerializationError):
            JSON(1j)

    def test_it_can_be_pickled(self) -> None:
        assert pickle.loads(pickle.dumps(JSON.with_options(default=as_pair)))(1j) == b"[0.0,1.0]"
        assert pickle.loads(pickle.dumps(JSON)) is JSON

    def test_its_repr_names_the_options(self) -> None:
        assert repr(JSON.with_options(option=1)) == "JSON.with_options(default=None, option=1)"

    @pytest.mark.parametrize("options", [{"default": 3}, {"option": "sorted"}])
    def test_a_wrong_option_is_named(self, options: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match=rf"^{next(iter(options))} takes"):
            JSON.with_options(**options)


def test_a_client_names_the_event_and_the_path() -> None:
    with Collector() as collector, RestClient(collector.url, serializer=JSON, logger=None) as client:
        client.send([("a", {"d": Decimal(1)})])
        assert collector.events[0].data == b'{"d":"1"}'
        with pytest.raises(SerializationError, match=r"^events\[1\] of type 'b': .*\$\.x") as caught:
            client.send([("a", 1), ("b", {"x": object()})])
        assert (caught.value.index, caught.value.event_type, caught.value.path) == (1, "b", "$.x")
