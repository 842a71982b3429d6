"""What a test sends, as messages: with the key, the partition and the form that the input expects."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from types import NoneType
from typing import Any

from kstate.api.specs import InputSpec, OperatorSpec, Topology
from kstate.errors import ConfigError
from kstate.interfaces import Codecs, OutMessage
from kstate.keyspace import PARTITIONERS, partition_of
from kstate.worker.stream_frames import record_frame


class Feed:
    """Makes messages for the inputs and tables of a job."""

    def __init__(self, topology: Topology, codecs: Codecs) -> None:
        self._topology = topology
        self._codecs = codecs
        self._unkeyed = count()

    def message(
        self,
        spec: OperatorSpec,
        given: InputSpec,
        record: Any,
        key: object,
        event_time: int,
        partitions: Mapping[str, int],
    ) -> OutMessage:
        """A record, or with None a tombstone, for an input of an operator. Raises ConfigError when it has no key."""
        key_bytes = self._key_bytes(spec, given, record, key)
        value = None if record is None else self._value(given, record, event_time)
        total = partitions[given.topic]
        if key_bytes is None:
            partition = next(self._unkeyed) % total
        else:
            partition = PARTITIONERS.get(given.partitioner, partition_of)(key_bytes, total)
        return {"key": key_bytes, "value": value, "partition": partition, "timestamp": event_time}

    def _value(self, given: InputSpec, record: Any, event_time: int) -> bytes:
        if given.format == "confluent":
            return self._codecs.framed(given.record, given.topic).encode(record)
        value = self._codecs.value(given.record).encode(record)
        return record_frame(event_time, value) if given.internal else value

    def _key_bytes(self, spec: OperatorSpec, given: InputSpec, record: Any, key: object) -> bytes | None:
        if key is None and given.key_field is not None:
            key = getattr(record, given.key_field)
        if key is None and given.source_uid is not None:
            key = self._emitted_key(given, record)
        if spec.key_type is not NoneType and key is None:
            raise ConfigError(
                f"send({spec.cls.__name__}.{given.name}, …) has no key, and the input does not say where it is.",
                hint="send(…, key=…): it is the message key that decides whose state the record meets.",
            )
        if key is None:
            return None
        anything = spec.key_type is NoneType
        if given.key_format == "confluent":
            return self._codecs.framed(type(key) if anything else spec.key_type, given.topic).encode(key)
        return self._codecs.key(Any if anything else spec.key_type).encode(key)

    def _emitted_key(self, given: InputSpec, record: Any) -> object:
        """The key that the writer of an internal stream gives a record; None: that of its own input."""
        source = self._topology.operator(given.source_uid or "")
        key = next(output.key for output in source.outputs if output.topic == given.topic)
        if key is None:
            return None
        return getattr(record, key) if isinstance(key, str) else key(record)
