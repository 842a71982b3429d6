"""From the bytes of a batch to typed records with the entries of their keys; what cannot be handled is rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kstate.api.specs import InputSpec
from kstate.errors import ConfigError, DecodeError
from kstate.interfaces import Batch
from kstate.keyspace import PARTITIONERS
from kstate.plan import TopicPartition
from kstate.state.cache import Entry
from kstate.state.columns import KEY_BYTES_MAX
from kstate.worker.decode import Decoded, InputDecoder
from kstate.worker.ownership import OwnedShard
from kstate.worker.rejects import Rejects
from kstate.worker.surroundings import Surroundings


class Admission:
    """Decides which records of an operator's inputs are handled."""

    def __init__(
        self,
        uid: str,
        decoders: Mapping[str, InputDecoder],
        rejects: Rejects,
        around: Surroundings,
        *,
        keyed: bool,
        timed: bool,
    ) -> None:
        """Decoders go by topic; `timed`: the operator goes by event time, or another further down."""
        self.rejects = rejects
        self._uid = uid
        self._decoders = decoders
        self._around = around
        self._keyed = keyed
        self._timed = timed

    def receive(self, batch: Batch) -> Batch:
        """The batch with canonical keys. RetryableError when that cannot be done now: nothing was done yet."""
        return self._decoders[batch.source.topic].receive(batch)

    def decoded(self, given: InputSpec, batch: Batch, clock_ms: int) -> Decoded:
        """The records that decode and happened at a plausible time, not far ahead of the clock."""
        self.rejects.handled += len(batch)
        decoded = self._decoders[given.topic].decode(batch, self.rejects)
        return (
            decoded
            if given.internal or given.table is not None
            else self._plausible(given, decoded, clock_ms, self.rejects)
        )

    def times(self, given: InputSpec, foreign: Batch, clock_ms: int) -> list[tuple[int, int]]:
        """Offset and event time of the records of other pieces that count there; what does not is rejected there."""
        unheard = Rejects(self._uid, 0)
        decoded = self._plausible(given, self._decoders[given.topic].decode(foreign, unheard), clock_ms, unheard)
        return list(zip(decoded.batch.offsets, decoded.event_times, strict=True))

    @staticmethod
    def counting(given: InputSpec, times: Sequence[int], clock_ms: int) -> Sequence[int]:
        """The event times that count: those of records that an operator handles though it would refuse them if it went
        by event time do not. A later version of it may, and goes on from the marked watermark.
        """
        latest = clock_ms + given.ahead_ms
        return times if not times or max(times) <= latest else [time for time in times if time <= latest]

    def _plausible(self, given: InputSpec, decoded: Decoded, clock_ms: int, rejects: Rejects) -> Decoded:
        """Without records whose event time would make all others late, or is none."""
        times, latest = decoded.event_times, clock_ms + given.ahead_ms
        if not self._timed and given.event_time is None:
            return decoded  # nobody goes by it
        if not times or (max(times) <= latest and min(times) > 0):
            return decoded
        kept = []
        for row, event_time in enumerate(times):
            if event_time > latest:
                ahead = f"event time {event_time} is {event_time - clock_ms:,} ms ahead of the clock"
                rejects.add(decoded.batch, row, f"{ahead}, input {given.name!r} allows {given.ahead_ms:,} (ahead=)")
            elif event_time <= 0:
                rejects.add(decoded.batch, row, f"event time {event_time} is not after 1970-01-01T00:00Z")
            else:
                kept.append(row)
        return decoded.select(kept)

    def entered(self, shard: OwnedShard, given: InputSpec, decoded: Decoded) -> tuple[Decoded, list[Entry]]:
        """Those whose keys are in order, with an entry for each; no entries where the operator has no key."""
        if not self._keyed:
            return decoded, []
        entries, decoded = self._entries(shard, given, decoded)
        return self._key_checked(given, decoded, entries)

    def _entries(self, shard: OwnedShard, given: InputSpec, decoded: Decoded) -> tuple[list[Entry], Decoded]:
        """The cache entry of each row; rows whose key does not decode are rejected."""
        source = decoded.batch.source
        count, store, partitioner = self._around.partitions[source.topic], self._around.store, given.partitioner
        place, placed = PARTITIONERS.get(partitioner), decoded.batch.placed_keys
        message_keys = {} if placed is None else dict(zip(decoded.batch.keys, placed, strict=True))

        def admit(key: bytes) -> None:
            if len(key) > KEY_BYTES_MAX:
                raise DecodeError(f"it has {len(key):,} bytes, the limit is {KEY_BYTES_MAX:,}")
            message_key = message_keys.get(key) or key
            if place is not None and place(message_key, count) != source.partition:
                expected = f"{partitioner} puts it into partition {place(message_key, count)} of {count}"
                raise _misplaced(self._uid, source, message_key, expected)

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

    def _key_checked(self, given: InputSpec, decoded: Decoded, entries: list[Entry]) -> tuple[Decoded, list[Entry]]:
        """Without the rows whose message key is not the field that the input names by `key=`."""
        name = given.key_field
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


def _misplaced(uid: str, source: TopicPartition, key: bytes, expected: str) -> ConfigError:
    return ConfigError(
        f"Operator {uid!r}: a record with key {key[:64]!r} stands in {source}, {expected}; "
        "two partitioners on one topic give one key two states.",
        hint="write the topic with the Java producer's partitioner (librdkafka: partitioner=murmur2_random), or, if "
        'one other partitioner writes all of it, declare Input(..., partitioner="crc32"), librdkafka\'s own, or '
        '"unchecked".',
    )
