"""The reader: positions, ends and gaps over librdkafka's consumer, told apart from the library itself.

A position moves behind every record given out, and to the end of the partition when the client says that it is reached:
only then are control records and aborted records behind it. It never moves otherwise. A partition that cannot be read
is read no further until it is assigned anew.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kstate.adapters.kafka_errors import NOT_THERE, Meaning, meaning, out_of_range, translated
from kstate.adapters.kafka_hearing import Hearing
from kstate.adapters.kafka_watch import ClientCallError, ClientWatch
from kstate.clock import Clock
from kstate.errors import KstateError, RetryableError
from kstate.interfaces import Batch
from kstate.plan import TopicPartition

_SILENCE_SECONDS: Final = 15.0
"""A reader that saw trouble and got nothing for so long asks whether the broker is still there."""
_LOGGER = logging.getLogger("kstate.kafka")
_CONSUME_MAX: Final = 1_000_000
"""The client's limit for one call."""


@dataclass(frozen=True, slots=True)
class Run:
    """Records of one partition as columns of equal length, at least one."""

    source: TopicPartition
    offsets: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps: list[int]


@dataclass(frozen=True, slots=True)
class Event:
    """What the client says of a partition: `code` _PARTITION_EOF at its end, otherwise why it cannot be read."""

    source: TopicPartition
    code: str
    text: str
    offset: int


class ConsumerClient(Protocol):
    """What is used of librdkafka's consumer; every method may raise ClientCallError."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None: ...

    def reassign(self, positions: Mapping[TopicPartition, int], gone: Collection[TopicPartition]) -> None:
        """Take `gone` out of the assignment, all of which are in it, then add `positions`, none of which is in it then.

        Nothing that was fetched for an earlier place of a partition comes out of `consume` afterwards.
        """
        ...

    def consume(self, count_max: int, seconds: float) -> list[Run | Event]:
        """In the order of the client's queue; waits until there are `count_max`, or for the whole time."""
        ...

    def renew(self) -> None:
        """Become a client that has seen nothing and reads nothing yet."""
        ...

    def discard(self) -> None: ...


class Offsets(Protocol):
    """What a reader asks of its log when something is wrong."""

    def offsets_now(self, source: TopicPartition) -> tuple[int | None, int | None]: ...

    def check_existence(self, sources: list[TopicPartition]) -> None: ...

    def start_offsets(self, partitions: list[TopicPartition]) -> Any: ...

    def end_offsets(self, partitions: list[TopicPartition], *, committed: bool) -> Mapping[TopicPartition, int]: ...


