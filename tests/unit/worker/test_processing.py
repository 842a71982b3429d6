"""What the process loop does with good and bad records: handlers, state, outputs, dead letters, atomicity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from kstate import Context, Input, Job, Operator, Output, Reject, ValueState
from kstate.config import FailureSettings
from kstate.errors import ConfigError, CorruptStateError, OperatorError
from kstate.keyspace import FULL_RANGE, KeyRange, crc32_partition_of, partition_of, slot_of
from kstate.state.cache import ValueFault
from kstate.testing import Driver

MakeBench = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Add:
    """A number to add to a name's total."""

    name: str
    amount: int


@dataclass(frozen=True, slots=True)
class Total:
    """The total so far."""

    name: str
    total: int


class Sum(Operator[str], uid="sum"):
    """Adds up; refuses 13, and fails after its changes on 666."""

    adds = Input(Add, topic="adds", key="name")
    totals = Output(Total, topic="totals")
    total = ValueState(int, default=0)
    note = ValueState(str)

    @adds.each
    def add(self, add: Add, ctx: Context) -> None:
        self.total.set(self.total.get() + add.amount)
        self.totals.emit(Total(self.key, self.total.get()))
        if add.amount == 13:
            raise Reject("unlucky")
        if add.amount == 666:
            self.note.set("evil")
            raise ZeroDivisionError("boom")
        if add.amount > 1_000_000:
            self.note.set("x" * add.amount)


class Echo(Operator[None], uid="echo"):
    """Passes on what comes."""

    adds = Input(Add, topic="adds")
    out = Output(Add, topic="out")

    @adds.each
    def pass_on(self, add: Add, ctx: Context) -> None:
        self.out.emit(add)


def add(bench: Any, name: str, amount: int) -> tuple[bytes | None, bytes | None]:
    """A row for Sum."""
    row: tuple[bytes | None, bytes | None] = bench.row(Add(name, amount), name.encode())
    return row


def test_state_is_kept_per_key_and_outputs_follow_handler_order(bench: MakeBench) -> None:
    """Two keys interleaved: each sees its own total, the outputs are in the order of the input."""
    b = bench(Sum)
    b.feed(add(b, "a", 1), add(b, "b", 10), add(b, "a", 2))
    assert b.emitted("totals") == [Total("a", 1), Total("b", 10), Total("a", 3)]
    assert [message["key"] for message in b.processor.outputs["totals"].messages] == [b"a", b"b", b"a"]


def test_a_failing_call_is_undone_whole_and_its_record_becomes_a_dead_letter(bench: MakeBench) -> None:
    """State and outputs of the failed calls vanish, those before and after stay."""
    b = bench(Sum)
    b.feed(add(b, "a", 1), add(b, "a", 666), add(b, "a", 13), add(b, "a", 2))
    assert b.emitted("totals") == [Total("a", 1), Total("a", 3)]
    letters = b.processor.rejects.letters
    assert [(letter.offset, letter.error, letter.reason) for letter in letters] == [
        (1, "ZeroDivisionError", "boom"),
        (2, "Reject", "unlucky"),
    ]
    message = letters[0].message("sum", 1_000_000)
    assert message["value"] == add(b, "a", 666)[1]
    assert ("kstate.offset", b"1") in message["headers"]
    assert ("kstate.topic", b"adds") in message["headers"]


def test_setting_none_clears_a_state(bench: MakeBench) -> None:
    """A state without default reads None when it has no value, so setting None takes the value away."""

    class Last(Operator[str], uid="last"):
        adds = Input(Add, topic="adds")
        note = ValueState(str)

        @adds.each
        def add(self, add: Add, ctx: Context) -> None:
            self.note.set("seen" if add.amount else None)

    b = bench(Last)
    b.feed(add(b, "a", 1), add(b, "b", 1))
    b.commit()
    b.feed(add(b, "a", 0))
    (piece,) = b.commit().pieces
    assert piece.changes.values == [None]


def test_a_failing_first_call_leaves_no_change_behind(bench: MakeBench) -> None:
    """A key whose only call failed is not changed: its epoch writes no value for it."""
    b = bench(Sum)
    b.feed(add(b, "a", 666))
    prepared = b.prepare()
    assert [len(piece.changes) for piece in prepared.pieces] == [0]
    b.feed(add(b, "a", 5))
    assert b.emitted("totals") == [Total("a", 5)]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"a", b"\xff", "is no"),
        (None, b"\x02a\x02", "null key"),
        (b"a", None, "null value"),
        (b"\xff\xfe", b"\x02a\x02", "key does not decode"),
        (b"b", b"\x02a\x02", "differs from field 'name'"),
    ],
)
def test_bad_records_become_dead_letters_and_good_ones_go_on(
    bench: MakeBench, key: bytes | None, value: bytes | None, reason: str
) -> None:
    """One bad record among good ones: it alone is rejected, with its original bytes and the reason."""
    b = bench(Sum)
    b.feed(add(b, "a", 1), (key, value), add(b, "a", 2))
    assert b.emitted("totals") == [Total("a", 1), Total("a", 3)]
    (letter,) = b.processor.rejects.letters
    assert (letter.offset, letter.key, letter.value) == (1, key, value)
    assert reason in letter.reason


