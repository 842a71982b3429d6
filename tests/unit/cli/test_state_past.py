"""State as of a moment: every kind of it, by what the plan says alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from kstate import Context, Input, Job, Operator, ValueState
from kstate.cli.state_past import NOW, Backups, Moment, read_moment
from kstate.cli.state_rows import Row, Rows
from kstate.cli.state_view import StateView
from kstate.errors import ConfigError
from kstate.keyspace import FULL_RANGE
from kstate.plan import TopicPartition, backup_topic
from kstate.testing import Driver
from kstate.testing.memory_store import MemoryStore
from tests.unit.testing.test_driver_states import JOB, START, Act, All, Person, acts

SECOND = timedelta(seconds=1)


def past_of(driver: Driver, uid: str) -> StateView:
    """A reader of a driver's log that knows nothing of the job."""
    plan = driver._cluster.plan()
    assert plan is not None
    rows = Rows(plan, uid)
    return StateView(plan, rows, Backups(driver._log, driver._world.clock, plan.app, rows, MemoryStore).entries)


def told(rows: list[Row]) -> dict[str, list[Mapping[str, Any]]]:
    """Details of rows by state."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row.state].append(dict(row.details))
    return dict(found)


def backup_end(driver: Driver, uid: str) -> int:
    """Of partition 0."""
    place = TopicPartition(backup_topic("states", uid), 0)
    return driver._log.end_offsets([place], committed=True)[place]


def test_every_kind_of_state_is_shown_in_its_own_form() -> None:
    """As a driver reads it, which knows the classes."""
    with Driver(JOB) as d:
        d.send(All.people, Person("Kay"), key="k")
        d.send(All.acts, *acts("a", "b", "a"))
        rows = list(past_of(d, "all").scan(0, NOW))
        shown = told(rows)
        alarms = d.state(All.alarms, key="k")
    assert {row.key for row in rows if row.state != "total"} == {"k"}
    assert shown["value"] == [{"value": 3}]
    assert shown["brief"] == [{"expires": START + 13_000, "value": 3}]
    assert sorted((each["index"], each["value"]) for each in shown["numbers"]) == [(0, 1), (1, 2), (2, 3)]
    assert {each["at"]: each["value"] for each in shown["entries"]} == {1: "a", 2: "b", 3: "a"}
    assert {each["at"]: each["value"] for each in shown["seen"]} == {"a": 3, "b": 2}
    assert shown["windows"] == [{"window": [START, START + 5_000], "value": 3}]
    assert shown["alarm"] == [{"deadline": START + 4_000}]
    assert {each["tag"]: each["deadline"] for each in shown["alarms"]} == alarms
    assert shown["people"] == [{"value": {"name": "Kay"}}]
    assert [each["value"] for each in shown["total"]] == [{"total": 3}]


def test_a_key_is_found_in_whatever_partition_it_is() -> None:
    """Among its neighbours' keys; what has expired is not there."""
    with Driver(JOB, workers=2) as d:
        for key in ("k", "other", "x1", "x2"):
            d.send(All.acts, *acts("a", key=key))
        past = past_of(d, "all")
        assert [row.details for row in past.get("value", "x1", NOW)] == [{"value": 1}]
        assert past.get("value", "nobody", NOW) == []
        d.send(All.acts, *(Act(key, "x", 9, START + 60_000) for key in ("k", "other", "x1", "x2")))
        (row,) = past.get("recent", "x1", NOW)
        assert row.details["value"] == 9
        with pytest.raises(ConfigError, match=r"has no state 'valeu'.*alarm, alarms, brief"):
            past.get("valeu", "x1", NOW)


def test_a_moment_is_a_time_or_an_offset_and_two_can_be_compared() -> None:
    """What was committed later does not count; what came, went and changed is told."""
    with Driver(JOB) as d:
        d.send(All.acts, *acts("a", key="gone"), *acts("a", key="kept"), *acts("a", key="changed"))
        d.advance(SECOND)
        at = Moment(offset=backup_end(d, "all"))
        instant = Moment(time_ms=d._world.clock.time_ms())
        d.advance(SECOND)
        d.send(All.acts, *acts("b", "b", key="changed"), *acts("clear", key="gone"), *acts("c", key="new"))
        past = past_of(d, "all")
        for moment in (at, instant):
            then = [row for row in past.scan(0, moment) if row.state == "value"]
            assert {row.key: row.details["value"] for row in then} == {"gone": 1, "kept": 1, "changed": 1}
        changes = [
            (each.before and each.before.details["value"], each.after and each.after.details["value"], row.key)
            for each in past.diff(0, at, NOW, FULL_RANGE)
            if (row := each.after or each.before) and row.state == "value"
        ]
        assert sorted(changes, key=str) == [(1, 2, "changed"), (1, None, "gone"), (None, 1, "new")]
        assert list(past.diff(0, at, at, FULL_RANGE)) == []


class Place(NamedTuple):
    """A composite key."""

    city: str
    number: int


class Visits(Operator[Place], uid="visits"):
    """A value by composite key."""

    acts = Input(Act, topic="visits", rekey=lambda act: Place(act.name, act.number))
    n = ValueState(int, default=0)

    @acts.each
    def add(self, act: Act, ctx: Context) -> None:
        self.n.set(self.n.get() + 1)


def test_composite_keys_are_lists() -> None:
    """And are asked for as such."""
    with Driver(Job("places", [Visits])) as d:
        d.send(Visits.acts, *acts("a", "b", key="bonn"))
        past = past_of(d, "visits")
        assert sorted(row.key for p in past.partitions for row in past.scan(p, NOW)) == [["bonn", 1], ["bonn", 2]]
        (row,) = past.get("n", '["bonn", 2]', NOW)
        assert str(row).endswith('["bonn", 2]  n = 1')
        with pytest.raises(ConfigError, match="no key of type"):
            past.get("n", "bonn", NOW)


@pytest.mark.parametrize("text", ["yesterday", "2026-11-21T10:00:00", "@", "@-1", ""])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """A time without its offset from UTC is two moments, or more."""
    with pytest.raises(ConfigError, match=r"2026-11-21T10:00:00Z"):
        read_moment(text)


def test_moments_are_read() -> None:
    """Whatever their offset from UTC."""
    assert read_moment(None) == NOW
    assert read_moment("@17") == Moment(offset=17)
    assert read_moment("1970-01-01T01:00:01.5+01:00") == Moment(time_ms=1_500)


def test_an_operator_that_is_not_there_is_named() -> None:
    """With those that are."""
    with Driver(JOB) as d:
        d.send(All.acts, *acts("a"))
        with pytest.raises(ConfigError, match=r"has no operator 'al'.*all"):
            past_of(d, "al")
