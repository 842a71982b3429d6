"""The observer, in a process of its own: a plain read_committed consumer that notes when each result arrives.

    python -m benchmarks.elastic.observer SERVERS TOPIC PARENT FILE

It appends a row per result to the file (ROW), which others may read at any time. It never ends by itself, but with
its parent.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Message, TopicPartition

from benchmarks.elastic.keys import PARTITIONS, group_of
from kstate.adapters.process import die_with

ROW = np.dtype([("arrived", "<f8"), ("at", "<f8"), ("group", "<u2"), ("worker", "<u4")])
"""When it was seen and when its reading was produced (seconds since the Unix epoch), of which keys, made by which
process.
"""
MANY = 10_000


class Groups(dict[bytes, int]):
    """Key → group, worked out once."""

    def __missing__(self, key: bytes) -> int:
        group = self[key] = group_of(key)
        return group


def rows(messages: list[Message], groups: Groups, arrived: float) -> np.ndarray[Any, np.dtype[Any]]:
    """Rows of the results among these messages."""
    whole = [message for message in messages if not message.error()]
    found = np.empty(len(whole), ROW)
    means = np.frombuffer(b"".join(map(_value, whole)), "<f8").reshape(-1, 3)
    found["arrived"] = arrived
    found["at"], found["worker"] = means[:, 0], means[:, 2]
    found["group"] = [groups[message.key() or b""] for message in whole]
    return found


def _value(message: Message) -> bytes:
    return message.value() or b""


def main() -> None:
    """Follow the topic from its beginning."""
    servers, topic, parent, path = sys.argv[1:]
    die_with(int(parent))
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "observer",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    groups = Groups()
    with Path(path).open("ab", buffering=0) as file:
        while True:
            messages = consumer.consume(MANY, 0) or consumer.consume(1, 0.1)
            if messages:
                messages += consumer.consume(MANY, 0)
                file.write(rows(messages, groups, time.time()).tobytes())


if __name__ == "__main__":
    main()
