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
    Fatality,
    Heartbeat,
    JobHalted,
    LeaderBeat,
    Order,
    OrderAnswered,
    OrderKind,
    PlanPublished,
    ProcessExited,
    Report,
    TermStarted,
    TilePhase,
    TileReport,
    WorkerDied,
)
from kstate.plan import Member, Move, MovePhase, Parked, Plan, Registry, Shard, Standby, Tile
from kstate.wire import decode_control, decode_report, encode_control, encode_report

GOLDEN = Path(__file__).parents[1] / "golden"
LOWER, UPPER = KeyRange(0, 32768), KeyRange(32768, SLOTS)
COUNT_0, COUNT_1 = Shard("count", 0), Shard("count", 1)
PLAN_OF_TODAY = Plan(
    "app",
    9,
    2,
    (Member("w-1", "w-1.1", "ab12"), Member("w-2", "w-2.1", "ab12")),
    ("w-3.1",),
    (
        Tile(COUNT_0, KeyRange(0, SLOTS), "w-1.1", 3),
        Tile(COUNT_1, LOWER, "w-3.1", 4),
        Tile(COUNT_1, UPPER, None, 9),
    ),
    Registry(operators={"count": 1}),
    {"words": 2},
    {("count", "words", 0): 0, ("count", "words", 1): 0},
    build="ab12",
    moves=(
        Move(8, COUNT_0, LOWER, "w-1.1", "w-2.1", 8, MovePhase.WARM, "1f3a"),
        Move(5, COUNT_0, UPPER, "w-1.1", "w-1.1", 9, MovePhase.RELEASE),
    ),
    standbys=(Standby(COUNT_0, KeyRange(0, SLOTS), "w-2.1"),),
    parked=(Parked(COUNT_1, UPPER, "count[1] [0x8000, 0x10000): words@17 killed 3 processes"),),
    drained=("w-2.1",),
)
REPORTS_OF_TODAY: list[Report] = [
    Heartbeat(
        "w-1.1",
        "w-1",
        "host",
        7,
        3,
        9,
        (TileReport(COUNT_0, LOWER, 8, TilePhase.WARMING, 0, {}, behind=12, state_bytes=345),),
        build="ab12",
        busy_percent=61,
        fatalities=(Fatality(COUNT_1, UPPER, "words", 17, 3),),
        queries="host:7070",
    ),
    Order("1f3a", OrderKind.SPLIT, COUNT_0, KeyRange(0, SLOTS), target="w-2", at=32768),
    Order("1f3c", OrderKind.DRAIN, worker="w-2"),
    ProcessExited("w-1.1", -9, restarts=True),
    LeaderBeat(2, "leader"),
]
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
    moves=st.lists(
        st.builds(Move, COUNT, SHARDS, RANGES, TEXT, TEXT, COUNT, st.sampled_from(MovePhase), TEXT), max_size=3
    ).map(tuple),
    standbys=st.lists(st.builds(Standby, SHARDS, RANGES, TEXT), max_size=3).map(tuple),
    parked=st.lists(st.builds(Parked, SHARDS, RANGES, TEXT), max_size=3).map(tuple),
    drained=st.lists(TEXT, max_size=3).map(tuple),
)
CONTROL: st.SearchStrategy[Control] = st.one_of(
    st.builds(TermStarted, COUNT, TEXT),
    st.builds(WorkerDied, COUNT, TEXT, TEXT),
    st.builds(JobHalted, COUNT, TEXT, COUNT),
    st.builds(PlanPublished, PLANS, TEXT, TEXT),
    st.builds(OrderAnswered, COUNT, TEXT, st.booleans(), TEXT),
)
TILE_REPORTS = st.builds(
    TileReport,
    SHARDS,
    RANGES,
    COUNT,
    st.sampled_from(TilePhase),
    COUNT,
    st.dictionaries(TEXT, COUNT, max_size=3),
    COUNT,
    COUNT,
)
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
        busy_percent=COUNT,
        fatalities=st.lists(st.builds(Fatality, SHARDS, RANGES, TEXT, COUNT, COUNT), max_size=3).map(tuple),
        queries=TEXT,
    ),
    st.builds(ProcessExited, TEXT, st.integers(-64, 255), st.booleans()),
    st.builds(LeaderBeat, COUNT, TEXT),
    st.builds(
        Order,
        id=TEXT,
        kind=st.sampled_from(OrderKind),
        shard=st.none() | SHARDS,
        key_range=st.none() | RANGES,
        worker=st.none() | TEXT,
        target=st.none() | TEXT,
        at=st.none() | COUNT,
        parts=COUNT,
    ),
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
    """One value of the JSON replaced, removed or added: DecodeError, or a message that encodes to just that JSON.

    But for its version: messages that say the same in an older format are written in the newest.
    """
    value = json.loads(data)
    _mutate(value, draw)
    mutated = json.dumps(value).encode()
    for again in (_control_again, _report_again):
        try:
            assert json.loads(again(mutated)) | {"v": value["v"]} == value
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
            b'{"v":4,"kind":"term-started","term":1,"leader":"a"}',
            "Control message.v: expected format version 1 to 3, found '4'",
        ),
        (b'{"v":1,"kind":"nonsense"}', "Control message.kind"),
        (b'{"v":2,"kind":"order-answered","term":1,"order":"o","accepted":true,"reason":""}', "Control message.kind"),
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


