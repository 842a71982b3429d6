"""The control topic and the leader's transactional id: the only place where the control plane writes what counts.

The steps of a commit are those at which a leader may die: what is then true is that the decision is either in the topic
or not, and whoever leads next reads which (S3, S4).
"""

from __future__ import annotations

from kstate.clock import Clock, Step, Steps
from kstate.interfaces import Log, Producer
from kstate.messages import Control
from kstate.plan import leader_id
from kstate.state.control import PLANS_NOTED, ControlReader
from kstate.wire import encode_control


class ControlLog(ControlReader):
    """Reads the control topic, and writes to it under the leader's id."""

    def __init__(self, log: Log, app: str, clock: Clock) -> None:
        super().__init__(log, app, clock)
        self._log = log
        self._app = app
        self._producer: Producer | None = None

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
        producer.send(self.partition.topic, [{"value": encode_control(message), "partition": 0}])
        producer.flush()
        yield Step(f"{name}-sent")
        producer.commit()
        yield Step(f"{name}-committed")

    def trim(self, plans_kept: int) -> int | None:
        """Delete what lies before so many of the newest plans, once there are twice as many; the offset of the oldest.

        Safe for whoever calls it, also for one that does not lead any more: the plans that stay are committed, each
        repeats who is a member and whose death is not yet dealt with (S3), and nobody deletes the newest. Not tried
        again before there are as many further plans. Raises RetryableError, ConfigError.
        """
        kept = min(plans_kept, PLANS_NOTED // 2)
        if len(self.plans) < 2 * kept:
            return None
        while len(self.plans) > kept:
            self.plans.popleft()
        self._log.delete_records({self.partition: self.plans[0]})
        return self.plans[0]

    def close_producer(self) -> None:
        """Discard the producer without touching its transaction."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def close(self) -> None:
        """Give everything up."""
        self.close_producer()
        super().close()
