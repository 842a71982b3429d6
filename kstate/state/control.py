"""Reading the control topic, by workers and leaders alike: in order, whole, and to a fresh end where it counts (S3)."""

from __future__ import annotations

from kstate.clock import Clock, Step, Steps
from kstate.errors import ConfigError, DecodeError, KstateError
from kstate.interfaces import Log, Reader
from kstate.messages import Control
from kstate.plan import TopicPartition, control_topic
from kstate.state.freshness import fresh_end
from kstate.wire import decode_control

POLL_RECORDS = 1_000
CONTROL_WAIT = Step("control-wait", wait=0.01)


class ControlReader:
    """Reads from the start of the topic on.

    Every message is given out once: what was read before the broker stopped answering is kept for the next call.
    """

    def __init__(self, log: Log, app: str, clock: Clock) -> None:
        self.partition = TopicPartition(control_topic(app), 0)
        self._log = log
        self._clock = clock
        self._reader: Reader | None = None
        self._position = 0
        self._kept: list[Control] = []
        """Read, and not given out yet."""

    def poll(self) -> list[Control]:
        """What has become visible since, without waiting."""
        self._read_on()
        return self._give_out()

    def visible(self) -> Steps[list[Control]]:
        """Everything that is committed now, without waiting for transactions that are open."""
        return (yield from self._read_to(self._log.end_offsets([self.partition], committed=True)[self.partition]))

    def fresh(self) -> Steps[list[Control]]:
        """Everything that was written before this call, once it is decided (S1, S3)."""
        return (yield from self._read_to((yield from fresh_end(self._log, self.partition, self._clock))))

    def close(self) -> None:
        """Give up the reader."""
        if self._reader is not None:
            self._reader.close()

    def _read_to(self, end: int) -> Steps[list[Control]]:
        self._read_on()
        while self._position < end:
            yield CONTROL_WAIT
            self._read_on()
        return self._give_out()

    def _read_on(self) -> None:
        for batch in self._opened().poll(POLL_RECORDS, 0.0):
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                self._kept.append(self._decoded(offset, value or b""))
            self._position = batch.next_offset

    def _give_out(self) -> list[Control]:
        messages, self._kept = self._kept, []
        return messages

    def _opened(self) -> Reader:
        if self._reader is None:
            position = self._log.start_offsets([self.partition])[self.partition]
            reader = self._log.reader()
            try:
                reader.assign({self.partition: position})
            except KstateError:  # it would stay silent for ever
                reader.close()
                raise
            self._reader, self._position = reader, position
        return self._reader

    def _decoded(self, offset: int, value: bytes) -> Control:
        try:
            return decode_control(value)
        except DecodeError as error:
            raise ConfigError(
                f"{self.partition}@{offset} is no control message. {error}",
                hint="nothing but kstate may write to the control topic; see who did, and restore it from a copy.",
            ) from error
