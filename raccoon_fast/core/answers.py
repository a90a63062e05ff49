"""Decodes a server's answers, from protobuf bytes or JSON text to `raccoon_fast.events.Response`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raccoon_fast._implementation import IMPLEMENTATION

if TYPE_CHECKING or IMPLEMENTATION == "pure":
    from raccoon_fast.core._answers_py import MAX_ANSWER_BYTES, decode_json_answer, decode_proto_answer
else:
    from raccoon_fast.core._answers_c import MAX_ANSWER_BYTES, decode_json_answer, decode_proto_answer

__all__ = ["MAX_ANSWER_BYTES", "decode_json_answer", "decode_proto_answer"]