def test_an_output_over_the_limit_is_an_error_of_its_record(bench: MakeBench) -> None:
    """The record whose output is too large becomes a dead letter that names output and limit."""
    b = bench(Echo)
    b.feed(b.row(Add("x" * 2_000, 1), b"k"), b.row(Add("y", 1), b"k"))
    assert b.emitted("out") == [Add("y", 1)]
    assert "output 'out'" in b.processor.rejects.letters[0].reason


def test_a_large_key_counts_against_the_limit_of_an_output(bench: MakeBench) -> None:
    """Key and value travel in one message: together they must fit, or the client would refuse the whole epoch."""
    b = bench(Echo)
    b.feed(b.row(Add("y", 1), b"k" * 1_000), b.row(Add("y", 2), b"k"))
    assert b.emitted("out") == [Add("y", 2)]
    assert "output 'out'" in b.processor.rejects.letters[0].reason


class Stamp(Operator[None], uid="stamp"):
    """Emits with event times of its own."""

    adds = Input(Add, topic="adds")
    out = Output(Add, topic="out")

    @adds.each
    def stamp(self, add: Add, ctx: Context) -> None:
        event_time: Any = {1: 5, 2: 1 << 63, 3: 1.5, 4: "now"}[add.amount]
        self.out.emit(add, event_time=event_time)


def test_an_event_time_that_is_no_int64_is_an_error_of_its_record(bench: MakeBench) -> None:
    """The client would refuse it at the end of the epoch, in which nobody knows whose it was."""
    b = bench(Stamp)
    b.feed(*(b.row(Add("x", amount), b"k") for amount in (1, 2, 3, 4)))
    assert [message["timestamp"] for message in b.processor.outputs["out"].messages] == [5]
    assert [letter.error for letter in b.processor.rejects.letters] == ["OverflowError", "TypeError", "TypeError"]


def test_a_reason_that_is_no_unicode_text_can_be_written(bench: MakeBench) -> None:
    """File names and the like bring lone surrogates into messages of exceptions."""
    b = bench(Echo)
    b.processor.rejects.add(b.batch([(None, b"x")]), 0, "no such file: \udce9", ValueError("x"))
    message = b.processor.rejects.letters[0].message("echo", 1_000)
    assert ("kstate.reason", b"no such file: ?") in message["headers"]


def test_a_state_over_the_limit_is_found_by_redoing_the_epoch_carefully(bench: MakeBench) -> None:
    """The epoch cannot be prepared; done again with checks after each call, the culprit alone is rejected."""
    b = bench(Sum)
    rows = [add(b, "a", 1), add(b, "a", 1_000_001), add(b, "a", 2)]
    b.feed(*rows)
    with pytest.raises(ValueFault, match="state 'note' of key 'a'"):
        b.prepare()
    b.shard.rollback()
    b.processor.start_epoch()
    b.processor.careful = True
    b.feed(*rows, first=0)
    assert b.emitted("totals") == [Total("a", 1), Total("a", 3)]
    assert "state 'note' of key 'a'" in b.processor.rejects.letters[0].reason


def test_too_many_failures_in_an_epoch_stop_the_job(bench: MakeBench) -> None:
    """More than 10 % and at least 100: OperatorError with the last failure; below either bound it goes on."""
    b = bench(Sum)
    limits = FailureSettings()
    b.feed(*[add(b, "a", 13)] * 99)
    b.processor.rejects.check(limits)
    b.feed(add(b, "a", 13))
    with pytest.raises(OperatorError, match=r"100 of 100 records .* adds\[0\]@99 with Reject: unlucky"):
        b.processor.rejects.check(limits)
    b.feed(*[add(b, "a", 1)] * 900)
    b.processor.rejects.check(limits)


def test_a_record_of_another_partitioner_stops_the_job_by_name(bench: MakeBench) -> None:
    """A key that Kafka's murmur2 puts elsewhere: nothing is processed, both places are named."""
    b = bench(Sum, partitions=3)
    stray = next(f"k{i}" for i in range(99) if partition_of(f"k{i}".encode(), 3) != 0)
    with pytest.raises(ConfigError, match=r"adds\[0\].*partition [12] of 3"):
        b.feed(add(b, stray, 1))


class FromLibrdkafka(Sum, uid="from-librdkafka"):
    """Its input was written with librdkafka's default partitioner."""

    adds = Input(Add, topic="adds", key="name", partitioner="crc32")
    adds.each(Sum.add)


class FromAnybody(Sum, uid="from-anybody"):
    """Its input may be placed in any way."""

    adds = Input(Add, topic="adds", key="name", partitioner="unchecked")
    adds.each(Sum.add)


