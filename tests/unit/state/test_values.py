"""The header of stored values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kstate.errors import DecodeError
from kstate.state.values import StoredValue, split_value, value_prefix


def test_a_header_has_the_documented_bytes() -> None:
    """Format, schema id, and the expiry where there is one."""
    assert value_prefix(258).hex() == "000102"
    assert value_prefix(258, 1).hex() == "0101020000000000000001"


@given(st.integers(1, 65535), st.none() | st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=50))
def test_a_value_is_taken_apart_as_it_was_put_together(schema_id: int, expiry: int | None, payload: bytes) -> None:
    """With and without an expiry."""
    assert split_value(value_prefix(schema_id, expiry) + payload) == StoredValue(schema_id, expiry, payload)


@pytest.mark.parametrize("data", ["", "00", "0001", "020001aa", "0100010000000000", "000000aa", "ff0001"])
def test_bytes_without_a_sound_header_are_refused(data: str) -> None:
    """Too short, unknown format bits, or schema id 0."""
    with pytest.raises(DecodeError, match="Stored value"):
        split_value(bytes.fromhex(data))


@given(st.binary(max_size=30))
def test_whatever_is_read_as_a_value_is_exactly_one(data: bytes) -> None:
    """Anything else is a DecodeError."""
    try:
        value = split_value(data)
    except DecodeError:
        return
    assert value_prefix(value.schema_id, value.expiry) + value.payload == data
