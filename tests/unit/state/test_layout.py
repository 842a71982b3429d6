"""Keys of the local store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kstate.errors import DecodeError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.layout import (
    IDENTITY_KEY,
    Suffix,
    identity_entry,
    key_suffix,
    lineage_key,
    parse_suffix,
    shard_bounds,
    shard_prefix,
)

slots = st.integers(0, 65535)
ids = st.integers(1, 65534)
partitions = st.integers(0, (1 << 31) - 1)


def test_a_stored_key_has_the_documented_bytes() -> None:
    """Operator 2, partition 3, slot 0x0405, state 6, key 'ab', subkey 'c'."""
    assert (shard_prefix(2, 3) + key_suffix(0x0405, 6, b"ab", b"c")).hex() == "0002000000030405000602616263"


@given(slots, ids, st.binary(max_size=300), st.binary(max_size=20))
def test_a_suffix_is_read_back_as_it_was_made(slot: int, state_id: int, key: bytes, subkey: bytes) -> None:
    """Key and subkey are told apart by the length, of one byte or two."""
    assert parse_suffix(key_suffix(slot, state_id, key, subkey)) == Suffix(slot, state_id, key, subkey)


@given(st.binary(max_size=40))
def test_whatever_is_read_as_a_suffix_is_exactly_one(data: bytes) -> None:
    """Anything else is a DecodeError: there is one form of every key."""
    try:
        parts = parse_suffix(data)
    except DecodeError:
        return
    assert key_suffix(*parts) == data


@pytest.mark.parametrize(
    "data", ["", "00010001", "0001000103aabb", "0001000180", "000100018100aa", "00010001ffffffffff7f"]
)
def test_a_suffix_that_ends_early_or_has_a_padded_length_is_refused(data: str) -> None:
    """Strict, as every reader of stored bytes."""
    with pytest.raises(DecodeError, match="State key"):
        parse_suffix(bytes.fromhex(data))


@given(ids, partitions, st.lists(slots, min_size=2, max_size=2, unique=True), slots, st.binary(max_size=9))
def test_the_bounds_of_a_key_range_hold_its_keys_and_no_others(
    operator: int, partition: int, ends: list[int], slot: int, key: bytes
) -> None:
    """Also at the last slot, where the upper bound is the next partition."""
    for key_range in (KeyRange(min(ends), max(ends)), KeyRange(min(ends), 65536), FULL_RANGE):
        lo, hi = shard_bounds(operator, partition, key_range)
        stored = shard_prefix(operator, partition) + key_suffix(slot, 1, key)
        assert (lo <= stored < hi) == (slot in key_range)
        assert not lo <= shard_prefix(operator, partition + 1) + key_suffix(slot, 1, key) < hi


def test_the_stores_own_entries_lie_before_every_shard() -> None:
    """Operator ids begin at 1, so no scan of a shard meets them."""
    own = [IDENTITY_KEY, lineage_key(1, 0), lineage_key(65534, (1 << 31) - 1)]
    assert own == sorted(set(own))
    assert max(own) < shard_bounds(1, 0, FULL_RANGE)[0]


def test_identities_differ_in_each_part() -> None:
    """Application, worker and cluster; a store of any other is foreign."""
    mine = identity_entry("app", "w1", "c")
    others = {identity_entry("app2", "w1", "c"), identity_entry("app", "w2", "c"), identity_entry("app", "w1", "d")}
    assert len({mine, *others}) == 4
    assert mine == (IDENTITY_KEY, b'{"app": "app", "cluster": "c", "format": 2, "worker": "w1"}')
