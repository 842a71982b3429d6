"""From the columns of a batch to typed records; what does not decode goes to the dead letters, nothing else is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kstate.api.specs import InputSpec
from kstate.errors import DecodeError
from kstate.interfaces import Batch, Codec
from kstate.worker.rejects import Rejects
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
    )


class InputDecoder:
    """Decodes the records of one input."""

    def __init__(self, spec: InputSpec, codec: Codec[Any], *, keyed: bool) -> None:
        self.spec = spec
        self._codec = codec
        self._keyed = keyed
        self._event_time = spec.event_time

    def decode(self, batch: Batch, rejects: Rejects) -> Decoded:
        """Typed records of a batch; rows without key (keyed inputs), without value or undecodable are rejected."""
        batch = self._present(batch, rejects)
        try:
            decoded = self._decode(batch)
        except DecodeError:
            batch = select(batch, self._decodable(batch, rejects))
            decoded = self._decode(batch)
        return self._timed(decoded, rejects)

    def _present(self, batch: Batch, rejects: Rejects) -> Batch:
        """Drop rows whose key or value is missing."""
        if None not in batch.values and not (self._keyed and None in batch.keys):
            return batch
        kept = []
        for row, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            if value is None:
                rejects.add(batch, row, f"null value on input {self.spec.name!r}; tombstones belong to tables")
            elif key is None and self._keyed:
                rejects.add(batch, row, f"null key on keyed input {self.spec.name!r}")
            else:
                kept.append(row)
        return select(batch, kept)

    def _decode(self, batch: Batch) -> Decoded:
        values: list[bytes] = batch.values  # type: ignore[assignment]  # rows without value are gone
        if self.spec.internal:
            times, values = split_record_frames(values)
            return Decoded(batch, self._codec.decode_many(values), times)
        records = self._codec.decode_many(values)
        if self._event_time is None:
            return Decoded(batch, records, batch.timestamps)
        return Decoded(batch, records, list(map(self._event_time, records)))

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

    def _timed(self, decoded: Decoded, rejects: Rejects) -> Decoded:
        """Without the records whose declared event time is not after the epoch."""
        if self._event_time is None or not decoded.event_times or min(decoded.event_times) > 0:
            return decoded
        kept = []
        for row, event_time in enumerate(decoded.event_times):
            if event_time > 0:
                kept.append(row)
            else:
                rejects.add(decoded.batch, row, f"event time {event_time} is not after 1970-01-01T00:00Z")
        return decoded.select(kept)
