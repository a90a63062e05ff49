"""Replays unusual requests, and compares the answers with recorded answers of a real Raccoon server.

The file (gzip, JSON) has {"cases": [{"protocol", "kind", "name", "input", "outcome", "events"}]}. Bytes are base64, or
a list of base64 and {"repeat": [base64, count]} items to be joined. `outcome` is the result of `play`; `events` are the
events that the server published. UNIX seconds in answers are replaced by 4294967295, and the server's pings left out.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hpack
from patience import patient

NO_TIME = 4294967295
# The compared headers; others are cosmetic. Date and the order are ignored.
HTTP_HEADERS = (
    *("content-type", "connection", "allow", "location", "upgrade", "x-injected"),
    *("sec-websocket-accept", "sec-websocket-protocol", "sec-websocket-extensions"),
)
GRPC_HEADERS = (":status", "content-type", "grpc-status", "grpc-encoding", "allow")
# Raccoon's own error texts; other texts come from libraries.
GRPC_MESSAGE = "connection id header missing"
CLOSE_REASONS = (b"duplicate connection", b"Max connection reached")
REASON = b"cannot deserialize request: "
PATIENCE_S = patient(4.0)


def load(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="ascii") as file:
        cases: list[dict[str, Any]] = json.load(file)["cases"]
    return cases


def octets(value: Any) -> bytes:
    if isinstance(value, str):
        return base64.b64decode(value)
    if isinstance(value, dict):
        return base64.b64decode(value["repeat"][0]) * int(value["repeat"][1])
    return b"".join(octets(part) for part in value)


# Answers, in the form of the recorded outcomes, but with bytes instead of base64.


def outcome_of(case: dict[str, Any]) -> dict[str, Any]:
    """The recorded outcome."""
    outcome = dict(case["outcome"])
    if case["protocol"] == "grpc":
        outcome["messages"] = [(flag, octets(message)) for flag, message in outcome["messages"]]
        return outcome
    outcome["responses"] = [dict(response, body=octets(response["body"])) for response in outcome["responses"]]
    for response in outcome["responses"]:
        if "frames" in response:
            response["frames"] = [(*frame[:-1], octets(frame[-1])) for frame in response["frames"]]
    return outcome


async def play(case: dict[str, Any], http: tuple[str, int], grpc: tuple[str, int], wait_s: float) -> dict[str, Any]:
    """Send a case. An answer ends when nothing arrives for `wait_s` seconds."""
    given = case["input"]
    if case["protocol"] == "grpc":
        return await _play_grpc(grpc, given, wait_s)
    if case["protocol"] == "http":
        raw = octets(given)
        data, end = await _exchange(http, [raw], wait_s)
        return {"responses": list(_responses(data, is_head=raw.startswith(b"HEAD "))), "end": end}
    frames = b"".join(octets(frame) for frame in given["frames"])
    data, end = await _exchange(http, [octets(given["handshake"]), frames], wait_s)
    return {"responses": list(_responses(data)), "end": end}


async def _exchange(address: tuple[str, int], chunks: list[bytes], wait_s: float) -> tuple[bytes, str]:
    reader, writer = await asyncio.open_connection(*address, limit=1 << 22)
    received = b""
    end = "open"
    answered = asyncio.Event()

    async def write() -> None:
        for index, chunk in enumerate(chunks):
            if index:
                await answered.wait()  # data sent together with the handshake is another case
            writer.write(chunk)
            await writer.drain()

    sending = asyncio.ensure_future(write())
    deadline_s = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline_s:
            patience_s = wait_s if received else max(1.2, 4 * wait_s)
            try:
                chunk = await asyncio.wait_for(reader.read(1 << 20), patience_s if sending.done() else PATIENCE_S)
            except asyncio.TimeoutError:
                break
            if not chunk:
                end = "closed"
                break
            received += chunk
            answered.set()
    except ConnectionError:
        end = "closed"
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.transport.abort()
    return received, end


def _responses(data: bytes, *, is_head: bool = False) -> Iterator[dict[str, Any]]:
    while data:
        head, separator, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ", 2)
        if not separator or not first.startswith(b"HTTP/") or not words[1].isdigit():
            yield {"status": 0, "headers": {}, "body": data}
            return
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers.setdefault(name.decode("latin-1").lower(), value.strip().decode("latin-1"))
        status = int(words[1])
        response: dict[str, Any] = {"status": status, "headers": headers, "body": b""}
        if status == 101:
            yield {**response, "frames": list(_frames(rest))}
            return
        if status != 100 and not (is_head and (not rest or rest.startswith(b"HTTP/"))):
            size = int(headers["content-length"]) if headers.get("content-length", "").isdigit() else len(rest)
            body, rest = rest[:size], rest[size:]
            is_proto = headers.get("content-type") == "application/proto" and status in (200, 400, 500)
            response["body"] = _timeless_proto(body) if is_proto else _timeless_json(body)
        yield response
        data = rest


def _frames(data: bytes) -> Iterator[tuple[Any, ...]]:
    while data:
        first, size, start = data[0], data[1] & 127, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        payload, data = data[start : start + size], data[start + size :]
        if first & 15 == 8:
            yield first, struct.unpack(">H", payload[:2])[0] if len(payload) > 1 else None, payload[2:]
        elif first != 0x89:
            timeless = {0x82: _timeless_proto, 0x81: _timeless_json}.get(first, bytes)
            yield first, timeless(payload)


async def _play_grpc(address: tuple[str, int], given: dict[str, Any], wait_s: float) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(*address, limit=1 << 22)
    # Written as literals, because an encoder would change the names.
    block = b"".join(b"\0" + _hpack_text(octets(name)) + _hpack_text(octets(value)) for name, value in given["headers"])
    body, ends = octets(given["body"]), given["end_stream"]
    parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _h2_frame(4, 0, 0, struct.pack(">HIHI", 2, 0, 4, 1 << 24)))
    writer.write(_h2_frame(8, 0, 0, (1 << 24).to_bytes(4, "big")))
    for index, part in enumerate(parts):
        flags = (4 if index == len(parts) - 1 else 0) | (1 if not index and ends and not body else 0)
        writer.write(_h2_frame(9 if index else 1, flags, 1, part))
    windows, initial, sent = [65535, 65535], 65535, 0
    received, data, decoder = b"", b"", hpack.Decoder(max_header_list_size=1 << 20)
    headers: dict[str, str] = {}
    end: list[str] = []
    deadline_s = time.monotonic() + PATIENCE_S
    try:
        while not end:
            while (size := min(*windows, 16384, len(body) - sent)) > 0:
                is_last = ends and sent + size == len(body)
                writer.write(_h2_frame(0, int(is_last), 1, body[sent : sent + size]))
                sent += size
                windows = [window - size for window in windows]
            if time.monotonic() > deadline_s:
                return {"headers": headers, "messages": [], "end": ["open"]}
            patience_s = wait_s if headers and sent == len(body) else max(1.2, 4 * wait_s)
            try:
                chunk = await asyncio.wait_for(reader.read(1 << 18), patience_s)
            except asyncio.TimeoutError:
                end.append("open")
                break
            if not chunk:
                end.append("closed")
                break
            received += chunk
            while len(received) >= 9 and not end:
                size = int.from_bytes(received[:3], "big")
                if len(received) < 9 + size:
                    break
                kind, flags = received[3], received[4]
                stream = int.from_bytes(received[5:9], "big")
                payload, received = received[9 : 9 + size], received[9 + size :]
                if kind == 4 and not flags & 1:
                    settings = dict(struct.iter_unpack(">HI", payload))
                    windows[1] += settings.get(4, initial) - initial
                    initial = settings.get(4, initial)
                    writer.write(_h2_frame(4, 1, 0))
                elif kind == 8:
                    windows[1 if stream else 0] += int.from_bytes(payload, "big")
                elif kind == 7:
                    end.append(f"GOAWAY {int.from_bytes(payload[4:8], 'big')}")
                elif kind == 3 and stream == 1:
                    end.append(f"RST {int.from_bytes(payload, 'big')}")
                elif kind == 0 and stream == 1:
                    data += payload
                elif kind == 1 and stream == 1:
                    headers.update(decoder.decode(payload))
                    if flags & 1:
                        end.append("END")
    except ConnectionError:
        end.append("closed")
    writer.transport.abort()
    messages = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        messages.append((data[0], _timeless_proto(data[5 : 5 + size])))
        data = data[5 + size :]
    return {"headers": headers, "messages": messages, "end": end}


def _h2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _hpack_text(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    rest = size - 127
    prefix = bytearray(b"\x7f")
    while rest > 127:
        prefix.append(rest & 127 | 128)
        rest >>= 7
    return bytes(prefix) + bytes((rest,)) + text


# Differences.


def differences(protocol: str, real: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """List the differences between two outcomes."""
    if protocol == "grpc":
        return _grpc_differences(real, ours)
    found = []
    if len(real["responses"]) != len(ours["responses"]):
        found.append(f"{len(ours['responses'])} responses, not {len(real['responses'])}")
    for theirs, answer in zip(real["responses"], ours["responses"], strict=False):
        if theirs["status"] != answer["status"]:
            found.append(f"status {answer['status']}, not {theirs['status']}")
        for name in HTTP_HEADERS:
            wanted, given = theirs["headers"].get(name), answer["headers"].get(name)
            if name in ("connection", "upgrade"):
                wanted, given = wanted and wanted.lower(), given and given.lower()
            if wanted != given:
                found.append(f"{name} {given!r}, not {wanted!r}")
        if (_is_own(theirs) or _is_own(answer)) and theirs["body"] != answer["body"]:
            found.append(f"body {answer['body'][:100]!r}, not {theirs['body'][:100]!r}")
        frames = [_comparable(frame) for frame in answer.get("frames", [])]
        if frames != [_comparable(frame) for frame in theirs.get("frames", [])]:
            found.append(f"frames {frames}, not {theirs.get('frames')}")
    if real["end"] != ours["end"]:
        found.append(f"{ours['end']}, not {real['end']}")
    return found


def _grpc_differences(real: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    found = []
    for name in GRPC_HEADERS:
        wanted, given = real["headers"].get(name), ours["headers"].get(name)
        if wanted != given:
            found.append(f"{name} {given!r}, not {wanted!r}")
    if real["headers"].get("grpc-message") == GRPC_MESSAGE != ours["headers"].get("grpc-message"):
        found.append(f"grpc-message {ours['headers'].get('grpc-message')!r}")
    if real["messages"] != ours["messages"]:
        found.append(f"messages {ours['messages']}, not {real['messages']}")
    wanted = [" ".join(text.split(" ")[:2]) for text in real["end"]]
    if wanted != ours["end"]:
        found.append(f"end {ours['end']}, not {wanted}")
    return found


def _is_own(response: dict[str, Any]) -> bool:
    """Whether Raccoon itself wrote the body, not one of its libraries."""
    body, content_type = response["body"], response["headers"].get("content-type")
    return body == b"pong" or b'"sent_time":' in body or content_type == "application/proto"


def _comparable(frame: tuple[Any, ...]) -> tuple[Any, ...]:
    """A frame without the texts of libraries."""
    if len(frame) == 3:
        return frame if frame[2].startswith(CLOSE_REASONS) else frame[:2]
    if frame[0] == 0x82:
        return frame[0], b"".join(
            b"\x22" + REASON if number == 4 and isinstance(value, bytes) and value.startswith(REASON) else raw
            for number, value, raw in _fields(frame[1])
        )
    return frame[0], re.sub(rb'("reason":"' + REASON + rb')(?:[^"\\]|\\.)*"', rb'\1"', frame[1])


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """The number, value and complete bytes of each field in an answer."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        value: int | bytes
        value, at = _varint(message, at)
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        yield tag >> 3, value, message[start:at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def _timeless_proto(message: bytes) -> bytes:
    return b"".join(
        b"\x18\xff\xff\xff\xff\x0f" if number == 3 and isinstance(value, int) and _is_now(value) else raw
        for number, value, raw in _fields(message)
    )


def _timeless_json(text: bytes) -> bytes:
    def one(match: re.Match[bytes]) -> bytes:
        return b'"sent_time":%d' % NO_TIME if _is_now(int(match[1])) else match[0]

    return re.sub(rb'"sent_time":(\d{10})\b', one, text)


def _is_now(seconds: int) -> bool:
    return abs(seconds - time.time()) < 120
