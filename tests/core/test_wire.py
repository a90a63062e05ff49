import pytest
from hypothesis import given
from hypothesis import strategies as st

from raccoon_fast.core import _wire_py
from raccoon_fast.errors import DecodeError

# By the encoding's definition: 7 bits a byte, the lowest first.
VARINTS = [
    (0, "00"),
    (1, "01"),
    (127, "7f"),
    (128, "8001"),
    (150, "9601"),
    (300, "ac02"),
    (16383, "ff7f"),
    (16384, "808001"),
    (2**21 - 1, "ffff7f"),
    (2**21, "80808001"),
    (2**28, "8080808001"),
    (2**32 - 1, "ffffffff0f"),
    (2**35, "808080808001"),
    (2**42, "80808080808001"),
    (2**49, "8080808080808001"),
    (2**56, "808080808080808001"),
    (2**63 - 1, "ffffffffffffffff7f"),
    (2**63, "80808080808080808001"),
    (2**64 - 1, "ffffffffffffffffff01"),
]


@pytest.mark.parametrize(("value", "encoded"), VARINTS)
def test_varints_of_every_length(impl, value, encoded):
    data = bytes.fromhex(encoded)
    assert impl.wire.encode_varint(value) == data
    assert impl.wire.take_varint(data, 0, len(data)) == (value, len(data))
    assert impl.wire.take_varint(b"\xff" + data + b"\xff", 1, len(data) + 2) == (value, len(data) + 1)


@pytest.mark.parametrize(("value", "encoded"), VARINTS)
def test_a_varint_cut_off_at_any_byte_is_refused(impl, value, encoded):
    data = bytes.fromhex(encoded)
    for end in range(len(data)):
        with pytest.raises(DecodeError, match="cut off"):
            impl.wire.take_varint(data, 0, end)


def test_a_negative_number_is_its_twos_complement(impl):
    assert impl.wire.encode_varint(-1) == b"\xff" * 9 + b"\x01"
    assert impl.wire.encode_varint(-(2**63)) == b"\x80" * 9 + b"\x01"


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**30])
def test_a_number_over_64_bits_is_refused(impl, value):
    with pytest.raises(ValueError, match="64 bits"):
        impl.wire.encode_varint(value)


def test_a_varint_over_10_bytes_is_refused(impl):
    with pytest.raises(DecodeError, match="more than 10 bytes"):
        impl.wire.take_varint(b"\x80" * 10 + b"\x01", 0, 11)


def test_bits_beyond_the_64th_are_dropped(impl):
    assert impl.wire.take_varint(b"\xff" * 9 + b"\x7f", 0, 10) == (2**64 - 1, 10)


def test_a_longer_encoding_than_necessary_is_read(impl):
    assert impl.wire.take_varint(b"\x81\x80\x00", 0, 3) == (1, 3)


@pytest.mark.parametrize("data", [b"\x80\x80\x80\x80\x10", b"\x88\x80\x80\x80\x80\x00"])
def test_a_tag_over_32_bits_or_over_5_bytes_is_refused(impl, data):
    with pytest.raises(DecodeError, match="no tag has the value"):
        impl.wire.take_tag(data, 0, len(data))


def test_the_largest_tag_is_read(impl):
    assert impl.wire.take_tag(b"\xff\xff\xff\xff\x0f", 0, 5) == (2**32 - 1, 5)


def test_a_length_must_not_exceed_the_data(impl):
    assert impl.wire.take_length(b"\x03abc", 0, 4) == (3, 1)
    for data, end in ((b"\x03abc", 3), (b"\x7f", 1), (b"\xff\xff\xff\xff\x0f", 5), (b"\xff" * 9 + b"\x01", 10)):
        with pytest.raises(DecodeError, match="cut off"):
            impl.wire.take_length(data, 0, end)


SKIPPED = [
    (0x08, "9601"),
    (0x09, "0102030405060708"),
    (0x0A, "03616263"),
    (0x0A, "00"),
    (0x0D, "01020304"),
    (0x0B, "0c"),
    (0x0B, "08010a01000d0000000009000000000000000013140c"),
]


@pytest.mark.parametrize(("tag", "value"), SKIPPED)
def test_a_field_is_skipped_as_a_whole(impl, tag, value):
    data = bytes.fromhex(value)
    assert impl.wire.skip_field(data + b"\x01", 0, len(data) + 1, tag, 9) == len(data)
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            impl.wire.skip_field(data, 0, end, tag, 9)


@pytest.mark.parametrize("tag", [0x00, 0x02, 0x07, 0x0C, 0x0E, 0x0F])
def test_field_0_an_end_without_a_start_and_unknown_wire_types_are_refused(impl, tag):
    with pytest.raises(DecodeError):
        impl.wire.skip_field(b"\x00" * 20, 0, 20, tag, 9)


def test_a_group_ends_with_its_own_number(impl):
    with pytest.raises(DecodeError, match="was not started"):
        impl.wire.skip_field(b"\x14", 0, 1, 0x0B, 9)


def test_groups_are_skipped_down_to_the_depth_that_is_allowed(impl):
    data = b"\x0b\x0b\x0c\x0c\x0c"
    assert impl.wire.skip_field(data, 0, 5, 0x0B, 3) == 5
    with pytest.raises(DecodeError, match="more than 2 groups"):
        impl.wire.skip_field(data, 0, 5, 0x0B, 2)


@given(st.integers(0, 2**64 - 1))
def test_any_number_comes_back(impl, value):
    data = impl.wire.encode_varint(value)
    assert data == _wire_py.encode_varint(value)
    assert len(data) == max(1, (value.bit_length() + 6) // 7)
    assert impl.wire.take_varint(data, 0, len(data)) == (value, len(data))


@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 40), st.integers(8, 2**32 - 1))
def test_both_forms_read_or_refuse_alike(impl, data, pos, end, tag):
    end = min(end, len(data))
    pos = min(pos, end)
    for name, arguments in (
        ("take_varint", (data, pos, end)),
        ("take_tag", (data, pos, end)),
        ("take_length", (data, pos, end)),
        ("skip_field", (data, pos, end, tag, 2)),
    ):
        assert outcome(impl.wire, name, arguments) == outcome(_wire_py, name, arguments)


def outcome(wire, name, arguments):
    try:
        return getattr(wire, name)(*arguments)
    except DecodeError as error:
        return str(error)
