"""Compares the three JSON codecs with each other."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import re
import subprocess
import sys
import textwrap
import uuid
from importlib import import_module
from types import ModuleType
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raccoon_fast import json_codec

NAMES = {"orjson": "_orjson", "msgspec": "_msgspec", "json": "_stdlib"}


def codec(name: str) -> ModuleType:
    if name != "json":
        pytest.importorskip(name)
    return import_module(f"raccoon_fast.json_codec.{NAMES[name]}")


@pytest.fixture(params=NAMES)
def each(request) -> ModuleType:
    return codec(request.param)


class Color(enum.Enum):
    RED = "red"
    TWO = 2


@dataclasses.dataclass
class Point:
    x: int
    name: str


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ZONES = [None, datetime.timezone.utc, ZoneInfo("Europe/London"), datetime.timezone(datetime.timedelta(minutes=-210))]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | TEXT
    | st.uuids()
    | st.dates()
    | st.times().filter(lambda time: not 10_000 <= time.microsecond < 100_000)  # orjson 3.13: a digit short
    | st.datetimes(datetime.datetime(1900, 1, 1), timezones=st.sampled_from(ZONES))
    | st.sampled_from(Color)
    | st.builds(Point, st.integers(-100, 100), TEXT)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)
# Outside of strings: the one difference that is allowed.
PLUS = re.compile(rb'("(?:[^"\\]|\\.)*")|(\d)e\+')


def without_plus(data: bytes) -> bytes:
    return PLUS.sub(lambda token: token[1] or token[2] + b"e", data)


class TestEncode:
    @given(VALUES)
    def test_all_write_the_same_bytes(self, value):
        codecs = [codec(name) for name in NAMES]
        first, *others = [without_plus(one.encode(value)) for one in codecs]
        assert others == [first] * 2
        for one in codecs:
            assert without_plus(one.dumps(value, None, one.OPT_APPEND_NEWLINE)) == first + b"\n"

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_floats_come_back_as_they_were(self, value):
        for name in NAMES:
            one = codec(name)
            assert math.copysign(1, one.loads(one.encode(value))) == math.copysign(1, value)
            assert one.loads(one.encode([value])) == [value]

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ({"a": [1, 2.5, None, True, "é\n\x01/\x7f"]}, '{"a":[1,2.5,null,true,"é\\n\\u0001/\x7f"]}'),
            ([math.nan, math.inf, {"x": (-math.inf, Color.TWO)}], '[null,null,{"x":[null,2]}]'),
            (1e-5, "0.00001"),
            (-1.25e-5, "-0.0000125"),
            ([1e-7, "1e-07"], '[1e-7,"1e-07"]'),
            (datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), '"2026-01-02T00:00:00Z"'),
            (datetime.datetime(2026, 1, 2, 3, 4, 5, 6), '"2026-01-02T03:04:05.000006"'),
            (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
            (Point(1, "a"), '{"x":1,"name":"a"}'),
        ],
    )
    def test_encoded_values(self, each, value, text):
        assert each.encode(value) == each.dumps(value) == text.encode()

    def test_subclasses_are_encoded_as_their_base_type(self, each):
        values = {kind: type(kind.__name__, (kind,), {}) for kind in (str, int, list, dict)}
        assert each.encode([values[str]("a"), values[int](5), values[list]([1]), values[dict](b=2)]) == (
            b'["a",5,[1],{"b":2}]'
        )

    @pytest.mark.parametrize("value", [object(), "\ud800", {"a": ["\udfff"]}, 1j, range(3)])
    def test_a_value_json_cannot_represent_is_a_type_error(self, each, value):
        with pytest.raises(TypeError):
            each.encode(value)
        with pytest.raises(TypeError):
            each.dumps(value)

    def test_a_circular_value_is_a_type_error(self, each):
        circle: list[object] = []
        circle.append(circle)
        with pytest.raises(TypeError):
            each.encode(circle)

    def test_default_takes_unknown_values(self, each):
        def default(value: object) -> str:
            if isinstance(value, complex):
                return f"{value.real:.0f}"
            raise TypeError("no complex number")

        assert each.dumps({"a": [1j, 2 + 0j, math.nan, type("S", (str,), {})("s")]}, default) == (
            b'{"a":["0","2",null,"s"]}'
        )
        with pytest.raises(TypeError):
            each.dumps(object(), default)

    def test_a_fragment_is_written_unchanged(self, each):
        assert each.dumps([each.Fragment(b'{"a":[1]}'), 2]) == b'[{"a":[1]},2]'


class TestDecode:
    @given(VALUES)
    def test_all_read_the_same(self, value):
        for writer in NAMES:
            data = codec(writer).encode(value)
            first, *others = [codec(name).loads(data) for name in NAMES]
            assert others == [first] * 2
            assert [json.dumps(other) for other in others] == [json.dumps(first)] * 2  # 1 is not 1.0

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: str(data, "utf-8")])
    def test_bytes_and_text(self, each, kind):
        assert each.loads(kind('{"a":[1,"é"]}'.encode())) == {"a": [1, "é"]}

    @pytest.mark.parametrize(
        "data",
        [
            b"", b" ", b"NaN", b"Infinity", b"1e999", b"01", b"1.", b"[1,]", b'{"a":1,}', b'"\x01"', b'"\xff"',
            b"{a:1}", b'"\\ud800"', b'{"\\uDFFF":1}', b"\xef\xbb\xbf1", b"[1]x", b"'a'", b"[" * 100_000, b"nul",
            b'{"a"}', b"1\x00",
        ],
    )  # fmt: skip
    def test_invalid_json_is_refused(self, each, data):
        with pytest.raises(json_codec.JSONDecodeError):
            each.loads(data)

    @pytest.mark.parametrize(("data", "column"), [(b"[1, x]", 5), ('"é" y'.encode(), 5), (b'{"a":1', 7), (b"", 1)])
    def test_an_error_names_the_position(self, each, data, column):
        with pytest.raises(json_codec.JSONDecodeError) as caught:
            each.loads(data)
        assert (caught.value.lineno, caught.value.colno) == (1, column)
        assert "byte" not in caught.value.msg

    def test_an_escaped_backslash_is_not_a_lone_surrogate(self, each):
        assert each.loads(b'"\\ud83d\\ude00 \\\\ud800"') == "\U0001f600 \\ud800"


class TestChoice:
    def chosen_without(self, *missing: str) -> str:
        script = f"""
            import sys
            for name in {missing!r}:
                sys.modules[name] = None
            from raccoon_fast import json_codec, JSON, Producer
            from raccoon_fast.core.envelope import JsonEnvelope
            print(json_codec.NAME, JSON({{"a": 1}}), JsonEnvelope)
        """
        run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")
        name, data, *_ = run.stdout.split()
        assert data == "b'{\"a\":1}'"
        return name

    def test_orjson_comes_first_then_msgspec_then_json(self):
        pytest.importorskip("orjson")
        assert self.chosen_without() == "orjson"
        assert self.chosen_without("orjson") == "msgspec"
        assert self.chosen_without("orjson", "msgspec") == "json"
