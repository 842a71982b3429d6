"""Reading the control topic, by workers and leaders alike: in order, whole, and to a fresh end where it counts (S3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from kstate.clock import Clock, Step, Steps
from kstate.errors import ConfigError, DataLossError, DecodeError, KstateError
from kstate.interfaces import Batch, Log, Reader
from kstate.messages import Control, PlanPublished
from kstate.plan import TopicPartition, control_topic
from kstate.state.freshness import fresh_end
from kstate.wire import decode_control

POLL_RECORDS = 1_000
CONTROL_WAIT = Step("control-wait", wait=0.01)


PLANS_NOTED = 10_000
"""Of so many of the newest plans it is known where they stand."""


class ControlReader:
    """Reads from the start of the topic on, which is its very beginning or, once it was trimmed, a whole plan.

    Every message is given out once: what was read before the broker stopped answering is kept for the next call. A
    reader that stood still for so long that what it had to read next is gone goes on at the plan that stands there now.
    """

    def __init__(self, log: Log, app: str, clock: Clock) -> None:
        self.partition = TopicPartition(control_topic(app), 0)
        self._log = log
        self._clock = clock
        self._reader: Reader | None = None
        self._position = 0
        self._kept: list[Control] = []
        """Read, and not given out yet."""
        self._begins = False
        """The next message is the first of a topic that was trimmed."""
        self.plans: deque[int] = deque(maxlen=PLANS_NOTED)
        """Offsets of the plans that were read, in order."""

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
        self._leave()

    def _read_to(self, end: int) -> Steps[list[Control]]:
        self._read_on()
        while self._position < end:
            yield CONTROL_WAIT
            self._read_on()
        return self._give_out()

    def _read_on(self) -> None:
        for batch in self._polled():
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                self._keep(offset, self._decoded(offset, value or b""))
            self._position = batch.next_offset

    def _polled(self) -> Sequence[Batch]:
        try:
            return self._opened().poll(POLL_RECORDS, 0.0)
        except DataLossError:
            if self._log.start_offsets([self.partition])[self.partition] <= self._position:
                raise
            self._leave()  # trimmed: all that counts stands in the plan with which it begins now, and behind it
            return self._opened().poll(POLL_RECORDS, 0.0)

    def _leave(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _keep(self, offset: int, message: Control) -> None:
        if isinstance(message, PlanPublished):
            self.plans.append(offset)
        elif self._begins:
            raise ConfigError(
                f"{self.partition} begins at offset {offset} with no plan: what was decided before is lost.",
                hint="only kstate may trim the control topic; see who did, and restore it from a copy.",
            )
        self._begins = False
        self._kept.append(message)

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
            self._reader, self._position, self._begins = reader, position, position > 0
        return self._reader

    def _decoded(self, offset: int, value: bytes) -> Control:
        try:
            return decode_control(value)
        except DecodeError as error:
            raise ConfigError(
                f"{self.partition}@{offset} is no control message. {error}",
                hint="nothing but kstate may write to the control topic; see who did, and restore it from a copy.",
            ) from error
