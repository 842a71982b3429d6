"""The control topic and the leader's transactional id: the only place where the control plane writes what counts.

The steps of a commit are those at which a leader may die: what is then true is that the decision is either in the topic
or not, and whoever leads next reads which (S3, S4).
"""

from __future__ import annotations

from kstate.clock import Clock, Step, Steps
from kstate.errors import DecodeError, KstateError
from kstate.interfaces import Log, Producer, Reader
from kstate.messages import Control
from kstate.plan import TopicPartition, control_topic, leader_id
from kstate.state.freshness import fresh_end
from kstate.wire import decode_control, encode_control

_POLL_RECORDS = 1_000
CONTROL_WAIT = Step("control-wait", wait=0.01)


class ControlLog:
    """Reads the control topic in order, from its start, and writes to it under the leader's id."""

    def __init__(self, log: Log, app: str, clock: Clock) -> None:
        self._log = log
        self._app = app
        self._clock = clock
        self._partition = TopicPartition(control_topic(app), 0)
        self._reader: Reader | None = None
        self._position = 0
        self._producer: Producer | None = None

    def poll(self) -> list[Control]:
        """What has become visible since, without waiting."""
        messages: list[Control] = []
        for batch in self._opened_reader().poll(_POLL_RECORDS, 0.0):
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                messages.append(self._decoded(offset, value or b""))
            self._position = batch.next_offset
        return messages

    def visible(self) -> Steps[list[Control]]:
        """Everything that is committed now, without waiting for transactions that are open."""
        return (yield from self._read_to(self._log.end_offsets([self._partition], committed=True)[self._partition]))

    def fresh(self) -> Steps[list[Control]]:
        """Everything that was written before this call, once it is decided (S1, S3)."""
        return (yield from self._read_to((yield from fresh_end(self._log, self._partition, self._clock))))

    def open(self) -> Steps[None]:
        """Take the leader's id, which fences every leader before. Raises FencedError, RetryableError, ConfigError."""
        self.close_producer()
        self._producer = self._log.producer(leader_id(self._app))
        self._producer.open()
        yield Step("opened")

    def commit(self, name: str, message: Control) -> Steps[None]:
        """Write one message in a transaction of its own. Raises TaintedError when it may or may not stand there."""
        producer = self._producer
        assert producer is not None, "the leader's id is opened first"
        producer.begin()
        yield Step(f"{name}-begun")
        producer.send(self._partition.topic, [{"value": encode_control(message), "partition": 0}])
        producer.flush()
        yield Step(f"{name}-sent")
        producer.commit()
        yield Step(f"{name}-committed")

    def close_producer(self) -> None:
        """Discard the producer without touching its transaction."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def close(self) -> None:
        """Give everything up."""
        self.close_producer()
        if self._reader is not None:
            self._reader.close()

    def _read_to(self, end: int) -> Steps[list[Control]]:
        messages = self.poll()
        while self._position < end:
            yield CONTROL_WAIT
            messages += self.poll()
        return messages

    def _opened_reader(self) -> Reader:
        if self._reader is None:
            self._position = self._log.start_offsets([self._partition])[self._partition]
            self._reader = self._log.reader()
            self._reader.assign({self._partition: self._position})
        return self._reader

    def _decoded(self, offset: int, value: bytes) -> Control:
        try:
            return decode_control(value)
        except DecodeError as error:
            raise KstateError(
                f"{self._partition}@{offset} is no control message. {error}",
                hint="nothing but kstate may write to the control topic; see who did, and restore it from a copy.",
            ) from error
