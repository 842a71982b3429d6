"""From the columns of a batch to typed records; what does not decode goes to the dead letters, nothing else is lost.

A batch is *received* before it is admitted: framed message keys become canonical key bytes, which slots and state go
by, and schemas that are not known yet are fetched. That may fail for a while without any harm: nothing was done yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kstate.api.specs import InputSpec
from kstate.errors import DecodeError
from kstate.interfaces import Batch, Codec, Codecs, FramedCodec, KeyFrames
from kstate.worker.rejects import Rejects, fails_its_record
from kstate.worker.stream_frames import split_record_frames


@dataclass(slots=True)
class Decoded:
    """Rows of one batch that decoded: `records[i]` and `event_times[i]` belong to row i of `batch`."""

    batch: Batch
    records: Sequence[Any]
    event_times: list[int]

    def select(self, rows: Sequence[int]) -> Decoded:
        """Only these rows, in this order."""
        return Decoded(select(self.batch, rows), [self.records[i] for i in rows], [self.event_times[i] for i in rows])


def select(batch: Batch, rows: Sequence[int]) -> Batch:
    """The batch with only these rows; its end stays."""
    return Batch(
        batch.source,
        batch.next_offset,
        [batch.offsets[i] for i in rows],
        [batch.keys[i] for i in rows],
        [batch.values[i] for i in rows],
        [batch.timestamps[i] for i in rows],
        None if batch.placed_keys is None else [batch.placed_keys[i] for i in rows],
    )


def input_decoder(spec: InputSpec, key_type: Any, codecs: Codecs) -> InputDecoder:
    """The decoder of an input of an operator with this key type; ConfigError when it needs a registry and has none."""
    keyed = key_type is not type(None)
    frames = codecs.key_frames(key_type, spec.topic) if spec.key_format == "confluent" else None
    if spec.format == "confluent":
        return InputDecoder(spec, codecs.framed(spec.record, spec.topic), keyed=keyed, frames=frames)
    return InputDecoder(spec, codecs.value(spec.record), keyed=keyed, frames=frames)


class InputDecoder:
    """Decodes the records of one input."""

    def __init__(
        self, spec: InputSpec, codec: Codec[Any] | FramedCodec[Any], *, keyed: bool, frames: KeyFrames | None = None
    ) -> None:
        """`frames`: of message keys that are framed; None: they are canonical as they are."""
        self.spec = spec
        self._codec = codec
        self._learn = codec.learn if spec.format == "confluent" and isinstance(codec, FramedCodec) else None
        self._frames = frames
        self._keyed = keyed
        self._event_time = spec.event_time

    def receive(self, batch: Batch) -> Batch:
        """The batch with canonical keys, all that it takes to decode it at hand; to be called before it is admitted.

        Raises RetryableError while the registry is away: nothing was done, read it again. Raises ConfigError when a
        schema cannot be read as the record class or the key type, or the keys have more than one.
        """
        if self._learn is not None:
            self._learn(batch.values)
        if self._frames is None or not len(batch):
            return batch
        return replace(batch, keys=self._frames.canonical(batch.keys), placed_keys=batch.keys)

    def decode(self, batch: Batch, rejects: Rejects) -> Decoded:
        """Typed records of a received batch; rows without key (keyed inputs), without value or undecodable are
        rejected. The record of a table's row without value is None.
        """
        batch = self._present(batch, rejects)
        try:
            return self._decode(batch)
        except DecodeError:
            return self._decode(select(batch, self._decodable(batch, rejects)))

    def _present(self, batch: Batch, rejects: Rejects) -> Batch:
        """Drop rows whose key or value is missing, or whose key was not readable."""
        no_value = self.spec.table is None and None in batch.values
        no_key = self._keyed and None in batch.keys
        if not no_value and not no_key and self._frames is None:
            return batch
        kept = []
        for row, (key, value, placed) in enumerate(zip(batch.keys, batch.values, batch.message_keys, strict=True)):
            if no_value and value is None:
                rejects.add(batch, row, f"null value on input {self.spec.name!r}; tombstones belong to tables")
            elif no_key and key is None:
                rejects.add(batch, row, f"null key on keyed input {self.spec.name!r}")
            elif self._frames is not None and key is not None and key is placed:
                rejects.add(batch, row, f"key does not decode: {self._frames.fault(key)}")
            else:
                kept.append(row)
        return batch if len(kept) == len(batch) else select(batch, kept)

    def _decode(self, batch: Batch) -> Decoded:
        if self.spec.table is not None and None in batch.values:
            return self._decode_table(batch)
        values: list[bytes] = batch.values  # type: ignore[assignment]  # rows without value are gone
        if self.spec.internal:
            times, values = split_record_frames(values)
            return Decoded(batch, self._codec.decode_many(values), times)
        records = self._codec.decode_many(values)
        if self._event_time is None:
            return Decoded(batch, records, batch.timestamps)
        try:
            return Decoded(batch, records, list(map(self._event_time, records)))
        except Exception as error:
            if not fails_its_record(error):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise DecodeError(f"event_time= of input {self.spec.name!r} failed with {reason}") from error

    def _decode_table(self, batch: Batch) -> Decoded:
        """Rows without value delete."""
        records: list[Any] = [None] * len(batch)
        rows = [row for row, value in enumerate(batch.values) if value is not None]
        values = [value for value in batch.values if value is not None]
        for row, record in zip(rows, self._codec.decode_many(values), strict=True):
            records[row] = record
        return Decoded(batch, records, batch.timestamps)

    def _decodable(self, batch: Batch, rejects: Rejects) -> list[int]:
        """The rows that decode on their own; the others are rejected."""
        rows = []
        for row in range(len(batch)):
            try:
                self._decode(select(batch, [row]))
                rows.append(row)
            except DecodeError as error:
                rejects.add(batch, row, str(error), error)
        return rows
