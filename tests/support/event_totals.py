"""Windows over two inputs and a re-key, and windows over those: one run on a cluster, compared with plain sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from random import Random

from kstate import Job
from kstate.keyspace import partition_of
from tests.support.event_cluster import CODECS, Message, Run, some_circumstances
from tests.support.event_jobs import (
    FAR_AHEAD,
    KEYS,
    WINDOW_MS,
    Event,
    Given,
    Groups,
    Total,
    Totals,
    group_of,
    key_of,
    some_events,
)
from tests.support.event_model import rows

PARTITIONS = 2
JOB = Job("totals", [Totals, Groups], epoch=timedelta(milliseconds=20), idle=timedelta(hours=5))
TOPICS = dict.fromkeys(("events", "others", "totals", "groups"), PARTITIONS)
END = 100_000
"""Event time of the last record of each partition, by which all windows are over."""


def totals_fault(seed: int) -> tuple[str | None, int]:
    """What is wrong with the windows of a run, None when nothing is; and how many faults it met."""
    rng = Random(seed)
    events = [*some_events(rng, 70, late=False), *_last_records()]
    others = [*some_events(rng, 50, late=False, first=1_000), *_last_records()]
    messages = _interleaved(rng, placed("events", events, rng), placed("others", others, rng))
    how = some_circumstances(rng)
    run = Run(JOB, TOPICS, messages, how, rng)
    run.work_off()
    wanted = _totals_of(events[:-PARTITIONS], others[:-PARTITIONS])
    for topic, want in (("totals", wanted), ("groups", _groups_of(wanted))):
        got = Counter(CODECS.value(Total).decode_many([value or b"" for _, value, _ in run.read(topic)]))
        if got != want:
            return f"seed {seed}, {how}: {topic}: missing {want - got}, too many {got - want}", 0
    return None, run.director.landed.total()


def placed(topic: str, given: Sequence[Given], rng: Random) -> list[Message]:
    """As Java producers place them; those without key anywhere."""
    return [
        Message(topic, {"key": key, "value": value, "partition": _partition(key, rng)}) for key, value in rows(given)
    ]


def _partition(key: bytes | None, rng: Random) -> int:
    return rng.randrange(PARTITIONS) if key is None else partition_of(key, PARTITIONS)


def _is_read(each: Given, *, keyed: bool) -> bool:
    """Whether an operator gets it."""
    return each.event is not None and (each.key is not None or not keyed) and 0 < each.event.ts < FAR_AHEAD


def _totals_of(events: Sequence[Given], others: Sequence[Given]) -> Counter[Total]:
    """What must come of every window, in any order."""
    sums: dict[tuple[str, int], list[int]] = {}
    read = [(key_of(each.event), each.event) for each in events if _is_read(each, keyed=False) and each.event]
    read += [(each.key or "", each.event) for each in others if _is_read(each, keyed=True) and each.event]
    for key, event in read:
        sums.setdefault((key, event.ts // WINDOW_MS * WINDOW_MS), []).append(event.id)
    return Counter(Total(key, start, len(ids), sum(ids), late=False) for (key, start), ids in sums.items())


def _groups_of(totals: Counter[Total]) -> Counter[Total]:
    """What must come of the second stage."""
    sums: dict[tuple[str, int], list[Total]] = {}
    for total in totals.elements():
        sums.setdefault((group_of(total), total.start // (2 * WINDOW_MS) * 2 * WINDOW_MS), []).append(total)
    return Counter(
        Total(key, start, sum(t.count for t in parts), sum(t.sum for t in parts), late=False)
        for (key, start), parts in sums.items()
    )


def _last_records() -> list[Given]:
    """One for each partition, by which all windows are over; its own window stays open."""
    keys = [next(key for key in KEYS if partition_of(key.encode(), PARTITIONS) == p) for p in range(PARTITIONS)]
    return [Given(key, Event(9_999, END, "none", 0)) for key in keys]


def _interleaved(rng: Random, *streams: Sequence[Message]) -> list[Message]:
    """In any order between the streams."""
    waiting = [list(stream) for stream in streams]
    merged: list[Message] = []
    while any(waiting):
        merged.append(rng.choice([stream for stream in waiting if stream]).pop(0))
    return merged
