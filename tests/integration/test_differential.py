"""The example jobs give byte for byte the same results in memory and on a real broker under kill -9.

The same records stand in the same places of both logs. In memory everything goes well; on the broker three workers are
killed with uncommitted work. KSTATE_DIFFERENTIAL_SEED gives another input.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random

import pytest
from confluent_kafka.cimpl import NewTopic

from kstate.adapters.avro import AvroCodecs
from kstate.adapters.embedded_broker import EmbeddedBroker
from kstate.api.topology import resolve
from kstate.plan import dlq_topic
from operators.dedup.operators import MEMORY
from operators.records import EnrichedOrder, Payment
from tests.support.cluster import Cluster, cluster
from tests.support.event_cluster import Circumstances, Message, Run
from tests.support.example_jobs import (
    DAY,
    INPUTS,
    OUTPUTS,
    PARTITIONS,
    TABLE,
    Input,
    Row,
    job,
)
from tests.support.oracle import bounds, committed, partitions_of, reader
from tests.support.sabotage import Deed, Order
from tests.support.topics import admin, plain_producer

EVENTS = 200_000
SEED = int(os.environ.get("KSTATE_DIFFERENTIAL_SEED", "1"))
IN_ORDER = ("word-counts", "top-pages", "sessions")
"""Windows of a key close in the order of their ends, wherever their records came from. Of the other outputs a key has
records of several partitions, between which there is no order.
"""
UIDS = [spec.uid for spec in resolve(job).operators]
JOB = "tests.support.example_jobs:job"

Output = tuple[bytes | None, bytes | None, int]
"""Key, value, timestamp."""
Phases = Sequence[tuple[list[Row], list[Row]]]
"""Of each phase the table, then the other inputs."""

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def phases() -> Phases:
    """All input."""
    given = Input(Random(SEED), EVENTS)
    return [(given.table(phase), given.records(phase)) for phase in (0, 1)]


def in_memory(phases: Phases) -> dict[str, list[Output]]:
    """What comes out when everything goes well, by topic."""
    run = Run(job, dict.fromkeys((*INPUTS, TABLE, *OUTPUTS), PARTITIONS), [], Circumstances(workers=2), Random(SEED))
    run.feed([*map(_message, phases[0][0]), *map(_message, phases[0][1])])
    run.work_off()
    for rows in phases[1]:
        run.feed([_message(row) for row in rows])
        run.work_off()
    assert [letter for uid in UIDS for letter in run.read(dlq_topic(job.app, uid))] == []
    return {topic: run.read(topic) for topic in OUTPUTS}


def _message(row: Row) -> Message:
    return Message(row.topic, {"key": row.key, "value": row.value, "partition": row.partition})


def on_a_broker(made: Cluster, phases: Phases) -> dict[str, list[Output]]:
    """What comes out of the real processes, two bounded runs of them, with three kills."""
    server = made.bootstrap_servers
    _create_topics(server)
    kills = [
        {"worker-1": Order("flushed", nth=2), "worker-2": Order("processed", nth=9)},
        {"worker-2": Order("markers-sent", nth=2)},
    ]
    for phase, rows in enumerate(phases):
        for part in rows:
            _produce(server, part)
        for worker, order in kills[phase].items():
            made.order(worker, order)
        run = made.command(f"run-{phase}", "run", JOB, "--workers", "2", "--until-end")
        assert run.wait(180) == 0, made.report()
    killed = [event for event in made.events() if event.deed == Deed.KILL.value]
    assert Counter((event.worker, event.step) for event in killed) == Counter(
        (worker, order.at) for orders in kills for worker, order in orders.items()
    )
    assert all(event.hand > 0 for event in killed), "one had no uncommitted work"
    assert _records_in(server, [dlq_topic(made.app, uid) for uid in UIDS]) == 0
    return {topic: [(seen.key, seen.value, seen.timestamp) for seen in committed(server, topic)] for topic in OUTPUTS}


def _produce(server: str, rows: Iterable[Row]) -> None:
    """By one producer: to start and flush one takes half a second."""
    producer = plain_producer(server)
    failed: list[object] = []
    for row in rows:
        while True:
            try:
                producer.produce(
                    row.topic,
                    row.value,
                    row.key,
                    row.partition,
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0
    assert not failed, failed[:3]


def _records_in(server: str, topics: Iterable[str]) -> int:
    """In all of these topics together, committed or not."""
    consumer = reader(server, "read_uncommitted")
    try:
        return sum(bounds(consumer, p)[1] for topic in topics for p in partitions_of(consumer, topic))
    finally:
        consumer.close()


def _create_topics(server: str) -> None:
    """The events are old: retention must not delete what comes out of them."""
    forever = {"retention.ms": "-1"}
    client = admin(server)
    topics = [NewTopic(topic, PARTITIONS, 1, config=forever) for topic in (*INPUTS, *OUTPUTS)]
    topics.append(NewTopic(TABLE, PARTITIONS, 1, config={"cleanup.policy": "compact"}))
    for future in client.create_topics(topics).values():
        future.result(30)


def by_key(outputs: Iterable[Output]) -> Mapping[bytes | None, list[Output]]:
    """In order."""
    found: dict[bytes | None, list[Output]] = defaultdict(list)
    for output in outputs:
        found[output[0]].append(output)
    return found


def difference(topic: str, memory: Sequence[Output], broker: Sequence[Output]) -> str | None:
    """What is not the same, None when all is."""
    missing, extra = Counter(memory) - Counter(broker), Counter(broker) - Counter(memory)
    if missing or extra:
        some = f"{list(missing.items())[:3]}, too many {list(extra.items())[:3]}"
        return f"{topic}: missing {missing.total()}, too many {extra.total()}: missing {some}"
    if topic in IN_ORDER:
        want, have = by_key(memory), by_key(broker)
        if wrong := [key for key in want if want[key] != have[key]]:
            return f"{topic}: {len(wrong)} keys in another order, the first is {wrong[0]!r}"
    return None


def test_memory_and_a_real_broker_give_the_same_bytes(
    phases: Phases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows, sessions, top-k over a re-key, a stream-table join, and values with ttl; event times too."""
    started = time.monotonic()
    wanted = in_memory(phases)
    in_memory_s = time.monotonic() - started
    settings = {"KSTATE_EPOCH__POLL_RECORDS": "2000"}
    with EmbeddedBroker() as broker, cluster(broker.bootstrap_servers, "", tmp_path, **settings) as made:
        got = on_a_broker(made, phases)
    with capsys.disabled():
        counts = ", ".join(f"{topic} {len(wanted[topic])}" for topic in OUTPUTS)
        both_s = time.monotonic() - started
        sys.stdout.write(f"\n{EVENTS} events: {in_memory_s:.0f} s in memory, {both_s:.0f} s in all; {counts}\n")
    assert [fault for topic in OUTPUTS if (fault := difference(topic, wanted[topic], got[topic]))] == []
    assert_nothing_is_trivial(phases, wanted)


def assert_nothing_is_trivial(phases: Phases, outputs: Mapping[str, Sequence[Output]]) -> None:
    """The same nothing from both would be no proof."""
    assert all(len(outputs[topic]) > 1_000 for topic in OUTPUTS)
    codecs = AvroCodecs()
    orders = codecs.value(EnrichedOrder).decode_many([value or b"" for _, value, _ in outputs["enriched-orders"]])
    assert sum(order.name is None for order in orders) > 1_000, "orders that were given up"
    assert sum(order.city == "Dresden" for order in orders) == 150, "orders that waited for the next phase's table"
    sent = [row.value or b"" for _, rows in phases for row in rows if row.topic == "payments"]
    payments = codecs.value(Payment).decode_many(sent)
    ids = {payment.id for payment in payments}
    assert len(ids) + 100 < len(outputs["payments-once"]) < len(payments) - 1_000, "repetitions, some after a week"
    assert max(p.ts for p in payments) - min(p.ts for p in payments) > DAY + MEMORY.total_seconds() * 1_000
