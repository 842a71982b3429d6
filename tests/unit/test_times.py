"""Where a piece stands in time: what was heard of upstreams, and what two pieces make together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.frames import FieldReader, pack_times
from kstate.times import UNKNOWN_TIME, Times, Upstream, announced, heard, joined
from tests.support.times import streams, times, upstreams

LOW, HIGH = KeyRange(0, 0x8000), KeyRange(0x8000, 0x10000)
PROBES = (0, 1, 0x7FFF, 0x8000, 0xFFFF)


def said(partition: int, watermark: int, key_range: KeyRange = FULL_RANGE, grant: int = 1) -> Upstream:
    """An upstream, one of two, that is not idle."""
    return Upstream(partition, 2, key_range, grant, watermark)


def hear(*news: Upstream) -> tuple[Upstream, ...]:
    """What is known after these frames."""
    known: tuple[Upstream, ...] = ()
    for each in news:
        known = heard(known, each)
    return known


def at(parts: tuple[Upstream, ...], partition: int, slot: int) -> Upstream | None:
    """What is known of one slot, without its key range."""
    for part in parts:
        if part.partition == partition and slot in part.key_range:
            return replace(part, key_range=FULL_RANGE)
    return None


def test_a_stream_goes_by_the_least_of_all_its_upstream_partitions() -> None:
    """One that has said nothing holds everything."""
    assert announced(()) == (UNKNOWN_TIME, False)
    assert announced(hear(said(0, 50))) == (UNKNOWN_TIME, False)
    assert announced(hear(said(0, 50), said(1, 70))) == (50, False)
    assert announced(hear(said(0, 50), said(1, 70), said(0, 90))) == (70, False)


def test_a_split_upstream_goes_by_the_least_of_its_parts() -> None:
    """The halves speak for themselves; until they do, what the whole said holds for both."""
    known = hear(said(0, 50), said(1, 1_000), said(0, 60, LOW, grant=2))
    assert announced(known) == (50, False)
    known = heard(known, said(0, 80, HIGH, grant=3))
    assert announced(known) == (60, False)
    assert [part.key_range for part in known] == [LOW, HIGH, FULL_RANGE]


def test_merged_upstreams_speak_as_one_again() -> None:
    """The frame of the whole replaces both halves; it never goes back where one was ahead."""
    known = hear(said(0, 60, LOW), said(0, 80, HIGH), said(0, 70, grant=4))
    assert [(part.key_range, part.grant, part.watermark) for part in known] == [(LOW, 4, 70), (HIGH, 4, 80)]
    assert heard(known, said(0, 90, grant=4)) == (said(0, 90, grant=4),)


def test_half_a_partition_that_said_nothing_holds_the_stream() -> None:
    """Every slot must be heard of."""
    assert announced(hear(said(0, 60, LOW), said(1, 70))) == (UNKNOWN_TIME, False)


def test_an_idle_upstream_leaves_the_minimum() -> None:
    """With all of them idle the stream is; one that never knew a time too."""
    idle = replace(said(0, UNKNOWN_TIME), idle=True)
    assert announced(hear(idle, said(1, 70))) == (70, False)
    assert announced(hear(idle, replace(said(1, 70), idle=True))) == (UNKNOWN_TIME, True)
    assert announced(hear(idle, said(1, 70), said(0, 65))) == (65, False)
    assert announced((idle,)) == (UNKNOWN_TIME, False), "the other partition was never heard of"


def test_the_newest_frame_says_whether_an_upstream_is_idle() -> None:
    """At the same watermark too; an older one that comes again does not."""
    idle = replace(said(0, 50), idle=True)
    assert hear(said(0, 50), idle) == (idle,)
    assert hear(idle, said(0, 50)) == (said(0, 50),)
    assert hear(idle, said(0, 40)) == (idle,)


def test_an_heir_goes_on_where_the_owner_stopped() -> None:
    """The higher grant is the newer one even if it should know less; nobody takes a time back."""
    assert hear(said(0, 50), said(0, 30, grant=2)) == (said(0, 50, grant=2),)
    assert hear(said(0, 50, grant=2), said(0, 90, grant=1)) == (said(0, 50, grant=2),)


def test_another_number_of_upstream_partitions_makes_the_old_void() -> None:
    """The writer reads another topic since a newer version of the job: what is gone must not hold the stream."""
    known = hear(said(0, 50), said(1, 60), Upstream(0, 1, FULL_RANGE, 9, 40))
    assert announced(known) == (40, False)
    assert heard(known, said(1, 99, grant=3)) == known


@settings(deadline=None)
@given(streams(), upstreams, st.integers(0, 3), st.sampled_from(PROBES))
def test_what_is_known_of_a_slot_is_the_newest_and_never_goes_back(
    known: tuple[Upstream, ...], news: Upstream, partition: int, slot: int
) -> None:
    """Slot by slot: others are left alone, and hearing twice changes nothing more."""
    after = heard(known, news)
    before, now = at(known, partition, slot), at(after, partition, slot)
    if partition != news.partition or slot not in news.key_range:
        assert now == before
    elif before is None:
        assert now == replace(news, key_range=FULL_RANGE)
    else:
        assert now is not None
        assert (now.grant, now.watermark >= before.watermark) == (max(before.grant, news.grant), True)
        assert now.watermark in (before.watermark, news.watermark)
    assert heard(after, news) == after
    Times(streams={"s": after})


@settings(deadline=None)
@given(times(), times())
@example(Times(idle=frozenset("ab")), Times(idle=frozenset("bc")))
def test_two_pieces_know_together_what_either_knew(left: Times, right: Times) -> None:
    """In whichever order they meet; nothing goes back, and one who knows nothing adds nothing."""
    both = joined(left, right)
    assert both == joined(right, left) == joined(both, left)
    assert joined(left, left) == left
    assert joined(left, Times(idle=left.idle, clock_ms=left.clock_ms)) == left
    assert both.watermark == max(left.watermark, right.watermark)
    assert both.clock_ms == max(left.clock_ms, right.clock_ms)
    assert both.idle == left.idle & right.idle
    for topic, watermark in both.inputs.items():
        assert watermark == max(left.inputs.get(topic, watermark), right.inputs.get(topic, watermark))
    assert both.inputs.keys() == left.inputs.keys() | right.inputs.keys()
    for topic, parts in both.streams.items():
        for one in (left.streams.get(topic, ()), right.streams.get(topic, ())):
            for part in one:
                now = at(parts, part.partition, part.key_range.lo)
                assert now is not None
                assert now.watermark >= part.watermark
                assert now.grant >= part.grant


def test_of_two_pieces_the_one_that_is_not_idle_counts() -> None:
    """For what was heard of upstreams as for inputs; somebody is waited for too long rather than not at all."""
    active, idle = hear(said(0, 50)), hear(replace(said(0, 50), idle=True))
    for pair in ((active, idle), (idle, active)):
        left, right = (Times(streams={"s": parts}) for parts in pair)
        assert joined(left, right) == Times(streams={"s": active})


def test_joined_pieces_that_read_the_same_are_as_they_were() -> None:
    """Halves of a tile that read the same offsets know the same of them."""
    parts = hear(said(0, 50), said(1, 70))
    left = Times(50, 3, {"a": 90}, frozenset("a"), {"s": parts})
    right = replace(left, watermark=40, clock_ms=5)
    assert joined(left, right) == replace(left, clock_ms=5)


@settings(deadline=None)
@given(times())
def test_times_are_read_back_as_they_were_written(each: Times) -> None:
    """Every field, in markers and lineage alike."""
    fields = FieldReader(pack_times(each), 0, "Times")
    assert fields.times() == each
    fields.end()


@pytest.mark.parametrize(
    "parts",
    [
        (said(1, 1), said(0, 1)),
        (said(0, 1, HIGH), said(0, 1, LOW)),
        (said(0, 1, FULL_RANGE), said(0, 1, HIGH)),
    ],
)
def test_parts_out_of_place_are_refused(parts: tuple[Upstream, ...]) -> None:
    """A slot has one watermark."""
    with pytest.raises(ValueError, match="out of place"):
        Times(streams={"s": parts})


def test_an_upstream_is_one_of_so_many() -> None:
    """Else the map could never be complete."""
    with pytest.raises(ValueError, match="partition 2 of 2"):
        said(2, 1)