def test_a_phase_that_is_none_is_named() -> None:
    """Phases of moves and kinds of orders are closed lists."""
    data = encode_control(PlanPublished(PLAN_OF_TODAY)).replace(b'"phase":"release"', b'"phase":"nonsense"')
    with pytest.raises(DecodeError, match=r"plan\.moves\[1\]\.phase: expected one of warm, release, found 'nonsense'"):
        decode_control(data)
    order = encode_report(Order("1f3a", OrderKind.DRAIN)).replace(b'"drain"', b'"dance"')
    with pytest.raises(DecodeError, match=r"Report\.order: expected one of split, merge, move, drain, rebalance"):
        decode_report(order)


def test_the_bytes_of_a_decision_are_fixed() -> None:
    """Other releases must read what this one writes: a golden value."""
    assert encode_control(WorkerDied(3, "app-worker-1-00", "process exited with -9")) == (
        b'{"v":3,"kind":"worker-died","term":3,"incarnation":"app-worker-1-00","reason":"process exited with -9"}'
    )


def test_messages_of_the_third_format_are_read_and_written_as_they_stand() -> None:
    """Golden files: moves, standbys, parked ranges, drained workers, orders and their answers, fatalities."""
    control: list[Control] = [
        PlanPublished(PLAN_OF_TODAY, "why", "1f3a"),
        OrderAnswered(2, "1f3b", False, "unknown worker"),
    ]
    lines = GOLDEN.joinpath("control-v3.jsonl").read_bytes().splitlines()
    assert [decode_control(line) for line in lines] == control
    assert [encode_control(message) for message in control] == lines
    lines = GOLDEN.joinpath("reports-v3.jsonl").read_bytes().splitlines()
    assert [decode_report(line) for line in lines] == REPORTS_OF_TODAY
    assert [encode_report(message) for message in REPORTS_OF_TODAY] == lines


def test_plans_of_the_second_format_are_still_read() -> None:
    """It knew no moves, standbys, parked ranges, drained workers and orders: there are none then."""
    lines = GOLDEN.joinpath("job-control-v2.jsonl").read_bytes().splitlines()
    _, published = map(decode_control, lines)
    assert isinstance(published, PlanPublished)
    plan = published.plan
    assert plan.members == (Member("worker-0", "worker-0.2", "54b9f8a6"),)
    assert (published.order, plan.moves, plan.standbys, plan.parked, plan.drained) == ("", (), (), (), ())


def test_plans_of_the_first_format_are_still_read() -> None:
    """It knew no builds, and not which schemas a state was written with: that is empty then."""
    lines = GOLDEN.joinpath("job-control-v1.jsonl").read_bytes().splitlines()
    started, published = map(decode_control, lines)
    assert started == TermStarted(1, "leader.1")
    assert isinstance(published, PlanPublished)
    plan = published.plan
    assert plan.members == (Member("worker-0", "worker-0.2", ""),)
    assert plan.registry.states == {("baskets", "basket"): 1, ("baskets", "cents"): 2, ("baskets", "note"): 3}
    assert (plan.build, plan.registry.written, plan.registry.forms, plan.registry.retired) == ("", {}, {}, ())


OLDER = {
    1: [
        b',"build":""',
        b',"busy_percent":0',
        b',"fatalities":[]',
        b',"queries":""',
        b',"behind":0',
        b',"state_bytes":0',
        b',"marked_at":null',
        b',"base":0',
    ],
    2: [
        b',"busy_percent":0',
        b',"fatalities":[]',
        b',"queries":""',
        b',"behind":0',
        b',"state_bytes":0',
        b',"marked_at":null',
        b',"base":0',
    ],
}


@pytest.mark.parametrize("version", OLDER)
def test_heartbeats_of_older_formats_are_still_read(version: int) -> None:
    """A worker of an older release says less of itself; of the first one, no build, so it gets no tiles."""
    tile = TileReport(Shard("a", 0), KeyRange(0, 4), 1, TilePhase.RUNNING, 1, {})
    beat = Heartbeat("w-1", "w", "host", 1, 2, 3, (tile,))
    old = encode_report(beat).replace(b'"v":3', b'"v":%d' % version)
    for field in OLDER[version]:
        with pytest.raises(DecodeError, match="expected no further field"):
            decode_report(old)
        old = old.replace(field, b"")
    assert decode_report(old) == beat
