"""Messages of the control plane: what is written is read again, anything else is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.errors import DecodeError
from kstate.keyspace import SLOTS, KeyRange
from kstate.messages import (
    Control,
    Heartbeat,
    JobHalted,
    LeaderBeat,
    PlanPublished,
    ProcessExited,
    Report,
    TermStarted,
    TileReport,
    WorkerDied,
)
from kstate.plan import Member, Plan, Registry, Shard, Tile
from kstate.wire import decode_control, decode_report, encode_control, encode_report

TEXT = st.text(max_size=8)
COUNT = st.integers(0, (1 << 63) - 1)
RANGES = st.tuples(st.integers(0, SLOTS - 1), st.integers(1, SLOTS)).map(lambda p: KeyRange(p[0], max(p[0] + 1, p[1])))
SHARDS = st.builds(Shard, TEXT, COUNT)
OFFSETS = st.dictionaries(st.tuples(TEXT, TEXT, COUNT), COUNT, max_size=3)
REGISTRIES = st.builds(
    Registry,
    operators=st.dictionaries(TEXT, COUNT, max_size=3),
    states=st.dictionaries(st.tuples(TEXT, TEXT), COUNT, max_size=3),
    schemas=st.dictionaries(COUNT, TEXT, max_size=3),
    keys=st.dictionaries(TEXT, TEXT, max_size=3),
    written=st.dictionaries(st.tuples(TEXT, TEXT), st.lists(COUNT, max_size=3).map(tuple), max_size=3),
    forms=st.dictionaries(st.tuples(TEXT, TEXT), TEXT, max_size=3),
    streams=st.dictionaries(TEXT, COUNT, max_size=3),
    retired=st.lists(st.tuples(TEXT, TEXT, COUNT), max_size=3).map(tuple),
)
PLANS = st.builds(
    Plan,
    app=TEXT,
    version=COUNT,
    term=COUNT,
    members=st.lists(st.builds(Member, TEXT, TEXT, TEXT), max_size=3).map(tuple),
    dead=st.lists(TEXT, max_size=3).map(tuple),
    tiles=st.lists(st.builds(Tile, SHARDS, RANGES, st.none() | TEXT, COUNT), max_size=3).map(tuple),
    registry=REGISTRIES,
    partitions=st.dictionaries(TEXT, COUNT, max_size=3),
    starts=OFFSETS,
    ends=OFFSETS,
    bounded=st.booleans(),
    complete=st.booleans(),
    build=TEXT,
)
CONTROL: st.SearchStrategy[Control] = st.one_of(
    st.builds(TermStarted, COUNT, TEXT),
    st.builds(WorkerDied, COUNT, TEXT, TEXT),
    st.builds(JobHalted, COUNT, TEXT, COUNT),
    st.builds(PlanPublished, PLANS, TEXT),
)
TILE_REPORTS = st.builds(TileReport, SHARDS, RANGES, COUNT, TEXT, COUNT, st.dictionaries(TEXT, COUNT, max_size=3))
REPORTS: st.SearchStrategy[Report] = st.one_of(
    st.builds(
        Heartbeat,
        incarnation=TEXT,
        name=TEXT,
        host=TEXT,
        pid=COUNT,
        sequence=COUNT,
        plan_version=COUNT,
        tiles=st.lists(TILE_REPORTS, max_size=3).map(tuple),
        fatal=st.none() | TEXT,
        exit_code=COUNT,
        leaving=st.booleans(),
        build=TEXT,
    ),
    st.builds(ProcessExited, TEXT, st.integers(-64, 255), st.booleans()),
    st.builds(LeaderBeat, COUNT, TEXT),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(CONTROL)
def test_a_control_message_is_read_as_it_was_written(message: Control) -> None:
    """Encoding and decoding a control message gives it back."""
    assert decode_control(encode_control(message)) == message


@settings(deadline=None)
@given(REPORTS)
def test_a_report_is_read_as_it_was_written(message: Report) -> None:
    """Encoding and decoding a report gives it back."""
    assert decode_report(encode_report(message)) == message


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_random_bytes_are_refused(data: bytes) -> None:
    """Bytes that nobody encoded raise DecodeError and nothing else."""
    for decode in (decode_control, decode_report):
        with pytest.raises(DecodeError):
            decode(data)


@settings(deadline=None)
@given(st.one_of(CONTROL.map(encode_control), REPORTS.map(encode_report)), st.data())
def test_a_mutated_message_is_refused_or_is_another_valid_message(data: bytes, draw: st.DataObject) -> None:
    """One value of the JSON replaced, removed or added: DecodeError, or a message that encodes to just that JSON."""
    value = json.loads(data)
    _mutate(value, draw)
    mutated = json.dumps(value).encode()
    for again in (_control_again, _report_again):
        try:
            assert json.loads(again(mutated)) == value
        except DecodeError:
            continue


def _control_again(data: bytes) -> bytes:
    return encode_control(decode_control(data))


def _report_again(data: bytes) -> bytes:
    return encode_report(decode_report(data))


def _mutate(value: Any, draw: st.DataObject) -> None:
    """Change one place of a JSON value, found by going down at random."""
    while True:
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        action = draw.draw(st.sampled_from(("replace", "remove", "add", "descend")))
        if action == "add" or not keys:
            item = draw.draw(JSON)
            if isinstance(value, dict):
                value[draw.draw(TEXT)] = item
            else:
                value.append(item)
            return
        key = draw.draw(st.sampled_from(keys))
        if action == "remove":
            del value[key]
            return
        if action == "replace" or not isinstance(value[key], dict | list):
            value[key] = draw.draw(JSON)
            return
        value = value[key]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "JSON object in UTF-8"),
        (b"\xff{}", "JSON object in UTF-8"),
        (b"[1]", "an object"),
        (b"{}", "a field 'v'"),
        (
            b'{"v":3,"kind":"term-started","term":1,"leader":"a"}',
            "Control message.v: expected format version 1 to 2, found '3'",
        ),
        (b'{"v":1,"kind":"nonsense"}', "Control message.kind"),
        (b'{"v":1,"kind":"term-started","term":1}', "a field 'leader'"),
        (b'{"v":1,"kind":"term-started","term":true,"leader":"a"}', "Control message.term: expected a whole number"),
        (b'{"v":1,"kind":"term-started","term":-1,"leader":"a"}', "Control message.term: expected a whole number"),
        (b'{"v":1,"kind":"term-started","term":1.0,"leader":"a"}', "Control message.term: expected a whole number"),
        (b'{"v":1,"kind":"term-started","term":NaN,"leader":"a"}', "no JSON number"),
        (b'{"v":1,"kind":"term-started","term":1,"leader":"a","x":0}', "expected no further field, found 'x'"),
        (b'{"v":1,"kind":"term-started","term":1,"term":2,"leader":"a"}', "expected each key once"),
        (b'{"v":1,"kind":"term-started","term":1,"leader":"\\ud800"}', "lone surrogates"),
        (b'{"v":1,"kind":"term-started","term":' + b"9" * 5000 + b',"leader":"a"}', "JSON object in UTF-8"),
        (b"[" * 100_000, "JSON object in UTF-8"),
    ],
)
def test_a_fault_is_named(data: bytes, fault: str) -> None:
    """The error says where the message is wrong and what was expected there."""
    with pytest.raises(DecodeError) as caught:
        decode_control(data)
    assert fault in str(caught.value)


def test_a_fault_deep_inside_a_plan_is_named_by_its_path() -> None:
    """A key range that is none is found at its tile."""
    plan = Plan("app", 1, 1, (), (), (Tile(Shard("a", 0), KeyRange(3, 4), None, 1),), Registry(), {}, {})
    data = encode_control(PlanPublished(plan)).replace(b'"hi":4', b'"hi":3')
    with pytest.raises(DecodeError, match=r"Control message\.plan\.tiles\[0\]\.hi: expected a slot above 3"):
        decode_control(data)


def test_the_bytes_of_a_decision_are_fixed() -> None:
    """Other releases must read what this one writes: a golden value."""
    assert encode_control(WorkerDied(3, "app-worker-1-00", "process exited with -9")) == (
        b'{"v":2,"kind":"worker-died","term":3,"incarnation":"app-worker-1-00","reason":"process exited with -9"}'
    )


def test_plans_of_the_first_format_are_still_read() -> None:
    """It knew no builds, and not which schemas a state was written with: that is empty then."""
    lines = Path(__file__).parents[1].joinpath("golden/job-control-v1.jsonl").read_bytes().splitlines()
    started, published = map(decode_control, lines)
    assert started == TermStarted(1, "leader.1")
    assert isinstance(published, PlanPublished)
    plan = published.plan
    assert plan.members == (Member("worker-0", "worker-0.2", ""),)
    assert plan.registry.states == {("baskets", "basket"): 1, ("baskets", "cents"): 2, ("baskets", "note"): 3}
    assert (plan.build, plan.registry.written, plan.registry.forms, plan.registry.retired) == ("", {}, {}, ())


def test_a_heartbeat_of_the_first_format_is_still_read() -> None:
    """A worker of an older release says no build, so it gets no tiles."""
    beat = Heartbeat("w-1", "w", "host", 1, 2, 3, ())
    old = encode_report(beat).replace(b'"v":2', b'"v":1').replace(b',"build":""', b"")
    assert decode_report(old) == beat


def test_the_first_format_with_later_fields_is_refused() -> None:
    """Strict as ever: a message is of one format."""
    new = encode_report(Heartbeat("w-1", "w", "host", 1, 2, 3, ())).replace(b'"v":2', b'"v":1')
    with pytest.raises(DecodeError, match="expected no further field, found 'build'"):
        decode_report(new)
