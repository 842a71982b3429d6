"""Records that failed, on their way to the operator's dead-letter topic, in the transaction of their epoch.

A dead letter has the original key and bytes (none, with a reference in the headers, when they do not fit) and headers
that say where it came from and why. Too many failures in one epoch stop the job: a bug must not drain a topic.

A timer or window whose handler failed is gone; its dead letter has the key, no value, and in the headers the name of
the state and the deadline (of a window its end), with an empty topic and the offset −1.
"""

from __future__ import annotations

from dataclasses import dataclass

from kstate.config import FailureSettings
from kstate.errors import DecodeError, KstateError, OperatorError
from kstate.interfaces import Batch, OutMessage
from kstate.plan import TopicPartition
from kstate.state.layout import Item

REASON_CHARS_MAX = 2_000


def fails_its_record(error: Exception) -> bool:
    """Whether what a user's function raised concerns its record alone; not so what the engine or the machine lacks."""
    return isinstance(error, DecodeError) or not isinstance(error, MemoryError | KstateError)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One failed record: where it stood, its original bytes, and why it failed; or a timer or window that failed."""

    source: TopicPartition
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    reason: str
    error: str
    timer: Item | None = None

    @property
    def place(self) -> str:
        """For people."""
        if self.timer is None:
            return f"{self.source}@{self.offset}"
        return f"{self.timer.name!r} due at {self.timer.at} in partition {self.source.partition}"

    def message(self, uid: str, bytes_max: int) -> OutMessage:
        """As a record of the dead-letter topic."""
        fits = len(self.value or b"") + len(self.key or b"") + len(self.reason) <= bytes_max
        headers = {
            "kstate.operator": uid,
            "kstate.reason": self.reason,
            "kstate.error": self.error,
            "kstate.topic": self.source.topic,
            "kstate.partition": str(self.source.partition),
            "kstate.offset": str(self.offset),
        }
        if self.timer is not None:
            headers |= {"kstate.timer": self.timer.name, "kstate.deadline": str(self.timer.at)}
        if not fits:
            headers["kstate.reference"] = f"{self.place}: the record is too large to be copied"
        return {
            "key": self.key if fits else None,
            "value": self.value if fits else None,
            "partition": 0,
            "timestamp": self.timestamp,
            "headers": [(name, text.encode(errors="replace")) for name, text in headers.items()],
        }


class Rejects:
    """The failed records of one operator in the running epoch."""

    def __init__(self, uid: str, bytes_max: int, *, stops: bool = False) -> None:
        """`bytes_max`: a dead letter that is larger goes without its original. `stops`: the first one ends the job."""
        self.uid = uid
        self._stops = stops
        self._bytes_max = bytes_max
        self.letters: list[DeadLetter] = []
        self.handled = 0
        """Records seen this epoch, and timers and windows that were due; failed ones included."""

    def add(self, batch: Batch, row: int, reason: str, error: BaseException | None = None) -> None:
        """Record `row` of the batch failed."""
        name = type(error).__name__ if error else "Rejected"
        letter = DeadLetter(
            batch.source,
            batch.offsets[row],
            batch.message_keys[row],
            batch.values[row],
            batch.timestamps[row],
            reason[:REASON_CHARS_MAX],
            name,
        )
        self.letters.append(letter)

    def add_timer(self, partition: int, item: Item, reason: str, error: BaseException) -> None:
        """The handler of a timer or window of this shard failed."""
        source, name = TopicPartition("", partition), type(error).__name__
        letter = DeadLetter(source, -1, item.key, None, item.at, reason[:REASON_CHARS_MAX], name, item)
        self.letters.append(letter)

    def messages(self) -> list[OutMessage]:
        """The dead letters as records of their topic."""
        return [letter.message(self.uid, self._bytes_max) for letter in self.letters]

    def clear(self) -> None:
        """The epoch is over."""
        self.letters.clear()
        self.handled = 0

    def check(self, limits: FailureSettings) -> None:
        """Raise OperatorError when too large a part of the epoch failed, or, where the job wants that, anything."""
        failed = len(self.letters)
        if failed and self._stops:
            first = self.letters[0]
            raise OperatorError(
                f'Operator {self.uid!r}: {first.place} failed with {first.error}: {first.reason}; on_error="stop".',
                hint="mend the operator or its input, then start the job again; nothing of this epoch was committed.",
            )
        if failed < limits.rejects_min or failed <= limits.reject_fraction_max * self.handled:
            return
        last = self.letters[-1]
        raise OperatorError(
            f"Operator {self.uid!r}: {failed:,} of {self.handled:,} records of one epoch failed, the last at "
            f"{last.place} with {last.error}: {last.reason}",
            hint="mend the operator or its input, then start the job again; nothing of this epoch was committed.",
        )