class KafkaReader:
    """`Reader` on Kafka."""

    def __init__(self, client: ConsumerClient, watch: ClientWatch, clock: Clock, log: Offsets) -> None:
        self._client = client
        self._watch = watch
        self._clock = clock
        self._log = log
        self._positions: dict[TopicPartition, int] = {}
        self._assigned: set[TopicPartition] = set()
        """What the client reads: partitions that cannot be read, too, which have no position any more."""
        self._at_end: dict[TopicPartition, int] = {}
        self._faults: dict[TopicPartition, KstateError] = {}
        """Raised by the polls after the one that gave out the records before them."""
        self._silent_since: float | None = None
        self._hearing = Hearing()

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._positions = dict(positions)
        self._at_end, self._faults = {}, {}
        self._watch.refusal = None
        self._watch.made_anew.clear()
        self._assign_all()

    def reassign(self, positions: Mapping[TopicPartition, int], gone: Iterable[TopicPartition] = ()) -> None:
        changed = {*positions, *gone}
        for facts in (self._positions, self._at_end, self._faults):
            for source in changed & facts.keys():
                del facts[source]
        self._watch.made_anew &= {source.topic for source in self._positions}  # a new place is a new decision
        self._positions |= positions
        try:
            self._client.reassign(positions, changed & self._assigned)
        except ClientCallError as error:
            self._watch.log(logging.INFO, "assigning all partitions anew: %s", error)
            self._assign_all()
        else:
            self._assigned = (self._assigned - changed) | positions.keys()
            self._hearing.end(changed)
            self._hearing.begin(positions, self._clock.monotonic())

    def _assign_all(self) -> None:
        try:
            self._client.assign(self._positions)
        except ClientCallError as error:
            raise self._watch.judged(error, "assigning partitions") from error
        self._hearing.end(self._assigned)
        self._assigned = set(self._positions)
        self._hearing.begin(self._positions, self._clock.monotonic())

    def poll(self, max_records: int, timeout: float) -> list[Batch]:
        self._check_refusal()
        if not self._faults:
            batches = self._batches(self._consume(min(max_records, _CONSUME_MAX), timeout))
            if batches or not self._faults:
                return batches
        raise self._faults.pop(next(iter(self._faults)))

    def at_end(self) -> Mapping[TopicPartition, int]:
        return self._at_end

    def close(self) -> None:
        self._client.discard()
        self._positions, self._at_end = {}, {}
        self._hearing.end(self._assigned)
        self._assigned = set()

    def _consume(self, count_max: int, timeout: float) -> list[Run | Event]:
        """What is there; where nothing is, wait for the first: a wait for many would always last for `timeout`."""
        try:
            found = self._client.consume(count_max, 0)
            if not found and timeout > 0:
                found = self._client.consume(1, timeout)
                if found and count_max > 1:
                    with suppress(ClientCallError):  # the client is past the first: a fault that lasts shows next time
                        found += self._client.consume(count_max - 1, 0)
        except ClientCallError as error:
            raise self._watch.judged(error, "reading") from error
        self._check_identity()
        now = self._clock.monotonic()
        for item in found:
            if isinstance(item, Run) or item.code == "_PARTITION_EOF":  # an error is no sign that it is read
                self._hearing.heard(item.source, now)
        if self._watch.troubles:  # what was found may have stood in the queue before
            self._hearing.trouble(now)
        self._listen(silent=not found)
        try:
            self._mend_deafness(busy=sum(len(item.offsets) for item in found if isinstance(item, Run)) >= count_max)
        except RetryableError:
            # What was found is not handed out again: losing it would be a gap. And mere quiet is no error.
            if not found and self._hearing.suspicious:
                raise
        return found

    def _mend_deafness(self, *, busy: bool) -> None:
        """Read with a new client when there is more of a partition that has not been heard of for too long."""
        now = self._clock.monotonic()
        due = [source for source in self._hearing.due(now, busy=busy) if source in self._positions]
        if not due:
            return
        ends = self._log.end_offsets(due, committed=True)
        for source in due:
            if ends[source] <= self._positions[source]:  # there is nothing to be heard of
                self._hearing.heard(source, now)
        deaf = [source for source in due if ends[source] > self._positions[source]]
        if not deaf:
            return
        _LOGGER.warning("nothing is heard of %s, which goes on: reading with a new client", deaf[0])
        try:
            self._client.renew()
        except ClientCallError as error:
            raise self._watch.judged(error, "reading") from error
        self._hearing.renewed()
        self._assign_all()

    def _check_identity(self) -> None:
        """Before anything is given out: the client reads on in a topic that was made anew, at the old position."""
        for source, position in self._positions.items() if self._watch.made_anew else ():
            if source.topic in self._watch.made_anew:
                raise out_of_range(source, position, *self._log.offsets_now(source))

    def _check_refusal(self) -> None:
        """What the client tells of topics, it tells to its error callback; a new topic may only seem not to exist."""
        if self._watch.refusal is not None:
            self._log.check_existence(list(self._positions))
            (code, text), self._watch.refusal = self._watch.refusal, None
            if code not in NOT_THERE:
                raise translated(code, text, "reading")

    def _listen(self, *, silent: bool) -> None:
        """RetryableError when trouble and silence last and the broker does not answer a question either."""
        now = self._clock.monotonic()
        if not silent or not self._watch.troubles:
            self._watch.clear()
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since >= _SILENCE_SECONDS:
            self._silent_since = now
            self._log.start_offsets(list(self._positions)[:1])
            self._watch.clear()

    def _batches(self, found: list[Run | Event]) -> list[Batch]:
        batches: dict[TopicPartition, Batch] = {}
        for item in found:
            if item.source in self._positions:  # otherwise left over from an earlier assignment
                if isinstance(item, Run):
                    self._take(self._unread(item), batches)
                else:
                    self._hear(item, batches)
        return list(batches.values())

    def _unread(self, run: Run) -> Run:
        """The records at and behind the position; earlier ones were fetched for an earlier assignment, or twice."""
        position = self._positions[run.source]
        if run.offsets[0] >= position:
            return run
        skip = bisect_left(run.offsets, position)
        return Run(run.source, run.offsets[skip:], run.keys[skip:], run.values[skip:], run.timestamps[skip:])

    def _take(self, run: Run, batches: dict[TopicPartition, Batch]) -> None:
        if not run.offsets:
            return
        next_offset = self._positions[run.source] = run.offsets[-1] + 1
        self._at_end.pop(run.source, None)
        batch = batches.get(run.source)
        if batch is None:
            batches[run.source] = Batch(run.source, next_offset, run.offsets, run.keys, run.values, run.timestamps)
            return
        batch.next_offset = next_offset
        batch.offsets += run.offsets
        batch.keys += run.keys
        batch.values += run.values
        batch.timestamps += run.timestamps

    def _hear(self, event: Event, batches: dict[TopicPartition, Batch]) -> None:
        """The end of a partition is reached, or it cannot be read."""
        source, position = event.source, self._positions[event.source]
        if event.code != "_PARTITION_EOF":
            if (fault := self._judged(event, position)) is not None:
                self._faults[source] = fault
                del self._positions[source]  # the client goes on behind a damaged batch: that would be a gap
                self._at_end.pop(source, None)
        elif event.offset >= position:
            self._positions[source] = self._at_end[source] = event.offset
            if event.offset == position:
                return
            batches.setdefault(source, Batch(source, event.offset)).next_offset = event.offset

    def _judged(self, event: Event, position: int) -> KstateError | None:
        text = self._watch.scrubbed(event.text)
        match meaning(event.code):
            case Meaning.DATA_LOSS if event.code in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"}:
                return out_of_range(event.source, position, *self._log.offsets_now(event.source))
            case Meaning.RETRY:  # the client itself tries again
                self._watch.log(logging.INFO, "reading %s: %s (%s)", event.source, text, event.code)
                return None
            case _:
                return translated(event.code, text, f"reading {event.source} at offset {position}")
