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
        self._lost: DataLossError | None = None
        """Where it stood there is nothing any more; it has no other place yet."""
        self._begins = False
        """Reading a topic that was trimmed, before its first plan: what may stand before that counts no more."""
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
        while self._position < end or self._begins or self._reader is None:
            if self._begins:
                self._check_begun()
            yield CONTROL_WAIT
            self._read_on()
        return self._give_out()

    def _read_on(self) -> None:
        for batch in self._polled():
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                self._keep(offset, self._decoded(offset, value or b""))
            self._position = batch.next_offset

    def _polled(self) -> Sequence[Batch]:
        if self._lost is None:
            try:
                return self._opened().poll(POLL_RECORDS, 0.0)
            except DataLossError as error:
                self._lost = error  # the reader says it once, and nothing more
        if self._log.start_offsets([self.partition])[self.partition] <= self._position:
            raise self._lost
        self._leave()  # trimmed: all that counts stands in the plan with which it begins now, and behind it
        return []

    def _leave(self) -> None:
        self._lost = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _keep(self, offset: int, message: Control) -> None:
        if isinstance(message, PlanPublished):
            self.plans.append(offset)
            self._begins = False
        if not self._begins:
            self._kept.append(message)

    def _check_begun(self) -> None:
        """Raise ConfigError when what stands there is read, and no plan was among it."""
        if self._position >= self._log.end_offsets([self.partition], committed=True)[self.partition]:
            raise ConfigError(
                f"{self.partition} was trimmed, and no plan is left in it: what was decided before is lost.",
                hint="only kstate may trim the control topic; see who did, and restore it from a copy.",
            )

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
