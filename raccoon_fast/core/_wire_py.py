"""Protobuf's wire format. This module is also compiled, as _wire_c, with the C types in _wire_c.pxd.

Every `take_` function reads `data` from `pos` on, but not from `end` on. It returns the value it read and the position
after it. The caller guarantees 0 <= pos <= end <= len(data).
"""

from __future__ import annotations

from raccoon_fast.errors import DecodeError

__all__ = ["encode_varint", "skip_field", "take_length", "take_tag", "take_varint"]


def encode_varint(value: int) -> bytes:
    """Encode an unsigned 64-bit number, or a negative number as 64-bit two's complement.

    Args:
        value: From -2**63 to 2**64 - 1.

    Raises:
        ValueError: The value is out of that range.
    """
    if not -0x8000_0000_0000_0000 <= value <= 0xFFFF_FFFF_FFFF_FFFF:
        raise ValueError(f"a varint holds 64 bits, and {value} needs more")
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def take_varint(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Read an unsigned 64-bit varint of 1 to 10 bytes.

    Like google.protobuf, it drops bits beyond the 64th in a tenth byte, and accepts an encoding that is longer than
    necessary.

    Raises:
        DecodeError: `end` comes before the last byte, or there are more than ten bytes.
    """
    value = 0
    shift = 0
    while pos < end:
        byte = data[pos]
        pos += 1
        if shift == 63:
            if byte & 0x80:
                raise DecodeError("a varint has more than 10 bytes")
            byte &= 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7
    raise DecodeError("a varint is cut off")


def take_tag(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Read a field's tag: the field's number << 3 | its wire type.

    Raises:
        DecodeError: The tag is cut off, or longer than 32 bits or 5 bytes.
    """
    tag, after = take_varint(data, pos, end)
    if after - pos > 5 or tag >> 32:
        raise DecodeError(f"no tag has the value {tag} in {after - pos} bytes")
    return tag, after


def take_length(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Read the length of a length-delimited field. The whole field must lie before `end`.

    Raises:
        DecodeError: The length is cut off or longer than 5 bytes, or the field reaches beyond `end`.
    """
    length, after = take_varint(data, pos, end)
    rest = end - after
    if after - pos > 5 or length > rest:
        raise DecodeError(f"a field of {length} bytes is cut off")
    return length, after


def skip_field(data: bytes, pos: int, end: int, tag: int, max_depth: int) -> int:
    """Return the position after the field whose tag was just taken. The field may be a group.

    Args:
        data: The bytes to read.
        pos: The position after the tag.
        end: The position after the last byte that may be read.
        tag: The tag.
        max_depth: How deep groups may be nested.

    Raises:
        DecodeError: The field is cut off, has the number 0 or an unknown wire type, ends a group that was not started,
            or has groups nested too deep.
    """
    if not tag >> 3:
        # Inside a group google.protobuf lets a number 0 pass.
        raise DecodeError("no field has the number 0")
    groups: list[int] = []
    while True:
        wire_type = tag & 7
        if wire_type == 0:
            _, pos = take_varint(data, pos, end)
        elif wire_type == 1:
            pos += 8
        elif wire_type == 2:
            length, pos = take_length(data, pos, end)
            pos += length
        elif wire_type == 3:
            if len(groups) == max_depth:
                raise DecodeError(f"more than {max_depth} groups are inside each other")
            groups.append(tag >> 3)
        elif wire_type == 4:
            if not groups or groups.pop() != tag >> 3:
                raise DecodeError("a group ends that was not started")
        elif wire_type == 5:
            pos += 4
        else:
            raise DecodeError(f"no field has the wire type {wire_type}")
        if pos > end:
            raise DecodeError("a field is cut off")
        if not groups:
            return pos
        tag, pos = take_tag(data, pos, end)
