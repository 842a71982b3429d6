"""The input of the running-average benchmark, and the alerts it must give."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from confluent_kafka import Producer

from benchmarks.broker import Broker
from kstate.adapters.avro import AvroCodecs
from kstate.keyspace import partition_of
from operators.records import Alert, Txn

SEED = 7
CHUNK = 50_000


def transactions(count: int, keys: int) -> Iterator[Txn]:
    """A fixed random sequence: amounts are log-normal, so that some are far above their account's mean."""
    rng = random.Random(SEED)
    accounts = [f"account-{i:06d}" for i in range(keys)]
    for number in range(count):
        amount = round(rng.lognormvariate(3.0, 1.0), 2)
        yield Txn(number, accounts[int(rng.random() * keys)], amount, 1_700_000_000_000 + number)


def preload(broker: Broker, topic: str, count: int, keys: int, partitions: int) -> None:
    """Write the sequence, raw Avro, placed as Java producers place it."""
    encode = AvroCodecs().value(Txn).encode
    producer = Producer(
        {"bootstrap.servers": broker.servers, "enable.idempotence": True, "linger.ms": 20, "compression.type": "lz4"}
    )
    placed: dict[str, int] = {}
    records = transactions(count, keys)
    while chunk := list(islice(records, CHUNK)):
        parts: dict[int, list[dict[str, bytes]]] = {partition: [] for partition in range(partitions)}
        for txn in chunk:
            partition = placed.get(txn.account)
            if partition is None:
                partition = placed[txn.account] = partition_of(txn.account.encode(), partitions)
            parts[partition].append({"key": txn.account.encode(), "value": encode(txn)})
        for partition, messages in parts.items():
            accepted = producer.produce_batch(topic, messages, partition)
            if accepted != len(messages):
                raise RuntimeError(f"preloading: {accepted} of {len(messages)} records were accepted")
        producer.flush(60)


def expected_alerts(count: int, keys: int) -> Counter[bytes]:
    """The alerts of the sequence as encoded records: per account in input order, so their multiset is determined."""
    encode = AvroCodecs().value(Alert).encode
    seen: dict[str, tuple[int, float]] = {}
    alerts: Counter[bytes] = Counter()
    for txn in transactions(count, keys):
        n, total = seen.get(txn.account, (0, 0.0))
        n, total = n + 1, total + txn.amount
        seen[txn.account] = (n, total)
        mean = total / n
        if n > 3 and txn.amount > 5 * mean:
            alerts[encode(Alert(txn.id, txn.account, txn.amount, mean))] += 1
    return alerts
