"""Runs the handlers of one operator over batches of admitted records.

A handler call is atomic: if it raises, its state changes and outputs are undone and the record becomes a dead letter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kstate.api.operator import Operator
from kstate.api.specs import OperatorSpec
from kstate.clock import Step, Steps
from kstate.errors import ConfigError, DecodeError, KstateError
from kstate.interfaces import Batch, Store
from kstate.keyspace import PARTITIONERS
from kstate.plan import TopicPartition
from kstate.state.cache import Entry, StateColumn, check_changes
from kstate.worker.decode import Decoded, InputDecoder
from kstate.worker.handles import Handles
from kstate.worker.ownership import OwnedShard
from kstate.worker.rejects import Rejects

PROCESSED = Step("processed")
UNSET_WATERMARK = -(1 << 63)
KEY_BYTES_MAX = 65_536
"""The room that `StateSettings.value_bytes_max` leaves for a key, so that a key and its value fit into one block."""


class Processor:
    """One operator in this worker: its instance, bound handles, decoders and failed records.

    `careful` is set while an epoch is redone because a state value did not encode: values are then checked after every
    call, so that the culprit is found and becomes a dead letter.
    """

    def __init__(
        self,
        spec: OperatorSpec,
        instance: Operator[Any],
        handles: Handles,
        decoders: Mapping[str, InputDecoder],
        columns: Sequence[StateColumn],
        rejects: Rejects,
    ) -> None:
        """`instance` has its handles already; decoders go by topic, columns in the order of the states."""
        self.spec = spec
        self.instance = instance
        self.cursor = handles.cursor
        self.context = handles.context
        self.outputs = handles.outputs
        self.rejects = rejects
        self.careful = False
        self._decoders = decoders
        self._columns = columns
        self._keyed = spec.key_type is not type(None)
        self._handlers: dict[str, Callable[[Any, Any], None]] = {
            each.topic: each.handler.__get__(instance) for each in spec.inputs if each.handler is not None
        }

    def process(self, shard: OwnedShard, batch: Batch, store: Store, partitions: Mapping[str, int]) -> Steps[None]:
        """Admit, decode and handle one batch of one input."""
        admitted = shard.admit(batch)
        if not len(admitted):
            return
        self.rejects.handled += len(admitted)
        decoder = self._decoders[batch.source.topic]
        decoded = decoder.decode(admitted, self.rejects)
        if self._keyed:
            entries, decoded = self._entries(shard, decoded, store, partitions)
            decoded, entries = self._key_checked(decoder, decoded, entries)
            self._start(shard, decoded, decoder)
            self._handle_keyed(self._handlers[batch.source.topic], decoded, entries)
        else:
            self._start(shard, decoded, decoder)
            self._handle_unkeyed(self._handlers[batch.source.topic], decoded)
        self._advance_watermark(shard, decoded, decoder)
        yield PROCESSED

    def receive(self, batch: Batch) -> Batch:
        """A batch as its input's decoder needs it; RetryableError while the schema registry is away."""
        return self._decoders[batch.source.topic].receive(batch)

    def collected_bytes(self) -> int:
        """Size of the outputs collected in the running epoch."""
        return sum(output.size_bytes for output in self.outputs.values())

    def start_epoch(self) -> None:
        """Forget outputs and failed records: they are committed, or undone."""
        self.rejects.clear()
        self.cursor.journal.clear()
        for output in self.outputs.values():
            output.start_epoch()

    def _entries(
        self, shard: OwnedShard, decoded: Decoded, store: Store, partitions: Mapping[str, int]
    ) -> tuple[list[Entry], Decoded]:
        """The cache entry of each row; rows whose key does not decode are rejected."""
        source = decoded.batch.source
        count = partitions[source.topic]
        partitioner = self._decoders[source.topic].spec.partitioner
        place = PARTITIONERS.get(partitioner)
        framed = decoded.batch.placed_keys or ()
        placed_by = dict(zip(decoded.batch.keys, framed, strict=True)) if framed else {}

        def admit(key: bytes) -> None:
            if len(key) > KEY_BYTES_MAX:
                raise DecodeError(f"it has {len(key):,} bytes, the limit is {KEY_BYTES_MAX:,}")
            message_key = placed_by.get(key) or key
            if place is not None and place(message_key, count) != source.partition:
                expected = f"{partitioner} puts it into partition {place(message_key, count)} of {count}"
                raise _misplaced(self.spec.uid, source, message_key, expected)

        keys: list[bytes] = decoded.batch.keys  # type: ignore[assignment]  # rows without key are gone
        try:
            return shard.cache.entries(keys, store, admit), decoded
        except DecodeError:
            rows = []
            for row, key in enumerate(keys):
                try:
                    shard.cache.entries([key], store, admit)
                    rows.append(row)
                except DecodeError as error:
                    self.rejects.add(decoded.batch, row, f"key does not decode: {error}", error)
            kept = decoded.select(rows)
            return shard.cache.entries([keys[row] for row in rows], store, admit), kept

    def _key_checked(
        self, decoder: InputDecoder, decoded: Decoded, entries: list[Entry]
    ) -> tuple[Decoded, list[Entry]]:
        """Without the rows whose message key is not the field that the input names by `key=`."""
        name = decoder.spec.key_field
        if name is None:
            return decoded, entries
        fields = [getattr(record, name) for record in decoded.records]
        if fields == [entry.key for entry in entries]:
            return decoded, entries
        rows = []
        for row, (field, entry) in enumerate(zip(fields, entries, strict=True)):
            if field == entry.key:
                rows.append(row)
            else:
                self.rejects.add(
                    decoded.batch, row, f"message key {entry.key!r} differs from field {name!r}: {field!r}"
                )
        return decoded.select(rows), [entries[row] for row in rows]

    def _start(self, shard: OwnedShard, decoded: Decoded, decoder: InputDecoder) -> None:
        cursor = self.cursor
        cursor.batch, cursor.event_times, cursor.changed = decoded.batch, decoded.event_times, shard.cache.changed
        topic = decoded.batch.source.topic
        floor = min((piece.watermark.get(topic, UNSET_WATERMARK) for piece in shard.pieces), default=UNSET_WATERMARK)
        self.context.start_batch(floor, decoder.spec.lateness_ms)

    def _advance_watermark(self, shard: OwnedShard, decoded: Decoded, decoder: InputDecoder) -> None:
        """The watermark of the input rises to the highest event time less the lateness."""
        if decoder.spec.event_time is None or not decoded.event_times:
            return
        topic, reached = decoded.batch.source.topic, max(decoded.event_times) - decoder.spec.lateness_ms
        for piece in shard.pieces:
            piece.watermark[topic] = max(reached, piece.watermark.get(topic, reached))

    def _handle_keyed(self, handler: Callable[[Any, Any], None], decoded: Decoded, entries: Sequence[Entry]) -> None:
        cursor, context, instance, journal = self.cursor, self.context, self.instance, self.cursor.journal
        careful = self.careful
        for row, (entry, record) in enumerate(zip(entries, decoded.records, strict=True)):
            cursor.row = row
            cursor.entry = entry
            cursor.key_bytes = entry.key_bytes
            instance.key = entry.key
            try:
                handler(record, context)
                if careful:
                    check_changes(self._columns, self.cursor.journal)
            except Exception as error:  # noqa: BLE001 - whatever user code raises
                self._reject(row, error)
            else:
                journal.clear()

    def _handle_unkeyed(self, handler: Callable[[Any, Any], None], decoded: Decoded) -> None:
        cursor, context, journal = self.cursor, self.context, self.cursor.journal
        for row, (key, record) in enumerate(zip(decoded.batch.keys, decoded.records, strict=True)):
            cursor.row = row
            cursor.key_bytes = key
            try:
                handler(record, context)
            except Exception as error:  # noqa: BLE001 - whatever user code raises
                self._reject(row, error)
            else:
                journal.clear()

    def _reject(self, row: int, error: Exception) -> None:
        """Undo the call; its record becomes a dead letter, unless the failure is the engine's or the machine's."""
        self.cursor.undo()
        if isinstance(error, MemoryError | KstateError) and not isinstance(error, DecodeError):
            raise error
        assert self.cursor.batch is not None
        self.rejects.add(self.cursor.batch, row, str(error) or type(error).__name__, error)


def _misplaced(uid: str, source: TopicPartition, key: bytes, expected: str) -> ConfigError:
    return ConfigError(
        f"Operator {uid!r}: a record with key {key[:64]!r} stands in {source}, {expected}; "
        "two partitioners on one topic give one key two states.",
        hint="write the topic with the Java producer's partitioner (librdkafka: partitioner=murmur2_random), or, if "
        'one other partitioner writes all of it, declare Input(..., partitioner="crc32"), librdkafka\'s own, or '
        '"unchecked".',
    )
