"""Answers to queries as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kstate.answers import Entry, RangeGone, decode_answer, encode_answer
from kstate.errors import DecodeError

ENTRIES = st.lists(st.tuples(st.binary(), st.binary(), st.integers(-(1 << 63), (1 << 63) - 1)), max_size=5)


@given(ENTRIES)
def test_what_is_asked_for_is_what_comes(entries: list[Entry]) -> None:
    """Whatever the bytes."""
    assert list(decode_answer(BytesIO(b"".join(encode_answer(entries))))) == entries


@given(ENTRIES, st.data())
def test_an_answer_that_is_cut_anywhere_is_torn(entries: list[Entry], data: st.DataObject) -> None:
    """Nobody takes the beginning of an answer for all of it."""
    whole = b"".join(encode_answer(entries))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError):
        list(decode_answer(BytesIO(whole[:cut])))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_torn(data: bytes) -> None:
    """And nothing else happens."""
    with suppress(DecodeError, RangeGone):
        list(decode_answer(BytesIO(data)))


def test_an_answer_that_does_not_count_says_so_at_its_end() -> None:
    """After the entries that came before."""

    def gone() -> Iterator[Entry]:
        yield b"k", b"v", 1
        raise RangeGone

    entries = decode_answer(BytesIO(b"".join(encode_answer(gone()))))
    assert list(islice(entries, 1)) == [(b"k", b"v", 1)]
    with pytest.raises(RangeGone):
        next(entries)
