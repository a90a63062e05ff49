from __future__ import annotations

import array
import json
import subprocess
import sys
from datetime import datetime, timezone
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue
from patience import patient

from raccoon_fast import json_codec
from raccoon_fast.serializers import JSON, PROTO, RAW, resolve_serializer

BUILTINS = [PROTO, JSON, RAW]


class TestProto:
    def test_message_becomes_its_bytes(self):
        message = StringValue(value="page")
        assert PROTO(message) == message.SerializeToString()

    def test_empty_message_is_no_bytes(self):
        assert PROTO(Struct()) == b""

    @pytest.mark.parametrize("data", [{"a": 1}, [1], "text", 1, None, b"ready", object()])
    def test_anything_else_says_what_to_use(self, data):
        with pytest.raises(TypeError, match=rf"protobuf message, not {type(data).__name__}.*JSON for dicts.*RAW for"):
            PROTO(data)


class TestJson:
    @pytest.mark.parametrize(
        "data",
        [
            {},
            {"name": "page", "n": [1, 2.5, True, None], "deep": {"é": "日本"}},
            ["a"],
            "text",
            7,
            None,
            2**63,
        ],
    )
    def test_reads_back_with_the_standard_library(self, data):
        encoded = JSON(data)
        assert type(encoded) is bytes
        assert json.loads(encoded) == data

    def test_is_compact_utf8(self):
        assert JSON({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()

    def test_nan_is_null(self):
        assert JSON([float("nan"), float("inf")]) == b"[null,null]"

    def test_datetime_is_rfc_3339(self):
        assert JSON(datetime(2026, 1, 31, 12, tzinfo=timezone.utc)) == b'"2026-01-31T12:00:00Z"'

    @pytest.mark.parametrize("data", [object(), {"a": 1j}, "\ud800"])
    def test_a_value_json_cannot_represent_is_a_type_error(self, data):
        with pytest.raises(TypeError):
            JSON(data)


class TestRaw:
    def test_bytes_pass_unchanged(self):
        data = b"\x00\xff"
        assert RAW(data) is data

    @pytest.mark.parametrize(
        "data",
        [
            bytearray(b"abc"),
            memoryview(b"abc"),
            memoryview(b"a-b-c")[::2],
            memoryview(array.array("H", [25185])).cast("B"),
            type("MyBytes", (bytes,), {})(b"abc"),
        ],
    )
    def test_buffers_are_copied_to_bytes(self, data):
        encoded = RAW(data)
        assert type(encoded) is bytes
        assert encoded == bytes(data)

    def test_a_later_change_of_the_buffer_does_not_show(self):
        buffer = bytearray(b"abc")
        encoded = RAW(buffer)
        buffer[0] = 0
        assert encoded == b"abc"

    def test_the_error_for_text_says_to_encode_it(self):
        with pytest.raises(TypeError, match=r"RAW takes bytes.*not str.*\.encode\(\)"):
            RAW("text")

    @pytest.mark.parametrize("data", [None, 3, {"a": 1}, [1, 2], object()])
    def test_anything_else_is_refused(self, data):
        with pytest.raises(TypeError, match=f"not {type(data).__name__}"):
            RAW(data)


class TestResolve:
    def test_a_producer_calls_the_encoder_of_json_itself(self):
        assert resolve_serializer(JSON).plain is json_codec.encode

    @pytest.mark.parametrize(
        ("serializer", "data"), [(PROTO, StringValue(value="a")), (JSON, {"a": 1}), (RAW, bytearray(b"a"))]
    )
    def test_resolved_and_direct_agree(self, serializer, data):
        assert resolve_serializer(serializer)(data) == serializer(data)

    def test_a_callable_is_used_as_given(self):
        def mine(data: Any) -> bytes:
            return b"mine"

        assert resolve_serializer(mine) is mine

    @pytest.mark.parametrize("value", [None, "json", b"", 3, {}])
    def test_anything_else_names_the_option(self, value):
        with pytest.raises(TypeError, match=r"^serializer must be PROTO, JSON, RAW or a callable"):
            resolve_serializer(value)

    def test_names_are_readable(self):
        assert [repr(serializer) for serializer in BUILTINS] == ["PROTO", "JSON", "RAW"]


def test_encoders_are_imported_on_demand():
    script = (
        "import sys; from raccoon_fast.serializers import JSON, PROTO, RAW; RAW(b'a'); "
        "assert not {'orjson', 'msgspec', 'google.protobuf', 'json'} & set(sys.modules); "
        "JSON(1); assert {'orjson', 'msgspec', 'json'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=patient(30))