def test_an_input_says_which_partitioner_wrote_it(bench: MakeBench) -> None:
    """crc32 is checked as murmur2 is by default; unchecked takes every record."""
    names = [f"k{i}" for i in range(99)]
    placed = next(n for n in names if not crc32_partition_of(n.encode(), 3) and partition_of(n.encode(), 3))
    stray = next(n for n in names if crc32_partition_of(n.encode(), 3) and not partition_of(n.encode(), 3))
    b = bench(FromLibrdkafka, partitions=3)
    b.feed(add(b, placed, 1))
    with pytest.raises(ConfigError, match=r"adds\[0\], crc32 puts it into partition [12] of 3"):
        b.feed(add(b, stray, 1))
    free = bench(FromAnybody, partitions=3)
    free.feed(add(free, placed, 1), add(free, stray, 1))
    assert len(free.emitted("totals")) == 2


def test_null_keys_of_an_unkeyed_operator_are_spread_by_offset_and_keep_their_null_key(bench: MakeBench) -> None:
    """An operator without key takes any record; without `key=` the input's key bytes are the output's."""
    b = bench(Echo)
    b.feed(b.row(Add("n", 1), None), b.row(Add("m", 2), b"\xff"))
    assert [message["key"] for message in b.processor.outputs["out"].messages] == [None, b"\xff"]


def test_what_was_committed_is_read_back_after_the_cache_forgot_it(bench: MakeBench) -> None:
    """Two generations later the value comes from the store; a rolled back epoch leaves no trace."""
    b = bench(Sum)
    b.feed(add(b, "a", 5))
    b.commit()
    b.shard.cache.turn()
    b.shard.cache.turn()
    b.feed(add(b, "a", 1))
    assert b.emitted("totals") == [Total("a", 6)]
    b.shard.rollback()
    b.processor.start_epoch()
    b.feed(add(b, "a", 2), first=1)
    assert b.emitted("totals") == [Total("a", 7)]


def test_pieces_with_unequal_progress_skip_what_they_have_done(bench: MakeBench) -> None:
    """Two halves of a partition, one of which is ahead: the reader goes over both, each record counts once."""
    low = next(f"k{i}" for i in range(99) if slot_of(f"k{i}".encode()) < 32768)
    high = next(f"k{i}" for i in range(99) if slot_of(f"k{i}".encode()) >= 32768)
    b = bench(Sum)
    halves = KeyRange(0, 32768), KeyRange(32768, 65536)
    b.shard.pieces = [b.piece(halves[0], 0), b.piece(halves[1], 2)]
    assert b.shard.positions() == {"adds": 0}, "the reader starts where the slower one stands"
    b.feed(add(b, low, 1), add(b, high, 1), add(b, low, 1), add(b, high, 1), first=0)
    assert b.emitted("totals") == [Total(low, 1), Total(low, 2), Total(high, 1)]
    b.shard.coalesce()
    assert [piece.key_range for piece in b.shard.pieces] == [FULL_RANGE]


def test_two_tiles_of_a_shard_stay_two_pieces(bench: MakeBench) -> None:
    """Equal progress does not join what the plan keeps apart: each may be given to somebody else."""
    b = bench(Sum, ranges=(KeyRange(0, 32768), KeyRange(32768, 65536)))
    b.feed(*[add(b, f"k{i}", 1) for i in range(20)])
    assert [piece.checkpoint.marker.key_range for piece in b.prepare().pieces] == list(b.ranges)
    assert sum(len(piece.changes) for piece in b.prepare().pieces) == 20


class Tally(Operator[str], uid="tally"):
    """Adds up per message key."""

    adds = Input(Add, topic="adds")
    total = ValueState(int, default=0)

    @adds.each
    def add(self, add: Add, ctx: Context) -> None:
        self.total.set(self.total.get() + add.amount)


def test_a_key_that_fits_no_block_is_a_dead_letter(bench: MakeBench) -> None:
    """The others are processed: one such record must not stop every worker that meets it."""
    b = bench(Tally)
    longest, longer = b"k" * 65_536, b"k" * 65_537
    b.feed(*(b.row(Add("x", 1), key) for key in (b"a", longer, longest)))
    (letter,) = b.processor.rejects.letters
    assert (letter.offset, letter.key) == (1, longer)
    assert "65,537 bytes, the limit is 65,536" in letter.reason
    (piece,) = b.prepare().pieces
    assert piece.checkpoint.marker.entries == 2


def test_a_stored_value_that_does_not_decode_is_damage_of_the_store(bench: MakeBench) -> None:
    """No dead letter: the record is good, and the backup has the value."""
    b = bench(Tally)
    b.feed(b.row(Add("x", 1), b"a"))
    (piece,) = b.commit().pieces
    (key,) = (b.shard.cache._prefix + suffix for suffix in piece.changes.suffixes)
    b.store.write([key], [b"\0\0\1"])
    b.shard.cache.turn()
    b.shard.cache.turn()
    with pytest.raises(CorruptStateError, match="State 'total'"):
        b.feed(b.row(Add("x", 1), b"a"))
    assert not b.processor.rejects.letters


def test_a_job_that_wants_it_stops_at_the_first_failure() -> None:
    """on_error="stop": no dead letter is committed, the error names record and reason."""
    with Driver(Job("strict", [Sum], on_error="stop")) as d, pytest.raises(OperatorError, match="on_error="):
        d.send(Sum.adds, Add("a", 1), Add("a", 13))
