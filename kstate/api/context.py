"""What a handler is told beside the record: event time, watermark, where the record came from, a logger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class Source(NamedTuple):
    """The place of a record in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Logger(Protocol):
    """The worker's structured logger: `ctx.log.info("odd amount", source=str(ctx.source), amount=txn.amount)`."""

    def debug(self, event: str, **fields: Any) -> None: ...

    def info(self, event: str, **fields: Any) -> None: ...

    def warning(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **fields: Any) -> None: ...


class Context(Protocol):
    """Facts about the present call. It is reused from record to record: read it, never keep it."""

    @property
    def event_time(self) -> int:
        """When the record happened, milliseconds since the epoch."""
        ...

    @property
    def watermark(self) -> int:
        """No earlier event is expected any more, milliseconds since the epoch; it never goes back.

        `UNKNOWN_TIME` (the least int64) before anything is known.
        """
        ...

    @property
    def source(self) -> Source:
        """Topic, partition and offset of the record; in `fires` and `closes` the topic is empty, the offset −1."""
        ...

    @property
    def log(self) -> Logger: ...


class BatchContext(Context, Protocol):
    """Facts about a call with many records; `event_time`, `watermark` and `source` are those of the last one."""

    @property
    def keys(self) -> Sequence[Any]:
        """The key of each record."""
        ...

    @property
    def event_times(self) -> Sequence[int]:
        """The event time of each record, ms since the epoch."""
        ...
