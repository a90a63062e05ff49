"""Fuzzes the parsers of answers with atheris: make fuzz [RUNS=10000000].

Both forms must give the same results and errors, and both are compared with google.protobuf. The first pass (--guided)
instruments the pure form and keeps every input that reaches new code. The second pass derives many more inputs from
those, ten times as fast. Needs atheris (3.0, for CPython 3.11 to 3.13 on Linux and macOS), which make installs.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import atheris
from google.protobuf import message
from scripted import SendEventResponse

GUIDED = "--guided" in sys.argv

with atheris.instrument_imports(include=["raccoon_fast.core"]) if GUIDED else contextlib.nullcontext():
    from raccoon_fast.core import _answers_c, _answers_py, _wire_c, _wire_py


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except ValueError as error:
        return str(error)  # DecodeError is one


@atheris.instrument_func  # an input has to reach something, or the fuzzer gives up
def feed(data: bytes) -> None:
    # A copy of its own for the compiled form, so that a read beyond its end is beyond an allocation.
    compiled = outcome(_answers_c.decode_proto_answer, bytes(bytearray(data)))
    assert compiled == outcome(_answers_py.decode_proto_answer, data)
    try:
        judge = SendEventResponse.FromString(data)
    except message.DecodeError:
        assert type(compiled) is str
    else:
        assert compiled == (judge.status, judge.code, judge.sent_time, judge.reason, dict(judge.data))
    assert outcome(_answers_c.decode_json_answer, data) == outcome(_answers_py.decode_json_answer, data)
    for name in ("take_varint", "take_tag", "take_length"):
        both = [outcome(getattr(form, name), data, 0, len(data)) for form in (_wire_c, _wire_py)]
        assert both[0] == both[1], name


if __name__ == "__main__":
    atheris.Setup([word for word in sys.argv if word != "--guided"], feed)
    atheris.Fuzz()
